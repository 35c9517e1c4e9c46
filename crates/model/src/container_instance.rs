//! The machines that tasks run on, as their agents registered them.
//!
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerInstance.html>.

use crate::arn;
use crate::change::Key;
use crate::control_plane::ControlPlaneId;
use crate::id::ContainerInstanceId;
use crate::record::Record;
use crate::resources::Resources;
use crate::scope::Scope;
use crate::tag::Tags;
use crate::task::LaunchType;
use crate::task_definition::Protocol;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The attribute that says which availability zone an instance is in.
pub const ZONE: &str = "ecs.availability-zone";
/// The attribute that says by which address an instance is reached.
pub const ADDRESS: &str = "longshore.address";

/// One agent's machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerInstance {
    pub id: ContainerInstanceId,
    /// What people call it, such as `instance-1`.
    pub name: String,
    pub capacity: Capacity,
    /// What it may promise to tasks: the machine's own size times the operator's overcommit.
    pub resources: Resources,
    pub cpu_architecture: CpuArchitecture,
    /// What the machine and its operator say of it, and what users said by PutAttributes. An attribute without
    /// a value has an empty one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    #[serde(default)]
    pub ports: Ports,
    /// The ids of its GPUs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<String>,
    #[serde(default)]
    pub agent: AgentVersion,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    pub registered_at: Timestamp,
    /// Whether its agent is connected; an instance whose agent is away takes no new tasks.
    pub agent_connected: bool,
    /// The control plane that its agent is linked to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_to: Option<ControlPlaneId>,
    /// When it became INACTIVE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deregistered_at: Option<Timestamp>,
    /// Counts the changes that describe calls show; starts at 1.
    #[serde(default)]
    pub version: u64,
}

/// Whose tasks an instance runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Capacity {
    /// The Fargate tasks of every account. It belongs to no cluster and is never listed.
    Fargate,
    /// Those of one cluster that ask for instances.
    Cluster(Membership),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    pub scope: Scope,
    pub cluster: String,
    /// EC2 or EXTERNAL.
    pub launch_type: LaunchType,
    /// Such as `i-0123456789abcdef0`, or `mi-…` for one that is nobody's EC2 instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ec2_instance_id: Option<String>,
    /// Whether it is an EC2 instance that was launched here, and ends with that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub launched: bool,
    /// Whose capacity it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_provider: Option<String>,
    pub status: Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    Active,
    /// Takes no new tasks.
    Draining,
    /// Deregistered; still described for a while.
    Inactive,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Draining => "DRAINING",
            Self::Inactive => "INACTIVE",
        }
    }
}

/// The ports of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// Ports that no task may have.
    pub reserved: Vec<(Protocol, u16)>,
    /// The first and the last one of those given to tasks that ask for any.
    pub dynamic: (u16, u16),
}

impl Default for Ports {
    fn default() -> Self {
        Self { reserved: Vec::new(), dynamic: (49153, 65535) }
    }
}

/// What runs on the machine to run tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentVersion {
    pub agent: String,
    pub runtime: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CpuArchitecture {
    #[default]
    #[serde(rename = "X86_64")]
    X86_64,
    #[serde(rename = "ARM64")]
    Arm64,
}

impl CpuArchitecture {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "X86_64",
            Self::Arm64 => "ARM64",
        }
    }

    /// As the attribute `ecs.cpu-architecture` writes it.
    pub fn attribute(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }
}

impl ContainerInstance {
    pub fn key_of(id: ContainerInstanceId) -> Key {
        Key::new(format!("{}/{id}", Self::TABLE))
    }

    pub fn membership(&self) -> Option<&Membership> {
        match &self.capacity {
            Capacity::Fargate => None,
            Capacity::Cluster(membership) => Some(membership),
        }
    }

    /// `None` for one that offers Fargate capacity, which no user can name.
    pub fn arn(&self) -> Option<String> {
        self.membership().map(|member| arn_of(&member.scope, &member.cluster, self.id))
    }
}

pub fn arn_of(scope: &Scope, cluster: &str, id: ContainerInstanceId) -> String {
    arn::ecs(scope, format_args!("container-instance/{cluster}/{id}"))
}

impl Record for ContainerInstance {
    const TABLE: &'static str = "container-instance";
    fn key(&self) -> Key {
        Self::key_of(self.id)
    }
}

/// Counts the placements on an instance. Every placement updates it, so two that were decided from one
/// snapshot conflict, and the free resources that the second one saw are read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placements {
    pub instance: ContainerInstanceId,
    pub count: u64,
}

impl Placements {
    pub fn key_of(instance: ContainerInstanceId) -> Key {
        Key::new(format!("{}/{instance}", Self::TABLE))
    }
}

impl Record for Placements {
    const TABLE: &'static str = "placements";
    fn key(&self) -> Key {
        Self::key_of(self.instance)
    }
}
