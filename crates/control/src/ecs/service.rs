//! Services: create, update, delete, describe, list. What they do is decided in the engine; a handler only writes down
//! what is wanted.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_services.html>.

mod configuration;
mod deployment;
mod load_balancers;
mod protection;
mod registries;
mod render;
mod settings;
pub mod task_set;

pub use deployment::{
    continue_deployment, describe as describe_deployments, describe_revisions, list as list_deployments,
    stop as stop_deployment,
};
pub use protection::{describe as protection, update as protect};

use super::capacity_provider::{self, Capacity};
use super::page::{Order, page};
use super::run_task::{active_definition, check_launch_type, network, short};
use super::task::render::launch_type as render_launch_type;
use super::{client, failure, invalid, is_name, reference, tag};
use crate::api::Call;
use crate::context::RandomIds;
use longshore_ecs as ecs;
use longshore_engine::{View, service as engine};
use longshore_model::capacity_provider::StrategyItem;
use longshore_model::cluster::Cluster;
use longshore_model::service::{
    Controller, Deployment, DeploymentConfiguration, Hook, HookTarget, NetworkConfiguration,
    SchedulingStrategy, Service, Status, TaskSet, TaskSetStatus,
};
use longshore_model::task_definition::TaskDefinition;
use longshore_model::{Record, Tags, Timestamp, Transaction, arn};
use settings::Settings;
use std::sync::Arc;

pub async fn create(
    call: Call,
    request: ecs::CreateServiceRequest,
) -> Result<ecs::CreateServiceResponse, ecs::Error> {
    let command = Create::parse(request)?;
    let now = call.context.now();
    let service = call
        .context
        .commit::<_, ecs::Error, _>(|snapshot, transaction| {
            let view = &snapshot.view;
            let (mut wanted, strategy) = command.resolve(view, &call, now)?;
            let first = match wanted.controller {
                Controller::Ecs | Controller::CodeDeploy => {
                    Some(deployment(view, &wanted, &command.settings, strategy, now)?)
                }
                Controller::External => None,
            };
            if wanted.controller == Controller::CodeDeploy {
                check_balancer(first.as_ref())?;
            }
            let present = view.services.get(&wanted.key());
            match present.map(|present| (present, present.status)) {
                None => {
                    begin(view, &mut wanted, first, transaction);
                    transaction.create(&wanted);
                }
                Some((present, Status::Active)) if is_same(present, &wanted, first.as_ref()) => {
                    return Ok((**present).clone());
                }
                Some((_, Status::Active)) => return Err(invalid("Creation of service was not idempotent.")),
                Some((_, Status::Draining)) => {
                    return Err(invalid("Unable to Start a service that is still Draining."));
                }
                Some((present, Status::Inactive)) => {
                    wanted.events = present.events;
                    wanted.version = present.version + 1;
                    begin(view, &mut wanted, first, transaction);
                    transaction.update(&wanted);
                }
            }
            transaction.rely_on(Cluster::key_of(&wanted.scope, &wanted.cluster));
            Ok(wanted)
        })
        .await?;
    Ok(ecs::CreateServiceResponse { service: Some(render::service(&call.context.view(), &service, true)) })
}

/// CreateService, with all that can be checked without the records.
struct Create {
    cluster: Option<String>,
    name: String,
    capacity: Capacity,
    scheduling_strategy: SchedulingStrategy,
    client_token: Option<String>,
    tags: Tags,
    settings: Settings,
}

impl Create {
    fn parse(request: ecs::CreateServiceRequest) -> Result<Self, ecs::Error> {
        let (rest, settings) = settings::of_create(request)?;
        if !is_name(&rest.name) {
            return Err(invalid(format!(
                "serviceName must be 1 to 255 letters, digits, hyphens and underscores, and is '{}'.",
                rest.name
            )));
        }
        let capacity = Capacity::new(rest.launch_type, settings.capacity_strategy.clone())?;
        let scheduling_strategy = match rest.scheduling_strategy {
            None | Some(ecs::SchedulingStrategy::Replica) => SchedulingStrategy::Replica,
            Some(ecs::SchedulingStrategy::Daemon) => SchedulingStrategy::Daemon,
        };
        if scheduling_strategy == SchedulingStrategy::Replica && settings.desired_count.is_none() {
            return Err(invalid(
                "The desired count is required for services with the scheduling strategy REPLICA.",
            ));
        }
        match settings.controller {
            Some(Controller::External) => settings.check_external()?,
            _ if settings.task_definition.is_none() => {
                return Err(invalid("TaskDefinition can not be blank."));
            }
            _ => {}
        }
        Ok(Self {
            cluster: rest.cluster,
            name: rest.name,
            capacity,
            scheduling_strategy,
            client_token: short("clientToken", rest.client_token, 36)?,
            tags: tag::parse(rest.tags)?,
            settings,
        })
    }

