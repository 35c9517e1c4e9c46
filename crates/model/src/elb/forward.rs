//! What the kernel of an edge's machine passes on. Invariant: a flow goes to one target from its first packet to its last.

use std::net::{Ipv4Addr, SocketAddrV4};

/// What comes to a port of a load balancer's address goes to the targets in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    pub address: Ipv4Addr,
    pub port: u16,
    pub transport: Transport,
    pub targets: Vec<SocketAddrV4>,
    /// Whether targets see the client's address, and not the load balancer's.
    pub keeps_client: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}
