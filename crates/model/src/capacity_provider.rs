//! Capacity providers: what users say about whose capacity tasks take.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/cluster-capacity-providers.html>.

use crate::arn;
use crate::change::Key;
use crate::record::Record;
use crate::scope::Scope;
use crate::tag::Tags;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// The capacity providers that exist in every account, and take Fargate capacity.
pub const FARGATE: &str = "FARGATE";
pub const FARGATE_SPOT: &str = "FARGATE_SPOT";

/// One provider's part of a strategy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrategyItem {
    pub capacity_provider: String,
    /// How many tasks it gets before others get any.
    pub base: u32,
    /// Its part of the tasks beyond all bases.
    pub weight: u32,
}

/// A provider whose capacity are the instances of an Auto Scaling group.
/// Follows <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_CapacityProvider.html>.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapacityProvider {
    pub scope: Scope,
    pub name: String,
    /// The ARN of its group, which names no other group of the same name that is made later.
    pub group_arn: String,
    pub group: String,
    pub managed_scaling: ManagedScaling,
    pub managed_termination_protection: bool,
    pub managed_draining: bool,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    #[serde(default)]
    pub update_status: UpdateStatus,
    /// Since when the group has more instances than its tasks need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surplus_since: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagedScaling {
    pub enabled: bool,
    /// The part of the group's instances that tasks are to use, in percent.
    pub target_capacity: u32,
    pub minimum_step: u32,
    pub maximum_step: u32,
    /// In seconds.
    pub instance_warmup: u32,
}

impl Default for ManagedScaling {
    /// As ECS takes it where nothing is said but the status.
    fn default() -> Self {
        Self {
            enabled: false,
            target_capacity: 100,
            minimum_step: 1,
            maximum_step: 10_000,
            instance_warmup: 300,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateStatus {
    #[default]
    Created,
    Updated,
}

impl CapacityProvider {
    pub fn key_of(scope: &Scope, name: &str) -> Key {
        Key::new(format!("{}/{}/{name}", Self::TABLE, scope.path()))
    }

    pub fn arn(&self) -> String {
        arn::ecs(&self.scope, format_args!("capacity-provider/{}", self.name))
    }
}

impl Record for CapacityProvider {
    const TABLE: &'static str = "capacity-provider";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.name)
    }
}
