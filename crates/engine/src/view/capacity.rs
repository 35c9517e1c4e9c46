//! Indexes for placement: what each instance holds, and the instances that take tasks in the orders in which
//! strategies ask for them.
//!
//! Invariant: everything here is a function of the tasks and container instances of the view, kept as they change.

use super::shelf::{Orders, Shelves, Sorting, Zone};
use imbl::{OrdMap, OrdSet};
use longshore_model::change::Key;
use longshore_model::cluster::Cluster;
use longshore_model::container_instance::{ContainerInstance, Status};
use longshore_model::service::{self, Service};
use longshore_model::task::{DesiredStatus, LaunchType, Task};
use longshore_model::task_definition::Protocol;
use longshore_model::{ContainerInstanceId, Resources};
use std::sync::Arc;

#[derive(Clone, Default)]
pub struct Capacity {
    pools: OrdMap<Pool, Shelves>,
    /// Also those that take no tasks now.
    instances: OrdMap<ContainerInstanceId, Arc<ContainerInstance>>,
    /// The attribute by whose values the tasks of a service are counted, where that is not the zone.
    attributes: OrdMap<GroupKey, Arc<str>>,
    loads: OrdMap<ContainerInstanceId, Load>,
    seats: OrdMap<ContainerInstanceId, Seat>,
    groups: OrdMap<GroupKey, Group>,
}

/// A cluster, and the `group` of tasks.
type GroupKey = (Key, Arc<str>);

/// The instances that the tasks of one kind may run on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pool {
    Fargate,
    Cluster(Key, LaunchType),
}

/// Where the tasks of one group are that are to run.
#[derive(Clone, Default)]
pub struct Group {
    by_instance: OrdMap<ContainerInstanceId, u64>,
    by_zone: OrdMap<Zone, u64>,
    /// By the instances' values of the attribute that the group's service spreads its tasks over.
    by_value: OrdMap<Arc<str>, u64>,
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
    instance: Arc<ContainerInstance>,
    /// The tasks on it, and what they leave of it.
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

    /// The tasks on instances with a value of the attribute that the group's service spreads its tasks over.
    pub fn with_value(&self, value: &str) -> u64 {
        self.by_value.get(value).copied().unwrap_or_default()
    }

    /// The same by value, in the order of the values.
    pub fn by_value(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        self.by_value.iter().map(|(value, count)| (value, *count))
    }

    /// On how many instances there are tasks of it.
    pub fn instance_count(&self) -> usize {
        self.by_instance.len()
    }

    pub fn instances(&self) -> impl Iterator<Item = (ContainerInstanceId, u64)> {
        self.by_instance.iter().map(|(id, count)| (*id, *count))
    }
}

impl Capacity {
    /// The zones of a pool with the instances that take tasks in them.
    pub fn zones(&self, pool: &Pool) -> impl Iterator<Item = (&Zone, &Orders)> {
        self.pools.get(pool).into_iter().flat_map(Shelves::by_zone)
    }

    /// The instances of a pool sorted in another way, which is kept while a service uses it.
    pub fn sorted(
        &self,
        pool: &Pool,
        sorting: &Sorting,
    ) -> Option<impl Iterator<Item = (&Arc<str>, &Orders)>> {
        self.pools.get(pool)?.sorted(sorting)
    }

    pub fn group(&self, cluster: &Key, group: &str) -> Option<&Group> {
        self.groups.get(&(cluster.clone(), Arc::from(group)))
    }

    /// Whether the tasks of a group are counted by the values of the attribute.
    pub fn is_counted_by(&self, cluster: &Key, group: &str, attribute: &str) -> bool {
        let counted = self.attributes.get(&(cluster.clone(), Arc::from(group)));
        counted.is_some_and(|counted| &**counted == attribute)
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
        let before = match after {
            Some(after) => self.instances.insert(id, Arc::clone(after)),
            None => self.instances.remove(&id),
        };
        self.recount_values(id, before.as_ref(), after);
        if let Some((instance, pool)) = after.and_then(|after| Some((after, Pool::of(after)?))) {
            self.file(id, Seat { pool, instance: Arc::clone(instance), filed: (0, Resources::default()) });
        }
    }

    /// Takes in what became of a service: how it wants the instances of its pool to be sorted.
    pub fn change_service(&mut self, before: Option<&Service>, after: Option<&Service>) {
        let (before, after) = (before.and_then(Wanted::of), after.and_then(Wanted::of));
        if before == after {
            return;
        }
        if let Some(wanted) = before {
            self.attributes.remove(&wanted.group);
            if let Some(shelves) = self.pools.get_mut(&wanted.pool) {
                shelves.give_up(&wanted.sorting);
                if shelves.is_empty() {
                    self.pools.remove(&wanted.pool);
                }
            }
            if let Some(group) = self.groups.get_mut(&wanted.group) {
                group.by_value.clear();
            }
        }
        if let Some(wanted) = after {
            self.want(wanted);
        }
    }

