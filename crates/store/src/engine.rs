//! What a storage engine does; the engines differ in where the records live and in nothing else.

use async_trait::async_trait;
use longshore_model::change::{Batch, Commit, Key, Version};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Keeps records. One conformance suite holds all engines to the same behaviour.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Every record whose key starts with `prefix`, in the order of their keys, as of one version.
    async fn load(&self, prefix: &str) -> Result<Loaded, Error>;

    /// Takes effect whole and durably, or conflicts.
    ///
    /// A write or guard of an existing key holds when the key is there and was not written after `commit.read`;
    /// one of an absent key, when it is absent; one of a prefix, when no key that is there under it was written
    /// after `commit.read`. Each commit that is taken makes a version, one without writes too.
    ///
    /// # Errors
    /// [`Error::UnusableKey`], [`Error::DuplicateKey`] and [`Error::TooLarge`] for what no retry mends;
    /// [`Error::Unsure`] when it may have taken effect.
    async fn commit(&self, commit: Commit) -> Result<Outcome, Error>;

    /// The commits after `since`, in order, each once and whole, without end.
    ///
    /// # Errors
    /// [`Error::Compacted`] when some of them are forgotten.
    async fn changes(&self, since: Version) -> Result<Changes, Error>;

    /// Forgets the commits up to `version`; the records stay, and who follows already misses nothing.
    async fn compact(&self, version: Version) -> Result<(), Error>;

    /// Deletes every record in one commit, and says which.
    async fn reset(&self) -> Result<Version, Error>;
}

/// The records of a prefix at one version.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub version: Version,
    pub entries: Vec<(Key, Arc<[u8]>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed(Version),
    /// Nothing was written: as of `version`, this key, or a key under this prefix, is not as it was when it was read.
    Conflict {
        key: Key,
        version: Version,
    },
}

/// The commits that a follower of an engine receives.
#[derive(Debug)]
pub struct Changes(pub mpsc::UnboundedReceiver<Event>);

impl Changes {
    /// `None` when the engine closed.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

#[derive(Clone, Debug)]
pub enum Event {
    Batch(Arc<Batch>),
    /// Commits were missed: load again, and follow from there.
    Restart,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("another process has the store `{}` open", .0.display())]
    InUse(PathBuf),
    #[error("the store `{}` was written by a newer version of Longshore (format {found})", path.display())]
    NewerFormat { path: PathBuf, found: u64 },
    #[error("the commits since version {since} are forgotten: start again from a snapshot")]
    Compacted { since: Version },
    #[error("a commit may write each key once, and writes `{0}` twice")]
    DuplicateKey(Key),
    #[error("a key has 1 to {limit} bytes, and this one has {length}: `{start}`")]
    UnusableKey { start: String, length: usize, limit: usize },
    #[error("a commit of {size} operations is too large: at most {limit} fit")]
    TooLarge { size: usize, limit: usize },
    /// Read again to see.
    #[error("the connection broke while a commit was under way, which may have taken effect")]
    Unsure(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("a write to the disk failed before, and what is on it is not known: start the server again")]
    Poisoned,
    #[error("the store is closed")]
    Closed,
    #[error("{attempted}")]
    Io {
        attempted: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{attempted}")]
    Backend {
        attempted: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    pub(crate) fn backend<E>(attempted: &'static str) -> impl FnOnce(E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        move |source| Self::Backend { attempted, source: Box::new(source) }
    }
}
