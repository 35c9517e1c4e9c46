//! The writer: one thread that turns what waits in its queue into one write and one fdatasync.
//! Invariant: the index takes in a record after the record is durable, and an answer is sent after that. A write
//! that failed leaves no byte in the journal; where even that cannot be made sure, nothing is written any more.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc as channel;

use longshore_model::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::frame::{BlockBuilder, PackedBlock, Record};
use super::index::Journal;
use super::seal::{self, Job};
use super::{
    AppendError, Appended, Batch, EVENT_OVERHEAD, GroupId, MAX_BATCH_BYTES, MAX_BATCH_EVENTS,
    MAX_MESSAGE_BYTES, Shared, SourceRange, StreamError,
};

/// Commands that may wait; each holds one batch at most.
pub const QUEUE: usize = 64;
/// A round of this size is written before more is taken from the queue.
const ROUND_BYTES: usize = 4 << 20;
/// Full journals that may wait for the sealer before appends wait too.
const UNSEALED: usize = 4;
const LEVEL: i32 = 1;

pub enum Command {
    Append { batch: EncodedBatch, reply: oneshot::Sender<Result<Appended, AppendError>> },
    CreateStream { group: GroupId, stream: String, now: Timestamp, reply: StreamReply },
    DeleteStream { group: GroupId, stream: String, reply: StreamReply },
    DeleteGroup { group: GroupId, reply: StreamReply },
    Retain { group: GroupId, before: Timestamp, reply: StreamReply },
    Reset { reply: StreamReply },
}

pub type StreamReply = oneshot::Sender<Result<(), StreamError>>;

/// A batch that keeps the limits, with its events packed.
pub struct EncodedBatch {
    group: GroupId,
    stream: String,
    create_stream: bool,
    source: Option<SourceRange>,
    now: Timestamp,
    events: PackedBlock,
}

impl EncodedBatch {
    pub fn new(batch: Batch, now: Timestamp) -> Result<Self, AppendError> {
        check_limits(&batch)?;
        let mut events = BlockBuilder::default();
        for (at, event) in (0u64..).zip(&batch.events) {
            events.push(event.timestamp.millis(), at, 0, &event.message);
        }
        let events = events.pack(LEVEL).map_err(|error| AppendError::Io(Arc::new(error)))?;
        let Batch { group, stream, create_stream, source, .. } = batch;
        Ok(Self { group, stream, create_stream, source, now, events })
    }
}

fn check_limits(batch: &Batch) -> Result<(), AppendError> {
    let bytes: usize = batch.events.iter().map(|event| event.message.len() + EVENT_OVERHEAD).sum();
    let refusal = if batch.events.is_empty() && batch.source.is_none() {
        "the batch holds no events"
    } else if batch.events.len() > MAX_BATCH_EVENTS {
        "the batch holds more than 10000 events"
    } else if bytes > MAX_BATCH_BYTES {
        "the batch is larger than 1048576 bytes"
    } else if batch.events.iter().any(|event| event.message.len() > MAX_MESSAGE_BYTES) {
        "a message is larger than 262144 bytes"
    } else if batch.events.iter().any(|event| event.timestamp.millis() < 0) {
        "a timestamp lies before 1970"
    } else if batch.source.as_ref().is_some_and(|source| source.end < source.start) {
        "the source's range ends before it begins"
    } else {
        return Ok(());
    };
    Err(AppendError::Refused(refusal))
}

pub fn start(
    shared: Arc<Shared>,
    journals: Vec<(Arc<Journal>, u64)>,
    commands: mpsc::Receiver<Command>,
) -> io::Result<std::thread::JoinHandle<()>> {
    let mut journals = journals;
    let (journal, length) = match journals.pop() {
        Some(last) => last,
        None => (create_journal(&shared.directory, first_journal(&shared))?, 0),
    };
    let (sealer, jobs) = channel::sync_channel(UNSEALED.max(journals.len() + 1));
    for (unsealed, _) in journals {
        // The queue has room for all of them.
        let _ = sealer.try_send(Job::Seal(unsealed));
    }
    let sealing = seal::start(shared.clone(), jobs)?;
    let writer = Writer { shared, journal, length, sealer, failed: HashMap::new(), broken: false };
    std::thread::Builder::new().name("log-writer".into()).spawn(move || {
        writer.run(commands);
        let _ = sealing.join();
    })
}

