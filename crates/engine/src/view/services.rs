//! The tasks of each service by deployment and by how far they are.
//!
//! Invariant: everything here is a function of the tasks of the view, kept as they change.

use crate::service::FAILED_HEALTH_CHECKS;
use crate::service::targets::FAILED_TARGET_CHECKS;
use imbl::{OrdMap, OrdSet};
use longshore_model::change::Key;
use longshore_model::service::key_of_task;
use longshore_model::task::{DesiredStatus, LastStatus, StopCode, Task};
use longshore_model::{TaskId, Timestamp};
use std::sync::Arc;

/// A task that ran for less, in milliseconds, is likely to do so again.
const BRIEF: i64 = 10_000;

#[derive(Clone, Default)]
pub struct Services {
    tasks: OrdMap<Key, OrdMap<Arc<str>, DeploymentTasks>>,
}

/// The tasks of one deployment that have not ended, and those that never began.
#[derive(Clone, Default)]
pub struct DeploymentTasks {
    /// To run, and not RUNNING yet.
    pub starting: OrdMap<TaskId, Arc<Task>>,
    /// RUNNING, and to go on.
    pub running: OrdMap<TaskId, Arc<Task>>,
    /// To stop, with containers that may still run.
    pub stopping: OrdSet<TaskId>,
    /// STOPPED without having been RUNNING, by themselves; with when they ended.
    pub failed: OrdSet<(Timestamp, TaskId)>,
    /// STOPPED because their health checks failed; with when they ended.
    pub unhealthy: OrdSet<(Timestamp, TaskId)>,
    /// Those that ended by themselves soon after they were RUNNING; with when they ended.
    pub brief: OrdSet<(Timestamp, TaskId)>,
}

impl DeploymentTasks {
    fn is_empty(&self) -> bool {
        self.starting.is_empty()
            && self.running.is_empty()
            && self.stopping.is_empty()
            && self.failed.is_empty()
            && self.unhealthy.is_empty()
            && self.brief.is_empty()
    }

    /// Those that are to run.
    pub fn active(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.starting.values().chain(self.running.values())
    }

    pub fn active_count(&self) -> usize {
        self.starting.len() + self.running.len()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Starting,
    Running,
    Stopping,
    Failed(Timestamp),
    Unhealthy(Timestamp),
    Brief(Timestamp),
}

impl Services {
    /// The deployments that tasks of a service are of.
    pub fn deployments(&self, service: &Key) -> impl Iterator<Item = (&Arc<str>, &DeploymentTasks)> {
        self.tasks.get(service).into_iter().flatten()
    }

    pub fn deployment(&self, service: &Key, id: &str) -> Option<&DeploymentTasks> {
        self.tasks.get(service)?.get(id)
    }

    pub fn change_task(&mut self, before: Option<&Arc<Task>>, after: Option<&Arc<Task>>) {
        let filed = |task: &Arc<Task>| Filed::of(task);
        let (was, is) = (before.and_then(filed), after.and_then(filed));
        if let (Some(before), Some(was)) = (before, was.filter(|was| is.as_ref() != Some(was))) {
            self.remove(before.id, &was);
        }
        if let (Some(after), Some(is)) = (after, is) {
            self.add(after, is);
        }
    }

    fn add(&mut self, task: &Arc<Task>, filed: Filed) {
        let id = task.id;
        let tasks = self.tasks.entry(filed.service).or_default().entry(filed.deployment).or_default();
        match filed.place {
            Place::Starting => tasks.starting.insert(id, Arc::clone(task)).is_none(),
            Place::Running => tasks.running.insert(id, Arc::clone(task)).is_none(),
            Place::Stopping => tasks.stopping.insert(id).is_none(),
            Place::Failed(at) => tasks.failed.insert((at, id)).is_none(),
            Place::Unhealthy(at) => tasks.unhealthy.insert((at, id)).is_none(),
            Place::Brief(at) => tasks.brief.insert((at, id)).is_none(),
        };
    }

    fn remove(&mut self, id: TaskId, filed: &Filed) {
        let Some(deployments) = self.tasks.get_mut(&filed.service) else { return };
        let Some(tasks) = deployments.get_mut(&filed.deployment) else { return };
        match filed.place {
            Place::Starting => tasks.starting.remove(&id).is_some(),
            Place::Running => tasks.running.remove(&id).is_some(),
            Place::Stopping => tasks.stopping.remove(&id).is_some(),
            Place::Failed(at) => tasks.failed.remove(&(at, id)).is_some(),
            Place::Unhealthy(at) => tasks.unhealthy.remove(&(at, id)).is_some(),
            Place::Brief(at) => tasks.brief.remove(&(at, id)).is_some(),
        };
        if tasks.is_empty() {
            deployments.remove(&filed.deployment);
            if deployments.is_empty() {
                self.tasks.remove(&filed.service);
            }
        }
    }
}

#[derive(PartialEq, Eq)]
struct Filed {
    service: Key,
    deployment: Arc<str>,
    place: Place,
}

impl Filed {
    /// `None` for a task that its service need not know of.
    fn of(task: &Task) -> Option<Self> {
        let deployment = task.started_by.as_deref()?;
        let place = match (task.desired_status, task.last_status) {
            (_, LastStatus::Stopped) => ended(task)?,
            (_, LastStatus::Deprovisioning) => return None,
            (DesiredStatus::Stopped, _) => Place::Stopping,
            (DesiredStatus::Running, LastStatus::Running) => Place::Running,
            (DesiredStatus::Running, _) => Place::Starting,
        };
        Some(Self { service: key_of_task(task)?, deployment: deployment.into(), place })
    }
}

/// A task that ended so that it speaks against its deployment.
fn ended(task: &Task) -> Option<Place> {
    let (at, stop) = (task.times.stopped_at?, task.stop.as_ref()?);
    match stop.code {
        StopCode::TaskFailedToStart => Some(Place::Failed(at)),
        StopCode::EssentialContainerExited => match task.times.started_at {
            None => Some(Place::Failed(at)),
            Some(started) if at.since(started) < BRIEF => Some(Place::Brief(at)),
            Some(_) => None,
        },
        StopCode::ServiceSchedulerInitiated => {
            let failed = stop.reason == FAILED_HEALTH_CHECKS || stop.reason.starts_with(FAILED_TARGET_CHECKS);
            failed.then_some(Place::Unhealthy(at))
        }
        StopCode::UserInitiated
        | StopCode::SpotInterruption
        | StopCode::TerminationNotice
        | StopCode::InfrastructureHealth => None,
    }
}
