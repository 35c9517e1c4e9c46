//! Which tasks of a service are stopped. Invariant: a healthy task is stopped only while more than the minimum are healthy,
//! and a protected one never for others.

use super::seen::{One, Seen, Standing};
use super::{AT_ONCE, FAILED_HEALTH_CHECKS, Plan, named, protected_until};
use crate::lifecycle;
use crate::view::View;
use longshore_model::container_instance;
use longshore_model::task::{Stop, StopCode, Task};
use longshore_model::{ContainerInstanceId, TaskId, Timestamp};
use std::cmp::Reverse;
use std::collections::BTreeMap;

impl Plan {
    /// Stops what is too much or to be replaced; says whether anything was.
    pub(super) fn stop(&mut self, view: &View, seen: &Seen, now: Timestamp) -> bool {
        let placed = self.placement.tasks.len();
        let unplaced = if self.waits_for_capacity { seen.missing.saturating_sub(placed) } else { 0 };
        let chosen = Choice::new(view, seen, now).choose(unplaced, &mut self.again_at);
        self.tell_to_stop(&chosen, now);
        !chosen.is_empty()
    }

    fn tell_to_stop(&mut self, chosen: &[One], now: Timestamp) {
        let (name, primary) = (&self.next.name, self.next.primary().map(|deployment| deployment.id.clone()));
        let unhealthy = |one: &&One| one.standing == Standing::Unhealthy;
        let starting = |one: &&One| one.standing == Standing::Starting;
        for one in chosen.iter().filter(unhealthy) {
            self.said
                .push(format!("(service {name}) (task {}) failed container health checks.", one.task.id));
        }
        let pending = chosen.iter().filter(starting).count();
        if pending > 0 {
            self.said.push(format!("(service {name}) stopped {pending} pending tasks."));
        }
        let running: Vec<TaskId> =
            chosen.iter().filter(|one| !starting(one)).map(|one| one.task.id).collect();
        if !running.is_empty() {
            let (count, tasks) = (running.len(), named(running.into_iter()));
            self.said.push(format!("(service {name}) has stopped {count} running tasks: {tasks}."));
        }
        for one in chosen {
            let reason = match one.standing {
                Standing::Unhealthy => FAILED_HEALTH_CHECKS.to_owned(),
                Standing::Starting | Standing::Unproven | Standing::Healthy => {
                    scaling_activity(primary.as_deref().or(one.task.started_by.as_deref()))
                }
            };
            let why = Stop { code: StopCode::ServiceSchedulerInitiated, reason };
            self.stops.extend(lifecycle::stop(&one.task, why, now));
        }
    }
}

fn scaling_activity(deployment: Option<&str>) -> String {
    format!("Scaling activity initiated by (deployment {})", deployment.unwrap_or_default())
}

struct Choice<'a> {
    view: &'a View,
    seen: &'a Seen,
    now: Timestamp,
    /// Healthy tasks that would be left.
    healthy: u32,
    chosen: Vec<One>,
}

impl<'a> Choice<'a> {
    fn new(view: &'a View, seen: &'a Seen, now: Timestamp) -> Self {
        Self { view, seen, now, healthy: seen.healthy, chosen: Vec::new() }
    }

    /// With `unplaced` tasks without a place, tasks that are to be replaced make room for them.
    fn choose(mut self, unplaced: usize, again_at: &mut Option<Timestamp>) -> Vec<One> {
        let (seen, desired) = (self.seen, self.seen.desired);
        let (staying, leaving): (Vec<&One>, Vec<&One>) = seen.tasks.iter().partition(|one| one.stays);
        let leaving = self.unprotected(leaving, again_at);
        let staying_count = staying.len();
        let (unhealthy, staying): (Vec<&One>, Vec<&One>) = self
            .unprotected(staying, again_at)
            .into_iter()
            .partition(|one| one.standing == Standing::Unhealthy);
        // What waits for room that only a stop can make.
        let blocked = seen.missing.saturating_sub(seen.room).max(unplaced);
        for one in ordered(&leaving, &seen.tasks) {
            let goes = match one.standing {
                Standing::Starting | Standing::Unproven => true,
                Standing::Unhealthy => blocked > 0 || seen.good_healthy >= desired,
                Standing::Healthy => {
                    self.healthy > desired || blocked > self.chosen.len() && self.healthy > seen.minimum
                }
            };
            self.take(one, goes);
        }
        for one in ordered(&unhealthy, &seen.tasks) {
            let goes = blocked > 0 || seen.good_healthy >= desired;
            self.take(one, goes);
        }
        let too_many = staying_count.saturating_sub(unhealthy.len()).saturating_sub(desired as usize);
        for one in ordered(&staying, &seen.tasks).into_iter().take(too_many) {
            self.take(one, true);
        }
        self.chosen
    }

    fn take(&mut self, one: &One, goes: bool) {
        if goes && self.chosen.len() < AT_ONCE {
            self.healthy -= u32::from(one.standing == Standing::Healthy);
            self.chosen.push(one.clone());
        }
    }

    /// Protection ends with the service, and does not hold a task on an instance that is given up.
    fn unprotected(&self, tasks: Vec<&'a One>, again_at: &mut Option<Timestamp>) -> Vec<&'a One> {
        let mut free = Vec::with_capacity(tasks.len());
        for one in tasks {
            let held = self.seen.keeps_protected && !self.is_on_draining(&one.task);
            match protected_until(self.view, &one.task.reference(), self.now).filter(|_| held) {
                Some(until) => *again_at = again_at.iter().copied().chain([until]).min(),
                None => free.push(one),
            }
        }
        free
    }

    fn is_on_draining(&self, task: &Task) -> bool {
        let instance = self.view.container_instance(task.container_instance);
        let member = instance.and_then(|instance| instance.membership());
        member.is_some_and(|member| member.status != container_instance::Status::Active)
    }
}

/// In the order in which they are stopped: what has come least far first, then so that zones and after them instances keep
/// even numbers of all the service's tasks, then the youngest.
fn ordered<'a>(tasks: &[&'a One], all: &'a [One]) -> Vec<&'a One> {
    let mut left: Vec<&One> = tasks.to_vec();
    let mut by_zone: BTreeMap<&str, usize> = BTreeMap::new();
    let mut by_instance: BTreeMap<ContainerInstanceId, usize> = BTreeMap::new();
    for one in all {
        *by_zone.entry(&one.task.availability_zone).or_default() += 1;
        *by_instance.entry(one.task.container_instance).or_default() += 1;
    }
    let mut order = Vec::new();
    while order.len() < AT_ONCE {
        let rank = |one: &&One| {
            let zone = by_zone.get(one.task.availability_zone.as_str()).copied();
            let instance = by_instance.get(&one.task.container_instance).copied();
            (one.standing, Reverse(zone), Reverse(instance), Reverse(one.task.times.created_at), one.task.id)
        };
        let next = left.iter().enumerate().min_by_key(|(_, one)| rank(one)).map(|(place, _)| place);
        let Some(one) = next.map(|place| left.swap_remove(place)) else { break };
        let zone = by_zone.get_mut(one.task.availability_zone.as_str());
        let instance = by_instance.get_mut(&one.task.container_instance);
        zone.into_iter().chain(instance).for_each(|count| *count -= 1);
        order.push(one);
    }
    order
}
