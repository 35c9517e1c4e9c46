//! How a task moves from PROVISIONING to STOPPED.
//!
//! Invariant: a task's status never goes backwards, its first reason to stop is its only one, and exit codes
//! are recorded before the agent is told to remove what they came from.

use crate::discovery;
use crate::elb::targets;
use crate::view::View;
use longshore_model::link::{ContainerObservation, ContainerState, Goal, Observation, StartFailure};
use longshore_model::task::{
    Container, ContainerStatus, DesiredStatus, Health, LastStatus, Stop, StopCode, Task,
};
use longshore_model::task_definition::TaskDefinition;
use longshore_model::vpc::{Holder, NetworkInterface};
use longshore_model::{Timestamp, Transaction};

/// The `stoppedReason` of a task whose essential container ended.
pub const ESSENTIAL_EXITED: &str = "Essential container in task exited";
/// The container `reason` when its memory limit killed it.
pub const OUT_OF_MEMORY: &str = "OutOfMemoryError: Container killed due to memory usage";
/// The `stoppedReason` of StopTask without one.
pub const STOPPED_BY_USER: &str = "Task stopped by user";

/// The `stoppedReason` of a task whose instance was away for too long.
pub const INSTANCE_LOST: &str = "The agent of the container instance is disconnected";

/// UNHEALTHY if any essential container is, else UNKNOWN if any is, else HEALTHY. Containers without a health
/// check say nothing of the task, and without any its health is UNKNOWN.
pub fn health(task: &Task, definition: &TaskDefinition) -> Health {
    let judged = definition.containers.iter().filter(|d| d.essential && d.health_check.is_some());
    let of =
        |name: &str| task.containers.iter().find(|c| c.name == name).map_or(Health::Unknown, |c| c.health);
    let all: Vec<Health> = judged.map(|d| of(&d.name)).collect();
    if all.contains(&Health::Unhealthy) {
        Health::Unhealthy
    } else if all.is_empty() || all.contains(&Health::Unknown) {
        Health::Unknown
    } else {
        Health::Healthy
    }
}

/// The task once its instance is given up: nobody will ever report of it again. `None` when it had ended.
///
/// Its containers may still run behind a cut link; an agent that comes back is told nothing of the task and
/// removes them.
pub fn lose(task: &Task, why: Stop, now: Timestamp) -> Option<Task> {
    if task.last_status == LastStatus::Stopped {
        return None;
    }
    let mut next = task.clone();
    next.begin_stop(why, now);
    for container in next.containers.iter_mut().filter(|c| c.last_status != ContainerStatus::Stopped) {
        container.last_status = ContainerStatus::Stopped;
        container.health = Health::Unknown;
    }
    next.times.execution_stopped_at.get_or_insert(now);
    next.times.stopped_at.get_or_insert(now);
    next.last_status = LastStatus::Stopped;
    next.version += 1;
    Some(next)
}

/// What the instance of a task is to do about it.
pub fn goal(task: &Task) -> Goal {
    match (task.desired_status, task.last_status) {
        (_, LastStatus::Deprovisioning | LastStatus::Stopped) => Goal::Release,
        // It still has requests to answer.
        (_, LastStatus::Deactivating) => Goal::Run,
        (DesiredStatus::Stopped, _) => Goal::Stop,
        (DesiredStatus::Running, _) => Goal::Run,
    }
}

/// The task after a wish to stop it, or `None` when it is already stopping. One that waits for capacity has ended with that.
pub fn stop(task: &Task, why: Stop, now: Timestamp) -> Option<Task> {
    if task.desired_status == DesiredStatus::Stopped {
        return None;
    }
    if task.waiting.is_some() {
        return lose(task, why, now);
    }
    let mut next = task.clone();
    next.begin_stop(why, now);
    next.version += 1;
    Some(next)
}

/// Writes a task's next state. An address is free for others from the commit on that says the task has left it. A task
/// that is to stop is given no more requests and found by no name from this commit on. Returns the task as it is written.
pub fn write(view: &View, next: &Task, transaction: &mut Transaction) -> Task {
    let mut next = next.clone();
    let since = next.times.stopping_at.unwrap_or_default();
    targets::leave(view, &mut next, since, transaction);
    discovery::follow(view, &next, transaction);
    if let Some(network) = next.network.as_ref().filter(|_| next.last_status == LastStatus::Stopped) {
        let key = NetworkInterface::key_of(&network.network, network.address);
        let holder = Holder::Task(next.reference());
        if view.network_interfaces.get(&key).is_some_and(|held| held.holder == holder) {
            transaction.delete(key);
        }
    }
    transaction.update(&next);
    next
}

/// The task after its agent's report, or `None` when the report says nothing new.
pub fn observe(task: &Task, definition: &TaskDefinition, seen: &Observation, now: Timestamp) -> Option<Task> {
    if task.last_status == LastStatus::Stopped {
        return None;
    }
    let mut next = task.clone();
    next.take_times(seen);
    for container in &mut next.containers {
        if let Some(seen) = seen.containers.iter().find(|seen| seen.name == container.name) {
            container.take(seen);
        }
    }
    if let Some(why) = reason_to_stop(&next, definition, seen) {
        next.begin_stop(why, now);
    }
    if let Some(failure) = &seen.failure {
        next.blame(failure);
    }
    next.advance(seen, now);
    if next == *task {
        return None;
    }
    next.version += 1;
    Some(next)
}

