//! How ECS brings a revision of a service into use beside the one before: blue/green, linear and canary deployments.
//!
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-blue-green.html>.

use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// All of the traffic, in tenths of a percent.
pub const ALL_TRAFFIC: u32 = 1000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Strategy {
    /// Tasks are replaced some at a time.
    #[default]
    Rolling,
    /// The traffic goes over at once.
    BlueGreen,
    /// The traffic goes over in equal steps.
    Linear(Steps),
    /// A part of the traffic goes over first, and then the rest.
    Canary(Steps),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    /// What goes over in a step, in tenths of a percent of the traffic.
    pub share: u32,
    /// Minutes between a step and the next one.
    pub pause: u32,
}

impl Strategy {
    pub fn is_rolling(&self) -> bool {
        *self == Self::Rolling
    }

    /// The traffic that the new revision gets after the next step, in tenths of a percent.
    pub fn next_share(self, present: u32) -> u32 {
        match self {
            Self::Rolling | Self::BlueGreen => ALL_TRAFFIC,
            Self::Linear(steps) => present.saturating_add(steps.share.max(1)).min(ALL_TRAFFIC),
            Self::Canary(steps) if present == 0 => steps.share.clamp(1, ALL_TRAFFIC),
            Self::Canary(_) => ALL_TRAFFIC,
        }
    }

    /// Minutes between two steps.
    pub fn pause(self) -> u32 {
        match self {
            Self::Rolling | Self::BlueGreen => 0,
            Self::Linear(steps) | Self::Canary(steps) => steps.pause,
        }
    }
}

/// What a deployment goes through, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Stage {
    /// Revisions of deployments that were given up are cleared away.
    ReconcileService,
    PreScaleUp,
    /// The new revision gets its tasks.
    ScaleUp,
    PostScaleUp,
    TestTrafficShift,
    PostTestTrafficShift,
    PreProductionTrafficShift,
    ProductionTrafficShift,
    PostProductionTrafficShift,
    /// Both revisions run, the new one with all of the traffic.
    BakeTime,
    /// The old revision's tasks are stopped.
    CleanUp,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReconcileService => "RECONCILE_SERVICE",
            Self::PreScaleUp => "PRE_SCALE_UP",
            Self::ScaleUp => "SCALE_UP",
            Self::PostScaleUp => "POST_SCALE_UP",
            Self::TestTrafficShift => "TEST_TRAFFIC_SHIFT",
            Self::PostTestTrafficShift => "POST_TEST_TRAFFIC_SHIFT",
            Self::PreProductionTrafficShift => "PRE_PRODUCTION_TRAFFIC_SHIFT",
            Self::ProductionTrafficShift => "PRODUCTION_TRAFFIC_SHIFT",
            Self::PostProductionTrafficShift => "POST_PRODUCTION_TRAFFIC_SHIFT",
            Self::BakeTime => "BAKE_TIME",
            Self::CleanUp => "CLEAN_UP",
        }
    }

    pub fn next(self) -> Self {
        match self {
            Self::ReconcileService => Self::PreScaleUp,
            Self::PreScaleUp => Self::ScaleUp,
            Self::ScaleUp => Self::PostScaleUp,
            Self::PostScaleUp => Self::TestTrafficShift,
            Self::TestTrafficShift => Self::PostTestTrafficShift,
            Self::PostTestTrafficShift => Self::PreProductionTrafficShift,
            Self::PreProductionTrafficShift => Self::ProductionTrafficShift,
            Self::ProductionTrafficShift => Self::PostProductionTrafficShift,
            Self::PostProductionTrafficShift => Self::BakeTime,
            Self::BakeTime | Self::CleanUp => Self::CleanUp,
        }
    }
}

/// What has to agree before a deployment leaves some of its stages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    pub target: HookTarget,
    pub stages: Vec<Stage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// JSON that is given to the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
    /// As it was asked for; [`HOOK_TIMEOUT`] where it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HookTimeout>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HookTarget {
    /// The ARN of a Lambda function, which is called and says how to go on.
    Lambda(String),
    /// A user says how to go on.
    Pause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookTimeout {
    pub minutes: u32,
    pub action: HookAction,
}

pub const HOOK_TIMEOUT: HookTimeout = HookTimeout { minutes: 1440, action: HookAction::Rollback };

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HookAction {
    Rollback,
    Continue,
}

impl Hook {
    pub fn timeout(&self) -> HookTimeout {
        self.timeout.unwrap_or(HOOK_TIMEOUT)
    }
}

/// How far a service deployment has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub stage: Stage,
    /// Since when it is in the stage; in one of several steps, since the last step.
    pub since: Timestamp,
    /// What the target revision gets of the production traffic, in tenths of a percent.
    pub production: u32,
    /// The same of the test traffic.
    pub test: u32,
    /// Those of the stage, or of the step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookRun>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookRun {
    pub id: String,
    /// Its place among the hooks of the deployment's configuration.
    pub hook: usize,
    pub status: HookStatus,
    /// When a function is called, again or for the first time.
    pub call_at: Timestamp,
    pub expires_at: Timestamp,
    /// JSON that a function wants to be given the next time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HookStatus {
    AwaitingAction,
    InProgress,
    Succeeded,
    Failed,
    TimedOut,
}

impl HookStatus {
    pub fn is_open(self) -> bool {
        matches!(self, Self::AwaitingAction | Self::InProgress)
    }
}
