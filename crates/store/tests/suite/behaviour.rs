//! What every engine does.

use crate::support::*;
use longshore_model::change::{Version, Write};
use longshore_store::index::MAX_KEY;
use longshore_store::{Engine, Error, Outcome};
use std::sync::Arc;

pub async fn create_conflicts_with_an_existing_key(engine: Arc<dyn Engine>) {
    let first = committed(&*engine, commit(0, [create("a", "1")])).await;
    assert_eq!(refused(&*engine, commit(0, [create("a", "2")])).await, "a");
    // Also when it was there at the version read.
    assert_eq!(refused(&*engine, commit(first, [create("a", "2")])).await, "a");
    let gone = committed(&*engine, commit(first, [delete("a")])).await;
    committed(&*engine, commit(gone, [create("a", "3")])).await;
    assert_eq!(records(&*engine, "").await, ["a=3"]);
}

pub async fn update_and_delete_need_the_key_as_it_was_read(engine: Arc<dyn Engine>) {
    assert_eq!(refused(&*engine, commit(0, [update("a", "1")])).await, "a");
    assert_eq!(refused(&*engine, commit(0, [delete("a")])).await, "a");
    let first = committed(&*engine, commit(0, [create("a", "1")])).await;
    // Read before it was there.
    assert_eq!(refused(&*engine, commit(first - 1, [update("a", "2")])).await, "a");
    assert_eq!(refused(&*engine, commit(first - 1, [delete("a")])).await, "a");
    let second = committed(&*engine, commit(first, [update("a", "2")])).await;
    assert_eq!(refused(&*engine, commit(first, [update("a", "3")])).await, "a");
    assert_eq!(refused(&*engine, commit(first, [delete("a")])).await, "a");
    // A change elsewhere is none of its concern.
    committed(&*engine, commit(second, [create("b", "1")])).await;
    committed(&*engine, commit(second, [update("a", "3")])).await;
    assert_eq!(records(&*engine, "").await, ["a=3", "b=1"]);
}

pub async fn a_key_made_anew_is_not_the_one_that_was_read(engine: Arc<dyn Engine>) {
    let read = committed(&*engine, commit(0, [create("a", "1"), create("b", "1")])).await;
    let gone = committed(&*engine, commit(read, [delete("a")])).await;
    assert_eq!(refused(&*engine, commit(read, [update("a", "2")])).await, "a");
    assert_eq!(refused(&*engine, commit(read, [delete("a")])).await, "a");
    // The same value again: still another record.
    committed(&*engine, commit(gone, [create("a", "1")])).await;
    assert_eq!(refused(&*engine, commit(read, [update("a", "2")])).await, "a");
    assert_eq!(refused(&*engine, commit(read, [delete("a")])).await, "a");
    assert_eq!(refused(&*engine, guarded(read, [unchanged("a")], [update("b", "2")])).await, "a");
    assert_eq!(records(&*engine, "").await, ["a=1", "b=1"]);
}

pub async fn guards_hold_what_a_decision_relied_on(engine: Arc<dyn Engine>) {
    let read = committed(&*engine, commit(0, [create("a", "1"), create("b", "1")])).await;
    committed(&*engine, guarded(read, [unchanged("a"), absent("c")], [create("d", "1")])).await;
    committed(&*engine, commit(read, [update("a", "2")])).await;
    assert_eq!(refused(&*engine, guarded(read, [unchanged("a")], [update("b", "2")])).await, "a");
    assert_eq!(refused(&*engine, guarded(read, [unchanged("none")], [update("b", "2")])).await, "none");
    assert_eq!(refused(&*engine, guarded(read, [absent("d")], [update("b", "2")])).await, "d");
    // What a commit writes it may guard as well, and a key it may guard twice.
    committed(&*engine, guarded(read, [unchanged("b"), unchanged("b")], [update("b", "2")])).await;
    assert_eq!(records(&*engine, "").await, ["a=2", "b=2", "d=1"]);
}

