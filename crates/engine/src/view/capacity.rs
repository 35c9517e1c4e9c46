//! Indexes for placement: what each instance holds, and the instances that take tasks in the orders in which
//! strategies ask for them.
//!
//! Invariant: everything here is a function of the tasks and container instances of the view, kept as they change.

use imbl::{OrdMap, OrdSet};
use longshore_model::change::Key;
use longshore_model::cluster::Cluster;
use longshore_model::container_instance::{self, ContainerInstance, Status};
use longshore_model::task::{DesiredStatus, LaunchType, Task};
use longshore_model::task_definition::Protocol;
use longshore_model::{ContainerInstanceId, Resources};
use std::sync::Arc;

#[derive(Clone, Default)]
pub struct Capacity {
    pools: OrdMap<Pool, OrdMap<Zone, Orders>>,
    loads: OrdMap<ContainerInstanceId, Load>,
    seats: OrdMap<ContainerInstanceId, Seat>,
    groups: OrdMap<(Key, Arc<str>), Group>,
}

/// The instances that the tasks of one kind may run on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pool {
    Fargate,
    Cluster(Key, LaunchType),
}

/// An availability zone; empty for instances that are in none.
pub type Zone = Arc<str>;

/// The instances of a pool in one zone that take tasks, which are ACTIVE and connected.
#[derive(Clone, Default)]
pub struct Orders {
    pub by_id: OrdSet<ContainerInstanceId>,
    pub by_tasks: OrdSet<(u64, ContainerInstanceId)>,
    /// By what is left.
    pub by_cpu: OrdSet<(u64, ContainerInstanceId)>,
    pub by_memory: OrdSet<(u64, ContainerInstanceId)>,
}

/// Where the tasks of one group are that are to run.
#[derive(Clone, Default)]
pub struct Group {
    by_instance: OrdMap<ContainerInstanceId, u64>,
    by_zone: OrdMap<Zone, u64>,
    /// Instances with tasks of the group, those with the fewest first.
    pub by_count: OrdSet<(u64, ContainerInstanceId)>,
}

#[derive(Clone, Default)]
struct Load {
    tasks: OrdSet<Key>,
    used: Resources,
    ports: OrdSet<(Protocol, u16)>,
}

/// How an instance is filed in its pool.
#[derive(Clone)]
struct Seat {
    pool: Pool,
    zone: Zone,
    instance: Arc<ContainerInstance>,
    filed: (u64, Resources),
}

impl Pool {
    pub fn of_cluster(cluster: Key, launch_type: LaunchType) -> Self {
        match launch_type {
            LaunchType::Fargate => Self::Fargate,
            LaunchType::Ec2 | LaunchType::External => Self::Cluster(cluster, launch_type),
        }
    }

    /// `None` for an instance that takes no tasks now.
    fn of(instance: &ContainerInstance) -> Option<Self> {
        if !instance.agent_connected {
            return None;
        }
        match instance.membership() {
            None => Some(Self::Fargate),
            Some(member) if member.status == Status::Active => {
                Some(Self::Cluster(Cluster::key_of(&member.scope, &member.cluster), member.launch_type))
            }
            Some(_) => None,
        }
    }
}

impl Group {
    pub fn on(&self, instance: ContainerInstanceId) -> u64 {
        self.by_instance.get(&instance).copied().unwrap_or_default()
    }

    pub fn in_zone(&self, zone: &str) -> u64 {
        self.by_zone.get(zone).copied().unwrap_or_default()
    }

    pub fn instances(&self) -> impl Iterator<Item = (ContainerInstanceId, u64)> {
        self.by_instance.iter().map(|(id, count)| (*id, *count))
    }
}

impl Capacity {
    /// The zones of a pool with the instances that take tasks in them.
    pub fn zones(&self, pool: &Pool) -> impl Iterator<Item = (&Zone, &Orders)> {
        self.pools.get(pool).into_iter().flatten()
    }

    pub fn group(&self, cluster: &Key, group: &str) -> Option<&Group> {
        self.groups.get(&(cluster.clone(), Arc::from(group)))
    }

    pub fn tasks_on(&self, instance: ContainerInstanceId) -> impl Iterator<Item = &Key> {
        self.loads.get(&instance).into_iter().flat_map(|load| &load.tasks)
    }

    pub fn task_count_on(&self, instance: ContainerInstanceId) -> usize {
        self.loads.get(&instance).map_or(0, |load| load.tasks.len())
    }

    pub fn used_on(&self, instance: ContainerInstanceId) -> Resources {
        self.loads.get(&instance).map(|load| load.used).unwrap_or_default()
    }

    /// Whether a task on the instance holds a port of it.
    pub fn holds_port(&self, instance: ContainerInstanceId, protocol: Protocol, port: u16) -> bool {
        self.loads.get(&instance).is_some_and(|load| load.ports.contains(&(protocol, port)))
    }

    /// Any instance, also one that takes no tasks.
    pub fn known(&self, id: ContainerInstanceId) -> Option<&Arc<ContainerInstance>> {
        self.instances.get(&id)
    }

    /// An instance that takes tasks.
    pub fn instance(&self, id: ContainerInstanceId) -> Option<&Arc<ContainerInstance>> {
        self.seats.get(&id).map(|seat| &seat.instance)
    }

