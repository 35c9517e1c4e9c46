//! Task definitions. Invariant: a revision is immutable but for its status; revisions of a family never repeat.
//!
//! The records hold the fields that Longshore honours; `control` refuses the others at registration.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TaskDefinition.html>.

mod isolation;

pub use isolation::{
    Capabilities, Device, HostEntry, Isolation, LinuxParameters, Names, Permission, SystemControl, Tmpfs,
    Ulimit,
};

use crate::arn;
use crate::change::Key;
use crate::container_instance::CpuArchitecture;
use crate::placement::PlacementConstraint;
use crate::record::Record;
use crate::scope::Scope;
use crate::tag::Tags;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDefinition {
    pub scope: Scope,
    pub family: String,
    pub revision: u32,
    pub status: Status,
    pub containers: Vec<ContainerDefinition>,
    pub network_mode: Option<NetworkMode>,
    pub requires_compatibilities: Vec<Compatibility>,
    /// As the user wrote it, such as `0.5 vCPU`, in its canonical form: CPU units.
    pub cpu: Option<u64>,
    /// MiB.
    pub memory: Option<u64>,
    pub execution_role_arn: Option<String>,
    pub cpu_architecture: Option<CpuArchitecture>,
    /// Whether the user named LINUX as the operating system.
    pub operating_system_named: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub placement_constraints: Vec<PlacementConstraint>,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    pub registered_at: Timestamp,
    pub registered_by: String,
    pub deregistered_at: Option<Timestamp>,
    pub delete_requested_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    Active,
    Inactive,
    DeleteInProgress,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Inactive => "INACTIVE",
            Self::DeleteInProgress => "DELETE_IN_PROGRESS",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    Awsvpc,
    Bridge,
    Host,
    None,
}

impl NetworkMode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Awsvpc => "awsvpc",
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::None => "none",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Compatibility {
    Ec2,
    External,
    Fargate,
}

impl Compatibility {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ec2 => "EC2",
            Self::External => "EXTERNAL",
            Self::Fargate => "FARGATE",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerDefinition {
    pub name: String,
    pub image: String,
    /// CPU units; 0 when none were asked for.
    pub cpu: u64,
    /// The hard limit, MiB.
    pub memory: Option<u64>,
    /// The soft limit, MiB.
    pub memory_reservation: Option<u64>,
    pub essential: bool,
    pub entry_point: Option<Vec<String>>,
    pub command: Option<Vec<String>>,
    pub environment: Vec<EnvironmentVariable>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretReference>,
    pub working_directory: Option<String>,
    pub user: Option<String>,
    pub readonly_root_filesystem: Option<bool>,
    pub port_mappings: Vec<PortMapping>,
    pub log: Option<AwsLogs>,
    /// Seconds that the containers that depend on it wait for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_timeout: Option<u32>,
    /// Seconds between the stop signal and SIGKILL.
    pub stop_timeout: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<Dependency>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mount_points: Vec<MountPoint>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes_from: Vec<VolumeFrom>,
    #[serde(default, skip_serializing_if = "Isolation::is_usual")]
    pub isolation: Isolation,
    #[serde(default, skip_serializing_if = "Names::is_usual")]
    pub names: Names,
    /// The container's in its runtime, beside those that are Longshore's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What must be true of another container before this one starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    pub container: String,
    pub condition: Condition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Condition {
    /// It was started.
    Start,
    /// It ended.
    Complete,
    /// It ended with exit code 0.
    Success,
    /// Its health check passed.
    Healthy,
}

impl Condition {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "START",
            Self::Complete => "COMPLETE",
            Self::Success => "SUCCESS",
            Self::Healthy => "HEALTHY",
        }
    }
}

/// How a container is asked whether it is well; times in seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// As the user wrote it: `CMD` and the words, or `CMD-SHELL` and a line for the container's shell.
    pub command: Vec<String>,
    pub interval: u32,
    pub timeout: u32,
    pub retries: u32,
    /// Failures this soon after the start do not count.
    pub start_period: Option<u32>,
}

/// Starts a container again that ended, without replacing the task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    pub enabled: bool,
    pub ignored_exit_codes: Vec<i32>,
    /// Seconds that it must have run to be started again.
    pub attempt_period: u32,
}

impl RestartPolicy {
    pub const DEFAULT_ATTEMPT_PERIOD: u32 = 300;
}

/// Files that the containers of a task share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub name: String,
    /// A path of the instance; without it the volume lives and ends with the task.
    pub host_path: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    pub volume: String,
    pub container_path: String,
    pub read_only: bool,
}

/// Takes over the mounts of another container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeFrom {
    pub container: String,
    pub read_only: bool,
}

/// A variable of the environment whose value is a secret's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretReference {
    pub name: String,
    /// A parameter's name or ARN, or a secret's ARN, which may go on with a JSON key, a stage and a version.
    pub value_from: String,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentVariable {
    pub name: String,
    pub value: String,
}

impl fmt::Debug for EnvironmentVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Users put passwords into environments; logs must not show them.
        write!(f, "{}=…", self.name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    pub container_port: u16,
    pub host_port: Option<u16>,
    pub protocol: Option<Protocol>,
    pub name: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// The options of the `awslogs` log driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwsLogs {
    pub group: String,
    pub region: String,
    pub stream_prefix: Option<String>,
    pub create_group: bool,
    /// Every option as the user wrote it, for describe calls.
    pub options: BTreeMap<String, String>,
}

impl TaskDefinition {
    /// The network mode of its tasks; `bridge` where it names none, as on Linux instances of AWS.
    pub fn mode(&self) -> NetworkMode {
        self.network_mode.unwrap_or(NetworkMode::Bridge)
    }

    pub fn key_of(scope: &Scope, family: &str, revision: u32) -> Key {
        // Zeros in front keep the keys of a family in the order of its revisions.
        Key::new(format!("{}/{}/{family}/{revision:010}", Self::TABLE, scope.path()))
    }

    pub fn arn(&self) -> String {
        arn_of(&self.scope, &self.family, self.revision)
    }
}

impl Record for TaskDefinition {
    const TABLE: &'static str = "task-definition";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.family, self.revision)
    }
}

pub fn arn_of(scope: &Scope, family: &str, revision: u32) -> String {
    arn::ecs(scope, format_args!("task-definition/{family}:{revision}"))
}

/// A family's highest revision so far, kept when its revisions are deleted: AWS never gives a number twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Family {
    pub scope: Scope,
    pub name: String,
    pub last_revision: u32,
}

impl Family {
    pub fn key_of(scope: &Scope, name: &str) -> Key {
        Key::new(format!("{}/{}/{name}", Self::TABLE, scope.path()))
    }
}

impl Record for Family {
    const TABLE: &'static str = "task-definition-family";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.name)
    }
}
