//! Places Fargate tasks. Invariant: a plan never exceeds an instance's free CPU or memory, and never gives an
//! address that is taken.

use crate::view::View;
use longshore_model::container_instance::{Capacity, ContainerInstance, Placements, Status};
use longshore_model::id::{IdSource, stable_hash};
use longshore_model::placement::{PlacementConstraint, PlacementStrategy};
use longshore_model::resources::Kind;
use longshore_model::task::{
    Attachment, Container, ContainerStatus, DesiredStatus, Health, HostPort, LastStatus, LaunchType,
    Overrides, Task, Times,
};
use longshore_model::task_definition::{NetworkMode, Protocol, TaskDefinition};
use longshore_model::vpc::{MacAddress, NetworkInterface, Subnet};
use longshore_model::{ContainerInstanceId, Resources, Scope, Tags, Timestamp, Transaction};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// What RunTask asks for, already checked.
#[derive(Clone, Debug)]
pub struct Request {
    pub scope: Scope,
    pub cluster: String,
    pub definition: Arc<TaskDefinition>,
    pub count: u32,
    pub overrides: Overrides,
    pub size: Resources,
    pub launch_type: LaunchType,
    /// Where its network interface may be, in the network mode awsvpc.
    pub network: Option<Network>,
    pub constraints: Vec<PlacementConstraint>,
    pub strategies: Vec<PlacementStrategy>,
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

/// Why a task found no place; rendered as the `reason` of a RunTask failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// There is no such instance in the cluster.
    Missing,
    /// The instance was deregistered.
    Inactive,
    /// No instance with a connected agent offers the capacity.
    Agent,
    /// None runs the task's CPU architecture.
    Attribute,
    Cpu,
    Memory,
    /// A port of the instance that the task needs is taken.
    Ports,
    /// None of the subnets is in the instance's availability zone.
    Location,
    /// The subnets have no free address.
    NetworkInterface,
}

impl Failure {
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "MISSING",
            Self::Inactive => "INACTIVE",
            Self::Agent => "AGENT",
            Self::Attribute => "ATTRIBUTE",
            Self::Cpu => "RESOURCE:CPU",
            Self::Memory => "RESOURCE:MEMORY",
            Self::Ports => "RESOURCE:PORTS",
            Self::Location => "LOCATION",
            Self::NetworkInterface => "RESOURCE:ENI",
        }
    }

    pub fn detail(self) -> &'static str {
        match self {
            Self::Missing => "The cluster has no such container instance.",
            Self::Inactive => "The container instance is deregistered.",
            Self::Agent => "No instance that could run the task has a connected agent.",
            Self::Attribute => "No instance that could run the task has its CPU architecture.",
            Self::Cpu => "No instance that could run the task has enough CPU units left.",
            Self::Memory => "No instance that could run the task has enough memory left.",
            Self::Ports => "Every instance is already using a port required by your task.",
            Self::Location => "None of the subnets is in the availability zone of an instance with room.",
            Self::NetworkInterface => "The subnets have no free addresses.",
        }
    }
}

pub fn place(view: &View, request: &Request, now: Timestamp, ids: &mut dyn IdSource) -> Placement {
    let mut room = Room::of(view, request);
    let mut placement = Placement::default();
    for number in 0..request.count {
        let named = request.instances.as_ref().and_then(|named| named.get(number as usize).copied());
        match room.take(request, named, ids) {
            Ok(spot) => placement.tasks.push(new_task(request, spot, now, ids)),
            Err(failure) => placement.failures.push(failure),
        }
    }
    placement
}

/// Writes a placement, guarded so that two placements cannot use the same room.
pub fn write(view: &View, placement: &Placement, transaction: &mut Transaction) {
    let instances: BTreeSet<ContainerInstanceId> =
        placement.tasks.iter().map(|(task, _)| task.container_instance).collect();
    for instance in instances {
        transaction.rely_on(ContainerInstance::key_of(instance));
        match view.placements.get(&Placements::key_of(instance)) {
            Some(before) => transaction.update(&Placements { instance, count: before.count + 1 }),
            None => transaction.create(&Placements { instance, count: 1 }),
        }
    }
    for (task, network_interface) in &placement.tasks {
        transaction.create(task);
        if let Some(network_interface) = network_interface {
            transaction.create(network_interface);
        }
    }
}

