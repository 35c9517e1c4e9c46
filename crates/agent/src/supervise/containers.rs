//! The containers of a task as its supervisor holds them, and how they are found again.

use super::health::{self, Judge};
use super::order::{Member, Stage};
use super::restart::{Exit, Note, Unsettled};
use super::{Supervisor, clock, now};
use crate::runtime::{self, Signal};
use longshore_model::Timestamp;
use longshore_model::link::{ContainerObservation, ContainerSpec, ContainerState};
use std::time::Duration;
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
    state: ContainerState,
    /// A start of it is under way beside the supervisor.
    pub busy: bool,
    /// It has ended, and may be started again.
    pub unsettled: Option<Unsettled>,
    started_at: Option<Timestamp>,
    first_start: Option<Instant>,
    pub last_start: Option<Instant>,
    pub image_digest: Option<String>,
    pub stop_signal: Signal,
    /// When it is killed, once it was asked to stop.
    kill_at: Option<Instant>,
    pub killed: bool,
    /// The runtime has it, and it was never started.
    pub made: bool,
    pub judge: Judge,
    pub checking: bool,
    next_check: Option<Instant>,
    pub restarts: u32,
}

impl Held {
    pub fn waiting(spec: ContainerSpec) -> Self {
        Self {
            state: ContainerState::Waiting,
            busy: false,
            unsettled: None,
            started_at: None,
            first_start: None,
            last_start: None,
            image_digest: None,
            stop_signal: Signal::TERM,
            kill_at: None,
            killed: false,
            made: false,
            judge: Judge::of(spec.health),
            checking: false,
            next_check: None,
            restarts: spec.restarts,
            spec,
        }
    }

    pub fn state(&self) -> &ContainerState {
        &self.state
    }

    pub fn is_waiting(&self) -> bool {
        self.state == ContainerState::Waiting && !self.busy
    }

    pub fn is_running(&self) -> bool {
        self.state == ContainerState::Running && !self.busy
    }

    pub fn running(&mut self, since: Timestamp) {
        let now = clock();
        let start = started(now, since);
        self.started_at.get_or_insert(since);
        self.first_start.get_or_insert(start);
        self.last_start = Some(start);
        self.state = ContainerState::Running;
        self.plan_check(now);
    }

    /// It goes on as running for everybody else; its health is to be found anew.
    pub fn begin_restart(&mut self) {
        self.busy = true;
        self.state = ContainerState::Running;
        self.judge = Judge::default();
        self.next_check = None;
    }

    pub fn end(&mut self, state: ContainerState) {
        self.state = state;
    }

    pub fn gone(&mut self, reason: Option<String>) {
        self.state = ContainerState::Gone { reason };
    }

    pub fn observation(&self) -> ContainerObservation {
        ContainerObservation {
            name: self.spec.name.clone(),
            state: self.state.clone(),
            started_at: self.started_at,
            image_digest: self.image_digest.clone(),
            health: self.judge.health,
            restarts: self.restarts,
        }
    }

