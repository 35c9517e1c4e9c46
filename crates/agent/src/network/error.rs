//! What can go wrong with a network, one variant for each thing its reader can act on.

use longshore_model::vpc::Cidr;
use std::io;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the VPC {vpc} overlaps {network}, which belongs to {owner}; choose another block with --vpc-cidr"
    )]
    Overlap { vpc: Cidr, network: Cidr, owner: String },
    #[error(
        "the VPC of this data directory is {is}, not {asked}; run `longshore down` on it before its --vpc-cidr changes"
    )]
    VpcChanged { is: Cidr, asked: Cidr },
    #[error(
        "the subnet {subnet} overlaps {network} of this machine, which belongs to {owner}; make the VPC of another block"
    )]
    SubnetTaken { subnet: Cidr, network: Cidr, owner: String },
    #[error("the VPC {0} has no size that AWS allows: choose a --vpc-cidr from /16 to /28")]
    VpcSize(Cidr),
    #[error("no block of 100.64.0.0/10 is free for the links between this machine and its instances")]
    NoFreeLinks,
    #[error("instance {0} is beyond the last one that a server can have on one machine")]
    TooManyInstances(u16),
    #[error("no address is left for tasks in the network mode bridge on this instance")]
    NoFreeAddress,
    #[error("Bind for 0.0.0.0:{0} failed: port is already allocated")]
    PortInUse(u16),
    #[error("`{0}` cannot be a task id: letters, digits, `-` and `_`, at most 128 of them")]
    TaskId(String),
    #[error("nft, to {attempt}: {said}")]
    Nft { attempt: &'static str, said: String },
    #[error("{attempt}")]
    Machine {
        attempt: String,
        #[source]
        cause: io::Error,
    },
}

/// Says what was attempted when the machine refuses.
pub(super) trait Attempt<T> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: IntoIo> Attempt<T> for Result<T, E> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|cause| Error::Machine { attempt: what(), cause: cause.into_io() })
    }
}

pub(super) trait IntoIo {
    fn into_io(self) -> io::Error;
}

impl IntoIo for io::Error {
    fn into_io(self) -> io::Error {
        self
    }
}

impl IntoIo for rustix::io::Errno {
    fn into_io(self) -> io::Error {
        self.into()
    }
}

impl IntoIo for nix::errno::Errno {
    fn into_io(self) -> io::Error {
        self.into()
    }
}

impl IntoIo for rtnetlink::Error {
    fn into_io(self) -> io::Error {
        match self {
            rtnetlink::Error::NetlinkError(refusal) => refusal.to_io(),
            other => io::Error::other(other),
        }
    }
}
