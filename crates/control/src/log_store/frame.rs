//! Frames, of which journals, segments and catalogs are made, and the records and events inside them.
//! Invariant: a frame whose header and checksum agree was written whole; [`read_frame`] gives no other.
//!
//! A frame is: payload length (u32), kind (u8), three zero bytes, XXH3 of those eight bytes and the payload (u64),
//! payload. Numbers in the header are little-endian.

use std::sync::Arc;

use longshore_model::{Scope, Timestamp};

use super::codec::{Reader, put_i64, put_str, put_u64};
use super::{EVENT_OVERHEAD, Event, EventId, GroupId};

pub const HEADER: usize = 16;
/// No frame is longer: a damaged length must not make a reader allocate more.
pub const MAX_PAYLOAD: usize = 256 << 20;
/// Raw bytes from which compressing a block pays.
const COMPRESS_FROM: usize = 4096;
/// The raw body of one block can be no longer than this.
const MAX_BODY: usize = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    CreateStream = 1,
    Block = 2,
    DeleteStream = 3,
    DeleteGroup = 4,
    Retain = 5,
    SegmentIndex = 6,
    Catalog = 7,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [
            Self::CreateStream,
            Self::Block,
            Self::DeleteStream,
            Self::DeleteGroup,
            Self::Retain,
            Self::SegmentIndex,
            Self::Catalog,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// Appends one frame; gives its offset in `out` and its whole length.
pub fn put_frame(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) -> (usize, usize) {
    let at = out.len();
    let mut head = [0u8; 8];
    head[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    head[4] = kind as u8;
    out.extend_from_slice(&head);
    out.extend_from_slice(&checksum(&head, payload).to_le_bytes());
    out.extend_from_slice(payload);
    (at, HEADER + payload.len())
}

/// The frame at the start of `bytes`, and its whole length; `None` when it is torn or damaged.
pub fn read_frame(bytes: &[u8]) -> Option<(Kind, &[u8], usize)> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let length = payload_length(head)?;
    let payload = rest.get(..length)?;
    if u64::from_le_bytes(*sum) != checksum(head, payload) {
        return None;
    }
    Some((Kind::of(head[4])?, payload, HEADER + length))
}

/// The payload's length, where the header is one.
pub fn payload_length(head: &[u8; 8]) -> Option<usize> {
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    (length <= MAX_PAYLOAD && Kind::of(head[4]).is_some()).then_some(length)
}

fn checksum(head: &[u8; 8], payload: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(payload, u64::from_le_bytes(*head))
}

/// What a journal says happened.
#[derive(Debug)]
pub enum Record {
    CreateStream { group: u64, id: GroupId, stream: u64, name: Arc<str>, created: Timestamp },
    Block(BlockMeta),
    DeleteStream { stream: u64 },
    DeleteGroup { group: u64 },
    Retain { group: u64, before: Timestamp },
}

impl Record {
    pub fn put(&self, out: &mut Vec<u8>) {
        let mut payload = Vec::new();
        let kind = match self {
            Self::CreateStream { group, id, stream, name, created } => {
                put_u64(&mut payload, *group);
                put_group_id(&mut payload, id);
                put_u64(&mut payload, *stream);
                put_str(&mut payload, name);
                put_i64(&mut payload, created.millis());
                Kind::CreateStream
            }
            Self::Block(meta) => {
                meta.put(&mut payload);
                Kind::Block
            }
            Self::DeleteStream { stream } => {
                put_u64(&mut payload, *stream);
                Kind::DeleteStream
            }
            Self::DeleteGroup { group } => {
                put_u64(&mut payload, *group);
                Kind::DeleteGroup
            }
            Self::Retain { group, before } => {
                put_u64(&mut payload, *group);
                put_i64(&mut payload, before.millis());
                Kind::Retain
            }
        };
        put_frame(out, kind, &payload);
    }

    pub fn read(kind: Kind, payload: &[u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let record = match kind {
            Kind::CreateStream => Self::CreateStream {
                group: reader.u64()?,
                id: read_group_id(&mut reader)?,
                stream: reader.u64()?,
                name: reader.str()?.into(),
                created: Timestamp(reader.i64()?),
            },
            Kind::Block => Self::Block(BlockMeta::read(&mut reader)?),
            Kind::DeleteStream => Self::DeleteStream { stream: reader.u64()? },
            Kind::DeleteGroup => Self::DeleteGroup { group: reader.u64()? },
            Kind::Retain => Self::Retain { group: reader.u64()?, before: Timestamp(reader.i64()?) },
            Kind::SegmentIndex | Kind::Catalog => return None,
        };
        Some(record)
    }
}

pub fn put_group_id(out: &mut Vec<u8>, id: &GroupId) {
    put_str(out, &id.scope.account);
    put_str(out, &id.scope.region);
    put_str(out, &id.name);
}

pub fn read_group_id(reader: &mut Reader<'_>) -> Option<GroupId> {
    let (account, region, name) = (reader.str()?, reader.str()?, reader.str()?);
    Some(GroupId::new(Scope::new(account, region), name))
}

/// What a block says of itself before its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockMeta {
    pub stream: u64,
    /// The events' sequence numbers and ingestion times are relative to these.
    pub base_sequence: u64,
    pub base_ingestion: i64,
    pub count: u32,
    pub last_sequence: u64,
    pub last_ingestion: i64,
    pub min_timestamp: i64,
    pub max_timestamp: i64,
    /// Messages and their overhead.
    pub bytes: u64,
    /// Journal blocks only: the source's offset that is durable with these events.
    pub source: Option<(String, u64)>,
    raw_length: u64,
    compressed: bool,
}

impl BlockMeta {
    fn put(&self, out: &mut Vec<u8>) {
        put_u64(out, self.stream);
        put_u64(out, self.base_sequence);
        put_i64(out, self.base_ingestion);
        put_u64(out, u64::from(self.count));
        put_u64(out, self.last_sequence);
        put_i64(out, self.last_ingestion);
        put_i64(out, self.min_timestamp);
        put_i64(out, self.max_timestamp);
        put_u64(out, self.bytes);
        put_u64(out, u64::from(self.source.is_some()));
        if let Some((source, end)) = &self.source {
            put_str(out, source);
            put_u64(out, *end);
        }
        put_u64(out, self.raw_length);
        put_u64(out, u64::from(self.compressed));
    }

    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            stream: reader.u64()?,
            base_sequence: reader.u64()?,
            base_ingestion: reader.i64()?,
            count: reader.u32()?,
            last_sequence: reader.u64()?,
            last_ingestion: reader.i64()?,
            min_timestamp: reader.i64()?,
            max_timestamp: reader.i64()?,
            bytes: reader.u64()?,
            source: if reader.u64()? == 1 { Some((reader.str()?.to_owned(), reader.u64()?)) } else { None },
            raw_length: reader.u64()?,
            compressed: reader.u64()? == 1,
        })
    }
}

