//! The few netlink requests that networks need, on one socket that stays in the namespace it was opened in.

use super::error::{Attempt, Error, IntoIo};
use futures::{Stream, TryStreamExt};
use longshore_model::vpc::{Cidr, MacAddress};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoVeth, LinkAttribute, LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use rustix::io::Errno;
use std::fmt;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Marks routes as ours in `ip route` (`proto 76`).
pub const PROTOCOL: RouteProtocol = RouteProtocol::Other(76);

/// The near end of every pair: each has just two ends, so that all of them can have the same.
pub const NEAR_MAC: MacAddress = MacAddress([0x02, 0x4c, 0, 0, 0, 1]);

/// A list is read within milliseconds.
const MOST_TRIES: u32 = 100;
const WHILE_BUSY: Duration = Duration::from_millis(10);

pub struct Netlink {
    handle: Handle,
    /// Held while a list is asked for: the kernel makes one at a time for a socket.
    listing: tokio::sync::Mutex<()>,
    connection: tokio::task::AbortHandle,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// The interface at the other end, an index of the namespace that one is in.
    pub peer: Option<u32>,
    pub alias: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub interface: u32,
    pub address: Ipv4Addr,
    pub prefix: u8,
}

/// One IPv4 route of any table but `local`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub to: Cidr,
    pub interface: Option<u32>,
    /// Set by this software, here or for another server.
    pub ours: bool,
}

/// What a route is for.
#[derive(Clone, Copy, Debug)]
pub struct To(Ipv4Addr, u8);

impl To {
    pub const EVERYWHERE: Self = Self(Ipv4Addr::UNSPECIFIED, 0);

    pub fn address(address: Ipv4Addr) -> Self {
        Self(address, 32)
    }
}

impl From<Cidr> for To {
    fn from(block: Cidr) -> Self {
        Self(block.base(), block.prefix())
    }
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, self.1)
    }
}

/// Where a route leads.
#[derive(Clone, Copy, Debug)]
pub enum Hop {
    /// Straight out of an interface.
    Interface(u32),
    /// To a router that is reached through an interface whatever its addresses say.
    Router(u32, Ipv4Addr),
}

impl Netlink {
    /// In the namespace of the calling thread, driven by the runtime whose context the thread is in.
    pub fn open_here() -> Result<Self, Error> {
        let (connection, handle, _) =
            rtnetlink::new_connection().attempt(|| "open a netlink socket".to_owned())?;
        let connection = tokio::spawn(connection).abort_handle();
        Ok(Self { handle, listing: tokio::sync::Mutex::default(), connection })
    }

    pub async fn links(&self) -> Result<Vec<Link>, Error> {
        let found = self.list(|| self.handle.link().get().execute(), |found| Some(link(found))).await;
        found.attempt(|| "list interfaces".to_owned())
    }

