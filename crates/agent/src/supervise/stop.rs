//! Stopping a task, and releasing what it held.

use super::{RETRY, Supervisor, clock, order};
use crate::runtime::{Error, Signal};
use std::time::Duration;

type Failed = Box<dyn std::error::Error + Send + Sync>;

impl Supervisor {
    /// Asks the containers whose turn it is to stop, and kills those whose time is over. Each has its own time,
    /// from its own signal on.
    pub(super) async fn stop_containers(&mut self) {
        let now = clock();
        let turn = order::stoppable(&self.members());
        for (index, held) in self.containers.iter_mut().enumerate() {
            if !held.is_running() {
                continue;
            }
            let own = held.spec.stop_timeout.map(|seconds| Duration::from_secs(seconds.into()));
            let timeout = own.unwrap_or(self.instance.stop_timeout);
            let signal = if held.kill_at().is_some_and(|kill_at| kill_at <= now) {
                held.killed = true;
                Signal::KILL
            } else if turn.contains(&index) && held.begin_stop(now + timeout) {
                held.stop_signal
            } else {
                continue;
            };
            if let Err(error) = self.instance.runtime.signal(&held.spec.runtime_id, signal).await {
                tracing::warn!(
                    container = held.spec.runtime_id,
                    error = &error as &dyn std::error::Error,
                    "a container could not be signalled"
                );
                if matches!(error, Error::Unavailable { .. }) {
                    held.not_signalled();
                    self.retry_at = Some(now + RETRY);
                }
            }
        }
    }

    /// Removes everything of the task. Tries until it is done: an address that is still in use must not be given
    /// to another task.
    pub(super) async fn release(&mut self) {
        if self.observation.released {
            return;
        }
        self.abandon_preparation();
        // What is being started must be there before it can be removed.
        while self.work.join_next().await.is_some() {}
        self.until_done(Self::remove_containers).await;
        // They ended with their containers.
        self.checks.abort_all();
        // Output is read to its end before the files go; deleting a container waits for its last lines to be there.
        futures::future::join_all(
            self.containers.iter().map(|held| self.instance.logs.finish(&held.spec.runtime_id)),
        )
        .await;
        self.until_done(Self::remove_ground).await;
        self.forget_unstarted();
        self.containers.iter_mut().for_each(super::Held::end_checks);
        self.observation.released = true;
    }

    async fn until_done(&self, step: impl AsyncFn(&Self) -> Result<(), Failed>) {
        while let Err(error) = step(self).await {
            tracing::warn!(task = %self.observation.task.id, error = &*error, "a task could not be released yet");
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn remove_containers(&self) -> Result<(), Failed> {
        for held in &self.containers {
            self.instance.runtime.delete(&held.spec.runtime_id).await?;
        }
        Ok(())
    }

    /// What the containers shared.
    async fn remove_ground(&self) -> Result<(), Failed> {
        let task = self.observation.task.id.to_string();
        self.instance.network.detach(&task).await?;
        self.instance.cgroups.remove_task(&task).await?;
        match std::fs::remove_dir_all(self.instance.task_dir(self.observation.task.id)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}
