//! State changes that users can react to. Invariant: an event is written by the commit that makes the change it tells of.

use crate::change::{Key, Version};
use crate::container_instance::ContainerInstance;
use crate::id::Uuid;
use crate::record::Record;
use crate::resources::Resources;
use crate::scope::Scope;
use crate::task::Task;
use crate::task_definition::Protocol;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// One change of one resource, to be told once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub id: Uuid,
    pub at: Timestamp,
    /// The version that the change was decided on. Who changes a record has read its last change, so the events of one
    /// resource are in the order of these.
    pub decided_at: Version,
    /// Its place among the events of its commit.
    pub place: u32,
    pub subject: Subject,
}

/// What has changed, as the change left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    Task(Box<Task>),
    ContainerInstance(Box<InstanceState>),
    Service(Box<ServiceAction>),
}

/// A container instance, and what its tasks had of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceState {
    #[serde(flatten)]
    pub instance: ContainerInstance,
    #[serde(default)]
    pub used: Resources,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub held_ports: BTreeSet<(Protocol, u16)>,
    /// How often what its tasks have of it had changed, this time too.
    #[serde(default)]
    pub placements: u64,
}

impl InstanceState {
    /// Counts what the instance is told of.
    pub fn version(&self) -> u64 {
        self.instance.version + self.placements
    }
}

/// What a service or a deployment of it has come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAction {
    pub scope: Scope,
    pub cluster: String,
    pub service: String,
    pub what: ServiceEventName,
    /// The deployment that it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServiceEventName {
    ServiceSteadyState,
    ServiceTaskPlacementFailure,
    ServiceTaskStartImpaired,
    ServiceDeploymentInProgress,
    ServiceDeploymentCompleted,
    ServiceDeploymentFailed,
    ServiceRebalancingStarted,
    ServiceRebalancingCompleted,
}

impl ServiceEventName {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServiceSteadyState => "SERVICE_STEADY_STATE",
            Self::ServiceTaskPlacementFailure => "SERVICE_TASK_PLACEMENT_FAILURE",
            Self::ServiceTaskStartImpaired => "SERVICE_TASK_START_IMPAIRED",
            Self::ServiceDeploymentInProgress => "SERVICE_DEPLOYMENT_IN_PROGRESS",
            Self::ServiceDeploymentCompleted => "SERVICE_DEPLOYMENT_COMPLETED",
            Self::ServiceDeploymentFailed => "SERVICE_DEPLOYMENT_FAILED",
            Self::ServiceRebalancingStarted => "SERVICE_REBALANCING_STARTED",
            Self::ServiceRebalancingCompleted => "SERVICE_REBALANCING_COMPLETED",
        }
    }

    /// `eventType`.
    pub fn severity(self) -> &'static str {
        match self {
            Self::ServiceSteadyState
            | Self::ServiceDeploymentInProgress
            | Self::ServiceDeploymentCompleted
            | Self::ServiceRebalancingStarted
            | Self::ServiceRebalancingCompleted => "INFO",
            Self::ServiceTaskStartImpaired => "WARN",
            Self::ServiceTaskPlacementFailure | Self::ServiceDeploymentFailed => "ERROR",
        }
    }
}

impl Subject {
    /// `None` for capacity that belongs to no account.
    pub fn scope(&self) -> Option<&Scope> {
        match self {
            Self::Task(task) => Some(&task.scope),
            Self::ContainerInstance(state) => state.instance.membership().map(|member| &member.scope),
            Self::Service(action) => Some(&action.scope),
        }
    }
}

impl Record for Event {
    const TABLE: &'static str = "event";

    /// Keys are in the order of the events of each resource; the digits keep that order as text.
    fn key(&self) -> Key {
        Key::new(format!("{}/{:020}/{:06}/{}", Self::TABLE, self.decided_at.0, self.place, self.id))
    }
}
