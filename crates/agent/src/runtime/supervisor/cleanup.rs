//! Leaves the machine as it was. Invariant: only what carries the data directory's hash, or lies under its directories, is
//! touched.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use containerd_client::services::v1::{DeleteNamespaceRequest, ListNamespacesRequest};
use rustix::process::{Pid, Signal};

use super::{Containerd, Error, Layout, io_error, process};
use crate::{
    cgroup::Cgroups,
    runtime::{
        ContainerdRuntime, Runtime,
        client::{failed, unless_missing},
        processes,
    },
};

/// Goes on after a failure, so that as little as possible is left, and reports the first.
pub(super) async fn down(containerd: Containerd) -> Result<(), Error> {
    let layout = containerd.layout.clone();
    let cleared = clear_all(&containerd, &layout).await;
    let stopped = containerd.stop().await;
    let removed = leftovers(&layout).await;
    cleared.and(stopped).and(removed)
}

async fn clear_all(containerd: &Containerd, layout: &Layout) -> Result<(), Error> {
    for namespace in namespaces(layout).await? {
        clear(containerd, &namespace).await?;
        if containerd.external {
            // Its images would keep the namespace; what was pulled into somebody's own containerd is theirs to remove.
            let request = DeleteNamespaceRequest { name: namespace };
            let deleted = layout.client()?.namespaces().delete(request).await;
            if let Err(error) = unless_missing(deleted, "delete a namespace") {
                tracing::info!(%error, "a namespace stays, with its images");
            }
        }
    }
    Ok(())
}

/// What no containerd knows of (any more).
pub(super) async fn leftovers(layout: &Layout) -> Result<(), Error> {
    for forgotten in process::find(layout) {
        forgotten.stop().await.map_err(io_error("stop a containerd that nobody watches"))?;
    }
    kill_shims(layout).await;
    processes::unmount_below(&[layout.state.as_path(), layout.dir.as_path()]);
    let cgroups =
        Cgroups::detect(&format!("/longshore-{}", layout.hash)).map_err(io_error("find the cgroups"))?;
    cgroups.remove_all().await.map_err(io_error("remove our cgroups"))?;
    for dir in children_with_prefix(Path::new("/run/containerd/runc"), &layout.namespace_prefix()) {
        remove_dir(&dir)?;
    }
    remove_dir(&layout.state)
}

async fn namespaces(layout: &Layout) -> Result<Vec<String>, Error> {
    let request = ListNamespacesRequest { filter: String::new() };
    let answer = layout.client()?.namespaces().list(request).await.map_err(failed("list the namespaces"))?;
    let names = answer.into_inner().namespaces.into_iter().map(|namespace| namespace.name);
    Ok(names.filter(|name| name.starts_with(&layout.namespace_prefix())).collect())
}

async fn clear(containerd: &Containerd, namespace: &str) -> Result<(), Error> {
    let config =
        super::super::Config { namespace: namespace.to_owned(), ..containerd.config(0, Default::default()) };
    let runtime = ContainerdRuntime::connect(config).await?;
    runtime.clear().await?;
    Ok(runtime.forget_attempts().await?)
}

/// A shim ends when its container is deleted; one that is left lost its containerd's records.
async fn kill_shims(layout: &Layout) {
    const PATIENCE: Duration = Duration::from_secs(3);
    let wait = async {
        while !shims(layout).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_ok() {
        return;
    }
    for pid in shims(layout) {
        tracing::warn!(pid = pid.as_raw_nonzero().get(), "killing a shim that nothing knows");
        for process in processes::descendants(pid).into_iter().chain([pid]) {
            let _ = rustix::process::kill_process(process, Signal::KILL);
        }
    }
}

fn shims(layout: &Layout) -> Vec<Pid> {
    processes::shims(&layout.namespace_prefix(), None)
}

fn children_with_prefix(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|e| e.file_name().to_string_lossy().starts_with(prefix)).map(|e| e.path()).collect()
}

fn remove_dir(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error(format!("remove {}", dir.display()))(error))
        }
        _ => Ok(()),
    }
}
