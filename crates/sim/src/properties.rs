//! What must hold at every step, by name. Each check looks at what the step changed, not at everything.

use crate::cluster::{NAME, scope};
use longshore_engine::View;
use longshore_model::change::Batch;
use longshore_model::record::{Record, decode};
use longshore_model::task::{ContainerStatus, LastStatus, Task};
use longshore_model::{ContainerInstanceId, TaskId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

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
    acknowledged: BTreeSet<TaskId>,
    running: BTreeMap<String, ContainerInstanceId>,
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
        Ok(())
    }

    fn task_changed(&mut self, view: &View, task: &Task) -> Checked {
        if let Some(before) = self.last.get(&task.id) {
            never_backwards(before, task)?;
        }
        if task.last_status == LastStatus::Stopped {
            ensure(task.stop.is_some(), || format!("every stop has a reason: {}", task.id))?;
            ensure(task.times.stopped_at.is_some(), || format!("a stopped task says when: {}", task.id))?;
            self.addresses.retain(|_, holder| *holder != task.id);
        } else if let Some(network) = &task.network {
            let holder = *self.addresses.entry(network.address).or_insert(task.id);
            ensure(holder == task.id, || {
                format!("two tasks on one address: {holder} and {} on {}", task.id, network.address)
            })?;
        }
        let instance = task.container_instance;
        let record = view.container_instances.iter().find(|record| record.id == instance);
        let used = view.used_on(instance);
        let fits = record.is_some_and(|record| record.resources.lacks(used).is_none());
        ensure(fits, || format!("an instance above its resources: {used:?} on {instance}"))
    }

    pub fn created(&mut self, view: &View, instance: ContainerInstanceId, task: TaskId, id: &str) -> Checked {
        let other = self.running.insert(id.to_owned(), instance);
        ensure(other.is_none(), || format!("a container runs twice: {id} on {other:?} and {instance}"))?;
        let recorded = view.task(&scope(), NAME, task).is_some_and(|task| {
            task.containers.iter().any(|container| container.runtime_id.as_deref() == Some(id))
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
        let live = view.tasks.iter().filter(|task| task.holds_resources()).count();
        ensure(held == live, || format!("addresses leak: {held} are held by {live} tasks"))
    }
}

fn never_backwards(before: &Task, after: &Task) -> Checked {
    ensure(after.last_status >= before.last_status, || {
        format!(
            "a status goes backwards: {:?} after {:?} of {}",
            after.last_status, before.last_status, after.id
        )
    })?;
    ensure(before.last_status != LastStatus::Stopped, || format!("a stopped task changes: {}", after.id))?;
    ensure(before.stop.is_none() || before.stop == after.stop, || {
        format!("the first reason to stop stays: {:?} after {:?}", after.stop, before.stop)
    })?;
    let exits = |task: &Task| task.containers.iter().filter_map(|container| container.exit_code).count();
    ensure(exits(after) >= exits(before), || format!("an exit code is forgotten: {}", after.id))
}
