//! Tasks in the network mode `bridge`: an address that is private to the instance, and ports of the instance that lead
//! into the task.
//!
//! Invariant: the packet filter is the record of which port leads where. A new process reads it and goes on; a port whose
//! task is gone leads nowhere.

use super::conntrack::Flow;
use super::error::Error;
use super::rules::nft;
use super::{Eni, ServerId, conntrack, namespace, rules};
use longshore_model::id::stable_hash;
use longshore_model::task::HostPort;
use longshore_model::task_definition::Protocol;
use longshore_model::vpc::{Cidr, MacAddress};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

/// Where a port of the instance leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    pub protocol: Protocol,
    pub host_port: u16,
    pub address: Ipv4Addr,
    pub container_port: u16,
}

/// The private network of one instance.
pub struct Bridge {
    table: String,
    /// What the tasks' interfaces are called.
    links: String,
    /// The namespace of the instance; `None` is the machine's.
    namespace: Option<PathBuf>,
    pub block: Cidr,
    /// The instance's own address towards its tasks.
    pub source: Ipv4Addr,
    /// Held from reading what is published until it is changed.
    changing: tokio::sync::Mutex<()>,
}

impl Bridge {
    /// Loads the rules; ports that lead somewhere go on to.
    pub async fn open(
        server: &ServerId,
        block: Cidr,
        instance: Option<(&Path, Ipv4Addr)>,
    ) -> Result<Self, Error> {
        let gateway = block.nth(1).unwrap_or(block.base());
        let bridge = Self {
            table: table_name(server),
            links: format!("{}*", server.interface_prefix()),
            namespace: instance.map(|(path, _)| path.to_owned()),
            block,
            source: instance.map_or(gateway, |(_, address)| address),
            changing: tokio::sync::Mutex::default(),
        };
        bridge.nft("load the rules of the private network", &bridge.rules()).await?;
        Ok(bridge)
    }

    /// The interface of a task: an address that depends on the task, so that one just given back is not the next.
    pub fn interface(&self, task: &str, taken: &BTreeSet<Ipv4Addr>) -> Option<Eni> {
        // The network's own address, the gateway's and the broadcast address are nobody's.
        let usable = self.block.size().checked_sub(3).filter(|usable| *usable > 0)?;
        let start = stable_hash(task.bytes()) % usable;
        let mut candidates = (0..usable).filter_map(|step| self.block.nth(2 + (start + step) % usable));
        let address = candidates.find(|address| !taken.contains(address))?;
        Some(Eni { address, subnet: self.block, mac: MacAddress::of(address) })
    }

    /// Makes the ports lead to the task. One that still leads elsewhere is taken over: control gives a port away
    /// once its task is STOPPED, and for a task whose instance was away that is before its network is removed.
    pub async fn publish(&self, ports: &[HostPort], address: Ipv4Addr) -> Result<(), Error> {
        let _alone = self.changing.lock().await;
        let present = self.published().await?;
        let leads = |port: &HostPort| Published {
            protocol: port.protocol,
            host_port: port.host_port,
            address,
            container_port: port.container_port,
        };
        let missing: Vec<Published> =
            ports.iter().map(leads).filter(|port| !present.contains(port)).collect();
        let same = |a: &Published, b: &Published| (a.protocol, a.host_port) == (b.protocol, b.host_port);
        let (before, new): (Vec<_>, Vec<_>) =
            missing.iter().copied().partition(|port| present.iter().any(|other| same(other, port)));
        if !new.is_empty() {
            let check = move || new.iter().try_for_each(check_free);
            namespace::within(self.namespace.as_deref(), check).await?;
        }
        let taken_over: Vec<Published> =
            present.iter().filter(|port| before.iter().any(|other| same(other, port))).copied().collect();
        // In one transaction: at no time does the port lead nowhere.
        let script = self.lines("delete", &taken_over) + &self.lines("add", &missing);
        self.change("publish ports", &script).await?;
        self.end_flows(missing, Some(address)).await;
        Ok(())
    }