pub async fn a_prefix_guard_sees_what_is_new_and_not_what_is_gone(engine: Arc<dyn Engine>) {
    let guard = || [nothing_new_under("t/")];
    let read =
        committed(&*engine, commit(0, [create("t/1", "1"), create("t/2", "1"), create("u", "1")])).await;
    assert_eq!(refused(&*engine, guarded(read - 1, guard(), [create("v", "1")])).await, "t/1");
    let gone = committed(&*engine, commit(read, [delete("t/1")])).await;
    committed(&*engine, guarded(read, guard(), [create("v", "1")])).await;
    let changed = committed(&*engine, commit(gone, [update("t/2", "2")])).await;
    assert_eq!(refused(&*engine, guarded(gone, guard(), [create("w", "1")])).await, "t/2");
    committed(&*engine, guarded(changed, guard(), [create("w", "1")])).await;
    let made = committed(&*engine, commit(changed, [create("t/3", "1")])).await;
    assert_eq!(refused(&*engine, guarded(changed, guard(), [create("x", "1")])).await, "t/3");
    // The commit's own writes under the prefix are not news to it.
    committed(&*engine, guarded(made, guard(), [create("t/4", "1")])).await;
}

pub async fn prefixes_end_where_they_end(engine: Arc<dyn Engine>) {
    let names = ["a", "a/1", "a/2", "a0", "a/\u{10ffff}", "b", "\u{7f}"];
    let read = committed(&*engine, commit(0, names.map(|name| create(name, "1")))).await;
    assert_eq!(records(&*engine, "a/").await, ["a/1=1", "a/2=1", "a/\u{10ffff}=1"]);
    assert_eq!(records(&*engine, "a").await.len(), 5);
    assert_eq!(records(&*engine, "none").await, [""; 0]);
    assert_eq!(records(&*engine, "").await.len(), names.len());
    // `a0` comes straight after everything under `a/`.
    committed(&*engine, commit(read, [update("a0", "2"), update("a", "2")])).await;
    committed(&*engine, guarded(read, [nothing_new_under("a/")], [create("c", "1")])).await;
    // Any of the keys that are new there may be named.
    for (prefix, new) in [("a", &["a", "a0"][..]), ("", &["a", "a0", "c"])] {
        let named = refused(&*engine, guarded(read, [nothing_new_under(prefix)], [create("d", "1")])).await;
        assert!(new.contains(&named.as_str()), "{named}");
    }
}

pub async fn a_refused_commit_leaves_no_trace(engine: Arc<dyn Engine>) {
    let read = committed(&*engine, commit(0, [create("a", "1"), create("b", "1")])).await;
    let mut changes = engine.changes(Version(read)).await.unwrap();
    let writes = [create("new", "1"), update("a", "2"), delete("b"), create("a/b", "1"), update("none", "1")];
    assert_eq!(refused(&*engine, commit(read, writes)).await, "none");
    assert_eq!(records(&*engine, "").await, ["a=1", "b=1"]);
    let last = committed(&*engine, commit(read, [update("a", "3")])).await;
    let batch = next_batch(&mut changes).await;
    assert_eq!((batch.version.0, shown(&batch)), (last, "a=3".to_owned()));
}

pub async fn a_conflict_names_a_key_and_a_version_that_shows_it(engine: Arc<dyn Engine>) {
    let read = committed(&*engine, commit(0, [create("a", "1"), create("b", "1"), create("c", "1")])).await;
    let gone = committed(&*engine, commit(read, [delete("b")])).await;
    let changed = committed(&*engine, commit(gone, [update("c", "2")])).await;
    let conflicts = [
        (commit(read, [create("a", "2")]), "a", read),
        (commit(read, [update("a", "2"), update("b", "2")]), "b", gone),
        (commit(read, [delete("b"), update("c", "3")]), "b", changed),
        (guarded(read, [unchanged("c")], [create("d", "1")]), "c", changed),
        (guarded(gone, [nothing_new_under("")], [create("d", "1")]), "c", changed),
    ];
    for (commit, expected, shows_at) in conflicts {
        match engine.commit(commit.clone()).await.unwrap() {
            Outcome::Conflict { key, version } => {
                assert_eq!(key.as_str(), expected, "{commit:?}");
                assert!(version.0 >= shows_at, "{commit:?}: {version} is before {shows_at}");
                // Nobody waits for a version that no follower is ever told of.
                assert!(version.0 <= changed, "{commit:?}: nobody made version {version}");
            }
            Outcome::Committed(version) => panic!("{commit:?} was taken as {version}"),
        }
    }
}

