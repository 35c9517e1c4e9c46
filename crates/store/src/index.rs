//! Decides commits: which version each key has, and what changed lately.
//!
//! Invariant: plain and synchronous, so that the embedded engine, the engine in memory and the simulator decide the
//! same; a commit that conflicts changes nothing.

use crate::engine::Error;
use longshore_model::change::{Batch, Change, Commit, Guard, Key, Version, Write};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// How many commits are remembered for followers that fell behind.
pub const REMEMBERED: usize = 10_000;

/// The versions of all keys. It holds no values: those are on disk and, decoded, in the views.
#[derive(Debug, Default)]
pub struct Index {
    version: Version,
    written: BTreeMap<Key, Version>,
    recent: VecDeque<Arc<Batch>>,
    /// Commits up to here are forgotten.
    compacted: Version,
}

impl Index {
    /// The index of records that were on disk; earlier commits are forgotten.
    pub fn restore(version: Version, written: impl IntoIterator<Item = (Key, Version)>) -> Self {
        Self { version, written: written.into_iter().collect(), recent: VecDeque::new(), compacted: version }
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.written.keys()
    }

    /// Applies a commit; `Ok(Err(key))` names what it conflicts with.
    pub fn commit(&mut self, commit: Commit) -> Result<Result<Arc<Batch>, Key>, Error> {
        check_distinct(&commit)?;
        if let Some(key) = self.conflict(&commit) {
            return Ok(Err(key));
        }
        Ok(Ok(self.apply(commit.writes)))
    }

    /// Deletes every key.
    pub fn reset(&mut self) -> Arc<Batch> {
        let writes = self.written.keys().cloned().map(|key| Write::Delete { key }).collect();
        self.apply(writes)
    }

    /// The commits after `since`.
    pub fn changes_since(&self, since: Version) -> Result<Vec<Arc<Batch>>, Error> {
        if since < self.compacted {
            return Err(Error::Compacted { since });
        }
        Ok(self.recent.iter().filter(|batch| batch.version > since).cloned().collect())
    }

    /// Forgets the commits up to `version`.
    pub fn compact(&mut self, version: Version) {
        let version = version.min(self.version);
        while self.recent.front().is_some_and(|batch| batch.version <= version) {
            self.recent.pop_front();
        }
        self.compacted = self.compacted.max(version);
    }

    fn conflict(&self, commit: &Commit) -> Option<Key> {
        let unchanged = |key: &Key| self.written.get(key).is_some_and(|written| *written <= commit.read);
        let of_write = commit.writes.iter().find(|write| match write {
            Write::Create { key, .. } => self.written.contains_key(key),
            Write::Update { key, .. } | Write::Delete { key } => !unchanged(key),
        });
        if let Some(write) = of_write {
            return Some(write.key().clone());
        }
        commit.guards.iter().find_map(|guard| match guard {
            Guard::Unchanged(key) => (!unchanged(key)).then(|| key.clone()),
            Guard::Absent(key) => self.written.contains_key(key).then(|| key.clone()),
            Guard::NothingNewUnder(prefix) => self.newer_under(prefix, commit.read),
        })
    }

    fn newer_under(&self, prefix: &str, read: Version) -> Option<Key> {
        let from = (Bound::Included(Key::new(prefix)), Bound::Unbounded);
        let under = self.written.range(from).take_while(|(key, _)| key.as_str().starts_with(prefix));
        under.into_iter().find(|(_, written)| **written > read).map(|(key, _)| key.clone())
    }

    fn apply(&mut self, writes: Vec<Write>) -> Arc<Batch> {
        self.version = Version(self.version.0 + 1);
        let changes = writes.into_iter().map(|write| self.apply_one(write)).collect();
        let batch = Arc::new(Batch { version: self.version, changes });
        self.recent.push_back(Arc::clone(&batch));
        if self.recent.len() > REMEMBERED {
            if let Some(oldest) = self.recent.pop_front() {
                self.compacted = oldest.version;
            }
        }
        batch
    }

    fn apply_one(&mut self, write: Write) -> Change {
        match write {
            Write::Create { key, value } | Write::Update { key, value } => {
                self.written.insert(key.clone(), self.version);
                Change { key, value: Some(value.into()) }
            }
            Write::Delete { key } => {
                self.written.remove(&key);
                Change { key, value: None }
            }
        }
    }
}

/// etcd refuses a transaction that writes a key twice; so do all engines.
pub(crate) fn check_distinct(commit: &Commit) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    match commit.writes.iter().find(|write| !seen.insert(write.key())) {
        Some(twice) => Err(Error::DuplicateKey(twice.key().clone())),
        None => Ok(()),
    }
}
