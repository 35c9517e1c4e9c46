//! Auto Scaling groups: how many instances there are to be, and what was done for it.
//!
//! Follows <https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_AutoScalingGroup.html>.

use crate::change::Key;
use crate::id::Uuid;
use crate::record::Record;
use crate::scope::Scope;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoScalingGroup {
    pub scope: Scope,
    pub name: String,
    /// Part of its ARN.
    pub uuid: Uuid,
    pub size: Size,
    /// The id of its launch template.
    pub template: String,
    /// A number, `$Latest` or `$Default`.
    pub template_version: String,
    /// At least one, all of one VPC.
    pub subnets: Vec<String>,
    /// In seconds, as all of its times.
    pub default_cooldown: u32,
    pub health_check_type: String,
    pub health_check_grace_period: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_instance_warmup: Option<i32>,
    pub termination_policies: Vec<TerminationPolicy>,
    pub new_instances_protected: bool,
    #[serde(default)]
    pub capacity_rebalance: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, GroupTag>,
    pub created_at: Timestamp,
    /// It goes once its instances are gone.
    #[serde(default)]
    pub deleting: bool,
    /// Until when nothing is launched, because the last launch failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launches_after: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub min: u32,
    pub max: u32,
    pub desired: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupTag {
    pub value: String,
    /// Whether instances that the group launches have it.
    pub propagate: bool,
}

/// Which instance goes first; later policies decide where earlier ones leave several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TerminationPolicy {
    /// The oldest launch template's, then the oldest instance.
    Default,
    OldestInstance,
    NewestInstance,
    OldestLaunchTemplate,
}

impl TerminationPolicy {
    pub const ALL: [Self; 4] =
        [Self::Default, Self::OldestInstance, Self::NewestInstance, Self::OldestLaunchTemplate];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "Default",
            Self::OldestInstance => "OldestInstance",
            Self::NewestInstance => "NewestInstance",
            Self::OldestLaunchTemplate => "OldestLaunchTemplate",
        }
    }
}

impl AutoScalingGroup {
    pub fn key_of(scope: &Scope, name: &str) -> Key {
        Key::new(format!("{}/{}/{name}", Self::TABLE, scope.path()))
    }

    pub fn arn(&self) -> String {
        let Scope { account, region } = &self.scope;
        let (uuid, name) = (self.uuid, &self.name);
        format!("arn:aws:autoscaling:{region}:{account}:autoScalingGroup:{uuid}:autoScalingGroupName/{name}")
    }
}

impl Record for AutoScalingGroup {
    const TABLE: &'static str = "auto-scaling-group";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.name)
    }
}

/// What was done to a group, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScalingActivity {
    pub scope: Scope,
    pub group: String,
    pub id: Uuid,
    pub kind: ActivityKind,
    /// The instance that was launched or terminated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Why it began, as a sentence that its time is put before.
    pub cause: String,
    pub status: ActivityStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    pub started_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActivityKind {
    Launch,
    Terminate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActivityStatus {
    InProgress,
    Successful,
    Failed,
}

impl ScalingActivity {
    pub fn prefix_of(scope: &Scope, group: &str) -> String {
        format!("{}/{}/{group}/", Self::TABLE, scope.path())
    }

    /// In the order of time.
    pub fn key_of(scope: &Scope, group: &str, started_at: Timestamp, id: Uuid) -> Key {
        Key::new(format!("{}{:020}/{id}", Self::prefix_of(scope, group), started_at.millis().max(0)))
    }
}

impl Record for ScalingActivity {
    const TABLE: &'static str = "scaling-activity";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.group, self.started_at, self.id)
    }
}
