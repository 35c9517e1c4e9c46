//! Starting a task: its network, images, files and cgroup at the same time, then its containers in order.

use super::containers::{DIGEST_LABEL, STOP_SIGNAL_LABEL};
use super::{Supervisor, now};
use crate::agent::TASK_LABEL;
use crate::cgroup::TaskLimits;
use crate::image::{Image, ImageRef, PullPolicy};
use crate::network::{Eni, files};
use crate::runtime::{self, BindMount, Limits};
use longshore_model::link::{Assignment, ContainerSpec, Goal, StartFailureKind, TaskNetwork};
use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// How often a container is tried on a runtime that is away: for about 20 seconds.
const ATTEMPTS: u32 = 40;
const MEBIBYTE: u64 = 1 << 20;

/// What could not be done, in the words of `stoppedReason`.
struct Failed {
    kind: StartFailureKind,
    container: Option<String>,
    message: String,
}

impl Failed {
    fn new(kind: StartFailureKind, container: Option<&str>, message: String) -> Self {
        Self { kind, container: container.map(str::to_owned), message }
    }
}

/// What the containers of a task share.
struct Ground {
    /// `None`: the machine's own network.
    namespace: Option<PathBuf>,
    mounts: Vec<BindMount>,
    images: Vec<Image>,
}

impl Supervisor {
    pub(super) async fn start(&mut self) {
        let assignment = self.told.borrow().assignment.clone();
        if let Some(container) = missing_group(&assignment) {
            let message = "failed to validate logger args: create stream has been retried 1 times: failed to create \
                           Cloudwatch log stream: ResourceNotFoundException: The specified log group does not exist.";
            return self.fail(StartFailureKind::ResourceInitialization, Some(&container), message.to_owned());
        }
        let Some(ground) = self.prepare_unless_stopped(&assignment).await else { return };
        let ground = match ground {
            Ok(ground) => ground,
            Err(failed) => return self.fail(failed.kind, failed.container.as_deref(), failed.message),
        };
        for index in 0..self.containers.len() {
            if !self.containers.get(index).is_some_and(super::Held::is_waiting) {
                continue;
            }
            if let Err(failed) = self.start_container(index, &assignment, &ground).await {
                return self.fail(failed.kind, failed.container.as_deref(), failed.message);
            }
        }
    }

    /// `None` when control changed its mind meanwhile: a pull can take minutes.
    async fn prepare_unless_stopped(&mut self, assignment: &Assignment) -> Option<Result<Ground, Failed>> {
        self.observation.pull_started_at.get_or_insert(now());
        let mut told = self.told.clone();
        let stopped = async move {
            let stopped =
                told.wait_for(|told| told.forgotten || told.assignment.goal != Goal::Run).await.is_ok();
            if !stopped {
                // The agent ends, and with it this task.
                std::future::pending::<()>().await;
            }
        };
        let ground = tokio::select! {
            ground = self.prepare(assignment) => ground,
            () = stopped => return None,
        };
        if ground.is_ok() {
            self.observation.pull_stopped_at.get_or_insert(now());
            self.observation.connected_at.get_or_insert(now());
        }
        Some(ground)
    }

    async fn prepare(&self, assignment: &Assignment) -> Result<Ground, Failed> {
        let task = self.observation.task.id.to_string();
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
        let (namespace, images, mounts) = tokio::try_join!(network, images, mounts)?;
        Ok(Ground { namespace, mounts, images })
    }

    async fn attach(&self, task: &str, wanted: &TaskNetwork) -> Result<Option<PathBuf>, String> {
        let network = &self.instance.network;
        let namespace = match wanted {
            TaskNetwork::Interface(interface) => network.attach(task, &Eni::from(interface)).await,
            TaskNetwork::None => network.isolated(task).await,
            TaskNetwork::Host => return Ok(network.instance_namespace().map(Path::to_owned)),
            TaskNetwork::Bridge { .. } => return Err("this agent has no network mode bridge yet".to_owned()),
        };
        namespace.map(|namespace| Some(namespace.path)).map_err(|error| chain(&error))
    }

    async fn pull(&self, spec: &ContainerSpec) -> Result<Image, Failed> {
        let failed = |message| Failed::new(StartFailureKind::CannotPullContainer, Some(&spec.name), message);
        let reference: ImageRef = spec
            .image
            .parse()
            .map_err(|error| failed(format!("invalid reference format: {}", chain(&error))))?;
        let pulled =
            self.instance.runtime.ensure_image(&reference, PullPolicy::PreferCached, None, None).await;
        pulled.map_err(|error| failed(format!("failed to resolve ref {reference}: {}", chain(&error))))
    }

    /// Writes what the network gives the containers to read, and makes the cgroup that caps them together.
    fn files_and_cgroup(&self, assignment: &Assignment) -> io::Result<Vec<BindMount>> {
        let directory = self.instance.task_dir(assignment.task.id);
        make_private_dir(&directory)?;
        let hostname = &assignment.hostname;
        let address = match &assignment.network {
            TaskNetwork::Interface(interface) => interface.address,
            TaskNetwork::Bridge { .. } | TaskNetwork::Host | TaskNetwork::None => Ipv4Addr::LOCALHOST,
        };
        let contents = [
            ("hostname", files::etc_hostname(hostname)),
            ("hosts", files::hosts(address, hostname)),
            ("resolv.conf", files::resolv_of_this_machine()?),
        ];
        let mut mounts = Vec::new();
        for (name, content) in contents {
            let source = directory.join(name);
            std::fs::write(&source, content)?;
            mounts.push(BindMount { source, target: format!("/etc/{name}"), readonly: false });
        }
        let limits = TaskLimits {
            cpu_units: Some(assignment.limits.cpu).filter(|cpu| *cpu > 0),
            memory: Some(assignment.limits.memory * MEBIBYTE).filter(|memory| *memory > 0),
            ..TaskLimits::default()
        };
        self.instance.cgroups.create_task(&assignment.task.id.to_string(), limits)?;
        Ok(mounts)
    }