pub async fn a_commit_writes_each_key_once(engine: Arc<dyn Engine>) {
    for twice in [[create("a", "1"), create("a", "2")], [create("a", "1"), delete("a")]] {
        let refused = engine.commit(commit(0, twice)).await;
        assert!(matches!(&refused, Err(Error::DuplicateKey(key)) if key.as_str() == "a"), "{refused:?}");
    }
    assert_eq!(records(&*engine, "").await, [""; 0]);
}

pub async fn keys_that_no_engine_keeps_are_refused(engine: Arc<dyn Engine>) {
    for key in [String::new(), "k".repeat(MAX_KEY + 1)] {
        let refused = engine.commit(commit(0, [create(&key, "1")])).await;
        assert!(matches!(&refused, Err(Error::UnusableKey { length, .. }) if *length == key.len()));
    }
    let longest = "k".repeat(MAX_KEY);
    let read = committed(&*engine, commit(0, [create(&longest, "1")])).await;
    committed(&*engine, commit(read, [update(&longest, "2")])).await;
    assert_eq!(records(&*engine, "").await, [format!("{longest}=2")]);
}

pub async fn a_commit_without_writes_is_a_version(engine: Arc<dyn Engine>) {
    let read = committed(&*engine, commit(0, [create("a", "1")])).await;
    let mut changes = engine.changes(Version(read)).await.unwrap();
    let empty = committed(&*engine, guarded(read, [unchanged("a")], [])).await;
    assert!(empty > read);
    let batch = next_batch(&mut changes).await;
    assert_eq!((batch.version.0, batch.changes.len()), (empty, 0));
    assert_eq!(refused(&*engine, guarded(read, [absent("a")], [])).await, "a");
}

