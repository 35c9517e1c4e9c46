//! The one thread that writes.

use super::Disk;
use crate::engine::{Changes, Error, Event, Loaded, Outcome};
use crate::index::Index;
use fjall::{OwnedWriteBatch, PersistMode};
use longshore_model::change::{Batch, Commit, Version};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

type Reply<T> = oneshot::Sender<Result<T, Error>>;

pub enum Command {
    Load { prefix: String, reply: Reply<Loaded> },
    Commit { commit: Commit, reply: Reply<Outcome> },
    Changes { since: Version, reply: Reply<Changes> },
    Compact { version: Version, reply: Reply<()> },
    Reset { reply: Reply<Version> },
}

/// Commits that share one sync at most.
const GROUP: usize = 1024;

pub struct Writer {
    disk: Disk,
    index: Index,
    followers: Vec<mpsc::UnboundedSender<Event>>,
    poisoned: bool,
}

/// Commits that were decided and are not durable yet.
#[derive(Default)]
struct Group {
    batches: Vec<Arc<Batch>>,
    answers: Vec<Answer>,
}

enum Answer {
    Commit(Reply<Outcome>, Outcome),
    Reset(Reply<Version>, Version),
}

impl Answer {
    fn send(self, durable: bool) {
        match self {
            Self::Commit(reply, outcome) => {
                drop(reply.send(if durable { Ok(outcome) } else { Err(Error::Poisoned) }))
            }
            Self::Reset(reply, version) => {
                drop(reply.send(if durable { Ok(version) } else { Err(Error::Poisoned) }))
            }
        }
    }
}

impl Writer {
    pub fn new(disk: Disk, index: Index) -> Self {
        Self { disk, index, followers: Vec::new(), poisoned: false }
    }

    /// Runs until nobody can send any more.
    pub fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        while let Some(first) = queue.blocking_recv() {
            let mut group = Group::default();
            let mut next = Some(first);
            while let Some(command) = next.take() {
                match command {
                    Command::Commit { commit, reply } => self.decide(commit, reply, &mut group),
                    Command::Reset { reply } => {
                        let batch = self.index.reset();
                        group.answers.push(Answer::Reset(reply, batch.version));
                        group.batches.push(batch);
                    }
                    // The others see what was decided before them, so that must be on disk first.
                    other => {
                        self.finish(std::mem::take(&mut group));
                        self.answer(other);
                    }
                }
                if group.answers.len() < GROUP {
                    next = queue.try_recv().ok();
                }
            }
            self.finish(group);
        }
    }

    fn decide(&mut self, commit: Commit, reply: Reply<Outcome>, group: &mut Group) {
        if self.poisoned {
            drop(reply.send(Err(Error::Poisoned)));
            return;
        }
        match self.index.commit(commit) {
            Err(error) => drop(reply.send(Err(error))),
            // A conflict may be with a commit of this group: it is said when that one is durable.
            Ok(Err(key)) => {
                let version = self.index.version();
                group.answers.push(Answer::Commit(reply, Outcome::Conflict { key, version }));
            }
            Ok(Ok(batch)) => {
                group.answers.push(Answer::Commit(reply, Outcome::Committed(batch.version)));
                group.batches.push(batch);
            }
        }
    }

    fn finish(&mut self, group: Group) {
        if !group.batches.is_empty()
            && !self.poisoned
            && let Err(error) = self.sync(&group.batches)
        {
            tracing::error!(%error, "the store's disk failed; the server must be started again");
            self.poisoned = true;
        }
        if !self.poisoned {
            for batch in &group.batches {
                self.followers.retain(|follower| follower.send(Event::Batch(Arc::clone(batch))).is_ok());
            }
        }
        for answer in group.answers {
            answer.send(!self.poisoned);
        }
    }

    fn sync(&self, batches: &[Arc<Batch>]) -> Result<(), fjall::Error> {
        let mut write = self.disk.database.batch().durability(Some(PersistMode::SyncAll));
        for batch in batches {
            self.stage(&mut write, batch);
        }
        write.commit()
    }

    fn stage(&self, write: &mut OwnedWriteBatch, batch: &Batch) {
        let version = batch.version.0.to_be_bytes();
        for change in &batch.changes {
            match &change.value {
                Some(value) => {
                    let stored = [version.as_slice(), value].concat();
                    write.insert(&self.disk.records, change.key.as_str(), stored);
                }
                None => write.remove(&self.disk.records, change.key.as_str()),
            }
        }
        write.insert(&self.disk.meta, "version", version);
    }

    fn answer(&mut self, command: Command) {
        match command {
            // The index holds commits that the disk may not have.
            Command::Load { reply, .. } if self.poisoned => drop(reply.send(Err(Error::Poisoned))),
            Command::Changes { reply, .. } if self.poisoned => drop(reply.send(Err(Error::Poisoned))),
            Command::Load { prefix, reply } => {
                drop(reply.send(self.disk.load(&prefix, self.index.version())))
            }
            Command::Changes { since, reply } => drop(reply.send(self.follow(since))),
            Command::Compact { version, reply } => {
                self.index.compact(version);
                drop(reply.send(Ok(())));
            }
            // Decided in groups, above.
            Command::Commit { reply, .. } => drop(reply.send(Err(Error::Closed))),
            Command::Reset { reply } => drop(reply.send(Err(Error::Closed))),
        }
    }

    fn follow(&mut self, since: Version) -> Result<Changes, Error> {
        let (sender, receiver) = mpsc::unbounded_channel();
        for batch in self.index.changes_since(since)? {
            let _ = sender.send(Event::Batch(batch));
        }
        self.followers.push(sender);
        Ok(Changes(receiver))
    }
}
