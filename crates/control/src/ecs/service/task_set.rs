//! Task sets: revisions of a service that a deployment controller of the user's brings into use.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-external.html>.

use super::super::capacity_provider::{self, Capacity};
use super::super::run_task::{
    active_definition, check_for_fargate, check_launch_type, check_platform_version, short,
};
use super::super::{failure, invalid, reference, tag};
use super::{load_balancers, new_network, registries, render};
use crate::api::Call;
use crate::context::RandomIds;
use crate::refuse::Given;
use longshore_ecs as ecs;
use longshore_engine::{View, service as engine};
use longshore_model::cluster::Cluster;
use longshore_model::service::{
    Controller, Deployment, Service, ServiceLoadBalancer, ServiceRegistry, Status, TaskSet, TaskSetStatus,
};
use longshore_model::{Tags, Timestamp};
use std::sync::Arc;

/// The most task sets of a service.
const MOST: usize = 20;

pub async fn create(
    call: Call,
    request: ecs::CreateTaskSetRequest,
) -> Result<ecs::CreateTaskSetResponse, ecs::Error> {
    let command = Create::parse(request)?;
    let now = call.context.now();
    let (service, id) = call
        .context
        .commit::<_, ecs::Error, _>(|snapshot, transaction| {
            let view = &snapshot.view;
            let (cluster, present) = find(view, &call, &command.cluster, &command.service)?;
            if let Some(same) = command.made_before(&present) {
                return Ok((present.clone(), same));
            }
            if present.task_sets.len() >= MOST {
                return Err(ecs::Error::LimitExceededException(format!(
                    "The service has {MOST} task sets, which is the most."
                )));
            }
            let set = command.resolve(view, &cluster, &present, now)?;
            let id = set.deployment.id.clone();
            let mut next = changed(&present);
            next.task_sets.push(set);
            transaction.update(&next);
            Ok((Arc::new(next), id))
        })
        .await?;
    Ok(ecs::CreateTaskSetResponse { task_set: shown(&call, &service, &id, true) })
}

/// CreateTaskSet, with all that can be checked without the records.
struct Create {
    cluster: String,
    service: String,
    task_definition: String,
    network: Option<ecs::AwsVpcConfiguration>,
    capacity: Capacity,
    load_balancers: Vec<ServiceLoadBalancer>,
    registries: Vec<ServiceRegistry>,
    platform_version: Option<String>,
    scale: u32,
    external_id: Option<String>,
    client_token: Option<String>,
    tags: Tags,
}

impl Create {
    fn parse(request: ecs::CreateTaskSetRequest) -> Result<Self, ecs::Error> {
        let ecs::CreateTaskSetRequest {
            service,
            cluster,
            external_id,
            task_definition,
            network_configuration,
            load_balancers,
            service_registries,
            launch_type,
            capacity_provider_strategy,
            platform_version,
            scale,
            client_token,
            tags,
        } = request;
        check_platform_version(platform_version.as_deref())?;
        let strategy = capacity_provider::strategy(capacity_provider_strategy)?;
        Ok(Self {
            cluster,
            service,
            task_definition,
            network: network_configuration.and_then(|network| network.awsvpc_configuration),
            capacity: Capacity::new(launch_type, strategy)?,
            load_balancers: load_balancers::parse(load_balancers.unwrap_or_default())?,
            registries: registries::parse(service_registries.unwrap_or_default())?,
            platform_version: platform_version.filter(|version| !version.is_empty()),
            scale: scale.map_or(Ok(0), parse_scale)?,
            external_id: external_id.filter(|id| !id.is_empty()),
            client_token: short("clientToken", client_token, 36)?,
            tags: tag::parse(tags)?,
        })
    }

    /// The task set that a request with the same token has made.
    fn made_before(&self, service: &Service) -> Option<String> {
        let token = self.client_token.as_ref()?;
        let made = service.task_sets.iter().find(|set| set.client_token.as_ref() == Some(token));
        made.map(|set| set.deployment.id.clone())
    }

