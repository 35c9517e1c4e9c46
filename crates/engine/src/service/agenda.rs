//! Which services to look at, and when. Invariant: a service that a change could matter to is due, and one that nothing has
//! changed for is not, so that the cost of looking grows with what changes.

use super::Plan;
use crate::view::View;
use longshore_model::change::{Batch, Key};
use longshore_model::container_instance::ContainerInstance;
use longshore_model::service::{SchedulingStrategy, Service, TaskProtection, key_of_task};
use longshore_model::task::Task;
use longshore_model::{Record, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, Default)]
pub struct Agenda {
    due: BTreeSet<Key>,
    /// Services to look at when their time has come.
    later: BTreeMap<Key, Timestamp>,
    /// Services with tasks that found no place.
    waiting: BTreeSet<Key>,
}

impl Agenda {
    /// Every service: what has changed before is not known.
    pub fn of_everything(view: &View) -> Self {
        Self { due: view.services.iter().map(|service| service.key()).collect(), ..Self::default() }
    }

    /// The next service to look at.
    pub fn pop(&mut self) -> Option<Key> {
        self.due.pop_first()
    }

    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// When a service has to be looked at although nothing has changed.
    pub fn next_time(&self) -> Option<Timestamp> {
        self.later.values().min().copied()
    }

    pub fn wake(&mut self, now: Timestamp) {
        let woken: Vec<Key> =
            self.later.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect();
        for key in woken {
            self.later.remove(&key);
            self.due.insert(key);
        }
    }

    /// Takes in when a service is to be looked at again, as its plan says.
    pub fn planned(&mut self, service: Key, plan: &Plan) {
        if plan.waits_for_capacity {
            self.waiting.insert(service.clone());
        }
        self.look_again(service, plan.again_at);
    }

    pub fn look_again(&mut self, service: Key, at: Option<Timestamp>) {
        match at {
            Some(at) => self.later.insert(service, at),
            None => self.later.remove(&service),
        };
    }

    /// Takes in what has changed; the view has it already.
    pub fn take(&mut self, view: &View, batch: &Batch) {
        let mut room = false;
        for change in &batch.changes {
            match change.key.table() {
                Service::TABLE => {
                    self.due.insert(change.key.clone());
                }
                Task::TABLE => {
                    let task = view.tasks.get(&change.key);
                    room |= task.is_none_or(|task| !task.holds_resources());
                    self.due.extend(task.and_then(|task| key_of_task(task)));
                }
                TaskProtection::TABLE => {
                    let protection = view.task_protections.get(&change.key);
                    let task = protection.and_then(|protection| view.tasks.get(&protection.task.key()));
                    self.due.extend(task.and_then(|task| key_of_task(task)));
                }
                ContainerInstance::TABLE => {
                    room = true;
                    self.take_instance(view, &change.key);
                }
                _ => {}
            }
        }
        if room {
            self.due.append(&mut self.waiting);
        }
    }

    /// The services with tasks on an instance, and those that want one on each.
    fn take_instance(&mut self, view: &View, key: &Key) {
        let Some(instance) = view.container_instances.get(key) else { return };
        self.due.extend(view.tasks_on(instance.id).filter_map(|task| key_of_task(task)));
        let Some(member) = instance.membership() else { return };
        let daemons = view
            .services_of(&member.scope, &member.cluster)
            .filter(|service| service.scheduling_strategy == SchedulingStrategy::Daemon);
        self.due.extend(daemons.map(|service| service.key()));
    }
}
