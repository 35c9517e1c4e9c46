//! What a task's containers stand on: its network, images, files and cgroup, made at the same time.
//! Invariant: it can be done again over what an earlier agent made, and cut off at any point.

use super::{RETRY, start::is_away};
use crate::agent::Instance;
use crate::cgroup::TaskLimits;
use crate::image::{Image, ImageRef, PullError, PullPolicy};
use crate::network::{self, Eni};
use crate::runtime::BindMount;
use longshore_model::link::{Assignment, ContainerSpec, StartFailureKind, TaskNetwork};
use longshore_model::task_definition::Volume;
use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MEBIBYTE: u64 = 1 << 20;

/// Where each volume is on the instance.
pub type Volumes = BTreeMap<String, PathBuf>;

/// What could not be done, in the words of `stoppedReason`.
pub struct Failed {
    pub kind: StartFailureKind,
    pub container: Option<String>,
    pub message: String,
}

impl Failed {
    pub fn new(kind: StartFailureKind, container: Option<&str>, message: String) -> Self {
        Self { kind, container: container.map(str::to_owned), message }
    }
}

/// What the containers of a task share.
pub struct Ground {
    /// `None`: the machine's own network.
    pub namespace: Option<PathBuf>,
    /// What the network gives each container to read.
    pub files: BTreeMap<String, Vec<BindMount>>,
    pub volumes: Volumes,
    pub images: Vec<Image>,
}

pub struct Preparation {
    pub instance: Arc<Instance>,
    pub assignment: Assignment,
}

impl Preparation {
    pub async fn run(self) -> Result<Ground, Failed> {
        let assignment = &self.assignment;
        let task = assignment.task.id.to_string();
        let initialization =
            |message: String| Failed::new(StartFailureKind::ResourceInitialization, None, message);
        let network = async {
            let attached = self.attach(&task, &assignment.network).await;
            attached.map_err(|error| initialization(format!("failed to configure the network: {error}")))
        };
        let images = async {
            let pulls = assignment.containers.iter().map(|spec| self.pull(spec));
            futures::future::try_join_all(pulls).await
        };
        let mounts = async {
            self.files_and_cgroup(assignment).map_err(|error| {
                initialization(format!("failed to prepare the task's files: {}", chain(&error)))
            })
        };
        let (namespace, images, (files, volumes)) = tokio::try_join!(network, images, mounts)?;
        Ok(Ground { namespace, files, volumes, images })
    }

    async fn attach(&self, task: &str, wanted: &TaskNetwork) -> Result<Option<PathBuf>, String> {
        let network = &self.instance.network;
        let namespace = match wanted {
            TaskNetwork::Interface(interface) => network.attach(task, &Eni::from(interface)).await,
            TaskNetwork::None => network.isolated(task).await,
            TaskNetwork::Host => return Ok(network.instance_namespace().map(Path::to_owned)),
            TaskNetwork::Bridge { ports } => network.bridge(task, ports).await,
        };
        namespace.map(|namespace| Some(namespace.path)).map_err(|error| chain(&error))
    }

