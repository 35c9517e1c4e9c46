//! A load balancer and its addresses. Invariant: a region has each name once.

use super::{Attributes, arn};
use crate::change::Key;
use crate::id::stable_hash;
use crate::record::Record;
use crate::scope::Scope;
use crate::tag::Tags;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// A load balancer; its key is its name, so that a region has each name once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadBalancer {
    pub scope: Scope,
    pub name: String,
    /// 16 hexadecimal digits, the end of its ARN.
    pub id: String,
    pub kind: LoadBalancerType,
    pub scheme: Scheme,
    pub vpc: String,
    /// One in each zone, in the order of the zones.
    pub zones: Vec<LoadBalancerZone>,
    /// Empty for one that takes what comes (a network load balancer that was made without).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_groups: Vec<String>,
    #[serde(default, skip_serializing_if = "Attributes::is_empty")]
    pub attributes: Attributes,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    pub created_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadBalancerType {
    Application,
    Network,
}

impl LoadBalancerType {
    /// As ARNs write it.
    pub fn short(self) -> &'static str {
        match self {
            Self::Application => "app",
            Self::Network => "net",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    InternetFacing,
    Internal,
}

/// Where a load balancer is in one zone. The address has a record of its own among the network interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadBalancerZone {
    pub availability_zone: String,
    pub subnet: String,
    pub address: Ipv4Addr,
    /// Whether the user chose the address.
    #[serde(default)]
    pub chosen: bool,
}

impl LoadBalancer {
    pub fn key_of(scope: &Scope, name: &str) -> Key {
        Key::new(format!("{}/{}/{name}", Self::TABLE, scope.path()))
    }

    pub fn arn(&self) -> String {
        arn(&self.scope, format_args!("loadbalancer/{}", self.path()))
    }

    /// The end of its ARN and of its listeners', such as `app/web/50dc6c495c0c9188`.
    pub fn path(&self) -> String {
        format!("{}/{}/{}", self.kind.short(), self.name, self.id)
    }

    /// The name that resolves to its addresses.
    pub fn dns_name(&self) -> String {
        let internal = if self.scheme == Scheme::Internal { "internal-" } else { "" };
        let (name, region) = (&self.name, &self.scope.region);
        match self.kind {
            LoadBalancerType::Application => {
                // AWS ends these names in a number of nine or ten digits.
                let number = 1_000_000_000 + stable_hash(self.id.bytes()) % 1_000_000_000;
                format!("{internal}{name}-{number}.{region}.elb.amazonaws.com")
            }
            LoadBalancerType::Network => format!("{name}-{}.elb.{region}.amazonaws.com", self.id),
        }
    }

    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.zones.iter().map(|zone| zone.address)
    }

    /// An attribute that the user set.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }
}

impl Record for LoadBalancer {
    const TABLE: &'static str = "load-balancer";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.name)
    }
}
