//! Durable commits a second of each engine, at 1 and at 64 clients, beside the floor of the same machine in the same
//! run: append and `fdatasync` for the disk, a bare put for etcd. `--output json` prints them for other programs.
//!
//! `cargo run --release -p longshore-store --example bench_commits`

use longshore_model::change::{Commit, Key, Write};
use longshore_store::embedded::Embedded;
use longshore_store::etcd::{Config, Etcd};
use longshore_store::{Engine, Outcome};
use std::error::Error;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

type Failed = Box<dyn Error + Send + Sync>;

const CLIENTS: [usize; 2] = [1, 64];
/// How long each figure is measured.
const MEASURED: Duration = Duration::from_secs(3);
/// The bytes of a record: about those of a task.
const RECORD: usize = 1024;

struct Figure {
    what: &'static str,
    clients: usize,
    per_second: f64,
    median: Duration,
    p99: Duration,
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--output", "json"] => true,
        _ => return Err("usage: bench_commits [--output json]".into()),
    };
    let directory = tempfile::tempdir()?;
    let mut figures = vec![append_and_sync(&directory.path().join("floor"))?];
    for clients in CLIENTS {
        let path = directory.path().join(format!("embedded-{clients}"));
        let engine: Arc<dyn Engine> = Arc::new(Embedded::open(&path).await?);
        figures
            .push(measure("embedded commit", clients, |client| commits(Arc::clone(&engine), client)).await?);
    }
    let server = EtcdServer::start(&directory.path().join("etcd")).await?;
    for clients in CLIENTS {
        let client = etcd_client::Client::connect([&server.endpoint], None).await?;
        figures.push(measure("etcd bare put", clients, |number| puts(client.clone(), number)).await?);
        let config = Config { prefix: format!("bench-{clients}/"), ..Config::new([&server.endpoint]) };
        let engine: Arc<dyn Engine> = Arc::new(Etcd::connect(config).await?);
        figures.push(measure("etcd commit", clients, |number| commits(Arc::clone(&engine), number)).await?);
    }
    if json {
        print_json(&figures)
    } else {
        print_table(&figures)
    }
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "a benchmark's one reading of the clock")]
fn now() -> Instant {
    Instant::now()
}

/// The disk's own pace: what no store that survives a power cut can exceed with one sync for each commit.
fn append_and_sync(path: &Path) -> Result<Figure, Failed> {
    let mut file = std::fs::File::create(path)?;
    let record = vec![b'x'; RECORD];
    let start = now();
    let mut took = Vec::new();
    while start.elapsed() < MEASURED {
        let before = now();
        file.write_all(&record)?;
        file.sync_data()?;
        took.push(before.elapsed());
    }
    Ok(figure("append + fdatasync", 1, start.elapsed(), took))
}

/// Runs what `client` makes for each number, and counts until the time is over.
async fn measure<C, F>(
    what: &'static str,
    clients: usize,
    client: impl Fn(usize) -> C,
) -> Result<Figure, Failed>
where
    C: FnMut(u64) -> F + Send + 'static,
    F: Future<Output = Result<(), Failed>> + Send,
{
    let start = now();
    let mut running = JoinSet::new();
    for number in 0..clients {
        let mut act = client(number);
        running.spawn(async move {
            let mut took = Vec::new();
            for n in 0.. {
                let before = now();
                if start.elapsed() >= MEASURED {
                    break;
                }
                act(n).await?;
                took.push(before.elapsed());
            }
            Ok::<_, Failed>(took)
        });
    }
    let mut took = Vec::new();
    while let Some(of_one) = running.join_next().await {
        took.extend(of_one??);
    }
    Ok(figure(what, clients, start.elapsed(), took))
}

/// Each client updates a record of its own, as the reports of tasks do: nothing conflicts.
fn commits(
    engine: Arc<dyn Engine>,
    client: usize,
) -> impl FnMut(u64) -> std::pin::Pin<Box<dyn Future<Output = Result<(), Failed>> + Send>> + Send {
    let read = Arc::new(std::sync::atomic::AtomicU64::new(0));
    move |n| {
        let (engine, read) = (Arc::clone(&engine), Arc::clone(&read));
        Box::pin(async move {
            use std::sync::atomic::Ordering::Relaxed;
            let key = Key::new(format!("task/123456789012/us-east-1/default/{client:032x}"));
            let value = vec![b'x'; RECORD];
            let write = if n == 0 { Write::Create { key, value } } else { Write::Update { key, value } };
            let commit = Commit {
                read: longshore_model::change::Version(read.load(Relaxed)),
                guards: Vec::new(),
                writes: vec![write],
            };
            match engine.commit(commit).await? {
                Outcome::Committed(version) => read.store(version.0, Relaxed),
                Outcome::Conflict { key, version } => {
                    return Err(format!("{key} conflicts at {version}").into());
                }
            }
            Ok(())
        })
    }
}

fn puts(
    client: etcd_client::Client,
    number: usize,
) -> impl FnMut(u64) -> std::pin::Pin<Box<dyn Future<Output = Result<(), Failed>> + Send>> + Send {
    move |_| {
        let mut kv = client.kv_client();
        Box::pin(async move {
            kv.put(format!("bare/{number:032x}"), vec![b'x'; RECORD], None).await?;
            Ok(())
        })
    }
}

fn figure(what: &'static str, clients: usize, time: Duration, mut took: Vec<Duration>) -> Figure {
    took.sort_unstable();
    let at = |share: usize| took.get(took.len().saturating_sub(1) * share / 100).copied().unwrap_or_default();
    Figure { what, clients, per_second: took.len() as f64 / time.as_secs_f64(), median: at(50), p99: at(99) }
}

fn print_table(figures: &[Figure]) {
    println!("{:20} {:>8} {:>12} {:>12} {:>12}", "", "clients", "per second", "median µs", "p99 µs");
    for f in figures {
        let (median, p99) = (f.median.as_micros(), f.p99.as_micros());
        println!("{:20} {:>8} {:>12.0} {:>12} {:>12}", f.what, f.clients, f.per_second, median, p99);
    }
}

fn print_json(figures: &[Figure]) {
    let all = figures.iter().map(|f| {
        serde_json::json!({
            "what": f.what,
            "clients": f.clients,
            "per_second": f.per_second.round(),
            "median_us": f.median.as_micros() as u64,
            "p99_us": f.p99.as_micros() as u64,
        })
    });
    println!("{}", serde_json::Value::Array(all.collect()));
}

/// An etcd of one member with its defaults, which ends with its owner.
struct EtcdServer {
    child: Child,
    endpoint: String,
}

impl EtcdServer {
    async fn start(directory: &Path) -> Result<Self, Failed> {
        let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let [client, peer] = [listeners[0].local_addr()?, listeners[1].local_addr()?];
        drop(listeners);
        let (endpoint, peer) = (format!("http://{client}"), format!("http://{peer}"));
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(directory)
            .args(["--name", "bench", "--logger", "zap", "--log-level", "error"])
            .args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("bench={peer}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("start etcd ({error}): install etcd-server, or run ./dev test"))?;
        let mut server = Self { child, endpoint };
        while Etcd::connect(Config::new([&server.endpoint])).await.is_err() {
            if let Some(status) = server.child.try_wait()? {
                return Err(format!("etcd ended with {status}").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(server)
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
