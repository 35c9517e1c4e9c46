//! Places Fargate tasks. Invariant: a plan never exceeds an instance's free CPU or memory, and never gives an
//! address that is taken.

use crate::view::View;
use longshore_model::container_instance::{ContainerInstance, CpuArchitecture, Placements};
use longshore_model::id::{IdSource, stable_hash};
use longshore_model::resources::Kind;
use longshore_model::task::{
    Attachment, Container, ContainerStatus, DesiredStatus, LastStatus, Overrides, Task, Times,
};
use longshore_model::task_definition::TaskDefinition;
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
    /// At least one, all of one VPC.
    pub subnets: Vec<Arc<Subnet>>,
    pub security_groups: Vec<String>,
    pub group: String,
    pub started_by: Option<String>,
    pub tags: Tags,
}

/// The tasks that found a place, and why the others did not.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    pub tasks: Vec<(Task, NetworkInterface)>,
    pub failures: Vec<Failure>,
}

/// Why a task found no place; rendered as the `reason` of a RunTask failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No instance with a connected agent offers the capacity.
    Agent,
    /// None runs the task's CPU architecture.
    Attribute,
    Cpu,
    Memory,
    /// The subnets have no free address.
    NetworkInterface,
}

impl Failure {
    pub fn reason(self) -> &'static str {
        match self {
            Self::Agent => "AGENT",
            Self::Attribute => "ATTRIBUTE",
            Self::Cpu => "RESOURCE:CPU",
            Self::Memory => "RESOURCE:MEMORY",
            Self::NetworkInterface => "RESOURCE:ENI",
        }
    }

    pub fn detail(self) -> &'static str {
        match self {
            Self::Agent => "No instance that offers Fargate capacity has a connected agent.",
            Self::Attribute => "No instance that offers Fargate capacity has the task's CPU architecture.",
            Self::Cpu => "No instance that offers Fargate capacity has enough CPU units left.",
            Self::Memory => "No instance that offers Fargate capacity has enough memory left.",
            Self::NetworkInterface => "The subnets have no free addresses.",
        }
    }
}

pub fn place(view: &View, request: &Request, now: Timestamp, ids: &mut dyn IdSource) -> Placement {
    let mut room = Room::of(view, request);
    let mut placement = Placement::default();
    for _ in 0..request.count {
        match room.take(request, ids) {
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
        transaction.create(network_interface);
    }
}

struct Spot {
    instance: ContainerInstanceId,
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
    resources: Resources,
    tasks: usize,
}

impl<'a> Room<'a> {
    fn of(view: &'a View, request: &Request) -> Self {
        let architecture = request.definition.cpu_architecture.unwrap_or(CpuArchitecture::X86_64);
        let connected = || view.container_instances.iter().filter(|instance| instance.agent_connected);
        // A definition that names no architecture runs wherever there is capacity.
        let fits = |i: &&Arc<ContainerInstance>| {
            request.definition.cpu_architecture.is_none() || i.cpu_architecture == architecture
        };
        let free = |i: &Arc<ContainerInstance>| {
            let resources = i.resources.minus(view.used_on(i.id));
            (i.id, Free { resources, tasks: view.task_count_on(i.id) })
        };
        Self {
            view,
            instances: connected().filter(fits).map(free).collect(),
            any_connected: connected().next().is_some(),
            subnets: request.subnets.iter().map(|s| (view.addresses_used(&s.id), Arc::clone(s))).collect(),
            taken: BTreeSet::new(),
        }
    }

    fn take(&mut self, request: &Request, ids: &mut dyn IdSource) -> Result<Spot, Failure> {
        let instance = self.choose_instance(request.size)?;
        let network_interface = ids.ec2("eni");
        let (subnet, address) = self.choose_address(&network_interface).ok_or(Failure::NetworkInterface)?;
        self.taken.insert(address);
        if let Some(free) = self.instances.get_mut(&instance) {
            free.resources = free.resources.minus(request.size);
            free.tasks += 1;
        }
        Ok(Spot { instance, subnet, network_interface, address })
    }

    /// The instance with the fewest tasks among those with room.
    fn choose_instance(&self, size: Resources) -> Result<ContainerInstanceId, Failure> {
        let fitting = self.instances.iter().filter(|(_, free)| free.resources.lacks(size).is_none());
        if let Some((id, _)) = fitting.min_by_key(|(id, free)| (free.tasks, **id)) {
            return Ok(*id);
        }
        let lacks = self.instances.values().filter_map(|free| free.resources.lacks(size)).max();
        Err(match lacks {
            Some(Kind::Cpu) => Failure::Cpu,
            Some(Kind::Memory) => Failure::Memory,
            None if self.any_connected => Failure::Attribute,
            None => Failure::Agent,
        })
    }

    /// An address of the subnet with the fewest in use that has one left.
    fn choose_address(&mut self, network_interface: &str) -> Option<(Arc<Subnet>, Ipv4Addr)> {
        self.subnets.sort_by_key(|(used, _)| *used);
        for index in 0..self.subnets.len() {
            let Some((_, subnet)) = self.subnets.get(index) else { continue };
            let subnet = Arc::clone(subnet);
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

/// AWS keeps the first four addresses of a subnet and the last one.
pub const RESERVED_FIRST: u64 = 4;
pub const RESERVED_LAST: u64 = 1;

fn new_task(
    request: &Request,
    spot: Spot,
    now: Timestamp,
    ids: &mut dyn IdSource,
) -> (Task, NetworkInterface) {
    let mac = MacAddress::of(spot.address);
    let attachment = Attachment {
        id: ids.uuid(),
        network_interface: spot.network_interface,
        network: spot.subnet.network.clone(),
        subnet: spot.subnet.id.clone(),
        address: spot.address,
        mac,
    };
    let containers = request.definition.containers.iter().map(|definition| Container {
        name: definition.name.clone(),
        uuid: ids.uuid(),
        last_status: ContainerStatus::Pending,
        runtime_id: None,
        image_digest: None,
        exit_code: None,
        reason: None,
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
        desired_status: DesiredStatus::Running,
        last_status: LastStatus::Provisioning,
        size: request.size,
        overrides: request.overrides.clone(),
        container_instance: spot.instance,
        availability_zone: spot.subnet.availability_zone.clone(),
        network: attachment.clone(),
        containers,
        tags: request.tags.clone(),
        version: 1,
        times: Times { created_at: now, ..Times::default() },
        stop: None,
    };
    let network_interface = NetworkInterface {
        scope: request.scope.clone(),
        id: attachment.network_interface,
        attachment: attachment.id,
        network: attachment.network,
        subnet: attachment.subnet,
        address: attachment.address,
        mac,
        security_groups: request.security_groups.clone(),
        task: task.reference(),
        created_at: now,
    };
    (task, network_interface)
}

#[cfg(test)]
mod tests;