    async fn pull(&self, spec: &ContainerSpec) -> Result<Image, Failed> {
        let failed = |message| Failed::new(StartFailureKind::CannotPullContainer, Some(&spec.name), message);
        let reference: ImageRef = spec
            .image
            .parse()
            .map_err(|error| failed(format!("invalid reference format: {}", chain(&error))))?;
        loop {
            match self.instance.runtime.ensure_image(&reference, PullPolicy::PreferCached, None, None).await {
                Ok(image) => return Ok(image),
                // The pull goes on from what is there when containerd is back; who stops the task ends the waiting.
                Err(PullError::Runtime(error)) if is_away(&error) => {
                    tracing::warn!(%reference, error = chain(&error), "waiting to pull an image");
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => {
                    return Err(failed(format!("failed to resolve ref {reference}: {}", chain(&error))));
                }
            }
        }
    }

    /// Writes what the network gives the containers to read, and makes the cgroup that caps them together.
    fn files_and_cgroup(
        &self,
        assignment: &Assignment,
    ) -> io::Result<(BTreeMap<String, Vec<BindMount>>, Volumes)> {
        let directory = self.instance.task_dir(assignment.task.id);
        make_private_dir(&directory)?;
        let hostname = &assignment.hostname;
        let address = match &assignment.network {
            TaskNetwork::Interface(interface) => interface.address,
            TaskNetwork::Bridge { .. } | TaskNetwork::Host | TaskNetwork::None => Ipv4Addr::LOCALHOST,
        };
        let resolv = match assignment.resolver.as_ref().filter(|_| self.instance.has_edge) {
            Some(resolver) => network::files::resolv_of(resolver),
            None => network::files::resolv_of_this_machine()?,
        };
        let mut files = BTreeMap::new();
        for container in &assignment.containers {
            let names = &container.names;
            let hostname = names.hostname.as_ref().unwrap_or(hostname);
            let contents = [
                ("hostname", network::files::etc_hostname(hostname)),
                ("hosts", network::files::hosts(address, hostname) + &network::files::extra_hosts(names)),
                ("resolv.conf", network::files::resolv_with(&resolv, names)),
            ];
            // Containers that call everything by the same names share their files, as those of a pod do.
            let own = if names.is_usual() { String::new() } else { format!("{}.", container.name) };
            let mut of_container = Vec::new();
            for (name, content) in contents {
                let source = directory.join(format!("{own}{name}"));
                std::fs::write(&source, content)?;
                of_container.push(BindMount { source, target: format!("/etc/{name}"), readonly: false });
            }
            files.insert(container.name.clone(), of_container);
        }
        let limits = TaskLimits {
            cpu_units: Some(assignment.limits.cpu).filter(|cpu| *cpu > 0),
            memory: Some(assignment.limits.memory * MEBIBYTE).filter(|memory| *memory > 0),
            ..TaskLimits::default()
        };
        self.instance.cgroups.create_task(&assignment.task.id.to_string(), limits)?;
        let volumes = volumes(&directory, &assignment.volumes)?;
        Ok((files, volumes))
    }
}

/// Makes the volumes. One that lives with the task is an empty directory that every user of its containers can
/// write to; one of the instance is made where it is missing, as docker does.
fn volumes(task_dir: &Path, wanted: &[Volume]) -> io::Result<Volumes> {
    let mut made = Volumes::new();
    for volume in wanted {
        let path = match &volume.host_path {
            Some(path) => PathBuf::from(path),
            None => task_dir.join("volumes").join(file_name(&volume.name)?),
        };
        if !path.exists() {
            std::fs::create_dir_all(&path)?;
        }
        if volume.host_path.is_none() {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))?;
        }
        made.insert(volume.name.clone(), path);
    }
    Ok(made)
}

/// A volume's name as the name of its directory, which must not lead elsewhere.
fn file_name(name: &str) -> io::Result<&str> {
    let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
    plain.then_some(name).ok_or_else(|| io::Error::other(format!("`{name}` cannot be the name of a volume")))
}

/// An error with its causes, for the one line that a user reads.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

fn make_private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_made_once_and_stay_inside_the_task() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("host/deep");
        let volume = |name: &str, host_path: Option<&Path>| Volume {
            name: name.to_owned(),
            host_path: host_path.map(|path| path.to_str().unwrap().to_owned()),
        };
        let task_dir = dir.path().join("task");
        let wanted = [volume("shared", None), volume("host", Some(&host))];
        let made = volumes(&task_dir, &wanted).unwrap();
        let shared = task_dir.join("volumes/shared");
        assert_eq!(
            made,
            Volumes::from([("host".to_owned(), host.clone()), ("shared".to_owned(), shared.clone())])
        );
        assert_eq!(std::fs::metadata(&shared).unwrap().permissions().mode() & 0o777, 0o777);
        assert!(host.is_dir());
        std::fs::write(shared.join("file"), "kept").unwrap();
        assert_eq!(volumes(&task_dir, &wanted).unwrap(), made);
        assert_eq!(std::fs::read(shared.join("file")).unwrap(), b"kept");
        for name in ["", ".", "..", "../x", "a/b"] {
            assert!(volumes(&task_dir, &[volume(name, None)]).is_err(), "{name}");
        }
    }
}
