//! Who uses which addresses on this machine.
//! Invariant: a block is taken only while it overlaps no address and no route of anybody else.

use super::error::Error;
use super::names::{ServerId, server_of};
use super::netlink::Netlink;
use longshore_model::vpc::Cidr;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Where the links to instances get their addresses: shared address space (RFC 6598), which neither a VPC nor a
/// home network uses.
const LINKS: (Ipv4Addr, u8) = (Ipv4Addr::new(100, 64, 0, 0), 10);
/// One server's part of it: 256 links of four addresses.
const LINKS_OF_SERVER: u8 = 22;
/// One server's part of it for the private networks of its instances, which are in nobody else's way.
const PRIVATE: u8 = 20;
/// A route for more than this is a way out (`0.0.0.0/0`, a VPN's `0.0.0.0/1`), not somebody's network.
const NETWORK: u8 = 8;

/// What the machine's interfaces and routes say.
#[derive(Debug, Default)]
pub struct Machine {
    uses: Vec<Use>,
    own: Own,
}

/// A block that somebody else uses.
#[derive(Debug)]
struct Use {
    block: Cidr,
    owner: String,
}

/// What this server has from before.
#[derive(Debug, Default)]
struct Own {
    vpc: Option<Cidr>,
    /// Subnets of other VPCs.
    subnets: Vec<Cidr>,
    links: Option<Cidr>,
    private: Option<Cidr>,
}

impl Machine {
    pub async fn read(netlink: &Netlink, server: &ServerId) -> Result<Self, Error> {
        let links = netlink.links().await?;
        let links: BTreeMap<u32, _> = links.into_iter().map(|link| (link.index, link)).collect();
        let mut machine = Self::default();
        for address in netlink.addresses().await? {
            let Some(link) = links.get(&address.interface) else { continue };
            if link.name == server.router() {
                // Subnets' routers are here as well: those of the VPC alone, those of other VPCs with their blocks.
                let block = Cidr::around(address.address, address.prefix);
                if address.prefix == PRIVATE && is_private(address.address) {
                    machine.own.private = block;
                    continue;
                }
                match block.filter(|block| block.prefix() < 32) {
                    // The server's own VPC came first.
                    Some(block) if machine.own.vpc.is_some() => machine.own.subnets.push(block),
                    Some(block) => machine.own.vpc = Some(block),
                    None => {}
                }
            } else if link.name.starts_with(&format!("{}i", server.interface_prefix())) {
                machine.own.links = Cidr::around(address.address, LINKS_OF_SERVER);
            } else if !link.name.starts_with(&server.interface_prefix()) {
                let owner = owner(&link.name, link.alias.as_deref());
                machine.note(Cidr::around(address.address, address.prefix), owner);
            }
        }
        for route in netlink.routes().await? {
            match route.interface.and_then(|index| links.get(&index)) {
                Some(link) if link.name.starts_with(&server.interface_prefix()) => {}
                Some(link) => machine.note(Some(route.to), owner(&link.name, link.alias.as_deref())),
                // A server's unreachable route; its router's address speaks for it.
                None if route.ours => {}
                None => machine.note(Some(route.to), format!("the route to {}", route.to)),
            }
        }
        Ok(machine)
    }

    fn note(&mut self, block: Option<Cidr>, owner: String) {
        let blocks = block.filter(|block| block.prefix() >= NETWORK);
        self.uses.extend(blocks.map(|block| Use { block, owner }));
    }

    /// Whether the VPC may be (or is already) this server's.
    pub fn admit(&self, vpc: Cidr) -> Result<(), Error> {
        if !(16..=28).contains(&vpc.prefix()) {
            return Err(Error::VpcSize(vpc));
        }
        if let Some(is) = self.own.vpc.filter(|is| *is != vpc) {
            return Err(Error::VpcChanged { is, asked: vpc });
        }
        match self.taken(vpc) {
            Some(taken) => Err(Error::Overlap { vpc, network: taken.block, owner: taken.owner.clone() }),
            None => Ok(()),
        }
    }

    /// Whether a subnet of another VPC may be (or is already) led to.
    pub fn admit_subnet(&self, subnet: Cidr) -> Result<(), Error> {
        match self.taken(subnet) {
            Some(taken) => {
                Err(Error::SubnetTaken { subnet, network: taken.block, owner: taken.owner.clone() })
            }
            None => Ok(()),
        }
    }