struct Spot {
    instance: Arc<ContainerInstance>,
    network: Option<Address>,
    host_ports: Vec<HostPort>,
}

struct Address {
    subnet: Arc<Subnet>,
    network_interface: String,
    address: Ipv4Addr,
}

/// What is still free while a plan is being made.
struct Room<'a> {
    view: &'a View,
    instances: BTreeMap<ContainerInstanceId, Free>,
    any_connected: bool,
    subnets: Vec<(u64, Arc<Subnet>)>,
    taken: BTreeSet<Ipv4Addr>,
}

struct Free {
    instance: Arc<ContainerInstance>,
    resources: Resources,
    tasks: usize,
    ports: BTreeSet<(Protocol, u16)>,
}

impl<'a> Room<'a> {
    fn of(view: &'a View, request: &Request) -> Self {
        let offering = || view.container_instances.iter().filter(|i| offers(i, request));
        let connected = || offering().filter(|instance| instance.agent_connected);
        let architecture = request.definition.cpu_architecture;
        // A definition that names no architecture runs wherever there is capacity.
        let fits =
            |i: &&Arc<ContainerInstance>| architecture.is_none_or(|wanted| wanted == i.cpu_architecture);
        let free = |i: &Arc<ContainerInstance>| {
            let resources = i.resources.minus(view.used_on(i.id));
            let used = view.tasks_on(i.id).flat_map(|task| &task.host_ports);
            let ports =
                used.map(|port| (port.protocol, port.host_port)).chain(i.ports.reserved.iter().copied());
            let free = Free {
                instance: Arc::clone(i),
                resources,
                tasks: view.task_count_on(i.id),
                ports: ports.collect(),
            };
            (i.id, free)
        };
        let subnets = request.network.iter().flat_map(|network| &network.subnets);
        Self {
            view,
            instances: connected().filter(fits).map(free).collect(),
            any_connected: connected().next().is_some(),
            subnets: subnets.map(|s| (view.addresses_used(&s.id), Arc::clone(s))).collect(),
            taken: BTreeSet::new(),
        }
    }

    /// A place on the named instance, or on any.
    fn take(
        &mut self,
        request: &Request,
        named: Option<ContainerInstanceId>,
        ids: &mut dyn IdSource,
    ) -> Result<Spot, Failure> {
        if let Some(id) = named {
            self.check_named(request, id)?;
        }
        let id = self.choose_instance(request, named)?;
        let network = match &request.network {
            None => None,
            Some(_) => {
                let network_interface = ids.ec2("eni");
                let zone = self.instances.get(&id).and_then(|free| zone_of(&free.instance));
                let (subnet, address) = self
                    .choose_address(&network_interface, zone.as_deref())
                    .ok_or(Failure::NetworkInterface)?;
                self.taken.insert(address);
                Some(Address { subnet, network_interface, address })
            }
        };
        let free = self.instances.get_mut(&id).ok_or(Failure::Agent)?;
        free.resources = free.resources.minus(request.size);
        free.tasks += 1;
        let host_ports = free.take_ports(&request.definition).ok_or(Failure::Ports)?;
        Ok(Spot { instance: Arc::clone(&free.instance), network, host_ports })
    }

    /// What keeps an instance from being given a task by its name.
    fn check_named(&self, request: &Request, id: ContainerInstanceId) -> Result<(), Failure> {
        let instance = self.view.container_instance(id).ok_or(Failure::Missing)?;
        let member =
            instance.membership().filter(|m| m.scope == request.scope && m.cluster == request.cluster);
        match member.ok_or(Failure::Missing)?.status {
            Status::Inactive => Err(Failure::Inactive),
            Status::Active | Status::Draining if !instance.agent_connected => Err(Failure::Agent),
            Status::Active | Status::Draining => Ok(()),
        }
    }