    pub async fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        let mut found = std::pin::pin!(self.handle.link().get().match_name(name).execute());
        match found.try_next().await.map_err(IntoIo::into_io) {
            Ok(found) => Ok(found.map(link)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error).attempt(|| format!("find interface {name}")),
        }
    }

    /// The name of an interface, which must be there.
    pub async fn name_of(&self, index: u32) -> Result<String, Error> {
        let found = self.links().await?.into_iter().find(|link| link.index == index);
        let absent = || io::Error::from(io::ErrorKind::NotFound);
        Ok(found.ok_or_else(absent).attempt(|| format!("find interface {index}"))?.name)
    }

    pub async fn addresses(&self) -> Result<Vec<Address>, Error> {
        let found = self.list(|| self.handle.address().get().execute(), address).await;
        found.attempt(|| "list addresses".to_owned())
    }

    pub async fn routes(&self) -> Result<Vec<Route>, Error> {
        let mut ask = RouteMessageBuilder::<Ipv4Addr>::new().build();
        ask.header.table = 0;
        let found = self.list(|| self.handle.route().get(ask.clone()).execute(), route).await;
        found.attempt(|| "list routes".to_owned())
    }

    /// One list at a time; and the kernel may still be busy with one whose asker has left.
    async fn list<M, T, S>(&self, ask: impl Fn() -> S, read: impl Fn(M) -> Option<T>) -> io::Result<Vec<T>>
    where
        S: Stream<Item = Result<M, rtnetlink::Error>>,
    {
        let _alone = self.listing.lock().await;
        let mut tries = 1;
        loop {
            let found: Result<Vec<M>, _> = ask().try_collect().await;
            match found.map_err(IntoIo::into_io) {
                Err(error) if Errno::from_io_error(&error) == Some(Errno::BUSY) && tries < MOST_TRIES => {
                    tries += 1;
                    tokio::time::sleep(WHILE_BUSY).await;
                }
                found => return Ok(found?.into_iter().filter_map(read).collect()),
            }
        }
    }

    /// A pair of interfaces: `near` here and in that group, `far` in the other namespace, where it is found by its name.
    pub async fn add_pair(&self, near: &str, group: u32, far: &str, namespace: &File) -> io::Result<()> {
        let there =
            LinkMessageBuilder::<LinkUnspec>::new().name(far).setns_by_fd(namespace.as_raw_fd()).build();
        let pair = LinkMessageBuilder::<LinkVeth>::new(near, far)
            .address(NEAR_MAC.0.to_vec())
            .link_group(group)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(there)))
            .build();
        self.handle.link().add(pair).execute().await.map_err(IntoIo::into_io)
    }

    /// An interface that leads nowhere and holds addresses. A bridge without ports, for there are kernels without
    /// `dummy`, and none that run containers lack bridges.
    pub async fn add_holder(&self, name: &str) -> Result<(), Error> {
        let added = self.handle.link().add(LinkBridge::new(name).build()).execute().await;
        existing_is_fine(added.map_err(IntoIo::into_io)).attempt(|| format!("make interface {name}"))
    }

    pub async fn set_up(&self, index: u32) -> Result<(), Error> {
        self.set(LinkUnspec::new_with_index(index).up()).await.attempt(|| "set an interface up".to_owned())
    }

    pub async fn set_mac(&self, index: u32, mac: MacAddress) -> Result<(), Error> {
        let set = self.set(LinkUnspec::new_with_index(index).address(mac.0.to_vec())).await;
        set.attempt(|| format!("give an interface the address {mac}"))
    }

    /// A remark that other processes can read.
    pub async fn set_alias(&self, index: u32, alias: &str) -> Result<(), Error> {
        let set = self.set(LinkUnspec::new_with_index(index).alias(alias)).await;
        set.attempt(|| "note an interface's owner".to_owned())
    }

    /// Keeps the interface from giving itself IPv6 addresses. (The kernel parameter `disable_ipv6` does too, but
    /// whoever sets it spins while other interfaces change.)
    pub async fn without_ipv6(&self, index: u32) -> Result<(), Error> {
        let mode = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let link = LinkUnspec::new_with_index(index);
        let set = self.set(link.append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![mode]))).await;
        let set = set.map_err(IntoIo::into_io).or_else(|error| match Errno::from_io_error(&error) {
            // A kernel without IPv6 gives none.
            Some(Errno::AFNOSUPPORT) => Ok(()),
            _ => Err(error),
        });
        set.attempt(|| "keep an interface from IPv6".to_owned())
    }

    async fn set(&self, link: LinkMessageBuilder<LinkUnspec>) -> Result<(), rtnetlink::Error> {
        self.handle.link().set(link.build()).execute().await
    }

    /// Removes the interface, its other end and the routes through it. Removing what is not there succeeds.
    pub async fn remove_link(&self, index: u32) -> Result<(), Error> {
        let removed = self.handle.link().del(index).execute().await.map_err(IntoIo::into_io);
        absent_is_fine(removed).attempt(|| "remove an interface".to_owned())
    }

    /// Removes all interfaces of a group: hundreds in the time of one.
    pub async fn remove_group(&self, group: u32) -> Result<(), Error> {
        let group = LinkMessageBuilder::<LinkUnspec>::new().link_group(group).build();
        let mut request = self.handle.link().del(0);
        *request.message_mut() = group;
        let removed = request.execute().await.map_err(IntoIo::into_io);
        absent_is_fine(removed).attempt(|| "remove the interfaces of a group".to_owned())
    }

    /// Gives the interface an address that shows its prefix and brings no route for it.
    pub async fn add_address(&self, interface: u32, address: Ipv4Addr, prefix: u8) -> Result<(), Error> {
        let mut request = self.handle.address().add(interface, address.into(), prefix);
        *request.message_mut() = without_route(interface, address, prefix);
        let added = request.execute().await.map_err(IntoIo::into_io);
        existing_is_fine(added).attempt(|| format!("add address {address}/{prefix}"))
    }

    /// Removing what is not there succeeds.
    pub async fn remove_address(&self, interface: u32, address: Ipv4Addr, prefix: u8) -> Result<(), Error> {
        let message = without_route(interface, address, prefix);
        let removed = self.handle.address().del(message).execute().await.map_err(IntoIo::into_io);
        let removed = absent_is_fine(removed)
            .or_else(|error| super::namespace::ignore(io::ErrorKind::AddrNotAvailable, Err(error)));
        removed.attempt(|| format!("remove address {address}/{prefix}"))
    }

    pub async fn set_route(&self, to: To, hop: Hop, source: Option<Ipv4Addr>) -> Result<(), Error> {
        let route = route_to(to).protocol(PROTOCOL);
        let route = match hop {
            Hop::Interface(index) => route.output_interface(index).scope(RouteScope::Link),
            Hop::Router(index, router) => route.output_interface(index).gateway(router).onlink(),
        };
        let route = if let Some(source) = source { route.pref_source(source) } else { route };
        let set = self.handle.route().add(route.build()).replace().execute().await;
        set.attempt(|| format!("set the route to {to}"))
    }

    /// Whatever in the block has no longer route of its own is answered as unreachable.
    pub async fn set_unreachable(&self, block: Cidr) -> Result<(), Error> {
        let route = route_to(block.into()).protocol(PROTOCOL).kind(RouteType::Unreachable).build();
        let set = self.handle.route().add(route).replace().execute().await;
        set.attempt(|| format!("set {block} unreachable"))
    }

    pub async fn remove_unreachable(&self, block: Cidr) -> Result<(), Error> {
        let route = route_to(block.into()).protocol(PROTOCOL).kind(RouteType::Unreachable).build();
        self.remove_route(block.into(), route).await
    }

    /// Removes our route to the block through that interface. Removing what is not there succeeds.
    pub async fn remove_route_through(&self, to: To, interface: u32) -> Result<(), Error> {
        let route = route_to(to).protocol(PROTOCOL).scope(RouteScope::NoWhere).output_interface(interface);
        self.remove_route(to, route.build()).await
    }

    async fn remove_route(&self, to: To, route: RouteMessage) -> Result<(), Error> {
        let removed = self.handle.route().del(route).execute().await.map_err(IntoIo::into_io);
        absent_is_fine(removed).attempt(|| format!("remove the route to {to}"))
    }

    /// Makes a neighbour known for good, so that nobody has to ask for it.
    pub async fn set_neighbour(
        &self,
        interface: u32,
        address: Ipv4Addr,
        mac: MacAddress,
    ) -> Result<(), Error> {
        let neighbour = self.handle.neighbours().add(interface, address.into()).link_layer_address(&mac.0);
        neighbour.replace().execute().await.attempt(|| format!("make neighbour {address} known"))
    }
}

