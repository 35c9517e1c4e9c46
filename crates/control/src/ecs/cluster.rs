//! Clusters. Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/clusters.html>.

use super::page::{Order, page};
use super::{capacity_provider, failure, invalid, is_name, reference, tag};
use crate::api::Call;
use crate::given_when_present;
use crate::refuse::{Given, unsupported};
use longshore_ecs as ecs;
use longshore_engine::View;
use longshore_engine::view::TaskCounts;
use longshore_model::cluster::{Cluster, ContainerInsights, Status, arn_of};
use longshore_model::container_instance::{self, ContainerInstance};
use longshore_model::service::{self, Service};
use longshore_model::task::LaunchType;
use std::sync::Arc;

given_when_present!(ecs::ClusterConfiguration, ecs::ClusterServiceConnectDefaultsRequest);

pub async fn create(
    call: Call,
    request: ecs::CreateClusterRequest,
) -> Result<ecs::CreateClusterResponse, ecs::Error> {
    let ecs::CreateClusterRequest {
        cluster_name,
        tags,
        settings,
        configuration,
        capacity_providers,
        default_capacity_provider_strategy,
        service_connect_defaults,
    } = request;
    unsupported(&[
        ("configuration", configuration.given()),
        ("serviceConnectDefaults", service_connect_defaults.given()),
    ])
    .map_err(invalid)?;
    let name = cluster_name.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned());
    if !is_name(&name) {
        return Err(invalid(format!(
            "clusterName must be 1 to 255 letters, digits, hyphens and underscores, and is '{name}'."
        )));
    }
    let capacity_providers = capacity_provider::names(capacity_providers.unwrap_or_default())?;
    let default_strategy = capacity_provider::strategy(default_capacity_provider_strategy)?;
    let wanted = Cluster {
        scope: call.scope().clone(),
        name,
        status: Status::Active,
        container_insights: container_insights(settings)?,
        capacity_providers,
        default_strategy,
        tags: tag::parse(tags)?,
        created_at: call.context.now(),
    };
    let cluster = call
        .context
        .commit::<_, ecs::Error, _>(|snapshot, transaction| {
            let view = &snapshot.view;
            capacity_provider::check_names(view, &wanted.scope, &wanted.capacity_providers)?;
            let providers = &wanted.capacity_providers;
            capacity_provider::check(view, &wanted.scope, &wanted.default_strategy, providers)?;
            match snapshot.view.clusters.get(&Cluster::key_of(&wanted.scope, &wanted.name)) {
                // Creating a cluster that is there answers with it as it is.
                Some(present) if present.status == Status::Active => return Ok((**present).clone()),
                Some(_) => transaction.update(&wanted),
                None => transaction.create(&wanted),
            }
            Ok(wanted.clone())
        })
        .await?;
    let every = Include { settings: true, tags: true, statistics: false };
    Ok(ecs::CreateClusterResponse { cluster: Some(render(&call.context.view(), &cluster, every)) })
}

fn container_insights(settings: Option<Vec<ecs::ClusterSetting>>) -> Result<ContainerInsights, ecs::Error> {
    let mut chosen = ContainerInsights::default();
    for ecs::ClusterSetting { name, value } in settings.unwrap_or_default() {
        let value = value.unwrap_or_default();
        chosen = match name {
            Some(ecs::ClusterSettingName::ContainerInsights) => ContainerInsights::parse(&value).ok_or_else(|| {
                invalid(format!("The value of containerInsights must be enhanced, enabled or disabled, and is '{value}'."))
            })?,
            None => return Err(invalid("A cluster setting needs a name.")),
        };
    }
    Ok(chosen)
}

pub async fn delete(
    call: Call,
    request: ecs::DeleteClusterRequest,
) -> Result<ecs::DeleteClusterResponse, ecs::Error> {
    let ecs::DeleteClusterRequest { cluster } = request;
    let deleted = call
        .context
        .commit::<_, ecs::Error, _>(|snapshot, transaction| {
            let cluster = reference::cluster(&snapshot.view, call.scope(), Some(&cluster))?;
            let registered = |i: &Arc<ContainerInstance>| {
                i.membership().is_some_and(|member| member.status != container_instance::Status::Inactive)
            };
            if snapshot.view.instances_of(call.scope(), &cluster.name).any(registered) {
                return Err(ecs::Error::ClusterContainsContainerInstancesException(
                    "The Cluster cannot be deleted while Container Instances are active or draining."
                        .to_owned(),
                ));
            }
            let ended = service::Status::Inactive;
            if snapshot.view.services_of(call.scope(), &cluster.name).any(|service| service.status != ended) {
                return Err(ecs::Error::ClusterContainsServicesException(
                    "The Cluster cannot be deleted while Services are active.".to_owned(),
                ));
            }
            if snapshot.view.tasks_of(call.scope(), &cluster.name).any(|task| task.holds_resources()) {
                return Err(ecs::Error::ClusterContainsTasksException(
                    "The Cluster cannot be deleted while Tasks are active.".to_owned(),
                ));
            }
            let inactive = Cluster { status: Status::Inactive, ..(*cluster).clone() };
            transaction.update(&inactive);
            Ok(inactive)
        })
        .await?;
    Ok(ecs::DeleteClusterResponse {
        cluster: Some(render(
            &call.context.view(),
            &deleted,
            Include { settings: true, ..Include::default() },
        )),
    })
}

