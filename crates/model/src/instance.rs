//! EC2 instances, and what is said of them before they are launched.
//!
//! Follows <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Instance.html>.

use crate::change::Key;
use crate::container_instance::CpuArchitecture;
use crate::id::ContainerInstanceId;
use crate::record::Record;
use crate::scope::Scope;
use crate::tag::Tags;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// An instance: a container instance of this machine with a network namespace of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub scope: Scope,
    /// Such as `i-0123456789abcdef0`.
    pub id: String,
    /// Of those that one call launched, `r-…`.
    pub reservation: String,
    /// Its place among those, from 0.
    pub launch_index: u32,
    pub state: State,
    pub settings: Settings,
    pub vpc: String,
    pub subnet: String,
    pub availability_zone: String,
    /// Its network interface's routing domain, address and id.
    pub network: String,
    pub address: Ipv4Addr,
    pub network_interface: String,
    pub security_groups: Vec<String>,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
    /// Its number among the instances of its machine, which others have once it is terminated.
    pub number: u16,
    /// What it registers as.
    pub container_instance: ContainerInstanceId,
    /// The Auto Scaling group that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Membership>,
    pub launched_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminated_at: Option<Timestamp>,
    /// The code and the message of why it shuts down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Reason>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Its agent has not registered yet.
    Pending,
    Running,
    ShuttingDown,
    Terminated,
}

impl State {
    /// Whether it has capacity, or is to have it.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Pending | Self::Running)
    }
}

/// Why an instance is what it is, as EC2 words it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub code: String,
    pub message: String,
}

/// An instance's place in its Auto Scaling group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    pub name: String,
    /// Whether scaling in leaves it alone.
    pub protected: bool,
    /// Since when it waits for its tasks to leave before it is terminated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining_since: Option<Timestamp>,
}

/// How an instance is, whatever place it is launched in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub image: String,
    pub instance_type: String,
    pub architecture: CpuArchitecture,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_name: Option<String>,
    /// In base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// The ARN of its instance profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    #[serde(default)]
    pub monitoring: bool,
    #[serde(default)]
    pub ebs_optimized: bool,
    /// Whether TerminateInstances refuses it.
    #[serde(default)]
    pub termination_protection: bool,
    /// The template that it was launched from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateVersion>,
}

/// Names one version of a launch template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateVersion {
    pub id: String,
    pub name: String,
    pub version: u64,
}

impl Instance {
    pub fn key_of(scope: &Scope, id: &str) -> Key {
        Key::new(format!("{}/{}/{id}", Self::TABLE, scope.path()))
    }

    /// Whether it gives its tasks away before it is terminated.
    pub fn is_draining(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.draining_since.is_some())
    }
}

impl Record for Instance {
    const TABLE: &'static str = "instance";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.id)
    }
}

/// What is said of an instance before it is launched, by a launch template or by a call; the rest is as it usually is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_address: Option<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_groups: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ebs_optimized: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_protection: Option<bool>,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

impl LaunchSpec {
    /// What this says, and where it is silent what the other says. Tags of both, of which this one's count.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        let mut tags = other.tags.clone();
        tags.0.extend(self.tags.0);
        Self {
            image: self.image.or_else(|| other.image.clone()),
            instance_type: self.instance_type.or_else(|| other.instance_type.clone()),
            key_name: self.key_name.or_else(|| other.key_name.clone()),
            user_data: self.user_data.or_else(|| other.user_data.clone()),
            profile: self.profile.or_else(|| other.profile.clone()),
            subnet: self.subnet.or_else(|| other.subnet.clone()),
            availability_zone: self.availability_zone.or_else(|| other.availability_zone.clone()),
            private_address: self.private_address.or(other.private_address),
            security_groups: match self.security_groups.is_empty() {
                true => other.security_groups.clone(),
                false => self.security_groups,
            },
            monitoring: self.monitoring.or(other.monitoring),
            ebs_optimized: self.ebs_optimized.or(other.ebs_optimized),
            termination_protection: self.termination_protection.or(other.termination_protection),
            tags,
        }
    }
}

/// What instances are launched from.
/// Follows <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_LaunchTemplate.html>.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchTemplate {
    pub scope: Scope,
    pub id: String,
    pub name: String,
    pub created_at: Timestamp,
    /// The ARN of who made it.
    pub created_by: String,
    pub default_version: u64,
    /// The number of the newest version, which may be deleted.
    pub latest_version: u64,
    /// Oldest first.
    pub versions: Vec<LaunchTemplateVersion>,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchTemplateVersion {
    pub number: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub created_at: Timestamp,
    pub created_by: String,
    /// The launch template data as it was given, to be shown.
    pub data: serde_json::Value,
    /// What it says of instances.
    pub spec: LaunchSpec,
}

impl LaunchTemplate {
    pub fn key_of(scope: &Scope, id: &str) -> Key {
        Key::new(format!("{}/{}/{id}", Self::TABLE, scope.path()))
    }

    pub fn version(&self, number: u64) -> Option<&LaunchTemplateVersion> {
        self.versions.iter().find(|version| version.number == number)
    }
}

impl Record for LaunchTemplate {
    const TABLE: &'static str = "launch-template";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.id)
    }
}
