//! Exactly once: what comes twice is stored once, and what comes out of turn is refused.

use super::*;

fn from(start: u64, end: u64) -> Batch {
    let message = format!("{start}..{end}");
    let source = SourceRange { source: "c".into(), start, end };
    Batch { source: Some(source), ..batch("g", "s", &[(1, message.as_str())]) }
}

#[tokio::test]
async fn a_range_is_stored_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path(), SMALL);
    assert_eq!(store.append(from(0, 10), Timestamp(1)).await.unwrap(), Appended::Stored);
    for _ in 0..2 {
        assert_eq!(
            store.append(from(0, 10), Timestamp(1)).await.unwrap(),
            Appended::Duplicate { stored: 10 }
        );
        assert_eq!(store.append(from(3, 7), Timestamp(1)).await.unwrap(), Appended::Duplicate { stored: 10 });
        let overlapping = store.append(from(5, 15), Timestamp(1)).await;
        assert!(matches!(overlapping, Err(AppendError::OutOfSequence { stored: 10 })), "{overlapping:?}");
        assert_eq!(store.source_offset(&group("g"), "s", "c"), 10);
        assert_eq!(store.source_offset(&group("g"), "s", "other"), 0);
        drop(store);
        store = open(directory.path(), SMALL);
    }
    assert_eq!(store.append(from(10, 20), Timestamp(1)).await.unwrap(), Appended::Stored);
    assert_eq!(all(&store, "g", "s").await, ["0..10", "10..20"]);
}

#[tokio::test]
async fn batches_of_one_round_are_judged_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), Options::default());
    let appends = (0..20).flat_map(|at| [from(at, at + 1), from(at, at + 1)]).map(|batch| {
        let store = store.clone();
        async move { store.append(batch, Timestamp(1)).await.unwrap() }
    });
    let mut set = tokio::task::JoinSet::new();
    for append in appends {
        set.spawn(append);
        // Spawned in order on one thread, they reach the queue in order.
        tokio::task::yield_now().await;
    }
    let outcomes = set.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Appended::Stored).count(), 20);
    assert_eq!(all(&store, "g", "s").await.len(), 20);
    assert_eq!(store.source_offset(&group("g"), "s", "c"), 20);
}

#[tokio::test]
async fn offsets_outlive_sealing_retention_and_batches_without_events() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), SMALL);
    for at in 0..50 {
        store.append(from(at, at + 1), Timestamp(1)).await.unwrap();
    }
    store.append(Batch { events: vec![], ..from(50, 60) }, Timestamp(1)).await.unwrap();
    store.retain(&group("g"), Timestamp(100)).await.unwrap();
    drop(store);
    let store = open(directory.path(), SMALL);
    assert_eq!(store.source_offset(&group("g"), "s", "c"), 60);
    assert_eq!(all(&store, "g", "s").await, Vec::<String>::new());
    assert_eq!(store.group_bytes(&group("g")), 0);
}

#[tokio::test]
async fn a_deleted_stream_forgets_its_sources_and_takes_up_a_running_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), SMALL);
    store.append(from(0, 10), Timestamp(1)).await.unwrap();
    store.delete_stream(&group("g"), "s").await.unwrap();
    assert_eq!(store.source_offset(&group("g"), "s", "c"), 0);
    assert!(matches!(store.delete_stream(&group("g"), "s").await, Err(StreamError::NoSuchStream)));
    assert_eq!(store.append(from(10, 20), Timestamp(1)).await.unwrap(), Appended::Stored);
    assert_eq!(all(&store, "g", "s").await, ["10..20"]);
}

/// A store whose journal cannot be written.
fn without_disk(directory: &Path) -> LogStore {
    let lock = recover::lock(directory).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let index = RwLock::new(Index::new());
    let shared = Arc::new(Shared { directory: directory.to_owned(), options: SMALL, index });
    let (commands, receiver) = mpsc::channel(writer::QUEUE);
    let journal = Arc::new(index::Journal { number: 1, file });
    let writer = Some(writer::start(shared.clone(), vec![(journal, 0)], receiver).unwrap());
    LogStore { inner: Arc::new(Inner { shared, commands: Some(commands), writer, _lock: lock }) }
}

#[tokio::test]
async fn a_write_that_fails_is_not_answered_and_not_overtaken() {
    let directory = tempfile::tempdir().unwrap();
    let store = without_disk(directory.path());
    for _ in 0..2 {
        let failed = store.append(from(0, 10), Timestamp(1)).await;
        assert!(matches!(failed, Err(AppendError::Io(_))), "{failed:?}");
        let behind = store.append(from(10, 20), Timestamp(1)).await;
        assert!(matches!(behind, Err(AppendError::OutOfSequence { stored: 0 })), "{behind:?}");
    }
    assert!(matches!(store.create_stream(&group("g"), "s", Timestamp(1)).await, Err(StreamError::Io(_))));
    assert!(!store.has_stream(&group("g"), "s"));
}
