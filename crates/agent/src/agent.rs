//! The agent of one container instance: compares what it should run with what runs, and converges.
//!
//! Invariant: it holds no truth. It can be killed at any instant: containers go on, and the next agent finds them
//! in the runtime and their tasks in what control tells it.

use crate::cgroup::Cgroups;
use crate::logs::Logs;
use crate::network::Network;
use crate::runtime::{Event, Runtime};
use crate::supervise::{self, Told};
use longshore_model::TaskId;
use longshore_model::link::firewall::Firewall;
use longshore_model::link::{Assignment, FromAgent, Hello, ToAgent};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, watch};

/// The label that names a container's task.
pub const TASK_LABEL: &str = "longshore.task";

/// Until rules that were refused are tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How often the runtime is asked for everything, in case a hint was lost.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// The agent's end of its link.
pub struct Link {
    pub to_control: mpsc::Sender<FromAgent>,
    pub from_control: mpsc::Receiver<ToAgent>,
}

/// As ECS's agent has it.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// What tasks are run with.
pub struct Instance {
    pub hello: Hello,
    pub runtime: Arc<dyn Runtime>,
    pub network: Arc<Network>,
    pub cgroups: Arc<Cgroups>,
    pub logs: Arc<Logs>,
    /// Where the files of tasks are kept, one directory each.
    pub tasks_dir: PathBuf,
    /// Between the stop signal and SIGKILL, for containers that say nothing of it.
    pub stop_timeout: Duration,
    /// Whether an edge on the machine answers at the addresses of VPCs' resolvers.
    pub has_edge: bool,
    pub to_control: mpsc::Sender<FromAgent>,
}

impl Instance {
    pub fn task_dir(&self, task: TaskId) -> PathBuf {
        self.tasks_dir.join(task.to_string())
    }
}

/// Serves until the link closes. Containers go on.
pub async fn run(instance: Arc<Instance>, mut from_control: mpsc::Receiver<ToAgent>) {
    let mut events = instance.runtime.events();
    let hello = FromAgent::Hello(instance.hello.clone());
    if instance.to_control.send(hello).await.is_err() {
        return;
    }
    let mut agent = Agent { instance, tasks: BTreeMap::new(), link: 0, strangers: false };
    let mut look_again = tokio::time::interval(LOOK_AGAIN);
    look_again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = from_control.recv() => match message {
                None => return,
                Some(ToAgent::Assigned(all)) => agent.assigned(all).await,
                Some(ToAgent::Changed { assigned, ended }) => agent.changed(assigned, &ended),
                Some(ToAgent::Firewall(firewall)) => agent.firewall(&firewall).await,
                Some(ToAgent::LogsStored { source, offset }) => agent.instance.logs.stored(&source, offset),
            },
            event = events.recv() => match event {
                Ok(Event::Exited { id } | Event::Oom { id }) => agent.poke(&id),
                Ok(Event::Restarted) | Err(broadcast::error::RecvError::Lagged(_)) => agent.restarted().await,
                Err(broadcast::error::RecvError::Closed) => {
                    tracing::warn!("the runtime's events ended; its list is all that is looked at from now on");
                    events = agent.instance.runtime.events();
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
            _ = look_again.tick() => agent.look_again().await,
        }
    }
}

struct Agent {
    instance: Arc<Instance>,
    tasks: BTreeMap<TaskId, Supervised>,
    /// Counts the links that said everything, so that each is answered with everything.
    link: u64,
    /// Something that no task owns may still be here.
    strangers: bool,
}

struct Supervised {
    told: watch::Sender<Told>,
    poke: Arc<tokio::sync::Notify>,
}

impl Supervised {
    /// Ends the task's supervisor, which removes what is left. Always `false`: it is not kept.
    fn forget(&self) -> bool {
        self.told.send_modify(|told| told.forgotten = true);
        false
    }
}

impl Agent {
    async fn assigned(&mut self, all: Vec<Assignment>) {
        self.link += 1;
        let keep: BTreeSet<TaskId> = all.iter().map(|assignment| assignment.task.id).collect();
        self.tasks.retain(|task, supervised| keep.contains(task) || supervised.forget());
        self.strangers = !self.remove_strangers(&keep).await;
        for assignment in all {
            self.tell(assignment);
        }
    }

