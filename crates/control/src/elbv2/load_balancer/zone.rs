//! Where a load balancer is: one subnet a zone, and an address in each.
//! Invariant: each of its addresses has a network interface that names it as the holder.

use super::super::{invalid, misfit, refuse};
use crate::context::RandomIds;
use crate::refuse::Given;
use longshore_elbv2 as elb;
use longshore_engine::View;
use longshore_engine::placement::{RESERVED_FIRST, RESERVED_LAST, free_address};
use longshore_model::elb::{LoadBalancer, LoadBalancerType, LoadBalancerZone, Scheme};
use longshore_model::id::IdSource;
use longshore_model::vpc::{Holder, MacAddress, NetworkInterface, Subnet};
use longshore_model::{Scope, Timestamp, Transaction};
use longshore_wire::Fault;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Addresses that a subnet of an application load balancer has left.
const ROOM: u64 = 8;

/// A subnet as a request names it, and the address in it that it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub subnet: String,
    pub address: Option<Ipv4Addr>,
}

pub struct Place<'a> {
    pub subnet: &'a Arc<Subnet>,
    pub address: Option<Ipv4Addr>,
}

pub fn wanted(
    subnets: Option<Vec<String>>,
    mappings: Option<Vec<elb::SubnetMapping>>,
) -> Result<Vec<Wanted>, Fault> {
    let (subnets, mappings) = (subnets.unwrap_or_default(), mappings.unwrap_or_default());
    let both = !subnets.is_empty() && !mappings.is_empty();
    let plain = subnets.into_iter().map(|subnet| Wanted { subnet, address: None });
    let mapped = mappings.into_iter().map(mapping).collect::<Result<Vec<_>, _>>()?;
    if both {
        return Err(invalid("You must specify either subnets or subnet mappings, not both"));
    }
    let mut seen = BTreeSet::new();
    let mut all: Vec<Wanted> = plain.chain(mapped).collect();
    // Naming a subnet twice is naming it.
    all.retain(|wanted| seen.insert(wanted.subnet.clone()));
    Ok(all)
}

fn mapping(given: elb::SubnetMapping) -> Result<Wanted, Fault> {
    let elb::SubnetMapping {
        allocation_id,
        i_pv6_address,
        private_i_pv4_address,
        source_nat_ipv6_prefix,
        subnet_id,
    } = given;
    refuse(&[
        ("SubnetMappings.AllocationId", allocation_id.given()),
        ("SubnetMappings.IPv6Address", i_pv6_address.given()),
        ("SubnetMappings.SourceNatIpv6Prefix", source_nat_ipv6_prefix.given()),
    ])?;
    let subnet = subnet_id.filter(|id| !id.is_empty());
    let subnet = subnet.ok_or_else(|| invalid("A subnet ID must be specified in each subnet mapping"))?;
    let parse =
        |text: String| text.parse().map_err(|_| invalid(format!("'{text}' is not a valid IPv4 address")));
    let address = private_i_pv4_address.filter(|text| !text.is_empty()).map(parse).transpose()?;
    Ok(Wanted { subnet, address })
}

/// The subnets, in the order of their zones, when a load balancer may be in them.
pub fn places<'a>(
    view: &'a View,
    scope: &Scope,
    kind: LoadBalancerType,
    scheme: Scheme,
    wanted: &[Wanted],
) -> Result<Vec<Place<'a>>, Fault> {
    let find = |wanted: &Wanted| {
        let missing = || {
            let message = format!("The subnet ID '{}' does not exist", wanted.subnet);
            Fault::from(elb::Error::SubnetNotFoundException(message))
        };
        let subnet = view.subnets.get(&Subnet::key_of(scope, &wanted.subnet)).ok_or_else(missing)?;
        Ok(Place { subnet, address: wanted.address })
    };
    let mut places = wanted.iter().map(find).collect::<Result<Vec<_>, Fault>>()?;
    places.sort_by(|a, b| a.subnet.availability_zone.cmp(&b.subnet.availability_zone));
    let zones: BTreeSet<&str> = places.iter().map(|place| place.subnet.availability_zone.as_str()).collect();
    let vpcs: BTreeSet<&str> = places.iter().map(|place| place.subnet.vpc.as_str()).collect();
    if vpcs.len() > 1 {
        return Err(misfit("All subnets must belong to the same VPC"));
    }
    if zones.len() < places.len() {
        return Err(misfit(
            "A load balancer cannot be attached to multiple subnets in the same Availability Zone",
        ));
    }
    match kind {
        LoadBalancerType::Application if zones.len() < 2 => {
            Err(invalid("At least two subnets in two different Availability Zones must be specified"))
        }
        LoadBalancerType::Network if zones.is_empty() => {
            Err(invalid("At least one subnet must be specified"))
        }
        _ => places.iter().try_for_each(|place| check_address(kind, scheme, place)).map(|()| places),
    }
}

