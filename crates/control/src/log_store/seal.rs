//! The sealer: one thread that rewrites full journals into segments, and removes what is no longer needed.
//! Invariant: a group's catalog, replaced by rename, is the moment at which its segments count. Before it the
//! journal holds the events, after it the segment does; a crash between leaves files that the next start removes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use longshore_model::Timestamp;

use super::codec::{Reader, put_i64, put_str, put_u64};
use super::frame::{self, BlockBuilder, Kind, put_frame};
use super::index::{Block, Group, Journal, Place, Stream};
use super::writer::journal_path;
use super::{Event, Shared};

const LEVEL: i32 = 3;
const CATALOG_VERSION: u64 = 1;

pub enum Job {
    Seal(Arc<Journal>),
    RemoveGroup(u64),
    /// Removes the group's segments in which nothing is left.
    DropSegments(u64),
    /// Answers when all jobs before it are done.
    Barrier(SyncSender<()>),
}

pub fn start(shared: Arc<Shared>, jobs: Receiver<Job>) -> io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("log-sealer".into()).spawn(move || {
        // Journals whose sealing failed; tried again, in order, with the next one.
        let mut unsealed: Vec<Arc<Journal>> = Vec::new();
        for job in jobs {
            let outcome = match job {
                Job::Seal(journal) => {
                    unsealed.push(journal);
                    seal_all(&shared, &mut unsealed)
                }
                Job::RemoveGroup(group) => remove_group(&shared, group),
                Job::DropSegments(group) => drop_segments(&shared, group),
                Job::Barrier(done) => {
                    let _ = done.send(());
                    Ok(())
                }
            };
            if let Err(error) = outcome {
                tracing::warn!(%error, "tidy the log store; it is tried again later");
            }
        }
    })
}

pub fn groups_directory(directory: &Path) -> PathBuf {
    directory.join("groups")
}

pub fn group_directory(directory: &Path, group: u64) -> PathBuf {
    groups_directory(directory).join(format!("{group:012}"))
}

pub fn segment_path(directory: &Path, group: u64, number: u64) -> PathBuf {
    group_directory(directory, group).join(format!("{number:012}.segment"))
}

pub fn create_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn seal_all(shared: &Shared, unsealed: &mut Vec<Arc<Journal>>) -> io::Result<()> {
    while let Some(journal) = unsealed.first() {
        seal(shared, journal.number)?;
        unsealed.remove(0);
    }
    Ok(())
}

fn seal(shared: &Shared, journal: u64) -> io::Result<()> {
    let dirty: BTreeSet<u64> = {
        let index = shared.read();
        index
            .groups()
            .filter(|group| group.dirty_since.is_some_and(|n| n <= journal))
            .map(|g| g.number)
            .collect()
    };
    for group in dirty {
        seal_group(shared, group, journal)?;
    }
    ignore_missing(fs::remove_file(journal_path(&shared.directory, journal)))
}

fn seal_group(shared: &Shared, group: u64, journal: u64) -> io::Result<()> {
    let Some(plan) = Plan::of(shared, group, journal) else { return Ok(()) };
    let directory = group_directory(&shared.directory, group);
    create_directory(&directory)?;
    let sealed =
        if plan.blocks.is_empty() { BTreeMap::new() } else { write_segment(shared, group, journal, &plan)? };
    {
        let mut index = shared.write();
        let Some(group) = index.group_by_number_mut(group) else { return Ok(()) };
        // The catalog must name the new segment and not those merged into it; readers follow at once, since the
        // new blocks hold what the old ones did.
        replace_blocks(group, journal, &plan.merged, sealed);
        group.covered = group.covered.max(journal);
        group.dirty_since = (group.last_touched > journal).then_some(journal + 1);
    }
    if let Err(error) = write_catalog(shared, group) {
        let mut index = shared.write();
        if let Some(group) = index.group_by_number_mut(group) {
            // Without a catalog the journal still counts: the next try writes one.
            group.dirty_since = Some(journal);
        }
        return Err(error);
    }
    for merged in &plan.merged {
        ignore_missing(fs::remove_file(segment_path(&shared.directory, group, *merged)))?;
    }
    Ok(())
}

/// What goes into a group's new segment.
struct Plan {
    /// By stream number.
    blocks: BTreeMap<u64, Vec<Block>>,
    /// Small segments that the new one takes the place of.
    merged: BTreeSet<u64>,
}

