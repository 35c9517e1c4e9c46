//! The addresses that the machine itself answers at, such as those of load balancers.
//! Invariant: they are on an interface of their own, which says what is held when no process remembers.

use super::error::Error;
use super::instance::find;
use super::names::ServerId;
use super::netlink::Netlink;
use super::overlap::Machine;
use longshore_model::vpc::Cidr;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

pub struct Holder {
    server: ServerId,
    vpc: Cidr,
    machine: Netlink,
    interface: u32,
}

impl Holder {
    /// Makes the interface, or finds it.
    pub async fn open(server: ServerId, vpc: Cidr) -> Result<Self, Error> {
        let machine = Netlink::open_here()?;
        let name = server.edge();
        machine.add_holder(&name).await?;
        let interface = find(&machine, &name).await?;
        machine.without_ipv6(interface).await?;
        machine.set_up(interface).await?;
        Ok(Self { server, vpc, machine, interface })
    }

    /// Has the machine answer at these addresses and no others of the interface. Says which ones it cannot have.
    pub async fn hold(&self, wanted: &BTreeSet<Ipv4Addr>) -> Result<Vec<(Ipv4Addr, Error)>, Error> {
        let present = self.machine.addresses().await?;
        let present: BTreeSet<Ipv4Addr> = present
            .into_iter()
            .filter(|found| found.interface == self.interface)
            .map(|found| found.address)
            .collect();
        for address in present.difference(wanted) {
            self.machine.remove_address(self.interface, *address, 32).await?;
        }
        let mut refused = Vec::new();
        for address in wanted.difference(&present) {
            if let Err(error) = self.take(*address).await {
                refused.push((*address, error));
            }
        }
        Ok(refused)
    }

    /// An address of another VPC is taken unless somebody else on this machine uses it.
    async fn take(&self, address: Ipv4Addr) -> Result<(), Error> {
        if !self.vpc.contains(address)
            && let Some(block) = Cidr::new(address, 32)
        {
            Machine::read(&self.machine, &self.server).await?.admit_subnet(block)?;
        }
        self.machine.add_address(self.interface, address, 32).await
    }
}
