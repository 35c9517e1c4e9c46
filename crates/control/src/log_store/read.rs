//! Reading: pages of events in (timestamp, sequence) order, and lists of streams.
//! Invariant: a page holds the first matching events in its direction and nothing after a gap, so that a reader who
//! follows the tokens sees each event that was there once and in order.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use longshore_model::Timestamp;

use super::index::{Block, Group, Stream};
use super::pattern::Pattern;
use super::seal::Files;
use super::{EVENT_OVERHEAD, Event, EventId, GroupId, Shared};

/// Bytes of messages and their overhead in one page.
const PAGE_BYTES: usize = 1_048_576;
/// How often a page is begun again because segments were replaced under it.
const ATTEMPTS: usize = 16;

/// <https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_GetLogEvents.html>
#[derive(Clone, Debug)]
pub struct GetEvents {
    pub group: GroupId,
    pub stream: String,
    pub start: Option<Timestamp>,
    /// Exclusive.
    pub end: Option<Timestamp>,
    pub token: Option<String>,
    pub limit: usize,
    /// Where the first page, without a token, is: at the oldest events, or at the newest.
    pub from_head: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsPage {
    /// Ascending.
    pub events: Vec<Event>,
    /// The token that was given, where nothing (yet) comes after it.
    pub next_forward: String,
    pub next_backward: String,
}

/// <https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html>
#[derive(Clone, Debug)]
pub struct FilterEvents {
    pub group: GroupId,
    pub streams: StreamSelection,
    pub start: Option<Timestamp>,
    /// Inclusive.
    pub end: Option<Timestamp>,
    pub pattern: Pattern,
    pub token: Option<String>,
    pub limit: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamSelection {
    All,
    Named(Vec<String>),
    Prefix(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilteredEvent {
    pub stream: Arc<str>,
    pub event: Event,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilteredPage {
    /// Ascending over all streams; can be empty although more follows.
    pub events: Vec<FilteredEvent>,
    pub next_token: Option<String>,
}

/// <https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_DescribeLogStreams.html>
#[derive(Clone, Debug)]
pub struct DescribeStreams {
    pub group: GroupId,
    pub prefix: Option<String>,
    pub order_by: OrderBy,
    pub descending: bool,
    pub token: Option<String>,
    pub limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderBy {
    LogStreamName,
    /// Streams without events come before all others.
    LastEventTime,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    pub name: Arc<str>,
    pub created: Timestamp,
    pub first_event: Option<Timestamp>,
    pub last_event: Option<Timestamp>,
    pub last_ingestion: Option<Timestamp>,
    pub upload_sequence_token: String,
    /// Raw bytes; AWS itself always shows 0 for streams.
    pub stored_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamsPage {
    pub streams: Vec<StreamInfo>,
    pub next_token: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the log stream does not exist")]
    NoSuchStream,
    #[error("the token is not valid")]
    InvalidToken,
    #[error("read from the log store")]
    Io(#[source] io::Error),
    /// The runtime is shutting down.
    #[error("the read was interrupted")]
    Interrupted,
}

pub fn get_events(shared: &Shared, query: &GetEvents) -> Result<EventsPage, ReadError> {
    let cursor = query.token.as_deref().map(parse_cursor).transpose()?;
    let direction = cursor
        .as_ref()
        .map_or(if query.from_head { Direction::Forward } else { Direction::Backward }, |c| c.0);
    let start = query.start.map_or(i64::MIN, Timestamp::millis);
    let mut range =
        Range { start, end: query.end.map_or(i64::MAX, Timestamp::millis), after: None, before: None };
    match cursor {
        Some((Direction::Forward, at)) => range.after = Some(at),
        Some((Direction::Backward, at)) => range.before = Some(at),
        None => {}
    }
    let found = retrying(|| {
        let mut range = range.clone();
        let blocks = {
            let index = shared.read();
            let group = index.group(&query.group).ok_or(ReadError::NoSuchStream)?;
            let stream = group.streams.get(query.stream.as_str()).ok_or(ReadError::NoSuchStream)?;
            range.start = range.start.max(group.retained_from);
            candidates(stream, &range)
        };
        scan(shared, blocks, &range, direction, query.limit, &Pattern::everything(), u64::MAX)
    })?;
    let here = cursor.map_or(EventId { timestamp: Timestamp(start.max(0)), sequence: 0 }, |cursor| cursor.1);
    let first = found.events.first().map_or(here, |found| found.event.id);
    let last = found.events.last().map_or(here, |found| found.event.id);
    Ok(EventsPage {
        events: found.events.into_iter().map(|found| found.event).collect(),
        next_forward: format!("f/{last}/s"),
        next_backward: format!("b/{first}/s"),
    })
}

pub fn filter_events(shared: &Shared, query: &FilterEvents) -> Result<FilteredPage, ReadError> {
    let after = query.token.as_deref().map(str::parse).transpose().map_err(|_| ReadError::InvalidToken)?;
    let range = Range {
        start: query.start.map_or(i64::MIN, Timestamp::millis),
        end: query.end.map_or(i64::MAX, |end| end.millis().saturating_add(1)),
        after,
        before: None,
    };
    let found = retrying(|| {
        let mut range = range.clone();
        let mut blocks = Vec::new();
        {
            let index = shared.read();
            let Some(group) = index.group(&query.group) else {
                return match query.streams {
                    StreamSelection::Named(_) => Err(ReadError::NoSuchStream),
                    StreamSelection::All | StreamSelection::Prefix(_) => Ok(Scanned::default()),
                };
            };
            range.start = range.start.max(group.retained_from);
            for stream in selected(group, &query.streams)? {
                blocks.extend(candidates(stream, &range));
            }
        }
        let budget = shared.options.filter_budget;
        scan(shared, blocks, &range, Direction::Forward, query.limit, &query.pattern, budget)
    })?;
    Ok(FilteredPage { events: found.events, next_token: found.resume_after.map(|at| at.to_string()) })
}

pub fn describe_streams(shared: &Shared, query: &DescribeStreams) -> Result<StreamsPage, ReadError> {
    let prefix = query.prefix.as_deref().unwrap_or_default();
    let after = query.token.as_deref().map(parse_stream_token).transpose()?;
    let index = shared.read();
    let Some(group) = index.group(&query.group) else {
        return Ok(StreamsPage { streams: Vec::new(), next_token: None });
    };
    let key = |stream: &Stream| match query.order_by {
        OrderBy::LogStreamName => (0, stream.name.to_string()),
        OrderBy::LastEventTime => (stream.last_event.map_or(-1, Timestamp::millis), stream.name.to_string()),
    };
    let beyond = |key: &(i64, String)| match &after {
        Some(after) => {
            if query.descending {
                key < after
            } else {
                key > after
            }
        }
        None => true,
    };
    let streams = group.streams.values().filter(|stream| stream.name.starts_with(prefix));
    let mut page: Vec<((i64, String), &Stream)> =
        streams.map(|stream| (key(stream), stream)).filter(|(key, _)| beyond(key)).collect();
    page.sort_by(|a, b| a.0.cmp(&b.0));
    if query.descending {
        page.reverse();
    }
    let more = page.len() > query.limit;
    page.truncate(query.limit);
    let next_token = page.last().filter(|_| more).map(|((time, name), _)| format!("{time}:{name}"));
    Ok(StreamsPage {
        streams: page.into_iter().map(|(_, s)| describe(s, group.retained_from)).collect(),
        next_token,
    })
}

fn describe(stream: &Stream, retained_from: i64) -> StreamInfo {
    let first = stream.blocks.iter().map(|block| block.min_timestamp.max(retained_from)).min();
    StreamInfo {
        name: stream.name.clone(),
        created: stream.created,
        first_event: first.map(Timestamp),
        last_event: stream.last_event,
        last_ingestion: stream.last_ingestion,
        upload_sequence_token: format!("{:056}", stream.last_ingestion.map_or(0, Timestamp::millis)),
        stored_bytes: stream.blocks.iter().map(|block| block.bytes).sum(),
    }
}

fn parse_stream_token(token: &str) -> Result<(i64, String), ReadError> {
    let (time, name) = token.split_once(':').ok_or(ReadError::InvalidToken)?;
    Ok((time.parse().map_err(|_| ReadError::InvalidToken)?, name.to_owned()))
}

fn parse_cursor(token: &str) -> Result<(Direction, EventId), ReadError> {
    let parse = || {
        let (direction, rest) = match token.strip_prefix("f/") {
            Some(rest) => (Direction::Forward, rest),
            None => (Direction::Backward, token.strip_prefix("b/")?),
        };
        Some((direction, rest.strip_suffix("/s")?.parse().ok()?))
    };
    parse().ok_or(ReadError::InvalidToken)
}

fn selected<'a>(group: &'a Group, selection: &StreamSelection) -> Result<Vec<&'a Stream>, ReadError> {
    match selection {
        StreamSelection::All => Ok(group.streams.values().collect()),
        StreamSelection::Prefix(prefix) => {
            Ok(group.streams.values().filter(|stream| stream.name.starts_with(prefix)).collect())
        }
        StreamSelection::Named(names) => {
            let names: std::collections::BTreeSet<&str> = names.iter().map(String::as_str).collect();
            names.into_iter().map(|name| group.streams.get(name).ok_or(ReadError::NoSuchStream)).collect()
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// Which events are asked for.
#[derive(Clone, Debug)]
struct Range {
    start: i64,
    /// Exclusive.
    end: i64,
    after: Option<EventId>,
    before: Option<EventId>,
}

impl Range {
    fn holds(&self, id: EventId) -> bool {
        let time = id.timestamp.millis();
        time >= self.start
            && time < self.end
            && self.after.is_none_or(|after| id > after)
            && self.before.is_none_or(|before| id < before)
    }

    fn may_hold(&self, block: &Block) -> bool {
        block.max_timestamp >= self.start
            && block.min_timestamp < self.end
            && self.after.is_none_or(|after| block.max_timestamp >= after.timestamp.millis())
            && self.before.is_none_or(|before| block.min_timestamp <= before.timestamp.millis())
    }
}

struct Candidate {
    stream: Arc<str>,
    block: Block,
}

fn candidates(stream: &Stream, range: &Range) -> Vec<Candidate> {
    let blocks = stream.blocks.iter().filter(|block| range.may_hold(block));
    blocks.map(|block| Candidate { stream: stream.name.clone(), block: block.clone() }).collect()
}

#[derive(Default)]
struct Scanned {
    /// Ascending, whatever the direction.
    events: Vec<FilteredEvent>,
    /// Where more follows in the direction: the position after which it does.
    resume_after: Option<EventId>,
}

/// Segments can be replaced between a look at the index and opening them: look again then.
fn retrying(mut attempt: impl FnMut() -> Result<Scanned, ReadError>) -> Result<Scanned, ReadError> {
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        match attempt() {
            Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound && left > 0 => {}
            outcome => return outcome,
        }
    }
}

fn scan(
    shared: &Shared,
    mut candidates: Vec<Candidate>,
    range: &Range,
    direction: Direction,
    limit: usize,
    pattern: &Pattern,
    budget: u64,
) -> Result<Scanned, ReadError> {
    match direction {
        Direction::Forward => candidates.sort_by_key(|candidate| candidate.block.min_timestamp),
        Direction::Backward => candidates.sort_by_key(|candidate| -candidate.block.max_timestamp),
    }
    let mut files = Files::new(shared);
    let mut page = Page::new(direction, limit);
    let mut read = 0;
    for candidate in candidates {
        if page.is_beyond(&candidate.block) {
            break;
        }
        if read > budget {
            // All events before this block's first are known; the next call begins there.
            let from = candidate.block.min_timestamp;
            if from > range.start && range.after.is_none_or(|after| from > after.timestamp.millis()) {
                return Ok(page.up_to(EventId { timestamp: Timestamp(from), sequence: 0 }));
            }
        }
        read += candidate.block.bytes;
        for event in files.read(&candidate.block).map_err(ReadError::Io)? {
            if range.holds(event.id) && pattern.matches(&event.message) {
                page.offer(&candidate.stream, event);
            }
        }
    }
    Ok(page.finish())
}

/// The best events so far in a direction, no more than a page.
struct Page {
    direction: Direction,
    limit: usize,
    events: BTreeMap<EventId, FilteredEvent>,
    bytes: usize,
    /// The best of those that found no room: no event from there on belongs to the page.
    cut: Option<EventId>,
}

impl Page {
    fn new(direction: Direction, limit: usize) -> Self {
        Self { direction, limit: limit.max(1), events: BTreeMap::new(), bytes: 0, cut: None }
    }

    fn is_beyond(&self, block: &Block) -> bool {
        self.cut.is_some_and(|cut| match self.direction {
            Direction::Forward => block.min_timestamp > cut.timestamp.millis(),
            Direction::Backward => block.max_timestamp < cut.timestamp.millis(),
        })
    }

    fn offer(&mut self, stream: &Arc<str>, event: Event) {
        let id = event.id;
        let late = self.cut.is_some_and(|cut| match self.direction {
            Direction::Forward => id >= cut,
            Direction::Backward => id <= cut,
        });
        if late {
            return;
        }
        self.bytes += event.message.len() + EVENT_OVERHEAD;
        self.events.insert(id, FilteredEvent { stream: stream.clone(), event });
        while self.events.len() > self.limit || (self.bytes > PAGE_BYTES && self.events.len() > 1) {
            let worst = match self.direction {
                Direction::Forward => self.events.pop_last(),
                Direction::Backward => self.events.pop_first(),
            };
            let Some((id, worst)) = worst else { break };
            self.bytes -= worst.event.message.len() + EVENT_OVERHEAD;
            self.cut = Some(id);
        }
    }

    fn up_to(mut self, end: EventId) -> Scanned {
        self.events.split_off(&end);
        Scanned { events: self.events.into_values().collect(), resume_after: Some(end) }
    }

    fn finish(self) -> Scanned {
        let last = match self.direction {
            Direction::Forward => self.events.last_key_value(),
            Direction::Backward => self.events.first_key_value(),
        };
        let resume_after = last.map(|(id, _)| *id).filter(|_| self.cut.is_some());
        Scanned { events: self.events.into_values().collect(), resume_after }
    }
}
