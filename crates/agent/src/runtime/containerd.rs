//! The runtime on containerd. Invariant: containerd holds the truth. What this process keeps in memory are caches and
//! the names of containers whose creation is under way, so that it can be killed at any instant.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use containerd_client::{
    services::v1::{
        Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest, DeleteTaskRequest,
        GetContainerRequest, GetRequest, KillRequest, ListContainersRequest, ListTasksRequest, StartRequest,
        WaitRequest,
        container::Runtime as ContainerRuntime,
        snapshots::{ListSnapshotsRequest, MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest},
    },
    tonic::{Code, Status as Answer},
    types::{
        Mount,
        v1::{Process, Status as ProcessStatus},
    },
};
use futures::{StreamExt, future::join_all, stream};
use longshore_model::time::Timestamp;
use prost_types::Any;
use tokio::{sync::broadcast, task::JoinHandle};

use super::{
    ContainerSpec, ContainerState, CreateError, Created, Error, Event, ExecEnd, ExecSpec, Runtime, Signal,
    StartError, Started, Status,
    answer::{create_error, has_ended, is_bundle_there, is_snapshot_gone, start_error},
    client::{Client, failed, unless_missing, unless_present},
    clock,
    creating::Creating,
    exec::Execs,
    output,
    remains::Places,
    snapshots, spec,
    users::{self, User},
    watch,
};
use crate::{
    cgroup::Cgroups,
    image::{Credentials, Image, ImageRef, Images, ImportError, Progress, PullError, PullPolicy},
};

/// How to reach containerd, and which part of it is ours.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its gRPC socket.
    pub address: PathBuf,
    /// Its state directory, where the bundles of what it runs are.
    pub containerd_state: PathBuf,
    /// One a container instance.
    pub namespace: String,
    /// `overlayfs` or `native`.
    pub snapshotter: String,
    /// Small files of ours about running containers; may be on a tmpfs.
    pub state_dir: PathBuf,
    /// Registry host → base URLs, tried in order before the host itself.
    pub mirrors: BTreeMap<String, Vec<String>>,
}

pub struct ContainerdRuntime {
    client: Client,
    snapshotter: String,
    state_dir: PathBuf,
    places: Places,
    images: Images,
    execs: Execs,
    cgroups: Cgroups,
    machine: spec::Machine,
    /// Creations that have not returned: their containers are half there.
    creating: Mutex<BTreeSet<String>>,
    /// (chain id, user) → what it resolves to in that image.
    users: Mutex<HashMap<(String, String), User>>,
    events: broadcast::Sender<Event>,
    watching: JoinHandle<()>,
}

const LABEL_CGROUP: &str = "longshore.runtime/cgroup";
/// On a snapshot: the container that it belongs to.
const LABEL_CONTAINER: &str = "longshore.runtime/container";
/// Keeps garbage collection away from a snapshot that no container refers to yet.
const LABEL_GC_ROOT: &str = "containerd.io/gc.root";
const RUNC: &str = "io.containerd.runc.v2";
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

impl ContainerdRuntime {
    /// Adopts what is in the namespace, and removes what a killed process left half made.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let client = Client::new(&config.address, &config.namespace)?;
        unless_present(create_namespace(&client, &config.namespace).await, "create the namespace")?;
        let state_dir = config.state_dir.join(&config.namespace);
        std::fs::create_dir_all(&state_dir)
            .map_err(|e| Error::Failed { attempted: "make the state directory", message: e.to_string() })?;
        let cgroups = Cgroups::detect("/").map_err(|e| Error::Failed {
            attempted: "find the cgroup hierarchies",
            message: e.to_string(),
        })?;
        let machine = spec::Machine {
            capabilities: super::supervisor::capabilities(),
            can_lower_oom_score: super::supervisor::can_lower_oom_score(),
            cgroup_v2: cgroups.is_v2(),
            swap_accounting: cgroups.accounts_swap(),
        };
        let events = broadcast::Sender::new(1024);
        let watching = tokio::spawn(watch::follow(client.clone(), config.namespace.clone(), events.clone()));
        let runtime = Self {
            execs: Execs::new(client.clone(), config.snapshotter.clone(), &state_dir)?,
            images: Images::new(client.clone(), config.snapshotter.clone(), config.mirrors)?,
            client,
            snapshotter: config.snapshotter,
            state_dir,
            places: Places {
                address: config.address,
                state: config.containerd_state,
                namespace: config.namespace,
            },
            cgroups,
            machine,
            creating: Mutex::default(),
            users: Mutex::default(),
            events,
            watching,
        };
        runtime.sweep().await?;
        Ok(runtime)
    }
}

