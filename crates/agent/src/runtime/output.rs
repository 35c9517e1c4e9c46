//! The file that a container's output goes to. Invariant: containerd's shim appends to it, so that output is kept while
//! nobody of ours runs; it is for us alone to read.

use super::Error;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The shim does not make the file.
pub(crate) fn make(path: &Path) -> Result<(), Error> {
    let made = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    made.map(drop).map_err(|error| failed(error.to_string()))
}

/// The names of the file for standard output and for standard error. They differ, because of a name that comes twice
/// the shim shares one descriptor, which it closes at the end of the first stream: what came on the other is lost.
pub(super) fn names(path: &Path) -> Result<(String, String), Error> {
    make(path)?;
    // The shim reads them as URIs, and takes one without a scheme as it stands.
    let name = path.to_str().filter(|name| name.starts_with('/') && !name.contains('%'));
    let name = name.ok_or_else(|| failed(format!("{} cannot be named to containerd", path.display())))?;
    Ok((name.to_owned(), format!("/.{name}")))
}

fn failed(message: String) -> Error {
    Error::Failed { attempted: "make the file for a container's output", message }
}
