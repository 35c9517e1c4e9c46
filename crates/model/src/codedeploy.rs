//! CodeDeploy's blue/green deployments of ECS services.
//!
//! Follows <https://docs.aws.amazon.com/codedeploy/latest/userguide/deployment-steps-ecs.html>.

use crate::capacity_provider::StrategyItem;
use crate::change::Key;
use crate::id::Uuid;
use crate::record::Record;
use crate::scope::Scope;
use crate::service::NetworkConfiguration;
use crate::tag::Tags;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    pub scope: Scope,
    pub name: String,
    pub id: Uuid,
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

/// How traffic goes over, by a name of the user's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentConfig {
    pub scope: Scope,
    pub name: String,
    pub id: Uuid,
    pub created_at: Timestamp,
    pub routing: Routing,
}

/// In which steps traffic goes over; intervals are in minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Routing {
    AllAtOnce,
    /// A part first, and the rest after the interval.
    Canary {
        percent: u32,
        interval: u32,
    },
    /// The same part again after each interval.
    Linear {
        percent: u32,
        interval: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentGroup {
    pub scope: Scope,
    pub application: String,
    pub name: String,
    pub id: Uuid,
    pub settings: Settings,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// The ids of deployments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempted: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The name of a deployment configuration.
    pub config: String,
    /// The ARN of the role that CodeDeploy acts by.
    pub role: String,
    pub cluster: String,
    pub service: String,
    /// The names of the two target groups.
    pub target_groups: [String; 2],
    /// The ARNs of listeners.
    pub production: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    /// How long traffic waits for [`ContinueDeployment`], in minutes, before the deployment is stopped; `None` goes on at once.
    ///
    /// [`ContinueDeployment`]: https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_ContinueDeployment.html
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_wait: Option<u32>,
    /// How long the tasks before are kept, in minutes.
    pub termination_wait: u32,
    pub rollback: Rollback,
    pub alarms: Alarms,
}

/// On what a deployment is rolled back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    pub enabled: bool,
    pub on_failure: bool,
    pub on_alarm: bool,
    pub on_request: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarms {
    pub enabled: bool,
    pub ignore_poll_failure: bool,
    pub names: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeDeployment {
    pub scope: Scope,
    /// Such as `d-A1B2C3D4E`.
    pub id: String,
    pub application: String,
    pub group: String,
    pub description: Option<String>,
    pub config: String,
    pub routing: Routing,
    /// Those of the group when the deployment was made.
    pub settings: Settings,
    pub revision: Revision,
    pub status: Status,
    pub stage: Stage,
    /// The code and the message of why it failed or was stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<(String, String)>,
    /// The deployment that this one takes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes_back: Option<String>,
    /// The deployment that takes this one back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_back_by: Option<String>,
    /// The ids of the task sets before and after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blue: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub green: Option<String>,
    /// Which of the two target groups is the new tasks'.
    pub green_group: usize,
    /// The part of production traffic that the new tasks have, in percent.
    pub percent: u32,
    /// Whether a user said to go on.
    #[serde(default)]
    pub proceeds: bool,
    pub times: Times,
}

/// What is deployed: an AppSpec as it was given, and what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    pub content: String,
    pub sha256: Option<String>,
    /// Whether it was given as `String`, and not as `AppSpecContent`.
    #[serde(default)]
    pub is_string: bool,
    pub family: String,
    pub revision: u32,
    pub container: String,
    pub port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkConfiguration>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strategy: Vec<StrategyItem>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    Created,
    InProgress,
    /// It waits to be continued.
    Ready,
    Succeeded,
    Failed,
    Stopped,
}

impl Status {
    pub fn is_under_way(self) -> bool {
        matches!(self, Self::Created | Self::InProgress | Self::Ready)
    }
}

/// What a deployment does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// Makes the new task set.
    Begin,
    /// Waits until its tasks are healthy.
    Install,
    /// Gives it the test traffic, and waits where it is to be continued.
    Test,
    /// Gives it the production traffic, step by step.
    Shift,
    /// Keeps the tasks before.
    Keep,
    /// Removes the other task set.
    Clean,
    /// Of a rollback: gives the traffic back.
    GiveBack,
}

/// When each stage was over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tested_at: Option<Timestamp>,
    /// Since when production traffic goes over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shifting_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shifted_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
}

impl Application {
    pub fn key_of(scope: &Scope, name: &str) -> Key {
        Key::new(format!("{}/{}/{name}", Self::TABLE, scope.path()))
    }

    pub fn arn(&self) -> String {
        let Scope { account, region } = &self.scope;
        format!("arn:aws:codedeploy:{region}:{account}:application:{}", self.name)
    }
}

impl Record for Application {
    const TABLE: &'static str = "code-deploy-application";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.name)
    }
}

impl DeploymentConfig {
    pub fn key_of(scope: &Scope, name: &str) -> Key {
        Key::new(format!("{}/{}/{name}", Self::TABLE, scope.path()))
    }
}

impl Record for DeploymentConfig {
    const TABLE: &'static str = "code-deploy-config";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.name)
    }
}

impl DeploymentGroup {
    pub fn prefix_of(scope: &Scope, application: &str) -> String {
        format!("{}/{}/{application}/", Self::TABLE, scope.path())
    }

    pub fn key_of(scope: &Scope, application: &str, name: &str) -> Key {
        Key::new(format!("{}{name}", Self::prefix_of(scope, application)))
    }

    pub fn arn(&self) -> String {
        let Scope { account, region } = &self.scope;
        format!("arn:aws:codedeploy:{region}:{account}:deploymentgroup:{}/{}", self.application, self.name)
    }
}

impl Record for DeploymentGroup {
    const TABLE: &'static str = "code-deploy-group";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.application, &self.name)
    }
}

impl CodeDeployment {
    pub fn key_of(scope: &Scope, id: &str) -> Key {
        Key::new(format!("{}/{}/{id}", Self::TABLE, scope.path()))
    }

    /// The names of the target groups before and after.
    pub fn target_groups(&self) -> (&str, &str) {
        let [first, second] = &self.settings.target_groups;
        if self.green_group == 0 { (second, first) } else { (first, second) }
    }
}

impl Record for CodeDeployment {
    const TABLE: &'static str = "code-deploy-deployment";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.id)
    }
}