impl Plan {
    fn of(shared: &Shared, group: u64, journal: u64) -> Option<Self> {
        let index = shared.read();
        let group = index.group_by_number(group)?;
        let options = &shared.options;
        let mut merged: BTreeSet<u64> = group
            .segments()
            .into_iter()
            .filter(|(number, bytes)| *bytes < options.small_segment_bytes && *number != journal)
            .map(|(number, _)| number)
            .collect();
        if merged.len() < options.small_segments {
            merged.clear();
        }
        let mut blocks: BTreeMap<u64, Vec<Block>> = BTreeMap::new();
        for stream in group.streams.values() {
            let taken = stream.blocks.iter().filter(|block| goes(block, journal, &merged));
            let taken: Vec<Block> = taken.cloned().collect();
            if !taken.is_empty() {
                blocks.insert(stream.number, taken);
            }
        }
        if blocks.is_empty() {
            merged.clear();
        }
        Some(Self { blocks, merged })
    }
}

fn goes(block: &Block, journal: u64, merged: &BTreeSet<u64>) -> bool {
    block.is_in_journal(journal) || block.segment().is_some_and(|number| merged.contains(&number))
}

fn replace_blocks(
    group: &mut Group,
    journal: u64,
    merged: &BTreeSet<u64>,
    mut sealed: BTreeMap<u64, Vec<Block>>,
) {
    let retained_from = group.retained_from;
    for stream in group.streams.values_mut() {
        stream.blocks.retain(|block| !goes(block, journal, merged));
        let new = sealed.remove(&stream.number).unwrap_or_default();
        stream.blocks.extend(new.into_iter().filter(|block| block.max_timestamp >= retained_from));
    }
}

/// Writes the segment, durable under its name; gives its blocks.
fn write_segment(
    shared: &Shared,
    group: u64,
    number: u64,
    plan: &Plan,
) -> io::Result<BTreeMap<u64, Vec<Block>>> {
    let path = segment_path(&shared.directory, group, number);
    let unfinished = path.with_extension("new");
    let mut segment = SegmentWriter::create(&unfinished, group, number)?;
    let mut files = Files::new(shared);
    for (stream, blocks) in &plan.blocks {
        let mut events = Vec::new();
        for block in blocks {
            events.extend(files.read(block)?);
        }
        events.sort_unstable_by_key(|event| event.id);
        segment.put_stream(*stream, &events, shared.options.block_bytes)?;
    }
    let blocks = segment.finish()?;
    fs::rename(unfinished, &path)?;
    File::open(group_directory(&shared.directory, group))?.sync_all()?;
    Ok(blocks)
}

struct SegmentWriter {
    file: io::BufWriter<File>,
    offset: u64,
    place: Place,
    blocks: BTreeMap<u64, Vec<Block>>,
}

