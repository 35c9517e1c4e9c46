//! A containerd of our own, under the data directory. Invariant: containers outlive containerd, and containerd outlives
//! us: whoever comes next finds it by its socket and adopts it.

mod cleanup;
mod process;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use containerd_client::services::v1::PluginsRequest;
use sha2::{Digest, Sha256};
use tokio::{sync::watch, task::JoinHandle};

use self::process::Process;
use super::{
    Error as RuntimeError,
    client::{Client, failed},
};

/// A running containerd. Dropping it leaves containerd running.
pub struct Containerd {
    layout: Layout,
    external: bool,
    snapshotter: String,
    supervision: Option<Supervision>,
}

struct Supervision {
    stopping: Arc<AtomicBool>,
    process: watch::Receiver<Process>,
    task: JoinHandle<()>,
}

/// Where everything of one data directory is.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Eight hexadecimal digits of the data directory's path: the name of everything we make on the machine.
    pub hash: String,
    /// What is kept: content, snapshots, the log.
    pub dir: PathBuf,
    /// What ends with the machine: sockets, bundles. Not under the data directory: a socket's path has 108 bytes at most.
    pub state: PathBuf,
    pub address: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "`{0}` is not on this machine: `./dev up` installs it, or install the packages containerd and runc, or give the \
         address of a containerd"
    )]
    Missing(&'static str),
    #[error("{attempted}")]
    Io {
        attempted: String,
        #[source]
        cause: io::Error,
    },
    #[error("containerd does not come up; the end of {log}:\n{tail}")]
    NotReady { log: String, tail: String },
    #[error("no containerd answers at {address}: {message}")]
    NoAnswer { address: String, message: String },
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

impl Containerd {
    /// Adopts the containerd of `data_dir`, or starts it.
    pub async fn start(data_dir: &Path) -> Result<Self, Error> {
        let layout = Layout::of(data_dir)?;
        let process = adopt_or_spawn(&layout).await?;
        let snapshotter = snapshotter(&layout.client()?).await?;
        let supervision = Some(supervise(layout.clone(), process));
        Ok(Self { layout, external: false, snapshotter, supervision })
    }

    /// Uses a containerd that somebody else runs; ours are only the namespaces.
    pub async fn external(data_dir: &Path, address: &Path) -> Result<Self, Error> {
        let layout = Layout { address: address.to_owned(), ..Layout::of(data_dir)? };
        let client = layout.client()?;
        if let Err(status) = client.version().version(()).await {
            let address = address.display().to_string();
            return Err(Error::NoAnswer { address, message: status.message().to_owned() });
        }
        let snapshotter = snapshotter(&client).await?;
        Ok(Self { layout, external: true, snapshotter, supervision: None })
    }

    pub fn address(&self) -> &Path {
        &self.layout.address
    }

    pub fn snapshotter(&self) -> &str {
        &self.snapshotter
    }

    /// Eight hexadecimal digits that belong to the data directory.
    pub fn hash(&self) -> &str {
        &self.layout.hash
    }

    /// For files that must not outlive the machine's uptime.
    pub fn state_dir(&self) -> &Path {
        &self.layout.state
    }

    /// The containerd namespace of the `instance`-th instance of this data directory.
    pub fn namespace(&self, instance: usize) -> String {
        format!("{}{instance}", self.layout.namespace_prefix())
    }

    /// What a runtime of the `instance`-th instance needs.
    pub fn config(
        &self,
        instance: usize,
        mirrors: std::collections::BTreeMap<String, Vec<String>>,
    ) -> super::Config {
        super::Config {
            address: self.layout.address.clone(),
            containerd_state: self.layout.containerd_state(self.external),
            namespace: self.namespace(instance),
            snapshotter: self.snapshotter.clone(),
            state_dir: self.layout.state.join("instances"),
            mirrors,
        }
    }

    /// Its process, when it is ours.
    pub fn pid(&self) -> Option<u32> {
        self.supervision.as_ref().map(|s| s.process.borrow().pid())
    }

    /// Stops containerd; containers go on.
    pub async fn stop(&self) -> Result<(), Error> {
        let Some(supervision) = &self.supervision else { return Ok(()) };
        supervision.stopping.store(true, Ordering::SeqCst);
        let process = supervision.process.borrow().clone();
        supervision.task.abort();
        process.stop().await.map_err(io_error("stop containerd"))
    }

    /// Removes everything of ours from the machine but the data directory: containers, snapshots of containers, leases,
    /// containerd itself, mounts, shims, cgroups. Images stay.
    pub async fn down(self) -> Result<(), Error> {
        cleanup::down(self).await
    }

    /// As [`Containerd::down`] for a data directory whose server does not run.
    pub async fn down_dir(data_dir: &Path) -> Result<(), Error> {
        let layout = Layout::of(data_dir)?;
        if layout.dir.join("root").exists() {
            return Self::start(data_dir).await?.down().await;
        }
        cleanup::leftovers(&layout).await
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Some(supervision) = &self.supervision {
            supervision.stopping.store(true, Ordering::SeqCst);
            supervision.task.abort();
        }
    }
}

impl Layout {
    fn of(data_dir: &Path) -> Result<Self, Error> {
        let attempted = || format!("use the data directory {}", data_dir.display());
        let io = |cause| Error::Io { attempted: attempted(), cause };
        std::fs::create_dir_all(data_dir).map_err(io)?;
        let data_dir = data_dir.canonicalize().map_err(io)?;
        let digest = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
        let hash = hex::encode(digest.get(..4).unwrap_or_default());
        let state = Path::new("/run/longshore").join(&hash);
        Ok(Self { address: state.join("containerd.sock"), dir: data_dir.join("containerd"), hash, state })
    }

    fn client(&self) -> Result<Client, RuntimeError> {
        Client::new(&self.address, &format!("{}0", self.namespace_prefix()))
    }

    fn namespace_prefix(&self) -> String {
        format!("longshore-{}-", self.hash)
    }

    /// Of somebody else's containerd it is the directory of its socket, as containerd is set up by default.
    pub(crate) fn containerd_state(&self, external: bool) -> PathBuf {
        if external {
            return self.address.parent().unwrap_or(&self.state).to_owned();
        }
        self.state.join("containerd")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("containerd.log")
    }
}

/// The capabilities that this process has and so can give, as the kernel's bits.
pub(crate) fn capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let bits = |name: &str| set(name).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
    bits("CapEff:") & bits("CapBnd:")
}

