//! The runtime on containerd.

use std::path::PathBuf;

/// How to reach containerd, and which part of it is ours.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its gRPC socket.
    pub address: PathBuf,
    /// One a container instance.
    pub namespace: String,
    /// `overlayfs` or `native`.
    pub snapshotter: String,
    /// Small files of ours about running containers; may be on a tmpfs.
    pub state_dir: PathBuf,
    /// Registry host → base URLs, tried in order before the host itself.
    pub mirrors: std::collections::BTreeMap<String, Vec<String>>,
}

pub struct ContainerdRuntime {}
