//! A view that follows an engine. Invariant: the view is the state after some whole commit, never between two; who
//! committed sees its own commit in the next snapshot.

use crate::engine::{Changes, Engine, Error, Event, Outcome};
use longshore_model::change::{Batch, Change, Commit, Version, View};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{broadcast, watch};

/// Batches that a follower may be behind before it is told to start again.
const BEHIND: usize = 4096;

pub struct Store<V> {
    engine: Arc<dyn Engine>,
    current: Arc<Current<V>>,
    follower: tokio::task::JoinHandle<()>,
}

struct Current<V> {
    snapshot: RwLock<Snapshot<V>>,
    version: watch::Sender<Version>,
    followers: broadcast::Sender<Followed>,
}

/// The state after one commit. Cloning it is O(1).
#[derive(Clone, Debug, Default)]
pub struct Snapshot<V> {
    pub version: Version,
    pub view: V,
}

/// What a follower of a store is told; the view has it already.
#[derive(Clone, Debug)]
pub enum Followed {
    Batch(Arc<Batch>),
    /// Some commits were missed: look at a snapshot.
    Restarted,
}

pub struct Follower(broadcast::Receiver<Followed>);

impl Follower {
    /// `None` when the store closed.
    pub async fn next(&mut self) -> Option<Followed> {
        match self.0.recv().await {
            Ok(followed) => Some(followed),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Followed::Restarted),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl<V: View> Store<V> {
    pub async fn open(engine: Arc<dyn Engine>) -> Result<Self, Error> {
        let (snapshot, changes) = load(&*engine).await?;
        let current = Arc::new(Current {
            version: watch::Sender::new(snapshot.version),
            followers: broadcast::Sender::new(BEHIND),
            snapshot: RwLock::new(snapshot),
        });
        let follower = tokio::spawn(follow(Arc::clone(&engine), Arc::clone(&current), changes));
        Ok(Self { engine, current, follower })
    }

    pub fn snapshot(&self) -> Snapshot<V> {
        self.current.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Commits durably; when it returns, [`Store::snapshot`] has the commit.
    pub async fn commit(&self, commit: Commit) -> Result<Outcome, Error> {
        let outcome = self.engine.commit(commit).await?;
        match &outcome {
            // After a conflict, the next attempt is to see what it conflicted with.
            Outcome::Committed(version) | Outcome::Conflict { version, .. } => self.reached(*version).await?,
        }
        Ok(outcome)
    }

    /// Every commit from now on.
    pub fn follow(&self) -> Follower {
        Follower(self.current.followers.subscribe())
    }

    /// Deletes every record.
    pub async fn reset(&self) -> Result<(), Error> {
        let version = self.engine.reset().await?;
        self.reached(version).await
    }

    async fn reached(&self, version: Version) -> Result<(), Error> {
        let mut versions = self.current.version.subscribe();
        versions.wait_for(|reached| *reached >= version).await.map(drop).map_err(|_| Error::Closed)
    }
}

impl<V> Drop for Store<V> {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

async fn load<V: View>(engine: &dyn Engine) -> Result<(Snapshot<V>, Changes), Error> {
    loop {
        let loaded = engine.load("").await?;
        let mut view = V::default();
        for (key, value) in loaded.entries {
            apply(&mut view, &Change { key, value: Some(value) });
        }
        match engine.changes(loaded.version).await {
            Ok(changes) => return Ok((Snapshot { version: loaded.version, view }, changes)),
            // It was forgotten while it was being read.
            Err(Error::Compacted { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// A record that cannot be read is skipped: one bad record must not keep the server from its others.
fn apply<V: View>(view: &mut V, change: &Change) {
    if let Err(error) = view.apply(change) {
        tracing::error!(%error, "a record was skipped");
    }
}

async fn follow<V: View>(engine: Arc<dyn Engine>, current: Arc<Current<V>>, mut changes: Changes) {
    while let Some(event) = changes.next().await {
        match event {
            Event::Batch(batch) => current.take(batch),
            Event::Restart => {
                let (snapshot, next) = load_until_it_answers(&*engine).await;
                changes = next;
                current.replace(snapshot);
            }
        }
    }
}

/// How long a load that failed waits before it is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// The snapshot grows old meanwhile; commits decided on it conflict and harm nothing.
async fn load_until_it_answers<V: View>(engine: &dyn Engine) -> (Snapshot<V>, Changes) {
    loop {
        match load(engine).await {
            Ok(loaded) => return loaded,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the store cannot be followed now");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

impl<V: View> Current<V> {
    fn take(&self, batch: Arc<Batch>) {
        {
            let mut snapshot = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
            if batch.version <= snapshot.version {
                return;
            }
            for change in &batch.changes {
                apply(&mut snapshot.view, change);
            }
            snapshot.version = batch.version;
        }
        self.announce(batch.version, Followed::Batch(batch));
    }

    fn replace(&self, next: Snapshot<V>) {
        let version = next.version;
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = next;
        self.announce(version, Followed::Restarted);
    }

    fn announce(&self, version: Version, followed: Followed) {
        // Nobody may be following.
        let _ = self.followers.send(followed);
        // Wakes committers: who follows after its commit is told of later ones only.
        self.version.send_replace(version);
    }
}
