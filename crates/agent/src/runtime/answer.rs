//! What containerd's and runc's refusals mean. Invariant: their words reach the user unchanged, because people search for them.

use containerd_client::tonic::{Code, Status as Answer};

use super::{
    CreateError, Error, StartError,
    client::{failed, is_disk_full},
};

pub(super) fn create_error(attempted: &'static str, answer: &Answer) -> CreateError {
    let message = answer.message();
    if is_disk_full(message) {
        CreateError::DiskFull
    } else if is_about_the_command(message) {
        CreateError::Command(message.to_owned())
    } else {
        failed(attempted)(answer.clone()).into()
    }
}

pub(super) fn start_error(id: &str, answer: &Answer) -> StartError {
    if answer.code() == Code::NotFound {
        Error::NotFound(id.into()).into()
    } else if is_about_the_command(answer.message()) {
        StartError::Command(answer.message().to_owned())
    } else {
        failed("start a container")(answer.clone()).into()
    }
}

/// runc's words for what its own first process could not do on the container's behalf.
pub(super) fn is_about_the_command(message: &str) -> bool {
    ["unable to start container process", "exec: ", "exec format error", "chdir to cwd"]
        .iter()
        .any(|words| message.contains(words))
}

/// containerd answers a signal for a dead process with one of these.
pub(super) fn has_ended(answer: &Answer) -> bool {
    answer.code() == Code::NotFound || answer.message().contains("process already finished")
}

/// The shim could not mount the container's files because they are not where the snapshotter said.
pub(super) fn is_snapshot_gone(answer: &Answer) -> bool {
    let message = answer.message();
    message.contains("failed to mount rootfs component") && message.contains("no such file or directory")
}

/// A containerd that was killed while it made the task left its directory.
pub(super) fn is_bundle_there(answer: &Answer) -> bool {
    answer.message().contains("mkdir ") && answer.message().ends_with(": file exists")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        let read = |message: &str| create_error("create", &Answer::unknown(message));
        let command = "OCI runtime create failed: unable to start container process: exec: \"x\": not found";
        assert!(matches!(read(command), CreateError::Command(message) if message == command));
        assert!(matches!(read("mkdir /x: no space left on device"), CreateError::DiskFull));
        assert!(matches!(read("boom"), CreateError::Runtime(Error::Failed { .. })));
        let lost = "failed to create shim task: failed to mount rootfs component &{overlay [upperdir=/s/3/fs]}: no such file \
                    or directory: unknown";
        assert!(is_snapshot_gone(&Answer::unknown(lost)) && !is_snapshot_gone(&Answer::unknown(command)));
        let gone = create_error("create", &Answer::unavailable("transport"));
        assert!(matches!(gone, CreateError::Runtime(Error::Unavailable { .. })));
        assert!(matches!(start_error("a", &Answer::not_found("a")), StartError::Runtime(Error::NotFound(_))));
    }
}
