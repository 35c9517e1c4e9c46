//! The container runtime, as the agent sees it.
//! Invariant: [`Runtime::list`] is the truth about what runs on this instance; everything that
//! [`Runtime::events`] says is a hint to look again, and a lost hint costs time, never correctness.

mod answer;
pub(crate) mod client;
mod clock;
mod containerd;
mod creating;
mod devices;
mod exec;
pub(crate) mod output;
mod processes;
mod remains;
mod seccomp;
pub(crate) mod snapshots;
mod spec;
pub mod supervisor;
mod users;
mod watch;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use async_trait::async_trait;
use longshore_model::time::Timestamp;
use tokio::sync::broadcast;

pub use self::containerd::{Config, ContainerdRuntime, SharedRuntime};
pub(crate) use self::{clock::now, containerd::lock};
use crate::image::{Credentials, Image, ImageRef, ImportError, Progress, PullError, PullPolicy};

/// What runs containers. One value serves one container instance (one containerd namespace).
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Makes `reference` ready to run: pulled, verified, unpacked. Concurrent calls for one image share one pull.
    async fn ensure_image(
        &self,
        reference: &ImageRef,
        policy: PullPolicy,
        credentials: Option<&Credentials>,
        progress: Option<Progress>,
    ) -> Result<Image, PullError>;

    /// Imports an OCI or docker archive; returns the references it can now be run by.
    async fn import(&self, archive: &Path, tag: Option<&ImageRef>) -> Result<Vec<ImageRef>, ImportError>;

    async fn list_images(&self) -> Result<Vec<ImageRef>, Error>;

    /// Creates the container and its first process, which waits for [`Runtime::start`]. Its output is open already.
    async fn create(&self, spec: &ContainerSpec) -> Result<Created, CreateError>;

    async fn start(&self, id: &str) -> Result<Started, StartError>;

    /// Starts a container that has ended once more, with the files that it wrote. Its output goes on in `log_path`.
    /// One that runs is killed first.
    async fn restart(&self, id: &str, log_path: Option<&Path>) -> Result<Started, StartError>;

    /// Runs a process beside the first one: in its namespaces and cgroup, with its environment and as its user
    /// unless the specification says otherwise. It is killed after `timeout`. A container that does not run, or
    /// ends meanwhile, is [`Error::NotFound`]; a command that cannot be run ends with 126 or 127, as in a shell.
    async fn exec(&self, id: &str, spec: ExecSpec, timeout: Duration) -> Result<ExecEnd, Error>;

    /// Sends `signal` to the first process. A container that has ended already is not an error.
    async fn signal(&self, id: &str, signal: Signal) -> Result<(), Error>;

    /// Removes the container whatever its state, killing it when it runs. Removing what is not there succeeds.
    async fn delete(&self, id: &str) -> Result<(), Error>;

    async fn inspect(&self, id: &str) -> Result<Option<ContainerState>, Error>;

    /// Every container whose `create` has returned and which is not deleted yet, also those of an earlier process of ours.
    async fn list(&self) -> Result<Vec<ContainerState>, Error>;

    /// Hints from now on. A receiver that lags gets `RecvError::Lagged` and should list.
    fn events(&self) -> broadcast::Receiver<Event>;

    /// Removes every container of this instance, whoever made it. Images stay.
    async fn clear(&self) -> Result<(), Error>;
}

/// Everything needed to create a container.
#[derive(Clone, Debug, Default)]
pub struct ContainerSpec {
    /// Unique on the instance; `[A-Za-z0-9][A-Za-z0-9_.-]*`, at most 76 characters (containerd's rule).
    pub id: String,
    /// Found again in [`ContainerState::labels`]. Keys that start with `longshore.runtime/` are ours.
    pub labels: BTreeMap<String, String>,
    pub image: Image,
    /// Replaces the image's ENTRYPOINT, and its CMD too, as in docker.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's CMD.
    pub command: Option<Vec<String>>,
    /// `NAME=value`, added to the image's environment; a name given here wins.
    pub env: Vec<String>,
    pub working_directory: Option<String>,
    /// `user`, `uid`, `user:group`, …; names are resolved in the image. `None`: the image's user.
    pub user: Option<String>,
    pub hostname: Option<String>,
    /// `None`: the host's network.
    pub network_namespace: Option<PathBuf>,
    /// Absolute inside the cgroup hierarchy: `/longshore-<hash>/<task>/<container>`.
    pub cgroup: String,
    pub limits: Limits,
    pub mounts: Vec<BindMount>,
    pub tmpfs: Vec<Tmpfs>,
    pub devices: Vec<Device>,
    pub readonly_rootfs: bool,
    pub privileged: bool,
    /// Beyond the default capabilities, with or without `CAP_`.
    pub capabilities_add: Vec<String>,
    pub capabilities_drop: Vec<String>,
    pub no_new_privileges: bool,
    pub sysctls: BTreeMap<String, String>,
    pub ulimits: Vec<Ulimit>,
    /// Bytes of `/dev/shm`; 64 MiB when `None`.
    pub shm_size: Option<u64>,
    /// Both output streams are appended to this file. `None`: discarded.
    pub log_path: Option<PathBuf>,
}

/// A process to run in a container that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecSpec {
    pub args: Vec<String>,
    /// `NAME=value`, over the container's own.
    pub env: Vec<String>,
    /// `None`: the container's. Names are resolved in the container's image.
    pub user: Option<String>,
    /// `None`: the container's.
    pub cwd: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecEnd {
    /// 0–255; 128 + the signal's number when a signal ended it.
    pub exit_code: u32,
    /// It was killed for the time it took.
    pub timed_out: bool,
    /// The last 4 KiB of what it wrote, both streams together.
    pub output: String,
}