impl SegmentWriter {
    fn create(path: &Path, group: u64, number: u64) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let place = Place::Segment { group, number };
        Ok(Self { file: io::BufWriter::new(file), offset: 0, place, blocks: BTreeMap::new() })
    }

    fn put_stream(&mut self, stream: u64, events: &[Event], block_bytes: usize) -> io::Result<()> {
        let mut rest = events;
        while let Some(first) = rest.first() {
            let base_ingestion = first.ingestion.millis();
            let base = rest.iter().map(|event| event.id.sequence).min().unwrap_or(0);
            let mut block = BlockBuilder::default();
            let mut taken = 0;
            for event in rest {
                if !block.is_empty() && block.raw_length() + event.message.len() > block_bytes {
                    break;
                }
                let ingestion = event.ingestion.millis().saturating_sub(base_ingestion);
                block.push(event.timestamp.millis(), event.id.sequence - base, ingestion, &event.message);
                taken += 1;
            }
            rest = &rest[taken..];
            let packed = block.pack(LEVEL)?;
            let meta = packed.meta(stream, base, base_ingestion, None);
            let mut bytes = Vec::new();
            let (_, length) = packed.put(&meta, &mut bytes);
            let block = Block::new(self.place.clone(), self.offset, length as u64, &meta);
            self.blocks.entry(stream).or_default().push(block);
            self.write(&bytes)?;
        }
        Ok(())
    }

    /// Writes the index of the segment and, in its last eight bytes, where that index begins.
    fn finish(mut self) -> io::Result<BTreeMap<u64, Vec<Block>>> {
        let mut payload = Vec::new();
        put_u64(&mut payload, self.blocks.values().map(Vec::len).sum::<usize>() as u64);
        for (stream, blocks) in &self.blocks {
            for block in blocks {
                put_u64(&mut payload, *stream);
                put_u64(&mut payload, block.offset);
                put_u64(&mut payload, block.length);
                put_i64(&mut payload, block.min_timestamp);
                put_i64(&mut payload, block.max_timestamp);
                put_u64(&mut payload, block.bytes);
            }
        }
        let index_at = self.offset;
        let mut bytes = Vec::new();
        put_frame(&mut bytes, Kind::SegmentIndex, &payload);
        bytes.extend_from_slice(&index_at.to_le_bytes());
        self.write(&bytes)?;
        self.file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok(self.blocks)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.offset += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

/// The blocks of a segment, with the numbers of their streams.
pub fn read_segment_index(directory: &Path, group: u64, number: u64) -> io::Result<Vec<(u64, Block)>> {
    let file = File::open(segment_path(directory, group, number))?;
    let length = file.metadata()?.len();
    let mut at = [0u8; 8];
    let end = length.checked_sub(8).ok_or_else(damaged)?;
    file.read_exact_at(&mut at, end)?;
    let at = u64::from_le_bytes(at);
    let size = end.checked_sub(at).filter(|size| *size <= frame::MAX_PAYLOAD as u64).ok_or_else(damaged)?;
    let mut bytes = vec![0; size as usize];
    file.read_exact_at(&mut bytes, at)?;
    let Some((Kind::SegmentIndex, payload, _)) = frame::read_frame(&bytes) else { return Err(damaged()) };
    parse_segment_index(payload, group, number).ok_or_else(damaged)
}

fn parse_segment_index(payload: &[u8], group: u64, number: u64) -> Option<Vec<(u64, Block)>> {
    let mut reader = Reader(payload);
    let mut blocks = Vec::new();
    for _ in 0..reader.u64()? {
        let stream = reader.u64()?;
        let block = Block {
            place: Place::Segment { group, number },
            offset: reader.u64()?,
            length: reader.u64()?,
            min_timestamp: reader.i64()?,
            max_timestamp: reader.i64()?,
            bytes: reader.u64()?,
        };
        blocks.push((stream, block));
    }
    Some(blocks)
}

/// Reads blocks, with each segment's file opened once.
pub struct Files<'a> {
    shared: &'a Shared,
    segments: BTreeMap<(u64, u64), File>,
}

impl<'a> Files<'a> {
    pub fn new(shared: &'a Shared) -> Self {
        Self { shared, segments: BTreeMap::new() }
    }

    /// The events of a block. `NotFound` where its segment was replaced or removed since the index was looked at.
    pub fn read(&mut self, block: &Block) -> io::Result<Vec<Event>> {
        if block.length > (frame::MAX_PAYLOAD + frame::HEADER) as u64 {
            return Err(damaged());
        }
        let mut bytes = vec![0; block.length as usize];
        match &block.place {
            Place::Journal(journal) => journal.file.read_exact_at(&mut bytes, block.offset)?,
            Place::Segment { group, number } => {
                let file = match self.segments.entry((*group, *number)) {
                    std::collections::btree_map::Entry::Occupied(open) => open.into_mut(),
                    std::collections::btree_map::Entry::Vacant(slot) => {
                        slot.insert(File::open(segment_path(&self.shared.directory, *group, *number))?)
                    }
                };
                file.read_exact_at(&mut bytes, block.offset)?;
            }
        }
        frame::read_block(&bytes).ok_or_else(damaged)
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "damaged bytes in a log segment")
}

