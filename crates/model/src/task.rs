//! Tasks. Invariant: `last_status` never goes backwards, and a STOPPED task never changes but for its tags.
//!
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Task.html>.

use crate::arn;
use crate::change::Key;
use crate::id::{ContainerInstanceId, TaskId, Uuid};
use crate::placement::{PlacementConstraint, PlacementStrategy};
use crate::record::Record;
use crate::resources::Resources;
use crate::scope::Scope;
use crate::tag::Tags;
use crate::task_definition::{EnvironmentVariable, Protocol};
use crate::time::Timestamp;
use crate::vpc::MacAddress;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    pub scope: Scope,
    pub cluster: String,
    pub id: TaskId,
    pub family: String,
    pub revision: u32,
    pub group: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_by: Option<String>,
    #[serde(default)]
    pub launch_type: LaunchType,
    /// Whose capacity it takes, where a strategy chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_provider: Option<Box<str>>,
    pub desired_status: DesiredStatus,
    pub last_status: LastStatus,
    /// The task's size after overrides.
    pub size: Resources,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrides: Option<Box<Overrides>>,
    /// Where it is, or is to be; NONE while it waits for capacity.
    pub container_instance: ContainerInstanceId,
    /// What it asks for while it waits for capacity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Box<Waiting>>,
    pub availability_zone: String,
    /// Its network interface, in the network mode awsvpc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Attachment>,
    /// The ports of the instance that lead to its containers, in the modes bridge and host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
    pub containers: Vec<Container>,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// Counts the changes that describe calls show; starts at 1.
    pub version: u64,
    #[serde(default)]
    pub times: Times,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
}

/// What a task asks of a place, beside what its definition asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    pub constraints: Vec<PlacementConstraint>,
    pub strategies: Vec<PlacementStrategy>,
    /// Where its network interface may be, in the network mode awsvpc.
    pub subnets: Vec<String>,
    pub security_groups: Vec<String>,
}

/// Names one task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskRef {
    pub scope: Scope,
    pub cluster: String,
    pub id: TaskId,
}

impl TaskRef {
    pub fn key(&self) -> Key {
        Task::key_of(&self.scope, &self.cluster, self.id)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DesiredStatus {
    Running,
    Stopped,
}

impl DesiredStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
        }
    }
}

/// Where a task is on its one-way path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LastStatus {
    Provisioning,
    Pending,
    Activating,
    Running,
    Deactivating,
    Stopping,
    Deprovisioning,
    Stopped,
}

impl LastStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "PROVISIONING",
            Self::Pending => "PENDING",
            Self::Activating => "ACTIVATING",
            Self::Running => "RUNNING",
            Self::Deactivating => "DEACTIVATING",
            Self::Stopping => "STOPPING",
            Self::Deprovisioning => "DEPROVISIONING",
            Self::Stopped => "STOPPED",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_stopped_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connectivity_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_stopped_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<Timestamp>,
}

/// Where a task runs, as users ask for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LaunchType {
    /// On any instance that offers Fargate capacity.
    #[default]
    Fargate,
    /// On a container instance of the cluster.
    Ec2,
    /// On a container instance of the cluster that is nobody's EC2 instance.
    External,
}

impl LaunchType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fargate => "FARGATE",
            Self::Ec2 => "EC2",
            Self::External => "EXTERNAL",
        }
    }
}

/// A port of the instance that leads to a container's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    pub container: String,
    pub container_port: u16,
    pub host_port: u16,
    pub protocol: Protocol,
}

/// Why a task stops: `stopCode` and `stoppedReason`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    pub code: StopCode,
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopCode {
    TaskFailedToStart,
    EssentialContainerExited,
    UserInitiated,
    ServiceSchedulerInitiated,
    SpotInterruption,
    TerminationNotice,
    InfrastructureHealth,
}

impl StopCode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TaskFailedToStart => "TaskFailedToStart",
            Self::EssentialContainerExited => "EssentialContainerExited",
            Self::UserInitiated => "UserInitiated",
            Self::ServiceSchedulerInitiated => "ServiceSchedulerInitiated",
            Self::SpotInterruption => "SpotInterruption",
            Self::TerminationNotice => "TerminationNotice",
            Self::InfrastructureHealth => "InfrastructureHealth",
        }
    }
}

/// The task's elastic network interface, as describe calls show it; the address is held by the
/// `NetworkInterface` record as long as the task is not STOPPED.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub id: Uuid,
    pub network_interface: String,
    pub network: String,
    pub subnet: String,
    pub address: Ipv4Addr,
    pub mac: MacAddress,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    pub name: String,
    /// The one in the container's ARN.
    pub uuid: Uuid,
    pub last_status: ContainerStatus,
    /// Whether it was started, ever.
    #[serde(default)]
    pub was_running: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Health::is_unknown")]
    pub health: Health,
    /// How often its restart policy started it again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restarts: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What a container's health check says of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Health {
    /// It has no health check, or none has decided yet.
    #[default]
    Unknown,
    Healthy,
    Unhealthy,
}

impl Health {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub fn is_unknown(&self) -> bool {
        *self == Self::Unknown
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ContainerStatus {
    Pending,
    Running,
    Stopped,
}

impl ContainerStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
        }
    }
}

/// What RunTask changed for this task only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrides {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<ContainerOverride>,
    /// CPU units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u64>,
    /// MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_role_arn: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerOverride {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<EnvironmentVariable>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<u64>,
}

/// A RunTask that named a client token: repeating it answers with the same tasks and starts none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientToken {
    pub scope: Scope,
    pub cluster: String,
    pub token: String,
    /// Tells the request from another one with the same token.
    pub request: u64,
    pub tasks: Vec<TaskId>,
    pub used_at: Timestamp,
}

impl ClientToken {
    pub fn key_of(scope: &Scope, cluster: &str, token: &str) -> Key {
        Key::new(format!("{}/{}/{cluster}/{token}", Self::TABLE, scope.path()))
    }
}

impl Record for ClientToken {
    const TABLE: &'static str = "client-token";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.cluster, &self.token)
    }
}

impl Task {
    pub fn key_of(scope: &Scope, cluster: &str, id: TaskId) -> Key {
        Key::new(format!("{}/{}/{cluster}/{id}", Self::TABLE, scope.path()))
    }

    pub fn reference(&self) -> TaskRef {
        TaskRef { scope: self.scope.clone(), cluster: self.cluster.clone(), id: self.id }
    }

    pub fn arn(&self) -> String {
        arn::ecs(&self.scope, format_args!("task/{}/{}", self.cluster, self.id))
    }

    /// What its overrides say of a container.
    pub fn container_override(&self, container: &str) -> Option<&ContainerOverride> {
        self.overrides.as_ref()?.containers.iter().find(|changed| changed.name == container)
    }

    /// Whether the task holds its place on its instance.
    pub fn holds_resources(&self) -> bool {
        self.last_status != LastStatus::Stopped
    }
}

impl Record for Task {
    const TABLE: &'static str = "task";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.cluster, self.id)
    }
}
