//! A service's tasks as instances of Cloud Map's services.
//!
//! Invariant: a task is registered in the registries of its deployment exactly as long as it is RUNNING and to go on, by
//! the commits that say so of the task.
//!
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-discovery.html>.

use crate::lifecycle;
use crate::service::targets::deployments;
use crate::view::View;
use longshore_model::change::{Key, Write};
use longshore_model::container_instance::ADDRESS;
use longshore_model::discovery::{
    DiscoveryInstance, DiscoveryService, HealthStatus, RecordType, attribute, id_in,
};
use longshore_model::service::{Service, ServiceRegistry, key_of_task};
use longshore_model::task::{DesiredStatus, Health, LastStatus, LaunchType, Task};
use longshore_model::task_definition::{NetworkMode, TaskDefinition};
use longshore_model::{Record, Transaction};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// Registers and deregisters a task as its next state, which the same transaction writes, asks for.
pub fn follow(view: &View, task: &Task, transaction: &mut Transaction) {
    let wanted = wanted(view, task);
    for present in view.discovery_instances_of_task(&task.key()) {
        if !wanted.iter().any(|one| one.key() == present.key()) {
            transaction.delete(present.key());
        }
    }
    for one in wanted {
        match view.discovery_instances.get(&one.key()) {
            None => transaction.create(&one),
            // A name that somebody else has given to something else stays theirs.
            Some(present) if present.task != one.task => {}
            Some(present) if present.health != one.health => {
                transaction.update(&DiscoveryInstance { health: one.health, ..(**present).clone() });
            }
            Some(_) => {}
        }
    }
}

/// Counts, in each service that instances come to or leave by this transaction, that they do.
pub fn revise(view: &View, transaction: &mut Transaction) {
    let changes = |write: &Write| match write {
        Write::Create { key, .. } | Write::Delete { key } => DiscoveryInstance::service_of(key),
        Write::Update { .. } => None,
    };
    let services: BTreeSet<Key> = transaction.writes().iter().filter_map(changes).collect();
    for service in services.iter().filter_map(|key| view.discovery_services.get(key)) {
        let revision = service.revision + 1;
        transaction.update(&DiscoveryService { revision, ..(**service).clone() });
    }
}

/// What a task is to be registered as.
fn wanted(view: &View, task: &Task) -> Vec<DiscoveryInstance> {
    if task.desired_status != DesiredStatus::Running || task.last_status != LastStatus::Running {
        return Vec::new();
    }
    let service = key_of_task(task).and_then(|key| view.services.get(&key));
    let definition = view.task_definition(&task.scope, &task.family, task.revision);
    let (Some(service), Some(definition)) = (service, definition) else { return Vec::new() };
    let of = deployments(service).find(|deployment| Some(&deployment.id) == task.started_by.as_ref());
    let registries = of.map(|deployment| deployment.registries.as_slice()).unwrap_or_default();
    let mut instances: BTreeMap<Key, DiscoveryInstance> = BTreeMap::new();
    for registry in registries {
        let made = find(view, service, registry)
            .and_then(|found| instance(view, found, service, task, definition, registry));
        if let Some(made) = made {
            instances.entry(made.key()).or_insert(made);
        }
    }
    instances.into_values().collect()
}

/// The service of Cloud Map that a registry is.
pub fn find<'a>(
    view: &'a View,
    service: &Service,
    registry: &ServiceRegistry,
) -> Option<&'a Arc<DiscoveryService>> {
    let id = id_in(&service.scope, "service", &registry.arn)?;
    view.discovery_services.get(&DiscoveryService::key_of(&service.scope, id))
}

fn instance(
    view: &View,
    found: &DiscoveryService,
    service: &Service,
    task: &Task,
    definition: &TaskDefinition,
    registry: &ServiceRegistry,
) -> Option<DiscoveryInstance> {
    let address = address(view, task)?;
    let port = match &registry.container {
        Some((container, port)) => Some(reached_at(task, definition, container, *port)?),
        None => registry.port,
    };
    if found.record(RecordType::Srv).is_some() && port.is_none() {
        return None;
    }
    let health = found.custom_health.then(|| health(task, definition));
    let ec2 = view.container_instance(task.container_instance).and_then(|found| found.membership());
    let ec2 = ec2.filter(|_| task.launch_type == LaunchType::Ec2);
    let set = service.task_sets.iter().find(|set| Some(&set.deployment.id) == task.started_by.as_ref());
    let attributes = [
        (attribute::IPV4, Some(address.to_string())),
        (attribute::PORT, port.map(|port| port.to_string())),
        (attribute::INITIAL_HEALTH, health.map(|health| health.as_str().to_owned())),
        ("AVAILABILITY_ZONE", Some(task.availability_zone.clone()).filter(|zone| !zone.is_empty())),
        ("REGION", Some(task.scope.region.to_string())),
        ("ECS_CLUSTER_NAME", Some(task.cluster.clone())),
        ("ECS_SERVICE_NAME", Some(service.name.clone())),
        ("ECS_TASK_DEFINITION_FAMILY", Some(task.family.clone())),
        ("ECS_TASK_SET_EXTERNAL_ID", set.and_then(|set| set.external_id.clone())),
        ("EC2_INSTANCE_ID", ec2.and_then(|member| member.ec2_instance_id.clone())),
    ];
    let attributes = attributes.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Some(DiscoveryInstance {
        scope: found.scope.clone(),
        service: found.id.clone(),
        id: task.id.to_string(),
        attributes: attributes.collect(),
        health,
        task: Some(task.reference()),
        creator_request_id: None,
        operation: None,
        registered_at: task.times.started_at.unwrap_or_default(),
    })
}

/// Its own address, or that of its instance where it has none. `None` where that is not known.
fn address(view: &View, task: &Task) -> Option<Ipv4Addr> {
    match &task.network {
        Some(network) => Some(network.address),
        None => view.container_instance(task.container_instance)?.attributes.get(ADDRESS)?.parse().ok(),
    }
}

/// The port at which others reach a container's.
fn reached_at(task: &Task, definition: &TaskDefinition, container: &str, port: u16) -> Option<u16> {
    match definition.mode() {
        NetworkMode::Awsvpc => Some(port),
        NetworkMode::Bridge | NetworkMode::Host => {
            let mut ports = task.host_ports.iter();
            let found = ports.find(|found| found.container == container && found.container_port == port);
            found.map(|found| found.host_port)
        }
        NetworkMode::None => None,
    }
}

/// A task with health checks is found once they pass.
fn health(task: &Task, definition: &TaskDefinition) -> HealthStatus {
    let is_checked = definition.containers.iter().any(|c| c.essential && c.health_check.is_some());
    match lifecycle::health(task, definition) {
        Health::Healthy => HealthStatus::Healthy,
        Health::Unknown if !is_checked => HealthStatus::Healthy,
        Health::Unknown | Health::Unhealthy => HealthStatus::Unhealthy,
    }
}
