//! Snapshots that are new. Invariant: a containerd that was killed while it made one does not keep us from making others.

use std::{
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use containerd_client::{
    services::v1::snapshots::PrepareSnapshotRequest,
    tonic::{Code, Status},
    types::Mount,
};
use longshore_model::time::Timestamp;
use tokio::sync::Mutex;

use super::{client::Client, clock};

/// Snapshotters count their directories for all namespaces together, so one at a time takes one out of the way.
static CLEARING: Mutex<()> = Mutex::const_new(());

const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// A snapshotter renames the new directory to its number before its record is durable. Killed in between, it takes the
/// same number again, finds the directory there, and would refuse every new snapshot from then on.
pub(crate) async fn prepare(client: &Client, request: PrepareSnapshotRequest) -> Result<Vec<Mount>, Status> {
    let refused = match attempt(client, &request).await {
        Err(status) if unrecorded(&status).is_some() => status,
        other => return other,
    };
    let _turn = CLEARING.lock().await;
    tracing::warn!(%refused, "clearing away snapshots of which containerd has no record");
    let mut last = refused;
    // Each number that the killed one had given out is in the way once.
    for _ in 0..ATTEMPTS {
        let began = clock::now();
        match attempt(client, &request).await {
            Err(status) => match unrecorded(&status) {
                Some(directory) => {
                    clear(&directory, began)?;
                    last = status;
                }
                None => return Err(status),
            },
            prepared => return prepared,
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(last)
}

/// containerd takes such a directory away itself when it happens to collect garbage, and another creation may get the
/// number then: one that has just changed is left alone.
fn clear(unrecorded: &Path, since: Timestamp) -> Result<(), Status> {
    let result = match std::fs::symlink_metadata(unrecorded) {
        Ok(found) if found.ctime().saturating_mul(1000) + found.ctime_nsec() / 1_000_000 < settled(since) => {
            std::fs::remove_dir_all(unrecorded)
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Status::unknown(format!("remove {}: {error}", unrecorded.display())))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The kernel's stamps can lie some milliseconds behind the clock.
fn settled(since: Timestamp) -> i64 {
    since.millis() - 50
}

async fn attempt(client: &Client, request: &PrepareSnapshotRequest) -> Result<Vec<Mount>, Status> {
    Ok(client.snapshots().prepare(request.clone()).await?.into_inner().mounts)
}

/// The directory that is in the way, when that is why no snapshot was made:
/// `failed to rename: rename …/snapshots/new-123 …/snapshots/20: file exists`.
fn unrecorded(status: &Status) -> Option<PathBuf> {
    if status.code() == Code::NotFound {
        return None;
    }
    let renamed = status.message().rsplit_once(": rename ")?.1.strip_suffix(": file exists")?;
    let (new, numbered) = renamed.split_at_checked(renamed.find("/snapshots/new-")?)?;
    let (_, numbered) = numbered.split_once(" /")?;
    let directory = Path::new("/").join(numbered);
    let number = directory.file_name()?.to_str()?;
    let is_numbered = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let beside = directory.parent() == Some(&Path::new(new).join("snapshots"));
    (is_numbered && beside).then_some(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_numbered_directory_beside_the_new_one_is_taken_away() {
        let check = |message: &str, expected: Option<&str>| {
            assert_eq!(unrecorded(&Status::unknown(message)), expected.map(PathBuf::from), "{message}");
        };
        let root = "/data/my dir/snapshotter.v1.overlayfs";
        let of =
            |target: &str| format!("failed to rename: rename {root}/snapshots/new-17 {target}: file exists");
        check(&of(&format!("{root}/snapshots/20")), Some(&format!("{root}/snapshots/20")));
        check(&of(&format!("{root}/snapshots/..")), None);
        check(&of(&format!("{root}/snapshots/20/fs")), None);
        check(&of("/etc/20"), None);
        check("failed to rename: rename /a /b: file exists", None);
        check(&format!("rename {root}/snapshots/new-17 {root}/snapshots/20: no space left on device"), None);
        check("snapshot \"a\": already exists", None);
    }
}
