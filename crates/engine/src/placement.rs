//! Places tasks. Invariant: a plan never exceeds an instance's free CPU or memory, never gives an address or a port
//! that is taken, and breaks no constraint.

mod address;
mod choose;
mod ports;
mod rules;

pub use address::{RESERVED_FIRST, RESERVED_LAST, free_address};
pub use rules::Reason;

use crate::view::{Pool, View};
use address::Address;
use longshore_model::capacity_provider::CapacityProvider;
use longshore_model::cluster::Cluster;
use longshore_model::container_instance::{ContainerInstance, Placements, Status, ZONE};
use longshore_model::id::IdSource;
use longshore_model::placement::{PlacementConstraint, PlacementStrategy};
use longshore_model::task::{
    Attachment, Container, ContainerOverride, ContainerStatus, DesiredStatus, Health, HostPort, LastStatus,
    LaunchType, Overrides, Task, Times, Waiting,
};
use longshore_model::task_definition::TaskDefinition;
use longshore_model::vpc::{Holder, MacAddress, NetworkInterface, Subnet};
use longshore_model::{ContainerInstanceId, Resources, Scope, Tags, Timestamp, Transaction};
use rules::Rules;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What RunTask asks for, already checked.
#[derive(Clone, Debug)]
pub struct Request {
    pub scope: Scope,
    pub cluster: String,
    pub definition: Arc<TaskDefinition>,
    pub count: u32,
    pub overrides: Option<Box<Overrides>>,
    pub size: Resources,
    pub launch_type: LaunchType,
    /// Where its network interface may be, in the network mode awsvpc.
    pub network: Option<Network>,
    pub constraints: Vec<PlacementConstraint>,
    pub strategies: Vec<PlacementStrategy>,
    /// The capacity provider of each task, where a strategy gives them.
    pub capacity_providers: Vec<String>,
    /// The capacity provider whose instances are asked, where those of the cluster are not all.
    pub provider: Option<String>,
    /// StartTask's: one task on each of these, and nowhere else.
    pub instances: Option<Vec<ContainerInstanceId>>,
    pub group: String,
    pub started_by: Option<String>,
    pub tags: Tags,
}

#[derive(Clone, Debug)]
pub struct Network {
    /// At least one, all of one VPC.
    pub subnets: Vec<Arc<Subnet>>,
    pub security_groups: Vec<String>,
}

/// The tasks that found a place, and why the others did not.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    pub tasks: Vec<(Task, Option<NetworkInterface>)>,
    pub failures: Vec<Failure>,
}

/// Why a task found no place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The container instance that refused it; none where no one instance did.
    pub on: Option<ContainerInstanceId>,
    pub reason: Reason,
}

/// The most tasks of a cluster that wait for capacity.
const WAITING_AT_MOST: usize = 300;
/// The most instances that one answer names.
const NAMED_AT_MOST: usize = 100;

pub fn place(view: &View, request: &Request, now: Timestamp, ids: &mut dyn IdSource) -> Placement {
    let on_fargate = request.launch_type == LaunchType::Fargate;
    if on_fargate || request.capacity_providers.is_empty() {
        return place_all(&mut view.clone(), request, now, ids);
    }
    // The instances of each provider are asked for its tasks.
    let mut counts: BTreeMap<&String, u32> = BTreeMap::new();
    request.capacity_providers.iter().for_each(|name| *counts.entry(name).or_default() += 1);
    let mut view = view.clone();
    let mut placement = Placement::default();
    for (name, count) in counts {
        let capacity_providers = vec![name.clone(); count as usize];
        let part = Request { count, provider: Some(name.clone()), capacity_providers, ..request.clone() };
        let Placement { tasks, failures } = place_all(&mut view, &part, now, ids);
        for (task, network_interface) in tasks.iter().rev().take(1) {
            view.hold(task, network_interface.as_ref());
        }
        placement.tasks.extend(tasks);
        placement.failures.extend(failures);
    }
    placement
}