    /// The service as it is wanted, and the strategy that its tasks are given to capacity providers by.
    fn resolve(
        &self,
        view: &View,
        call: &Call,
        now: Timestamp,
    ) -> Result<(Service, Vec<StrategyItem>), ecs::Error> {
        let cluster = reference::cluster(view, call.scope(), self.cluster.as_deref())?;
        let (launch_type, capacity_strategy) = self.capacity.resolve(view, &cluster)?;
        self.settings.check(launch_type, self.scheduling_strategy)?;
        let mut service = Service {
            scheduling_strategy: self.scheduling_strategy,
            controller: self.settings.controller.unwrap_or_default(),
            configuration: DeploymentConfiguration::of(self.scheduling_strategy),
            tags: self.tags.clone(),
            client_token: self.client_token.clone(),
            created_by: call.caller.arn(),
            ..Service::new(call.scope().clone(), &cluster.name, &self.name, launch_type, now)
        };
        self.settings.apply(&mut service)?;
        check_hooks(call, &service)?;
        Ok((service, capacity_strategy))
    }
}

/// CodeDeploy moves the traffic of one target group.
fn check_balancer(first: Option<&Deployment>) -> Result<(), ecs::Error> {
    match first.map(|first| first.load_balancers.len()) {
        Some(1) => Ok(()),
        _ => Err(invalid(
            "A service with a CODE_DEPLOY deployment controller must have exactly one load balancer.",
        )),
    }
}

/// With its first deployment or task set, where ECS makes it.
fn begin(view: &View, service: &mut Service, first: Option<Deployment>, transaction: &mut Transaction) {
    if let Some(first) = first {
        if service.controller == Controller::CodeDeploy {
            service.task_sets.push(TaskSet {
                launch_type: service.launch_type,
                status: TaskSetStatus::Primary,
                scale: TaskSet::FULL_SCALE,
                stable: false,
                stable_at: first.created_at,
                external_id: None,
                client_token: None,
                tags: Tags::default(),
                deployment: first,
            });
            return;
        }
        engine::deploy(view, service, first, transaction, &mut RandomIds);
    }
}

/// Functions are called at an endpoint of the operator's, for there are none here.
fn check_hooks(call: &Call, service: &Service) -> Result<(), ecs::Error> {
    let is_function = |hook: &Hook| matches!(hook.target, HookTarget::Lambda(_));
    let calls = service.configuration.hooks.iter().any(is_function);
    if calls && call.context.config.lambda_endpoint.is_none() {
        return Err(invalid(
            "Lifecycle hooks of the type AWS_LAMBDA need an endpoint that their functions are called at: start Longshore \
             with --lambda-endpoint, or use hooks of the type PAUSE.",
        ));
    }
    Ok(())
}

/// A deployment as the settings want it; what they do not say is as in the present one.
fn deployment(
    view: &View,
    service: &Service,
    settings: &Settings,
    capacity_strategy: Vec<StrategyItem>,
    now: Timestamp,
) -> Result<Deployment, ecs::Error> {
    let present = service.primary();
    let definition = match (&settings.task_definition, present) {
        (Some(given), _) => active_definition(view, &service.scope, given)?,
        (None, Some(present)) => present_definition(view, service, present)?,
        (None, None) => return Err(client("TaskDefinition not found.")),
    };
    check_launch_type(&definition, service.launch_type)?;
    if service.constraints.len() + definition.placement_constraints.len() > 10 {
        return Err(invalid("The task definition and the service have more than 10 placement constraints."));
    }
    let network = match (&settings.network, present.and_then(|present| present.network.clone())) {
        (None, Some(present)) => Some(present),
        (given, _) => new_network(view, service, &definition, given.as_ref())?,
    };
    let platform_version =
        settings.platform_version.clone().or_else(|| present.and_then(|p| p.platform_version.clone()));
    let balancers = settings.load_balancers.clone().or_else(|| present.map(|p| p.load_balancers.clone()));
    let balancers = balancers.unwrap_or_default();
    load_balancers::check(view, service, &definition, &balancers)?;
    let registries = settings.registries.clone().or_else(|| present.map(|p| p.registries.clone()));
    let registries = registries.unwrap_or_default();
    registries::check(view, service, &definition, &registries)?;
    let ids = &mut RandomIds;
    let made =
        engine::deployment(&definition, network, platform_version, capacity_strategy, balancers, now, ids);
    Ok(Deployment { registries, ..made })
}

