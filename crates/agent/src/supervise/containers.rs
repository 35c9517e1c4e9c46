//! The containers of a task as its supervisor holds them, and how they are found again.

use super::Supervisor;
use crate::runtime::{self, ContainerState, Signal};
use longshore_model::Timestamp;
use longshore_model::link::{self, ContainerObservation, ContainerSpec};
use tokio::time::Instant;

/// The label that keeps the image's stop signal for an agent that adopts the container.
pub const STOP_SIGNAL_LABEL: &str = "longshore.stop-signal";
/// The label that keeps the image's digest.
pub const DIGEST_LABEL: &str = "longshore.image-digest";

/// The `reason` of a container that was there and is no more, without an exit code.
const LOST: &str = "CannotInspectContainerError: the container is gone and its exit code was not kept";

/// One container, and where it is on its way.
pub struct Held {
    pub spec: ContainerSpec,
    state: link::ContainerState,
    started_at: Option<Timestamp>,
    pub image_digest: Option<String>,
    pub stop_signal: Signal,
    /// When it is killed, once it was asked to stop.
    kill_at: Option<Instant>,
    pub killed: bool,
    /// The runtime has it, and it was never started.
    pub made: bool,
}

impl Held {
    pub fn waiting(spec: ContainerSpec) -> Self {
        Self {
            spec,
            state: link::ContainerState::Waiting,
            started_at: None,
            image_digest: None,
            stop_signal: Signal::TERM,
            kill_at: None,
            killed: false,
            made: false,
        }
    }

    pub fn is_waiting(&self) -> bool {
        self.state == link::ContainerState::Waiting
    }

    pub fn is_running(&self) -> bool {
        self.state == link::ContainerState::Running
    }

    pub fn ended(&self) -> bool {
        matches!(self.state, link::ContainerState::Exited { .. } | link::ContainerState::Gone { .. })
    }

    pub fn running(&mut self, since: Timestamp) {
        self.started_at = Some(since);
        self.state = link::ContainerState::Running;
    }

    pub fn gone(&mut self, reason: Option<String>) {
        self.state = link::ContainerState::Gone { reason };
    }

    pub fn observation(&self) -> ContainerObservation {
        ContainerObservation {
            name: self.spec.name.clone(),
            state: self.state.clone(),
            started_at: self.started_at,
            image_digest: self.image_digest.clone(),
            health: longshore_model::task::Health::Unknown,
            restarts: 0,
        }
    }

    /// When a container that was asked to stop is to be killed.
    pub fn kill_at(&self) -> Option<Instant> {
        self.kill_at.filter(|_| self.is_running() && !self.killed)
    }

    /// Starts its time to stop; `false` when that has begun already.
    pub fn begin_stop(&mut self, kill_at: Instant) -> bool {
        let first = self.kill_at.is_none();
        self.kill_at.get_or_insert(kill_at);
        first
    }

    /// Takes in what the runtime says of it.
    fn found(&mut self, found: &ContainerState) {
        if let Some(signal) = found.labels.get(STOP_SIGNAL_LABEL).and_then(|signal| signal.parse().ok()) {
            self.stop_signal = signal;
        }
        if self.image_digest.is_none() {
            self.image_digest = found.labels.get(DIGEST_LABEL).cloned();
        }
        match found.status {
            // Made by an agent that was killed before it started it: made again by `start`.
            runtime::Status::Created => self.made = true,
            runtime::Status::Running { started_at } => self.running(self.started_at.unwrap_or(started_at)),
            runtime::Status::Exited { code, exited_at, started_at, oom } => {
                self.started_at = self.started_at.or(started_at);
                let code = i32::try_from(code).unwrap_or(i32::MAX);
                self.state = link::ContainerState::Exited { code, at: exited_at, out_of_memory: oom };
            }
            // Its creation was cut off half-way.
            runtime::Status::Lost if self.is_waiting() && !self.spec.was_running => self.made = true,
            runtime::Status::Lost => self.gone(Some(LOST.to_owned())),
        }
    }
}

impl Supervisor {
    /// Finds the containers that an earlier agent left.
    pub(super) async fn adopt(&mut self) {
        for index in 0..self.containers.len() {
            let found = self.inspect(index).await;
            let Some(held) = self.containers.get_mut(index) else { continue };
            match found {
                Some(found) => held.found(&found),
                None if held.spec.was_running => held.gone(Some(LOST.to_owned())),
                None => {}
            }
            let follow = (held.spec.log.is_some() && !held.is_waiting()).then(|| held.spec.clone());
            if let Some(spec) = follow {
                self.follow_output(&spec);
            }
        }
    }

    /// Asks the runtime about the containers that have not ended.
    pub(super) async fn look(&mut self) {
        for index in 0..self.containers.len() {
            if self.containers.get(index).is_some_and(Held::is_running) {
                let found = self.inspect(index).await;
                let Some(held) = self.containers.get_mut(index) else { continue };
                match found {
                    Some(found) => held.found(&found),
                    None => held.gone(Some(LOST.to_owned())),
                }
            }
        }
    }

    /// Asks until the runtime answers: not knowing must not look like not being there.
    async fn inspect(&self, index: usize) -> Option<ContainerState> {
        let id = &self.containers.get(index)?.spec.runtime_id;
        loop {
            match self.instance.runtime.inspect(id).await {
                Ok(found) => return found,
                Err(error) => {
                    tracing::warn!(
                        container = id,
                        error = &error as &dyn std::error::Error,
                        "inspect a container"
                    );
                    tokio::time::sleep(super::RETRY).await;
                }
            }
        }
    }

    pub(super) fn follow_output(&self, spec: &ContainerSpec) {
        let Some(target) = &spec.log else { return };
        let source = crate::logs::Source {
            task: self.observation.task.clone(),
            container: spec.name.clone(),
            id: spec.runtime_id.clone(),
            file: self.log_path(spec),
        };
        self.instance.logs.follow(source, target.stored);
    }

    pub(super) fn log_path(&self, spec: &ContainerSpec) -> std::path::PathBuf {
        self.instance.task_dir(self.observation.task.id).join(format!("{}.log", spec.name))
    }
}