    /// Takes in what became of a task.
    pub fn change_task(&mut self, key: &Key, before: Option<&Task>, after: Option<&Task>) {
        if before.is_some_and(|before| after.is_some_and(|after| holds_the_same(before, after))) {
            return;
        }
        if let Some(task) = before {
            self.remove(key, task);
        }
        if let Some(task) = after {
            self.add(key, task);
        }
    }

    /// Takes in what became of an instance.
    pub fn change_instance(&mut self, id: ContainerInstanceId, after: Option<&Arc<ContainerInstance>>) {
        if let Some(seat) = self.seats.remove(&id) {
            self.unfile(id, &seat);
        }
        let Some((instance, pool)) = after.and_then(|after| Some((after, Pool::of(after)?))) else { return };
        let zone = instance.attributes.get(container_instance::ZONE).map(String::as_str);
        // Fargate capacity is in every zone.
        let zone = zone.filter(|_| pool != Pool::Fargate).unwrap_or_default().into();
        self.file(id, Seat { pool, zone, instance: Arc::clone(instance), filed: (0, Resources::default()) });
    }

    fn add(&mut self, key: &Key, task: &Task) {
        if task.holds_resources() {
            let load = self.loads.entry(task.container_instance).or_default();
            load.tasks.insert(key.clone());
            load.used = load.used.plus(task.size);
            load.ports.extend(task.host_ports.iter().map(|port| (port.protocol, port.host_port)));
            self.refile(task.container_instance);
        }
        if counts_in_group(task) {
            let group = self.groups.entry(group_key(task)).or_default();
            let count = group.by_instance.entry(task.container_instance).or_default();
            group.by_count.remove(&(*count, task.container_instance));
            *count += 1;
            group.by_count.insert((*count, task.container_instance));
            *group.by_zone.entry(task.availability_zone.as_str().into()).or_default() += 1;
        }
    }

    fn remove(&mut self, key: &Key, task: &Task) {
        let id = task.container_instance;
        if task.holds_resources()
            && let Some(load) = self.loads.get_mut(&id)
        {
            load.tasks.remove(key);
            load.used = load.used.minus(task.size);
            for port in &task.host_ports {
                load.ports.remove(&(port.protocol, port.host_port));
            }
            if load.tasks.is_empty() {
                self.loads.remove(&id);
            }
            self.refile(id);
        }
        if counts_in_group(task) {
            self.leave_group(task);
        }
    }

    fn leave_group(&mut self, task: &Task) {
        let (key, id) = (group_key(task), task.container_instance);
        let Some(group) = self.groups.get_mut(&key) else { return };
        let count = group.on(id);
        group.by_count.remove(&(count, id));
        if count > 1 {
            group.by_instance.insert(id, count - 1);
            group.by_count.insert((count - 1, id));
        } else {
            group.by_instance.remove(&id);
        }
        let zone: Zone = task.availability_zone.as_str().into();
        let count = group.in_zone(&zone);
        if count > 1 {
            group.by_zone.insert(zone, count - 1);
        } else {
            group.by_zone.remove(&zone);
        }
        if group.by_instance.is_empty() {
            self.groups.remove(&key);
        }
    }

    /// Puts an instance where its load now belongs.
    fn refile(&mut self, id: ContainerInstanceId) {
        if let Some(seat) = self.seats.get(&id).cloned() {
            self.unfile(id, &seat);
            self.file(id, seat);
        }
    }

    fn unfile(&mut self, id: ContainerInstanceId, seat: &Seat) {
        let Some(zones) = self.pools.get_mut(&seat.pool) else { return };
        let Some(orders) = zones.get_mut(&seat.zone) else { return };
        let (tasks, left) = seat.filed;
        orders.by_id.remove(&id);
        orders.by_tasks.remove(&(tasks, id));
        orders.by_cpu.remove(&(left.cpu, id));
        orders.by_memory.remove(&(left.memory, id));
        if orders.by_id.is_empty() {
            zones.remove(&seat.zone);
            if zones.is_empty() {
                self.pools.remove(&seat.pool);
            }
        }
    }

    fn file(&mut self, id: ContainerInstanceId, seat: Seat) {
        let left = seat.instance.resources.minus(self.used_on(id));
        let tasks = self.task_count_on(id) as u64;
        let zones = self.pools.entry(seat.pool.clone()).or_default();
        let orders = zones.entry(Arc::clone(&seat.zone)).or_default();
        orders.by_id.insert(id);
        orders.by_tasks.insert((tasks, id));
        orders.by_cpu.insert((left.cpu, id));
        orders.by_memory.insert((left.memory, id));
        self.seats.insert(id, Seat { filed: (tasks, left), ..seat });
    }
}

/// Whether a change of a task is none for placement, as most are.
fn holds_the_same(before: &Task, after: &Task) -> bool {
    before.holds_resources() == after.holds_resources()
        && counts_in_group(before) == counts_in_group(after)
        && before.container_instance == after.container_instance
        && before.size == after.size
        && before.host_ports == after.host_ports
        && before.group == after.group
        && before.availability_zone == after.availability_zone
}

/// Spreads and distinctInstance look at the tasks that are to run.
fn counts_in_group(task: &Task) -> bool {
    task.desired_status == DesiredStatus::Running && task.holds_resources()
}

fn group_key(task: &Task) -> (Key, Arc<str>) {
    (Cluster::key_of(&task.scope, &task.cluster), task.group.as_str().into())
}
