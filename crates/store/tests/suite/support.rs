//! Engines to test, and short ways to write commits.

use longshore_model::change::{Batch, Commit, Guard, Key, Version, Write};
use longshore_store::embedded::Embedded;
use longshore_store::etcd::{Config, Etcd};
use longshore_store::memory::Memory;
use longshore_store::{Changes, Engine, Event, Outcome};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

pub async fn memory() -> (Arc<dyn Engine>, ()) {
    (Arc::new(Memory::default()), ())
}

pub async fn embedded() -> (Arc<dyn Engine>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(&directory.path().join("store")).await.unwrap();
    (Arc::new(engine), directory)
}

pub async fn etcd() -> (Arc<dyn Engine>, EtcdServer) {
    let server = EtcdServer::start().await;
    let engine = server.engine("longshore/").await;
    // Others use the same etcd: revisions of theirs lie between ours.
    server.engine("others/").await.commit(commit(0, [create("a", "1")])).await.unwrap();
    (Arc::new(engine), server)
}

/// Fails a test that hangs, so that it tells where it stands instead of holding up all others.
pub async fn in_time(test: impl Future<Output = ()>) {
    let ended = tokio::time::timeout(Duration::from_secs(300), test).await;
    assert!(ended.is_ok(), "the test hangs");
}

/// A real etcd of one member, on ports of its own. It ends with its owner, also when a test fails.
pub struct EtcdServer {
    child: Child,
    pub endpoint: String,
    directory: tempfile::TempDir,
}

impl EtcdServer {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Somebody else may take a free port before etcd does.
        for _ in 0..5 {
            let [client, peer] = free_ports();
            let mut child = spawn_etcd(directory.path(), client, peer);
            let endpoint = format!("http://127.0.0.1:{client}");
            if is_ready(&mut child, &endpoint).await {
                return Self { child, endpoint, directory };
            }
        }
        panic!("etcd does not start:\n{}", log_of(directory.path()));
    }

    pub async fn engine(&self, prefix: &str) -> Etcd {
        let config = Config { prefix: prefix.to_owned(), ..Config::new([&self.endpoint]) };
        Etcd::connect(config).await.unwrap()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on what it had; followers of `endpoint` find it only when `reachable`.
    pub async fn start_again(&mut self, reachable: bool) {
        let mut ports = free_ports();
        if reachable {
            ports[0] = self.endpoint.rsplit(':').next().unwrap().parse().unwrap();
        }
        self.child = spawn_etcd(self.directory.path(), ports[0], ports[1]);
        let endpoint = format!("http://127.0.0.1:{}", ports[0]);
        assert!(is_ready(&mut self.child, &endpoint).await, "{}", log_of(self.directory.path()));
        if !reachable {
            self.endpoint = endpoint;
        }
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn spawn_etcd(directory: &Path, client: u16, peer: u16) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log_path(directory)).unwrap();
    let url = |port| format!("http://127.0.0.1:{port}");
    let spawned = Command::new("etcd")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .arg("--data-dir")
        .arg(directory.join("data"))
        .args(["--name", "test", "--logger", "zap", "--log-level", "error"])
        .args(["--heartbeat-interval", "20", "--election-timeout", "100"])
        .args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)])
        .args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)])
        .args(["--initial-cluster", &format!("test={}", url(peer))])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            panic!("etcd is missing: install etcd-server, or run ./dev test")
        }
        Err(error) => panic!("start etcd: {error}"),
    }
}

async fn is_ready(child: &mut Child, endpoint: &str) -> bool {
    // The time limit only turns a hanging test into a failing one.
    let ready = async {
        while child.try_wait().unwrap().is_none() {
            let answer = tokio::time::timeout(Duration::from_secs(1), Etcd::connect(Config::new([endpoint])));
            if matches!(answer.await, Ok(Ok(_))) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    };
    tokio::time::timeout(Duration::from_secs(60), ready).await.unwrap_or(false)
}

fn log_path(directory: &Path) -> PathBuf {
    directory.join("etcd.log")
}

fn log_of(directory: &Path) -> String {
    std::fs::read_to_string(log_path(directory)).unwrap_or_default()
}

pub fn key(path: &str) -> Key {
    Key::new(path)
}

pub fn create(path: &str, value: &str) -> Write {
    Write::Create { key: key(path), value: value.into() }
}

pub fn update(path: &str, value: &str) -> Write {
    Write::Update { key: key(path), value: value.into() }
}

pub fn delete(path: &str) -> Write {
    Write::Delete { key: key(path) }
}

pub fn unchanged(path: &str) -> Guard {
    Guard::Unchanged(key(path))
}

pub fn absent(path: &str) -> Guard {
    Guard::Absent(key(path))
}

pub fn nothing_new_under(prefix: &str) -> Guard {
    Guard::NothingNewUnder(prefix.to_owned())
}

pub fn commit(read: u64, writes: impl IntoIterator<Item = Write>) -> Commit {
    guarded(read, [], writes)
}

pub fn guarded(
    read: u64,
    guards: impl IntoIterator<Item = Guard>,
    writes: impl IntoIterator<Item = Write>,
) -> Commit {
    Commit { read: Version(read), guards: guards.into_iter().collect(), writes: writes.into_iter().collect() }
}

/// Commits, and says which version it made.
pub async fn committed(engine: &dyn Engine, commit: Commit) -> u64 {
    match engine.commit(commit.clone()).await.unwrap() {
        Outcome::Committed(version) => version.0,
        Outcome::Conflict { key, version } => panic!("{commit:?} conflicts with {key} at {version}"),
    }
}

/// Commits what must not be taken, and says which key it conflicts with.
pub async fn refused(engine: &dyn Engine, commit: Commit) -> String {
    match engine.commit(commit.clone()).await.unwrap() {
        Outcome::Conflict { key, .. } => key.to_string(),
        Outcome::Committed(version) => panic!("{commit:?} was taken as {version}"),
    }
}

/// The records under a prefix, as `key=value`.
pub async fn records(engine: &dyn Engine, prefix: &str) -> Vec<String> {
    let loaded = engine.load(prefix).await.unwrap();
    loaded.entries.iter().map(|(key, value)| format!("{key}={}", String::from_utf8_lossy(value))).collect()
}

pub async fn next_batch(changes: &mut Changes) -> Arc<Batch> {
    // The time limit only turns a hanging test into a failing one.
    match tokio::time::timeout(Duration::from_secs(30), changes.next()).await {
        Ok(Some(Event::Batch(batch))) => batch,
        other => panic!("no batch but {other:?}"),
    }
}

/// A batch as text: `key=value` for what was written, `-key` for what was deleted.
pub fn shown(batch: &Batch) -> String {
    let changes = batch.changes.iter().map(|change| match &change.value {
        Some(value) => format!("{}={}", change.key, String::from_utf8_lossy(value)),
        None => format!("-{}", change.key),
    });
    changes.collect::<Vec<_>>().join(" ")
}

/// Numbers that look random and are the same in every run.
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