    fn resolve(
        &self,
        view: &View,
        cluster: &Cluster,
        service: &Service,
        now: Timestamp,
    ) -> Result<TaskSet, ecs::Error> {
        let (launch_type, strategy) = self.capacity.resolve(view, cluster)?;
        let definition = active_definition(view, &service.scope, &self.task_definition)?;
        check_launch_type(&definition, launch_type)?;
        let (constraints, strategies) = (!service.constraints.is_empty(), !service.strategies.is_empty());
        check_for_fargate(launch_type, self.platform_version.is_some(), constraints, strategies)?;
        let network = new_network(view, service, &definition, self.network.as_ref())?;
        load_balancers::check(view, service, &definition, &self.load_balancers)?;
        registries::check(view, service, &definition, &self.registries)?;
        let (version, ids) = (self.platform_version.clone(), &mut RandomIds);
        let balancers = self.load_balancers.clone();
        let made = engine::deployment(&definition, network, version, strategy, balancers, now, ids);
        Ok(TaskSet {
            deployment: Deployment { registries: self.registries.clone(), ..made },
            launch_type,
            status: TaskSetStatus::Active,
            scale: self.scale,
            stable: false,
            stable_at: now,
            external_id: self.external_id.clone(),
            client_token: self.client_token.clone(),
            tags: self.tags.clone(),
        })
    }
}

