//! An instance with a network namespace of its own, on the machine of others: `up --instances N`.
//! Invariant: its tasks' packets pass the machine's namespace, where the rules are; the link to it is the only way.

use super::error::{Attempt, Error};
use super::names::{Paths, ServerId};
use super::namespace::{self, Namespace};
use super::netlink::{Hop, NEAR_MAC, Netlink, To};
use longshore_model::vpc::{Cidr, MacAddress};
use std::net::Ipv4Addr;

/// The name of the link inside the instance.
pub const UPLINK: &str = "uplink";

/// The link from the machine to an instance.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// The machine's interface.
    pub interface: u32,
    /// The machine's address on it.
    pub machine: Ipv4Addr,
    pub instance: Ipv4Addr,
}

/// The instance's namespace and the link to it, found or made.
pub async fn ensure(
    machine: &Netlink,
    server: &ServerId,
    paths: &Paths,
    instance: u16,
    links: Cidr,
) -> Result<(Namespace, Link), Error> {
    let (Some(near), Some(far)) = (addresses(links, instance, 1), addresses(links, instance, 2)) else {
        return Err(Error::TooManyInstances(instance));
    };
    let path = paths.instance(instance);
    let namespace = match namespace::open(&path).await? {
        Some(namespace) => namespace,
        None => {
            let namespace = namespace::create_for_instance().await?;
            namespace::unpin(&path)?;
            namespace::pin(&namespace.file, &path)?;
            namespace
        }
    };
    let interface = ensure_pair(machine, server, instance, &namespace).await?;
    machine.add_address(interface, near, 30).await?;
    machine.set_up(interface).await?;
    let uplink = find(&namespace.netlink, UPLINK).await?;
    namespace.netlink.set_mac(uplink, MacAddress::of(far)).await?;
    namespace.netlink.add_address(uplink, far, 30).await?;
    namespace.netlink.set_up(uplink).await?;
    machine.set_neighbour(interface, far, MacAddress::of(far)).await?;
    machine.set_route(To::address(far), Hop::Interface(interface), None).await?;
    namespace.netlink.set_neighbour(uplink, near, NEAR_MAC).await?;
    namespace.netlink.set_route(To::EVERYWHERE, Hop::Router(uplink, near), None).await?;
    Ok((namespace, Link { interface, machine: near, instance: far }))
}

async fn ensure_pair(
    machine: &Netlink,
    server: &ServerId,
    instance: u16,
    namespace: &Namespace,
) -> Result<u32, Error> {
    let name = &server.link(instance);
    let near = machine.link(name).await?;
    let far = namespace.netlink.link(UPLINK).await?;
    match (near, far) {
        (Some(near), Some(far)) if far.peer == Some(near.index) => Ok(near.index),
        (near, far) => {
            // Halves of something that was never finished, or of a namespace that is gone.
            if let Some(near) = near {
                machine.remove_link(near.index).await?;
            }
            if let Some(far) = far {
                namespace.netlink.remove_link(far.index).await?;
            }
            let added = machine.add_pair(name, server.link_group(), UPLINK, &namespace.file).await;
            added.attempt(|| format!("make interface {name}"))?;
            let near = find(machine, name).await?;
            machine.without_ipv6(near).await?;
            Ok(near)
        }
    }
}

/// The interface of that name, which must be there.
pub async fn find(netlink: &Netlink, name: &str) -> Result<u32, Error> {
    let absent = || std::io::Error::from(std::io::ErrorKind::NotFound);
    let link = netlink.link(name).await?.ok_or_else(absent).attempt(|| format!("find interface {name}"))?;
    Ok(link.index)
}

fn addresses(links: Cidr, instance: u16, end: u64) -> Option<Ipv4Addr> {
    links.nth(4 * u64::from(instance) + end)
}