    /// Ends what leads to the address.
    pub async fn withdraw(&self, address: Ipv4Addr) -> Result<(), Error> {
        let _alone = self.changing.lock().await;
        self.end(|port| port.address == address).await
    }

    /// Ends what leads to addresses that no task has.
    pub async fn keep_only(&self, addresses: &BTreeSet<Ipv4Addr>) -> Result<(), Error> {
        let _alone = self.changing.lock().await;
        self.end(|port| !addresses.contains(&port.address)).await
    }

    async fn end(&self, which: impl Fn(&Published) -> bool) -> Result<(), Error> {
        let ended: Vec<Published> = self.published().await?.into_iter().filter(which).collect();
        self.change("withdraw ports", &self.lines("delete", &ended)).await?;
        self.end_flows(ended, None).await;
        Ok(())
    }

    /// Ends the flows by these ports that do not go to `target`: a client that keeps sending datagrams from one port
    /// would keep its flow to a task that is gone, or to nobody, for ever.
    async fn end_flows(&self, ports: Vec<Published>, target: Option<Ipv4Addr>) {
        if ports.is_empty() {
            return;
        }
        let block = self.block;
        let stale = move |flow: &Flow| {
            let by = |port: &Published| (port.protocol, port.host_port) == (flow.protocol, flow.port);
            let elsewhere = target != Some(flow.answered_by);
            elsewhere
                && ports.iter().any(by)
                && (block.contains(flow.answered_by) || flow.answered_by == flow.to && is_own(flow.to))
        };
        let ended = namespace::within(self.namespace.as_deref(), move || conntrack::end(stale)).await;
        if let Err(error) = ended {
            // The ports are as they should be; only who was sending before may be sending to nobody.
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "flows by ports that lead elsewhere now could not be ended");
        }
    }

    async fn change(&self, attempt: &'static str, script: &str) -> Result<(), Error> {
        match script {
            "" => Ok(()),
            script => self.nft(attempt, script).await.map(drop),
        }
    }

    fn lines(&self, verb: &str, ports: &[Published]) -> String {
        let line = |port: &Published| {
            let Published { protocol, host_port, address, container_port } = port;
            let map = map_of(*protocol);
            format!(
                "{verb} element inet {} {map} {{ {host_port} : {address} . {container_port} }}\n",
                self.table
            )
        };
        ports.iter().map(line).collect()
    }

    async fn published(&self) -> Result<Vec<Published>, Error> {
        let mut all = Vec::new();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let attempt = "list the published ports";
            let arguments = ["-j", "list", "map", "inet", &self.table, map_of(protocol)];
            let listing = nft(self.namespace.as_deref(), attempt, &arguments, "").await?;
            let parsed: Value = serde_json::from_str(&listing)
                .map_err(|error| Error::Nft { attempt, said: error.to_string() })?;
            all.extend(elements(&parsed, protocol));
        }
        Ok(all)
    }

    async fn nft(&self, attempt: &'static str, script: &str) -> Result<String, Error> {
        nft(self.namespace.as_deref(), attempt, &["-f", "-"], script).await
    }

    fn rules(&self) -> String {
        let Self { table, links, block, source, .. } = self;
        let lead = "fib daddr type local meta l4proto tcp dnat ip addr . port to tcp dport map @tcp_ports
    fib daddr type local meta l4proto udp dnat ip addr . port to udp dport map @udp_ports";
        format!(
            r#"
table inet {table} {{
  map tcp_ports {{ type inet_service : ipv4_addr . inet_service; }}
  map udp_ports {{ type inet_service : ipv4_addr . inet_service; }}
  chain raw {{ type filter hook prerouting priority raw; policy accept; }}
  chain forward {{ type filter hook forward priority filter; policy accept; }}
  chain prerouting {{ type nat hook prerouting priority dstnat; policy accept; }}
  chain output {{ type nat hook output priority -100; policy accept; }}
  chain postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}
}}
flush chain inet {table} raw
flush chain inet {table} forward
flush chain inet {table} prerouting
flush chain inet {table} output
flush chain inet {table} postrouting
table inet {table} {{
  chain raw {{
    iifname "{links}" ip daddr 127.0.0.0/8 drop comment "no task reaches the loopback of its instance"
  }}
  chain forward {{
    ip daddr {block} ip saddr != {block} ct state new ct status ! dnat drop comment "others come by ports alone"
  }}
  chain prerouting {{
    {lead}
  }}
  chain output {{
    {lead}
  }}
  chain postrouting {{
    ip saddr 127.0.0.0/8 ip daddr {block} snat ip to {source} comment "the instance itself, by its loopback"
    ip saddr {block} ip daddr {block} ct status dnat snat ip to {source} comment "a task, by a port of its instance"
    ip saddr {block} ip daddr != {block} masquerade comment "out of the instance"
  }}
}}
"#
        )
    }
}

