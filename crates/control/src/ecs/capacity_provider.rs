//! Capacity providers, and the strategies by which tasks are given to them. Those of Fargate exist in every account; both
//! take the capacity of instances that offer Fargate.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-capacity-providers.html>.

mod resource;

pub use resource::{create, delete, update};

use super::cluster::{Include, render as render_cluster};
use super::page::{Order, page};
use super::run_task::parse_launch_type;
use super::{failure, invalid, reference};
use crate::api::Call;
use longshore_ecs as ecs;
use longshore_engine::View;
use longshore_model::Scope;
use longshore_model::arn::{self, Arn};
use longshore_model::capacity_provider::{CapacityProvider, FARGATE, FARGATE_SPOT, StrategyItem};
use longshore_model::cluster::Cluster;
use longshore_model::service::{self, Service};
use longshore_model::task::{DesiredStatus, LaunchType, Task};
use std::sync::Arc;

/// The most providers of a strategy and of a cluster.
const PROVIDERS: usize = 20;
const LARGEST_BASE: i32 = 100_000;
const LARGEST_WEIGHT: i32 = 1000;

pub async fn put(
    call: Call,
    request: ecs::PutClusterCapacityProvidersRequest,
) -> Result<ecs::PutClusterCapacityProvidersResponse, ecs::Error> {
    let ecs::PutClusterCapacityProvidersRequest {
        cluster,
        capacity_providers,
        default_capacity_provider_strategy,
    } = request;
    let capacity_providers = names(capacity_providers)?;
    let default_strategy = strategy(Some(default_capacity_provider_strategy))?;
    let changed = call
        .context
        .commit::<_, ecs::Error, _>(|snapshot, transaction| {
            let view = &snapshot.view;
            let present = reference::cluster(view, call.scope(), Some(&cluster))?;
            check_names(view, call.scope(), &capacity_providers)?;
            check(view, call.scope(), &default_strategy, &capacity_providers)?;
            let removed = present.capacity_providers.iter().find(|name| !capacity_providers.contains(name));
            if removed.is_some_and(|name| is_used(view, &present, name)) {
                return Err(ecs::Error::ResourceInUseException(
                    "The specified capacity provider is in use and cannot be removed.".to_owned(),
                ));
            }
            let next = Cluster {
                capacity_providers: capacity_providers.clone(),
                default_strategy: default_strategy.clone(),
                ..(*present).clone()
            };
            if next != *present {
                transaction.update(&next);
            }
            Ok(next)
        })
        .await?;
    let include = Include { settings: true, tags: true, statistics: false };
    let cluster = render_cluster(&call.context.view(), &changed, include);
    Ok(ecs::PutClusterCapacityProvidersResponse { cluster: Some(cluster) })
}

pub async fn describe(
    call: Call,
    request: ecs::DescribeCapacityProvidersRequest,
) -> Result<ecs::DescribeCapacityProvidersResponse, ecs::Error> {
    let ecs::DescribeCapacityProvidersRequest {
        capacity_providers,
        cluster,
        include,
        max_results,
        next_token,
    } = request;
    let with_tags = include.unwrap_or_default().contains(&ecs::CapacityProviderField::Tags);
    let view = call.context.view();
    let cluster = cluster.map(|given| reference::cluster(&view, call.scope(), Some(&given))).transpose()?;
    let wanted = capacity_providers.unwrap_or_default();
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for given in &wanted {
        let of_cluster =
            |name: &&str| cluster.as_ref().is_none_or(|c| c.capacity_providers.iter().any(|of| of == name));
        match name(given).filter(|name| exists(&view, call.scope(), name)).filter(of_cluster) {
            Some(name) => found.push(name.to_owned()),
            None => failures.push(failure(Some(given.clone()), "MISSING")),
        }
    }
    if wanted.is_empty() {
        let own = view.capacity_providers.of(call.scope()).map(|provider| provider.name.clone());
        let every = || [FARGATE.to_owned(), FARGATE_SPOT.to_owned()].into_iter().chain(own).collect();
        found = cluster.map_or_else(every, |cluster| cluster.capacity_providers.clone());
    }
    found.sort();
    let shown = found.into_iter().map(|name| {
        let provider = view.capacity_providers.get(&CapacityProvider::key_of(call.scope(), &name));
        let shown = provider
            .map_or_else(|| render(call.scope(), &name), |provider| resource::render(provider, with_tags));
        (name, shown)
    });
    let (shown, next_token) = page(shown, Order::Ascending, next_token.as_deref(), max_results, 10)?;
    Ok(ecs::DescribeCapacityProvidersResponse {
        capacity_providers: Some(shown),
        failures: Some(failures),
        next_token,
    })
}

