//! The events of log groups, kept outside the record store because they grow with traffic.
//!
//! Invariants: an append that was answered is durable, whole and stored once, whatever kills the process; what a
//! reader sees is durable; the order of a stream is (timestamp, sequence number) and never changes.
//!
//! Layout of the directory: `journal-<n>` takes the appends of all groups, as checksummed frames, one fdatasync for
//! all that wait. A full journal is sealed: each group's part becomes `groups/<group number>/<n>.segment`, larger
//! zstd blocks by stream, and the group's `catalog`, replaced by rename, says which segments exist and up to which
//! journal they reach. Numbers of groups and streams are never used twice, so a deleted group cannot come back.

mod codec;
mod frame;
mod index;
mod pattern;
mod read;
mod recover;
mod seal;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

use longshore_model::link::LogEvent;
use longshore_model::{Scope, Timestamp};
use tokio::sync::{mpsc, oneshot};

use self::index::Index;
pub use self::pattern::{Pattern, PatternError};
pub use self::read::{
    DescribeStreams, EventsPage, FilterEvents, FilteredEvent, FilteredPage, GetEvents, OrderBy, ReadError,
    StreamInfo, StreamSelection, StreamsPage,
};
use self::writer::Command;

/// PutLogEvents' limits: <https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html>.
pub const MAX_BATCH_EVENTS: usize = 10_000;
/// Bytes of a batch, where every event counts its message and [`EVENT_OVERHEAD`].
pub const MAX_BATCH_BYTES: usize = 1_048_576;
/// Bytes of one message.
pub const MAX_MESSAGE_BYTES: usize = 262_144;
pub const EVENT_OVERHEAD: usize = 26;

/// A log group by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId {
    pub scope: Scope,
    pub name: String,
}

impl GroupId {
    pub fn new(scope: Scope, name: impl Into<String>) -> Self {
        Self { scope, name: name.into() }
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.scope.account, self.scope.region, self.name)
    }
}

/// Where an event stands in its stream. Unique in the whole store; shown as 56 digits that sort as it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    pub timestamp: Timestamp,
    pub sequence: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "3{:019}{:020}{:016}", self.timestamp.millis().max(0), self.sequence, 0)
    }
}

impl FromStr for EventId {
    type Err = NotAnEventId;

    fn from_str(text: &str) -> Result<Self, NotAnEventId> {
        let digits = text.len() == 56 && text.bytes().all(|b| b.is_ascii_digit());
        if !digits || !text.starts_with('3') || text.get(40..) != Some("0000000000000000") {
            return Err(NotAnEventId);
        }
        let timestamp = text.get(1..20).and_then(|t| t.parse().ok()).ok_or(NotAnEventId)?;
        let sequence = text.get(20..40).and_then(|t| t.parse().ok()).ok_or(NotAnEventId)?;
        Ok(Self { timestamp: Timestamp(timestamp), sequence })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an event id")]
pub struct NotAnEventId;

/// A stored event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: EventId,
    pub timestamp: Timestamp,
    pub ingestion: Timestamp,
    pub message: String,
}

/// Events to append to one stream, in the order they are to have among equal timestamps.
#[derive(Clone, Debug)]
pub struct Batch {
    pub group: GroupId,
    pub stream: String,
    /// Creates the stream where it does not exist, in the same durable write.
    pub create_stream: bool,
    pub source: Option<SourceRange>,
    /// May be empty where there is a source: then only its offset moves.
    pub events: Vec<LogEvent>,
}

/// The bytes `start..end` of a source (all that a container ever wrote, say) which a batch was made of. The store
/// keeps the highest `end` of each source of a stream, in the same write as the events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRange {
    pub source: String,
    pub start: u64,
    pub end: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The events are durable, and with them the source's `end`.
    Stored,
    /// All of the source's range was durable already; `stored` is how far the source is.
    Duplicate { stored: u64 },
}

#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("the log stream does not exist")]
    NoSuchStream,
    /// The range begins inside what is stored, or behind a range that could not be stored. Nothing was
    /// appended; the producer must continue at `stored`.
    #[error("the batch does not continue its source at {stored}")]
    OutOfSequence { stored: u64 },
    /// The batch breaks a limit; sending it again cannot help.
    #[error("{0}")]
    Refused(&'static str),
    /// Disk full, for example. Nothing was appended; the same batch may be sent again.
    #[error("append to the log store")]
    Io(#[source] Arc<std::io::Error>),
    #[error("the log store is closed")]
    Closed,
}

#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("the log stream exists already")]
    AlreadyExists,
    #[error("the log stream does not exist")]
    NoSuchStream,
    #[error("write to the log store")]
    Io(#[source] Arc<std::io::Error>),
    #[error("the log store is closed")]
    Closed,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("another process has the log store `{}` open", .0.display())]
    InUse(PathBuf),
    #[error("open the log store at `{}`", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A catalog that was written whole cannot be read: the disk lost it.
    #[error("the catalog `{}` is damaged", .0.display())]
    DamagedCatalog(PathBuf),
}