/// Above every number that a segment has.
fn first_journal(shared: &Shared) -> u64 {
    shared.read().groups().map(|group| group.covered).max().unwrap_or(0) + 1
}

pub fn journal_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("journal-{number:012}"))
}

fn create_journal(directory: &Path, number: u64) -> io::Result<Arc<Journal>> {
    let path = journal_path(directory, number);
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.sync_all()?;
    File::open(directory)?.sync_all()?;
    Ok(Arc::new(Journal { number, file }))
}

struct Writer {
    shared: Arc<Shared>,
    journal: Arc<Journal>,
    /// Durable bytes of the journal.
    length: u64,
    sealer: channel::SyncSender<Job>,
    /// Where the sources stand whose last batch could not be stored: what comes behind must not overtake it.
    failed: HashMap<(GroupId, String, String), u64>,
    /// A failed write could not be taken back.
    broken: bool,
}

/// What one write will make durable, and who waits for it.
#[derive(Default)]
struct Round {
    bytes: Vec<u8>,
    /// Each with the offset in `bytes` and the length of its frame.
    records: Vec<(Record, usize, usize)>,
    groups: HashMap<GroupId, u64>,
    streams: HashMap<(GroupId, String), u64>,
    sources: BTreeMap<(u64, String), u64>,
    /// The first sequence number after the round, and the first free number.
    next_sequence: u64,
    next_number: u64,
    appends: Vec<(AppendReply, Appended, Option<SourceKey>)>,
    /// With whether the stream was there before.
    creates: Vec<(StreamReply, bool)>,
}

type AppendReply = oneshot::Sender<Result<Appended, AppendError>>;
/// The source of a batch in flight, and where the batch starts.
type SourceKey = ((GroupId, String, String), u64);

