//! What the interfaces of an instance's tasks let pass. Invariant: it names every interface of the instance; what an
//! interface's groups do not allow is dropped.

use crate::vpc::{Cidr, Peer, Rule};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {
    /// The groups of each interface by its address.
    pub interfaces: BTreeMap<Ipv4Addr, BTreeSet<String>>,
    pub groups: BTreeMap<String, Permissions>,
    /// The addresses in each group that a rule names, wherever they are.
    pub members: BTreeMap<String, BTreeSet<Ipv4Addr>>,
    /// The resolvers of the interfaces' VPCs, which are always reached.
    pub resolvers: BTreeSet<Ipv4Addr>,
}

/// What a group allows to come in and to go out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    pub ingress: Vec<Permission>,
    pub egress: Vec<Permission>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// As in [`Rule`].
    pub protocol: String,
    pub ports: Option<(i32, i32)>,
    pub peer: PermittedPeer,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PermittedPeer {
    Block(Cidr),
    /// Everyone in the group.
    Group(String),
}

impl Permission {
    /// `None` for one of IPv6, of which no interface has an address.
    pub fn of(rule: &Rule) -> Option<Self> {
        let peer = match &rule.peer {
            Peer::Cidr(block) => PermittedPeer::Block(*block),
            Peer::SecurityGroup(group) => PermittedPeer::Group(group.clone()),
            Peer::Cidr6(_) => return None,
        };
        Some(Self { protocol: rule.protocol.clone(), ports: rule.ports, peer })
    }
}
