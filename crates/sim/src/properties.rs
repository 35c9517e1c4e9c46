//! What must hold at every step, by name. Each check looks at what the step changed, not at everything.

use crate::cluster::{NAME, scope};
use longshore_engine::View;
use longshore_engine::assignment::runtime_id;
use longshore_model::change::{Batch, Key};
use longshore_model::container_instance::Status;
use longshore_model::event::{Event, Subject};
use longshore_model::record::{Record, decode};
use longshore_model::task::{ContainerStatus, DesiredStatus, LastStatus, LaunchType, Task};
use longshore_model::task_definition::Protocol;
use longshore_model::{ContainerInstanceId, TaskId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// A property that does not hold, and of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

type Checked = Result<(), Violation>;

fn ensure(holds: bool, violated: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Violation(violated())) }
}

/// What has been seen so far.
#[derive(Debug, Default)]
pub struct Properties {
    last: BTreeMap<TaskId, Task>,
    addresses: BTreeMap<Ipv4Addr, TaskId>,
    ports: BTreeMap<(ContainerInstanceId, Protocol, u16), TaskId>,
    acknowledged: BTreeSet<TaskId>,
    running: BTreeMap<String, ContainerInstanceId>,
    /// The last event of each task: its version, and where it stands among all events.
    told: BTreeMap<TaskId, (u64, Key)>,
}

impl Properties {
    /// RunTask was answered with this task.
    pub fn acknowledge(&mut self, task: TaskId) {
        self.acknowledged.insert(task);
    }

    pub fn committed(&mut self, view: &View, batch: &Batch) -> Checked {
        for change in batch.changes.iter().filter(|change| change.key.table() == Task::TABLE) {
            let Some(value) = &change.value else {
                return Err(Violation(format!("a task is never lost: {} was deleted", change.key)));
            };
            let task: Task = decode(value).map_err(|error| Violation(error.to_string()))?;
            self.task_changed(view, &task)?;
            self.last.insert(task.id, task);
        }
        self.told_in(batch)
    }

    /// The events of a commit tell of what it changes, each change once and in its order.
    fn told_in(&mut self, batch: &Batch) -> Checked {
        for change in batch.changes.iter().filter(|change| change.key.table() == Event::TABLE) {
            let Some(value) = &change.value else { continue };
            let event: Event = decode(value).map_err(|error| Violation(error.to_string()))?;
            let Subject::Task(task) = event.subject else { continue };
            let (version, after) = self.told.insert(task.id, (task.version, change.key.clone())).unzip();
            let is_next = task.version == version.unwrap_or_default() + 1;
            ensure(is_next, || format!("an event is missing or told twice: {} {version:?}", task.id))?;
            let in_order = after.is_none_or(|after| after < change.key);
            ensure(in_order, || format!("an event is told before an earlier one: {}", task.id))?;
            let is_true = self.last.get(&task.id) == Some(&*task);
            ensure(is_true, || format!("an event tells what the commit did not change: {}", task.id))?;
        }
        for change in batch.changes.iter().filter(|change| change.key.table() == Task::TABLE) {
            let Some(value) = &change.value else { continue };
            let task: Task = decode(value).map_err(|error| Violation(error.to_string()))?;
            let told = self.told.get(&task.id).map(|(version, _)| *version);
            ensure(told == Some(task.version), || format!("a change is not told: {} {told:?}", task.id))?;
        }
        Ok(())
    }

    fn task_changed(&mut self, view: &View, task: &Task) -> Checked {
        match self.last.get(&task.id) {
            Some(before) => never_backwards(before, task)?,
            None => placed_where_tasks_are_taken(view, task)?,
        }
        if task.last_status == LastStatus::Stopped {
            ensure(task.stop.is_some(), || format!("every stop has a reason: {}", task.id))?;
            ensure(task.times.stopped_at.is_some(), || format!("a stopped task says when: {}", task.id))?;
            self.give_back(task);
        } else {
            self.hold(task)?;
        }
        let used = view.used_on(task.container_instance);
        let record = view.container_instance(task.container_instance);
        let fits = record.is_some_and(|record| record.resources.lacks(used).is_none());
        ensure(fits, || format!("an instance above its resources: {used:?} on {}", task.container_instance))
    }

    fn hold(&mut self, task: &Task) -> Checked {
        if let Some(network) = &task.network {
            let holder = *self.addresses.entry(network.address).or_insert(task.id);
            ensure(holder == task.id, || {
                format!("two tasks on one address: {holder} and {} on {}", task.id, network.address)
            })?;
        }
        for port in &task.host_ports {
            let place = (task.container_instance, port.protocol, port.host_port);
            let holder = *self.ports.entry(place).or_insert(task.id);
            ensure(holder == task.id, || {
                format!("two tasks at one port: {holder} and {} at {place:?}", task.id)
            })?;
        }
        Ok(())
    }

