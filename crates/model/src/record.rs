//! How records are named and written. Invariant: a record's key is a function of the record alone.

use crate::change::{Commit, Guard, Key, Version, Write};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Something the store keeps, as JSON, under a key of its own.
pub trait Record: Serialize + DeserializeOwned + Clone {
    /// The first part of every key of this kind.
    const TABLE: &'static str;

    fn key(&self) -> Key;
}

/// A commit in the making: typed records in, guarded writes out.
#[derive(Clone, Debug)]
pub struct Transaction {
    commit: Commit,
}

impl Transaction {
    /// Starts from the version of the snapshot that the decision is made on.
    pub fn at(read: Version) -> Self {
        Self { commit: Commit { read, guards: Vec::new(), writes: Vec::new() } }
    }

    pub fn create<R: Record>(&mut self, record: &R) {
        self.commit.writes.push(Write::Create { key: record.key(), value: encode(record) });
    }

    pub fn update<R: Record>(&mut self, record: &R) {
        self.commit.writes.push(Write::Update { key: record.key(), value: encode(record) });
    }

    pub fn delete(&mut self, key: Key) {
        self.commit.writes.push(Write::Delete { key });
    }

    /// The commit is refused when this record is gone or changed.
    pub fn rely_on(&mut self, key: Key) {
        self.commit.guards.push(Guard::Unchanged(key));
    }

    pub fn rely_on_absence(&mut self, key: Key) {
        self.commit.guards.push(Guard::Absent(key));
    }

    /// The commit is refused when a record whose key begins so is made or changed.
    pub fn rely_on_nothing_new_under(&mut self, prefix: String) {
        self.commit.guards.push(Guard::NothingNewUnder(prefix));
    }

    pub fn is_empty(&self) -> bool {
        self.commit.writes.is_empty()
    }

    /// The version that the decision is made on.
    pub fn read(&self) -> Version {
        self.commit.read
    }

    pub fn writes(&self) -> &[Write] {
        &self.commit.writes
    }

    pub fn into_commit(self) -> Commit {
        self.commit
    }
}

pub fn encode<R: Serialize>(record: &R) -> Vec<u8> {
    // Records hold strings, numbers, lists and maps with text keys only, which always have a JSON form.
    serde_json::to_vec(record).unwrap_or_default()
}

pub fn decode<R: DeserializeOwned>(value: &[u8]) -> Result<R, serde_json::Error> {
    serde_json::from_slice(value)
}
