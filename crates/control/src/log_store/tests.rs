//! The store as its callers see it; small sizes, so that sealing and merging happen all the time.

mod crash;
mod model;
mod pages;
mod source;

use std::path::Path;

use longshore_model::link::LogEvent;
use longshore_model::{Scope, Timestamp};

use super::*;

const SMALL: Options = Options {
    journal_bytes: 600,
    block_bytes: 200,
    small_segment_bytes: 2000,
    small_segments: 3,
    filter_budget: 100,
};

fn open(directory: &Path, options: Options) -> LogStore {
    LogStore::open(directory, options).unwrap()
}

fn group(name: &str) -> GroupId {
    GroupId::new(Scope::new("123456789012", "eu-west-1"), name)
}

fn events(events: &[(i64, &str)]) -> Vec<LogEvent> {
    let event = |(timestamp, message): &(i64, &str)| LogEvent {
        timestamp: Timestamp(*timestamp),
        message: (*message).to_owned(),
    };
    events.iter().map(event).collect()
}

fn batch(group_name: &str, stream: &str, batch: &[(i64, &str)]) -> Batch {
    Batch {
        group: group(group_name),
        stream: stream.to_owned(),
        create_stream: true,
        source: None,
        events: events(batch),
    }
}

fn get(group_name: &str, stream: &str) -> GetEvents {
    GetEvents {
        group: group(group_name),
        stream: stream.to_owned(),
        start: None,
        end: None,
        token: None,
        limit: 10_000,
        from_head: true,
    }
}

fn filter(group_name: &str) -> FilterEvents {
    FilterEvents {
        group: group(group_name),
        streams: StreamSelection::All,
        start: None,
        end: None,
        pattern: Pattern::everything(),
        token: None,
        limit: 10_000,
    }
}

fn describe(group_name: &str) -> DescribeStreams {
    DescribeStreams {
        group: group(group_name),
        prefix: None,
        order_by: OrderBy::LogStreamName,
        descending: false,
        token: None,
        limit: 50,
    }
}

fn messages(page: &EventsPage) -> Vec<&str> {
    page.events.iter().map(|event| event.message.as_str()).collect()
}

/// All messages of a stream, oldest first.
async fn all(store: &LogStore, group_name: &str, stream: &str) -> Vec<String> {
    let mut query = get(group_name, stream);
    let mut found = Vec::new();
    loop {
        let page = store.get_events(query.clone()).await.unwrap();
        if query.token.as_ref() == Some(&page.next_forward) {
            return found;
        }
        found.extend(page.events.into_iter().map(|event| event.message));
        query.token = Some(page.next_forward);
    }
}