pub async fn describe(
    call: Call,
    request: ecs::DescribeClustersRequest,
) -> Result<ecs::DescribeClustersResponse, ecs::Error> {
    let ecs::DescribeClustersRequest { clusters, include } = request;
    let include = Include::of(&include.unwrap_or_default());
    let mut given = clusters.unwrap_or_default();
    if given.len() > 100 {
        return Err(invalid("clusters can have at most 100 items."));
    }
    if given.is_empty() {
        given.push("default".to_owned());
    }
    let view = call.context.view();
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for given in given {
        let name = reference::cluster_name(call.scope(), Some(&given)).ok();
        match name.as_ref().and_then(|name| view.cluster(call.scope(), name)) {
            Some(cluster) => found.push(render(&view, cluster, include)),
            None => {
                let arn = name.map_or(given, |name| arn_of(call.scope(), &name));
                failures.push(failure(Some(arn), "MISSING"));
            }
        }
    }
    Ok(ecs::DescribeClustersResponse { clusters: Some(found), failures: Some(failures) })
}

pub async fn list(
    call: Call,
    request: ecs::ListClustersRequest,
) -> Result<ecs::ListClustersResponse, ecs::Error> {
    let ecs::ListClustersRequest { next_token, max_results } = request;
    let view = call.context.view();
    let active = view.clusters.of(call.scope()).filter(|c| c.status == Status::Active);
    let arns = active.map(|cluster| (cluster.name.clone(), cluster.arn()));
    let (arns, next_token) = page(arns, Order::Ascending, next_token.as_deref(), max_results, 100)?;
    Ok(ecs::ListClustersResponse { cluster_arns: Some(arns), next_token })
}

/// The parts of a cluster that are shown only when asked for.
#[derive(Clone, Copy, Default)]
pub struct Include {
    pub settings: bool,
    pub tags: bool,
    pub statistics: bool,
}

impl Include {
    fn of(fields: &[ecs::ClusterField]) -> Self {
        let mut include = Self::default();
        for field in fields {
            match field {
                ecs::ClusterField::Settings => include.settings = true,
                ecs::ClusterField::Tags => include.tags = true,
                ecs::ClusterField::Statistics => include.statistics = true,
                // A cluster has neither yet: CreateCluster refuses a configuration, and attachments come with
                // capacity providers.
                ecs::ClusterField::Attachments | ecs::ClusterField::Configurations => {}
            }
        }
        include
    }
}

pub fn render(view: &View, cluster: &Cluster, include: Include) -> ecs::Cluster {
    let counts = task_counts(view, cluster);
    let is_registered = |instance: &&Arc<ContainerInstance>| {
        instance.membership().is_some_and(|m| m.status != container_instance::Status::Inactive)
    };
    let instances = view.instances_of(&cluster.scope, &cluster.name).filter(is_registered).count();
    let insights = || ecs::ClusterSetting {
        name: Some(ecs::ClusterSettingName::ContainerInsights),
        value: Some(cluster.container_insights.as_str().to_owned()),
    };
    ecs::Cluster {
        cluster_arn: Some(cluster.arn()),
        cluster_name: Some(cluster.name.clone()),
        status: Some(cluster.status.as_str().to_owned()),
        registered_container_instances_count: Some(instances.try_into().unwrap_or(i32::MAX)),
        running_tasks_count: Some(counts.running.try_into().unwrap_or(i32::MAX)),
        pending_tasks_count: Some(counts.pending.try_into().unwrap_or(i32::MAX)),
        active_services_count: i32::try_from(services(view, cluster, service::Status::Active, None)).ok(),
        statistics: Some(if include.statistics { statistics(view, cluster) } else { Vec::new() }),
        tags: Some(if include.tags { tag::render(&cluster.tags) } else { Vec::new() }),
        settings: Some(if include.settings { vec![insights()] } else { Vec::new() }),
        capacity_providers: Some(cluster.capacity_providers.clone()),
        default_capacity_provider_strategy: Some(capacity_provider::render_strategy(
            &cluster.default_strategy,
        )),
        configuration: None,
        attachments: None,
        attachments_status: None,
        service_connect_defaults: None,
    }
}

/// The tasks of all launch types.
fn task_counts(view: &View, cluster: &Cluster) -> TaskCounts {
    let each = [LaunchType::Ec2, LaunchType::Fargate, LaunchType::External]
        .map(|launch_type| view.task_counts(&cluster.scope, &cluster.name, launch_type));
    each.into_iter().fold(TaskCounts::default(), |sum, counts| TaskCounts {
        running: sum.running.saturating_add(counts.running),
        pending: sum.pending.saturating_add(counts.pending),
    })
}

fn services(view: &View, cluster: &Cluster, status: service::Status, of: Option<LaunchType>) -> u32 {
    let counts = |service: &&Arc<Service>| {
        service.status == status && of.is_none_or(|launch_type| service.launch_type == launch_type)
    };
    let count = view.services_of(&cluster.scope, &cluster.name).filter(counts).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The counts by launch type, as AWS names them.
fn statistics(view: &View, cluster: &Cluster) -> Vec<ecs::KeyValuePair> {
    let pair =
        |name: String, value: u32| ecs::KeyValuePair { name: Some(name), value: Some(value.to_string()) };
    let mut all = Vec::new();
    for (launch_type, name) in
        [(LaunchType::Ec2, "EC2"), (LaunchType::Fargate, "Fargate"), (LaunchType::External, "External")]
    {
        let counts = view.task_counts(&cluster.scope, &cluster.name, launch_type);
        all.push(pair(format!("running{name}TasksCount"), counts.running));
        all.push(pair(format!("pending{name}TasksCount"), counts.pending));
        let count = |status| services(view, cluster, status, Some(launch_type));
        all.push(pair(format!("active{name}ServiceCount"), count(service::Status::Active)));
        all.push(pair(format!("draining{name}ServiceCount"), count(service::Status::Draining)));
    }
    all
}