/// Thousandths of a percent.
fn parse_scale(given: ecs::Scale) -> Result<u32, ecs::Error> {
    let ecs::Scale { value, unit: None | Some(ecs::ScaleUnit::Percent) } = given;
    let value = value.unwrap_or(0.0);
    if !(0.0..=100.0).contains(&value) {
        return Err(invalid(format!("scale must be between 0 and 100 percent, and is {value}.")));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is 0 to 100,000")]
    Ok((value * 1000.0).round() as u32)
}

pub async fn update(
    call: Call,
    request: ecs::UpdateTaskSetRequest,
) -> Result<ecs::UpdateTaskSetResponse, ecs::Error> {
    let ecs::UpdateTaskSetRequest { cluster, service, task_set, scale } = request;
    let scale = parse_scale(scale)?;
    let now = call.context.now();
    let (service, id) = change(&call, &cluster, &service, &task_set, |next, place| {
        let Some(set) = next.task_sets.get_mut(place) else { return Ok(()) };
        if set.status == TaskSetStatus::Draining {
            return Err(invalid("The task set is draining, and cannot be changed."));
        }
        if set.scale != scale {
            set.scale = scale;
            (set.stable, set.stable_at) = (false, now);
            set.deployment.updated_at = now;
        }
        Ok(())
    })
    .await?;
    Ok(ecs::UpdateTaskSetResponse { task_set: shown(&call, &service, &id, true) })
}

pub async fn update_primary(
    call: Call,
    request: ecs::UpdateServicePrimaryTaskSetRequest,
) -> Result<ecs::UpdateServicePrimaryTaskSetResponse, ecs::Error> {
    let ecs::UpdateServicePrimaryTaskSetRequest { cluster, service, primary_task_set } = request;
    let now = call.context.now();
    let (service, id) = change(&call, &cluster, &service, &primary_task_set, |next, place| {
        for (index, set) in next.task_sets.iter_mut().enumerate() {
            let status = match (index == place, set.status) {
                (true, TaskSetStatus::Draining) => {
                    return Err(invalid("The task set is draining, and cannot become the PRIMARY one."));
                }
                (true, _) => TaskSetStatus::Primary,
                (false, TaskSetStatus::Primary) => TaskSetStatus::Active,
                (false, other) => other,
            };
            if set.status != status {
                set.status = status;
                set.deployment.updated_at = now;
            }
        }
        Ok(())
    })
    .await?;
    Ok(ecs::UpdateServicePrimaryTaskSetResponse { task_set: shown(&call, &service, &id, true) })
}

pub async fn delete(
    call: Call,
    request: ecs::DeleteTaskSetRequest,
) -> Result<ecs::DeleteTaskSetResponse, ecs::Error> {
    let ecs::DeleteTaskSetRequest { cluster, service, task_set, force } = request;
    let now = call.context.now();
    let (service, id) = change(&call, &cluster, &service, &task_set, |next, place| {
        let Some(set) = next.task_sets.get_mut(place) else { return Ok(()) };
        if set.scale > 0 && !force.unwrap_or(false) {
            return Err(invalid(
                "The task set cannot be deleted while it is scaled above 0, unless with force.",
            ));
        }
        if set.status != TaskSetStatus::Draining {
            set.status = TaskSetStatus::Draining;
            set.deployment.updated_at = now;
        }
        Ok(())
    })
    .await?;
    Ok(ecs::DeleteTaskSetResponse { task_set: shown(&call, &service, &id, true) })
}

pub async fn describe(
    call: Call,
    request: ecs::DescribeTaskSetsRequest,
) -> Result<ecs::DescribeTaskSetsResponse, ecs::Error> {
    let ecs::DescribeTaskSetsRequest { cluster, service, task_sets, include } = request;
    let view = call.context.view();
    let (_, service) = find(&view, &call, &cluster, &service)?;
    let with_tags = include.unwrap_or_default().contains(&ecs::TaskSetField::Tags);
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for given in task_sets.iter().flatten() {
        match place(&service, given).and_then(|place| service.task_sets.get(place)) {
            Some(set) => found.push(set),
            None => failures.push(failure(Some(given.clone()), "MISSING")),
        }
    }
    if !task_sets.given() {
        found = service.task_sets.iter().collect();
    }
    let shown = found.into_iter().map(|set| render::task_set(&view, &service, set, with_tags));
    Ok(ecs::DescribeTaskSetsResponse { task_sets: Some(shown.collect()), failures: Some(failures) })
}

/// Changes the task set that is named, and nothing when that changes nothing.
async fn change(
    call: &Call,
    cluster: &str,
    service: &str,
    task_set: &str,
    apply: impl Fn(&mut Service, usize) -> Result<(), ecs::Error>,
) -> Result<(Arc<Service>, String), ecs::Error> {
    let commit = call.context.commit::<_, ecs::Error, _>(|snapshot, transaction| {
        let (_, present) = find(&snapshot.view, call, cluster, service)?;
        let place = place(&present, task_set).ok_or_else(not_found)?;
        let id = present.task_sets.get(place).map(|set| set.deployment.id.clone()).unwrap_or_default();
        let mut next = (*present).clone();
        apply(&mut next, place)?;
        if next == *present {
            return Ok((present, id));
        }
        let next = changed(&next);
        transaction.update(&next);
        Ok((Arc::new(next), id))
    });
    commit.await
}

fn changed(service: &Service) -> Service {
    Service { version: service.version + 1, steady: false, ..service.clone() }
}

/// The service, where task sets can be of it.
fn find(
    view: &View,
    call: &Call,
    cluster: &str,
    service: &str,
) -> Result<(Arc<Cluster>, Arc<Service>), ecs::Error> {
    let cluster = reference::cluster(view, call.scope(), Some(cluster))?;
    let service = reference::service(view, call.scope(), &cluster.name, service)?;
    if service.status != Status::Active {
        return Err(ecs::Error::ServiceNotActiveException("Service was not ACTIVE.".to_owned()));
    }
    if service.controller != Controller::External {
        return Err(invalid(
            "Amazon ECS only supports task set management on services configured to use external deployment \
             controllers.",
        ));
    }
    Ok((cluster, service))
}

/// The place of a task set among those of its service, by its id or ARN.
fn place(service: &Service, given: &str) -> Option<usize> {
    service.task_sets.iter().position(|set| set.deployment.id == given || set.arn(service) == given)
}

fn not_found() -> ecs::Error {
    ecs::Error::TaskSetNotFoundException("The specified task set could not be found.".to_owned())
}

fn shown(call: &Call, service: &Service, id: &str, with_tags: bool) -> Option<ecs::TaskSet> {
    let set = service.task_sets.iter().find(|set| set.deployment.id == id)?;
    Some(render::task_set(&call.context.view(), service, set, with_tags))
}