    /// The instance with the fewest tasks among those with room.
    fn choose_instance(
        &self,
        request: &Request,
        named: Option<ContainerInstanceId>,
    ) -> Result<ContainerInstanceId, Failure> {
        let allowed = |id: &ContainerInstanceId| named.is_none_or(|named| named == *id);
        let lacks = |free: &Free| match free.resources.lacks(request.size) {
            Some(Kind::Cpu) => Some(Failure::Cpu),
            Some(Kind::Memory) => Some(Failure::Memory),
            None if !free.has_ports(&request.definition) => Some(Failure::Ports),
            None if !free.is_near(request) => Some(Failure::Location),
            None => None,
        };
        let fitting = self.instances.iter().filter(|(id, free)| allowed(id) && lacks(free).is_none());
        if let Some((id, _)) = fitting.min_by_key(|(id, free)| (free.tasks, **id)) {
            return Ok(*id);
        }
        let none = if self.any_connected { Failure::Attribute } else { Failure::Agent };
        let refused = self.instances.iter().filter(|(id, _)| allowed(id)).filter_map(|(_, free)| lacks(free));
        Err(refused.max().unwrap_or(none))
    }

    /// An address of the subnet with the fewest in use that has one left.
    fn choose_address(
        &mut self,
        network_interface: &str,
        zone: Option<&str>,
    ) -> Option<(Arc<Subnet>, Ipv4Addr)> {
        self.subnets.sort_by_key(|(used, _)| *used);
        for index in 0..self.subnets.len() {
            let Some((_, subnet)) = self.subnets.get(index) else { continue };
            let subnet = Arc::clone(subnet);
            if zone.is_some_and(|zone| zone != subnet.availability_zone) {
                continue;
            }
            if let Some(address) = self.free_address(&subnet, network_interface) {
                if let Some((used, _)) = self.subnets.get_mut(index) {
                    *used += 1;
                }
                return Some((subnet, address));
            }
        }
        None
    }

    /// Starts looking at a place that depends on the interface, so that an address just given back is not the
    /// next one to be used: peers may still hold connections to it.
    fn free_address(&self, subnet: &Subnet, network_interface: &str) -> Option<Ipv4Addr> {
        let usable = subnet.cidr.size().checked_sub(RESERVED_FIRST + RESERVED_LAST).filter(|n| *n > 0)?;
        let start = stable_hash(network_interface.bytes()) % usable;
        (0..usable)
            .filter_map(|step| subnet.cidr.nth(RESERVED_FIRST + (start + step) % usable))
            .find(|address| !self.is_taken(&subnet.network, *address))
    }

    fn is_taken(&self, network: &str, address: Ipv4Addr) -> bool {
        let key = NetworkInterface::key_of(network, address);
        self.taken.contains(&address) || self.view.network_interfaces.get(&key).is_some()
    }
}

/// Whether an instance is there for such tasks at all. One that StartTask names may be draining.
fn offers(instance: &ContainerInstance, request: &Request) -> bool {
    let named = request.instances.is_some();
    match (&instance.capacity, request.launch_type) {
        (Capacity::Fargate, LaunchType::Fargate) => true,
        (Capacity::Cluster(member), LaunchType::Ec2 | LaunchType::External) => {
            member.scope == request.scope
                && member.cluster == request.cluster
                && member.launch_type == request.launch_type
                && (member.status == Status::Active || named && member.status == Status::Draining)
        }
        (Capacity::Fargate, LaunchType::Ec2 | LaunchType::External)
        | (Capacity::Cluster(_), LaunchType::Fargate) => false,
    }
}

impl Free {
    /// Whether one of the subnets is in the instance's availability zone.
    fn is_near(&self, request: &Request) -> bool {
        let (Some(zone), Some(network)) = (zone_of(&self.instance), &request.network) else { return true };
        network.subnets.iter().any(|subnet| subnet.availability_zone == zone)
    }

