//! Devices of the machine in a container. Invariant: a container has those that it names, and one that is privileged all.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use serde_json::{Value, json};

use super::{ContainerSpec, CreateError};

/// What of `/dev` a container has of its own.
const OWN: [&str; 5] = ["pts", "shm", "fd", "mqueue", "console"];

/// The device nodes to make, and the rules of the cgroup that let them be used.
pub(super) fn of(spec: &ContainerSpec) -> Result<(Vec<Value>, Vec<Value>), CreateError> {
    let mut nodes = Vec::new();
    if spec.privileged {
        all(Path::new("/dev"), &mut nodes);
    }
    let mut rules = Vec::new();
    for device in &spec.devices {
        let gathered = fs::metadata(&device.source).map_err(|error| error.to_string());
        let found = gathered.and_then(|metadata| {
            kind(&metadata).map(|kind| (kind, metadata)).ok_or_else(|| "not a device node".to_owned())
        });
        let (kind, metadata) = found.map_err(|why| {
            let source = device.source.display();
            CreateError::Invalid(format!(
                "error gathering device information while adding custom device \"{source}\": {why}"
            ))
        })?;
        nodes.retain(|node: &Value| node["path"] != device.target.as_str());
        nodes.push(node(&device.target, kind, &metadata));
        let (major, minor) = numbers(&metadata);
        rules.push(
            json!({ "allow": true, "type": kind, "major": major, "minor": minor, "access": device.access }),
        );
    }
    Ok((nodes, rules))
}

/// Those below a directory; what cannot be looked at is not there for a container either.
fn all(directory: &Path, nodes: &mut Vec<Value>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if OWN.iter().any(|own| name == *own) {
            continue;
        }
        let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else { continue };
        if metadata.is_dir() {
            all(&path, nodes);
        } else if let (Some(kind), Some(path)) = (kind(&metadata), path.to_str()) {
            nodes.push(node(path, kind, &metadata));
        }
    }
}

fn kind(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    match (kind.is_char_device(), kind.is_block_device()) {
        (true, _) => Some("c"),
        (_, true) => Some("b"),
        (false, false) => None,
    }
}

fn numbers(metadata: &Metadata) -> (u32, u32) {
    (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()))
}

fn node(path: &str, kind: &str, metadata: &Metadata) -> Value {
    let (major, minor) = numbers(metadata);
    json!({
        "path": path,
        "type": kind,
        "major": major,
        "minor": minor,
        "fileMode": metadata.mode() & 0o7777,
        "uid": metadata.uid(),
        "gid": metadata.gid(),
    })
}
