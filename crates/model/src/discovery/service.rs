//! Services of Cloud Map. Invariant: the types of a service's DNS records never change.

use super::arn;
use crate::change::Key;
use crate::record::Record;
use crate::scope::Scope;
use crate::tag::Tags;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscoveryService {
    pub scope: Scope,
    /// `srv-` and 16 letters and digits.
    pub id: String,
    pub name: String,
    /// The namespace's id.
    pub namespace: String,
    /// `None` for one whose instances DNS does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsConfig>,
    /// Whether the health of its instances is what UpdateInstanceCustomHealthStatus says.
    pub custom_health: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creator_request_id: Option<String>,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    pub created_at: Timestamp,
    /// Counts the commits in which instances came or went.
    pub revision: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    pub routing: RoutingPolicy,
    pub records: Vec<DnsRecord>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RoutingPolicy {
    /// Up to eight healthy instances.
    Multivalue,
    /// One of them.
    Weighted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsRecord {
    pub kind: RecordType,
    /// Seconds.
    pub ttl: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RecordType {
    A,
    Aaaa,
    Cname,
    Srv,
}

impl DiscoveryService {
    pub fn key_of(scope: &Scope, id: &str) -> Key {
        Key::new(format!("{}{id}", Self::prefix_of(scope)))
    }

    /// What the keys of a scope's services begin with.
    pub fn prefix_of(scope: &Scope) -> String {
        format!("{}/{}/", Self::TABLE, scope.path())
    }

    pub fn arn(&self) -> String {
        arn(&self.scope, format_args!("service/{}", self.id))
    }

    /// Its record of a type.
    pub fn record(&self, kind: RecordType) -> Option<DnsRecord> {
        self.dns.iter().flat_map(|dns| &dns.records).find(|record| record.kind == kind).copied()
    }
}

impl Record for DiscoveryService {
    const TABLE: &'static str = "discovery-service";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.id)
    }
}