impl Writer {
    fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(first) = commands.blocking_recv() {
            let mut round = self.new_round();
            let mut next = Some(first);
            while let Some(command) = next {
                match command {
                    Command::Append { batch, reply } => self.stage_append(&mut round, batch, reply),
                    Command::CreateStream { group, stream, now, reply } => {
                        let known = self.stream_number(&round, &group, &stream).is_some();
                        if !known {
                            round.stage_create(&self.shared, group, stream, now);
                        }
                        round.creates.push((reply, known));
                    }
                    alone => {
                        self.commit(round);
                        self.execute(alone);
                        round = self.new_round();
                    }
                }
                next = if round.bytes.len() < ROUND_BYTES { commands.try_recv().ok() } else { None };
            }
            self.commit(round);
        }
    }

    fn new_round(&self) -> Round {
        let index = self.shared.read();
        Round { next_sequence: index.next_sequence, next_number: index.next_number, ..Round::default() }
    }

    fn stream_number(&self, round: &Round, group: &GroupId, stream: &str) -> Option<u64> {
        let known = self.shared.read().stream(group, stream).map(|stream| stream.number);
        known.or_else(|| round.streams.get(&(group.clone(), stream.to_owned())).copied())
    }

    fn stage_append(&mut self, round: &mut Round, batch: EncodedBatch, reply: AppendReply) {
        let number = self.stream_number(round, &batch.group, &batch.stream);
        if number.is_none() && !batch.create_stream {
            let _ = reply.send(Err(AppendError::NoSuchStream));
            return;
        }
        match self.judge(round, number, &batch) {
            Err(error) => {
                let _ = reply.send(Err(error));
            }
            Ok(Appended::Duplicate { stored }) => {
                round.appends.push((reply, Appended::Duplicate { stored }, None))
            }
            Ok(Appended::Stored) => {
                let key = batch.source.as_ref().map(|source| {
                    ((batch.group.clone(), batch.stream.clone(), source.source.clone()), source.start)
                });
                let number = number.unwrap_or_else(|| {
                    round.stage_create(&self.shared, batch.group.clone(), batch.stream.clone(), batch.now)
                });
                round.stage_block(number, batch);
                round.appends.push((reply, Appended::Stored, key));
            }
        }
    }

    /// Whether the batch continues its source.
    fn judge(
        &mut self,
        round: &Round,
        number: Option<u64>,
        batch: &EncodedBatch,
    ) -> Result<Appended, AppendError> {
        let Some(source) = &batch.source else { return Ok(Appended::Stored) };
        let durable = self.shared.read().source_offset(&batch.group, &batch.stream, &source.source);
        let staged = number.and_then(|number| round.sources.get(&(number, source.source.clone())).copied());
        let stored = durable.max(staged);
        if let Some(stored) = stored.filter(|stored| source.end <= *stored) {
            return Ok(Appended::Duplicate { stored });
        }
        if stored.is_some_and(|stored| source.start < stored) {
            return Err(AppendError::OutOfSequence { stored: stored.unwrap_or(0) });
        }
        if !self.failed.is_empty() {
            let key = (batch.group.clone(), batch.stream.clone(), source.source.clone());
            match self.failed.get(&key) {
                Some(failed) if source.start > *failed => {
                    return Err(AppendError::OutOfSequence { stored: stored.unwrap_or(*failed) });
                }
                _ => self.failed.remove(&key),
            };
        }
        Ok(Appended::Stored)
    }

    fn commit(&mut self, round: Round) {
        let outcome = self.write(&round.bytes);
        match outcome {
            Ok(at) => {
                {
                    let mut index = self.shared.write();
                    for (record, offset, length) in round.records {
                        index.apply(record, &self.journal, at + offset as u64, length as u64);
                    }
                    index.next_number = index.next_number.max(round.next_number);
                }
                for (reply, appended, _) in round.appends {
                    let _ = reply.send(Ok(appended));
                }
                for (reply, known) in round.creates {
                    let _ = reply.send(if known { Err(StreamError::AlreadyExists) } else { Ok(()) });
                }
                self.rotate_when_full();
            }
            Err(error) => {
                let error = Arc::new(error);
                for (reply, _, key) in round.appends {
                    if let Some((key, start)) = key {
                        self.failed.entry(key).or_insert(start);
                    }
                    let _ = reply.send(Err(AppendError::Io(error.clone())));
                }
                for (reply, _) in round.creates {
                    let _ = reply.send(Err(StreamError::Io(error.clone())));
                }
            }
        }
    }

    /// Makes the bytes durable at the journal's end; gives where they begin.
    fn write(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.length;
        if bytes.is_empty() {
            return Ok(at);
        }
        if self.broken {
            return Err(io::Error::other("an earlier write could not be taken back"));
        }
        let written = self.journal.file.write_all_at(bytes, at).and_then(|()| self.journal.file.sync_data());
        match written {
            Ok(()) => {
                self.length += bytes.len() as u64;
                Ok(at)
            }
            Err(error) => {
                let undone = self.journal.file.set_len(at).and_then(|()| self.journal.file.sync_all());
                if let Err(undo) = undone {
                    tracing::error!(%error, %undo, "the log store's journal is in doubt; appends stop");
                    self.broken = true;
                }
                Err(error)
            }
        }
    }

    fn rotate_when_full(&mut self) {
        if self.length < self.shared.options.journal_bytes {
            return;
        }
        if let Err(error) = self.rotate() {
            // The journal grows on; the next commit tries again.
            tracing::warn!(%error, "start a new log journal");
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let next = create_journal(&self.shared.directory, self.journal.number + 1)?;
        let full = std::mem::replace(&mut self.journal, next);
        self.length = 0;
        self.send_job(Job::Seal(full));
        Ok(())
    }

    /// Waits while the sealer is behind.
    fn send_job(&self, job: Job) {
        if self.sealer.send(job).is_err() {
            tracing::error!("the log sealer has ended; journals stay until the next start");
        }
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::DeleteStream { group, stream, reply } => {
                let number = self.shared.read().stream(&group, &stream).map(|stream| stream.number);
                let outcome = match number {
                    Some(stream) => self.write_record(Record::DeleteStream { stream }),
                    None => Err(StreamError::NoSuchStream),
                };
                let _ = reply.send(outcome);
            }
            Command::DeleteGroup { group, reply } => {
                let _ = reply.send(self.delete_group(&group));
            }
            Command::Retain { group, before, reply } => {
                let _ = reply.send(self.retain(&group, before));
            }
            Command::Reset { reply } => {
                let outcome = self.reset().map_err(|error| StreamError::Io(Arc::new(error)));
                let _ = reply.send(outcome);
            }
            // Those that share a round are staged in `run`.
            Command::Append { .. } | Command::CreateStream { .. } => {}
        }
    }

    fn delete_group(&mut self, group: &GroupId) -> Result<(), StreamError> {
        let Some(number) = self.shared.read().group(group).map(|group| group.number) else { return Ok(()) };
        self.write_record(Record::DeleteGroup { group: number })?;
        self.send_job(Job::RemoveGroup(number));
        Ok(())
    }

    fn retain(&mut self, group: &GroupId, before: Timestamp) -> Result<(), StreamError> {
        let number = {
            let index = self.shared.read();
            let Some(group) = index.group(group) else { return Ok(()) };
            let mut blocks = group.streams.values().flat_map(|stream| &stream.blocks);
            if !blocks.any(|block| block.min_timestamp < before.millis()) {
                return Ok(());
            }
            group.number
        };
        self.write_record(Record::Retain { group: number, before })?;
        self.send_job(Job::DropSegments(number));
        Ok(())
    }

    fn write_record(&mut self, record: Record) -> Result<(), StreamError> {
        let mut bytes = Vec::new();
        record.put(&mut bytes);
        let at = self.write(&bytes).map_err(|error| StreamError::Io(Arc::new(error)))?;
        self.shared.write().apply(record, &self.journal, at, bytes.len() as u64);
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        let (done, wait) = channel::sync_channel(1);
        self.send_job(Job::Barrier(done));
        // An ended sealer touches nothing either.
        let _ = wait.recv();
        let next = create_journal(&self.shared.directory, self.journal.number + 1)?;
        self.shared.write().clear();
        self.journal = next;
        self.length = 0;
        self.failed.clear();
        self.broken = false;
        let groups = self.shared.directory.join("groups");
        fs::remove_dir_all(&groups)?;
        seal::create_directory(&groups)?;
        for entry in fs::read_dir(&self.shared.directory)? {
            let path = entry?.path();
            let journal = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("journal-"));
            if journal && path != journal_path(&self.shared.directory, self.journal.number) {
                fs::remove_file(path)?;
            }
        }
        File::open(&self.shared.directory)?.sync_all()
    }
}

impl Round {
    fn stage_create(&mut self, shared: &Shared, group: GroupId, name: String, now: Timestamp) -> u64 {
        let known = shared.read().group(&group).map(|group| group.number);
        let number = match known.or_else(|| self.groups.get(&group).copied()) {
            Some(number) => number,
            None => {
                let number = self.take_number();
                self.groups.insert(group.clone(), number);
                number
            }
        };
        let stream = self.take_number();
        self.streams.insert((group.clone(), name.clone()), stream);
        let record =
            Record::CreateStream { group: number, id: group, stream, name: name.into(), created: now };
        let at = self.bytes.len();
        record.put(&mut self.bytes);
        self.records.push((record, at, self.bytes.len() - at));
        stream
    }

    fn take_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    fn stage_block(&mut self, stream: u64, batch: EncodedBatch) {
        let source = batch.source.map(|source| (source.source, source.end));
        if let Some((source, end)) = &source {
            self.sources.insert((stream, source.clone()), *end);
        }
        let meta = batch.events.meta(stream, self.next_sequence, batch.now.millis(), source);
        self.next_sequence += u64::from(batch.events.count());
        let (at, length) = batch.events.put(&meta, &mut self.bytes);
        self.records.push((Record::Block(meta), at, length));
    }
}
