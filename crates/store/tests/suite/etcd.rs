//! What the etcd engine has beside the common behaviour: a server that comes and goes, and neighbours.

use crate::follow::{Texts, open, until};
use crate::support::*;
use longshore_model::change::Version;
use longshore_store::etcd::{Config, Etcd, User};
use longshore_store::{Engine, Error, Followed, Outcome, Store};
use std::sync::Arc;
use std::time::Duration;

#[tokio::test]
async fn prefixes_keep_two_stores_apart() {
    let server = EtcdServer::start().await;
    let ours = server.engine("longshore/").await;
    let theirs = server.engine("longshore-2/").await;
    let mut changes = ours.changes(ours.load("").await.unwrap().version).await.unwrap();
    committed(&theirs, commit(0, [create("a", "theirs")])).await;
    let first = committed(&ours, commit(0, [create("a", "ours")])).await;
    theirs.reset().await.unwrap();
    let batch = next_batch(&mut changes).await;
    assert_eq!((batch.version.0, shown(&batch)), (first, "a=ours".to_owned()));
    assert_eq!(records(&ours, "").await, ["a=ours"]);
    assert_eq!(records(&theirs, "").await, [""; 0]);
}

#[tokio::test]
async fn a_commit_that_etcd_would_refuse_is_too_large() {
    let server = EtcdServer::start().await;
    let engine = server.engine("longshore/").await;
    let creates = |count| commit(0, (0..count).map(|n| create(&format!("{n:03}"), "1")));
    let refused = engine.commit(creates(128)).await;
    // The conflict's answer reads every key and the mark.
    assert!(matches!(refused, Err(Error::TooLarge { size: 129, limit: 128 })), "{refused:?}");
    let read = committed(&engine, creates(127)).await;
    let updates = |count| commit(read, (0..count).map(|n| update(&format!("{n:03}"), "2")));
    let refused = engine.commit(updates(65)).await;
    assert!(matches!(refused, Err(Error::TooLarge { size: 130, limit: 128 })), "{refused:?}");
    committed(&engine, updates(64)).await;
}

#[tokio::test]
async fn an_address_without_an_etcd_is_an_error() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = Etcd::connect(Config::new([format!("http://{nobody}")])).await.err().unwrap();
    assert!(matches!(refused, Error::Backend { .. }), "{refused:?}");
    let refused = Etcd::connect(Config::new(["not an address"])).await.err().unwrap();
    assert!(matches!(refused, Error::Backend { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_follower_goes_on_after_the_server_restarts() {
    let mut server = EtcdServer::start().await;
    let engine = Arc::new(server.engine("longshore/").await);
    let store: Store<Texts> = open(engine.clone()).await;
    let mut follower = store.follow();
    let first = committed(&*engine, commit(0, [create("a", "1")])).await;
    until(&store, "a", "1").await;
    server.kill();
    let lost = engine.commit(commit(first, [update("a", "never")])).await;
    assert!(matches!(lost, Err(Error::Unsure(_))), "{lost:?}");
    server.start_again(true).await;
    let other = server.engine("longshore/").await;
    let second = committed(&other, commit(first, [update("a", "2")])).await;
    until(&store, "a", "2").await;
    // The same connection commits again, and nothing came twice or went missing.
    let third = store.commit(commit(second, [update("a", "3")])).await.unwrap();
    assert!(matches!(third, Outcome::Committed(_)), "{third:?}");
    for expected in ["a=1", "a=2", "a=3"] {
        let Some(Followed::Batch(batch)) = follower.next().await else { panic!("no batch") };
        assert_eq!(shown(&batch), expected);
    }
}

#[tokio::test]
async fn a_follower_that_was_away_too_long_starts_again_from_a_snapshot() {
    let mut server = EtcdServer::start().await;
    let address = server.endpoint.clone();
    let engine = Arc::new(server.engine("longshore/").await);
    let first = committed(&*engine, commit(0, [create("a", "1"), create("gone", "1")])).await;
    let store: Store<Texts> = open(engine.clone()).await;
    let mut follower = store.follow();
    // Elsewhere the server serves others, who write and forget.
    server.kill();
    server.start_again(false).await;
    let other = server.engine("longshore/").await;
    let mut version = committed(&other, commit(first, [delete("gone")])).await;
    for n in 2..=20 {
        version = committed(&other, commit(version, [update("a", &n.to_string())])).await;
    }
    other.compact(Version(version)).await.unwrap();
    server.kill();
    server.endpoint = address;
    server.start_again(true).await;
    let told = tokio::time::timeout(Duration::from_secs(30), follower.next()).await.unwrap();
    assert!(matches!(told, Some(Followed::Restarted)), "{told:?}");
    let snapshot = store.snapshot();
    assert_eq!(snapshot.view.0, [("a".to_owned(), "20".to_owned())].into());
    store.commit(commit(snapshot.version.0, [update("a", "21")])).await.unwrap();
    let Some(Followed::Batch(batch)) = follower.next().await else { panic!("no batch") };
    assert_eq!(shown(&batch), "a=21");
}

#[tokio::test]
async fn a_user_and_password_open_a_guarded_etcd() {
    let server = EtcdServer::start().await;
    let mut client = etcd_client::Client::connect([&server.endpoint], None).await.unwrap();
    client.user_add("root", "right", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.auth_enable().await.unwrap();
    let config = |password: Option<&str>| {
        let user = password.map(|p| User { name: "root".to_owned(), password: p.to_owned() });
        Config { user, ..Config::new([&server.endpoint]) }
    };
    assert!(Etcd::connect(config(None)).await.is_err());
    assert!(Etcd::connect(config(Some("wrong"))).await.is_err());
    let engine = Arc::new(Etcd::connect(config(Some("right"))).await.unwrap());
    let store: Store<Texts> = open(engine).await;
    let taken = store.commit(commit(store.snapshot().version.0, [create("a", "1")])).await.unwrap();
    assert!(matches!(taken, Outcome::Committed(_)), "{taken:?}");
}
