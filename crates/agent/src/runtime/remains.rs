//! What a killed containerd leaves of a container's task: its bundle, a shim that still runs, runc's record, mounts and
//! processes. Invariant: it is removed only when containerd knows of no such task, and only what carries both the
//! namespace and the id, or is in the container's own cgroup.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use sha2::{Digest, Sha256};

use super::processes;
use crate::cgroup::Cgroups;

/// Where containerd and the programs below it keep what they run, for one namespace.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// containerd's own socket, by which shims are named.
    pub address: PathBuf,
    /// containerd's state directory.
    pub state: PathBuf,
    pub namespace: String,
}

/// Where shims let runc keep its records: they are not told otherwise.
const RUNC: &str = "/run/containerd/runc";
/// Where shims have their sockets.
const SOCKETS: &str = "/run/containerd/s";
const TASKS: &str = "io.containerd.runtime.v2.task";

impl Places {
    /// Nothing of the task is there afterwards. `cgroup` is its container's own.
    pub async fn remove(&self, id: &str, cgroup: Option<&str>, cgroups: &Cgroups) -> io::Result<()> {
        self.end_shims(id).await?;
        if let Some(cgroup) = cgroup {
            cgroups.end(cgroup).await?;
        }
        let bundle = self.bundle(id);
        if bundle.exists() {
            tracing::warn!(id, "removing what a killed containerd left of a container");
        }
        processes::unmount_below(&[&bundle]);
        remove(fs::remove_file(self.socket(id)))?;
        if let Some(work) = self.work(&bundle, id) {
            remove(fs::remove_dir_all(work))?;
        }
        remove(fs::remove_dir_all(Path::new(RUNC).join(&self.namespace).join(id)))?;
        remove(fs::remove_dir_all(bundle))
    }

    /// Whether a container that has ended was started at all. runc takes the pipe away by which it starts the container's
    /// process; a containerd that is killed meanwhile takes runc with it, and the process ends without having run.
    pub fn was_started(&self, id: &str) -> bool {
        !Path::new(RUNC).join(&self.namespace).join(id).join("exec.fifo").exists()
    }

    fn bundle(&self, id: &str) -> PathBuf {
        self.state.join(TASKS).join(&self.namespace).join(id)
    }

    /// Where the container's shim listens: a shim that is killed leaves it, and no name tells whose it was.
    fn socket(&self, id: &str) -> PathBuf {
        let name = self.address.join(&self.namespace).join(id);
        Path::new(SOCKETS).join(hex::encode(Sha256::digest(name.as_os_str().as_encoded_bytes())))
    }

    /// The directory for lasting files, to which the bundle has a link.
    fn work(&self, bundle: &Path, id: &str) -> Option<PathBuf> {
        let work = fs::read_link(bundle.join("work")).ok()?;
        work.ends_with(Path::new(TASKS).join(&self.namespace).join(id)).then_some(work)
    }

    /// Kills the container's shims and all that they started: another start of the same id would be given to them.
    async fn end_shims(&self, id: &str) -> io::Result<()> {
        const ATTEMPTS: u32 = 200;
        for _ in 0..ATTEMPTS {
            // What one of them starts while it is killed is found the next time, as long as its parent is there.
            let mut found = processes::shims(&self.namespace, Some(id));
            if found.is_empty() {
                return Ok(());
            }
            for shim in found.clone() {
                tracing::warn!(
                    id,
                    pid = shim.as_raw_nonzero().get(),
                    "killing a shim that containerd forgot"
                );
                found.extend(processes::descendants(shim));
            }
            for pid in found.into_iter().rev() {
                // One that has ended meanwhile is what is wanted.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "a shim does not end, not even killed"))
    }
}

fn remove(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As containerd 1.6 and 1.7 name it.
    #[test]
    fn a_socket_is_named_by_all_that_tells_shims_apart() {
        let places = Places {
            address: "/run/longshore/018d6c62/containerd.sock".into(),
            state: "/run/longshore/018d6c62/containerd".into(),
            namespace: "longshore-018d6c62-0".into(),
        };
        let expected = "2d07e0ba4014cafac6a7594639a4696f39190fedef4ed3aa5e608a01ac5bb995";
        assert_eq!(places.socket("a"), Path::new(SOCKETS).join(expected));
    }
}
