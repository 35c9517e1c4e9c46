//! Indexes for placement: what each instance holds, where it is filed by that, and where the tasks of a group are.
//!
//! Invariant: everything here is a function of the tasks, container instances, services and task definitions of the view,
//! kept as they change.

use super::demands::{Demand, Demands};
use super::groups::{Counts, Group, GroupKey, Groups};
use super::shelves::{Fill, Shelves, Sorting};
use crate::query::Expression;
use imbl::{OrdMap, OrdSet};
use longshore_model::change::Key;
use longshore_model::cluster::Cluster;
use longshore_model::container_instance::{ContainerInstance, Status};
use longshore_model::task::{DesiredStatus, LaunchType, Task};
use longshore_model::task_definition::Protocol;
use longshore_model::{ContainerInstanceId, Resources};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

#[derive(Clone, Default)]
pub struct Capacity {
    pools: OrdMap<Pool, Arc<Shelves>>,
    loads: OrdMap<ContainerInstanceId, Load>,
    seats: OrdMap<ContainerInstanceId, Seat>,
    groups: Groups,
    demands: Demands,
}

/// The instances that the tasks of one kind may run on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pool {
    Fargate,
    Cluster(Key, LaunchType),
    /// Of a cluster's, those that are one capacity provider's.
    Provider(Key, String),
}

#[derive(Clone, Default)]
struct Load {
    tasks: OrdSet<Key>,
    used: Resources,
    ports: OrdSet<(Protocol, u16)>,
}

/// An instance, and how it is filed.
#[derive(Clone)]
struct Seat {
    instance: Arc<ContainerInstance>,
    /// None while it takes no tasks.
    pools: Vec<Pool>,
    fill: Fill,
}

impl Pool {
    pub fn of_cluster(cluster: Key, launch_type: LaunchType) -> Self {
        match launch_type {
            LaunchType::Fargate => Self::Fargate,
            LaunchType::Ec2 | LaunchType::External => Self::Cluster(cluster, launch_type),
        }
    }

    /// None for an instance that takes no tasks now.
    fn of(instance: &ContainerInstance) -> Vec<Self> {
        if !instance.agent_connected {
            return Vec::new();
        }
        match instance.membership() {
            None => vec![Self::Fargate],
            Some(member) if member.status == Status::Active => {
                let cluster = Cluster::key_of(&member.scope, &member.cluster);
                let of_provider = |name: &String| Self::Provider(cluster.clone(), name.clone());
                let provider = member.capacity_provider.as_ref().map(of_provider);
                std::iter::once(Self::Cluster(cluster.clone(), member.launch_type)).chain(provider).collect()
            }
            Some(_) => Vec::new(),
        }
    }
}

impl Capacity {
    /// The instances of a pool that take tasks.
    pub fn shelves(&self, pool: &Pool) -> Option<&Shelves> {
        self.pools.get(pool).map(|shelves| &**shelves)
    }

    /// The availability zones with instances of a pool that take tasks; one without a name for those that are in none.
    pub fn zones(&self, pool: &Pool) -> impl Iterator<Item = &Arc<str>> {
        self.pools
            .get(pool)
            .into_iter()
            .flat_map(|shelves| shelves.usual().parts())
            .filter_map(|(zone, _)| zone.first())
    }

    pub fn group(&self, key: &GroupKey) -> Option<&Group> {
        self.groups.get(key)
    }

    /// The tasks of a group by the values of an attribute, where a service asks for it.
    pub fn spread(&self, key: &GroupKey, attribute: &str) -> Option<&Counts> {
        self.groups.spread(key, attribute)
    }

