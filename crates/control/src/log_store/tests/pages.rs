//! Pages, tokens and lists.

use std::os::unix::fs::PermissionsExt;

use super::*;

async fn check(store: &LogStore, query: &GetEvents, wanted: &[&str]) -> EventsPage {
    let page = store.get_events(query.clone()).await.unwrap();
    assert_eq!(messages(&page), wanted, "{query:?}");
    page
}

#[tokio::test]
async fn tokens_lead_both_ways_and_stay_at_the_ends() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), SMALL);
    store
        .append(batch("g", "s", &[(10, "a"), (20, "b"), (20, "c"), (30, "d"), (40, "e")]), Timestamp(1))
        .await
        .unwrap();

    let mut query = GetEvents { limit: 2, ..get("g", "s") };
    let first = check(&store, &query, &["a", "b"]).await;
    query.token = Some(first.next_backward.clone());
    let before = check(&store, &query, &[]).await;
    assert_eq!(before.next_backward, first.next_backward);
    query.token = Some(first.next_forward);
    let second = check(&store, &query, &["c", "d"]).await;
    query.token = Some(second.next_forward);
    let third = check(&store, &query, &["e"]).await;
    query.token = Some(third.next_forward.clone());
    let end = check(&store, &query, &[]).await;
    assert_eq!(end.next_forward, third.next_forward);
    store.append(batch("g", "s", &[(50, "f")]), Timestamp(2)).await.unwrap();
    check(&store, &query, &["f"]).await;
    query.token = Some(third.next_backward);
    let back = check(&store, &query, &["c", "d"]).await;
    query.token = Some(back.next_backward);
    check(&store, &query, &["a", "b"]).await;

    query = GetEvents { from_head: false, limit: 2, ..get("g", "s") };
    let newest = check(&store, &query, &["e", "f"]).await;
    query.token = Some(newest.next_forward.clone());
    assert_eq!(check(&store, &query, &[]).await.next_forward, newest.next_forward);
    query.token = Some(newest.next_backward);
    check(&store, &query, &["c", "d"]).await;
}

#[tokio::test]
async fn time_ranges_and_late_events() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), SMALL);
    store.append(batch("g", "s", &[(10, "a"), (30, "c")]), Timestamp(1)).await.unwrap();
    store.append(batch("g", "s", &[(20, "b"), (40, "d")]), Timestamp(2)).await.unwrap();
    check(&store, &get("g", "s"), &["a", "b", "c", "d"]).await;
    let query = GetEvents { start: Some(Timestamp(20)), end: Some(Timestamp(40)), ..get("g", "s") };
    check(&store, &query, &["b", "c"]).await;
    let page = store
        .filter_events(FilterEvents { start: Some(Timestamp(20)), end: Some(Timestamp(40)), ..filter("g") })
        .await
        .unwrap();
    let found: Vec<&str> = page.events.iter().map(|found| found.event.message.as_str()).collect();
    assert_eq!(found, ["b", "c", "d"]);
}

#[tokio::test]
async fn an_empty_stream_can_be_followed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), SMALL);
    store.create_stream(&group("g"), "s", Timestamp(7)).await.unwrap();
    assert!(matches!(
        store.create_stream(&group("g"), "s", Timestamp(8)).await,
        Err(StreamError::AlreadyExists)
    ));
    for from_head in [true, false] {
        let mut query = GetEvents { from_head, ..get("g", "s") };
        let page = check(&store, &query, if from_head { &[] } else { &["a"] }).await;
        query.token = Some(page.next_forward);
        if from_head {
            store.append(batch("g", "s", &[(5, "a")]), Timestamp(9)).await.unwrap();
            check(&store, &query, &["a"]).await;
        }
    }
    assert!(matches!(store.get_events(get("g", "other")).await, Err(ReadError::NoSuchStream)));
    for token in ["", "f/1/s", "x", "b/3", "f/4000/s"] {
        let query = GetEvents { token: Some(token.into()), ..get("g", "s") };
        assert!(matches!(store.get_events(query).await, Err(ReadError::InvalidToken)), "{token}");
    }
}

#[tokio::test]
async fn a_page_is_a_mebibyte_at_most() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), Options::default());
    let long = "x".repeat(200_000);
    for at in 0..12 {
        store.append(batch("g", "s", &[(at, &long)]), Timestamp(1)).await.unwrap();
    }
    let mut query = get("g", "s");
    let page = store.get_events(query.clone()).await.unwrap();
    assert_eq!(page.events.len(), 5);
    query.token = Some(page.next_forward);
    assert_eq!(store.get_events(query).await.unwrap().events.len(), 5);
    let tail = GetEvents { from_head: false, ..get("g", "s") };
    let times: Vec<i64> =
        store.get_events(tail).await.unwrap().events.iter().map(|event| event.timestamp.millis()).collect();
    assert_eq!(times, [7, 8, 9, 10, 11]);
}

#[tokio::test]
async fn filtering_merges_streams_and_goes_on_where_it_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), SMALL);
    for at in 0..100 {
        let (stream, level) = (format!("s{}", at % 3), if at % 5 == 0 { "ERROR" } else { "INFO" });
        store.append(batch("g", &stream, &[(at, &format!("{level} {at}"))]), Timestamp(at)).await.unwrap();
    }
    store.append(batch("other", "s0", &[(1, "ERROR elsewhere")]), Timestamp(1)).await.unwrap();
    let pattern = Pattern::parse("ERROR").unwrap();
    for (streams, modulus) in [
        (StreamSelection::All, 5),
        (StreamSelection::Prefix("s".into()), 5),
        (StreamSelection::Named(vec!["s0".into(), "s0".into()]), 15),
    ] {
        let mut query = FilterEvents { streams, pattern: pattern.clone(), limit: 3, ..filter("g") };
        let mut found = Vec::new();
        for call in 0.. {
            assert!(call < 200, "no end");
            let page = store.filter_events(query.clone()).await.unwrap();
            found.extend(page.events.iter().map(|found| found.event.timestamp.millis()));
            query.token = page.next_token;
            if query.token.is_none() {
                break;
            }
        }
        let wanted: Vec<i64> = (0..100).filter(|at| at % modulus == 0).collect();
        assert_eq!(found, wanted, "{query:?}");
    }
    let missing = FilterEvents { streams: StreamSelection::Named(vec!["x".into()]), ..filter("g") };
    assert!(matches!(store.filter_events(missing).await, Err(ReadError::NoSuchStream)));
}

