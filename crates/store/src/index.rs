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
/// The bytes of keys and values in them at most, so that large records cost no gigabytes.
pub const REMEMBERED_BYTES: usize = 64 << 20;
/// The bytes of the longest key.
pub const MAX_KEY: usize = 4096;

/// The versions of all keys. It holds no values: those are on disk and, decoded, in the views.
#[derive(Debug, Default)]
pub struct Index {
    version: Version,
    written: BTreeMap<Key, Version>,
    recent: VecDeque<Arc<Batch>>,
    recent_bytes: usize,
    /// Commits up to here are forgotten.
    compacted: Version,
}

impl Index {
    /// The index of records that were on disk; earlier commits are forgotten.
    pub fn restore(version: Version, written: impl IntoIterator<Item = (Key, Version)>) -> Self {
        Self { version, written: written.into_iter().collect(), compacted: version, ..Self::default() }
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.written.keys()
    }

    /// Applies a commit; `Ok(Err(key))` names what it conflicts with.
    pub fn commit(&mut self, commit: Commit) -> Result<Result<Arc<Batch>, Key>, Error> {
        check_keys(&commit)?;
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
        let first = self.recent.partition_point(|batch| batch.version <= since);
        Ok(self.recent.range(first..).cloned().collect())
    }

    /// Forgets the commits up to `version`.
    pub fn compact(&mut self, version: Version) {
        let version = version.min(self.version);
        while self.recent.front().is_some_and(|batch| batch.version <= version) {
            self.forget_oldest();
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

    /// Looks through what was written since `read`, mostly a commit or two, and not through all that is there.
    fn newer_under(&self, prefix: &str, read: Version) -> Option<Key> {
        if read < self.compacted {
            return self.newer_among_all_under(prefix, read);
        }
        let newer = self.recent.iter().rev().take_while(|batch| batch.version > read);
        let mut written = newer.flat_map(|batch| batch.changes.iter().map(|change| &change.key));
        written.find(|key| key.as_str().starts_with(prefix) && self.written.contains_key(*key)).cloned()
    }

    fn newer_among_all_under(&self, prefix: &str, read: Version) -> Option<Key> {
        let from = (Bound::Included(Key::new(prefix)), Bound::Unbounded);
        let mut under = self.written.range(from).take_while(|(key, _)| key.as_str().starts_with(prefix));
        under.find(|(_, written)| **written > read).map(|(key, _)| key.clone())
    }

    fn apply(&mut self, writes: Vec<Write>) -> Arc<Batch> {
        self.version = Version(self.version.0 + 1);
        let changes = writes.into_iter().map(|write| self.apply_one(write)).collect();
        let batch = Arc::new(Batch { version: self.version, changes });
        self.remember(Arc::clone(&batch));
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

    fn remember(&mut self, batch: Arc<Batch>) {
        self.recent_bytes += size(&batch);
        self.recent.push_back(batch);
        while self.recent.len() > REMEMBERED || self.recent_bytes > REMEMBERED_BYTES {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.recent.pop_front() {
            self.recent_bytes -= size(&oldest);
            self.compacted = oldest.version;
        }
    }
}

fn size(batch: &Batch) -> usize {
    let of_value = |value: &Arc<[u8]>| value.len();
    batch.changes.iter().map(|c| c.key.as_str().len() + c.value.as_ref().map_or(0, of_value)).sum()
}

/// What one engine could not keep, no engine takes: a transaction of etcd writes each key once, and the database
/// on disk has a longest key and no empty one.
pub(crate) fn check_keys(commit: &Commit) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    for key in commit.writes.iter().map(Write::key) {
        let length = key.as_str().len();
        if !(1..=MAX_KEY).contains(&length) {
            let start = key.as_str().chars().take(80).collect();
            return Err(Error::UnusableKey { start, length, limit: MAX_KEY });
        }
        if !seen.insert(key) {
            return Err(Error::DuplicateKey(key.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(index: &mut Index, key: &str, value: Vec<u8>) {
        let write = Write::Create { key: Key::new(key), value };
        let commit = Commit { read: index.version(), guards: vec![], writes: vec![write] };
        assert!(index.commit(commit).unwrap().is_ok());
    }

    fn remembered(index: &Index) -> usize {
        let kept = (0..=index.version().0).find_map(|since| index.changes_since(Version(since)).ok());
        kept.unwrap().len()
    }

    #[test]
    fn it_remembers_so_many_commits() {
        let mut index = Index::default();
        for n in 0..REMEMBERED + 5 {
            create(&mut index, &n.to_string(), Vec::new());
        }
        assert_eq!(remembered(&index), REMEMBERED);
        assert!(matches!(index.changes_since(Version(4)), Err(Error::Compacted { since: Version(4) })));
        assert_eq!(index.changes_since(Version(5)).unwrap().first().unwrap().version, Version(6));
    }

    #[test]
    fn it_remembers_so_many_bytes() {
        let mut index = Index::default();
        for n in 0..20 {
            create(&mut index, &n.to_string(), vec![0; REMEMBERED_BYTES / 8]);
        }
        assert_eq!(remembered(&index), 7);
        // One commit larger than all that may be remembered is not remembered at all.
        create(&mut index, "huge", vec![0; REMEMBERED_BYTES + 1]);
        assert_eq!(remembered(&index), 0);
        assert_eq!(index.recent_bytes, 0);
    }

    #[test]
    fn a_prefix_guard_holds_also_where_commits_are_forgotten() {
        let mut index = Index::default();
        for key in ["t/1", "u", "t/2"] {
            create(&mut index, key, Vec::new());
        }
        let guarded = |read| Commit {
            read: Version(read),
            guards: vec![Guard::NothingNewUnder("t/".to_owned())],
            writes: vec![],
        };
        for compacted in [0, 1, 3] {
            index.compact(Version(compacted));
            assert_eq!(index.conflict(&guarded(0)).unwrap().table(), "t");
            assert_eq!(index.conflict(&guarded(2)), Some(Key::new("t/2")));
            assert_eq!(index.conflict(&guarded(3)), None);
        }
    }
}
