//! The VPC part of EC2: VPCs, subnets, security groups and network interfaces.

use crate::change::Key;
use crate::id::Uuid;
use crate::record::Record;
use crate::scope::Scope;
use crate::tag::Tags;
use crate::task::TaskRef;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vpc {
    pub scope: Scope,
    pub id: String,
    pub cidr: Cidr,
    pub is_default: bool,
    /// The routing domain whose addresses are unique. The default VPCs of all accounts and regions share one.
    pub network: String,
    pub dhcp_options: String,
    /// The id of its network ACL, which lets everything pass.
    #[serde(default)]
    pub network_acl: String,
    #[serde(default = "yes")]
    pub dns_support: bool,
    #[serde(default = "yes")]
    pub dns_hostnames: bool,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub scope: Scope,
    pub id: String,
    pub vpc: String,
    pub network: String,
    pub cidr: Cidr,
    pub availability_zone: String,
    /// Such as `use1-az1`.
    pub availability_zone_id: String,
    pub is_default: bool,
    /// Whether instances in it are given public addresses where nothing is said.
    #[serde(default)]
    pub map_public_ip: bool,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    pub scope: Scope,
    pub id: String,
    pub vpc: String,
    pub name: String,
    pub description: String,
    pub ingress: Vec<Rule>,
    pub egress: Vec<Rule>,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

/// One permission of a security group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Such as `sgr-0123456789abcdef0`.
    #[serde(default)]
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// `tcp`, `udp`, `icmp`, a protocol number, or `-1` for all.
    pub protocol: String,
    /// From the first to the last one; of ICMP, the type and the code, where -1 is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<(i32, i32)>,
    pub peer: Peer,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Peer {
    Cidr(Cidr),
    /// A block of IPv6, which no VPC has addresses of yet.
    Cidr6(String),
    SecurityGroup(String),
}

/// A network interface; its key is its address, so that no two can have the same one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInterface {
    pub scope: Scope,
    pub id: String,
    pub attachment: Uuid,
    pub network: String,
    pub subnet: String,
    pub address: Ipv4Addr,
    pub mac: MacAddress,
    pub security_groups: Vec<String>,
    pub holder: Holder,
    pub created_at: Timestamp,
}

/// What a network interface belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holder {
    Task(TaskRef),
    /// The load balancer of this name, in the interface's scope.
    LoadBalancer(String),
    /// The EC2 instance of this id.
    Instance(String),
}

/// Says that an account's region was given what AWS gives a new one: its default VPC. It stays when the user
/// deletes that VPC, so that it does not come back by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedRegion {
    pub scope: Scope,
    pub opened_at: Timestamp,
}

impl OpenedRegion {
    pub fn key_of(scope: &Scope) -> Key {
        Key::new(format!("{}/{}", Self::TABLE, scope.path()))
    }
}

impl Record for OpenedRegion {
    const TABLE: &'static str = "opened-region";
    fn key(&self) -> Key {
        Self::key_of(&self.scope)
    }
}

impl Vpc {
    pub fn key_of(scope: &Scope, id: &str) -> Key {
        Key::new(format!("{}/{}/{id}", Self::TABLE, scope.path()))
    }
}

impl Record for Vpc {
    const TABLE: &'static str = "vpc";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.id)
    }
}

impl Subnet {
    pub fn key_of(scope: &Scope, id: &str) -> Key {
        Key::new(format!("{}/{}/{id}", Self::TABLE, scope.path()))
    }
}

impl Record for Subnet {
    const TABLE: &'static str = "subnet";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.id)
    }
}

impl SecurityGroup {
    pub fn key_of(scope: &Scope, id: &str) -> Key {
        Key::new(format!("{}/{}/{id}", Self::TABLE, scope.path()))
    }
}

impl Record for SecurityGroup {
    const TABLE: &'static str = "security-group";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.id)
    }
}

impl NetworkInterface {
    pub fn key_of(network: &str, address: Ipv4Addr) -> Key {
        Key::new(format!("{}/{network}/{address}", Self::TABLE))
    }
}

impl Record for NetworkInterface {
    const TABLE: &'static str = "network-interface";
    fn key(&self) -> Key {
        Self::key_of(&self.network, self.address)
    }
}

/// An IPv4 block such as `172.31.0.0/16`. Its host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    base: u32,
    prefix: u8,
}

impl Cidr {
    /// Every address.
    pub const ANY: Self = Self { base: 0, prefix: 0 };

    /// `None` when the prefix is longer than 32 or host bits are set.
    pub fn new(base: Ipv4Addr, prefix: u8) -> Option<Self> {
        let base = u32::from(base);
        (prefix <= 32 && base & !mask(prefix) == 0).then_some(Self { base, prefix })
    }

    pub fn base(self) -> Ipv4Addr {
        self.base.into()
    }

    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// A block with the host bits of `base` cleared; `None` when the prefix is longer than 32.
    pub fn around(base: Ipv4Addr, prefix: u8) -> Option<Self> {
        Self::new((u32::from(base) & mask(prefix.min(32))).into(), prefix)
    }

    /// Whether all of the other block is in this one.
    pub fn covers(self, other: Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.base())
    }

    pub fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// How many addresses the block has.
    pub fn size(self) -> u64 {
        1 << (32 - u32::from(self.prefix))
    }

    /// The address `index` places after the base, inside the block.
    pub fn nth(self, index: u64) -> Option<Ipv4Addr> {
        (index < self.size()).then(|| self.base.wrapping_add(index as u32).into())
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == self.base
    }

    /// The block's parts of the longer `prefix`, in order.
    pub fn split(self, prefix: u8) -> impl Iterator<Item = Cidr> {
        let count: u64 = if prefix < self.prefix || prefix > 32 { 0 } else { 1 << (prefix - self.prefix) };
        let step = 1u64 << (32 - u32::from(prefix.min(32)));
        (0..count).map(move |i| Cidr { base: self.base.wrapping_add((i * step) as u32), prefix })
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base(), self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = NotACidr;

    fn from_str(text: &str) -> Result<Self, NotACidr> {
        let (base, prefix) = text.split_once('/').ok_or(NotACidr)?;
        Self::new(base.parse().map_err(|_| NotACidr)?, prefix.parse().map_err(|_| NotACidr)?).ok_or(NotACidr)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an IPv4 block such as 172.31.0.0/16 with its host bits zero")]
pub struct NotACidr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address of the interface at `address`: locally administered, and unique where addresses are.
    pub fn of(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x4c, a, b, c, d])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = NotAMacAddress;

    fn from_str(text: &str) -> Result<Self, NotAMacAddress> {
        let bytes = hex::decode(text.replace(':', "")).map_err(|_| NotAMacAddress)?;
        bytes.try_into().map(Self).map_err(|_| NotAMacAddress)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address")]
pub struct NotAMacAddress;

macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
serde_as_text!(Cidr);
serde_as_text!(MacAddress);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_splits_into_its_parts() {
        let vpc: Cidr = "172.31.0.0/16".parse().unwrap();
        let subnets: Vec<_> = vpc.split(20).take(2).map(|c| c.to_string()).collect();
        assert_eq!(subnets, ["172.31.0.0/20", "172.31.16.0/20"]);
        assert_eq!(vpc.split(20).count(), 16);
        assert_eq!(vpc.split(8).count(), 0);
    }

    #[test]
    fn host_bits_and_nonsense_are_refused() {
        for text in ["10.0.0.1/16", "10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0.0/-1"] {
            assert_eq!(text.parse::<Cidr>(), Err(NotACidr), "{text}");
        }
        assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains(Ipv4Addr::BROADCAST));
    }
}