fn check_address(kind: LoadBalancerType, scheme: Scheme, place: &Place<'_>) -> Result<(), Fault> {
    let Some(address) = place.address else { return Ok(()) };
    if kind != LoadBalancerType::Network || scheme != Scheme::Internal {
        return Err(misfit(
            "Private IPv4 addresses can only be specified for internal network load balancers",
        ));
    }
    let (subnet, block) = (&place.subnet.id, place.subnet.cidr);
    let index = u64::from(u32::from(address).wrapping_sub(u32::from(block.base())));
    if !block.contains(address) || index < RESERVED_FIRST || index + RESERVED_LAST >= block.size() {
        return Err(misfit(format!(
            "The private IPv4 address '{address}' is not available in subnet '{subnet}'"
        )));
    }
    Ok(())
}

/// Takes an address at each of the places.
pub fn take(
    view: &View,
    load_balancer: &LoadBalancer,
    places: &[Place<'_>],
    now: Timestamp,
    transaction: &mut Transaction,
) -> Result<Vec<LoadBalancerZone>, Fault> {
    let mut zones = Vec::new();
    for place in places {
        let subnet = place.subnet;
        let id = RandomIds.ec2("eni");
        let address = address_at(view, load_balancer.kind, place, &id)?;
        transaction.create(&NetworkInterface {
            scope: load_balancer.scope.clone(),
            id,
            attachment: RandomIds.uuid(),
            network: subnet.network.clone(),
            subnet: subnet.id.clone(),
            address,
            mac: MacAddress::of(address),
            security_groups: load_balancer.security_groups.clone(),
            holder: Holder::LoadBalancer(load_balancer.name.clone()),
            created_at: now,
        });
        // So that it is not deleted meanwhile.
        transaction.update(&**subnet);
        zones.push(LoadBalancerZone {
            availability_zone: subnet.availability_zone.clone(),
            subnet: subnet.id.clone(),
            address,
            chosen: place.address.is_some(),
        });
    }
    Ok(zones)
}

fn address_at(view: &View, kind: LoadBalancerType, place: &Place<'_>, id: &str) -> Result<Ipv4Addr, Fault> {
    let subnet = place.subnet;
    if let Some(address) = place.address {
        let key = NetworkInterface::key_of(&subnet.network, address);
        return match view.network_interfaces.get(&key) {
            None => Ok(address),
            Some(_) => Err(misfit(format!("The private IPv4 address '{address}' is already in use"))),
        };
    }
    let room = match kind {
        LoadBalancerType::Application => ROOM,
        LoadBalancerType::Network => 1,
    };
    let usable = subnet.cidr.size().saturating_sub(RESERVED_FIRST + RESERVED_LAST);
    let left = usable.saturating_sub(view.addresses_used(&subnet.id));
    let address = free_address(view, subnet, id).filter(|_| left >= room);
    address.ok_or_else(|| {
        let message = format!(
            "Not enough IP space available in {}. ELB requires at least {room} free IP addresses in each subnet.",
            subnet.id
        );
        elb::Error::InvalidSubnetException(message).into()
    })
}

/// The network interfaces of a load balancer, in the order of its zones.
pub fn interfaces_of<'a>(
    view: &'a View,
    load_balancer: &LoadBalancer,
) -> impl Iterator<Item = &'a Arc<NetworkInterface>> {
    let key = |zone: &LoadBalancerZone| {
        let subnet = view.subnets.get(&Subnet::key_of(&load_balancer.scope, &zone.subnet))?;
        view.network_interfaces.get(&NetworkInterface::key_of(&subnet.network, zone.address))
    };
    load_balancer.zones.iter().filter_map(key).collect::<Vec<_>>().into_iter()
}