/// Removes the rules of the machine's own namespace; those of instances end with theirs.
pub async fn unload(server: &ServerId) -> Result<(), Error> {
    rules::remove_table(&table_name(server)).await
}

fn table_name(server: &ServerId) -> String {
    format!("{}_ports", server.nft_table())
}

fn map_of(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp_ports",
        Protocol::Udp => "udp_ports",
    }
}

/// Whether it is an address of the calling thread's namespace.
fn is_own(address: Ipv4Addr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// A port that a program of the calling thread's namespace listens on is not taken from it.
fn check_free(port: &Published) -> Result<(), Error> {
    let at = (Ipv4Addr::UNSPECIFIED, port.host_port);
    let bound = match port.protocol {
        Protocol::Tcp => TcpListener::bind(at).map(drop),
        Protocol::Udp => UdpSocket::bind(at).map(drop),
    };
    match bound {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(Error::PortInUse(port.host_port)),
        _ => Ok(()),
    }
}

/// The elements of a map as `nft -j` lists them: `[port, {"concat": [address, port]}]`.
fn elements(listing: &Value, protocol: Protocol) -> Vec<Published> {
    let objects = listing["nftables"].as_array().into_iter().flatten();
    let elements = objects.filter_map(|object| object["map"]["elem"].as_array()).flatten();
    let read = |element: &Value| {
        let port = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
        let target = &element[1]["concat"];
        Some(Published {
            protocol,
            host_port: port(&element[0])?,
            address: target[0].as_str()?.parse().ok()?,
            container_port: port(&target[1])?,
        })
    };
    elements.filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge(block: &str) -> Bridge {
        let block: Cidr = block.parse().unwrap();
        Bridge {
            table: "t".to_owned(),
            links: String::new(),
            namespace: None,
            block,
            source: block.nth(1).unwrap(),
            changing: tokio::sync::Mutex::default(),
        }
    }

    #[test]
    fn addresses_are_the_tasks_own_until_there_are_none() {
        let bridge = bridge("100.64.0.0/29");
        let mut taken = BTreeSet::new();
        for number in 0..5 {
            let eni = bridge.interface(&format!("task-{number}"), &taken).unwrap();
            assert_eq!(eni.router().to_string(), "100.64.0.1");
            assert!(taken.insert(eni.address));
        }
        assert_eq!(taken.first().map(ToString::to_string).as_deref(), Some("100.64.0.2"));
        assert_eq!(taken.last().map(ToString::to_string).as_deref(), Some("100.64.0.6"));
        assert!(bridge.interface("one more", &taken).is_none());
    }

    #[test]
    fn what_nft_lists_is_read() {
        let listing = serde_json::json!({"nftables": [{"metainfo": {}}, {"map": {"name": "tcp_ports",
            "elem": [[8080, {"concat": ["100.64.0.2", 80]}], [9, "nonsense"]]}}, {"map": {"name": "empty"}}]});
        let address = "100.64.0.2".parse().unwrap();
        let expected = Published { protocol: Protocol::Tcp, host_port: 8080, address, container_port: 80 };
        assert_eq!(elements(&listing, Protocol::Tcp), [expected]);
    }
}
