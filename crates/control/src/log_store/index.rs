//! What the store holds, in memory: groups, their streams, and where each stream's blocks are.
//! Invariant: everything here is durable; applying the same record twice changes nothing.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::sync::Arc;

use longshore_model::Timestamp;

use super::GroupId;
use super::frame::{BlockMeta, Record};

/// A journal file. Readers keep it alive while it is being sealed and removed.
#[derive(Debug)]
pub struct Journal {
    pub number: u64,
    pub file: File,
}

#[derive(Clone, Debug)]
pub enum Place {
    Journal(Arc<Journal>),
    Segment { group: u64, number: u64 },
}

/// Where one block is, and what is in it.
#[derive(Clone, Debug)]
pub struct Block {
    pub place: Place,
    pub offset: u64,
    /// Of the whole frame.
    pub length: u64,
    pub min_timestamp: i64,
    pub max_timestamp: i64,
    pub bytes: u64,
}

impl Block {
    pub fn new(place: Place, offset: u64, length: u64, meta: &BlockMeta) -> Self {
        Self {
            place,
            offset,
            length,
            min_timestamp: meta.min_timestamp,
            max_timestamp: meta.max_timestamp,
            bytes: meta.bytes,
        }
    }

    pub fn is_in_journal(&self, number: u64) -> bool {
        matches!(&self.place, Place::Journal(journal) if journal.number == number)
    }