/// Holds each task but the last in the view, so that the next one finds what is left.
fn place_all(view: &mut View, request: &Request, now: Timestamp, ids: &mut dyn IdSource) -> Placement {
    let rules = Rules::of(view, request);
    let mut placement = Placement::default();
    let mut unplaced = 0;
    for number in 0..request.count {
        let named = request.instances.as_ref().and_then(|named| named.get(number as usize).copied());
        let spot = match take(view, request, &rules, named, ids) {
            Ok(spot) => Some(spot),
            Err(reason) if named.is_some() => {
                placement.failures.push(Failure { on: named, reason });
                continue;
            }
            Err(reason) if request.launch_type == LaunchType::Fargate => {
                placement.failures.push(Failure { on: None, reason });
                continue;
            }
            Err(_) if may_wait(view, request) => None,
            Err(_) => {
                unplaced += 1;
                continue;
            }
        };
        let provider = request.capacity_providers.get(placement.tasks.len());
        let (mut task, network_interface) = new_task(request, spot, now, ids);
        task.capacity_provider = provider.map(|name| name.as_str().into());
        if number + 1 < request.count {
            view.hold(&task, network_interface.as_ref());
        }
        placement.tasks.push((task, network_interface));
    }
    if unplaced > 0 {
        placement.failures.extend(failures_by_instance(view, request, &rules));
    }
    placement
}

/// Whether a task without a place waits for capacity: ECS gives its provider more.
fn may_wait(view: &View, request: &Request) -> bool {
    let Some(name) = request.provider.as_deref().filter(|_| request.instances.is_none()) else {
        return false;
    };
    let provider = view.capacity_providers.get(&CapacityProvider::key_of(&request.scope, name));
    let of_cluster = |task: &&Arc<Task>| task.scope == request.scope && task.cluster == request.cluster;
    provider.is_some_and(|provider| provider.managed_scaling.enabled)
        && view.tasks_on(ContainerInstanceId::NONE).filter(of_cluster).count() < WAITING_AT_MOST
}

/// What keeps each instance of the cluster from taking one such task now; an instance that is told nothing takes it.
pub fn explain(view: &View, request: &Request) -> Vec<(Arc<ContainerInstance>, Vec<Reason>)> {
    let rules = Rules::of(view, request);
    let of = |instance: &Arc<ContainerInstance>| {
        let reasons = rules.refusals(view, request, instance).collect();
        (Arc::clone(instance), reasons)
    };
    candidates(view, request).map(of).collect()
}

/// The instances of the cluster that such tasks may be on, also those without room for one now.
pub fn eligible(view: &View, request: &Request) -> BTreeSet<ContainerInstanceId> {
    let rules = Rules::of(view, request);
    let passes = |reason: Reason| match reason {
        Reason::Agent
        | Reason::Cpu
        | Reason::Memory
        | Reason::Ports
        | Reason::NetworkInterface
        | Reason::DistinctInstance => true,
        Reason::Missing
        | Reason::Inactive
        | Reason::Draining
        | Reason::Attribute
        | Reason::Location
        | Reason::MemberOf => false,
    };
    let fits = |instance: &&Arc<ContainerInstance>| {
        let active = instance.membership().is_none_or(|member| member.status == Status::Active);
        active && rules.refusals(view, request, instance).all(passes)
    };
    candidates(view, request).filter(fits).map(|instance| instance.id).collect()
}

/// As AWS answers: each instance with what kept it from taking a task.
fn failures_by_instance(view: &View, request: &Request, rules: &Rules) -> Vec<Failure> {
    let refused = candidates(view, request).filter_map(|instance| {
        let reason = rules.refusals(view, request, instance).next()?;
        Some(Failure { on: Some(instance.id), reason })
    });
    let failures: Vec<Failure> = refused.take(NAMED_AT_MOST).collect();
    if failures.is_empty() { vec![Failure { on: None, reason: Reason::Agent }] } else { failures }
}