fn route_to(to: To) -> RouteMessageBuilder<Ipv4Addr> {
    RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to.0, to.1)
}

fn without_route(interface: u32, address: Ipv4Addr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = prefix;
    message.header.index = interface;
    message.attributes = vec![
        AddressAttribute::Address(address.into()),
        AddressAttribute::Local(address.into()),
        AddressAttribute::Flags(AddressFlags::Noprefixroute | AddressFlags::Permanent),
    ];
    message
}

fn link(message: LinkMessage) -> Link {
    let mut found = Link { index: message.header.index, name: String::new(), peer: None, alias: None };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name = name,
            LinkAttribute::Link(peer) => found.peer = Some(peer),
            LinkAttribute::IfAlias(alias) => found.alias = Some(alias),
            _ => {}
        }
    }
    found
}

fn address(message: AddressMessage) -> Option<Address> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })?;
    Some(Address { interface: message.header.index, address: local, prefix: message.header.prefix_len })
}

/// `RT_TABLE_LOCAL` of linux/rtnetlink.h.
const LOCAL_TABLE: u8 = 255;

fn route(message: RouteMessage) -> Option<Route> {
    let header = &message.header;
    let counts = header.address_family == AddressFamily::Inet
        && matches!(header.kind, RouteType::Unicast | RouteType::Unreachable | RouteType::BlackHole)
        && header.table != LOCAL_TABLE;
    let mut base = Ipv4Addr::UNSPECIFIED;
    let mut interface = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(to)) => base = *to,
            RouteAttribute::Oif(index) => interface = Some(*index),
            _ => {}
        }
    }
    let to = Cidr::new(base, header.destination_prefix_length)?;
    counts.then_some(Route { to, interface, ours: header.protocol == PROTOCOL })
}

fn existing_is_fine(result: io::Result<()>) -> io::Result<()> {
    super::namespace::ignore(io::ErrorKind::AlreadyExists, result)
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if is_absent(&error) { Ok(()) } else { Err(error) })
}

fn is_absent(error: &io::Error) -> bool {
    let absent = [Errno::NODEV, Errno::SRCH, Errno::NOENT, Errno::NXIO];
    Errno::from_io_error(error).is_some_and(|errno| absent.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_ask_for_lists_at_once_and_some_leave() {
        let netlink = Netlink::open_here().unwrap();
        let expected = netlink.links().await.unwrap();
        for _ in 0..50 {
            // Asked, and left before the answer.
            let left = tokio::time::timeout(Duration::ZERO, netlink.links());
            let lists = futures::future::try_join_all((0..4).map(|_| netlink.links()));
            let others = futures::future::try_join(netlink.addresses(), netlink.routes());
            let (_, lists, others) = tokio::join!(left, lists, others);
            assert!(lists.unwrap().iter().all(|list| list.len() >= expected.len().min(1)));
            others.unwrap();
        }
    }
}