fn present_definition(
    view: &View,
    service: &Service,
    present: &Deployment,
) -> Result<Arc<TaskDefinition>, ecs::Error> {
    let found = view.task_definition(&service.scope, &present.family, present.revision);
    found.cloned().ok_or_else(|| client("TaskDefinition not found."))
}

fn new_network(
    view: &View,
    service: &Service,
    definition: &TaskDefinition,
    given: Option<&ecs::AwsVpcConfiguration>,
) -> Result<Option<NetworkConfiguration>, ecs::Error> {
    let found = network(view, &service.scope, definition, given)?;
    let assign = given.and_then(|given| given.assign_public_ip) == Some(ecs::AssignPublicIp::Enabled);
    Ok(found.map(|network| NetworkConfiguration {
        subnets: network.subnets.iter().map(|subnet| subnet.id.clone()).collect(),
        // What was not named is shown as not named; tasks then have the VPC's default group.
        security_groups: given.and_then(|given| given.security_groups.clone()).unwrap_or_default(),
        assign_public_ip: assign,
    }))
}

/// Whether creating a service where another one is changes nothing.
fn is_same(present: &Service, wanted: &Service, first: Option<&Deployment>) -> bool {
    let as_present = Service {
        deployments: present.deployments.clone(),
        last_completed: present.last_completed.clone(),
        task_sets: present.task_sets.clone(),
        client_token: present.client_token.clone(),
        created_at: present.created_at,
        created_by: present.created_by.clone(),
        service_deployment: present.service_deployment.clone(),
        steady: present.steady,
        rebalancing: present.rebalancing,
        obstacle: present.obstacle.clone(),
        events: present.events,
        version: present.version,
        ..wanted.clone()
    };
    as_present == *present && !first.is_some_and(|first| differs(present, first))
}

/// Whether a deployment runs something else than the PRIMARY one.
fn differs(present: &Service, wanted: &Deployment) -> bool {
    let primary = present.primary_task_set().map(|set| &set.deployment).or(present.primary());
    primary.is_none_or(|primary| {
        (&primary.family, primary.revision, &primary.network)
            != (&wanted.family, wanted.revision, &wanted.network)
            || primary.platform_version != wanted.platform_version
            || primary.capacity_strategy != wanted.capacity_strategy
            || primary.load_balancers != wanted.load_balancers
            || primary.registries != wanted.registries
    })
}

pub async fn update(
    call: Call,
    request: ecs::UpdateServiceRequest,
) -> Result<ecs::UpdateServiceResponse, ecs::Error> {
    let (rest, settings) = settings::of_update(request)?;
    let now = call.context.now();
    let service = call
        .context
        .commit::<_, ecs::Error, _>(|snapshot, transaction| {
            let view = &snapshot.view;
            let cluster = reference::cluster(view, call.scope(), rest.cluster.as_deref())?;
            let present = reference::service(view, call.scope(), &cluster.name, &rest.service)?;
            if present.status != Status::Active {
                return Err(ecs::Error::ServiceNotActiveException("Service was not ACTIVE.".to_owned()));
            }
            settings.check(present.launch_type, present.scheduling_strategy)?;
            if settings.controller.is_some_and(|controller| controller != present.controller) {
                return Err(invalid("The deployment controller of a service cannot be changed."));
            }
            let mut next = (*present).clone();
            settings.apply(&mut next)?;
            check_hooks(&call, &next)?;
            next.version += 1;
            next.steady = false;
            match present.controller {
                Controller::External => settings.check_external()?,
                Controller::CodeDeploy => settings.check_code_deploy(rest.force_new_deployment)?,
                Controller::Ecs => {
                    let strategy =
                        capacity_provider::updated(view, &cluster, &present, &settings.capacity_strategy)?;
                    let wanted = deployment(view, &next, &settings, strategy, now)?;
                    if rest.force_new_deployment || differs(&present, &wanted) {
                        engine::deploy(view, &mut next, wanted, transaction, &mut RandomIds);
                    }
                }
            }
            transaction.update(&next);
            Ok(next)
        })
        .await?;
    Ok(ecs::UpdateServiceResponse { service: Some(render::service(&call.context.view(), &service, false)) })
}