/// Whether this process may lower an out-of-memory score: CAP_SYS_RESOURCE.
pub(crate) fn can_lower_oom_score() -> bool {
    const SYS_RESOURCE: u32 = 24;
    capabilities() >> SYS_RESOURCE & 1 == 1
}

async fn adopt_or_spawn(layout: &Layout) -> Result<Process, Error> {
    let mut found = process::find(layout);
    if let Some(any) = found.first() {
        let answers = await_ready(layout, any, Duration::from_secs(10)).await.is_ok();
        let serving = process::serving(layout).filter(|_| answers);
        let adopted = found.iter().position(|process| Some(process.pid()) == serving);
        let adopted = adopted.map(|index| found.swap_remove(index));
        for process in found {
            tracing::warn!(pid = process.pid(), "a running containerd does not answer: stopping it");
            process.stop().await.map_err(io_error("stop the containerd that does not answer"))?;
        }
        if let Some(process) = adopted {
            tracing::info!(pid = process.pid(), "adopted the running containerd");
            return Ok(process);
        }
    }
    spawn(layout).await
}

async fn spawn(layout: &Layout) -> Result<Process, Error> {
    let process = process::spawn(layout)?;
    match await_ready(layout, &process, Duration::from_secs(60)).await {
        Ok(()) => Ok(process),
        Err(error) => {
            // It would keep the database from the next one.
            process.kill().await.map_err(io_error("stop the containerd that does not come up"))?;
            Err(error)
        }
    }
}

/// Ready is when its API answers.
async fn await_ready(layout: &Layout, process: &Process, patience: Duration) -> Result<(), Error> {
    let client = layout.client()?;
    let answers = async {
        loop {
            if client.version().version(()).await.is_ok() {
                return true;
            }
            if process.has_exited() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    };
    match tokio::time::timeout(patience, answers).await {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => {
            Err(Error::NotReady { log: layout.log().display().to_string(), tail: tail(&layout.log()) })
        }
    }
}

/// Overlayfs where containerd could use it (it cannot on top of another overlayfs), else copies.
async fn snapshotter(client: &Client) -> Result<String, Error> {
    let request = PluginsRequest { filters: vec!["type==io.containerd.snapshotter.v1,id==overlayfs".into()] };
    let answer = client.introspection().plugins(request).await.map_err(failed("ask for the snapshotters"))?;
    let works = answer.into_inner().plugins.iter().any(|p| p.id == "overlayfs" && p.init_err.is_none());
    Ok(if works { "overlayfs" } else { "native" }.to_owned())
}

fn supervise(layout: Layout, process: Process) -> Supervision {
    let stopping = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = watch::channel(process);
    let task = tokio::spawn(keep_running(layout, sender, Arc::clone(&stopping)));
    Supervision { stopping, process: receiver, task }
}

async fn keep_running(layout: Layout, current: watch::Sender<Process>, stopping: Arc<AtomicBool>) {
    const SHORTEST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(10);
    let mut pause = SHORTEST;
    loop {
        let process = current.borrow().clone();
        // One that ran for a while earns a quick restart.
        let ran_long = tokio::time::timeout(LONGEST, process.exited()).await.is_err();
        if ran_long {
            pause = SHORTEST;
            until_gone(&layout, &process).await;
        }
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        tracing::error!(pid = process.pid(), log = %layout.log().display(), "containerd died: starting it again");
        loop {
            match spawn(&layout).await {
                Ok(process) => {
                    current.send_replace(process);
                    break;
                }
                Err(error) => tracing::error!(%error, "containerd could not be started"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST);
        }
    }
}

/// Returns once the process has ended. One that does not answer several times in a row, which is longer than a busy
/// machine keeps it from answering, hangs: it is killed.
async fn until_gone(layout: &Layout, process: &Process) {
    const PAUSE: Duration = Duration::from_secs(2);
    const MISSES: u32 = 3;
    let mut missed = 0;
    while tokio::time::timeout(PAUSE, process.exited()).await.is_err() {
        let answered = tokio::select! {
            () = process.exited() => return,
            answered = answers(layout) => answered,
        };
        missed = if answered { 0 } else { missed + 1 };
        if missed == MISSES {
            missed = 0;
            tracing::error!(pid = process.pid(), "containerd runs and does not answer: killing it");
            if let Err(error) = process.kill().await {
                tracing::error!(pid = process.pid(), %error, "kill the containerd that does not answer");
            }
        }
    }
}

/// Over a connection of its own: one that broke says nothing about containerd.
async fn answers(layout: &Layout) -> bool {
    const PATIENCE: Duration = Duration::from_secs(5);
    let Ok(client) = layout.client() else { return false };
    let mut version = client.version();
    tokio::time::timeout(PATIENCE, version.version(())).await.is_ok_and(|answer| answer.is_ok())
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text =
        String::from_utf8_lossy(text.get(text.len().saturating_sub(4096)..).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().rev().take(10).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

fn io_error(attempted: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let attempted = attempted.into();
    move |cause| Error::Io { attempted, cause }
}