/// The instances that such tasks are for, also those that take none now.
fn candidates<'a>(view: &'a View, request: &'a Request) -> impl Iterator<Item = &'a Arc<ContainerInstance>> {
    let fargate = request.launch_type == LaunchType::Fargate;
    let of_fargate = view.container_instances.iter().filter(move |i| fargate && i.membership().is_none());
    let of_cluster = view.instances_of(&request.scope, &request.cluster).filter(move |instance| {
        let active = |status| status != Status::Inactive;
        let member = instance.membership().filter(|member| active(member.status));
        !fargate
            && member.is_some_and(|member| {
                let of_provider = request.provider.is_none() || member.capacity_provider == request.provider;
                member.launch_type == request.launch_type && of_provider
            })
    });
    of_fargate.chain(of_cluster)
}

/// What a task takes from its instance: the task's own size, or what its containers ask for.
pub fn size(overrides: Option<&Overrides>, definition: &TaskDefinition) -> Resources {
    let containers = definition.containers.iter().fold(Resources::default(), |sum, container| {
        let mut changed = overrides.iter().flat_map(|overrides| &overrides.containers);
        let changed = changed.find(|changed| changed.name == container.name);
        let of = |choose: fn(&ContainerOverride) -> Option<u64>| changed.and_then(choose);
        let reserved = of(|c| c.memory_reservation).or(container.memory_reservation);
        let hard = of(|c| c.memory).or(container.memory);
        sum.plus(Resources {
            cpu: of(|c| c.cpu).unwrap_or(container.cpu),
            memory: reserved.or(hard).unwrap_or(0),
        })
    });
    Resources {
        cpu: overrides.and_then(|o| o.cpu).or(definition.cpu).unwrap_or(containers.cpu),
        memory: overrides.and_then(|o| o.memory).or(definition.memory).unwrap_or(containers.memory),
    }
}

/// Writes a placement, guarded so that two placements cannot use the same room.
pub fn write(view: &View, placement: &Placement, transaction: &mut Transaction) {
    take_room(view, placement.tasks.iter().map(|(task, _)| task.container_instance), transaction);
    for (task, network_interface) in &placement.tasks {
        transaction.create(task);
        take_address(network_interface.as_ref(), transaction);
    }
}

fn take_room(
    view: &View,
    instances: impl Iterator<Item = ContainerInstanceId>,
    transaction: &mut Transaction,
) {
    let instances: BTreeSet<ContainerInstanceId> =
        instances.filter(|instance| *instance != ContainerInstanceId::NONE).collect();
    for instance in instances {
        transaction.rely_on(ContainerInstance::key_of(instance));
        match view.placements.get(&Placements::key_of(instance)) {
            Some(before) => transaction.update(&Placements { instance, count: before.count + 1 }),
            None => transaction.create(&Placements { instance, count: 1 }),
        }
    }
}

fn take_address(network_interface: Option<&NetworkInterface>, transaction: &mut Transaction) {
    if let Some(network_interface) = network_interface {
        transaction.create(network_interface);
        // A subnet is not deleted while a task is placed in it.
        transaction.rely_on(Subnet::key_of(&network_interface.scope, &network_interface.subnet));
    }
}

/// The tasks that wait for capacity, the oldest first.
pub fn waiting(view: &View) -> Vec<&Arc<Task>> {
    let mut waiting: Vec<_> = view.tasks_on(ContainerInstanceId::NONE).collect();
    waiting.sort_by_key(|task| (task.times.created_at, task.id));
    waiting
}

