//! Every name that a server leaves on the machine.
//! Invariant: each carries the server's id, so that two servers never touch each other's things and `down` finds
//! all of its own by name alone.

use super::error::Error;
use sha2::{Digest, Sha256};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Interfaces of all servers start with it.
pub const PREFIX: &str = "lsh";

/// Names one server on the machine: six hex digits of its data directory's hash, short enough to leave room in an
/// interface's fifteen characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(String);

impl ServerId {
    /// The same for every spelling of one existing directory.
    pub fn of(data_dir: &Path) -> Self {
        let path = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
        let digest = Sha256::digest(path.as_os_str().as_bytes());
        Self(hex::encode(digest.get(..3).unwrap_or_default()))
    }

    /// What all of this server's interfaces start with.
    pub(super) fn interface_prefix(&self) -> String {
        format!("{PREFIX}{}", self.0)
    }

    /// The interface that holds the addresses of the subnets' routers.
    pub(super) fn router(&self) -> String {
        format!("{PREFIX}{}r", self.0)
    }

    /// The interface that holds the addresses of load balancers.
    pub(super) fn edge(&self) -> String {
        format!("{PREFIX}{}e", self.0)
    }

    /// This machine's end of the link to an instance that has its own namespace.
    pub(super) fn link(&self, instance: u16) -> String {
        format!("{PREFIX}{}i{instance}", self.0)
    }

    /// The near end of a task's link; the low 25 bits of `number` make it differ.
    pub(super) fn veth(&self, number: u32) -> String {
        const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let digit = |i: u32| char::from(DIGITS[(number >> (5 * i)) as usize & 31]);
        let suffix: String = (0..5).map(digit).collect();
        format!("{PREFIX}{}t{suffix}", self.0)
    }

    /// The group of all links, so that they can be removed at once.
    pub(super) fn link_group(&self) -> u32 {
        0x4c00_0000 | self.spread()
    }

    pub(super) fn nft_table(&self) -> String {
        format!("longshore_{}", self.0)
    }

    /// The table of what tasks let pass.
    pub(super) fn filter_table(&self) -> String {
        format!("longshore_{}_sg", self.0)
    }

    /// The table of what is passed on for load balancers.
    pub(super) fn forwards_table(&self) -> String {
        format!("longshore_{}_nlb", self.0)
    }

    /// Marks our rules in tables that belong to others.
    pub(super) fn comment(&self) -> String {
        format!("longshore {}", self.0)
    }

    /// A number that spreads servers over a range.
    pub(super) fn spread(&self) -> u32 {
        u32::from_str_radix(&self.0, 16).unwrap_or_default()
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The server that an interface belongs to, when one does.
pub fn server_of(interface: &str) -> Option<&str> {
    let id = interface.strip_prefix(PREFIX)?.get(..6)?;
    id.bytes().all(|b| b.is_ascii_hexdigit()).then_some(id)
}

/// Where the namespaces of one server are kept.
#[derive(Clone, Debug)]
pub struct Paths {
    state: PathBuf,
    server: PathBuf,
}

impl Paths {
    pub fn new(state: &Path, server: &ServerId) -> Self {
        Self { state: state.to_owned(), server: state.join(&server.0) }
    }

    /// Locked by whoever changes what servers share: the claims on address blocks.
    pub fn lock(&self) -> PathBuf {
        self.state.join("network.lock")
    }

    pub fn server(&self) -> &Path {
        &self.server
    }

    pub fn namespaces(&self) -> PathBuf {
        self.server.join("netns")
    }

    pub fn instance(&self, instance: u16) -> PathBuf {
        self.namespaces().join(format!("instance-{instance}"))
    }

    /// The directory of an instance's task namespaces; `None` is the machine itself.
    pub fn tasks(&self, instance: Option<u16>) -> PathBuf {
        match instance {
            Some(instance) => self.namespaces().join(format!("tasks-{instance}")),
            None => self.namespaces().join("tasks"),
        }
    }
}

/// A task's file: its name is the task's id, so that the files say which tasks there are.
pub fn task_file(directory: &Path, task: &str) -> Result<PathBuf, Error> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if task.is_empty() || task.len() > 128 || !task.bytes().all(plain) {
        return Err(Error::TaskId(task.to_owned()));
    }
    Ok(directory.join(task))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_fits_and_names_its_server() {
        let server = ServerId::of(Path::new("/nowhere/at/all"));
        for name in [server.router(), server.link(255), server.veth(u32::MAX), server.veth(0)] {
            assert!(name.len() <= 15, "{name}");
            assert_eq!(server_of(&name), Some(server.0.as_str()));
        }
        assert_ne!(server.veth(1), server.veth(2));
        assert_eq!(server_of("eth0"), None);
        assert_eq!(server_of("lshell0"), None);
    }

    #[test]
    fn a_task_id_never_leaves_its_directory() {
        let directory = Path::new("/d");
        assert!(task_file(directory, "0a1b-2c_3").is_ok());
        for bad in ["", ".", "..", "a/b", "../x", "a b", &"x".repeat(129)] {
            assert!(matches!(task_file(directory, bad), Err(Error::TaskId(_))), "{bad}");
        }
    }
}
