//! The machines that tasks run on, as their agents registered them.

use crate::change::Key;
use crate::id::ContainerInstanceId;
use crate::record::Record;
use crate::resources::Resources;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// One agent's machine. An instance that offers Fargate capacity belongs to no cluster and is never listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerInstance {
    pub id: ContainerInstanceId,
    /// What people call it, such as `instance-1`.
    pub name: String,
    pub capacity: Capacity,
    /// What it may promise to tasks: the machine's own size times the operator's overcommit.
    pub resources: Resources,
    pub cpu_architecture: CpuArchitecture,
    pub registered_at: Timestamp,
    /// Whether its agent is connected; an instance whose agent is away takes no new tasks.
    pub agent_connected: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Capacity {
    /// Runs the Fargate tasks of every account.
    Fargate,
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
}

impl ContainerInstance {
    pub fn key_of(id: ContainerInstanceId) -> Key {
        Key::new(format!("{}/{id}", Self::TABLE))
    }
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
