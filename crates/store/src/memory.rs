//! The engine that keeps nothing: for tests of what stands on a store.

use crate::engine::{Changes, Engine, Error, Event, Loaded, Outcome};
use crate::index::Index;
use async_trait::async_trait;
use longshore_model::change::{Batch, Commit, Key, Version};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

#[derive(Debug, Default)]
pub struct Memory {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    index: Index,
    values: BTreeMap<Key, Arc<[u8]>>,
    followers: Vec<mpsc::UnboundedSender<Event>>,
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn publish(&mut self, batch: &Arc<Batch>) {
        for change in &batch.changes {
            match &change.value {
                Some(value) => self.values.insert(change.key.clone(), Arc::clone(value)),
                None => self.values.remove(&change.key),
            };
        }
        self.followers.retain(|follower| follower.send(Event::Batch(Arc::clone(batch))).is_ok());
    }
}

#[async_trait]
impl Engine for Memory {
    async fn load(&self, prefix: &str) -> Result<Loaded, Error> {
        let state = self.state();
        let under = state.values.iter().filter(|(key, _)| key.as_str().starts_with(prefix));
        let entries = under.map(|(key, value)| (key.clone(), Arc::clone(value))).collect();
        Ok(Loaded { version: state.index.version(), entries })
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome, Error> {
        let mut state = self.state();
        match state.index.commit(commit)? {
            Err(key) => Ok(Outcome::Conflict { key, version: state.index.version() }),
            Ok(batch) => {
                state.publish(&batch);
                Ok(Outcome::Committed(batch.version))
            }
        }
    }

    async fn changes(&self, since: Version) -> Result<Changes, Error> {
        let mut state = self.state();
        let (sender, receiver) = mpsc::unbounded_channel();
        for batch in state.index.changes_since(since)? {
            let _ = sender.send(Event::Batch(batch));
        }
        state.followers.push(sender);
        Ok(Changes(receiver))
    }

    async fn compact(&self, version: Version) -> Result<(), Error> {
        self.state().index.compact(version);
        Ok(())
    }

    async fn reset(&self) -> Result<Version, Error> {
        let mut state = self.state();
        let batch = state.index.reset();
        state.publish(&batch);
        Ok(batch.version)
    }
}
