//! Starting a task: what its containers share, then each container when its dependencies allow.
//! Invariant: nothing here waits; what takes time is done beside the supervisor, which takes in how it ended.

use super::containers::{DIGEST_LABEL, STOP_SIGNAL_LABEL};
use super::isolation::isolation;
use super::prepare::{Failed, Ground, Preparation, chain};
use super::{Done, RETRY, Supervisor, Told, now, order};
use crate::agent::{Instance, TASK_LABEL};
use crate::image::Image;
use crate::runtime::{self, BindMount, Limits};
use longshore_model::link::{Assignment, ContainerSpec, StartFailureKind};
use std::sync::Arc;
use tokio::sync::watch;

const MEBIBYTE: u64 = 1 << 20;

/// Where a task is with what its containers share.
#[derive(Default)]
pub enum Standing {
    #[default]
    Nothing,
    Preparing(tokio::task::AbortHandle),
    Ready(Arc<Ground>),
}

/// A container that was started.
pub struct Running {
    at: runtime::Started,
    image: Image,
}

impl Supervisor {
    /// Starts what may start, and what that needs before.
    pub(super) fn begin_starts(&mut self) {
        if !self.containers.iter().any(super::Held::is_waiting) {
            return;
        }
        match &self.standing {
            Standing::Nothing => self.begin_preparation(),
            Standing::Preparing(_) => {}
            Standing::Ready(ground) => {
                let ground = Arc::clone(ground);
                for index in order::startable(&self.members()) {
                    if let Err(failed) = self.begin_start(index, &ground) {
                        return self.fail(failed);
                    }
                }
            }
        }
    }

    pub(super) fn prepared(&mut self, prepared: Result<Ground, Failed>) {
        match prepared {
            Ok(ground) => {
                self.observation.pull_stopped_at.get_or_insert(now());
                self.observation.connected_at.get_or_insert(now());
                self.standing = Standing::Ready(Arc::new(ground));
            }
            Err(failed) => {
                self.standing = Standing::Nothing;
                self.fail(failed);
            }
        }
    }

    pub(super) fn started(&mut self, index: usize, started: Result<Running, Failed>) {
        let Some(held) = self.containers.get_mut(index) else { return };
        held.busy = false;
        match started {
            Ok(started) => {
                held.image_digest = Some(started.image.digest.clone());
                held.stop_signal = stop_signal(&started.image);
                held.running(started.at.at);
            }
            Err(failed) => self.fail(failed),
        }
    }

    /// A pull can take minutes: who stops a task does not wait for it.
    pub(super) fn abandon_preparation(&mut self) {
        if let Standing::Preparing(preparation) = &self.standing {
            preparation.abort();
            self.standing = Standing::Nothing;
        }
    }

    fn begin_preparation(&mut self) {
        let assignment = self.told.borrow().assignment.clone();
        if let Some(container) = missing_group(&assignment) {
            let message = "failed to validate logger args: create stream has been retried 1 times: failed to create \
                           Cloudwatch log stream: ResourceNotFoundException: The specified log group does not exist.";
            let kind = StartFailureKind::ResourceInitialization;
            return self.fail(Failed::new(kind, Some(&container), message.to_owned()));
        }
        if let Some(why) = assignment.containers.iter().find_map(|spec| spec.unresolved.clone()) {
            return self.fail(Failed::new(StartFailureKind::ResourceInitialization, None, why));
        }
        self.observation.pull_started_at.get_or_insert(now());
        let preparation = Preparation { instance: Arc::clone(&self.instance), assignment };
        let preparing = self.work.spawn(async move { Done::Prepared(preparation.run().await) });
        self.standing = Standing::Preparing(preparing);
    }

