//! What was acknowledged survives `kill -9`, and no commit is half there.

use crate::support::*;
use longshore_store::embedded::Embedded;
use longshore_store::{Engine, Outcome};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use tokio::task::JoinSet;

const CHILD: &str = "LONGSHORE_TEST_WRITE";
const ROUND: &str = "LONGSHORE_TEST_ROUND";
const WRITERS: u64 = 6;
const ROUNDS: u64 = 8;

#[tokio::test]
async fn acknowledged_commits_survive_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut chance = Chance(20);
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        acknowledged.extend(write_until_killed(directory.path(), round, 1 + chance.below(400)));
        let engine = Embedded::open(directory.path()).await.unwrap();
        check_whole(&engine, &acknowledged, round).await;
    }
    assert!(acknowledged.len() as u64 >= ROUNDS);
}

/// Starts a process that writes, kills it after some acknowledgements, and returns those that it printed.
fn write_until_killed(directory: &Path, round: u64, after: u64) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::child_writes_until_it_is_killed", "--nocapture"])
        .env(CHILD, directory)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut acknowledged = Vec::new();
    let mut take = |line: String| acknowledged.extend(line.strip_prefix("acknowledged ").map(str::to_owned));
    let mut seen = 0;
    while seen < after {
        let line = lines.next().expect("the writer ended by itself");
        seen += u64::from(line.starts_with("acknowledged "));
        take(line);
    }
    // SIGKILL. What it has printed by then is still in the pipe, and counts.
    child.kill().unwrap();
    child.wait().unwrap();
    lines.for_each(take);
    acknowledged
}

/// Each commit creates two records and moves its writer's counter on.
async fn check_whole(engine: &dyn Engine, acknowledged: &BTreeSet<String>, round: u64) {
    let loaded = engine.load("").await.unwrap();
    let text = |value: &Arc<[u8]>| String::from_utf8_lossy(value).into_owned();
    let all: BTreeMap<String, String> =
        loaded.entries.iter().map(|(key, value)| (key.to_string(), text(value))).collect();
    let under = |table: &str| -> BTreeMap<String, String> {
        let of_table = all.iter().filter_map(|(k, v)| Some((k.strip_prefix(table)?.to_owned(), v.clone())));
        of_table.collect()
    };
    let (left, right, counters) = (under("left/"), under("right/"), under("counter/"));
    assert_eq!(left, right, "half a commit in round {round}");
    for id in acknowledged {
        assert!(left.contains_key(id), "{id} was acknowledged and is lost in round {round}");
    }
    let mut written: BTreeMap<String, u64> = BTreeMap::new();
    for id in left.keys() {
        let (writer, _) = id.rsplit_once('-').unwrap();
        *written.entry(writer.to_owned()).or_default() += 1;
    }
    let counted: BTreeMap<String, u64> =
        counters.into_iter().map(|(writer, count)| (writer, count.parse().unwrap())).collect();
    assert_eq!(counted, written, "half a commit in round {round}");
    assert_eq!(loaded.version.0, left.len() as u64, "the version is not that of the last commit");
}

/// Does nothing but when another test starts it as a process of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_writes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let round = std::env::var(ROUND).unwrap();
    let engine = Arc::new(Embedded::open(Path::new(&directory)).await.unwrap());
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(Arc::clone(&engine), format!("{round}.{writer}")));
    }
    writers.join_all().await;
}

async fn write(engine: Arc<Embedded>, writer: String) {
    let counter = format!("counter/{writer}");
    let mut read = 0;
    for n in 1.. {
        let id = format!("{writer}-{n}");
        let count = if n == 1 { create(&counter, "1") } else { update(&counter, &n.to_string()) };
        let padding = "x".repeat(n % 3000);
        let value = format!("{id} {padding}");
        let writes = [create(&format!("left/{id}"), &value), count, create(&format!("right/{id}"), &value)];
        match engine.commit(commit(read, writes)).await.unwrap() {
            Outcome::Committed(version) => read = version.0,
            conflict => panic!("{conflict:?}"),
        }
        // One write call, so that a line is there whole or not at all.
        std::io::stdout().write_all(format!("acknowledged {id}\n").as_bytes()).unwrap();
    }
}
