//! What the tests of the runtime share: a containerd of their own, images made on the fly, and a registry.
//! Each test binary uses a part of it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod images;
pub mod registry;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use longshore_agent::{
    cgroup::Cgroups,
    image::{Image, ImageRef, PullPolicy},
    runtime::{
        ContainerSpec, ContainerState, ContainerdRuntime, Event, Limits, Runtime, Status,
        supervisor::Containerd,
    },
};
use tokio::sync::broadcast;

/// A containerd under a directory of its own; all of it is gone when it is dropped, also by a failed test.
pub struct Machine {
    pub dir: tempfile::TempDir,
    pub containerd: Option<Containerd>,
}

impl Machine {
    pub async fn start() -> Self {
        let mut machine = Self { dir: tempfile::tempdir().unwrap(), containerd: None };
        machine.containerd = Some(Containerd::start(machine.dir.path()).await.unwrap());
        machine
    }

    pub fn containerd(&self) -> &Containerd {
        self.containerd.as_ref().unwrap()
    }

    pub async fn runtime(&self) -> ContainerdRuntime {
        self.runtime_with(BTreeMap::new()).await
    }

    pub async fn runtime_with(&self, mirrors: BTreeMap<String, Vec<String>>) -> ContainerdRuntime {
        ContainerdRuntime::connect(self.containerd().config(0, mirrors)).await.unwrap()
    }

    pub fn cgroups(&self) -> Cgroups {
        Cgroups::detect(&format!("/longshore-{}", self.containerd().hash())).unwrap()
    }

    pub fn log(&self, id: &str) -> PathBuf {
        self.dir.path().join(format!("{id}.log"))
    }

    /// A runtime with the busybox image imported.
    pub async fn with_busybox(&self) -> (ContainerdRuntime, Image) {
        let runtime = self.runtime().await;
        let archive = self.dir.path().join("busybox.tar");
        images::busybox().write_layout(&archive);
        let name: ImageRef = "busybox".parse().unwrap();
        assert_eq!(
            runtime.import(&archive, Some(&name)).await.unwrap().as_slice(),
            std::slice::from_ref(&name)
        );
        let image = runtime.ensure_image(&name, PullPolicy::Never, None, None).await.unwrap();
        (runtime, image)
    }

    pub fn spec(&self, image: &Image, id: &str, script: &str) -> ContainerSpec {
        ContainerSpec {
            id: id.into(),
            image: image.clone(),
            command: Some(["sh", "-c", script].map(Into::into).to_vec()),
            cgroup: self.cgroups().container_path("task", id),
            log_path: Some(self.log(id)),
            limits: Limits { cpu_shares: Some(128), ..Limits::default() },
            ..ContainerSpec::default()
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.containerd.take());
        let dir = self.dir.path().to_owned();
        // Not on the test's own runtime, which may be unwinding.
        let cleanup = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(Containerd::down_dir(&dir))
        });
        let result = cleanup.join();
        if !std::thread::panicking() {
            result.unwrap().unwrap();
        }
    }
}

/// Creates and starts a container.
pub async fn run(runtime: &ContainerdRuntime, spec: &ContainerSpec) {
    assert!(runtime.create(spec).await.unwrap().pid > 0);
    runtime.start(&spec.id).await.unwrap();
}

/// Waits for the container to end, woken by events alone.
pub async fn exit(
    runtime: &ContainerdRuntime,
    events: &mut broadcast::Receiver<Event>,
    id: &str,
) -> ContainerState {
    let wait = async {
        loop {
            let state = runtime.inspect(id).await.unwrap().unwrap();
            if matches!(state.status, Status::Exited { .. }) {
                return state;
            }
            events.recv().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .unwrap_or_else(|_| panic!("`{id}` does not end"))
}

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

pub async fn start(machine: &Machine) -> Containerd {
    Containerd::start(machine.dir.path()).await.unwrap()
}

pub async fn instance(machine: &Machine, n: usize) -> ContainerdRuntime {
    ContainerdRuntime::connect(machine.containerd().config(n, BTreeMap::new())).await.unwrap()
}

/// What carries `hash` on this machine: processes, mounts, cgroups, runc's state.
pub fn traces(hash: &str) -> Vec<String> {
    let mut traces = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(&format!("longshore-{hash}-")) {
            traces.push(command);
        }
    }
    let mounts = read(Path::new("/proc/self/mountinfo"));
    traces.extend(mounts.lines().filter(|line| line.contains(hash)).map(ToOwned::to_owned));
    for dir in ["/sys/fs/cgroup", "/run/containerd/runc", "/run/longshore"] {
        collect(Path::new(dir), hash, 2, &mut traces);
    }
    traces
}

fn collect(dir: &Path, hash: &str, depth: u32, traces: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().contains(hash) {
            traces.push(entry.path().display().to_string());
        } else if depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), hash, depth - 1, traces);
        }
    }
}
