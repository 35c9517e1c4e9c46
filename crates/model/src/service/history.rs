//! What a service was to run, and how it came to do so: service revisions and service deployments.
//!
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ServiceDeployment.html>.

use super::{DeploymentConfiguration, NetworkConfiguration, Progress, ServiceLoadBalancer, ServiceRegistry};
use crate::arn;
use crate::capacity_provider::StrategyItem;
use crate::change::Key;
use crate::record::Record;
use crate::scope::Scope;
use crate::task::LaunchType;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// What a service was to run at some time; it never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRevision {
    pub scope: Scope,
    pub cluster: String,
    pub service: String,
    /// Digits.
    pub id: String,
    pub family: String,
    pub revision: u32,
    pub launch_type: LaunchType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkConfiguration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_version: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capacity_strategy: Vec<StrategyItem>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load_balancers: Vec<ServiceLoadBalancer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registries: Vec<ServiceRegistry>,
    /// As of its deployment.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alternate: bool,
    pub created_at: Timestamp,
}

impl ServiceRevision {
    pub fn key_of(scope: &Scope, cluster: &str, service: &str, id: &str) -> Key {
        Key::new(format!("{}/{}/{cluster}/{service}/{id}", Self::TABLE, scope.path()))
    }
}

impl Record for ServiceRevision {
    const TABLE: &'static str = "service-revision";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.cluster, &self.service, &self.id)
    }
}

pub fn revision_arn(scope: &Scope, cluster: &str, service: &str, id: &str) -> String {
    arn::ecs(scope, format_args!("service-revision/{cluster}/{service}/{id}"))
}

/// The change of a service from some revisions to another, from its beginning to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDeployment {
    pub scope: Scope,
    pub cluster: String,
    pub service: String,
    pub id: String,
    pub sources: Vec<String>,
    pub target: String,
    pub status: ServiceDeploymentStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_reason: Option<String>,
    pub configuration: DeploymentConfiguration,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
    /// The failed tasks at which the circuit breaker gave it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
    /// Alarms that were off already when it began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored_alarms: Vec<String>,
    /// Alarms for which it was given up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggered_alarms: Vec<String>,
    /// Of a deployment in stages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServiceDeploymentStatus {
    InProgress,
    Successful,
    Stopped,
    RollbackInProgress,
    RollbackSuccessful,
    RollbackFailed,
}

impl ServiceDeploymentStatus {
    pub fn is_under_way(self) -> bool {
        matches!(self, Self::InProgress | Self::RollbackInProgress)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    pub reason: String,
    pub started_at: Timestamp,
    /// The revision that it goes back to.
    pub to: String,
}

impl ServiceDeployment {
    pub fn key_of(scope: &Scope, cluster: &str, service: &str, id: &str) -> Key {
        Key::new(format!("{}/{}/{cluster}/{service}/{id}", Self::TABLE, scope.path()))
    }

    pub fn arn(&self) -> String {
        let (cluster, service, id) = (&self.cluster, &self.service, &self.id);
        arn::ecs(&self.scope, format_args!("service-deployment/{cluster}/{service}/{id}"))
    }
}

impl Record for ServiceDeployment {
    const TABLE: &'static str = "service-deployment";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.cluster, &self.service, &self.id)
    }
}