    pub fn member(&self, now: Instant) -> Member<'_> {
        let stage = match &self.state {
            ContainerState::Waiting if self.busy => Stage::Starting,
            ContainerState::Waiting => Stage::Waiting,
            ContainerState::Running => Stage::Running,
            // What may yet be started again has not ended for the others.
            ContainerState::Exited { .. } if self.unsettled.is_some() => Stage::Running,
            ContainerState::Exited { code, .. } => Stage::Ended { code: Some(*code), ran: true },
            ContainerState::Gone { .. } => Stage::Ended { code: None, ran: self.started_at.is_some() },
        };
        let since_start = self.first_start.map(|start| now.saturating_duration_since(start));
        Member { spec: &self.spec, stage, health: self.judge.health, since_start }
    }

    /// When a container that was asked to stop is to be killed.
    pub fn kill_at(&self) -> Option<Instant> {
        self.kill_at.filter(|_| self.is_running() && !self.killed)
    }

    pub fn is_asked_to_stop(&self) -> bool {
        self.kill_at.is_some()
    }

    /// Starts its time to stop; `false` when that has begun already.
    pub fn begin_stop(&mut self, kill_at: Instant) -> bool {
        let first = self.kill_at.is_none();
        self.kill_at.get_or_insert(kill_at);
        first
    }

    /// A signal did not reach it, and is to be sent again.
    pub fn not_signalled(&mut self) {
        if !std::mem::take(&mut self.killed) {
            self.kill_at = None;
        }
    }

    /// When it is asked next whether it is well.
    pub fn check_at(&self) -> Option<Instant> {
        self.next_check.filter(|_| self.is_running() && !self.checking && !self.is_asked_to_stop())
    }

    pub fn plan_check(&mut self, now: Instant) {
        let check = self.spec.health_check.as_ref().filter(|check| health::command(&check.command).is_some());
        self.next_check = check.map(|check| now + Duration::from_secs(check.interval.into()));
    }

    /// A task that stops asks no more, also of those whose turn to stop has not come.
    pub fn end_checks(&mut self) {
        self.next_check = None;
    }

    /// Takes in what the runtime says of it.
    fn found(&mut self, found: &runtime::ContainerState) {
        if let Some(signal) = found.labels.get(STOP_SIGNAL_LABEL).and_then(|signal| signal.parse().ok()) {
            self.stop_signal = signal;
        }
        if self.image_digest.is_none() {
            self.image_digest = found.labels.get(DIGEST_LABEL).cloned();
        }
        match found.status {
            // Made by an agent that was killed before it started it: made again by `start`.
            runtime::Status::Created => self.made = true,
            // The same, and the runtime took it down when its maker was gone: that is no exit of the container's.
            runtime::Status::Exited { started_at: None, .. }
                if self.is_waiting() && !self.spec.was_running =>
            {
                self.made = true;
            }
            runtime::Status::Running { .. } if self.is_running() => {}
            runtime::Status::Running { started_at } => self.running(started_at),
            runtime::Status::Exited { code, exited_at, started_at, oom } => {
                self.started_at = self.started_at.or(started_at);
                let code = i32::try_from(code).unwrap_or(i32::MAX);
                self.state = Exit { code, at: exited_at, out_of_memory: oom }.state();
                let ran = started_at.map_or(0, |started_at| exited_at.since(started_at));
                let ran = Duration::from_millis(u64::try_from(ran).unwrap_or(0));
                self.unsettled = self.spec.restart_policy.as_ref().map(|_| Unsettled::Fresh { ran });
            }
            // Its creation was cut off half-way.
            runtime::Status::Lost if self.is_waiting() && !self.spec.was_running => self.made = true,
            runtime::Status::Lost => self.gone(Some(LOST.to_owned())),
        }
    }

    /// Takes in what the runtime and an earlier agent's note say of it. `true`: the restart of which the note
    /// tells was done.
    fn found_with(&mut self, found: &runtime::ContainerState, note: Option<Note>) -> bool {
        self.restarts = self.restarts.max(note.map_or(0, |note| note.count));
        self.found(found);
        let Some(exit) = note.and_then(|note| note.exit) else { return false };
        let before_it = match found.status {
            runtime::Status::Exited { exited_at, started_at, .. } => {
                exited_at == exit.at || started_at.is_none()
            }
            runtime::Status::Created | runtime::Status::Lost => true,
            runtime::Status::Running { .. } => false,
        };
        if before_it {
            self.made = false;
            self.state = exit.state();
            self.unsettled = Some(Unsettled::UnderWay);
        }
        !before_it
    }
}

/// The clock of deadlines at a time of day, which is an earlier agent's.
fn started(at: Instant, since: Timestamp) -> Instant {
    let ago = u64::try_from(now().since(since)).unwrap_or(0);
    at.checked_sub(Duration::from_millis(ago)).unwrap_or(at)
}

impl Supervisor {
    /// Finds the containers that an earlier agent left.
    pub(super) async fn adopt(&mut self) {
        for index in 0..self.containers.len() {
            let found = self.inspect(index).await;
            let note = self.containers.get(index).and_then(|held| self.read_note(held));
            let Some(held) = self.containers.get_mut(index) else { continue };
            let mut restarted = false;
            match found {
                Some(found) => restarted = held.found_with(&found, note),
                None if held.spec.was_running => held.gone(Some(LOST.to_owned())),
                None => {}
            }
            let (spec, waits, restarts) = (held.spec.clone(), held.is_waiting(), held.restarts);
            if restarted {
                self.write_note(&spec, Note { count: restarts, exit: None });
            }
            if spec.log.is_some() && !waits {
                self.follow_output(&spec);
            }
        }
    }

    /// Asks the runtime about the containers that have not ended. A runtime that does not answer is asked again
    /// later: the task goes on meanwhile, as its containers do.
    pub(super) async fn look(&mut self) {
        self.look_at = None;
        for held in self.containers.iter_mut().filter(|held| held.is_running()) {
            match self.instance.runtime.inspect(&held.spec.runtime_id).await {
                Ok(Some(found)) => held.found(&found),
                Ok(None) => held.gone(Some(LOST.to_owned())),
                Err(error) => {
                    let container = &held.spec.runtime_id;
                    tracing::warn!(
                        container,
                        error = &error as &dyn std::error::Error,
                        "look at a container"
                    );
                    self.look_at = Some(clock() + super::RETRY);
                }
            }
        }
    }