    fn give_back(&mut self, task: &Task) {
        if let Some(network) = &task.network
            && self.addresses.get(&network.address) == Some(&task.id)
        {
            self.addresses.remove(&network.address);
        }
        for port in &task.host_ports {
            let place = (task.container_instance, port.protocol, port.host_port);
            if self.ports.get(&place) == Some(&task.id) {
                self.ports.remove(&place);
            }
        }
    }

    pub fn created(&mut self, view: &View, instance: ContainerInstanceId, task: TaskId, id: &str) -> Checked {
        let other = self.running.insert(id.to_owned(), instance);
        ensure(other.is_none(), || format!("a container runs twice: {id} on {other:?} and {instance}"))?;
        let recorded = view.task(&scope(), NAME, task).is_some_and(|task| {
            task.containers
                .iter()
                .any(|container| container.was_running && runtime_id(task.id, &container.name) == id)
        });
        ensure(!recorded, || format!("a container that was recorded as running is made again: {id}"))
    }

    pub fn ended(&mut self, id: &str) {
        self.running.remove(id);
    }

    /// A container with an exit code is removed.
    pub fn removed(&mut self, view: &View, task: TaskId, id: &str) -> Checked {
        self.running.remove(id);
        let Some(task) = view.task(&scope(), NAME, task) else { return Ok(()) };
        let recorded =
            task.containers.iter().all(|container| container.last_status == ContainerStatus::Stopped);
        ensure(recorded, || format!("an exit code is recorded before its container goes: {id}"))
    }

    /// Nothing is going on any more.
    pub fn converged(&self, view: &View) -> Checked {
        for id in &self.acknowledged {
            let task = view.task(&scope(), NAME, *id);
            ensure(task.is_some(), || format!("an acknowledged task is lost: {id}"))?;
        }
        for task in view.tasks.iter() {
            let settled = matches!(task.last_status, LastStatus::Running | LastStatus::Stopped);
            ensure(settled, || format!("a task hangs in {:?}: {}", task.last_status, task.id))?;
            let exit = |status| status == ContainerStatus::Stopped;
            let ended = task.containers.iter().all(|container| exit(container.last_status));
            ensure(task.last_status != LastStatus::Stopped || ended, || {
                format!("a stopped task has a container that is not: {}", task.id)
            })?;
        }
        let held = view.network_interfaces.iter().count();
        let with_address = |task: &&Arc<Task>| task.holds_resources() && task.network.is_some();
        let live = view.tasks.iter().filter(with_address).count();
        ensure(held == live, || format!("addresses leak: {held} are held by {live} tasks"))
    }
}

/// The commit of a placement relies on what its instance was, so that it still is.
fn placed_where_tasks_are_taken(view: &View, task: &Task) -> Checked {
    let instance = view.container_instance(task.container_instance).filter(|found| found.agent_connected);
    let takes = instance.is_some_and(|found| {
        found.membership().is_none_or(|member| member.status == Status::Active)
            && found.membership().is_none() == (task.launch_type == LaunchType::Fargate)
    });
    ensure(takes, || {
        format!("a task is placed where none is taken: {} on {}", task.id, task.container_instance)
    })?;
    let others = view.tasks_on(task.container_instance).filter(|other| {
        other.group == task.group && other.id != task.id && other.desired_status == DesiredStatus::Running
    });
    let alone = task.group != "family:distinct" || others.count() == 0;
    ensure(alone, || format!("distinctInstance is broken: {} on {}", task.id, task.container_instance))
}

fn never_backwards(before: &Task, after: &Task) -> Checked {
    ensure(after.last_status >= before.last_status, || {
        format!(
            "a status goes backwards: {:?} after {:?} of {}",
            after.last_status, before.last_status, after.id
        )
    })?;
    ensure(after.container_instance == before.container_instance, || {
        format!("a task is on two instances: {}", after.id)
    })?;
    ensure(before.last_status != LastStatus::Stopped, || format!("a stopped task changes: {}", after.id))?;
    ensure(before.stop.is_none() || before.stop == after.stop, || {
        format!("the first reason to stop stays: {:?} after {:?}", after.stop, before.stop)
    })?;
    let exits = |task: &Task| task.containers.iter().filter_map(|container| container.exit_code).count();
    ensure(exits(after) >= exits(before), || format!("an exit code is forgotten: {}", after.id))
}
