//! Which address of which subnet a task gets. Invariant: never one that is held.

use super::Network;
use crate::view::View;
use longshore_model::id::stable_hash;
use longshore_model::vpc::{NetworkInterface, Subnet};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// AWS keeps the first four addresses of a subnet and the last one.
pub const RESERVED_FIRST: u64 = 4;
pub const RESERVED_LAST: u64 = 1;

pub struct Address {
    pub subnet: Arc<Subnet>,
    pub network_interface: String,
    pub address: Ipv4Addr,
}

/// An address of the subnet with the fewest in use that has one left, in the zone where one is given.
pub fn choose(
    view: &View,
    network: &Network,
    zone: Option<&str>,
    network_interface: String,
) -> Option<Address> {
    let mut subnets: Vec<&Arc<Subnet>> = in_zone(network, zone).collect();
    subnets.sort_by_key(|subnet| view.addresses_used(&subnet.id));
    let free = |subnet: &Arc<Subnet>| {
        let address = free_address(view, subnet, &network_interface)?;
        Some((Arc::clone(subnet), address))
    };
    let (subnet, address) = subnets.into_iter().find_map(free)?;
    Some(Address { subnet, network_interface, address })
}

/// Whether a subnet has an address left, in the zone where one is given.
pub fn has_room(view: &View, network: &Network, zone: Option<&str>) -> bool {
    in_zone(network, zone).any(|subnet| view.addresses_used(&subnet.id) < usable(subnet))
}

fn in_zone<'a>(network: &'a Network, zone: Option<&'a str>) -> impl Iterator<Item = &'a Arc<Subnet>> {
    network.subnets.iter().filter(move |subnet| zone.is_none_or(|zone| zone == subnet.availability_zone))
}

/// Starts looking at a place that depends on the interface, so that an address just given back is not the next one to be
/// used: peers may still hold connections to it.
pub fn free_address(view: &View, subnet: &Subnet, network_interface: &str) -> Option<Ipv4Addr> {
    let usable = Some(usable(subnet)).filter(|usable| *usable > 0)?;
    let start = stable_hash(network_interface.bytes()) % usable;
    let is_held = |address: &Ipv4Addr| {
        view.network_interfaces.get(&NetworkInterface::key_of(&subnet.network, *address)).is_some()
    };
    (0..usable)
        .filter_map(|step| subnet.cidr.nth(RESERVED_FIRST + (start + step) % usable))
        .find(|address| !is_held(address))
}

fn usable(subnet: &Subnet) -> u64 {
    subnet.cidr.size().saturating_sub(RESERVED_FIRST + RESERVED_LAST)
}