/// Gives a task that waits for capacity a place, if there is one now.
pub fn settle(view: &View, task: &Task, ids: &mut dyn IdSource, transaction: &mut Transaction) -> bool {
    let Some(request) = again(view, task) else { return false };
    let rules = Rules::of(view, &request);
    let Ok(spot) = take(view, &request, &rules, None, ids) else { return false };
    let mut next = task.clone();
    next.waiting = None;
    next.version += 1;
    next.container_instance = spot.instance.id;
    next.availability_zone = zone_at(&spot);
    next.network = attachment(&spot, ids);
    next.host_ports = spot.host_ports;
    take_room(view, std::iter::once(next.container_instance), transaction);
    take_address(network_interface(&request, &next, task.times.created_at).as_ref(), transaction);
    transaction.update(&next);
    true
}

/// What was asked for a task that waits. `None` when its definition or its subnets are gone.
fn again(view: &View, task: &Task) -> Option<Request> {
    let asked = task.waiting.as_ref()?;
    let subnets = asked.subnets.iter();
    let subnets: Vec<_> =
        subnets.filter_map(|id| view.subnets.get(&Subnet::key_of(&task.scope, id)).cloned()).collect();
    if subnets.is_empty() != asked.subnets.is_empty() {
        return None;
    }
    let network =
        (!subnets.is_empty()).then(|| Network { subnets, security_groups: asked.security_groups.clone() });
    Some(Request {
        scope: task.scope.clone(),
        cluster: task.cluster.clone(),
        definition: Arc::clone(view.task_definition(&task.scope, &task.family, task.revision)?),
        count: 1,
        overrides: task.overrides.clone(),
        size: task.size,
        launch_type: task.launch_type,
        network,
        constraints: asked.constraints.clone(),
        strategies: asked.strategies.clone(),
        capacity_providers: Vec::new(),
        provider: task.capacity_provider.as_deref().map(str::to_owned),
        instances: None,
        group: task.group.clone(),
        started_by: task.started_by.clone(),
        tags: task.tags.clone(),
    })
}

struct Spot {
    instance: Arc<ContainerInstance>,
    network: Option<Address>,
    host_ports: Vec<HostPort>,
}

/// A place on the named instance, or on any.
fn take(
    view: &View,
    request: &Request,
    rules: &Rules,
    named: Option<ContainerInstanceId>,
    ids: &mut dyn IdSource,
) -> Result<Spot, Reason> {
    let instance = match named {
        Some(id) => named_instance(view, request, rules, id)?,
        None => choose::choose(view, request, rules, ids).ok_or_else(|| closest(view, request, rules))?,
    };
    let network = match &request.network {
        None => None,
        Some(network) => {
            let zone = zone_of(&instance);
            let found = address::choose(view, network, zone, ids.ec2("eni"));
            Some(found.ok_or(Reason::NetworkInterface)?)
        }
    };
    let host_ports = ports::choose(view, &instance, &request.definition).ok_or(Reason::Ports)?;
    Ok(Spot { instance, network, host_ports })
}

/// An instance that StartTask names, which may be DRAINING.
fn named_instance(
    view: &View,
    request: &Request,
    rules: &Rules,
    id: ContainerInstanceId,
) -> Result<Arc<ContainerInstance>, Reason> {
    let instance = view.container_instance(id).ok_or(Reason::Missing)?;
    let member = instance.membership().filter(|m| m.scope == request.scope && m.cluster == request.cluster);
    if member.ok_or(Reason::Missing)?.status == Status::Inactive {
        return Err(Reason::Inactive);
    }
    let refusal = rules.refusals(view, request, instance).find(|reason| *reason != Reason::Draining);
    refusal.map_or_else(|| Ok(Arc::clone(instance)), Err)
}

/// The reason of the instance that came closest to taking the task.
fn closest(view: &View, request: &Request, rules: &Rules) -> Reason {
    let refusals = candidates(view, request).filter_map(|i| rules.refusals(view, request, i).next());
    refusals.max().unwrap_or(Reason::Agent)
}