fn render(scope: &Scope, name: &str) -> ecs::CapacityProvider {
    let spot = name == FARGATE_SPOT;
    ecs::CapacityProvider {
        capacity_provider_arn: Some(arn::ecs(scope, format_args!("capacity-provider/{name}"))),
        name: Some(name.to_owned()),
        cluster: None,
        status: Some(ecs::CapacityProviderStatus::Active),
        auto_scaling_group_provider: None,
        managed_instances_provider: None,
        update_status: None,
        update_status_reason: None,
        tags: Some(Vec::new()),
        r#type: Some(if spot {
            ecs::CapacityProviderType::FargateSpot
        } else {
            ecs::CapacityProviderType::Fargate
        }),
    }
}

/// The name of a provider, given by itself or in an ARN.
fn name(given: &str) -> Option<&str> {
    match Arn::parse(given) {
        Some(arn) => arn.resource.strip_prefix("capacity-provider/"),
        None => Some(given).filter(|name| !name.contains(':')),
    }
}

fn exists(view: &View, scope: &Scope, name: &str) -> bool {
    [FARGATE, FARGATE_SPOT].contains(&name)
        || view.capacity_providers.get(&CapacityProvider::key_of(scope, name)).is_some()
}

/// Whether tasks of the cluster that are to run take a provider's capacity, or services that are to go on.
fn is_used(view: &View, cluster: &Cluster, name: &str) -> bool {
    let takes = |task: &Arc<Task>| {
        task.desired_status == DesiredStatus::Running && task.capacity_provider.as_deref() == Some(name)
    };
    let asks = |service: &Arc<Service>| {
        let sets = service.task_sets.iter().map(|set| &set.deployment);
        let mut strategies = service.deployments.iter().chain(sets).flat_map(|one| &one.capacity_strategy);
        service.status == service::Status::Active && strategies.any(|item| item.capacity_provider == name)
    };
    view.services_of(&cluster.scope, &cluster.name).any(asks)
        || view.tasks_of(&cluster.scope, &cluster.name).any(takes)
}

