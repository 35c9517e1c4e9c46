//! Where load balancers send, and how well that is. Invariant: a group has each pair of id and port once.

use super::{Attributes, SERVICE, arn};
use crate::arn::Arn;
use crate::change::Key;
use crate::record::Record;
use crate::scope::Scope;
use crate::tag::Tags;
use crate::task::TaskRef;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Targets that are alike to those who send to them; its key is its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetGroup {
    pub scope: Scope,
    pub name: String,
    /// 16 hexadecimal digits, the end of its ARN.
    pub id: String,
    pub vpc: String,
    pub target_type: TargetType,
    pub protocol: GroupProtocol,
    /// Of HTTP and HTTPS.
    pub protocol_version: ProtocolVersion,
    /// The port of targets that are registered without one.
    pub port: u16,
    pub health_check: HealthCheck,
    #[serde(default, skip_serializing_if = "Attributes::is_empty")]
    pub attributes: Attributes,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    pub created_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetType {
    Instance,
    Ip,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GroupProtocol {
    Http,
    Https,
    Tcp,
    Udp,
    TcpUdp,
    Tls,
}

impl GroupProtocol {
    /// Whether application load balancers send to it; network load balancers send to the others.
    pub fn is_application(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ProtocolVersion {
    #[default]
    Http1,
    Http2,
    Grpc,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    pub enabled: bool,
    pub protocol: HealthCheckProtocol,
    /// `None` is the port that the target takes traffic at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Of HTTP and HTTPS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Seconds.
    pub interval: u32,
    /// Seconds.
    pub timeout: u32,
    pub healthy_threshold: u32,
    pub unhealthy_threshold: u32,
    /// Of HTTP and HTTPS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matcher: Option<Matcher>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HealthCheckProtocol {
    Http,
    Https,
    Tcp,
}

/// The codes that count as success, as the user wrote them: `200`, `200,202` or `200-299`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Matcher {
    Http(String),
    Grpc(String),
}

/// A target of a group, under the group's id, its own id and its port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub scope: Scope,
    /// The id of its group.
    pub target_group: String,
    /// An IPv4 address, or the id of an EC2 instance.
    pub id: String,
    pub port: u16,
    /// Where it is reached.
    pub address: Ipv4Addr,
    /// `all` for an address outside of the VPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// The task that ECS registered it for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskRef>,
    pub health: TargetHealth,
    pub registered_at: Timestamp,
    /// Since when it is given no new connections; it goes when the deregistration delay is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deregistered_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetHealth {
    pub state: HealthState,
    /// Such as `Target.Timeout`; none for one that is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

impl TargetHealth {
    /// Of a target whose first checks are still to come.
    pub fn initial() -> Self {
        Self {
            state: HealthState::Initial,
            reason: Some("Elb.RegistrationInProgress".to_owned()),
            description: Some("Target registration is in progress".to_owned()),
        }
    }

    pub fn healthy() -> Self {
        Self { state: HealthState::Healthy, reason: None, description: None }
    }
}

/// What is known of a target by its checks. That it drains, or that its group is in no use, is seen from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    Initial,
    Healthy,
    Unhealthy,
}

impl TargetGroup {
    pub fn key_of(scope: &Scope, name: &str) -> Key {
        Key::new(format!("{}/{}/{name}", Self::TABLE, scope.path()))
    }

    /// The key of the group that an ARN names, if it is of the scope; whether it is that very one, its own ARN says.
    pub fn key_of_arn(scope: &Scope, text: &str) -> Option<Key> {
        let arn = Arn::parse(text).filter(|arn| arn.in_scope(scope) && arn.service == SERVICE)?;
        let (name, _) = arn.resource.strip_prefix("targetgroup/")?.split_once('/')?;
        Some(Self::key_of(scope, name))
    }

    pub fn arn(&self) -> String {
        arn(&self.scope, format_args!("targetgroup/{}/{}", self.name, self.id))
    }

    /// An attribute that the user set.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }
}

impl Record for TargetGroup {
    const TABLE: &'static str = "target-group";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.name)
    }
}

impl Target {
    pub fn key_of(scope: &Scope, target_group: &str, id: &str, port: u16) -> Key {
        Key::new(format!("{}{id}/{port}", Self::prefix_of(scope, target_group)))
    }

    /// What the keys of a group's targets begin with.
    pub fn prefix_of(scope: &Scope, target_group: &str) -> String {
        format!("{}/{}/{target_group}/", Self::TABLE, scope.path())
    }
}

impl Record for Target {
    const TABLE: &'static str = "target";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.target_group, &self.id, self.port)
    }
}
