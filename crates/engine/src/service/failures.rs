//! Deployments whose tasks do not start: they are slowed down, and given up where the service says so.

use super::Plan;
use super::deployment::Cause;
use super::part::Part;
use crate::view::{DeploymentTasks, View};
use longshore_model::service::{Deployment, RolloutState, Service, Status};
use longshore_model::{Record, TaskId, Timestamp};

/// Between the first failed start and the next try, in milliseconds; twice as long after each round.
const FIRST_PAUSE: i64 = 1000;
const LONGEST_PAUSE: i64 = 15 * 60 * 1000;
const MINUTE: i64 = 60 * 1000;
const BREATH: i64 = 1000;
const LONGEST_BREATH: i64 = 10 * 1000;
/// After so many rounds of failed starts it is said that the service cannot start its tasks.
const ROUNDS: u32 = 3;

/// Until when nothing is started.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    pub until: Timestamp,
    /// Whether users are told.
    pub is_long: bool,
}

/// The consecutive failures at which a deployment is given up.
pub fn threshold(desired: u32) -> u32 {
    desired.div_ceil(2).clamp(3, 200)
}

/// How many tasks of a deployment have failed since one of it came up.
pub fn failed_tasks(view: &View, service: &Service, deployment: &Deployment) -> u32 {
    let Some(tasks) = view.service_tasks().deployment(&service.key(), &deployment.id) else { return 0 };
    let since = last_start(tasks);
    let of = |ended: &imbl::OrdSet<(Timestamp, TaskId)>| {
        ended.iter().rev().take_while(|(at, _)| since.is_none_or(|since| *at > since)).count()
    };
    u32::try_from(of(&tasks.failed) + of(&tasks.unhealthy)).unwrap_or(u32::MAX)
}

/// The pause that the last tasks ask for.
pub fn pause(view: &View, service: &Service, part: &Part<'_>) -> Option<Pause> {
    let tasks = view.service_tasks().deployment(&service.key(), &part.deployment.id)?;
    let desired = part.desired.max(1);
    let (throttle, breath) = (throttle(tasks, desired), breath(tasks, desired));
    throttle.into_iter().chain(breath).max_by_key(|pause| pause.until)
}

/// ECS replaces a task that was RUNNING whenever it ends. One that ends again and again at once would fill the store with
/// tasks: from the second round in a minute on there is a breath between them.
fn breath(tasks: &DeploymentTasks, desired: u32) -> Option<Pause> {
    let (last, _) = tasks.brief.get_max()?;
    let recent = tasks.brief.iter().rev().take_while(|(at, _)| last.since(*at) < MINUTE).count();
    let rounds = i64::try_from(recent.div_ceil(desired as usize)).unwrap_or(i64::MAX);
    let breath = BREATH.saturating_mul(rounds - 1).min(LONGEST_BREATH);
    Some(Pause { until: last.plus_millis(breath), is_long: false })
}

/// The failed starts' pause.
fn throttle(tasks: &DeploymentTasks, desired: u32) -> Option<Pause> {
    let (last, _) = tasks.failed.get_max()?;
    let since = last_start(tasks);
    let recent = tasks.failed.iter().rev().take_while(|(at, _)| since.is_none_or(|since| *at > since));
    let failed = u32::try_from(recent.count()).unwrap_or(u32::MAX);
    let rounds = failed.div_ceil(desired);
    let doubled = FIRST_PAUSE.checked_shl(rounds.checked_sub(1)?.min(30)).unwrap_or(LONGEST_PAUSE);
    Some(Pause { until: last.plus_millis(doubled.min(LONGEST_PAUSE)), is_long: rounds >= ROUNDS })
}

/// When the youngest of the tasks that run was RUNNING.
fn last_start(tasks: &DeploymentTasks) -> Option<Timestamp> {
    if tasks.failed.is_empty() && tasks.unhealthy.is_empty() {
        return None;
    }
    let running = tasks.running.values();
    running.filter_map(|task| task.times.started_at).max()
}

impl Plan {
    /// Gives up a deployment whose tasks fail again and again, and goes back to the last one that was completed.
    pub(super) fn fail_deployment(&mut self, view: &View, now: Timestamp) {
        let service = &self.next;
        let Some(primary) = service.primary() else { return };
        let breaker = service.configuration.circuit_breaker.filter(|breaker| breaker.enable);
        let Some(breaker) = breaker.filter(|_| service.status == Status::Active) else { return };
        let failed = failed_tasks(view, service, primary);
        if primary.rollout_state != RolloutState::InProgress || failed < threshold(service.desired_count) {
            return;
        }
        let back = service.last_completed.clone().filter(|last| breaker.rollback && last.id != primary.id);
        self.give_up(&Cause::FailedTasks(failed), back.map(|last| *last), now);
    }
}
