//! Kills and torn writes: what was answered is there, once.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command as Process, Stdio};

use proptest::prelude::*;

use super::*;

fn from(start: u64, end: u64) -> Batch {
    let lines: Vec<String> = (start..end).map(|line| format!("line {line}")).collect();
    let events: Vec<(i64, &str)> = lines.iter().map(|line| (1, line.as_str())).collect();
    let source = SourceRange { source: "c".into(), start, end };
    Batch { source: Some(source), ..batch("g", "s", &events) }
}

fn last_journal(directory: &Path) -> PathBuf {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("journal")).max().unwrap()
}

/// Stores batches in one journal, tears it at `cut` from its end with `junk` behind it, and opens it again.
async fn torn(sizes: Vec<u64>, cut: u64, junk: Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { journal_bytes: u64::MAX, ..SMALL };
    let store = open(directory.path(), options);
    let journal = last_journal(directory.path());
    // After each append: the journal's length, and how far the source is.
    let mut steps = Vec::new();
    let mut offset = 0;
    for size in sizes {
        store.append(from(offset, offset + size), Timestamp(1)).await.unwrap();
        offset += size;
        steps.push((fs::metadata(&journal).unwrap().len(), offset));
    }
    drop(store);
    let length = fs::metadata(&journal).unwrap().len().saturating_sub(cut);
    let mut file = OpenOptions::new().append(true).open(&journal).unwrap();
    file.set_len(length).unwrap();
    file.write_all(&junk).unwrap();

    let store = open(directory.path(), options);
    let wanted = steps.iter().filter(|(end, _)| *end <= length).map(|(_, offset)| *offset).max().unwrap_or(0);
    assert_eq!(store.source_offset(&group("g"), "s", "c"), wanted);
    if wanted > 0 {
        let lines: Vec<String> = (0..wanted).map(|line| format!("line {line}")).collect();
        assert_eq!(all(&store, "g", "s").await, lines);
    }
    store.append(from(wanted, wanted + 3), Timestamp(1)).await.unwrap();
    drop(store);
    let store = open(directory.path(), options);
    assert_eq!(all(&store, "g", "s").await.len() as u64, wanted + 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn a_torn_tail_is_cut_at_the_last_whole_block(
        sizes in proptest::collection::vec(1u64..12, 1..40),
        cut in 0u64..5000,
        junk in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        runtime.block_on(torn(sizes, cut, junk));
    }

    #[test]
    fn damaged_bytes_are_never_taken_for_a_frame(bytes: Vec<u8>, at in 0usize..200, flip in 1u8..) {
        let _ = frame::read_frame(&bytes);
        let mut framed = Vec::new();
        frame::put_frame(&mut framed, frame::Kind::Block, &bytes);
        let at = at % framed.len();
        framed[at] ^= flip;
        prop_assert!(frame::read_frame(&framed).is_none());
        let _ = frame::read_block(&framed);
    }
}

#[tokio::test]
async fn files_that_a_killed_sealing_left_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), SMALL);
    for at in 0..30 {
        store.append(from(at, at + 1), Timestamp(1)).await.unwrap();
    }
    drop(store);
    let groups = directory.path().join("groups");
    let known = groups.join("000000000001");
    fs::write(known.join("000000000999.segment"), "torn").unwrap();
    fs::create_dir(groups.join("000000000777")).unwrap();
    fs::write(groups.join("000000000777/000000000001.segment"), "torn").unwrap();
    let store = open(directory.path(), SMALL);
    assert_eq!(all(&store, "g", "s").await.len(), 30);
    assert!(!known.join("000000000999.segment").exists() && !groups.join("000000000777").exists());
}

#[tokio::test]
async fn sealing_merges_small_segments_and_removes_journals() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), SMALL);
    for at in 0..300 {
        store.append(from(at, at + 1), Timestamp(1)).await.unwrap();
    }
    drop(store);
    let segments = fs::read_dir(directory.path().join("groups/000000000001")).unwrap().count();
    let journals = fs::read_dir(directory.path()).unwrap().count();
    // Three hundred lines fill dozens of journals; beside them are the lock and the groups.
    assert!(segments < 16 && journals <= 3, "{segments} segments, {journals} journals");
    let store = open(directory.path(), SMALL);
    let lines: Vec<String> = (0..300).map(|line| format!("line {line}")).collect();
    assert_eq!(all(&store, "g", "s").await, lines);
}

#[tokio::test]
async fn retention_frees_segments() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), Options { small_segments: 1000, ..SMALL });
    for at in 0..200 {
        store.append(batch("g", "s", &[(at, "a message of some length")]), Timestamp(1)).await.unwrap();
    }
    let files = || fs::read_dir(directory.path().join("groups/000000000001")).unwrap().count();
    store.retain(&group("g"), Timestamp(190)).await.unwrap();
    drop(store);
    assert!(files() < 5, "{} files", files());
    let store = open(directory.path(), SMALL);
    assert_eq!(all(&store, "g", "s").await.len(), 10);
    store.delete_group(&group("g")).await.unwrap();
    drop(store);
    assert!(!directory.path().join("groups/000000000001").exists());
    assert!(!open(directory.path(), SMALL).has_stream(&group("g"), "s"));
}

const CHILD: &str = "LONGSHORE_TEST_LOG_STORE";

/// Not a test of itself: the process that `kill_9` kills. Appends without end and prints what was answered.
#[tokio::test]
async fn append_until_killed() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let store = open(Path::new(&directory), SMALL);
    let mut offset = store.source_offset(&group("g"), "s", "c");
    loop {
        let end = offset + 1 + offset % 7;
        store.append(from(offset, end), Timestamp(1)).await.unwrap();
        offset = end;
        println!("\nstored {offset}");
    }
}

#[tokio::test]
async fn kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut answered = 0;
    for round in 1..=8u64 {
        let mut child = Process::new(std::env::current_exe().unwrap())
            .args(["append_until_killed", "--nocapture", "--test-threads=1"])
            .env(CHILD, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let stop_at = answered + round * 97;
        while answered < stop_at {
            let line = lines.next().expect("the child ended by itself").unwrap();
            if let Some(offset) = line.strip_prefix("stored ") {
                answered = offset.parse().unwrap();
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            // The last line may be torn as well.
            answered = line.strip_prefix("stored ").and_then(|o| o.parse().ok()).unwrap_or(0).max(answered);
        }
        let store = open(directory.path(), SMALL);
        let stored = store.source_offset(&group("g"), "s", "c");
        assert!(stored >= answered, "{answered} were answered, {stored} are stored");
        let wanted: Vec<String> = (0..stored).map(|line| format!("line {line}")).collect();
        assert_eq!(all(&store, "g", "s").await, wanted);
    }
}