#[tokio::test]
async fn streams_are_listed_in_both_orders() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), SMALL);
    for (name, time) in [("web/a", 30), ("web/b", 10), ("api/c", 20)] {
        store.append(batch("g", name, &[(time, "x"), (time + 1, "yy")]), Timestamp(time + 5)).await.unwrap();
    }
    store.create_stream(&group("g"), "web/none", Timestamp(99)).await.unwrap();
    let check = |query: DescribeStreams, wanted: &[&str]| {
        let mut query = DescribeStreams { limit: 2, ..query };
        let mut found = Vec::new();
        loop {
            let page = store.describe_streams(&query).unwrap();
            assert!(page.streams.len() <= 2);
            found.extend(page.streams.into_iter().map(|stream| stream.name.to_string()));
            query.token = page.next_token;
            if query.token.is_none() {
                break;
            }
        }
        assert_eq!(found, wanted, "{query:?}");
    };
    check(describe("g"), &["api/c", "web/a", "web/b", "web/none"]);
    check(DescribeStreams { descending: true, ..describe("g") }, &["web/none", "web/b", "web/a", "api/c"]);
    check(DescribeStreams { prefix: Some("web/".into()), ..describe("g") }, &["web/a", "web/b", "web/none"]);
    let by_time = DescribeStreams { order_by: OrderBy::LastEventTime, ..describe("g") };
    check(by_time.clone(), &["web/none", "web/b", "api/c", "web/a"]);
    check(DescribeStreams { descending: true, ..by_time }, &["web/a", "api/c", "web/b", "web/none"]);
    check(describe("unknown"), &[]);

    let stream = &store.describe_streams(&describe("g")).unwrap().streams[0];
    assert_eq!((stream.first_event, stream.last_event), (Some(Timestamp(20)), Some(Timestamp(21))));
    assert_eq!((stream.created, stream.last_ingestion), (Timestamp(25), Some(Timestamp(25))));
    assert_eq!((stream.stored_bytes, store.group_bytes(&group("g"))), (55, 165));
}

#[tokio::test]
async fn limits_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), SMALL);
    let check = async |events: Vec<LogEvent>, ok: bool| {
        let outcome = store.append(Batch { events, ..batch("g", "s", &[]) }, Timestamp(1)).await;
        assert_eq!(outcome.is_ok(), ok, "{outcome:?}");
        assert!(ok || matches!(outcome, Err(AppendError::Refused(_))));
    };
    let event = |length: usize| LogEvent { timestamp: Timestamp(1), message: "x".repeat(length) };
    check(vec![], false).await;
    check(vec![event(MAX_MESSAGE_BYTES)], true).await;
    check(vec![event(MAX_MESSAGE_BYTES + 1)], false).await;
    check(vec![event(1); MAX_BATCH_EVENTS], true).await;
    check(vec![event(1); MAX_BATCH_EVENTS + 1], false).await;
    check(vec![event(MAX_BATCH_BYTES / 4 - EVENT_OVERHEAD); 4], true).await;
    check(vec![event(MAX_BATCH_BYTES / 4); 4], false).await;
    check(vec![LogEvent { timestamp: Timestamp(-1), message: "x".into() }], false).await;
    let missing = Batch { create_stream: false, ..batch("g", "new", &[(1, "x")]) };
    assert!(matches!(store.append(missing, Timestamp(1)).await, Err(AppendError::NoSuchStream)));
}

#[tokio::test]
async fn only_the_owner_can_read_and_only_one_process_can_open() {
    fn check(path: &Path) {
        let mode = std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        if path.is_dir() {
            assert_eq!(mode, 0o700, "{}", path.display());
            std::fs::read_dir(path).unwrap().for_each(|entry| check(&entry.unwrap().path()));
        } else {
            assert_eq!(mode, 0o600, "{}", path.display());
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("logs");
    let store = open(&path, SMALL);
    for at in 0..50 {
        store
            .append(batch("../../etc", "../s", &[(at, "a message of some length")]), Timestamp(1))
            .await
            .unwrap();
    }
    assert!(matches!(LogStore::open(&path, SMALL), Err(OpenError::InUse(_))));
    drop(store);
    assert!(path.join("groups/000000000001").is_dir());
    check(&path);
    assert_eq!(all(&open(&path, SMALL), "../../etc", "../s").await.len(), 50);
}

#[test]
fn event_ids_sort_as_events_do() {
    let id = |timestamp, sequence| EventId { timestamp: Timestamp(timestamp), sequence };
    let ids = [id(0, 0), id(0, u64::MAX), id(1, 1), id(i64::MAX, 1), id(i64::MAX, u64::MAX)];
    for pair in ids.windows(2) {
        assert!(pair[0] < pair[1] && pair[0].to_string() < pair[1].to_string());
    }
    for id in ids {
        assert_eq!((id.to_string().len(), id.to_string().parse()), (56, Ok(id)));
    }
}