    /// The block for links: the one this server has, else the first free one from a place that differs by server.
    pub fn links(&self, server: &ServerId) -> Result<Cidr, Error> {
        if let Some(links) = self.own.links {
            return Ok(links);
        }
        let blocks: Vec<Cidr> =
            Cidr::new(LINKS.0, LINKS.1).into_iter().flat_map(|all| all.split(LINKS_OF_SERVER)).collect();
        let start = server.spread() as usize % blocks.len().max(1);
        let mut candidates = blocks.iter().cycle().skip(start).take(blocks.len());
        let free = |block: &&Cidr| {
            self.taken(**block).is_none() && self.own.private.is_none_or(|own| !own.overlaps(**block))
        };
        candidates.find(free).copied().ok_or(Error::NoFreeLinks)
    }

    /// The block for the tasks in the network mode bridge: the one this server has, else the first free one.
    pub fn private_block(&self, server: &ServerId) -> Result<Cidr, Error> {
        if let Some(block) = self.own.private {
            return Ok(block);
        }
        let blocks: Vec<Cidr> =
            Cidr::new(LINKS.0, LINKS.1).into_iter().flat_map(|all| all.split(PRIVATE)).collect();
        let start = server.spread() as usize % blocks.len().max(1);
        let mut candidates = blocks.iter().cycle().skip(start).take(blocks.len());
        let free = |block: &&Cidr| {
            self.taken(**block).is_none() && self.own.links.is_none_or(|links| !links.overlaps(**block))
        };
        candidates.find(free).copied().ok_or(Error::NoFreeLinks)
    }

    pub fn has_private_block(&self) -> bool {
        self.own.private.is_some()
    }

    /// The VPC that this server has claimed, and the subnets of others that it leads to.
    pub fn claimed(&self) -> impl Iterator<Item = Cidr> {
        self.own.vpc.into_iter().chain(self.own.subnets.iter().copied())
    }

    fn taken(&self, block: Cidr) -> Option<&Use> {
        self.uses.iter().find(|other| other.block.overlaps(block))
    }
}

fn owner(interface: &str, alias: Option<&str>) -> String {
    match (server_of(interface), alias) {
        (Some(_), Some(data_dir)) => format!("the Longshore server of {data_dir}"),
        (Some(id), None) => format!("another Longshore server ({id})"),
        (None, _) => format!("the interface {interface}"),
    }
}

/// Whether an address is one of those that servers choose from for what is their own.
pub fn is_private(address: Ipv4Addr) -> bool {
    Cidr::new(LINKS.0, LINKS.1).is_some_and(|all| all.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn machine(uses: &[(&str, &str)]) -> Machine {
        let mut machine = Machine::default();
        for (block, owner) in uses {
            machine.note(Some(cidr(block)), (*owner).to_owned());
        }
        machine
    }

    #[track_caller]
    fn check(uses: &[(&str, &str)], vpc: &str, expected: &str) {
        let said =
            machine(uses).admit(cidr(vpc)).map_or_else(|error| error.to_string(), |()| "free".to_owned());
        assert_eq!(said, expected);
    }

    #[test]
    fn a_block_is_free_unless_it_overlaps_a_network() {
        check(&[("192.168.1.0/24", "lan")], "172.31.0.0/16", "free");
        check(&[("0.0.0.0/0", "out"), ("128.0.0.0/1", "vpn")], "172.31.0.0/16", "free");
        let inside = "the VPC 172.31.0.0/16 overlaps 172.31.16.0/20, which belongs to docker0; \
                      choose another block with --vpc-cidr";
        check(&[("172.31.16.0/20", "docker0")], "172.31.0.0/16", inside);
        let around = "the VPC 10.1.0.0/16 overlaps 10.0.0.0/8, which belongs to vpn; \
                      choose another block with --vpc-cidr";
        check(&[("10.0.0.0/8", "vpn")], "10.1.0.0/16", around);
        check(
            &[],
            "10.0.0.0/8",
            "the VPC 10.0.0.0/8 has no size that AWS allows: choose a --vpc-cidr from /16 to /28",
        );
    }

    #[test]
    fn a_subnet_of_another_vpc_is_led_to_unless_somebody_is_there() {
        let machine = machine(&[("10.0.0.0/16", "eth0")]);
        assert!(machine.admit_subnet(cidr("10.1.0.0/24")).is_ok());
        let said = machine.admit_subnet(cidr("10.0.1.0/24")).unwrap_err().to_string();
        assert!(said.starts_with("the subnet 10.0.1.0/24 overlaps 10.0.0.0/16 of this machine"), "{said}");
    }

    #[test]
    fn links_avoid_what_is_taken() {
        let server = ServerId::of(Path::new("/nowhere/at/all"));
        let first = machine(&[]).links(&server).unwrap();
        assert_eq!(first.prefix(), LINKS_OF_SERVER);
        let second = machine(&[(&first.to_string(), "somebody")]).links(&server).unwrap();
        assert!(!first.overlaps(second));
        assert!(matches!(machine(&[("100.64.0.0/10", "all")]).links(&server), Err(Error::NoFreeLinks)));
    }
}
