//! Layers become snapshots. Invariant: a snapshot has its chain id as its name only if its layers, unpacked, had the digests
//! that the image's configuration says.

use containerd_client::{
    services::v1::{
        ApplyRequest,
        snapshots::{
            CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
        },
    },
    tonic::Code,
    types,
};

use super::{PullError, manifest::Descriptor, store::plain_error};
use crate::runtime::{
    Error,
    client::{Client, failed},
    snapshots,
};

#[derive(Clone)]
pub(super) struct Unpacker {
    pub client: Client,
    pub snapshotter: String,
}

/// One layer's place in its image.
pub(super) struct Step<'a> {
    pub layer: &'a Descriptor,
    pub diff_id: &'a str,
    pub chain_id: &'a str,
    /// The chain id below; empty for the first.
    pub parent: &'a str,
}

impl Unpacker {
    pub async fn has(&self, chain_id: &str) -> Result<bool, Error> {
        let request = StatSnapshotRequest { snapshotter: self.snapshotter.clone(), key: chain_id.into() };
        match self.client.snapshots().stat(request).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(failed("look for a snapshot")(status)),
        }
    }

    /// The layer's content must be in the store, and its parent unpacked.
    pub async fn unpack(&self, step: &Step<'_>) -> Result<(), PullError> {
        let key = unique_key(step.chain_id);
        let result = self.unpack_as(step, &key).await;
        if !matches!(result, Ok(Committed::Ours)) {
            let request = RemoveSnapshotRequest { snapshotter: self.snapshotter.clone(), key };
            let _ = self.client.snapshots().remove(request).await;
        }
        result.map(|_| ())
    }

    async fn unpack_as(&self, step: &Step<'_>, key: &str) -> Result<Committed, PullError> {
        let request = PrepareSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.into(),
            parent: step.parent.into(),
            labels: Default::default(),
        };
        let prepared = snapshots::prepare(&self.client, request).await;
        let mounts = prepared.map_err(|s| plain_error("prepare a layer's snapshot", s))?;
        let request = ApplyRequest { diff: Some(proto(step.layer)), mounts, ..ApplyRequest::default() };
        let applied =
            self.client.diff().apply(request).await.map_err(|s| plain_error("unpack a layer", s))?;
        let actual = applied.into_inner().applied.unwrap_or_default().digest;
        if actual != step.diff_id {
            let what = format!("the unpacked layer {}", step.layer.digest);
            return Err(PullError::DigestMismatch { what, expected: step.diff_id.into(), actual });
        }
        let request = CommitSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            name: step.chain_id.into(),
            key: key.into(),
            labels: Default::default(),
        };
        match self.client.snapshots().commit(request).await {
            Ok(_) => Ok(Committed::Ours),
            Err(status) if status.code() == Code::AlreadyExists => Ok(Committed::Others),
            Err(status) => Err(plain_error("commit a layer's snapshot", status)),
        }
    }
}

/// Whose unpacking became the snapshot.
enum Committed {
    Ours,
    Others,
}

pub(super) fn proto(descriptor: &Descriptor) -> types::Descriptor {
    types::Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.clone(),
        size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
        annotations: Default::default(),
    }
}

/// A killed process of ours may have left the same layer half unpacked under another key.
fn unique_key(chain_id: &str) -> String {
    format!("extract-{:016x}-{chain_id}", getrandom::u64().unwrap_or_default())
}