/// The zone of a cluster's instance; Fargate capacity is in every zone.
fn zone_of(instance: &ContainerInstance) -> Option<&str> {
    instance.membership().and_then(|_| instance.attributes.get(ZONE).map(String::as_str))
}

fn pool_of(request: &Request) -> Pool {
    let cluster = Cluster::key_of(&request.scope, &request.cluster);
    match &request.provider {
        Some(name) => Pool::Provider(cluster, name.clone()),
        None => Pool::of_cluster(cluster, request.launch_type),
    }
}

fn attachment(spot: &Spot, ids: &mut dyn IdSource) -> Option<Attachment> {
    spot.network.as_ref().map(|at| Attachment {
        id: ids.uuid(),
        network_interface: at.network_interface.clone(),
        network: at.subnet.network.clone(),
        subnet: at.subnet.id.clone(),
        address: at.address,
        mac: MacAddress::of(at.address),
    })
}

fn zone_at(spot: &Spot) -> String {
    let zone = match &spot.network {
        Some(at) => Some(at.subnet.availability_zone.clone()),
        None => spot.instance.attributes.get(ZONE).cloned(),
    };
    zone.unwrap_or_default()
}

/// What a task without a place asks for.
fn asked(request: &Request) -> Waiting {
    let network = request.network.as_ref();
    let subnets = network.iter().flat_map(|network| &network.subnets).map(|subnet| subnet.id.clone());
    Waiting {
        constraints: request.constraints.clone(),
        strategies: request.strategies.clone(),
        subnets: subnets.collect(),
        security_groups: network.map(|network| network.security_groups.clone()).unwrap_or_default(),
    }
}

/// A task in its place, or without one.
fn new_task(
    request: &Request,
    spot: Option<Spot>,
    now: Timestamp,
    ids: &mut dyn IdSource,
) -> (Task, Option<NetworkInterface>) {
    let network = spot.as_ref().and_then(|spot| attachment(spot, ids));
    let containers = request.definition.containers.iter().map(|definition| Container {
        name: definition.name.clone(),
        uuid: ids.uuid(),
        last_status: ContainerStatus::Pending,
        was_running: false,
        image_digest: None,
        exit_code: None,
        reason: None,
        health: Health::Unknown,
        restarts: 0,
    });
    let containers = containers.collect();
    let task = Task {
        scope: request.scope.clone(),
        cluster: request.cluster.clone(),
        id: ids.task(),
        family: request.definition.family.clone(),
        revision: request.definition.revision,
        group: request.group.clone(),
        started_by: request.started_by.clone(),
        launch_type: request.launch_type,
        capacity_provider: None,
        desired_status: DesiredStatus::Running,
        last_status: LastStatus::Provisioning,
        size: request.size,
        overrides: request.overrides.clone(),
        container_instance: spot.as_ref().map_or(ContainerInstanceId::NONE, |spot| spot.instance.id),
        waiting: spot.is_none().then(|| Box::new(asked(request))),
        availability_zone: spot.as_ref().map(zone_at).unwrap_or_default(),
        network,
        host_ports: spot.map(|spot| spot.host_ports).unwrap_or_default(),
        containers,
        tags: request.tags.clone(),
        version: 1,
        times: Times { created_at: now, ..Times::default() },
        stop: None,
    };
    let network_interface = network_interface(request, &task, now);
    (task, network_interface)
}

/// The record that holds the task's address.
fn network_interface(request: &Request, task: &Task, now: Timestamp) -> Option<NetworkInterface> {
    let attachment = task.network.clone()?;
    Some(NetworkInterface {
        scope: request.scope.clone(),
        id: attachment.network_interface,
        attachment: attachment.id,
        network: attachment.network,
        subnet: attachment.subnet,
        address: attachment.address,
        mac: attachment.mac,
        security_groups: request.network.iter().flat_map(|n| n.security_groups.clone()).collect(),
        holder: Holder::Task(task.reference()),
        created_at: now,
    })
}

#[cfg(test)]
mod tests;
