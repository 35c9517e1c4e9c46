//! Random operations beside a naive model: a sorted list of events for each stream.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Append { group: usize, stream: usize, events: Vec<(i64, usize)> },
    CreateStream { group: usize, stream: usize },
    DeleteStream { group: usize, stream: usize },
    DeleteGroup { group: usize },
    Retain { group: usize, before: i64 },
    Reset,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let events = proptest::collection::vec((0i64..100, 1usize..60), 1..6);
    prop_oneof![
        20 => (0usize..2, 0usize..3, events).prop_map(|(group, stream, events)| Op::Append { group, stream, events }),
        2 => (0usize..2, 0usize..3).prop_map(|(group, stream)| Op::CreateStream { group, stream }),
        1 => (0usize..2, 0usize..3).prop_map(|(group, stream)| Op::DeleteStream { group, stream }),
        1 => (0usize..2).prop_map(|group| Op::DeleteGroup { group }),
        1 => (0usize..2, 0i64..100).prop_map(|(group, before)| Op::Retain { group, before }),
        1 => Just(Op::Reset),
        3 => Just(Op::Reopen),
    ]
}

/// Timestamp, arrival, message.
type Stored = (i64, usize, String);

/// Events of each stream in the order of their (timestamp, arrival).
#[derive(Default)]
struct Model {
    streams: BTreeMap<(usize, usize), Vec<Stored>>,
    /// PutLogEvents refuses what is older than the retention; so nothing older comes here.
    retained: BTreeMap<usize, i64>,
    appended: usize,
}

impl Model {
    fn append(&mut self, group: usize, stream: usize, events: &[(i64, String)]) {
        let stored = self.streams.entry((group, stream)).or_default();
        for (time, message) in events {
            self.appended += 1;
            stored.push((*time, self.appended, message.clone()));
        }
        stored.sort();
    }

    /// What readers see of a stream.
    fn seen(&self, group: usize, stream: usize) -> Option<Vec<(i64, &str)>> {
        let stored = self.streams.get(&(group, stream))?;
        Some(stored.iter().map(|(time, _, message)| (*time, message.as_str())).collect())
    }
}

const GROUPS: [&str; 2] = ["/ecs/a", "b"];
const STREAMS: [&str; 3] = ["s", "s/1", "t"];

async fn run(ops: Vec<Op>, limit: usize) {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path(), SMALL);
    let mut model = Model::default();
    for (at, op) in ops.into_iter().enumerate() {
        match op {
            Op::Append { group: g, stream: s, events } => {
                let oldest = model.retained.get(&g).copied().unwrap_or(0);
                let event = |(time, length): &(i64, usize)| {
                    (oldest.max(*time), format!("{at}-{}", "x".repeat(*length)))
                };
                let events: Vec<(i64, String)> = events.iter().map(event).collect();
                model.append(g, s, &events);
                let borrowed: Vec<(i64, &str)> = events.iter().map(|(time, m)| (*time, m.as_str())).collect();
                store.append(batch(GROUPS[g], STREAMS[s], &borrowed), Timestamp(5)).await.unwrap();
            }
            Op::CreateStream { group: g, stream: s } => {
                let created = store.create_stream(&group(GROUPS[g]), STREAMS[s], Timestamp(5)).await;
                assert_eq!(created.is_err(), model.streams.contains_key(&(g, s)));
                model.streams.entry((g, s)).or_default();
            }
            Op::DeleteStream { group: g, stream: s } => {
                let deleted = store.delete_stream(&group(GROUPS[g]), STREAMS[s]).await;
                assert_eq!(deleted.is_ok(), model.streams.remove(&(g, s)).is_some());
            }
            Op::DeleteGroup { group: g } => {
                store.delete_group(&group(GROUPS[g])).await.unwrap();
                model.streams.retain(|(of, _), _| *of != g);
                model.retained.remove(&g);
            }
            Op::Retain { group: g, before } => {
                store.retain(&group(GROUPS[g]), Timestamp(before)).await.unwrap();
                let retained = model.retained.entry(g).or_insert(before);
                *retained = before.max(*retained);
                for ((of, _), events) in &mut model.streams {
                    if *of == g {
                        events.retain(|(time, ..)| *time >= before);
                    }
                }
            }
            Op::Reset => {
                store.reset().await.unwrap();
                model = Model { appended: model.appended, ..Model::default() };
            }
            Op::Reopen => {
                drop(store);
                store = open(directory.path(), SMALL);
            }
        }
    }
    for reopened in [false, true] {
        if reopened {
            drop(store);
            store = open(directory.path(), SMALL);
        }
        for g in 0..GROUPS.len() {
            for s in 0..STREAMS.len() {
                compare(&store, &model, g, s, limit).await;
            }
        }
    }
}

async fn compare(store: &LogStore, model: &Model, g: usize, s: usize, limit: usize) {
    let Some(wanted) = model.seen(g, s) else {
        assert!(!store.has_stream(&group(GROUPS[g]), STREAMS[s]));
        return;
    };
    for from_head in [true, false] {
        let mut query = GetEvents { limit, from_head, ..get(GROUPS[g], STREAMS[s]) };
        let mut found: Vec<(i64, String)> = Vec::new();
        loop {
            let page = store.get_events(query.clone()).await.unwrap();
            let next = if from_head { page.next_forward } else { page.next_backward };
            if page.events.is_empty() {
                assert!(query.token.is_none_or(|token| token == next));
                break;
            }
            let page = page.events.into_iter().map(|event| (event.timestamp.millis(), event.message));
            let at = if from_head { found.len() } else { 0 };
            found.splice(at..at, page);
            query.token = Some(next);
        }
        let found: Vec<(i64, &str)> = found.iter().map(|(time, m)| (*time, m.as_str())).collect();
        assert_eq!(found, wanted, "{} {} from_head {from_head}", GROUPS[g], STREAMS[s]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn the_store_does_what_the_model_does(ops in proptest::collection::vec(op(), 1..80), limit in 1usize..12) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        runtime.block_on(run(ops, limit));
    }
}
