//! Instances of Cloud Map's services.

use super::DiscoveryService;
use crate::change::Key;
use crate::record::Record;
use crate::scope::Scope;
use crate::task::TaskRef;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The attributes that Cloud Map and ECS know.
pub mod attribute {
    pub const ALIAS: &str = "AWS_ALIAS_DNS_NAME";
    pub const EC2_INSTANCE: &str = "AWS_EC2_INSTANCE_ID";
    pub const INITIAL_HEALTH: &str = "AWS_INIT_HEALTH_STATUS";
    pub const CNAME: &str = "AWS_INSTANCE_CNAME";
    pub const IPV4: &str = "AWS_INSTANCE_IPV4";
    pub const IPV6: &str = "AWS_INSTANCE_IPV6";
    pub const PORT: &str = "AWS_INSTANCE_PORT";
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscoveryInstance {
    pub scope: Scope,
    /// The service's id.
    pub service: String,
    /// Chosen by who registers it.
    pub id: String,
    pub attributes: BTreeMap<String, String>,
    /// What its custom health check says; `None` where its service has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthStatus>,
    /// The task that ECS registered it for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creator_request_id: Option<String>,
    /// The operation that registered it, which a repeated request is answered with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    pub registered_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HealthStatus {
    Healthy,
    Unhealthy,
}

impl HealthStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "HEALTHY",
            Self::Unhealthy => "UNHEALTHY",
        }
    }
}

impl DiscoveryInstance {
    pub fn key_of(scope: &Scope, service: &str, id: &str) -> Key {
        Key::new(format!("{}{id}", Self::prefix_of(scope, service)))
    }

    /// What the keys of a service's instances begin with.
    pub fn prefix_of(scope: &Scope, service: &str) -> String {
        format!("{}/{}/{service}/", Self::TABLE, scope.path())
    }

    /// The key of the service that an instance's key is of.
    pub fn service_of(key: &Key) -> Option<Key> {
        let mut parts = key.as_str().splitn(5, '/');
        let is_instance = parts.next() == Some(Self::TABLE);
        let (account, region, service) = (parts.next()?, parts.next()?, parts.next()?);
        is_instance.then(|| DiscoveryService::key_of(&Scope::new(account, region), service))
    }

    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.attribute(attribute::IPV4)?.parse().ok()
    }

    pub fn ipv6(&self) -> Option<Ipv6Addr> {
        self.attribute(attribute::IPV6)?.parse().ok()
    }

    pub fn port(&self) -> Option<u16> {
        self.attribute(attribute::PORT)?.parse().ok()
    }

    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }

    /// Whether clients are sent to it while others are there: one without a health check is taken to be healthy.
    pub fn is_healthy(&self) -> bool {
        self.health != Some(HealthStatus::Unhealthy)
    }
}

impl Record for DiscoveryInstance {
    const TABLE: &'static str = "discovery-instance";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.service, &self.id)
    }
}