    async fn start_container(
        &mut self,
        index: usize,
        assignment: &Assignment,
        ground: &Ground,
    ) -> Result<(), Failed> {
        let (Some(held), Some(image)) = (self.containers.get(index), ground.images.get(index)) else {
            return Ok(());
        };
        let spec = held.spec.clone();
        let container = self.container(&spec, image, assignment, ground);
        if let Some(path) = &container.log_path {
            private_file(path).map_err(|error| {
                Failed::new(StartFailureKind::CannotCreateContainer, Some(&spec.name), chain(&error))
            })?;
            self.follow_output(&spec);
        }
        let started = self.create_and_start(&spec, &container, held.made).await?;
        if let Some(held) = self.containers.get_mut(index) {
            held.image_digest = Some(image.digest.clone());
            held.stop_signal = stop_signal(image);
            held.running(started.at);
        }
        Ok(())
    }

    /// Creates and starts it, waiting for a runtime that is away: containerd may be restarting.
    async fn create_and_start(
        &self,
        spec: &ContainerSpec,
        container: &runtime::ContainerSpec,
        mut made: bool,
    ) -> Result<runtime::Started, Failed> {
        let runtime = &self.instance.runtime;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let attempted = async {
                if made {
                    // One that was made and never started: by an agent that was killed in between, or just now.
                    runtime.delete(&spec.runtime_id).await.map_err(runtime::CreateError::Runtime)?;
                }
                runtime.create(container).await
            };
            let away = match attempted.await {
                Ok(_) => match runtime.start(&spec.runtime_id).await {
                    Ok(started) => return Ok(started),
                    Err(runtime::StartError::Runtime(error)) if is_away(&error) => error,
                    Err(error) => {
                        let kind = StartFailureKind::CannotStartContainer;
                        return Err(Failed::new(kind, Some(&spec.name), chain(&error)));
                    }
                },
                Err(runtime::CreateError::Runtime(error)) if is_away(&error) => error,
                Err(error) => return Err(create_failed(spec, &error)),
            };
            if attempt == ATTEMPTS {
                return Err(Failed::new(
                    StartFailureKind::CannotCreateContainer,
                    Some(&spec.name),
                    chain(&away),
                ));
            }
            made = true;
            tokio::time::sleep(super::RETRY).await;
        }
    }

    fn container(
        &self,
        spec: &ContainerSpec,
        image: &Image,
        assignment: &Assignment,
        ground: &Ground,
    ) -> runtime::ContainerSpec {
        let task = assignment.task.id.to_string();
        let signal = image.config.stop_signal.clone().unwrap_or_else(|| "SIGTERM".to_owned());
        let labels = BTreeMap::from([
            (TASK_LABEL.to_owned(), task.clone()),
            ("longshore.container".to_owned(), spec.name.clone()),
            (STOP_SIGNAL_LABEL.to_owned(), signal),
            (DIGEST_LABEL.to_owned(), image.digest.clone()),
        ]);
        runtime::ContainerSpec {
            id: spec.runtime_id.clone(),
            labels,
            image: image.clone(),
            entrypoint: spec.entry_point.clone(),
            command: spec.command.clone(),
            env: spec
                .environment
                .iter()
                .map(|variable| format!("{}={}", variable.name, variable.value))
                .collect(),
            working_directory: spec.working_directory.clone(),
            user: spec.user.clone(),
            hostname: Some(assignment.hostname.clone()),
            network_namespace: ground.namespace.clone(),
            cgroup: self.instance.cgroups.container_path(&task, &spec.name),
            limits: Limits {
                memory: spec.memory.map(|memory| memory * MEBIBYTE),
                memory_reservation: spec.memory_reservation.map(|memory| memory * MEBIBYTE),
                // Two is the least share that the kernel takes, and what ECS gives a container without any.
                cpu_shares: Some(spec.cpu.max(2)),
                ..Limits::default()
            },
            mounts: ground.mounts.clone(),
            readonly_rootfs: spec.readonly_root_filesystem,
            log_path: spec.log.as_ref().map(|_| self.log_path(spec)),
            ..runtime::ContainerSpec::default()
        }
    }
}

fn is_away(error: &runtime::Error) -> bool {
    matches!(error, runtime::Error::Unavailable { .. })
}

fn missing_group(assignment: &Assignment) -> Option<String> {
    let missing = |spec: &&ContainerSpec| spec.log.as_ref().is_some_and(|log| log.missing_group);
    assignment.containers.iter().find(missing).map(|spec| spec.name.clone())
}

fn create_failed(spec: &ContainerSpec, error: &runtime::CreateError) -> Failed {
    let kind = match error {
        runtime::CreateError::Command(_) => StartFailureKind::CannotStartContainer,
        runtime::CreateError::Invalid(_)
        | runtime::CreateError::ImageGone(_)
        | runtime::CreateError::UnknownUser(_)
        | runtime::CreateError::DiskFull
        | runtime::CreateError::Runtime(_) => StartFailureKind::CannotCreateContainer,
    };
    Failed::new(kind, Some(&spec.name), chain(error))
}

fn stop_signal(image: &Image) -> runtime::Signal {
    let named = image.config.stop_signal.as_deref().and_then(|signal| signal.parse().ok());
    named.unwrap_or(runtime::Signal::TERM)
}

/// An error with its causes, for the one line that a user reads.
fn chain(error: &dyn Error) -> String {
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

/// Makes the file that the container's output is appended to, readable by us alone.
fn private_file(path: &PathBuf) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(drop)
}