/// Sizes, in bytes. The defaults fit production; tests make them small.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A journal of this size is sealed.
    pub journal_bytes: u64,
    /// Raw size at which a sealed block ends.
    pub block_bytes: usize,
    /// Segments of fewer raw bytes are merged when there are [`Options::small_segments`] of them.
    pub small_segment_bytes: u64,
    pub small_segments: usize,
    /// Raw bytes that one FilterLogEvents call reads before it answers with what it has.
    pub filter_budget: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            journal_bytes: 16 << 20,
            block_bytes: 256 << 10,
            small_segment_bytes: 4 << 20,
            small_segments: 8,
            filter_budget: 64 << 20,
        }
    }
}

/// The store. Clones share it; when the last one is dropped, the files are closed.
#[derive(Clone)]
pub struct LogStore {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    commands: Option<mpsc::Sender<Command>>,
    writer: Option<std::thread::JoinHandle<()>>,
    _lock: std::fs::File,
}

/// What the writer, the sealer and readers share.
struct Shared {
    directory: PathBuf,
    options: Options,
    index: RwLock<Index>,
}

impl Shared {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogStore {
    /// Opens the store in `directory`, which is made if missing; cuts a torn tail and starts the writer. Blocks.
    pub fn open(directory: &Path, options: Options) -> Result<Self, OpenError> {
        let lock = recover::lock(directory)?;
        let recovered = recover::recover(directory)?;
        let shared = Arc::new(Shared {
            directory: directory.to_owned(),
            options,
            index: RwLock::new(recovered.index),
        });
        let (commands, receiver) = mpsc::channel(writer::QUEUE);
        let writer = writer::start(shared.clone(), recovered.journals, receiver)
            .map_err(|source| OpenError::Io { path: directory.to_owned(), source })?;
        Ok(Self {
            inner: Arc::new(Inner { shared, commands: Some(commands), writer: Some(writer), _lock: lock }),
        })
    }

    /// Appends a batch; resolves when it is durable and readers see it. Waits while the writer's queue is full.
    /// Dropping the future does not take a batch back that was queued.
    pub async fn append(&self, batch: Batch, now: Timestamp) -> Result<Appended, AppendError> {
        let encoded = writer::EncodedBatch::new(batch, now)?;
        self.ask(|reply| Command::Append { batch: encoded, reply }).await.ok_or(AppendError::Closed)?
    }

    /// How far this source of the stream is durable: where its producer continues. 0 when nothing is known.
    pub fn source_offset(&self, group: &GroupId, stream: &str, source: &str) -> u64 {
        self.inner.shared.read().source_offset(group, stream, source).unwrap_or(0)
    }

    pub async fn create_stream(
        &self,
        group: &GroupId,
        stream: &str,
        now: Timestamp,
    ) -> Result<(), StreamError> {
        let (group, stream) = (group.clone(), stream.to_owned());
        self.ask(|reply| Command::CreateStream { group, stream, now, reply })
            .await
            .ok_or(StreamError::Closed)?
    }

    pub async fn delete_stream(&self, group: &GroupId, stream: &str) -> Result<(), StreamError> {
        let (group, stream) = (group.clone(), stream.to_owned());
        self.ask(|reply| Command::DeleteStream { group, stream, reply }).await.ok_or(StreamError::Closed)?
    }

    /// Deletes all streams and events of the group; a group that has none is not an error.
    pub async fn delete_group(&self, group: &GroupId) -> Result<(), StreamError> {
        let group = group.clone();
        self.ask(|reply| Command::DeleteGroup { group, reply }).await.ok_or(StreamError::Closed)?
    }

    /// Hides the group's events before the moment, and frees the segments that held nothing else.
    pub async fn retain(&self, group: &GroupId, before: Timestamp) -> Result<(), StreamError> {
        let group = group.clone();
        self.ask(|reply| Command::Retain { group, before, reply }).await.ok_or(StreamError::Closed)?
    }

    /// Removes everything.
    pub async fn reset(&self) -> Result<(), StreamError> {
        self.ask(|reply| Command::Reset { reply }).await.ok_or(StreamError::Closed)?
    }

    pub fn has_stream(&self, group: &GroupId, stream: &str) -> bool {
        self.inner.shared.read().stream(group, stream).is_some()
    }

    /// Raw bytes of the group's events (message and [`EVENT_OVERHEAD`] each), DescribeLogGroups' `storedBytes`.
    pub fn group_bytes(&self, group: &GroupId) -> u64 {
        self.inner.shared.read().group(group).map_or(0, index::Group::bytes)
    }

    /// GetLogEvents.
    pub async fn get_events(&self, query: GetEvents) -> Result<EventsPage, ReadError> {
        self.blocking(move |shared| read::get_events(shared, &query)).await
    }

    /// FilterLogEvents.
    pub async fn filter_events(&self, query: FilterEvents) -> Result<FilteredPage, ReadError> {
        self.blocking(move |shared| read::filter_events(shared, &query)).await
    }

    /// DescribeLogStreams. A group without streams gives an empty page.
    pub fn describe_streams(&self, query: &DescribeStreams) -> Result<StreamsPage, ReadError> {
        read::describe_streams(&self.inner.shared, query)
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.inner.commands.as_ref()?.send(command(reply)).await.ok()?;
        answer.await.ok()
    }

    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let shared = self.inner.shared.clone();
        match tokio::task::spawn_blocking(move || read(&shared)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ReadError::Interrupted),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing left to close.
            let _ = writer.join();
        }
    }
}
