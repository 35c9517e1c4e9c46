//! The messages between control and an agent, and in [`edge`] those between control and an edge. Both directions are level-triggered: a message says how things
//! are, so that one lost with a broken link is made good by the next.

pub mod edge;
pub mod firewall;

use crate::container_instance::{AgentVersion, CpuArchitecture, Ports};
use crate::id::{ContainerInstanceId, TaskId};
use crate::resources::Resources;
use crate::tag::Tags;
use crate::task::{Health, HostPort, TaskRef};
use crate::task_definition::{
    Dependency, EnvironmentVariable, HealthCheck, Isolation, Names, RestartPolicy, Volume,
};
use crate::time::Timestamp;
use crate::vpc::{Cidr, MacAddress};
use firewall::Firewall;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// From control to an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToAgent {
    /// Everything the instance should have; what it has besides is to be removed. Sent first on each link.
    Assigned(Vec<Assignment>),
    /// Assignments that are new or changed, and those that ended.
    Changed { assigned: Vec<Assignment>, ended: Vec<TaskId> },
    /// What the interfaces of the instance's tasks let pass, whole. It comes before a task that it is for.
    Firewall(Firewall),
    /// The log events of this source are durable up to the offset.
    LogsStored { source: String, offset: u64 },
}

/// From an agent to control.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromAgent {
    Hello(Hello),
    /// How a task is, each time that changes.
    Observed(Observation),
    Logs(LogBatch),
}

/// What an agent says of its machine when it connects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub instance: ContainerInstanceId,
    pub name: String,
    pub resources: Resources,
    pub cpu_architecture: CpuArchitecture,
    /// What the machine and its operator say of it.
    pub attributes: BTreeMap<String, String>,
    pub ports: Ports,
    pub gpus: Vec<String>,
    pub agent: AgentVersion,
    /// Those that the instance has when it registers.
    #[serde(default)]
    pub tags: Tags,
}

/// One task as its instance should have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    pub task: TaskRef,
    pub goal: Goal,
    pub network: TaskNetwork,
    /// The name that its containers have.
    pub hostname: String,
    /// Whom its containers ask for names; the machine's own resolvers where that is nobody.
    #[serde(default)]
    pub resolver: Option<Resolver>,
    /// The task's cap; zero where it has none.
    pub limits: Resources,
    pub volumes: Vec<Volume>,
    pub containers: Vec<ContainerSpec>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goal {
    /// Run its containers; when an essential one exits, stop the others.
    Run,
    /// Stop its containers and keep what they left, so that their exit codes can be read again.
    Stop,
    /// The exit codes are recorded: remove containers, network and files.
    Release,
}

/// How a task reaches others and is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskNetwork {
    /// awsvpc: an interface of its own in a subnet.
    Interface(NetworkInterface),
    /// bridge: a private network of the instance, some of whose ports lead into the task.
    Bridge { ports: Vec<HostPort> },
    /// The instance's own network.
    Host,
    /// Nothing but a loopback.
    None,
}

/// The resolver of a VPC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    pub address: Ipv4Addr,
    /// The domain of names that are given without one.
    pub search: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInterface {
    pub address: Ipv4Addr,
    pub subnet: Cidr,
    pub mac: MacAddress,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub name: String,
    /// The containerd id: the same for every agent that ever looks after the task.
    pub runtime_id: String,
    pub image: String,
    pub essential: bool,
    /// Whether a RUNNING report of it was recorded: then it must not be created a second time.
    pub was_running: bool,
    pub entry_point: Option<Vec<String>>,
    pub command: Option<Vec<String>>,
    pub environment: Vec<EnvironmentVariable>,
    /// Variables that are secret.
    #[serde(default)]
    pub secrets: Vec<EnvironmentVariable>,
    /// Why it has not got its secrets, so that it must not start.
    #[serde(default)]
    pub unresolved: Option<String>,
    pub working_directory: Option<String>,
    pub user: Option<String>,
    pub readonly_root_filesystem: bool,
    /// CPU units, a share.
    pub cpu: u64,
    /// MiB, enforced.
    pub memory: Option<u64>,
    /// MiB, kept free for it when memory is short.
    pub memory_reservation: Option<u64>,
    /// Seconds that the containers that depend on it wait for it.
    pub start_timeout: Option<u32>,
    /// Seconds between the stop signal and SIGKILL; the instance's own where the definition says none.
    pub stop_timeout: Option<u32>,
    pub depends_on: Vec<Dependency>,
    pub health_check: Option<HealthCheck>,
    /// What was last recorded of its health, so that an agent that finds it goes on from there.
    pub health: Health,
    pub restart_policy: Option<RestartPolicy>,
    /// How often it was recorded to be started again.
    pub restarts: u32,
    /// Its own mounts and those it takes over from others.
    pub mounts: Vec<Mount>,
    #[serde(default, skip_serializing_if = "Isolation::is_usual")]
    pub isolation: Isolation,
    #[serde(default, skip_serializing_if = "Names::is_usual")]
    pub names: Names,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    pub log: Option<LogTarget>,
}

/// A volume of the task in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub volume: String,
    pub container_path: String,
    pub read_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTarget {
    /// How far the container's output is already stored, bytes from its start.
    pub stored: u64,
    /// The log group does not exist, so that the container must not start.
    pub missing_group: bool,
}

/// A task as its agent sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    pub task: TaskRef,
    pub pull_started_at: Option<Timestamp>,
    pub pull_stopped_at: Option<Timestamp>,
    /// When the network interface was ready.
    pub connected_at: Option<Timestamp>,
    pub containers: Vec<ContainerObservation>,
    /// What kept the task from starting.
    pub failure: Option<StartFailure>,
    /// Nothing of the task is left on the instance.
    pub released: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerObservation {
    pub name: String,
    pub state: ContainerState,
    pub started_at: Option<Timestamp>,
    pub image_digest: Option<String>,
    pub health: Health,
    pub restarts: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Not started, and may still be.
    Waiting,
    Running,
    Exited {
        code: i32,
        at: Timestamp,
        out_of_memory: bool,
    },
    /// Ended, or never started, without an exit code.
    Gone {
        reason: Option<String>,
    },
}

/// Why a task could not start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFailure {
    pub kind: StartFailureKind,
    /// The container it happened to, where it was one.
    pub container: Option<String>,
    pub message: String,
    pub at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartFailureKind {
    CannotPullContainer,
    CannotCreateContainer,
    CannotStartContainer,
    ResourceInitialization,
}

impl StartFailureKind {
    /// The prefix of `stoppedReason`, as ECS writes it.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::CannotPullContainer => "CannotPullContainerError",
            Self::CannotCreateContainer => "CannotCreateContainerError",
            Self::CannotStartContainer => "CannotStartContainerError",
            Self::ResourceInitialization => "ResourceInitializationError",
        }
    }
}

/// Lines that a container wrote. `start` and `end` are byte offsets into all it ever wrote, so a batch that is
/// sent twice is stored once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBatch {
    pub task: TaskRef,
    pub container: String,
    pub source: String,
    pub start: u64,
    pub end: u64,
    pub events: Vec<LogEvent>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEvent {
    pub timestamp: Timestamp,
    pub message: String,
}
