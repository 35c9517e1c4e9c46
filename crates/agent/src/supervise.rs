//! Looks after one task. Invariant: it acts on what the runtime says and on what control told last; it creates a
//! container once, and removes what it left only when control has recorded how it ended. It never waits for one
//! thing alone: what takes time is done beside it, and it wakes by what ends, by hints and by deadlines.

mod containers;
mod health;
mod isolation;
mod order;
mod prepare;
mod restart;
mod start;
mod stop;

use crate::agent::Instance;
use crate::runtime::{StartError, Started};
use containers::Held;
use health::Checked;
use longshore_model::Timestamp;
use longshore_model::link::{Assignment, FromAgent, Goal, Observation, StartFailure, StartFailureKind};
use order::Member;
use prepare::{Failed, Ground};
use start::Standing;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What control says of the task.
#[derive(Clone, Debug)]
pub struct Told {
    pub assignment: Assignment,
    /// The link it came by: a new link is told everything again.
    pub link: u64,
    /// Control no longer has the task: whatever is left of it is to go.
    pub forgotten: bool,
}

impl Told {
    /// Whether its containers are to run.
    fn is_wanted(&self) -> bool {
        self.assignment.goal == Goal::Run && !self.forgotten
    }
}

/// Runs until control has forgotten the task, or the agent ends.
pub async fn run(instance: Arc<Instance>, told: watch::Receiver<Told>, poke: Arc<Notify>) {
    let (first, link) = {
        let told = told.borrow();
        (told.assignment.clone(), told.link)
    };
    let containers = first.containers.iter().map(|spec| Held::waiting(spec.clone())).collect();
    let mut supervisor = Supervisor {
        instance,
        told,
        link,
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
        standing: Standing::default(),
        work: JoinSet::new(),
        checks: JoinSet::new(),
        retry_at: None,
        look_at: None,
    };
    supervisor.adopt().await;
    supervisor.converge().await;
}

struct Supervisor {
    instance: Arc<Instance>,
    told: watch::Receiver<Told>,
    /// The link that was last heard of.
    link: u64,
    poke: Arc<Notify>,
    containers: Vec<Held>,
    observation: Observation,
    /// What was last sent, and by which link.
    reported: Option<(Observation, u64)>,
    standing: Standing,
    /// What takes time, done beside the supervisor.
    work: JoinSet<Done>,
    /// Health checks, which end with their containers.
    checks: JoinSet<Checked>,
    /// When something that failed is tried again.
    retry_at: Option<Instant>,
    /// When the runtime, which did not answer, is asked again.
    look_at: Option<Instant>,
}

/// Work that came to its end.
enum Done {
    Prepared(Result<Ground, Failed>),
    Started(usize, Result<start::Running, Failed>),
    Restarted(usize, restart::Exit, Result<Started, StartError>),
}

/// Why the supervisor goes on.
enum Wake {
    /// Containers may have changed.
    Hint,
    Done(Done),
    Checked(Checked),
    /// A deadline, or work that was called off.
    Due,
    /// The agent ends, which its containers outlive.
    Ended,
}

impl Supervisor {
    async fn converge(&mut self) {
        loop {
            let (goal, forgotten, link) = {
                let told = self.told.borrow_and_update();
                (told.assignment.goal, told.forgotten, told.link)
            };
            if std::mem::replace(&mut self.link, link) != link {
                self.follow_again();
            }
            if forgotten {
                return self.release().await;
            }
            self.retry_at = None;
            match goal {
                Goal::Run => self.run().await,
                Goal::Stop => self.stop().await,
                Goal::Release => self.release().await,
            }
            self.report().await;
            match self.wait().await {
                Wake::Hint => self.look().await,
                Wake::Done(done) => {
                    self.done(done);
                    // It may have ended while its start was under way.
                    self.look().await;
                }
                Wake::Checked(checked) => self.checked(checked),
                Wake::Due if self.look_at.is_some_and(|at| at <= clock()) => self.look().await,
                Wake::Due => {}
                Wake::Ended => return,
            }
        }
    }

    async fn run(&mut self) {
        self.settle_exits();
        if !self.must_stop()
            && let Some(blocked) = order::blocked(&self.members())
        {
            let kind = StartFailureKind::CannotStartContainer;
            self.fail(Failed::new(kind, Some(&blocked.container), blocked.message()));
        }
        if self.must_stop() {
            return self.stop().await;
        }
        self.begin_starts();
        if self.must_stop() {
            return self.stop().await;
        }
        self.begin_checks();
    }

    async fn stop(&mut self) {
        self.settle_for_good();
        self.abandon_preparation();
        self.forget_unstarted();
        self.containers.iter_mut().for_each(Held::end_checks);
        self.stop_containers().await;
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Prepared(prepared) => self.prepared(prepared),
            Done::Started(index, started) => self.started(index, started),
            Done::Restarted(index, exit, restarted) => self.restarted(index, exit, restarted),
        }
    }

    /// Waits until something may have changed.
    async fn wait(&mut self) -> Wake {
        let deadline = self.deadline();
        let timeout = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.told.changed() => if changed.is_ok() { Wake::Hint } else { Wake::Ended },
            () = self.poke.notified() => Wake::Hint,
            Some(done) = self.work.join_next() => done.map_or(Wake::Due, Wake::Done),
            Some(checked) = self.checks.join_next() => checked.map_or(Wake::Due, Wake::Checked),
            () = timeout => Wake::Due,
        }
    }

    /// When there is something to do though nothing happens.
    fn deadline(&self) -> Option<Instant> {
        let held = self.containers.iter();
        let containers = held.flat_map(|held| [held.kill_at(), held.check_at()]).flatten();
        let start_timeout = order::next_timeout(&self.members()).map(|left| clock() + left);
        containers.chain(start_timeout).chain(self.retry_at).chain(self.look_at).min()
    }

    fn members(&self) -> Vec<Member<'_>> {
        let now = clock();
        self.containers.iter().map(|held| held.member(now)).collect()
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
        self.observation.failure.is_some() || order::essential_ended(&self.members())
    }

    /// What was not started will not be.
    fn forget_unstarted(&mut self) {
        self.containers.iter_mut().filter(|held| held.is_waiting()).for_each(|held| held.gone(None));
    }

    fn fail(&mut self, failed: Failed) {
        let Failed { kind, container, message } = failed;
        tracing::info!(task = %self.observation.task.id, ?kind, message, "the task cannot start");
        self.observation.failure.get_or_insert(StartFailure { kind, container, message, at: now() });
        self.forget_unstarted();
    }
}

/// How long a step that failed waits before it is tried again.
const RETRY: Duration = Duration::from_millis(500);

#[allow(clippy::disallowed_methods, reason = "the shell's one reading of the clock")]
fn now() -> Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// For deadlines, which a clock that is set must not move.
fn clock() -> Instant {
    Instant::now()
}
