//! Which tasks of a service are stopped. Invariant: a healthy task is stopped only while more than the minimum are healthy,
//! and a protected one never for others.

use super::part::Part;
use super::seen::{One, Seen, Standing};
use super::targets::blame;
use super::{AT_ONCE, Plan, named, protected_until};
use crate::lifecycle;
use crate::view::View;
use longshore_model::container_instance;
use longshore_model::task::{Stop, StopCode, Task};
use longshore_model::{TaskId, Timestamp};
use std::cmp::Reverse;
use std::collections::BTreeMap;

impl Plan {
    /// Stops what is too much or to be replaced.
    pub(super) fn stop(
        &mut self,
        view: &View,
        part: &Part<'_>,
        seen: &Seen,
        unplaced: usize,
        now: Timestamp,
    ) {
        let most = AT_ONCE.saturating_sub(self.stops.len());
        let chosen = Choice::new(view, seen, most, now).choose(unplaced, &mut self.again_at);
        self.tell_to_stop(view, part, seen, &chosen, now);
    }

    fn tell_to_stop(&mut self, view: &View, part: &Part<'_>, seen: &Seen, chosen: &[One], now: Timestamp) {
        let name = &self.next.name;
        // Tasks are stopped for the deployment that is under way, whichever they are of.
        let cause = self.next.primary().unwrap_or(part.deployment).id.clone();
        let unhealthy = |one: &&One| one.standing == Standing::Unhealthy;
        let starting = |one: &&One| one.standing == Standing::Starting;
        for one in chosen.iter().filter(unhealthy) {
            self.said.push(blame(view, &self.next, &one.task).0);
        }
        let pending = chosen.iter().filter(starting).count();
        if pending > 0 {
            self.said.push(format!("(service {name}) stopped {pending} pending tasks."));
        }
        let running: Vec<TaskId> =
            chosen.iter().filter(|one| !starting(one)).map(|one| one.task.id).collect();
        if !running.is_empty() {
            let (count, tasks) = (running.len(), named(running.into_iter()));
            let why = if seen.rebalances { " due to AZ rebalancing" } else { "" };
            self.said.push(format!("(service {name}) has stopped {count} running tasks{why}: {tasks}."));
        }
        for one in chosen {
            let reason = match one.standing {
                Standing::Unhealthy => blame(view, &self.next, &one.task).1,
                Standing::Starting | Standing::Unproven | Standing::Healthy => {
                    format!("Scaling activity initiated by (deployment {cause})")
                }
            };
            let why = Stop { code: StopCode::ServiceSchedulerInitiated, reason };
            self.stops.extend(lifecycle::stop(&one.task, why, now));
        }
    }
}

struct Choice<'a> {
    view: &'a View,
    seen: &'a Seen,
    now: Timestamp,
    /// Healthy tasks that would be left.
    healthy: u32,
    /// How many may be chosen.
    most: usize,
    chosen: Vec<One>,
}

impl<'a> Choice<'a> {
    fn new(view: &'a View, seen: &'a Seen, most: usize, now: Timestamp) -> Self {
        Self { view, seen, now, healthy: seen.healthy, most, chosen: Vec::new() }
    }

    /// With `unplaced` tasks without a place, tasks that are to be replaced make room for them.
    fn choose(mut self, unplaced: usize, again_at: &mut Option<Timestamp>) -> Vec<One> {
        let (seen, desired) = (self.seen, self.seen.desired);
        let (staying, leaving): (Vec<&One>, Vec<&One>) = seen.tasks.iter().partition(|one| one.stays);
        let (unhealthy, well): (Vec<&One>, Vec<&One>) =
            staying.into_iter().partition(|one| one.standing == Standing::Unhealthy);
        let too_many = well.len().saturating_sub(desired as usize);
        // What waits for room that only a stop can make.
        let blocked = seen.missing.saturating_sub(seen.room).max(unplaced);
        for one in self.ordered(leaving, again_at) {
            let goes = match one.standing {
                Standing::Starting | Standing::Unproven => true,
                Standing::Unhealthy => blocked > 0 || seen.good_healthy >= desired,
                Standing::Healthy => {
                    self.healthy > desired || blocked > self.chosen.len() && self.healthy > seen.minimum
                }
            };
            self.take(one, goes);
        }
        for one in self.ordered(unhealthy, again_at) {
            let goes = blocked > 0 || seen.good_healthy >= desired;
            self.take(one, goes);
        }
        // One more was started to spread them anew: it is to be healthy before another one goes.
        let spreads = seen.rebalances && too_many == 1 && seen.good_healthy <= desired;
        if too_many > 0 && !spreads {
            for one in self.ordered(well, again_at).into_iter().take(too_many) {
                self.take(one, true);
            }
        }
        self.chosen
    }

    /// Those of the tasks that are not protected, in the order in which they are stopped; no more than are stopped at once.
    fn ordered(&self, tasks: Vec<&'a One>, again_at: &mut Option<Timestamp>) -> Vec<&'a One> {
        if tasks.is_empty() {
            return Vec::new();
        }
        ordered(&self.unprotected(tasks, again_at), &self.seen.tasks)
    }

    fn take(&mut self, one: &One, goes: bool) {
        if goes && self.chosen.len() < self.most {
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
    let (mut zones, mut instances) = (Tally::default(), Tally::default());
    for one in all {
        zones.add(one.task.availability_zone.as_str());
        instances.add(one.task.container_instance);
    }
    let placed = |one: &'a One| {
        let zone = zones.place(&one.task.availability_zone.as_str());
        (one, zone, instances.place(&one.task.container_instance))
    };
    let mut left: Vec<(&One, usize, usize)> = tasks.iter().map(|one| placed(one)).collect();
    let mut order = Vec::new();
    while order.len() < AT_ONCE {
        let rank = |(one, zone, instance): &(&One, usize, usize)| {
            let crowd = (Reverse(zones.count(*zone)), Reverse(instances.count(*instance)));
            (one.standing, crowd, Reverse(one.task.times.created_at), one.task.id)
        };
        let next = left.iter().enumerate().min_by_key(|(_, one)| rank(one)).map(|(place, _)| place);
        let Some((one, zone, instance)) = next.map(|place| left.swap_remove(place)) else { break };
        zones.take(zone);
        instances.take(instance);
        order.push(one);
    }
    order
}

/// How many tasks there are of each kind, by the place that a kind is given.
struct Tally<K> {
    places: BTreeMap<K, usize>,
    counts: Vec<usize>,
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self { places: BTreeMap::new(), counts: Vec::new() }
    }
}

impl<K: Ord> Tally<K> {
    fn add(&mut self, kind: K) {
        let place = *self.places.entry(kind).or_insert(self.counts.len());
        if place == self.counts.len() {
            self.counts.push(0);
        }
        self.counts.get_mut(place).into_iter().for_each(|count| *count += 1);
    }

    fn place(&self, kind: &K) -> usize {
        self.places.get(kind).copied().unwrap_or(usize::MAX)
    }

    fn count(&self, place: usize) -> usize {
        self.counts.get(place).copied().unwrap_or_default()
    }

    fn take(&mut self, place: usize) {
        self.counts.get_mut(place).into_iter().for_each(|count| *count = count.saturating_sub(1));
    }
}
