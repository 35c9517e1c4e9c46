//! Drives the services: looks at those that something has changed for, and commits what the engine decides.
//!
//! Invariant: a wake-up says only where to look. What is decided is decided on a snapshot, and of two control planes that
//! decide on one state only the first one's plan is committed.

use crate::context::{CommitError, Context, RandomIds};
use longshore_engine::View;
use longshore_engine::service::{self, Settings};
use longshore_model::change::{Batch, Key};
use longshore_model::container_instance::ContainerInstance;
use longshore_model::service::{SchedulingStrategy, Service, TaskProtection, key_of_task};
use longshore_model::task::Task;
use longshore_model::{Record, Timestamp};
use longshore_store::{Followed, Follower};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two looks at whether this control plane is the one that drives.
const TURN: Duration = Duration::from_millis(200);
/// The same where there are no others; clocks may jump, so that nothing is waited for longer.
const LONGEST: Duration = Duration::from_secs(10);
/// How long a service waits whose plan could not be committed.
const RETRY: i64 = 1000;

/// Until the store closes.
pub async fn run(context: Arc<Context>) {
    let mut changes = context.store.follow();
    let mut driver = Driver::default();
    loop {
        if !context.leads.load(Ordering::Relaxed) {
            driver = Driver::default();
            tokio::time::sleep(TURN).await;
            changes = context.store.follow();
            continue;
        }
        if !driver.begun {
            driver.look_at_everything(&context.view());
        }
        if !driver.hear(&context, &mut changes).await {
            return;
        }
        driver.wake(context.now());
        if let Some(key) = driver.due.pop_first() {
            driver.reconcile(&context, key).await;
        }
    }
}

#[derive(Default)]
struct Driver {
    begun: bool,
    due: BTreeSet<Key>,
    /// Services to look at when their time has come.
    later: BTreeMap<Key, Timestamp>,
    /// Services with tasks that found no place.
    waiting: BTreeSet<Key>,
}

impl Driver {
    fn look_at_everything(&mut self, view: &View) {
        self.begun = true;
        self.due = view.services.iter().map(|service| service.key()).collect();
    }

    /// Takes in what has changed; waits for it when there is nothing else to do. `false` when the store closed.
    async fn hear(&mut self, context: &Context, changes: &mut Follower) -> bool {
        let mut idle = self.due.is_empty();
        loop {
            let pause = self.pause(context);
            let heard = tokio::select! {
                biased;
                heard = changes.next() => heard,
                () = std::future::ready(()), if !idle => return true,
                () = tokio::time::sleep(pause) => return true,
            };
            match heard {
                None => return false,
                Some(Followed::Restarted) => self.look_at_everything(&context.view()),
                Some(Followed::Batch(batch)) => self.take(&context.view(), &batch),
            }
            idle = idle && self.due.is_empty();
        }
    }

    fn pause(&self, context: &Context) -> Duration {
        let longest = if context.config.shared_store { TURN } else { LONGEST };
        let next = self.later.values().min().map(|at| at.since(context.now()).max(0));
        next.and_then(|millis| u64::try_from(millis).ok()).map_or(longest, Duration::from_millis).min(longest)
    }

    fn wake(&mut self, now: Timestamp) {
        let woken: Vec<Key> =
            self.later.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect();
        for key in woken {
            self.later.remove(&key);
            self.due.insert(key);
        }
    }

    fn take(&mut self, view: &View, batch: &Batch) {
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
                TaskProtection::TABLE => self.take_protection(view, &change.key),
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

    fn take_protection(&mut self, view: &View, key: &Key) {
        let task =
            view.task_protections.get(key).and_then(|protection| view.tasks.get(&protection.task.key()));
        self.due.extend(task.and_then(|task| key_of_task(task)));
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

    async fn reconcile(&mut self, context: &Context, key: Key) {
        let settings = Settings { healthy_after: context.config.task_healthy_after };
        let done = context
            .commit::<_, CommitError, _>(|snapshot, transaction| {
                let view = &snapshot.view;
                let Some(present) = view.services.get(&key) else { return Ok((None, false)) };
                let now = context.now();
                let plan = service::reconcile(view, present, settings, now, &mut RandomIds);
                service::write(view, present, &plan, transaction, now, &mut RandomIds);
                Ok((plan.again_at, plan.waits_for_capacity))
            })
            .await;
        self.later.remove(&key);
        match done {
            Ok((again_at, waits)) => {
                if waits {
                    self.waiting.insert(key.clone());
                }
                self.later.extend(again_at.map(|at| (key, at)));
            }
            Err(error) => {
                tracing::error!(
                    service = key.as_str(),
                    error = &error as &dyn std::error::Error,
                    "a service is not as it should be yet"
                );
                self.later.insert(key, context.now().plus_millis(RETRY));
            }
        }
    }
}
