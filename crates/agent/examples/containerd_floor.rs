//! What containerd alone needs to create and start a container, over its own API: the floor under RunTask.
//! Invariant: between the two readings of the clock stand containerd's calls and nothing else; the specification is the
//! one of a container that Longshore runs, and everything made here is removed again, also after a failure.
//!
//! `containerd_floor SOCKET NAMESPACE TEMPLATE ARCHIVE COUNT [--at-once]`: makes COUNT containers like TEMPLATE, which
//! runs in NAMESPACE, in a namespace beside it, one after the other or all at once; prints milliseconds as JSON.
//! `bench/run` calls it.

use std::{
    error::Error,
    fs::File,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use containerd_client::{
    services::v1::{
        Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest, DeleteTaskRequest,
        GetContainerRequest, KillRequest, StartRequest, WaitRequest,
        containers_client::ContainersClient,
        snapshots::{PrepareSnapshotRequest, RemoveSnapshotRequest, snapshots_client::SnapshotsClient},
        tasks_client::TasksClient,
    },
    tonic::{Request, transport::Channel},
};
use futures::future::{join_all, try_join_all};
use longshore_agent::{
    image::{ImageRef, PullPolicy},
    runtime::{Config, ContainerdRuntime, Runtime as _},
};
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use serde_json::{Value, json};

type Failed = Box<dyn Error + Send + Sync>;

/// Longshore's instances are numbered; `longshore down` clears this one with them.
const FLOOR: &str = "floor";

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (socket, namespace, template, archive, count, at_once) = match words[..] {
        [socket, namespace, template, archive, count] => (socket, namespace, template, archive, count, false),
        [socket, namespace, template, archive, count, "--at-once"] => {
            (socket, namespace, template, archive, count, true)
        }
        _ => return Err("usage: containerd_floor SOCKET NAMESPACE TEMPLATE ARCHIVE COUNT [--at-once]".into()),
    };
    let floor =
        Floor::prepare(Path::new(socket), namespace, template, Path::new(archive), count.parse()?).await?;
    let measured = if at_once { floor.all_at_once().await } else { floor.one_by_one().await };
    floor.remove().await?;
    println!("{}", measured?);
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "a benchmark's one reading of the clock")]
fn now() -> Instant {
    Instant::now()
}

struct Floor {
    channel: Channel,
    namespace: String,
    template: Container,
    spec: Value,
    /// The image's topmost snapshot.
    parent: String,
    networks: Vec<Network>,
    network_times: Vec<Duration>,
    /// The networks' files, and what the containers print.
    files: tempfile::TempDir,
}

impl Floor {
    async fn prepare(
        socket: &Path,
        namespace: &str,
        template: &str,
        archive: &Path,
        count: usize,
    ) -> Result<Self, Failed> {
        let channel = containerd_client::connect(socket).await?;
        let get = GetContainerRequest { id: template.to_owned() };
        let answer = ContainersClient::new(channel.clone()).get(request(namespace, get)?).await?;
        let template = answer.into_inner().container.ok_or("containerd answers without a container")?;
        let spec = serde_json::from_slice(&template.spec.clone().unwrap_or_default().value)?;
        let beside = match namespace.rsplit_once('-') {
            Some((prefix, _)) => format!("{prefix}-{FLOOR}"),
            None => return Err(format!("`{namespace}` is not a namespace of Longshore").into()),
        };
        let files = tempfile::tempdir()?;
        let parent = import(socket, &beside, &template, archive, files.path()).await?;
        let mut floor = Self {
            channel,
            namespace: beside,
            template,
            spec,
            parent,
            networks: Vec::new(),
            network_times: Vec::new(),
            files,
        };
        for number in 0..count {
            let before = now();
            let network = Network::create(floor.files.path().join(format!("net{number}")))?;
            floor.network_times.push(before.elapsed());
            floor.networks.push(network);
        }
        Ok(floor)
    }

    async fn one_by_one(&self) -> Result<Value, Failed> {
        let mut took = Vec::new();
        for network in &self.networks {
            let container = self.container(network)?;
            let before = now();
            let started = self.create_and_start(container).await;
            took.push(before.elapsed());
            // Removed before the next, as a task is stopped before the next one runs.
            self.delete(&network.id()).await?;
            started?;
        }
        Ok(json!({ "create_start": millis(&took), "network_namespace": millis(&self.network_times) }))
    }

    async fn all_at_once(&self) -> Result<Value, Failed> {
        let containers: Vec<Container> =
            self.networks.iter().map(|network| self.container(network)).collect::<Result<_, _>>()?;
        let before = now();
        let started = try_join_all(containers.into_iter().map(|c| self.create_and_start(c))).await;
        let took = before.elapsed();
        started?;
        Ok(json!({ "all_started": millis(&[took]), "network_namespace": millis(&self.network_times) }))
    }