    /// Nothing else is taken in before the rules are in force: no task is without them.
    async fn firewall(&self, firewall: &Firewall) {
        while let Err(error) = self.instance.network.filter(firewall).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "security groups are not in force; tasks wait for them"
            );
            tokio::time::sleep(RETRY).await;
        }
    }

    fn changed(&mut self, assigned: Vec<Assignment>, ended: &[TaskId]) {
        for assignment in assigned {
            self.tell(assignment);
        }
        for task in ended {
            if let Some(supervised) = self.tasks.remove(task) {
                supervised.forget();
            }
        }
    }

    fn tell(&mut self, assignment: Assignment) {
        let task = assignment.task.id;
        let told = Told { assignment, link: self.link, forgotten: false };
        match self.tasks.get(&task) {
            Some(supervised) => {
                supervised.told.send_replace(told);
            }
            None => {
                let (sender, receiver) = watch::channel(told);
                let poke = Arc::new(tokio::sync::Notify::new());
                tokio::spawn(supervise::run(Arc::clone(&self.instance), receiver, Arc::clone(&poke)));
                self.tasks.insert(task, Supervised { told: sender, poke });
            }
        }
    }

    /// Removes what is on the instance and belongs to no task that it was given; `false` when some of it is left.
    async fn remove_strangers(&self, keep: &BTreeSet<TaskId>) -> bool {
        let instance = &self.instance;
        let containers = match instance.runtime.list().await {
            Ok(containers) => containers,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "what runs here could not be listed"
                );
                return false;
            }
        };
        let known = |task: Option<&String>| {
            task.and_then(|task| task.parse().ok()).is_some_and(|task: TaskId| keep.contains(&task))
        };
        let strangers = containers.iter().filter(|container| !known(container.labels.get(TASK_LABEL)));
        let removals = strangers.map(|container| async move {
            tracing::info!(container = container.id, "removing a container that no task owns");
            let removed = instance.runtime.delete(&container.id).await;
            if let Err(error) = &removed {
                tracing::warn!(error = error as &dyn std::error::Error, "a container could not be removed");
            }
            removed.is_ok()
        });
        let mut all_removed = futures::future::join_all(removals).await.into_iter().all(|removed| removed);
        let names: BTreeSet<String> = keep.iter().map(ToString::to_string).collect();
        if let Err(error) = instance.network.gc(&names).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "networks that no task owns could not be removed"
            );
            all_removed = false;
        }
        for task in instance.cgroups.tasks().into_iter().filter(|task| !names.contains(task)) {
            if let Err(error) = instance.cgroups.remove_task(&task).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a cgroup that no task owns could not be removed"
                );
                all_removed = false;
            }
        }
        remove_directories(&instance.tasks_dir, &names) && all_removed
    }

    /// Tries again what an earlier look could not remove.
    async fn remove_strangers_left(&mut self) {
        if self.strangers {
            let keep = self.tasks.keys().copied().collect();
            self.strangers = !self.remove_strangers(&keep).await;
        }
    }

    /// The runtime is there again, after which anything may have happened.
    async fn restarted(&mut self) {
        self.poke_all();
        self.remove_strangers_left().await;
    }

    fn poke(&self, container: &str) {
        let task = container.get(..32).and_then(|task| task.parse().ok());
        if let Some(supervised) = task.and_then(|task: TaskId| self.tasks.get(&task)) {
            supervised.poke.notify_one();
        }
    }

    fn poke_all(&self) {
        self.tasks.values().for_each(|supervised| supervised.poke.notify_one());
    }

    /// Pokes the tasks of containers that are not running; those that run have nothing to tell.
    async fn look_again(&mut self) {
        self.remove_strangers_left().await;
        if self.tasks.is_empty() {
            return;
        }
        if let Ok(containers) = self.instance.runtime.list().await {
            let still = |status| matches!(status, crate::runtime::Status::Running { .. });
            containers.iter().filter(|container| !still(container.status)).for_each(|c| self.poke(&c.id));
        }
    }
}

/// `false` when some are left.
fn remove_directories(tasks_dir: &std::path::Path, keep: &BTreeSet<String>) -> bool {
    let Ok(entries) = std::fs::read_dir(tasks_dir) else { return true };
    let mut all_removed = true;
    for entry in entries.flatten() {
        let owned = entry.file_name().to_str().is_some_and(|name| keep.contains(name));
        if !owned && let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "files that no task owns could not be removed");
            all_removed = false;
        }
    }
    all_removed
}
