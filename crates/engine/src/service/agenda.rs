//! Which services to look at, and when. Invariant: a service that a change could matter to is due, and one that nothing has
//! changed for is not, so that the cost of looking grows with what changes.

use super::Plan;
use crate::view::{Pool, View};
use longshore_model::alarm::Alarm;
use longshore_model::change::{Batch, Key};
use longshore_model::cluster::Cluster;
use longshore_model::container_instance::ContainerInstance;
use longshore_model::elb::Target;
use longshore_model::service::{SchedulingStrategy, Service, TaskProtection, key_of_task};
use longshore_model::task::LaunchType;
use longshore_model::task::Task;
use longshore_model::{Record, Scope, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub struct Agenda {
    due: BTreeSet<Key>,
    /// Services to look at when their time has come.
    later: BTreeMap<Key, Timestamp>,
    /// Services with tasks that found no place.
    waiting: BTreeSet<Key>,
    /// The zones with instances for tasks, as they were when last looked at.
    zones: BTreeMap<Pool, BTreeSet<Arc<str>>>,
}

impl Agenda {
    /// Every service: what has changed before is not known.
    pub fn of_everything(view: &View) -> Self {
        let mut agenda =
            Self { due: view.services.iter().map(|service| service.key()).collect(), ..Self::default() };
        let clusters = view.container_instances.iter().filter_map(|instance| cluster_of(instance));
        for cluster in clusters.collect::<BTreeSet<_>>() {
            agenda.follow_zones(view, &cluster);
        }
        agenda
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
        let mut clusters = BTreeSet::new();
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
                Target::TABLE => {
                    // Of one that is gone, its task says so.
                    let task = view.targets.get(&change.key).and_then(|target| target.task.as_ref());
                    let task = task.and_then(|task| view.tasks.get(&task.key()));
                    self.due.extend(task.and_then(|task| key_of_task(task)));
                }
                Alarm::TABLE => {
                    if let Some(alarm) = view.alarms.get(&change.key) {
                        let listens = |service: &&Arc<Service>| {
                            let alarms = service.configuration.alarms();
                            alarms.is_some_and(|alarms| alarms.names.contains(&alarm.name))
                        };
                        let concerned = view.services.of(&alarm.scope).filter(listens);
                        self.due.extend(concerned.map(|service| service.key()));
                    }
                }
                ContainerInstance::TABLE => {
                    room = true;
                    clusters.extend(self.take_instance(view, &change.key));
                }
                _ => {}
            }
        }
        if room {
            self.due.append(&mut self.waiting);
        }
        for cluster in clusters {
            let is_wider = self.follow_zones(view, &cluster);
            let (scope, name) = &cluster;
            let concerned = view.services_of(scope, name).filter(|service| {
                let daemon = service.scheduling_strategy == SchedulingStrategy::Daemon;
                daemon || is_wider && service.availability_zone_rebalancing
            });
            self.due.extend(concerned.map(|service| service.key()));
        }
    }

    /// Has the services with tasks on an instance looked at; says whose the instance is.
    fn take_instance(&mut self, view: &View, key: &Key) -> Option<(Scope, String)> {
        let instance = view.container_instances.get(key)?;
        self.due.extend(view.tasks_on(instance.id).filter_map(|task| key_of_task(task)));
        cluster_of(instance)
    }

    /// Whether a cluster has instances for tasks in a zone in which it had none.
    fn follow_zones(&mut self, view: &View, (scope, name): &(Scope, String)) -> bool {
        let mut is_wider = false;
        for launch_type in [LaunchType::Ec2, LaunchType::External] {
            let pool = Pool::of_cluster(Cluster::key_of(scope, name), launch_type);
            let zones: BTreeSet<Arc<str>> = view.capacity().zones(&pool).cloned().collect();
            let before = self.zones.insert(pool, zones.clone()).unwrap_or_default();
            is_wider |= !zones.is_subset(&before);
        }
        is_wider
    }
}

/// The cluster of an instance that is of one.
fn cluster_of(instance: &ContainerInstance) -> Option<(Scope, String)> {
    let member = instance.membership()?;
    Some((member.scope.clone(), member.cluster.clone()))
}