pub async fn racing_writers_lose_no_update(engine: Arc<dyn Engine>) {
    const WRITERS: usize = 8;
    const EACH: usize = 12;
    committed(&*engine, commit(0, [create("counter", "0"), create("sum", "0")])).await;
    let writers = (0..WRITERS).map(|_| {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            for _ in 0..EACH {
                while !try_increment(&*engine).await {}
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let total = WRITERS * EACH;
    assert_eq!(records(&*engine, "").await, [format!("counter={total}"), format!("sum={total}")]);
}

async fn try_increment(engine: &dyn Engine) -> bool {
    let loaded = engine.load("").await.unwrap();
    let mut writes = Vec::new();
    for (key, value) in &loaded.entries {
        let count: u64 = String::from_utf8_lossy(value).parse().unwrap();
        writes.push(Write::Update { key: key.clone(), value: (count + 1).to_string().into() });
    }
    let outcome = engine.commit(commit(loaded.version.0, writes)).await.unwrap();
    matches!(outcome, Outcome::Committed(_))
}

pub async fn racing_creators_have_one_winner(engine: Arc<dyn Engine>) {
    for round in 0..8 {
        let racers: Vec<_> = (0..8)
            .map(|racer| {
                let engine = Arc::clone(&engine);
                let race = commit(0, [create(&format!("prize/{round}"), &racer.to_string())]);
                tokio::spawn(async move { engine.commit(race).await.unwrap() })
            })
            .collect();
        let mut winners = Vec::new();
        for (racer, running) in racers.into_iter().enumerate() {
            if matches!(running.await.unwrap(), Outcome::Committed(_)) {
                winners.push(format!("prize/{round}={racer}"));
            }
        }
        assert_eq!(records(&*engine, &format!("prize/{round}")).await, winners);
    }
}

pub async fn changes_are_complete_and_in_order(engine: Arc<dyn Engine>) {
    let mut version = committed(&*engine, commit(0, [create("before", "1")])).await;
    let since = version;
    let mut expected = Vec::new();
    for step in 0..40 {
        // Half of them before anybody follows.
        let write = if step == 0 { create("n", "0") } else { update("n", &step.to_string()) };
        version = committed(&*engine, commit(version, [write])).await;
        expected.push((version, format!("n={step}")));
        if step == 20 {
            let mut late = engine.changes(Version(expected[9].0)).await.unwrap();
            for (version, change) in &expected[10..] {
                let batch = next_batch(&mut late).await;
                assert_eq!((batch.version.0, shown(&batch)), (*version, change.clone()));
            }
        }
    }
    let mut changes = engine.changes(Version(since)).await.unwrap();
    let after = committed(&*engine, commit(version, [delete("n")])).await;
    expected.push((after, "-n".to_owned()));
    for (version, change) in expected {
        let batch = next_batch(&mut changes).await;
        assert_eq!((batch.version.0, shown(&batch)), (version, change));
    }
}

pub async fn changes_of_one_commit_arrive_together(engine: Arc<dyn Engine>) {
    let mut changes = engine.changes(engine.load("").await.unwrap().version).await.unwrap();
    let first = committed(&*engine, commit(0, (0..60).map(|n| create(&format!("k/{n:02}"), "1")))).await;
    let second =
        committed(&*engine, commit(first, [update("k/05", "2"), delete("k/01"), create("z", "1")])).await;
    let batch = next_batch(&mut changes).await;
    assert_eq!((batch.version.0, batch.changes.len()), (first, 60));
    let batch = next_batch(&mut changes).await;
    assert_eq!((batch.version.0, shown(&batch)), (second, "k/05=2 -k/01 z=1".to_owned()));
}

pub async fn every_follower_sees_the_same(engine: Arc<dyn Engine>) {
    let since = committed(&*engine, commit(0, [create("start", "1")])).await;
    let mut followers = Vec::new();
    for _ in 0..3 {
        followers.push(engine.changes(Version(since)).await.unwrap());
    }
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                for n in 0..25 {
                    committed(&*engine, commit(0, [create(&format!("{writer}/{n}"), "1")])).await;
                }
            })
        })
        .collect();
    let mut seen = vec![Vec::new(); followers.len()];
    for (changes, seen) in followers.iter_mut().zip(&mut seen) {
        for _ in 0..100 {
            let batch = next_batch(changes).await;
            seen.push((batch.version, shown(&batch)));
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(seen[0].is_sorted_by(|a, b| a.0 < b.0));
    assert!(seen.iter().all(|other| *other == seen[0]));
}

pub async fn compacted_changes_are_refused(engine: Arc<dyn Engine>) {
    let first = committed(&*engine, commit(0, [create("a", "1")])).await;
    let second = committed(&*engine, commit(first, [update("a", "2")])).await;
    let third = committed(&*engine, commit(second, [update("a", "3")])).await;
    let mut attached = engine.changes(Version(first)).await.unwrap();
    assert_eq!(next_batch(&mut attached).await.version.0, second);
    engine.compact(Version(second)).await.unwrap();
    let refused = engine.changes(Version(first)).await;
    assert!(matches!(&refused, Err(Error::Compacted { since }) if since.0 == first), "{refused:?}");
    let mut kept = engine.changes(Version(second)).await.unwrap();
    assert_eq!(shown(&*next_batch(&mut kept).await), "a=3");
    // Who follows already misses nothing, the records stay, and compacting again is no error.
    assert_eq!(next_batch(&mut attached).await.version.0, third);
    engine.compact(Version(second)).await.unwrap();
    engine.compact(Version(first)).await.unwrap();
    assert_eq!(records(&*engine, "").await, ["a=3"]);
    assert_eq!(refused_update(&*engine, first).await, "a");
}

async fn refused_update(engine: &dyn Engine, read: u64) -> String {
    refused(engine, commit(read, [update("a", "4")])).await
}

pub async fn a_load_is_of_one_version_and_one_prefix(engine: Arc<dyn Engine>) {
    let pair = |value: &str| [("p/left", value.to_owned()), ("p/right", value.to_owned())];
    let mut version = committed(&*engine, commit(0, pair("0").map(|(k, v)| create(k, &v)))).await;
    committed(&*engine, commit(version, [create("q", "other")])).await;
    let writer = {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            for n in 1..=100 {
                let writes = pair(&n.to_string()).map(|(k, v)| update(k, &v));
                version = committed(&*engine, commit(version, writes)).await;
            }
            version
        })
    };
    let mut before = Version(0);
    while !writer.is_finished() {
        let loaded = engine.load("p/").await.unwrap();
        assert_eq!(loaded.entries.len(), 2);
        assert_eq!(loaded.entries[0].1, loaded.entries[1].1, "at {}", loaded.version);
        assert!(loaded.version >= before);
        before = loaded.version;
    }
    let last = writer.await.unwrap();
    assert_eq!(engine.load("p/").await.unwrap().version, Version(last));
    assert_eq!(records(&*engine, "p/").await, ["p/left=100", "p/right=100"]);
}