impl ContainerdRuntime {
    /// Makes the images of another namespace of this containerd runnable here too.
    pub async fn share_images(&self, namespace: &str) -> Result<(), PullError> {
        let from = Client::new(&self.places.address, namespace)?;
        self.images.share(&from).await
    }
}

impl Drop for ContainerdRuntime {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

#[async_trait]
impl Runtime for ContainerdRuntime {
    async fn ensure_image(
        &self,
        reference: &ImageRef,
        policy: PullPolicy,
        credentials: Option<&Credentials>,
        progress: Option<Progress>,
    ) -> Result<Image, PullError> {
        self.images.ensure(reference, policy, credentials, progress).await
    }

    async fn import(&self, archive: &Path, tag: Option<&ImageRef>) -> Result<Vec<ImageRef>, ImportError> {
        self.images.import(archive, tag).await
    }

    async fn list_images(&self) -> Result<Vec<ImageRef>, Error> {
        self.images.list().await
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<Created, CreateError> {
        let _creating = Creating::begin(&self.creating, &spec.id)?;
        let created = match self.try_create(spec).await {
            Err(Attempt::Occupied | Attempt::SnapshotGone(_)) => {
                // A killed process of ours left it half made, or the caller did not delete it: an id means one container.
                // Or a containerd that was killed and collects its garbage took the new snapshot for that of its past.
                self.remove(&spec.id).await?;
                self.try_create(spec).await
            }
            other => other,
        };
        match created {
            Ok(created) => Ok(created),
            Err(attempt) => {
                if let Err(error) = self.remove(&spec.id).await {
                    tracing::warn!(id = spec.id, %error, "a container that could not be created is left over");
                }
                Err(attempt.into())
            }
        }
    }

    async fn start(&self, id: &str) -> Result<Started, StartError> {
        // Before it runs: what has no such note was never asked to start, whoever is killed meanwhile.
        self.note_started(id, clock::now());
        let request = StartRequest { container_id: id.into(), exec_id: String::new() };
        let pid = self.client.tasks().start(request).await.map_err(|a| start_error(id, &a))?.into_inner().pid;
        let at = clock::now();
        self.note_started(id, at);
        Ok(Started { pid, at })
    }

    async fn restart(&self, id: &str, log_path: Option<&Path>) -> Result<Started, StartError> {
        self.remove_task(id).await?;
        let request = MountsRequest { snapshotter: self.snapshotter.clone(), key: id.into() };
        let mounts = self.client.snapshots().mounts(request).await.map_err(|a| start_error(id, &a))?;
        let request = task_request(id, log_path, mounts.into_inner().mounts).map_err(StartError::Runtime)?;
        self.client.tasks().create(request).await.map_err(|a| start_error(id, &a))?;
        self.start(id).await
    }

    async fn exec(&self, id: &str, spec: ExecSpec, timeout: Duration) -> Result<ExecEnd, Error> {
        self.execs.run(id, spec, timeout).await
    }

    async fn signal(&self, id: &str, signal: Signal) -> Result<(), Error> {
        match self.kill(id, signal).await {
            Ok(_) => Ok(()),
            Err(answer) if has_ended(&answer) => match self.inspect(id).await? {
                Some(_) => Ok(()),
                None => Err(Error::NotFound(id.into())),
            },
            Err(answer) => Err(failed("send a signal")(answer)),
        }
    }

    async fn delete(&self, id: &str) -> Result<(), Error> {
        self.remove(id).await
    }

    async fn inspect(&self, id: &str) -> Result<Option<ContainerState>, Error> {
        if self.is_creating(id) {
            return Ok(None);
        }
        let request = GetContainerRequest { id: id.into() };
        let (mut containers, process) = (self.client.containers(), self.process(id));
        let (container, process) = tokio::join!(containers.get(request), process);
        let container = match container {
            Ok(answer) => answer.into_inner().container.unwrap_or_default(),
            Err(answer) if answer.code() == Code::NotFound => return Ok(None),
            Err(answer) => return Err(failed("get a container")(answer)),
        };
        Ok(Some(self.state(container.id, container.labels, process?.as_ref())))
    }

    async fn list(&self) -> Result<Vec<ContainerState>, Error> {
        // What is being created before the lists are read may be half there in them.
        let creating = lock(&self.creating).clone();
        let (containers, tasks) = tokio::try_join!(self.containers(), self.tasks())?;
        let finished =
            containers.into_iter().filter(|c| !creating.contains(&c.id) && !self.is_creating(&c.id));
        let states = finished.map(|container| async {
            let process = match tasks.get(&container.id) {
                Some(process) => Some(process.clone()),
                // A shim that is slow to answer is left out of the list of tasks: ask for it by name.
                None => self.process(&container.id).await?,
            };
            Ok(self.state(container.id, container.labels, process.as_ref()))
        });
        join_all(states).await.into_iter().collect()
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    async fn clear(&self) -> Result<(), Error> {
        let (containers, tasks) = tokio::try_join!(self.containers(), self.tasks())?;
        let ids: BTreeSet<String> = containers.into_iter().map(|c| c.id).chain(tasks.into_keys()).collect();
        let removals = stream::iter(ids).map(|id| async move { self.remove(&id).await }).buffer_unordered(8);
        let results: Vec<Result<(), Error>> = removals.collect().await;
        results.into_iter().collect::<Result<(), Error>>()?;
        self.sweep().await
    }
}

/// Why one attempt at a creation failed.
enum Attempt {
    /// Something has the id already.
    Occupied,
    /// The files of the new snapshot are not there, in containerd's words.
    SnapshotGone(String),
    Failed(CreateError),
}

impl From<CreateError> for Attempt {
    fn from(error: CreateError) -> Self {
        Self::Failed(error)
    }
}

impl From<Attempt> for CreateError {
    fn from(attempt: Attempt) -> Self {
        match attempt {
            Attempt::Failed(error) => error,
            Attempt::SnapshotGone(message) => Error::Failed { attempted: "create a task", message }.into(),
            Attempt::Occupied => {
                Error::Failed { attempted: "create a container", message: "its id stays in use".into() }
                    .into()
            }
        }
    }
}

impl ContainerdRuntime {
    /// For the end of an instance: removes what failed pulls keep to go on from.
    pub(super) async fn forget_attempts(&self) -> Result<(), Error> {
        self.images.forget_attempts().await
    }

    /// Three calls, two of them at once: the snapshot and the record do not need each other.
    async fn try_create(&self, spec: &ContainerSpec) -> Result<Created, Attempt> {
        let user_key = (spec.image.chain_id.clone(), user_wanted(spec).to_owned());
        let cached = lock(&self.users).get(&user_key).cloned();
        let mounts = if let Some(user) = cached {
            let container = self.container(spec, &user)?;
            let (mounts, created) =
                tokio::join!(self.prepare_snapshot(spec), self.create_container(container));
            created?;
            mounts?
        } else {
            let mounts = self.prepare_snapshot(spec).await?;
            let user = users::resolve(&user_key.1, &mounts).map_err(|u| CreateError::UnknownUser(u.0))?;
            self.create_container(self.container(spec, &user)?).await?;
            lock(&self.users).insert(user_key, user);
            mounts
        };
        self.create_task(spec, mounts).await
    }

    fn container(&self, spec: &ContainerSpec, user: &User) -> Result<Container, CreateError> {
        let mut labels: HashMap<String, String> = spec.labels.clone().into_iter().collect();
        labels.insert(LABEL_CGROUP.into(), spec.cgroup.clone());
        Ok(Container {
            id: spec.id.clone(),
            labels,
            image: spec.image.reference.to_string(),
            runtime: Some(ContainerRuntime { name: RUNC.into(), options: None }),
            spec: Some(Any { type_url: SPEC_TYPE.into(), value: spec::build(spec, user, self.machine)? }),
            snapshotter: self.snapshotter.clone(),
            snapshot_key: spec.id.clone(),
            ..Container::default()
        })
    }

    async fn prepare_snapshot(&self, spec: &ContainerSpec) -> Result<Vec<Mount>, Attempt> {
        let request = PrepareSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: spec.id.clone(),
            parent: spec.image.chain_id.clone(),
            labels: [(LABEL_GC_ROOT, "longshore"), (LABEL_CONTAINER, &spec.id)]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
        };
        match snapshots::prepare(&self.client, request).await {
            Ok(mounts) => Ok(mounts),
            Err(answer) if answer.code() == Code::AlreadyExists => Err(Attempt::Occupied),
            Err(answer) if answer.code() == Code::NotFound => {
                self.images.forget(&spec.image);
                Err(CreateError::ImageGone(spec.image.reference.clone()).into())
            }
            Err(answer) => Err(create_error("prepare a snapshot", &answer).into()),
        }
    }

    async fn create_container(&self, container: Container) -> Result<(), Attempt> {
        match self.client.containers().create(CreateContainerRequest { container: Some(container) }).await {
            Ok(_) => Ok(()),
            Err(answer) if answer.code() == Code::AlreadyExists => Err(Attempt::Occupied),
            Err(answer) if answer.code() == Code::InvalidArgument => {
                Err(CreateError::Invalid(answer.message().into()).into())
            }
            Err(answer) => Err(create_error("create a container", &answer).into()),
        }
    }

    async fn create_task(&self, spec: &ContainerSpec, mounts: Vec<Mount>) -> Result<Created, Attempt> {
        let request =
            task_request(&spec.id, spec.log_path.as_deref(), mounts).map_err(CreateError::Runtime)?;
        match self.client.tasks().create(request).await {
            Ok(answer) => Ok(Created { pid: answer.into_inner().pid }),
            Err(answer) if answer.code() == Code::AlreadyExists || is_bundle_there(&answer) => {
                Err(Attempt::Occupied)
            }
            Err(answer) if is_snapshot_gone(&answer) => Err(Attempt::SnapshotGone(answer.message().into())),
            Err(answer) => Err(create_error("create a task", &answer).into()),
        }
    }

    async fn remove(&self, id: &str) -> Result<(), Error> {
        self.remove_task(id).await?;
        let (mut containers, mut snapshots) = (self.client.containers(), self.client.snapshots());
        let snapshot = RemoveSnapshotRequest { snapshotter: self.snapshotter.clone(), key: id.into() };
        let (container, snapshot) = tokio::join!(
            containers.delete(DeleteContainerRequest { id: id.into() }),
            snapshots.remove(snapshot)
        );
        unless_missing(container, "delete a container")?;
        unless_missing(snapshot, "remove a snapshot")?;
        let _ = std::fs::remove_file(self.started_file(id));
        Ok(())
    }

    /// Most have ended when they are deleted: the kill is tried only when containerd refuses.
    async fn remove_task(&self, id: &str) -> Result<(), Error> {
        let delete =
            || async move { self.client.tasks().delete(DeleteTaskRequest { container_id: id.into() }).await };
        match delete().await {
            Ok(_) => return Ok(()),
            Err(answer) if answer.code() == Code::NotFound => return self.remove_remains(id).await,
            Err(_) => {}
        }
        match self.kill(id, Signal::KILL).await {
            Ok(_) => self.wait(id).await?,
            Err(answer) if has_ended(&answer) => {}
            Err(answer) => return Err(failed("kill a container")(answer)),
        }
        match delete().await {
            Err(answer) if answer.code() == Code::NotFound => self.remove_remains(id).await,
            other => other.map(|_| ()).map_err(failed("delete a task")),
        }
    }

    /// containerd has no such task: what is there of it, a killed containerd left.
    async fn remove_remains(&self, id: &str) -> Result<(), Error> {
        let container = match self.client.containers().get(GetContainerRequest { id: id.into() }).await {
            Ok(answer) => answer.into_inner().container,
            Err(answer) if answer.code() == Code::NotFound => None,
            Err(answer) => return Err(failed("get a container")(answer)),
        };
        let cgroup = container.as_ref().and_then(|container| container.labels.get(LABEL_CGROUP));
        let removed = self.places.remove(id, cgroup.map(String::as_str), &self.cgroups).await;
        removed.map_err(|error| Error::Failed {
            attempted: "remove what a killed containerd left",
            message: error.to_string(),
        })
    }

    async fn kill(&self, id: &str, signal: Signal) -> Result<(), Answer> {
        let request = KillRequest {
            container_id: id.into(),
            signal: signal.0,
            // With the first process of a PID namespace everything in it dies; the rest only slows the call.
            all: false,
            ..KillRequest::default()
        };
        self.client.tasks().kill(request).await.map(|_| ())
    }

    /// Until the first process has ended.
    async fn wait(&self, id: &str) -> Result<(), Error> {
        const LONGEST: Duration = Duration::from_secs(15);
        let request = WaitRequest { container_id: id.into(), exec_id: String::new() };
        match tokio::time::timeout(LONGEST, self.client.tasks().wait(request)).await {
            Ok(result) => unless_missing(result, "wait for a container"),
            Err(_) => Err(Error::Failed {
                attempted: "wait for a killed container",
                message: format!("`{id}` still runs: is a process of it stuck in the kernel?"),
            }),
        }
    }

    async fn containers(&self) -> Result<Vec<Container>, Error> {
        let attempted = "list the containers";
        let request = ListContainersRequest { filters: Vec::new() };
        let answer = self.client.containers().list_stream(request).await.map_err(failed(attempted))?;
        let mut stream = answer.into_inner();
        let mut containers = Vec::new();
        while let Some(message) = stream.message().await.map_err(failed(attempted))? {
            containers.extend(message.container);
        }
        Ok(containers)
    }

    async fn tasks(&self) -> Result<HashMap<String, Process>, Error> {
        let answer =
            self.client.tasks().list(ListTasksRequest::default()).await.map_err(failed("list the tasks"))?;
        Ok(answer.into_inner().tasks.into_iter().map(|process| (key(&process).to_owned(), process)).collect())
    }

    async fn process(&self, id: &str) -> Result<Option<Process>, Error> {
        let request = GetRequest { container_id: id.into(), exec_id: String::new() };
        match self.client.tasks().get(request).await {
            Ok(answer) => Ok(answer.into_inner().process),
            Err(answer) if answer.code() == Code::NotFound => Ok(None),
            Err(answer) => Err(failed("get a task")(answer)),
        }
    }

    fn state(
        &self,
        id: String,
        labels: HashMap<String, String>,
        process: Option<&Process>,
    ) -> ContainerState {
        let status = process.map_or(Status::Lost, |process| self.status(&id, &labels, process));
        let labels = labels.into_iter().filter(|(key, _)| !key.starts_with("longshore.runtime/")).collect();
        ContainerState { pid: process.map_or(0, |p| p.pid), id, labels, status }
    }

    fn status(&self, id: &str, labels: &HashMap<String, String>, process: &Process) -> Status {
        match process.status() {
            ProcessStatus::Created => Status::Created,
            ProcessStatus::Stopped => Status::Exited {
                code: process.exit_status,
                exited_at: clock::from_proto(process.exited_at.as_ref()).unwrap_or_else(clock::now),
                started_at: self.started_at(id).filter(|_| self.places.was_started(id)),
                oom: labels.get(LABEL_CGROUP).is_some_and(|cgroup| self.cgroups.oom_kills(cgroup) > 0),
            },
            // Unknown is a shim that did not answer in time: no sign that the container ended.
            ProcessStatus::Running
            | ProcessStatus::Paused
            | ProcessStatus::Pausing
            | ProcessStatus::Unknown => {
                Status::Running { started_at: self.started_at(id).unwrap_or_else(clock::now) }
            }
        }
    }

    /// Removes snapshots whose container was never recorded, as a killed process leaves them.
    async fn sweep(&self) -> Result<(), Error> {
        let attempted = "list the snapshots";
        let known: BTreeSet<String> = self.containers().await?.into_iter().map(|c| c.id).collect();
        let request = ListSnapshotsRequest {
            snapshotter: self.snapshotter.clone(),
            filters: vec!["kind==active".into()],
        };
        let mut stream = self.client.snapshots().list(request).await.map_err(failed(attempted))?.into_inner();
        let mut orphans = Vec::new();
        while let Some(message) = stream.message().await.map_err(failed(attempted))? {
            let ours = message.info.into_iter().filter(|info| info.labels.contains_key(LABEL_CONTAINER));
            orphans.extend(
                ours.map(|info| info.name).filter(|name| !known.contains(name) && !self.is_creating(name)),
            );
        }
        for key in orphans {
            let request = RemoveSnapshotRequest { snapshotter: self.snapshotter.clone(), key };
            unless_missing(self.client.snapshots().remove(request).await, "remove a snapshot")?;
        }
        Ok(())
    }

    fn is_creating(&self, id: &str) -> bool {
        lock(&self.creating).contains(id)
    }

    /// containerd does not keep when a container started. A file does, for us and for a next process of ours.
    fn note_started(&self, id: &str, at: Timestamp) {
        if let Err(error) = std::fs::write(self.started_file(id), at.millis().to_string()) {
            tracing::warn!(id, %error, "the time of the start is not kept");
        }
    }

    fn started_at(&self, id: &str) -> Option<Timestamp> {
        std::fs::read_to_string(self.started_file(id)).ok()?.trim().parse().ok().map(Timestamp)
    }

    fn started_file(&self, id: &str) -> PathBuf {
        self.state_dir.join(format!("{id}.started"))
    }
}

async fn create_namespace(client: &Client, namespace: &str) -> Result<(), Answer> {
    use containerd_client::services::v1::{CreateNamespaceRequest, Namespace};
    let namespace = Namespace { name: namespace.into(), labels: HashMap::new() };
    client.namespaces().create(CreateNamespaceRequest { namespace: Some(namespace) }).await.map(|_| ())
}

fn user_wanted(spec: &ContainerSpec) -> &str {
    spec.user.as_deref().filter(|user| !user.is_empty()).unwrap_or(&spec.image.config.user)
}

/// containerd 1.6 names the container in `id` when it lists, and in `container_id` elsewhere.
fn key(process: &Process) -> &str {
    if process.id.is_empty() { &process.container_id } else { &process.id }
}

fn task_request(id: &str, log_path: Option<&Path>, mounts: Vec<Mount>) -> Result<CreateTaskRequest, Error> {
    let (stdout, stderr) = log_path.map(output::names).transpose()?.unwrap_or_default();
    Ok(CreateTaskRequest {
        container_id: id.into(),
        rootfs: mounts,
        stdout,
        stderr,
        ..CreateTaskRequest::default()
    })
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept under these locks is whole at every instant, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As callers hold it.
pub type SharedRuntime = Arc<dyn Runtime>;