    /// The template with another name, cgroup and network.
    fn container(&self, network: &Network) -> Result<Container, Failed> {
        let id = network.id();
        let mut spec = self.spec.clone();
        let linux = spec.get_mut("linux").ok_or("the template's specification has no `linux`")?;
        let cgroup = linux["cgroupsPath"].as_str().unwrap_or_default();
        let ours = cgroup.split('/').find(|part| !part.is_empty()).ok_or("the template is in no cgroup")?;
        linux["cgroupsPath"] = json!(format!("/{ours}/{FLOOR}/{id}"));
        let namespaces = linux["namespaces"].as_array_mut().ok_or("the template has no namespaces")?;
        for namespace in namespaces.iter_mut().filter(|namespace| namespace["type"] == "network") {
            namespace["path"] = json!(network.path);
        }
        let mut container = self.template.clone();
        container.spec.get_or_insert_default().value = serde_json::to_vec(&spec)?;
        Ok(Container {
            snapshot_key: id.clone(),
            id,
            labels: Default::default(),
            created_at: None,
            updated_at: None,
            ..container
        })
    }

    /// What is measured: four calls, of which the first two need nothing of each other.
    async fn create_and_start(&self, container: Container) -> Result<(), Failed> {
        let id = container.id.clone();
        let snapshot = PrepareSnapshotRequest {
            snapshotter: container.snapshotter.clone(),
            key: id.clone(),
            parent: self.parent.clone(),
            // Else containerd's garbage collection may take it before its container is there.
            labels: [("containerd.io/gc.root".to_owned(), "bench".to_owned())].into(),
        };
        let record = CreateContainerRequest { container: Some(container) };
        let (mut snapshots, mut containers, mut tasks) = (self.snapshots(), self.containers(), self.tasks());
        let (snapshot, _) = tokio::try_join!(
            snapshots.prepare(self.request(snapshot)?),
            containers.create(self.request(record)?)
        )?;
        let output = format!("file://{}", self.files.path().join(format!("{id}.log")).display());
        let task = CreateTaskRequest {
            container_id: id.clone(),
            rootfs: snapshot.into_inner().mounts,
            stdout: output.clone(),
            stderr: output,
            ..CreateTaskRequest::default()
        };
        tasks.create(self.request(task)?).await?;
        tasks.start(self.request(StartRequest { container_id: id, exec_id: String::new() })?).await?;
        Ok(())
    }

    /// Whatever of the container is there: after a failure that may be a part, and the first that is not there says
    /// nothing about the others.
    async fn delete(&self, id: &str) -> Result<(), Failed> {
        let container_id = id.to_owned();
        let kill = KillRequest { container_id: container_id.clone(), signal: 9, ..KillRequest::default() };
        let mut tasks = self.tasks();
        if tasks.kill(self.request(kill)?).await.is_ok() {
            let wait = WaitRequest { container_id: container_id.clone(), exec_id: String::new() };
            let _ = tasks.wait(self.request(wait)?).await;
        }
        let _ = tasks.delete(self.request(DeleteTaskRequest { container_id: container_id.clone() })?).await;
        let snapshotter = self.template.snapshotter.clone();
        let snapshot = RemoveSnapshotRequest { snapshotter, key: container_id.clone() };
        let _ = self.containers().delete(self.request(DeleteContainerRequest { id: container_id })?).await;
        let _ = self.snapshots().remove(self.request(snapshot)?).await;
        Ok(())
    }

    async fn remove(&self) -> Result<(), Failed> {
        join_all(self.networks.iter().map(async |network| self.delete(&network.id()).await))
            .await
            .into_iter()
            .collect()
    }

    fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel.clone())
    }

    fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel.clone())
    }

    fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone())
    }

    fn request<T>(&self, message: T) -> Result<Request<T>, Failed> {
        request(&self.namespace, message)
    }
}

/// Puts the image into the namespace, which shares its content with every other; returns its topmost snapshot.
async fn import(
    socket: &Path,
    namespace: &str,
    template: &Container,
    archive: &Path,
    state: &Path,
) -> Result<String, Failed> {
    let runtime = ContainerdRuntime::connect(Config {
        address: socket.to_owned(),
        containerd_state: socket.with_file_name("containerd"),
        namespace: namespace.to_owned(),
        snapshotter: template.snapshotter.clone(),
        state_dir: state.to_owned(),
        mirrors: Default::default(),
    });
    let runtime = runtime.await?;
    let image: ImageRef = template.image.parse()?;
    runtime.import(archive, Some(&image)).await?;
    Ok(runtime.ensure_image(&image, PullPolicy::Never, None, None).await?.chain_id)
}

/// A network namespace with nothing in it, held by a file until it is dropped.
struct Network {
    path: PathBuf,
}

impl Network {
    fn create(path: PathBuf) -> Result<Self, Failed> {
        File::create(&path)?;
        let network = Self { path };
        let path = network.path.clone();
        // The thread takes its namespace with it when it ends.
        let made = std::thread::spawn(move || -> io::Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(mount_bind("/proc/thread-self/ns/net", &path)?)
        });
        made.join().map_err(|_| "the thread that makes a network namespace ended")??;
        Ok(network)
    }

    /// The container that uses it.
    fn id(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        format!("{FLOOR}-{name}-{}", std::process::id())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = unmount(&self.path, UnmountFlags::DETACH);
        let _ = std::fs::remove_file(&self.path);
    }
}

fn request<T>(namespace: &str, message: T) -> Result<Request<T>, Failed> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", namespace.parse()?);
    Ok(request)
}

fn millis(times: &[Duration]) -> Vec<f64> {
    times.iter().map(|time| time.as_secs_f64() * 1000.0).collect()
}