    fn want(&mut self, wanted: Wanted) {
        let seated = self.seats.iter().filter(|(_, seat)| seat.pool == wanted.pool);
        let seated = seated.map(|(id, seat)| (*id, &*seat.instance, seat.filed));
        self.pools.entry(wanted.pool.clone()).or_default().want(&wanted.sorting, seated);
        let Some(attribute) = wanted.sorting.other_attribute() else { return };
        if let Some(group) = self.groups.get_mut(&wanted.group) {
            for (id, count) in &group.by_instance {
                let value = value_of(self.instances.get(id), &attribute);
                *group.by_value.entry(value).or_default() += count;
            }
        }
        self.attributes.insert(wanted.group, attribute);
    }

    /// Moves what is counted by the values of an instance's attributes.
    fn recount_values(
        &mut self,
        id: ContainerInstanceId,
        before: Option<&Arc<ContainerInstance>>,
        after: Option<&Arc<ContainerInstance>>,
    ) {
        if !self.loads.contains_key(&id) {
            return;
        }
        for (key, attribute) in &self.attributes {
            let (from, to) = (value_of(before, attribute), value_of(after, attribute));
            let Some(group) = self.groups.get_mut(key).filter(|_| from != to) else { continue };
            let count = group.on(id);
            if count > 0 {
                take(&mut group.by_value, &from, count);
                *group.by_value.entry(to).or_default() += count;
            }
        }
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
            let key = group_key(task);
            let value =
                self.attributes.get(&key).map(|a| value_of(self.instances.get(&task.container_instance), a));
            let group = self.groups.entry(key).or_default();
            if let Some(value) = value {
                *group.by_value.entry(value).or_default() += 1;
            }
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
        let value = self.attributes.get(&key).map(|attribute| value_of(self.instances.get(&id), attribute));
        let Some(group) = self.groups.get_mut(&key) else { return };
        let count = group.on(id);
        group.by_count.remove(&(count, id));
        if count > 1 {
            group.by_instance.insert(id, count - 1);
            group.by_count.insert((count - 1, id));
        } else {
            group.by_instance.remove(&id);
        }
        take(&mut group.by_zone, &task.availability_zone.as_str().into(), 1);
        if let Some(value) = value {
            take(&mut group.by_value, &value, 1);
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
        let Some(shelves) = self.pools.get_mut(&seat.pool) else { return };
        shelves.unfile(id, &seat.instance, seat.filed);
        if shelves.is_empty() {
            self.pools.remove(&seat.pool);
        }
    }

    fn file(&mut self, id: ContainerInstanceId, seat: Seat) {
        let left = seat.instance.resources.minus(self.used_on(id));
        let filed = (self.task_count_on(id) as u64, left);
        self.pools.entry(seat.pool.clone()).or_default().file(id, &seat.instance, filed);
        self.seats.insert(id, Seat { filed, ..seat });
    }
}

/// How a service wants instances to be sorted, where it is not as they always are.
#[derive(PartialEq, Eq)]
struct Wanted {
    pool: Pool,
    group: GroupKey,
    sorting: Sorting,
}

impl Wanted {
    fn of(service: &Service) -> Option<Self> {
        let sorting = Sorting::of(&service.strategies, &service.constraints);
        if service.status == service::Status::Inactive || sorting == Sorting::default() {
            return None;
        }
        let cluster = Cluster::key_of(&service.scope, &service.cluster);
        let pool = Pool::of_cluster(cluster.clone(), service.launch_type);
        Some(Self { pool, group: (cluster, service.group().into()), sorting })
    }
}

/// Instances without the attribute, and those that are gone, are alike.
fn value_of(instance: Option<&Arc<ContainerInstance>>, attribute: &str) -> Arc<str> {
    let value = instance.and_then(|instance| instance.attributes.get(attribute));
    value.map(String::as_str).unwrap_or_default().into()
}

fn take(counts: &mut OrdMap<Arc<str>, u64>, key: &Arc<str>, less: u64) {
    match counts.get_mut(key) {
        Some(count) if *count > less => *count -= less,
        _ => drop(counts.remove(key)),
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

fn group_key(task: &Task) -> GroupKey {
    (Cluster::key_of(&task.scope, &task.cluster), task.group.as_str().into())
}
