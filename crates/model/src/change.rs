//! What is written to the store and what is read back from it.
//!
//! The store is a versioned key-value space. A writer reads a snapshot at a [`Version`], decides, and
//! offers a [`Commit`]; it takes effect whole, or not at all when something it read has changed since.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A point in the store's history. Each commit makes one; 0 is the empty store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The name of a record: a table and what identifies the record in it, joined by `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(Arc<str>);

impl Key {
    pub fn new(path: impl Into<Arc<str>>) -> Self {
        Self(path.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the first `/`.
    pub fn table(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One record's change in a commit. Each carries its own condition, so that a writer cannot forget it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// Conflicts when the key exists.
    Create { key: Key, value: Vec<u8> },
    /// Conflicts when the key is gone or was written after the version read.
    Update { key: Key, value: Vec<u8> },
    /// Conflicts when the key is gone or was written after the version read.
    Delete { key: Key },
}

impl Write {
    pub fn key(&self) -> &Key {
        match self {
            Self::Create { key, .. } | Self::Update { key, .. } | Self::Delete { key } => key,
        }
    }

    pub fn value(&self) -> Option<&[u8]> {
        match self {
            Self::Create { value, .. } | Self::Update { value, .. } => Some(value),
            Self::Delete { .. } => None,
        }
    }
}

/// Something a decision relied on without writing it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Guard {
    /// The key exists and was not written after the version read.
    Unchanged(Key),
    /// The key does not exist.
    Absent(Key),
    /// No key that starts with this prefix was created or updated after the version read. Deletions do not count.
    NothingNewUnder(String),
}

/// Writes that take effect together, decided from the snapshot at `read`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    pub read: Version,
    pub guards: Vec<Guard>,
    pub writes: Vec<Write>,
}

/// A key as a commit left it: its new value, or `None` where it was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: Key,
    pub value: Option<Arc<[u8]>>,
}

/// Everything one commit changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub version: Version,
    pub changes: Vec<Change>,
}

/// A materialised state that follows the store. Cloning must be O(1): clones share structure.
pub trait View: Clone + Default + Send + Sync + 'static {
    /// Takes one change in. An undecodable record is skipped by name, never a reason to stop.
    fn apply(&mut self, change: &Change) -> Result<(), Undecodable>;
}

/// A record that this version of Longshore cannot read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the record `{key}`: {reason}")]
pub struct Undecodable {
    pub key: Key,
    pub reason: String,
}