pub fn names(given: Vec<String>) -> Result<Vec<String>, ecs::Error> {
    if given.len() > PROVIDERS {
        return Err(invalid(format!("capacityProviders can have at most {PROVIDERS} items.")));
    }
    let mut names: Vec<String> = Vec::new();
    for given in &given {
        let name = name(given).ok_or_else(unknown)?;
        if !names.iter().any(|other| other == name) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Whether all of these exist.
pub fn check_names(view: &View, scope: &Scope, names: &[String]) -> Result<(), ecs::Error> {
    if names.iter().all(|name| exists(view, scope, name)) { Ok(()) } else { Err(unknown()) }
}

fn unknown() -> ecs::Error {
    invalid("The specified capacity provider was not found. Specify a valid name or ARN and try again.")
}

pub fn strategy(
    given: Option<Vec<ecs::CapacityProviderStrategyItem>>,
) -> Result<Vec<StrategyItem>, ecs::Error> {
    let given = given.unwrap_or_default();
    if given.len() > PROVIDERS {
        return Err(invalid(format!("A capacity provider strategy can have at most {PROVIDERS} items.")));
    }
    let items: Vec<StrategyItem> = given.into_iter().map(item).collect::<Result<_, _>>()?;
    if items.iter().filter(|item| item.base > 0).count() > 1 {
        return Err(invalid(
            "Only one capacity provider in a capacity provider strategy can have a base value defined.",
        ));
    }
    if items.iter().enumerate().any(|(place, item)| {
        items.iter().take(place).any(|other| other.capacity_provider == item.capacity_provider)
    }) {
        return Err(invalid("A capacity provider strategy can name each capacity provider once."));
    }
    if !items.is_empty() && items.iter().all(|item| item.weight == 0) {
        return Err(invalid(
            "A capacity provider strategy must contain at least one capacity provider with a weight greater than 0.",
        ));
    }
    Ok(items)
}

fn item(given: ecs::CapacityProviderStrategyItem) -> Result<StrategyItem, ecs::Error> {
    let ecs::CapacityProviderStrategyItem { capacity_provider, weight, base } = given;
    let number = |field: &str, given: Option<i32>, largest: i32| match given.unwrap_or_default() {
        number if (0..=largest).contains(&number) => Ok(number.unsigned_abs()),
        number => Err(invalid(format!("{field} must be between 0 and {largest}, and is {number}."))),
    };
    Ok(StrategyItem {
        capacity_provider: name(&capacity_provider).ok_or_else(unknown)?.to_owned(),
        base: number("base", base, LARGEST_BASE)?,
        weight: number("weight", weight, LARGEST_WEIGHT)?,
    })
}

/// Whether a strategy uses the providers of its cluster alone.
pub fn check(
    view: &View,
    scope: &Scope,
    strategy: &[StrategyItem],
    providers: &[String],
) -> Result<(), ecs::Error> {
    match strategy.iter().find(|item| !providers.contains(&item.capacity_provider)) {
        None => Ok(()),
        Some(item) if !exists(view, scope, &item.capacity_provider) => Err(unknown()),
        Some(item) => Err(invalid(format!(
            "The capacity provider {} is not associated with the cluster. Associate it by PutClusterCapacityProviders \
             and try again.",
            item.capacity_provider
        ))),
    }
}

/// What the tasks of a strategy run on, which is the same for all of its providers.
fn launch_type_of(strategy: &[StrategyItem]) -> Result<LaunchType, ecs::Error> {
    let on_fargate = |item: &StrategyItem| [FARGATE, FARGATE_SPOT].contains(&item.capacity_provider.as_str());
    match (strategy.iter().any(on_fargate), strategy.iter().all(on_fargate)) {
        (_, true) => Ok(LaunchType::Fargate),
        (false, false) => Ok(LaunchType::Ec2),
        (true, false) => Err(invalid(
            "A capacity provider strategy cannot contain a mix of capacity providers using Auto Scaling groups and Fargate \
             providers. Specify one or the other and try again.",
        )),
    }
}

pub fn render_strategy(strategy: &[StrategyItem]) -> Vec<ecs::CapacityProviderStrategyItem> {
    let item = |item: &StrategyItem| ecs::CapacityProviderStrategyItem {
        capacity_provider: item.capacity_provider.clone(),
        weight: i32::try_from(item.weight).ok(),
        base: i32::try_from(item.base).ok(),
    };
    strategy.iter().map(item).collect()
}

/// The strategy of a service after an update that may name another one.
pub fn updated(
    view: &View,
    cluster: &Cluster,
    present: &Service,
    given: &[StrategyItem],
) -> Result<Vec<StrategyItem>, ecs::Error> {
    if given.is_empty() {
        return Ok(present.primary().map(|primary| primary.capacity_strategy.clone()).unwrap_or_default());
    }
    check(view, &cluster.scope, given, &cluster.capacity_providers)?;
    if launch_type_of(given)? != present.launch_type {
        return Err(invalid(
            "The tasks of a service stay on Fargate or on instances: its capacity provider strategy cannot change that.",
        ));
    }
    Ok(given.to_vec())
}

/// Whose capacity tasks are to take, as users say it.
pub enum Capacity {
    LaunchType(LaunchType),
    Strategy(Vec<StrategyItem>),
    /// As the cluster says, or else instances.
    Default,
}

impl Capacity {
    pub fn parse(
        launch_type: Option<ecs::LaunchType>,
        given: Option<Vec<ecs::CapacityProviderStrategyItem>>,
    ) -> Result<Self, ecs::Error> {
        Self::new(launch_type, strategy(given)?)
    }

    pub fn new(
        launch_type: Option<ecs::LaunchType>,
        strategy: Vec<StrategyItem>,
    ) -> Result<Self, ecs::Error> {
        match (launch_type, strategy.is_empty()) {
            (Some(_), false) => Err(invalid(
                "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try \
                 again.",
            )),
            (Some(_), true) => Ok(Self::LaunchType(parse_launch_type(launch_type)?)),
            (None, false) => Ok(Self::Strategy(strategy)),
            (None, true) => Ok(Self::Default),
        }
    }

    /// The launch type and the strategy, which is empty where the launch type says it all.
    pub fn resolve(
        &self,
        view: &View,
        cluster: &Cluster,
    ) -> Result<(LaunchType, Vec<StrategyItem>), ecs::Error> {
        let strategy = match self {
            Self::LaunchType(launch_type) => return Ok((*launch_type, Vec::new())),
            Self::Default if cluster.default_strategy.is_empty() => return Ok((LaunchType::Ec2, Vec::new())),
            Self::Default => cluster.default_strategy.clone(),
            Self::Strategy(strategy) => strategy.clone(),
        };
        check(view, &cluster.scope, &strategy, &cluster.capacity_providers)?;
        Ok((launch_type_of(&strategy)?, strategy))
    }
}