    /// Asks until the runtime answers: not knowing must not look like not being there.
    async fn inspect(&self, index: usize) -> Option<runtime::ContainerState> {
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

    /// On a new link: what was sent over the old one and not stored is sent again.
    pub(super) fn follow_again(&self) {
        let told = self.told.borrow().assignment.clone();
        let started = |spec: &&ContainerSpec| {
            self.containers.iter().any(|held| held.spec.name == spec.name && !held.is_waiting())
        };
        told.containers.iter().filter(started).for_each(|spec| self.follow_output(spec));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::order;
    use crate::supervise::restart::Unsettled::{Fresh, UnderWay};
    use longshore_model::task_definition::{HealthCheck, RestartPolicy};

    const START: Timestamp = Timestamp(1_000_000);
    const EXIT: Timestamp = Timestamp(1_090_000);

    fn held() -> Held {
        let policy = RestartPolicy { enabled: true, ignored_exit_codes: Vec::new(), attempt_period: 60 };
        let mut spec = order::tests::spec("app");
        spec.was_running = true;
        spec.restart_policy = Some(policy);
        spec.health_check = Some(HealthCheck {
            command: vec!["CMD".to_owned(), "true".to_owned()],
            interval: 5,
            timeout: 2,
            retries: 1,
            start_period: None,
        });
        Held::waiting(spec)
    }

    fn exited(at: Timestamp) -> runtime::Status {
        runtime::Status::Exited { code: 3, exited_at: at, started_at: Some(START), oom: false }
    }

    /// An agent finds a container and a note: what it makes of them, and whether the noted restart was done.
    fn check(status: runtime::Status, note: Option<(u32, bool)>, expected: (Option<Unsettled>, u32, bool)) {
        let note = note.map(|(count, under_way)| Note {
            count,
            exit: under_way.then_some(Exit { code: 3, at: EXIT, out_of_memory: false }),
        });
        let found =
            runtime::ContainerState { id: "app".to_owned(), labels: Default::default(), pid: 0, status };
        let mut held = held();
        let done = held.found_with(&found, note);
        assert_eq!((held.unsettled, held.restarts, done), expected, "{status:?} {note:?}");
        assert!(!held.is_waiting(), "it must not be created a second time");
    }

    #[test]
    fn an_agent_that_was_killed_around_a_restart_counts_it_once() {
        let fresh = Some(Fresh { ran: Duration::from_secs(90) });
        let running = runtime::Status::Running { started_at: EXIT.plus_millis(100) };
        check(exited(EXIT), None, (fresh, 0, false));
        check(exited(EXIT), Some((1, true)), (Some(UnderWay), 1, false));
        check(runtime::Status::Lost, Some((1, true)), (Some(UnderWay), 1, false));
        check(runtime::Status::Created, Some((1, true)), (Some(UnderWay), 1, false));
        // The restart was cut off after the container was made anew.
        let never_ran = runtime::Status::Exited {
            code: 1,
            exited_at: EXIT.plus_millis(50),
            started_at: None,
            oom: false,
        };
        check(never_ran, Some((1, true)), (Some(UnderWay), 1, false));
        check(running, Some((1, true)), (None, 1, true));
        check(running, Some((1, false)), (None, 1, false));
        // It ended once more after the restart.
        let later = Some(Fresh { ran: Duration::from_secs(95) });
        check(exited(EXIT.plus_millis(5000)), Some((1, true)), (later, 1, true));
        check(runtime::Status::Lost, Some((1, false)), (None, 1, false));
    }

    #[test]
    fn what_never_ran_is_made_again() {
        let check = |started_at, was_running, waits| {
            let mut held = held();
            held.spec.was_running = was_running;
            let status = runtime::Status::Exited { code: 137, exited_at: EXIT, started_at, oom: false };
            held.found(&runtime::ContainerState {
                id: "app".to_owned(),
                labels: Default::default(),
                pid: 0,
                status,
            });
            assert_eq!((held.is_waiting(), held.made), (waits, waits), "{started_at:?} {was_running}");
        };
        check(None, false, true);
        check(Some(START), false, false);
        check(None, true, false);
    }

    #[test]
    fn a_container_is_asked_after_each_interval_until_its_task_stops() {
        let mut held = held();
        held.running(now());
        assert!(held.check_at().is_some());
        held.checking = true;
        assert_eq!(held.check_at(), None);
        held.checking = false;
        held.end_checks();
        assert_eq!(
            held.check_at(),
            None,
            "a deadline that nobody acts on would wake the supervisor for ever"
        );
        held.running(now());
        held.begin_stop(clock());
        assert_eq!(held.check_at(), None);
    }
}
