//! Who asks, and whom. Invariant: a task is in the VPC of its network interface; the machine, and what has no interface,
//! is in the VPCs whose resolver it asks.

use crate::default_vpc;
use crate::view::View;
use longshore_model::vpc::{NetworkInterface, Subnet, Vpc};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The place of the resolver in a VPC's block.
pub const RESOLVER: u64 = 2;

/// The address of a VPC's resolver; `None` where it has none.
pub fn resolver_of(vpc: &Vpc) -> Option<Ipv4Addr> {
    vpc.cidr.nth(RESOLVER).filter(|_| vpc.dns_support)
}

/// The addresses of all resolvers: of default VPCs, and of others once something is in them.
pub fn resolvers(view: &View) -> BTreeSet<Ipv4Addr> {
    let used = view.subnets.iter().filter(|subnet| view.addresses_used(&subnet.id) > 0);
    let used = used.filter_map(|subnet| view.vpcs.get(&Vpc::key_of(&subnet.scope, &subnet.vpc)));
    let default = view.vpcs.iter().filter(|vpc| vpc.is_default);
    used.chain(default).filter_map(|vpc| resolver_of(vpc)).collect()
}

/// The VPCs that a client at `source` is in when it asks at `asked`; none where it is to get no answer.
pub fn vpcs_of(view: &View, source: Ipv4Addr, asked: Ipv4Addr) -> Vec<Arc<Vpc>> {
    match interface_at(view, source) {
        Some(_) => vpc_of(view, source).filter(|vpc| vpc.dns_support).cloned().into_iter().collect(),
        None => view.vpcs.iter().filter(|vpc| resolver_of(vpc) == Some(asked)).cloned().collect(),
    }
}

/// The VPC in which a network interface has this address.
pub fn vpc_of(view: &View, address: Ipv4Addr) -> Option<&Arc<Vpc>> {
    let interface = interface_at(view, address)?;
    let subnet = view.subnets.get(&Subnet::key_of(&interface.scope, &interface.subnet))?;
    view.vpcs.get(&Vpc::key_of(&subnet.scope, &subnet.vpc))
}

fn interface_at(view: &View, address: Ipv4Addr) -> Option<&Arc<NetworkInterface>> {
    view.network_interfaces.get(&NetworkInterface::key_of(default_vpc::NETWORK, address))
}
