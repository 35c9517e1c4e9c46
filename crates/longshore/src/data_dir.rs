//! The data directory: what a server keeps, and what others find it by. Invariant: nobody but its owner reads it.

use crate::Outcome;
use longshore_model::ContainerInstanceId;
use longshore_model::vpc::Cidr;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

#[derive(Clone)]
pub struct DataDir {
    path: PathBuf,
}

/// What stays the same from one `up` to the next.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Identity {
    pub vpc_cidr: Cidr,
    /// One a container instance, in their order; those beyond `--instances` keep their place.
    pub instances: Vec<ContainerInstanceId>,
    /// The same of those that belong to a cluster.
    #[serde(default)]
    pub container_instances: Vec<ContainerInstanceId>,
}

/// Where a running server is found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Running {
    pub listen: SocketAddr,
}

impl DataDir {
    /// Makes the directory if it is missing.
    pub fn open(path: &Path) -> Outcome<Self> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| format!("make the data directory {}: {error}", path.display()))?;
        let path = path.canonicalize().map_err(|error| format!("open {}: {error}", path.display()))?;
        Ok(Self { path })
    }

    /// The directory of a server that was started before.
    pub fn existing(path: &Path) -> Outcome<Self> {
        let path = path.canonicalize().map_err(|error| {
            format!(
                "there is no data directory {}: {error}. Start a server with `longshore up`",
                path.display()
            )
        })?;
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics")
    }

    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    pub fn tasks(&self, instance: usize) -> PathBuf {
        self.path.join("instances").join(instance.to_string()).join("tasks")
    }

    /// The socket that `longshore image load` and `longshore down` talk to.
    pub fn admin_socket(&self) -> PathBuf {
        self.path.join("admin.sock")
    }

    pub fn credentials(&self) -> PathBuf {
        self.path.join("credentials.json")
    }

    /// The key that seals the store's secrets.
    pub fn sealing_key(&self) -> PathBuf {
        self.path.join("sealing-key.json")
    }

    /// Keeps others from using the directory until the process ends.
    pub fn lock(&self) -> Outcome<File> {
        let path = self.path.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        // One that was killed can leave its lock, for an instant, to the process that it was just starting.
        for _ in 0..50 {
            if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok() {
                return Ok(file);
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Err(format!(
            "{} is in use by another process: stop it, or use another data directory",
            self.path.display()
        )
        .into())
    }

    /// What an agent keeps of its joining.
    pub fn agent<T: DeserializeOwned>(&self) -> Outcome<Option<T>> {
        read(&self.path.join("agent.json"))
    }

    pub fn keep_agent<T: Serialize>(&self, agent: &T) -> Outcome {
        write(&self.path.join("agent.json"), agent)
    }

    pub fn identity(&self) -> Outcome<Option<Identity>> {
        read(&self.path.join("identity.json"))
    }

    pub fn keep_identity(&self, identity: &Identity) -> Outcome {
        write(&self.path.join("identity.json"), identity)
    }

    pub fn running(&self) -> Outcome<Option<Running>> {
        read(&self.path.join("running.json"))
    }

    pub fn keep_running(&self, running: &Running) -> Outcome {
        write(&self.path.join("running.json"), running)
    }
}

pub fn read<T: DeserializeOwned>(path: &Path) -> Outcome<Option<T>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("read {}: {error}", path.display()).into()),
        Ok(bytes) => {
            let value = serde_json::from_slice(&bytes);
            Ok(Some(value.map_err(|error| format!("{} is damaged: {error}", path.display()))?))
        }
    }
}

/// Replaces a file whole, readable by its owner alone.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Outcome {
    use std::os::unix::fs::OpenOptionsExt;
    let attempt = |error: std::io::Error| format!("write {}: {error}", path.display());
    let next = path.with_extension("next");
    let mut options = std::fs::OpenOptions::new();
    let mut file =
        options.create(true).write(true).truncate(true).mode(0o600).open(&next).map_err(attempt)?;
    file.write_all(&serde_json::to_vec_pretty(value)?).map_err(attempt)?;
    file.sync_all().map_err(attempt)?;
    std::fs::rename(&next, path).map_err(attempt)?;
    Ok(())
}
