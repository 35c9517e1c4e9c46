//! What a store that follows an engine does.

use crate::support::*;
use longshore_model::change::{Batch, Change, Commit, Undecodable, Version, View};
use longshore_store::memory::Memory;
use longshore_store::{Changes, Engine, Error, Event, Followed, Loaded, Outcome, Store};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

/// All records as text; those whose value is `bad` it cannot read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Texts(pub BTreeMap<String, String>);

impl View for Texts {
    fn apply(&mut self, change: &Change) -> Result<(), Undecodable> {
        let key = change.key.to_string();
        match &change.value {
            None => drop(self.0.remove(&key)),
            Some(value) if **value == *b"bad" => {
                return Err(Undecodable { key: change.key.clone(), reason: "it is bad".to_owned() });
            }
            Some(value) => drop(self.0.insert(key, String::from_utf8_lossy(value).into_owned())),
        }
        Ok(())
    }
}

impl Texts {
    fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }
}

pub async fn open(engine: Arc<dyn Engine>) -> Store<Texts> {
    Store::open(engine).await.unwrap()
}

/// Waits until the store has `value` under `key`.
pub async fn until(store: &Store<Texts>, key: &str, value: &str) {
    let reached = async {
        while store.snapshot().view.get(key) != value {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let shown = || format!("{key} is `{}` and never `{value}`", store.snapshot().view.get(key));
    tokio::time::timeout(Duration::from_secs(30), reached).await.unwrap_or_else(|_| panic!("{}", shown()));
}

pub async fn a_committer_sees_its_commit_in_the_next_snapshot(engine: Arc<dyn Engine>) {
    committed(&*engine, commit(0, [create("before", "1"), create("unreadable", "bad")])).await;
    let store = open(Arc::clone(&engine)).await;
    assert_eq!(store.snapshot().view.get("before"), "1");
    let read = store.snapshot().version.0;
    store.commit(commit(read, [create("n", "0")])).await.unwrap();
    for n in 1..30 {
        let read = store.snapshot().version.0;
        let outcome = store.commit(commit(read, [update("n", &n.to_string())])).await.unwrap();
        assert_eq!(outcome, Outcome::Committed(store.snapshot().version));
        assert_eq!(store.snapshot().view.get("n"), n.to_string());
    }
    // A loser sees what it lost against, also where that is a deletion, also where another engine made it.
    let read = store.snapshot().version.0;
    committed(&*engine, commit(read, [delete("n")])).await;
    let lost = store.commit(commit(read, [update("n", "x")])).await.unwrap();
    assert!(matches!(&lost, Outcome::Conflict { key, .. } if key.as_str() == "n"), "{lost:?}");
    assert_eq!(store.snapshot().view.get("n"), "");
}

pub async fn a_snapshot_is_never_between_two_commits(engine: Arc<dyn Engine>) {
    let mut version = committed(&*engine, commit(0, [create("l", "0"), create("r", "0")])).await;
    let store = open(Arc::clone(&engine)).await;
    let writer = tokio::spawn(async move {
        for n in 1..=100 {
            let n = n.to_string();
            version = committed(&*engine, commit(version, [update("l", &n), update("r", &n)])).await;
        }
    });
    let mut before = store.snapshot().version;
    while !writer.is_finished() {
        let snapshot = store.snapshot();
        assert_eq!(snapshot.view.get("l"), snapshot.view.get("r"));
        assert!(snapshot.version >= before);
        before = snapshot.version;
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    until(&store, "r", "100").await;
}

pub async fn a_store_that_is_reset_is_empty(engine: Arc<dyn Engine>) {
    let store = open(Arc::clone(&engine)).await;
    store.commit(commit(store.snapshot().version.0, [create("a", "1")])).await.unwrap();
    let mut follower = store.follow();
    store.reset().await.unwrap();
    assert_eq!(store.snapshot().view, Texts::default());
    let Some(Followed::Batch(batch)) = follower.next().await else { panic!("no batch") };
    assert_eq!((shown(&batch), batch.version), ("-a".to_owned(), store.snapshot().version));
    store.reset().await.unwrap();
    store.commit(commit(store.snapshot().version.0, [create("a", "2")])).await.unwrap();
    assert_eq!(store.snapshot().view.get("a"), "2");
}

pub async fn racing_stores_converge(engine: Arc<dyn Engine>) {
    let stores = [open(Arc::clone(&engine)).await, open(Arc::clone(&engine)).await].map(Arc::new);
    stores[0].commit(commit(stores[0].snapshot().version.0, [create("n", "0")])).await.unwrap();
    until(&stores[1], "n", "0").await;
    let mut writers = Vec::new();
    for store in stores.iter().cycle().take(6) {
        let store = Arc::clone(store);
        writers.push(tokio::spawn(async move {
            for _ in 0..10 {
                while !increment(&store).await {}
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    for store in &stores {
        until(store, "n", "60").await;
    }
    assert_eq!(stores[0].snapshot().view, stores[1].snapshot().view);
    assert_eq!(stores[0].snapshot().version, stores[1].snapshot().version);
}

async fn increment(store: &Store<Texts>) -> bool {
    let snapshot = store.snapshot();
    let n: u64 = snapshot.view.get("n").parse().unwrap();
    let outcome =
        store.commit(commit(snapshot.version.0, [update("n", &(n + 1).to_string())])).await.unwrap();
    matches!(outcome, Outcome::Committed(_))
}

#[tokio::test]
async fn a_follower_that_lags_too_far_is_told_to_start_again() {
    let store = open(Arc::new(Memory::default())).await;
    let mut follower = store.follow();
    store.commit(commit(0, [create("n", "0")])).await.unwrap();
    for n in 1..=5000 {
        let read = store.snapshot().version.0;
        store.commit(commit(read, [update("n", &n.to_string())])).await.unwrap();
    }
    assert!(matches!(follower.next().await, Some(Followed::Restarted)));
    assert_eq!(store.snapshot().view.get("n"), "5000");
    // It goes on with what is still there, in order and to the end.
    let mut versions = Vec::new();
    while versions.last() != Some(&store.snapshot().version) {
        let Some(Followed::Batch(batch)) = follower.next().await else { panic!("no batch") };
        versions.push(batch.version);
    }
    assert!(versions.is_sorted_by(|a, b| a < b));
}

/// An engine in memory whose changes break off when the test says so.
#[derive(Default)]
struct Forgetful {
    memory: Memory,
    followers: Mutex<Vec<mpsc::UnboundedSender<Event>>>,
    /// Loads that fail from now on.
    failures: Mutex<u32>,
}

impl Forgetful {
    fn tell(&self, event: &Event) {
        for follower in self.followers.lock().unwrap().iter() {
            let _ = follower.send(event.clone());
        }
    }
}

#[async_trait::async_trait]
impl Engine for Forgetful {
    async fn load(&self, prefix: &str) -> Result<Loaded, Error> {
        {
            let mut failures = self.failures.lock().unwrap();
            if *failures > 0 {
                *failures -= 1;
                return Err(Error::Closed);
            }
        }
        self.memory.load(prefix).await
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome, Error> {
        self.memory.commit(commit).await
    }

    async fn changes(&self, _: Version) -> Result<Changes, Error> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.followers.lock().unwrap().push(sender);
        Ok(Changes(receiver))
    }

    async fn compact(&self, version: Version) -> Result<(), Error> {
        self.memory.compact(version).await
    }

    async fn reset(&self) -> Result<Version, Error> {
        self.memory.reset().await
    }
}

#[tokio::test]
async fn a_store_that_missed_commits_loads_again() {
    let engine = Arc::new(Forgetful::default());
    let store = open(engine.clone()).await;
    let mut follower = store.follow();
    let version = committed(&*engine, commit(0, [create("a", "1")])).await;
    assert_eq!(store.snapshot().view.get("a"), "");
    // The engine is away when it is asked first.
    *engine.failures.lock().unwrap() = 1;
    engine.tell(&Event::Restart);
    assert!(matches!(follower.next().await, Some(Followed::Restarted)));
    assert_eq!(store.snapshot().version, Version(version));
    assert_eq!(store.snapshot().view.get("a"), "1");
    // A batch that the load had already is not told twice; the next one is.
    let old = Batch { version: Version(version), changes: vec![] };
    let value = Some(b"2".as_slice().into());
    let new = Batch { version: Version(version + 1), changes: vec![Change { key: key("a"), value }] };
    engine.tell(&Event::Batch(Arc::new(old)));
    engine.tell(&Event::Batch(Arc::new(new)));
    let Some(Followed::Batch(batch)) = follower.next().await else { panic!("no batch") };
    assert_eq!(shown(&batch), "a=2");
    assert_eq!(store.snapshot().view.get("a"), "2");
}