pub async fn large_loads_are_complete(engine: Arc<dyn Engine>) {
    let name = |n: usize| format!("many/{n:05}");
    for hundred in 0..23 {
        let writes = (0..100).map(|n| create(&name(hundred * 100 + n), "value"));
        committed(&*engine, commit(0, writes)).await;
    }
    let loaded = engine.load("").await.unwrap();
    let keys: Vec<_> = loaded.entries.iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(keys, (0..2300).map(name).collect::<Vec<_>>());
}

pub async fn values_are_kept_byte_for_byte(engine: Arc<dyn Engine>) {
    let values: [Vec<u8>; 3] = [Vec::new(), (0..=255).collect(), vec![0xff; 400_000]];
    let writes = values.iter().enumerate();
    let writes = writes.map(|(n, value)| Write::Create { key: key(&n.to_string()), value: value.clone() });
    let before = engine.load("").await.unwrap().version;
    let version = committed(&*engine, commit(0, writes)).await;
    let loaded = engine.load("").await.unwrap();
    assert_eq!(loaded.version, Version(version));
    assert!(loaded.entries.iter().map(|(_, value)| &value[..]).eq(values.iter().map(|value| &value[..])));
    let batch = next_batch(&mut engine.changes(before).await.unwrap()).await;
    assert!(
        batch.changes.iter().map(|change| change.value.as_deref()).eq(values.iter().map(|v| Some(&v[..])))
    );
}

pub async fn reset_deletes_everything_and_followers_see_it(engine: Arc<dyn Engine>) {
    let read = committed(&*engine, commit(0, [create("a", "1"), create("b/c", "1")])).await;
    let mut changes = engine.changes(Version(read)).await.unwrap();
    let reset = engine.reset().await.unwrap();
    assert!(reset.0 > read);
    let batch = next_batch(&mut changes).await;
    assert_eq!((batch.version, shown(&batch)), (reset, "-a -b/c".to_owned()));
    assert_eq!(records(&*engine, "").await, [""; 0]);
    assert_eq!(refused(&*engine, commit(reset.0, [update("a", "2")])).await, "a");
    let made = committed(&*engine, commit(reset.0, [create("a", "2")])).await;
    assert!(made > reset.0);
    assert_eq!(next_batch(&mut changes).await.version.0, made);
}

pub async fn reset_of_an_empty_store_is_seen(engine: Arc<dyn Engine>) {
    let mut changes = engine.changes(engine.load("").await.unwrap().version).await.unwrap();
    let reset = engine.reset().await.unwrap();
    let batch = next_batch(&mut changes).await;
    assert_eq!((batch.version, batch.changes.len()), (reset, 0));
}