    pub fn segment(&self) -> Option<u64> {
        match self.place {
            Place::Segment { number, .. } => Some(number),
            Place::Journal(_) => None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Stream {
    pub number: u64,
    pub name: Arc<str>,
    pub created: Timestamp,
    pub last_event: Option<Timestamp>,
    pub last_ingestion: Option<Timestamp>,
    /// How far each source is durable.
    pub sources: BTreeMap<String, u64>,
    pub blocks: Vec<Block>,
}

#[derive(Debug)]
pub struct Group {
    pub number: u64,
    pub id: GroupId,
    pub streams: BTreeMap<Arc<str>, Stream>,
    /// Events before this are gone for readers.
    pub retained_from: i64,
    /// The catalog on disk holds all that journals up to this one said of the group.
    pub covered: u64,
    /// The first journal with something that the catalog does not hold.
    pub dirty_since: Option<u64>,
    pub last_touched: u64,
}

impl Group {
    pub fn new(number: u64, id: GroupId) -> Self {
        Self {
            number,
            id,
            streams: BTreeMap::new(),
            retained_from: i64::MIN,
            covered: 0,
            dirty_since: None,
            last_touched: 0,
        }
    }

    pub fn bytes(&self) -> u64 {
        self.streams.values().flat_map(|stream| &stream.blocks).map(|block| block.bytes).sum()
    }

    /// The segments that still hold blocks, with those blocks' raw bytes.
    pub fn segments(&self) -> BTreeMap<u64, u64> {
        let mut segments = BTreeMap::new();
        for block in self.streams.values().flat_map(|stream| &stream.blocks) {
            if let Some(number) = block.segment() {
                *segments.entry(number).or_default() += block.bytes;
            }
        }
        segments
    }

    fn touch(&mut self, journal: u64) {
        self.dirty_since.get_or_insert(journal);
        self.last_touched = self.last_touched.max(journal);
    }

    fn hide_before(&mut self, before: i64) {
        self.retained_from = self.retained_from.max(before);
        for stream in self.streams.values_mut() {
            stream.blocks.retain(|block| block.max_timestamp >= before);
        }
    }
}

#[derive(Debug, Default)]
pub struct Index {
    groups: HashMap<GroupId, Group>,
    /// The name of each group's number, and the group and name of each stream's.
    group_names: HashMap<u64, GroupId>,
    stream_names: HashMap<u64, (u64, Arc<str>)>,
    pub next_sequence: u64,
    /// Of groups and of streams.
    pub next_number: u64,
}

impl Index {
    pub fn new() -> Self {
        Self { next_sequence: 1, next_number: 1, ..Self::default() }
    }

    pub fn group(&self, id: &GroupId) -> Option<&Group> {
        self.groups.get(id)
    }

    pub fn group_by_number(&self, number: u64) -> Option<&Group> {
        self.groups.get(self.group_names.get(&number)?)
    }

    pub fn group_by_number_mut(&mut self, number: u64) -> Option<&mut Group> {
        self.groups.get_mut(self.group_names.get(&number)?)
    }

    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    pub fn stream(&self, group: &GroupId, name: &str) -> Option<&Stream> {
        self.groups.get(group)?.streams.get(name)
    }

    pub fn stream_by_number_mut(&mut self, number: u64) -> Option<&mut Stream> {
        let (group, name) = self.stream_names.get(&number)?;
        let group = self.groups.get_mut(self.group_names.get(group)?)?;
        group.streams.get_mut(name).filter(|stream| stream.number == number)
    }

    pub fn source_offset(&self, group: &GroupId, stream: &str, source: &str) -> Option<u64> {
        self.stream(group, stream)?.sources.get(source).copied()
    }

    /// The number of the group that a record of the journal is about, where it still is.
    pub fn group_of(&self, record: &Record) -> Option<u64> {
        match record {
            Record::CreateStream { group, .. }
            | Record::DeleteGroup { group }
            | Record::Retain { group, .. } => Some(*group),
            Record::Block(BlockMeta { stream, .. }) | Record::DeleteStream { stream } => {
                self.stream_names.get(stream).map(|(group, _)| *group)
            }
        }
    }

    /// Adds a group as its catalog has it.
    pub fn insert_group(&mut self, group: Group) {
        if let Some(older) = self.groups.get(&group.id).map(|older| older.number) {
            self.delete_group(older);
        }
        for stream in group.streams.values() {
            self.stream_names.insert(stream.number, (group.number, stream.name.clone()));
            self.next_number = self.next_number.max(stream.number + 1);
        }
        self.group_names.insert(group.number, group.id.clone());
        self.next_number = self.next_number.max(group.number + 1);
        self.groups.insert(group.id.clone(), group);
    }

    /// Takes in a durable record; `place` is where a block's frame lies.
    pub fn apply(&mut self, record: Record, journal: &Arc<Journal>, offset: u64, length: u64) {
        let group = self.group_of(&record);
        match record {
            Record::CreateStream { group, id, stream, name, created } => {
                self.create_stream(group, id, stream, name, created);
            }
            Record::Block(meta) => {
                self.next_sequence = self.next_sequence.max(meta.last_sequence + 1);
                let block = Block::new(Place::Journal(journal.clone()), offset, length, &meta);
                self.add_block(block, meta);
            }
            Record::DeleteStream { stream } => {
                self.next_number = self.next_number.max(stream + 1);
                self.delete_stream(stream);
            }
            Record::DeleteGroup { group } => {
                self.next_number = self.next_number.max(group + 1);
                self.delete_group(group);
            }
            Record::Retain { group, before } => {
                if let Some(group) = self.group_by_number_mut(group) {
                    group.hide_before(before.millis());
                }
            }
        }
        if let Some(group) = group.and_then(|number| self.group_by_number_mut(number)) {
            group.touch(journal.number);
        }
    }

    fn create_stream(&mut self, group: u64, id: GroupId, number: u64, name: Arc<str>, created: Timestamp) {
        self.next_number = self.next_number.max(number + 1).max(group + 1);
        match self.groups.get(&id).map(|known| known.number) {
            // A catalog can be ahead of the journal: then it knows the later group or stream of the same name.
            Some(known) if known > group => return,
            Some(known) if known < group => self.delete_group(known),
            Some(_) | None => {}
        }
        let streams =
            &mut self.groups.entry(id.clone()).or_insert_with(|| Group::new(group, id.clone())).streams;
        if streams.get(&name).is_some_and(|known| known.number >= number) {
            return;
        }
        let (last_event, last_ingestion) = (None, None);
        let (sources, blocks) = (BTreeMap::new(), Vec::new());
        let stream =
            Stream { number, name: name.clone(), created, last_event, last_ingestion, sources, blocks };
        if let Some(older) = streams.insert(name.clone(), stream) {
            self.stream_names.remove(&older.number);
        }
        self.group_names.insert(group, id);
        self.stream_names.insert(number, (group, name));
    }

    fn add_block(&mut self, block: Block, meta: BlockMeta) {
        let Some(stream) = self.stream_by_number_mut(meta.stream) else { return };
        if let Some((source, end)) = meta.source {
            let stored = stream.sources.entry(source).or_default();
            *stored = end.max(*stored);
        }
        if meta.count > 0 {
            stream.last_event = stream.last_event.max(Some(Timestamp(meta.max_timestamp)));
            stream.last_ingestion = stream.last_ingestion.max(Some(Timestamp(meta.last_ingestion)));
            stream.blocks.push(block);
        }
    }

    fn delete_stream(&mut self, number: u64) {
        let Some((group, name)) = self.stream_names.remove(&number) else { return };
        if let Some(group) = self.group_by_number_mut(group) {
            group.streams.remove(&name);
        }
    }

    fn delete_group(&mut self, number: u64) {
        let Some(id) = self.group_names.remove(&number) else { return };
        if let Some(group) = self.groups.remove(&id) {
            for stream in group.streams.values() {
                self.stream_names.remove(&stream.number);
            }
        }
    }

    /// Forgets all groups; numbers go on, so that nothing old can be taken for something new.
    pub fn clear(&mut self) {
        self.groups.clear();
        self.group_names.clear();
        self.stream_names.clear();
    }
}
