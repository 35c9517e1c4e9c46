//! Images: their names, where they come from, and how they get into containerd.
//! Invariant: nothing enters the content store whose bytes do not have the digest that names them.

mod archive;
mod flights;
mod manifest;
mod pull;
mod reference;
mod registry;
mod store;
mod unpack;

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;

pub(crate) use self::pull::Images;
pub use self::reference::{ImageRef, InvalidReference};
use crate::runtime;

/// An image that can be run at once: pulled and unpacked.
#[derive(Clone, Debug, Default)]
pub struct Image {
    pub reference: ImageRef,
    /// `sha256:…` of what the tag names (an index or a manifest): the `imageDigest` of ECS.
    pub digest: String,
    /// The snapshot that holds its files.
    pub chain_id: String,
    pub config: Arc<ImageConfig>,
}

/// The part of an image's configuration that says how to run it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub env: Option<Vec<String>>,
    pub working_dir: String,
    pub user: String,
    pub stop_signal: Option<String>,
    pub exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    pub volumes: Option<BTreeMap<String, serde_json::Value>>,
    pub labels: Option<BTreeMap<String, String>>,
}

/// As the agent's `ECS_IMAGE_PULL_BEHAVIOR`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PullPolicy {
    /// Ask the registry what the tag is now; when it does not answer, run what is here.
    #[default]
    Default,
    /// Ask the registry, and fail when it does not answer.
    Always,
    /// Ask only when the image is not here.
    PreferCached,
    /// Never ask.
    Never,
}

/// For a private registry: `repositoryCredentials`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Called while a pull goes on, with what is there of what is needed.
pub type Progress = Arc<dyn Fn(PullProgress) + Send + Sync>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PullProgress {
    pub bytes: u64,
    pub total_bytes: u64,
}

/// ECS's `CannotPullContainerError`. Cloned to every caller that waited for the same pull.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PullError {
    #[error("{reference}: not found")]
    NotFound { reference: ImageRef },
    #[error(
        "pull access denied for {reference}, repository does not exist or may require authorization: {message}"
    )]
    Denied { reference: ImageRef, message: String },
    #[error("failed to do request to {host}: {message}")]
    Unreachable { host: String, message: String },
    /// The registry answered with what is not an answer to the question.
    #[error("unexpected answer from {host}: {message}")]
    Registry { host: String, message: String },
    #[error("{what} does not have its digest: expected {expected}, got {actual}")]
    DigestMismatch { what: String, expected: String, actual: String },
    #[error("image Manifest does not contain descriptor matching platform '{platform}'")]
    NoPlatform { platform: String },
    #[error("no space left on device")]
    DiskFull,
    #[error("No such image: {0}")]
    NotHere(ImageRef),
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("read the archive: {0}")]
    Read(#[from] std::io::Error),
    #[error("not an OCI or docker archive: {0}")]
    Format(String),
    #[error("the archive names no image: give it a tag")]
    NoName,
    #[error(transparent)]
    Image(#[from] PullError),
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
}