pub async fn delete(
    call: Call,
    request: ecs::DeleteServiceRequest,
) -> Result<ecs::DeleteServiceResponse, ecs::Error> {
    let ecs::DeleteServiceRequest { cluster, service, force } = request;
    let deleted = call
        .context
        .commit::<_, ecs::Error, _>(|snapshot, transaction| {
            let view = &snapshot.view;
            let cluster = reference::cluster(view, call.scope(), cluster.as_deref())?;
            let present = reference::service(view, call.scope(), &cluster.name, &service)?;
            match present.status {
                Status::Inactive => {
                    return Err(ecs::Error::ServiceNotFoundException("Service not found.".to_owned()));
                }
                Status::Draining => return Ok((*present).clone()),
                Status::Active => {}
            }
            let replica = present.scheduling_strategy == SchedulingStrategy::Replica;
            if replica && present.desired_count > 0 && !force.unwrap_or(false) {
                return Err(invalid("The service cannot be stopped while it is scaled above 0."));
            }
            let mut next = (*present).clone();
            next.status = Status::Draining;
            next.desired_count = 0;
            next.obstacle = None;
            next.version += 1;
            transaction.update(&next);
            Ok(next)
        })
        .await?;
    Ok(ecs::DeleteServiceResponse { service: Some(render::service(&call.context.view(), &deleted, false)) })
}

pub async fn describe(
    call: Call,
    request: ecs::DescribeServicesRequest,
) -> Result<ecs::DescribeServicesResponse, ecs::Error> {
    let ecs::DescribeServicesRequest { cluster, services, include } = request;
    if !(1..=10).contains(&services.len()) {
        return Err(invalid("services must have 1 to 10 items."));
    }
    let view = call.context.view();
    let cluster = reference::cluster(&view, call.scope(), cluster.as_deref())?;
    let with_tags = include.unwrap_or_default().contains(&ecs::ServiceField::Tags);
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for given in services {
        match reference::service(&view, call.scope(), &cluster.name, &given) {
            Ok(service) => found.push(render::service(&view, &service, with_tags)),
            Err(_) => {
                let named = || arn::ecs(call.scope(), format_args!("service/{}/{given}", cluster.name));
                let arn = if given.starts_with("arn:") { given.clone() } else { named() };
                failures.push(failure(Some(arn), "MISSING"));
            }
        }
    }
    Ok(ecs::DescribeServicesResponse { services: Some(found), failures: Some(failures) })
}

pub async fn list(
    call: Call,
    request: ecs::ListServicesRequest,
) -> Result<ecs::ListServicesResponse, ecs::Error> {
    let ecs::ListServicesRequest {
        cluster,
        next_token,
        max_results,
        launch_type,
        scheduling_strategy,
        resource_management_type,
    } = request;
    let view = call.context.view();
    let cluster = reference::cluster(&view, call.scope(), cluster.as_deref())?;
    let wanted = |service: &&Arc<Service>| {
        service.status == Status::Active
            && launch_type.is_none_or(|wanted| wanted == render_launch_type(service.launch_type))
            && scheduling_strategy
                .is_none_or(|wanted| wanted == render::scheduling_strategy(service.scheduling_strategy))
            // No service is managed by ECS yet.
            && resource_management_type != Some(ecs::ResourceManagementType::Ecs)
    };
    let services = view.services_of(call.scope(), &cluster.name).filter(wanted);
    let arns = services.map(|service| (service.name.clone(), service.arn()));
    let (arns, next_token) = page(arns, Order::Ascending, next_token.as_deref(), max_results, 10)?;
    Ok(ecs::ListServicesResponse { service_arns: Some(arns), next_token })
}
