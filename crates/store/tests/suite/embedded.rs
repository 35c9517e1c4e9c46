//! What the embedded engine has beside the common behaviour: a directory.

use crate::support::*;
use longshore_model::change::Version;
use longshore_store::embedded::Embedded;
use longshore_store::{Engine, Error};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const CHILD: &str = "LONGSHORE_TEST_OPEN";

#[tokio::test]
async fn a_restart_keeps_records_and_versions() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).await.unwrap();
    let first = committed(&engine, commit(0, [create("a", "1"), create("b", "1"), create("c", "1")])).await;
    let second = committed(&engine, commit(first, [update("a", "2"), delete("b")])).await;
    drop(engine);
    let engine = Embedded::open(directory.path()).await.unwrap();
    assert_eq!(engine.load("").await.unwrap().version, Version(second));
    assert_eq!(records(&engine, "").await, ["a=2", "c=1"]);
    // The versions of the keys are kept too: what conflicted before the restart conflicts after it.
    assert_eq!(refused(&engine, commit(first, [update("a", "3")])).await, "a");
    assert_eq!(refused(&engine, guarded(first, [nothing_new_under("")], [])).await, "a");
    let mut changes = engine.changes(Version(second)).await.unwrap();
    let third = committed(&engine, commit(first, [update("c", "2")])).await;
    assert_eq!(third, second + 1);
    assert_eq!(shown(&*next_batch(&mut changes).await), "c=2");
    let early = engine.changes(Version(first)).await;
    assert!(matches!(early, Err(Error::Compacted { .. })), "{early:?}");
}

#[tokio::test]
async fn a_reset_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).await.unwrap();
    committed(&engine, commit(0, [create("a", "1")])).await;
    let reset = engine.reset().await.unwrap();
    drop(engine);
    let engine = Embedded::open(directory.path()).await.unwrap();
    let loaded = engine.load("").await.unwrap();
    assert_eq!((loaded.version, loaded.entries.len()), (reset, 0));
}

#[tokio::test]
async fn two_handles_cannot_have_one_directory() {
    let directory = tempfile::tempdir().unwrap();
    let held = Embedded::open(directory.path()).await.unwrap();
    let refused = Embedded::open(directory.path()).await.err().unwrap();
    assert_in_use(&refused.to_string(), directory.path());
    // The one that was refused has harmed nothing.
    committed(&held, commit(0, [create("a", "1")])).await;
    drop(held);
    let next = Embedded::open(directory.path()).await.unwrap();
    assert_eq!(records(&next, "").await, ["a=1"]);
}

#[tokio::test]
async fn two_processes_cannot_have_one_directory() {
    let directory = tempfile::tempdir().unwrap();
    let _held = Embedded::open(directory.path()).await.unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::child_opens_a_directory", "--nocapture"])
        .env(CHILD, directory.path())
        .output()
        .unwrap();
    assert!(child.status.success());
    assert_in_use(&String::from_utf8_lossy(&child.stdout), directory.path());
}

/// Does nothing but when another test starts it as a process of its own.
#[tokio::test]
async fn child_opens_a_directory() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    match Embedded::open(Path::new(&directory)).await {
        Ok(_) => println!("opened"),
        Err(error) => println!("{error}"),
    }
}

fn assert_in_use(said: &str, directory: &Path) {
    let expected = format!("another process has the store `{}` open", directory.display());
    assert!(said.contains(&expected), "{said}");
}

#[tokio::test]
async fn a_newer_layout_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(Embedded::open(directory.path()).await.unwrap());
    {
        let database = fjall::Database::builder(directory.path().join("records")).open().unwrap();
        let meta = database.keyspace("meta", fjall::KeyspaceCreateOptions::default).unwrap();
        meta.insert("format", 2u64.to_be_bytes()).unwrap();
        database.persist(fjall::PersistMode::SyncAll).unwrap();
    }
    let refused = Embedded::open(directory.path()).await.err().unwrap();
    assert!(matches!(refused, Error::NewerFormat { found: 2, .. }), "{refused:?}");
}

#[tokio::test]
async fn nobody_else_can_read_the_directory() {
    let parent = tempfile::tempdir().unwrap();
    let made = parent.path().join("made");
    let widened = parent.path().join("widened");
    std::fs::create_dir(&widened).unwrap();
    std::fs::set_permissions(&widened, std::fs::Permissions::from_mode(0o755)).unwrap();
    for directory in [made, widened] {
        let engine = Embedded::open(&directory).await.unwrap();
        committed(&engine, commit(0, [create("secret", "1")])).await;
        // Nothing below is reachable but through it.
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&directory.join("lock")), 0o600);
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_an_error_with_its_name() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    std::fs::write(&file, "").unwrap();
    let refused = Embedded::open(&file.join("store")).await.err().unwrap();
    assert!(refused.to_string().contains("file/store"), "{refused}");
}