/// Limits of one container; the task's own are on the parent cgroup (`crate::cgroup`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Bytes; beyond it the kernel kills.
    pub memory: Option<u64>,
    /// Bytes kept when memory is short.
    pub memory_reservation: Option<u64>,
    /// Relative weight: ECS's CPU units.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU time in each `cpu_period`.
    pub cpu_quota: Option<i64>,
    /// Microseconds; 100,000 when `None`.
    pub cpu_period: Option<u64>,
    pub pids: Option<i64>,
}

#[derive(Clone, Debug)]
pub struct BindMount {
    pub source: PathBuf,
    /// Absolute path inside the container.
    pub target: String,
    pub readonly: bool,
}

/// A file system in memory.
#[derive(Clone, Debug)]
pub struct Tmpfs {
    /// Absolute path inside the container.
    pub target: String,
    /// Bytes.
    pub size: u64,
    /// Beside `nosuid`, `nodev` and `noexec`, or against them.
    pub options: Vec<String>,
}

/// A device of the machine.
#[derive(Clone, Debug)]
pub struct Device {
    pub source: PathBuf,
    /// Absolute path inside the container.
    pub target: String,
    /// Of `r`, `w` and `m`.
    pub access: String,
}

#[derive(Clone, Debug)]
pub struct Ulimit {
    /// As in ECS: `nofile`, `nproc`, …
    pub name: String,
    /// `u64::MAX` is no limit.
    pub soft: u64,
    pub hard: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// The first process, which already is in the container's namespaces.
    pub pid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    pub pid: u32,
    pub at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerState {
    pub id: String,
    pub labels: BTreeMap<String, String>,
    /// 0 when there is no process.
    pub pid: u32,
    pub status: Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// `create` has returned, `start` has not.
    Created,
    Running {
        started_at: Timestamp,
    },
    Exited {
        /// 0–255; 128 + the signal's number when a signal ended it.
        code: u32,
        exited_at: Timestamp,
        /// `None` when it never ran: who was to start it was killed, and it was taken down.
        started_at: Option<Timestamp>,
        /// The kernel killed a process of it for its memory.
        oom: bool,
    },
    /// Its record is there but its processes are gone and nobody kept the exit code: the machine restarted, or
    /// the shim was killed.
    Lost,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Exited {
        id: String,
    },
    Oom {
        id: String,
    },
    /// The connection to the runtime was made anew: anything may have happened, so list.
    Restarted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(pub u32);

impl Signal {
    pub const KILL: Self = Self(9);
    pub const TERM: Self = Self(15);
}

impl FromStr for Signal {
    type Err = UnknownSignal;

    /// Reads `SIGTERM`, `term`, `15` or `SIGRTMIN+3`, as in an image's STOPSIGNAL.
    fn from_str(text: &str) -> Result<Self, UnknownSignal> {
        let upper = text.trim().to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        number_of(name)
            .filter(|n| (1..=64).contains(n))
            .map(Self)
            .ok_or_else(|| UnknownSignal(text.to_owned()))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("unknown signal `{0}`")]
pub struct UnknownSignal(pub String);

fn number_of(name: &str) -> Option<u32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    if let Some(offset) = name.strip_prefix("RTMIN") {
        return if offset.is_empty() {
            Some(34)
        } else {
            Some(34 + offset.strip_prefix('+')?.parse::<u32>().ok()?)
        };
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        return if offset.is_empty() {
            Some(64)
        } else {
            64u32.checked_sub(offset.strip_prefix('-')?.parse().ok()?)
        };
    }
    NAMES.iter().position(|known| *known == name).and_then(|i| u32::try_from(i + 1).ok())
}

/// Why the runtime could not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// It is not there or restarting: try again.
    #[error("containerd does not answer ({attempted}): {message}")]
    Unavailable { attempted: &'static str, message: String },
    #[error("no container `{0}`")]
    NotFound(String),
    #[error("{attempted}: {message}")]
    Failed { attempted: &'static str, message: String },
}

/// ECS's `CannotCreateContainerError`, but for `Runtime(Error::Unavailable)`, which is worth another try.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("{0}")]
    Invalid(String),
    /// The image (or its unpacked layers) is gone: ensure it again.
    #[error("No such image: {0}")]
    ImageGone(ImageRef),
    #[error("unable to find user {0}: no matching entries in passwd file")]
    UnknownUser(String),
    #[error("no space left on device")]
    DiskFull,
    /// The command or the working directory cannot be run; ECS's `CannotStartContainerError`.
    #[error("{0}")]
    Command(String),
    #[error(transparent)]
    Runtime(#[from] Error),
}

/// ECS's `CannotStartContainerError`.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// With runc's words: `exec: "x": executable file not found in $PATH`.
    #[error("{0}")]
    Command(String),
    #[error(transparent)]
    Runtime(#[from] Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_as_docker_reads_them() {
        let number = |text: &str| text.parse::<Signal>().ok().map(|s| s.0);
        assert_eq!(number("SIGTERM"), Some(15));
        assert_eq!(number("quit"), Some(3));
        assert_eq!(number("9"), Some(9));
        assert_eq!(number("SIGRTMIN+3"), Some(37));
        assert_eq!(number("RTMAX-1"), Some(63));
        assert_eq!(number("SIGSYS"), Some(31));
        for wrong in ["", "0", "65", "SIGNOPE", "RTMIN+", "RTMAX-99"] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }
}