    fn has_ports(&self, definition: &TaskDefinition) -> bool {
        self.choose_ports(definition).is_some()
    }

    fn take_ports(&mut self, definition: &TaskDefinition) -> Option<Vec<HostPort>> {
        let chosen = self.choose_ports(definition)?;
        self.ports.extend(chosen.iter().map(|port| (port.protocol, port.host_port)));
        Some(chosen)
    }

    /// The ports of the instance that a task's containers are given; `None` where one of them is taken.
    fn choose_ports(&self, definition: &TaskDefinition) -> Option<Vec<HostPort>> {
        let mode = definition.mode();
        let mut chosen: Vec<HostPort> = Vec::new();
        if matches!(mode, NetworkMode::Awsvpc | NetworkMode::None) {
            return Some(chosen);
        }
        for container in &definition.containers {
            for mapping in &container.port_mappings {
                let protocol = mapping.protocol.unwrap_or_default();
                let is_free = |port: u16| {
                    !self.ports.contains(&(protocol, port))
                        && !chosen.iter().any(|c| c.protocol == protocol && c.host_port == port)
                };
                let fixed = match mode {
                    NetworkMode::Host => Some(mapping.container_port),
                    NetworkMode::Awsvpc | NetworkMode::Bridge | NetworkMode::None => {
                        mapping.host_port.filter(|port| *port != 0)
                    }
                };
                let (first, last) = self.instance.ports.dynamic;
                let host_port = match fixed {
                    Some(port) => Some(port).filter(|port| is_free(*port)),
                    None => (first..=last).find(|port| is_free(*port)),
                }?;
                chosen.push(HostPort {
                    container: container.name.clone(),
                    container_port: mapping.container_port,
                    host_port,
                    protocol,
                });
            }
        }
        Some(chosen)
    }
}

/// The zone of a cluster's instance; Fargate capacity is in every zone.
fn zone_of(instance: &ContainerInstance) -> Option<String> {
    instance.membership().and_then(|_| instance.attributes.get(ZONE).cloned())
}

/// AWS keeps the first four addresses of a subnet and the last one.
pub const RESERVED_FIRST: u64 = 4;
pub const RESERVED_LAST: u64 = 1;

fn new_task(
    request: &Request,
    spot: Spot,
    now: Timestamp,
    ids: &mut dyn IdSource,
) -> (Task, Option<NetworkInterface>) {
    let network = spot.network.as_ref().map(|at| Attachment {
        id: ids.uuid(),
        network_interface: at.network_interface.clone(),
        network: at.subnet.network.clone(),
        subnet: at.subnet.id.clone(),
        address: at.address,
        mac: MacAddress::of(at.address),
    });
    let containers = request.definition.containers.iter().map(|definition| Container {
        name: definition.name.clone(),
        uuid: ids.uuid(),
        last_status: ContainerStatus::Pending,
        runtime_id: None,
        image_digest: None,
        exit_code: None,
        reason: None,
        health: Health::Unknown,
        restarts: 0,
    });
    let containers = containers.collect();
    let zone = match &spot.network {
        Some(at) => Some(at.subnet.availability_zone.clone()),
        None => spot.instance.attributes.get(ZONE).cloned(),
    };
    let task = Task {
        scope: request.scope.clone(),
        cluster: request.cluster.clone(),
        id: ids.task(),
        family: request.definition.family.clone(),
        revision: request.definition.revision,
        group: request.group.clone(),
        started_by: request.started_by.clone(),
        launch_type: request.launch_type,
        desired_status: DesiredStatus::Running,
        last_status: LastStatus::Provisioning,
        size: request.size,
        overrides: request.overrides.clone(),
        container_instance: spot.instance.id,
        availability_zone: zone.unwrap_or_default(),
        network,
        host_ports: spot.host_ports,
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
        task: task.reference(),
        created_at: now,
    })
}

/// The attribute that says which availability zone an instance is in.
pub const ZONE: &str = "ecs.availability-zone";

#[cfg(test)]
mod tests;
