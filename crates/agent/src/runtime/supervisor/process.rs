//! The process of containerd. Invariant: a process is held by its pidfd, so that a signal never reaches another that
//! got the same number.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags},
    process::{Pid, PidfdFlags, Signal, WaitOptions},
};
use tokio::sync::watch;

use super::{Error, Layout, can_lower_oom_score, io_error};
use crate::runtime::processes;

#[derive(Clone)]
pub(super) struct Process {
    pid: Pid,
    handle: Arc<OwnedFd>,
    exited: watch::Receiver<bool>,
}

/// Directories where Debian and others put daemons; a user's PATH often lacks them.
const DIRECTORIES: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A log beyond this is put aside at the next start.
const LOG_LIMIT: u64 = 32 << 20;

/// Every containerd of this layout that runs already, by command line: a server that was killed just after it had
/// started one had no time to write anything down. At most one of them serves; others wait for its database.
pub(super) fn find(layout: &Layout) -> Vec<Process> {
    let config = config_file(layout);
    let is_ours = |pid: &Pid| {
        let command = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        let words: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
        let program = words.first().map(|program| Path::new(OsStr::from_bytes(program)));
        program.and_then(Path::file_name) == Some(OsStr::new("containerd"))
            && words.windows(2).any(|pair| pair == [b"--config", config.as_os_str().as_bytes()])
    };
    // One that ended meanwhile is none.
    processes::all().filter(is_ours).filter_map(|pid| Process::open(pid).ok()).collect()
}

/// The process at the other end of containerd's socket.
pub(super) fn serving(layout: &Layout) -> Option<u32> {
    let connection = UnixStream::connect(&layout.address).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&connection).ok()?;
    Some(peer.pid.as_raw_nonzero().get().unsigned_abs())
}

/// Starts containerd in a process group of its own: Ctrl-C on our terminal is not for it.
pub(super) fn spawn(layout: &Layout) -> Result<Process, Error> {
    let path = search_path();
    let binary = find_binary(&path, "containerd").ok_or(Error::Missing("containerd"))?;
    find_binary(&path, "runc").ok_or(Error::Missing("runc"))?;
    find_binary(&path, "containerd-shim-runc-v2").ok_or(Error::Missing("containerd-shim-runc-v2"))?;
    for dir in [&layout.dir, &layout.state] {
        fs::create_dir_all(dir).map_err(io_error(format!("make {}", dir.display())))?;
    }
    fs::write(config_file(layout), config(layout)).map_err(io_error("write containerd's configuration"))?;
    let log = open_log(&layout.log()).map_err(io_error("open containerd's log"))?;
    let child = Command::new(binary)
        .arg("--config")
        .arg(config_file(layout))
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()
        .map_err(io_error("start containerd"))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io_error("start containerd")(io::ErrorKind::InvalidData.into()))?;
    Process::open(pid).map_err(io_error("watch containerd"))
}

impl Process {
    fn open(pid: Pid) -> io::Result<Self> {
        let handle = Arc::new(rustix::process::pidfd_open(pid, PidfdFlags::empty())?);
        let (sender, exited) = watch::channel(false);
        let watched = Arc::clone(&handle);
        // A thread that sleeps in the kernel: it ends with the process, or with us.
        std::thread::Builder::new().name("containerd-exit".into()).spawn(move || {
            await_exit(&watched);
            // Takes away the zombie when it is our child; an adopted one is not.
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
            sender.send_replace(true);
        })?;
        Ok(Self { pid, handle, exited })
    }

    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    pub async fn exited(&self) {
        // The sender goes away only after it has said so.
        let _ = self.exited.clone().wait_for(|exited| *exited).await;
    }

    pub fn has_exited(&self) -> bool {
        *self.exited.borrow()
    }

    /// Asks it to end, and kills it when it does not.
    pub async fn stop(&self) -> io::Result<()> {
        if self.ends_by(Signal::TERM).await? { Ok(()) } else { self.kill().await }
    }

    pub async fn kill(&self) -> io::Result<()> {
        if self.ends_by(Signal::KILL).await? {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "containerd does not end, not even killed"))
    }

    /// Whether the signal ends it within ten seconds.
    async fn ends_by(&self, signal: Signal) -> io::Result<bool> {
        match rustix::process::pidfd_send_signal(&self.handle, signal) {
            Err(rustix::io::Errno::SRCH) => return Ok(true),
            other => other?,
        }
        Ok(tokio::time::timeout(Duration::from_secs(10), self.exited()).await.is_ok())
    }
}

/// A pidfd is readable once its process has exited.
fn await_exit(handle: &OwnedFd) {
    loop {
        let mut fds = [PollFd::new(handle, PollFlags::IN)];
        match rustix::event::poll(&mut fds, None) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}

fn search_path() -> String {
    let given = std::env::var("PATH").unwrap_or_default();
    let mut directories: Vec<&str> = given.split(':').filter(|dir| !dir.is_empty()).collect();
    for directory in DIRECTORIES {
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    directories.join(":")
}

fn find_binary(path: &str, name: &str) -> Option<PathBuf> {
    path.split(':').map(|directory| Path::new(directory).join(name)).find(|candidate| candidate.is_file())
}

fn open_log(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|log| log.len() > LOG_LIMIT) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    File::options().create(true).append(true).open(path)
}

fn config_file(layout: &Layout) -> PathBuf {
    layout.dir.join("config.toml")
}

/// Without the parts that serve Kubernetes and filesystems that we do not use; the cgroup monitor measures
/// every container, which we do ourselves.
fn config(layout: &Layout) -> String {
    const DISABLED: [&str; 8] = [
        "io.containerd.grpc.v1.cri",
        "io.containerd.internal.v1.restart",
        "io.containerd.internal.v1.tracing",
        "io.containerd.monitor.v1.cgroups",
        "io.containerd.snapshotter.v1.aufs",
        "io.containerd.snapshotter.v1.btrfs",
        "io.containerd.snapshotter.v1.devmapper",
        "io.containerd.snapshotter.v1.zfs",
    ];
    let quoted = |path: &Path| serde_json::Value::from(path.to_string_lossy()).to_string();
    let disabled: Vec<String> = DISABLED.iter().map(|plugin| format!("\"{plugin}\"")).collect();
    let oom_score = if can_lower_oom_score() { -999 } else { 0 };
    format!(
        "# Written by longshore at every start.\nversion = 2\nroot = {}\nstate = {}\noom_score = {oom_score}\n\
         disabled_plugins = [{}]\n\n[grpc]\naddress = {}\n\n[debug]\nlevel = \"warn\"\n",
        quoted(&layout.dir.join("root")),
        quoted(&layout.containerd_state(false)),
        disabled.join(", "),
        quoted(&layout.address),
    )
}