    fn begin_start(&mut self, index: usize, ground: &Ground) -> Result<(), Failed> {
        let (Some(held), Some(image)) = (self.containers.get(index), ground.images.get(index)) else {
            return Ok(());
        };
        let (spec, made, image) = (held.spec.clone(), held.made, image.clone());
        let container = self.container(&spec, &image, &self.told.borrow().assignment, ground);
        if let Some(path) = &container.log_path {
            runtime::output::make(path).map_err(|error| {
                Failed::new(StartFailureKind::CannotCreateContainer, Some(&spec.name), chain(&error))
            })?;
            self.follow_output(&spec);
        }
        if let Some(held) = self.containers.get_mut(index) {
            held.busy = true;
        }
        let (instance, told) = (Arc::clone(&self.instance), self.told.clone());
        self.work.spawn(async move {
            let started = create_and_start(&instance, &told, &spec, &container, made).await;
            Done::Started(index, started.map(|at| Running { at, image }))
        });
        Ok(())
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
        let mut labels = spec.labels.clone();
        labels.extend([
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
                .chain(&spec.secrets)
                .map(|variable| format!("{}={}", variable.name, variable.value))
                .collect(),
            working_directory: spec.working_directory.clone(),
            user: spec.user.clone(),
            hostname: Some(spec.names.hostname.clone().unwrap_or_else(|| assignment.hostname.clone())),
            network_namespace: ground.namespace.clone(),
            cgroup: self.instance.cgroups.container_path(&task, &spec.name),
            limits: Limits {
                memory: spec.memory.map(|memory| memory * MEBIBYTE),
                memory_reservation: spec.memory_reservation.map(|memory| memory * MEBIBYTE),
                // Two is the least share that the kernel takes, and what ECS gives a container without any.
                cpu_shares: Some(spec.cpu.max(2)),
                ..Limits::default()
            },
            mounts: mounts(spec, ground),
            readonly_rootfs: spec.readonly_root_filesystem,
            log_path: spec.log.as_ref().map(|_| self.log_path(spec)),
            ..isolation(&spec.isolation)
        }
    }
}

/// Creates and starts it, waiting for a runtime that is away for as long as the task is wanted: containerd may be
/// restarting.
async fn create_and_start(
    instance: &Instance,
    told: &watch::Receiver<Told>,
    spec: &ContainerSpec,
    container: &runtime::ContainerSpec,
    mut made: bool,
) -> Result<runtime::Started, Failed> {
    let runtime = &instance.runtime;
    loop {
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
        if !told.borrow().is_wanted() {
            return Err(Failed::new(StartFailureKind::CannotCreateContainer, Some(&spec.name), chain(&away)));
        }
        made = true;
        tokio::time::sleep(RETRY).await;
    }
}

/// The files of its names, then its volumes: outer ones first, and of two at one place its own.
fn mounts(spec: &ContainerSpec, ground: &Ground) -> Vec<BindMount> {
    let mut volumes: Vec<BindMount> = Vec::new();
    for mount in &spec.mounts {
        let taken = volumes.iter().any(|other| other.target == mount.container_path);
        if let Some(source) = ground.volumes.get(&mount.volume).filter(|_| !taken) {
            volumes.push(BindMount {
                source: source.clone(),
                target: mount.container_path.clone(),
                readonly: mount.read_only,
            });
        }
    }
    volumes.sort_by_key(|mount| mount.target.split('/').filter(|part| !part.is_empty()).count());
    let files = ground.files.get(&spec.name);
    files.into_iter().flatten().cloned().chain(volumes).collect()
}

pub fn is_away(error: &runtime::Error) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_model::link::Mount;
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    #[test]
    fn volumes_are_mounted_outer_first_and_once() {
        let mount = |volume: &str, path: &str, read_only| Mount {
            volume: volume.to_owned(),
            container_path: path.to_owned(),
            read_only,
        };
        let spec = ContainerSpec {
            mounts: vec![
                mount("a", "/data/inner", false),
                mount("b", "/data", true),
                mount("a", "/data", false),
                mount("missing", "/x", false),
            ],
            ..order::tests::spec("app")
        };
        let volume = |name: &str| (name.to_owned(), PathBuf::from(format!("/volumes/{name}")));
        let hosts = BindMount { source: "/hosts".into(), target: "/etc/hosts".into(), readonly: false };
        let ground = Ground {
            namespace: None,
            files: BTreeMap::from([("app".to_owned(), vec![hosts])]),
            volumes: [volume("a"), volume("b")].into(),
            images: Vec::new(),
        };
        let said: Vec<String> = mounts(&spec, &ground)
            .iter()
            .map(|m| format!("{} {}{}", m.source.display(), m.target, if m.readonly { " ro" } else { "" }))
            .collect();
        assert_eq!(said, ["/hosts /etc/hosts", "/volumes/b /data ro", "/volumes/a /data/inner"]);
    }
}