/// A block whose place in the sequence is not known yet. Sequence numbers given to [`BlockBuilder::push`] are
/// relative to what [`BlockBuilder::finish`] is told.
#[derive(Debug, Default)]
pub struct BlockBuilder {
    raw: Vec<u8>,
    count: u32,
    last_sequence: u64,
    last_ingestion: i64,
    min_timestamp: i64,
    max_timestamp: i64,
    bytes: u64,
}

impl BlockBuilder {
    pub fn push(&mut self, timestamp: i64, sequence: u64, ingestion: i64, message: &str) {
        put_i64(&mut self.raw, timestamp);
        put_u64(&mut self.raw, sequence);
        put_i64(&mut self.raw, ingestion);
        put_str(&mut self.raw, message);
        let first = self.count == 0;
        self.min_timestamp = if first { timestamp } else { self.min_timestamp.min(timestamp) };
        self.max_timestamp = if first { timestamp } else { self.max_timestamp.max(timestamp) };
        self.last_sequence = self.last_sequence.max(sequence);
        self.last_ingestion = if first { ingestion } else { self.last_ingestion.max(ingestion) };
        self.count += 1;
        self.bytes += (message.len() + EVENT_OVERHEAD) as u64;
    }

    pub fn raw_length(&self) -> usize {
        self.raw.len()
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Compresses the events where that pays.
    pub fn pack(self, level: i32) -> std::io::Result<PackedBlock> {
        let compressed = self.raw.len() > COMPRESS_FROM;
        let body = if compressed { zstd::bulk::compress(&self.raw, level)? } else { self.raw.clone() };
        Ok(PackedBlock { body, compressed, builder: self })
    }
}

#[derive(Debug)]
pub struct PackedBlock {
    body: Vec<u8>,
    compressed: bool,
    builder: BlockBuilder,
}

impl PackedBlock {
    pub fn count(&self) -> u32 {
        self.builder.count
    }

    /// The block's meta with its place in the sequence.
    pub fn meta(
        &self,
        stream: u64,
        base_sequence: u64,
        base_ingestion: i64,
        source: Option<(String, u64)>,
    ) -> BlockMeta {
        let b = &self.builder;
        BlockMeta {
            stream,
            base_sequence,
            base_ingestion,
            count: b.count,
            last_sequence: base_sequence + b.last_sequence,
            last_ingestion: base_ingestion.saturating_add(b.last_ingestion),
            min_timestamp: b.min_timestamp,
            max_timestamp: b.max_timestamp,
            bytes: b.bytes,
            source,
            raw_length: b.raw.len() as u64,
            compressed: self.compressed,
        }
    }

    /// Appends the block's frame.
    pub fn put(&self, meta: &BlockMeta, out: &mut Vec<u8>) -> (usize, usize) {
        let mut payload = Vec::with_capacity(self.body.len() + 128);
        meta.put(&mut payload);
        payload.extend_from_slice(&self.body);
        put_frame(out, Kind::Block, &payload)
    }
}

/// The events of a block's frame, in the order they were pushed; `None` when it is damaged.
pub fn read_block(frame: &[u8]) -> Option<Vec<Event>> {
    let (Kind::Block, payload, _) = read_frame(frame)? else { return None };
    let mut reader = Reader(payload);
    let meta = BlockMeta::read(&mut reader)?;
    let raw_length = usize::try_from(meta.raw_length).ok().filter(|length| *length <= MAX_BODY)?;
    let unpacked;
    let mut body = if meta.compressed {
        unpacked = zstd::bulk::decompress(reader.0, raw_length).ok()?;
        Reader(&unpacked)
    } else {
        reader
    };
    let mut events = Vec::new();
    for _ in 0..meta.count {
        let timestamp = Timestamp(body.i64()?);
        let sequence = meta.base_sequence.checked_add(body.u64()?)?;
        let ingestion = Timestamp(meta.base_ingestion.saturating_add(body.i64()?));
        let message = body.str()?.to_owned();
        events.push(Event { id: EventId { timestamp, sequence }, timestamp, ingestion, message });
    }
    Some(events)
}