fn write_catalog(shared: &Shared, group: u64) -> io::Result<()> {
    let payload = {
        let index = shared.read();
        let Some(group) = index.group_by_number(group) else { return Ok(()) };
        encode_catalog(group, index.next_sequence, index.next_number)
    };
    if payload.len() > frame::MAX_PAYLOAD {
        return Err(io::Error::other("the log group has too many streams for its catalog"));
    }
    let mut bytes = Vec::new();
    put_frame(&mut bytes, Kind::Catalog, &payload);
    let directory = group_directory(&shared.directory, group);
    let path = directory.join("catalog");
    let unfinished = directory.join("catalog.new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(unfinished, path)?;
    File::open(&directory)?.sync_all()?;
    File::open(groups_directory(&shared.directory))?.sync_all()
}

/// A catalog as it is on disk: the group without its blocks, and the segments to take those from.
pub struct Catalog {
    pub group: Group,
    pub segments: Vec<u64>,
    pub next_sequence: u64,
    pub next_number: u64,
}

fn encode_catalog(group: &Group, next_sequence: u64, next_number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_u64(&mut out, CATALOG_VERSION);
    put_u64(&mut out, next_sequence);
    put_u64(&mut out, next_number);
    put_u64(&mut out, group.number);
    frame::put_group_id(&mut out, &group.id);
    put_u64(&mut out, group.covered);
    put_i64(&mut out, group.retained_from);
    let segments = group.segments();
    put_u64(&mut out, segments.len() as u64);
    for number in segments.keys() {
        put_u64(&mut out, *number);
    }
    put_u64(&mut out, group.streams.len() as u64);
    for stream in group.streams.values() {
        put_u64(&mut out, stream.number);
        put_str(&mut out, &stream.name);
        put_i64(&mut out, stream.created.millis());
        put_i64(&mut out, stream.last_event.map_or(-1, Timestamp::millis));
        put_i64(&mut out, stream.last_ingestion.map_or(-1, Timestamp::millis));
        put_u64(&mut out, stream.sources.len() as u64);
        for (source, end) in &stream.sources {
            put_str(&mut out, source);
            put_u64(&mut out, *end);
        }
    }
    out
}

/// `None` when the bytes are no whole catalog of a version that is known.
pub fn read_catalog(bytes: &[u8]) -> Option<Catalog> {
    let (Kind::Catalog, payload, _) = frame::read_frame(bytes)? else { return None };
    let mut reader = Reader(payload);
    if reader.u64()? != CATALOG_VERSION {
        return None;
    }
    let (next_sequence, next_number) = (reader.u64()?, reader.u64()?);
    let number = reader.u64()?;
    let mut group = Group::new(number, frame::read_group_id(&mut reader)?);
    group.covered = reader.u64()?;
    group.last_touched = group.covered;
    group.retained_from = reader.i64()?;
    let mut segments = Vec::new();
    for _ in 0..reader.u64()? {
        segments.push(reader.u64()?);
    }
    for _ in 0..reader.u64()? {
        let stream = read_stream(&mut reader)?;
        group.streams.insert(stream.name.clone(), stream);
    }
    Some(Catalog { group, segments, next_sequence, next_number })
}

fn read_stream(reader: &mut Reader<'_>) -> Option<Stream> {
    let time = |millis: i64| (millis >= 0).then_some(Timestamp(millis));
    let mut stream = Stream {
        number: reader.u64()?,
        name: reader.str()?.into(),
        created: Timestamp(reader.i64()?),
        last_event: time(reader.i64()?),
        last_ingestion: time(reader.i64()?),
        sources: BTreeMap::new(),
        blocks: Vec::new(),
    };
    for _ in 0..reader.u64()? {
        let source = reader.str()?.to_owned();
        stream.sources.insert(source, reader.u64()?);
    }
    Some(stream)
}

fn remove_group(shared: &Shared, group: u64) -> io::Result<()> {
    ignore_missing(fs::remove_dir_all(group_directory(&shared.directory, group)))?;
    File::open(groups_directory(&shared.directory))?.sync_all()
}

fn drop_segments(shared: &Shared, group: u64) -> io::Result<()> {
    let live = match shared.read().group_by_number(group) {
        Some(group) => group.segments(),
        None => return Ok(()),
    };
    let empty = segment_files(&group_directory(&shared.directory, group))?;
    let empty: Vec<PathBuf> =
        empty.into_iter().filter(|(number, _)| !live.contains_key(number)).map(|(_, path)| path).collect();
    if empty.is_empty() {
        return Ok(());
    }
    write_catalog(shared, group)?;
    empty.into_iter().try_for_each(|path| ignore_missing(fs::remove_file(path)))
}

/// The segments that lie in a group's directory, by number.
pub fn segment_files(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let (Some(number), Some("segment")) = (number, path.extension().and_then(|e| e.to_str())) {
            files.push((number, path));
        }
    }
    Ok(files)
}

pub fn ignore_missing(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