fn reason_to_stop(task: &Task, definition: &TaskDefinition, seen: &Observation) -> Option<Stop> {
    if let Some(failure) = &seen.failure {
        let reason = format!("{}: {}", failure.kind.prefix(), failure.message);
        return Some(Stop { code: StopCode::TaskFailedToStart, reason });
    }
    let essential = |container: &&Container| {
        definition.containers.iter().any(|d| d.name == container.name && d.essential)
    };
    let ended = |container: &Container| container.last_status == ContainerStatus::Stopped;
    let essential_ended = task.containers.iter().filter(essential).any(ended);
    (essential_ended || task.containers.iter().all(ended))
        .then(|| Stop { code: StopCode::EssentialContainerExited, reason: ESSENTIAL_EXITED.to_owned() })
}

trait Moves {
    fn begin_stop(&mut self, why: Stop, now: Timestamp);
    fn take_times(&mut self, seen: &Observation);
    fn blame(&mut self, failure: &StartFailure);
    fn advance(&mut self, seen: &Observation, now: Timestamp);
}

impl Moves for Task {
    fn begin_stop(&mut self, why: Stop, now: Timestamp) {
        self.desired_status = DesiredStatus::Stopped;
        self.stop.get_or_insert(why);
        self.times.stopping_at.get_or_insert(now);
    }

    fn take_times(&mut self, seen: &Observation) {
        let times = &mut self.times;
        times.pull_started_at = times.pull_started_at.or(seen.pull_started_at);
        times.pull_stopped_at = times.pull_stopped_at.or(seen.pull_stopped_at);
        times.connectivity_at = times.connectivity_at.or(seen.connected_at);
    }

    /// Puts a start failure on the container it happened to.
    fn blame(&mut self, failure: &StartFailure) {
        let Some(name) = &failure.container else { return };
        if let Some(container) = self.containers.iter_mut().find(|container| container.name == *name) {
            container.reason.get_or_insert_with(|| format!("{}: {}", failure.kind.prefix(), failure.message));
        }
    }

    fn advance(&mut self, seen: &Observation, now: Timestamp) {
        let all_ended = self.containers.iter().all(|c| c.last_status == ContainerStatus::Stopped);
        let all_started = self.containers.iter().all(|c| c.last_status != ContainerStatus::Pending);
        let ran = seen.containers.iter().any(|c| c.started_at.is_some());
        if self.times.started_at.is_none() && all_started && ran {
            self.times.started_at = seen.containers.iter().filter_map(|c| c.started_at).max();
        }
        if all_ended {
            let last_exit = seen.containers.iter().filter_map(exit_time).max();
            let failed = seen.failure.as_ref().map(|failure| failure.at);
            self.times.execution_stopped_at.get_or_insert(last_exit.or(failed).unwrap_or(now));
        }
        let reached = match (all_ended, self.desired_status) {
            (true, _) if seen.released && self.last_status == LastStatus::Deprovisioning => {
                LastStatus::Stopped
            }
            (true, _) => LastStatus::Deprovisioning,
            // Until its targets are drained.
            (false, DesiredStatus::Stopped) if self.last_status == LastStatus::Deactivating => {
                LastStatus::Deactivating
            }
            (false, DesiredStatus::Stopped) => LastStatus::Stopping,
            (false, DesiredStatus::Running) if all_started => LastStatus::Running,
            (false, DesiredStatus::Running) => LastStatus::Pending,
        };
        self.last_status = self.last_status.max(reached);
        if self.last_status == LastStatus::Stopped {
            self.times.stopped_at.get_or_insert(now);
        }
    }
}

fn exit_time(seen: &ContainerObservation) -> Option<Timestamp> {
    match seen.state {
        ContainerState::Exited { at, .. } => Some(at),
        ContainerState::Waiting | ContainerState::Running | ContainerState::Gone { .. } => None,
    }
}

trait Takes {
    fn take(&mut self, seen: &ContainerObservation);
}

impl Takes for Container {
    fn take(&mut self, seen: &ContainerObservation) {
        if self.image_digest.is_none() {
            self.image_digest.clone_from(&seen.image_digest);
        }
        self.was_running |= seen.started_at.is_some();
        if self.last_status == ContainerStatus::Stopped {
            return;
        }
        self.health = seen.health;
        self.restarts = self.restarts.max(seen.restarts);
        match &seen.state {
            ContainerState::Waiting => {}
            ContainerState::Running => self.last_status = ContainerStatus::Running,
            ContainerState::Exited { code, out_of_memory, .. } => {
                self.last_status = ContainerStatus::Stopped;
                self.exit_code = Some(*code);
                if *out_of_memory {
                    self.reason = Some(OUT_OF_MEMORY.to_owned());
                }
            }
            ContainerState::Gone { reason } => {
                self.last_status = ContainerStatus::Stopped;
                self.reason.clone_from(reason);
            }
        }
    }
}

#[cfg(test)]
mod tests;
