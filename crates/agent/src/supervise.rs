//! Looks after one task. Invariant: it acts on what the runtime says and on what control told last; it creates a
//! container once, and removes what it left only when control has recorded how it ended.

mod containers;
mod start;
mod stop;

use crate::agent::Instance;
use containers::Held;
use longshore_model::Timestamp;
use longshore_model::link::{Assignment, FromAgent, Goal, Observation, StartFailure, StartFailureKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// What control says of the task.
#[derive(Clone, Debug)]
pub struct Told {
    pub assignment: Assignment,
    /// The link it came by: a new link is told everything again.
    pub link: u64,
    /// Control no longer has the task: whatever is left of it is to go.
    pub forgotten: bool,
}

/// Runs until control has forgotten the task, or the agent ends.
pub async fn run(instance: Arc<Instance>, told: watch::Receiver<Told>, poke: Arc<Notify>) {
    let first = told.borrow().assignment.clone();
    let containers = first.containers.iter().map(|spec| Held::waiting(spec.clone())).collect();
    let mut supervisor = Supervisor {
        instance,
        told,
        poke,
        containers,
        observation: Observation {
            task: first.task,
            pull_started_at: None,
            pull_stopped_at: None,
            connected_at: None,
            containers: Vec::new(),
            failure: None,
            released: false,
        },
        reported: None,
    };
    supervisor.adopt().await;
    supervisor.converge().await;
}

struct Supervisor {
    instance: Arc<Instance>,
    told: watch::Receiver<Told>,
    poke: Arc<Notify>,
    containers: Vec<Held>,
    observation: Observation,
    /// What was last sent, and by which link.
    reported: Option<(Observation, u64)>,
}

impl Supervisor {
    async fn converge(&mut self) {
        loop {
            let (goal, forgotten) = {
                let told = self.told.borrow_and_update();
                (told.assignment.goal, told.forgotten)
            };
            if forgotten {
                return self.release().await;
            }
            self.report().await;
            match goal {
                Goal::Run if self.must_stop() => self.stop_containers().await,
                Goal::Run if self.may_start() => {
                    self.start().await;
                    continue;
                }
                Goal::Run => {}
                Goal::Stop => {
                    self.forget_unstarted(None);
                    self.stop_containers().await;
                }
                Goal::Release => {
                    self.release().await;
                    self.report().await;
                }
            }
            self.report().await;
            if !self.wait().await {
                return;
            }
            self.look().await;
        }
    }

    /// Waits until something may have changed; `false` when the agent ends, which its containers outlive.
    async fn wait(&mut self) -> bool {
        let deadline = self.containers.iter().filter_map(Held::kill_at).min();
        let timeout = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.told.changed() => changed.is_ok(),
            () = self.poke.notified() => true,
            () = timeout => true,
        }
    }

    /// Sends how the task is, when that is news to this link.
    async fn report(&mut self) {
        self.observation.containers = self.containers.iter().map(Held::observation).collect();
        let link = self.told.borrow().link;
        if self.reported.as_ref().is_some_and(|(sent, by)| *sent == self.observation && *by == link) {
            return;
        }
        let message = FromAgent::Observed(self.observation.clone());
        if self.instance.to_control.send(message).await.is_ok() {
            self.reported = Some((self.observation.clone(), link));
        }
    }

    /// An essential container has ended, or the task could not start.
    fn must_stop(&self) -> bool {
        self.observation.failure.is_some()
            || self.containers.iter().any(|held| held.spec.essential && held.ended())
    }

    fn may_start(&self) -> bool {
        self.containers.iter().any(Held::is_waiting)
    }

    /// What was not started will not be.
    fn forget_unstarted(&mut self, reason: Option<&str>) {
        for held in self.containers.iter_mut().filter(|held| held.is_waiting()) {
            held.gone(reason.map(str::to_owned));
        }
    }

    fn fail(&mut self, kind: StartFailureKind, container: Option<&str>, message: String) {
        tracing::info!(task = %self.observation.task.id, ?kind, message, "the task cannot start");
        let failure = StartFailure { kind, container: container.map(str::to_owned), message, at: now() };
        self.observation.failure.get_or_insert(failure);
        self.forget_unstarted(None);
    }
}

/// How long a step that failed waits before it is tried again.
const RETRY: Duration = Duration::from_millis(500);

#[allow(clippy::disallowed_methods, reason = "the shell's one reading of the clock")]
fn now() -> Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
