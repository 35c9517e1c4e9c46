//! Task sets: revisions of a service that run beside one another, as a deployment controller other than ECS says.
//!
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TaskSet.html>.

use super::{Deployment, Service};
use crate::arn;
use crate::tag::Tags;
use crate::task::LaunchType;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// A revision of a service of the controllers EXTERNAL and CODE_DEPLOY, with its share of the tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSet {
    /// What its tasks run. Its `id` is the task set's, and its `updated_at` counts.
    pub deployment: Deployment,
    pub launch_type: LaunchType,
    pub status: TaskSetStatus,
    /// Of the service's desired count, in thousandths of a percent.
    pub scale: u32,
    pub stable: bool,
    /// Since when it is stable, or is not.
    pub stable_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskSetStatus {
    Primary,
    Active,
    /// Deleted, and its tasks are being stopped.
    Draining,
}

impl TaskSetStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "PRIMARY",
            Self::Active => "ACTIVE",
            Self::Draining => "DRAINING",
        }
    }
}

impl TaskSet {
    /// The thousandths of a percent of all of a service's tasks.
    pub const FULL_SCALE: u32 = 100_000;

    /// How many tasks it is to have, of those that the service wants.
    pub fn desired(&self, of_service: u32) -> u32 {
        if self.status == TaskSetStatus::Draining {
            return 0;
        }
        let exact = u64::from(of_service) * u64::from(self.scale);
        u32::try_from(exact.div_ceil(u64::from(Self::FULL_SCALE))).unwrap_or(u32::MAX)
    }

    pub fn arn(&self, service: &Service) -> String {
        let (cluster, name, id) = (&service.cluster, &service.name, &self.deployment.id);
        arn::ecs(&service.scope, format_args!("task-set/{cluster}/{name}/{id}"))
    }
}