    /// The expression of this text, where a service has it.
    pub fn expression(&self, text: &str) -> Option<&Arc<Expression>> {
        self.demands.expression(text)
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

    /// The ports of a range that tasks on the instance hold, in their order.
    pub fn ports_held(
        &self,
        instance: ContainerInstanceId,
        protocol: Protocol,
        ports: RangeInclusive<u16>,
    ) -> impl Iterator<Item = u16> {
        let (first, last) = ((protocol, *ports.start()), (protocol, *ports.end()));
        let held = self.loads.get(&instance).into_iter().flat_map(move |load| load.ports.range(first..));
        held.take_while(move |held| **held <= last).map(|(_, port)| *port)
    }

    /// An instance that takes tasks.
    pub fn instance(&self, id: ContainerInstanceId) -> Option<&Arc<ContainerInstance>> {
        self.seats.get(&id).filter(|seat| !seat.pools.is_empty()).map(|seat| &seat.instance)
    }

    /// An instance that may take none.
    pub fn record(&self, id: ContainerInstanceId) -> Option<&Arc<ContainerInstance>> {
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
        let before = self.seats.remove(&id);
        for (seat, pool) in before.iter().flat_map(|seat| seat.pools.iter().map(move |pool| (seat, pool))) {
            self.change_shelves(pool, |shelves| shelves.remove(id, seat.fill));
        }
        if self.loads.contains_key(&id) {
            let before = before.as_ref().map(|seat| &*seat.instance);
            self.groups.change_instance(id, before, after.map(|after| &**after));
        }
        if let Some(instance) = after {
            let (pools, fill) = (Pool::of(instance), self.fill_of(instance));
            for pool in &pools {
                self.change_shelves(pool, |shelves| shelves.insert(instance, fill));
            }
            self.seats.insert(id, Seat { instance: Arc::clone(instance), pools, fill });
        }
    }

    /// Takes in what a service asks for now.
    pub fn change_demand(&mut self, service: &Key, after: Option<Demand>) {
        let before = self.demands.of_service(service).cloned();
        if before.as_deref() == after.as_ref() {
            return;
        }
        if let Some(before) = &before {
            self.groups.spread_over(&before.group, &BTreeSet::new(), |_| None);
        }
        if let Some(after) = &after {
            let seats = &self.seats;
            let instance = |id| seats.get(&id).map(|seat| &*seat.instance);
            self.groups.spread_over(&after.group, &after.attributes(), instance);
        }
        let pools =
            [before.map(|before| before.pool.clone()), after.as_ref().map(|after| after.pool.clone())];
        self.demands.change(service, after);
        pools.into_iter().flatten().for_each(|pool| self.settle_shelves(&pool));
    }

    /// Puts up the shelves that are asked for and takes down those that no longer are.
    fn settle_shelves(&mut self, pool: &Pool) {
        let wanted = self.demands.shelved(pool);
        let (seats, demands) = (&self.seats, &self.demands);
        let shelves = Arc::make_mut(self.pools.entry(pool.clone()).or_default());
        shelves.keep(&wanted);
        let missing: Vec<&Sorting> = wanted.iter().filter(|sorting| shelves.of(sorting).is_none()).collect();
        for sorting in missing {
            let expressions = sorting.expressions().filter_map(|text| demands.expression(text).cloned());
            let present: Vec<ContainerInstanceId> = shelves.usual().ids().collect();
            let present = present.into_iter().filter_map(|id| seats.get(&id));
            let present = present.map(|seat| (&*seat.instance, seat.fill));
            shelves.put_up(sorting, expressions.collect(), present);
        }
        if shelves.is_empty() {
            self.pools.remove(pool);
        }
    }

    fn change_shelves(&mut self, pool: &Pool, change: impl FnOnce(&mut Shelves)) {
        let shelves = Arc::make_mut(self.pools.entry(pool.clone()).or_default());
        change(shelves);
        if shelves.is_empty() {
            self.pools.remove(pool);
        }
    }

    fn add(&mut self, key: &Key, task: &Task) {
        let id = task.container_instance;
        if task.holds_resources() {
            let load = self.loads.entry(id).or_default();
            load.tasks.insert(key.clone());
            load.used = load.used.plus(task.size);
            load.ports.extend(task.host_ports.iter().map(|port| (port.protocol, port.host_port)));
            self.refill(id);
        }
        if counts_in_group(task) {
            self.groups.add(task, self.seats.get(&id).map(|seat| &*seat.instance));
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
            self.refill(id);
        }
        if counts_in_group(task) {
            self.groups.remove(task, self.seats.get(&id).map(|seat| &*seat.instance));
        }
    }

    /// Files an instance where its load now belongs.
    fn refill(&mut self, id: ContainerInstanceId) {
        let Some(seat) = self.seats.get(&id) else { return };
        let (before, after) = (seat.fill, self.fill_of(&seat.instance));
        let Some(seat) = self.seats.get_mut(&id) else { return };
        seat.fill = after;
        let pools = std::mem::take(&mut seat.pools);
        for pool in &pools {
            self.change_shelves(pool, |shelves| shelves.refill(id, before, after));
        }
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.pools = pools;
        }
    }

    fn fill_of(&self, instance: &ContainerInstance) -> Fill {
        Fill {
            tasks: self.task_count_on(instance.id) as u64,
            left: instance.resources.minus(self.used_on(instance.id)),
        }
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
