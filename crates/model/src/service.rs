//! Services. Invariant: a service has at most one PRIMARY deployment, and it is the first one.
//!
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Service.html>.

mod history;
mod load_balancer;
mod registry;
mod strategy;
mod task_set;

pub use history::{Rollback, ServiceDeployment, ServiceDeploymentStatus, ServiceRevision, revision_arn};
pub use load_balancer::{ServiceLoadBalancer, TrafficShift};
pub use registry::ServiceRegistry;
pub use strategy::{
    ALL_TRAFFIC, HOOK_TIMEOUT, Hook, HookAction, HookRun, HookStatus, HookTarget, HookTimeout, Progress,
    Stage, Steps, Strategy,
};
pub use task_set::{TaskSet, TaskSetStatus};

use crate::arn;
use crate::capacity_provider::StrategyItem;
use crate::change::Key;
use crate::id::IdSource;
use crate::placement::{PlacementConstraint, PlacementStrategy};
use crate::record::Record;
use crate::scope::Scope;
use crate::tag::Tags;
use crate::task::{LaunchType, Task, TaskRef};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// What the `group` of a service's tasks begins with; no other task may have such a group.
pub const GROUP: &str = "service:";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub scope: Scope,
    pub cluster: String,
    pub name: String,
    pub status: Status,
    pub scheduling_strategy: SchedulingStrategy,
    /// Of DAEMON services it follows the instances.
    pub desired_count: u32,
    pub launch_type: LaunchType,
    pub configuration: DeploymentConfiguration,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check_grace_period: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<PlacementConstraint>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strategies: Vec<PlacementStrategy>,
    pub availability_zone_rebalancing: bool,
    /// Whether it was said that its tasks are being spread anew over zones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rebalancing: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub propagate_tags: Option<PropagateTags>,
    pub managed_tags: bool,
    /// The PRIMARY one first, then those that it replaces, newest first.
    pub deployments: Vec<Deployment>,
    /// What a deployment that fails is rolled back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_completed: Option<Box<Deployment>>,
    #[serde(default, skip_serializing_if = "Controller::is_ecs")]
    pub controller: Controller,
    /// Of the controller EXTERNAL, in place of deployments; the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub task_sets: Vec<TaskSet>,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
    pub created_at: Timestamp,
    /// The ARN of who made it.
    pub created_by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    /// The id of the service deployment that is under way, or was the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_deployment: Option<String>,
    /// Whether it was said that the service is steady, which is not said again before it was not.
    pub steady: bool,
    /// What keeps it from going on, as it was last said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<Obstacle>,
    /// How many events it has had, which numbers them.
    pub events: u64,
    /// Counts its changes, so that two decisions that were made on one state conflict.
    pub version: u64,
}

/// An event that says why a service does not go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obstacle {
    pub kind: ObstacleKind,
    pub message: String,
    pub said_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ObstacleKind {
    /// No instance takes its tasks.
    Placement,
    /// Its tasks fail to start.
    Starts,
    /// The bounds of its deployment configuration leave nothing to do.
    Bounds,
    /// Its task definition or its subnets are gone.
    Definition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    Active,
    /// Deleted, and its tasks are being stopped.
    Draining,
    /// Deleted; still described for a while.
    Inactive,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Draining => "DRAINING",
            Self::Inactive => "INACTIVE",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SchedulingStrategy {
    /// As many tasks as are desired, wherever they fit.
    Replica,
    /// One task on each container instance that meets the constraints.
    Daemon,
}

/// Who decides which revisions of a service run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Controller {
    #[default]
    Ecs,
    /// A program of the user's, by task sets.
    External,
    /// CodeDeploy, by task sets.
    CodeDeploy,
}

impl Controller {
    pub fn is_ecs(&self) -> bool {
        *self == Self::Ecs
    }

    /// Whether the service's tasks are those of task sets.
    pub fn has_task_sets(self) -> bool {
        matches!(self, Self::External | Self::CodeDeploy)
    }
}

/// Where the tags of a service's tasks come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PropagateTags {
    TaskDefinition,
    Service,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentConfiguration {
    /// Of the desired count, rounded up.
    pub minimum_healthy_percent: u32,
    /// Of the desired count, rounded down.
    pub maximum_percent: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    #[serde(default, skip_serializing_if = "Strategy::is_rolling")]
    pub strategy: Strategy,
    /// Minutes in which the revision before is kept beside the new one, which has all of the traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake_time: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarms: Option<DeploymentAlarms>,
}

/// The CloudWatch alarms that end a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentAlarms {
    pub names: Vec<String>,
    pub enable: bool,
    pub rollback: bool,
}

impl DeploymentConfiguration {
    /// What ECS takes where nothing is said.
    pub fn of(strategy: SchedulingStrategy) -> Self {
        let (minimum_healthy_percent, maximum_percent) = match strategy {
            SchedulingStrategy::Replica => (100, 200),
            SchedulingStrategy::Daemon => (0, 100),
        };
        Self {
            minimum_healthy_percent,
            maximum_percent,
            circuit_breaker: None,
            strategy: Strategy::Rolling,
            bake_time: None,
            hooks: Vec::new(),
            alarms: None,
        }
    }

    /// The alarms, where they are to be listened to.
    pub fn alarms(&self) -> Option<&DeploymentAlarms> {
        self.alarms.as_ref().filter(|alarms| alarms.enable)
    }

    /// The fewest tasks that stay healthy while others are replaced.
    pub fn minimum(&self, desired: u32) -> u32 {
        let exact = u64::from(desired) * u64::from(self.minimum_healthy_percent);
        u32::try_from(exact.div_ceil(100)).unwrap_or(u32::MAX)
    }

    /// The most tasks that there are while some are replaced.
    pub fn maximum(&self, desired: u32) -> u32 {
        let exact = u64::from(desired) * u64::from(self.maximum_percent);
        u32::try_from(exact / 100).unwrap_or(u32::MAX)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CircuitBreaker {
    pub enable: bool,
    pub rollback: bool,
}

/// One version of a service, and how far it is in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// `ecs-svc/` and 19 digits.
    pub id: String,
    /// The id of the service revision that it brings into use.
    pub service_revision: String,
    pub family: String,
    pub revision: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkConfiguration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_version: Option<String>,
    /// Whose capacity its tasks take; empty where the launch type says it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capacity_strategy: Vec<StrategyItem>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load_balancers: Vec<ServiceLoadBalancer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registries: Vec<ServiceRegistry>,
    /// Whether its tasks are in the alternate target groups, where there are any.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alternate: bool,
    pub rollout_state: RolloutState,
    pub rollout_state_reason: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RolloutState {
    InProgress,
    Completed,
    Failed,
}

/// Where the network interfaces of tasks are, in the network mode awsvpc.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfiguration {
    pub subnets: Vec<String>,
    pub security_groups: Vec<String>,
    pub assign_public_ip: bool,
}

impl Service {
    /// A REPLICA service that wants no tasks yet, as ECS makes one where its user says nothing more.
    pub fn new(scope: Scope, cluster: &str, name: &str, launch_type: LaunchType, now: Timestamp) -> Self {
        Self {
            scope,
            cluster: cluster.to_owned(),
            name: name.to_owned(),
            status: Status::Active,
            scheduling_strategy: SchedulingStrategy::Replica,
            desired_count: 0,
            launch_type,
            configuration: DeploymentConfiguration::of(SchedulingStrategy::Replica),
            health_check_grace_period: None,
            constraints: Vec::new(),
            strategies: Vec::new(),
            availability_zone_rebalancing: false,
            rebalancing: false,
            propagate_tags: None,
            managed_tags: false,
            deployments: Vec::new(),
            last_completed: None,
            controller: Controller::Ecs,
            task_sets: Vec::new(),
            tags: Tags::default(),
            client_token: None,
            created_at: now,
            created_by: String::new(),
            deleted_at: None,
            service_deployment: None,
            steady: false,
            obstacle: None,
            events: 0,
            version: 1,
        }
    }

    pub fn key_of(scope: &Scope, cluster: &str, name: &str) -> Key {
        Key::new(format!("{}/{}/{cluster}/{name}", Self::TABLE, scope.path()))
    }

    pub fn arn(&self) -> String {
        arn::ecs(&self.scope, format_args!("service/{}/{}", self.cluster, self.name))
    }

    /// The `group` of its tasks.
    pub fn group(&self) -> String {
        format!("{GROUP}{}", self.name)
    }

    pub fn primary(&self) -> Option<&Deployment> {
        self.deployments.first()
    }

    pub fn primary_task_set(&self) -> Option<&TaskSet> {
        self.task_sets.iter().find(|set| set.status == TaskSetStatus::Primary)
    }
}

/// The service that a task belongs to.
pub fn key_of_task(task: &Task) -> Option<Key> {
    let name = task.group.strip_prefix(GROUP)?;
    Some(Service::key_of(&task.scope, &task.cluster, name))
}

/// A new deployment's id: 19 digits, of which the first is not 0.
pub fn deployment_id(ids: &mut dyn IdSource) -> String {
    format!("ecs-svc/{}", service_revision_id(ids))
}

/// The same digits without a prefix.
pub fn service_revision_id(ids: &mut dyn IdSource) -> String {
    const FIRST: u128 = 1_000_000_000_000_000_000;
    (FIRST + (ids.next_u128() >> 64) % (9 * FIRST)).to_string()
}

/// A hook's id while it runs: its kind and 42 letters, digits, `_` and `-`.
pub fn hook_id(kind: &str, ids: &mut dyn IdSource) -> String {
    format!("ecs-{kind}-{}{}", service_deployment_id(ids), service_deployment_id(ids))
}

/// 21 letters, digits, `_` and `-`.
pub fn service_deployment_id(ids: &mut dyn IdSource) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    let number = ids.next_u128();
    let letter = |place: u32| LETTERS.get(((number >> (6 * place)) & 63) as usize).copied().unwrap_or(b'A');
    (0..21).map(|place| char::from(letter(place))).collect()
}

impl Record for Service {
    const TABLE: &'static str = "service";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.cluster, &self.name)
    }
}

/// Something that happened to a service, in words for its users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEvent {
    pub scope: Scope,
    pub cluster: String,
    pub service: String,
    pub number: u64,
    /// A UUID.
    pub id: String,
    pub at: Timestamp,
    pub message: String,
}

impl ServiceEvent {
    pub fn key_of(scope: &Scope, cluster: &str, service: &str, number: u64) -> Key {
        // Zeros in front keep the keys of a service in the order of its events.
        Key::new(format!("{}/{}/{cluster}/{service}/{number:012}", Self::TABLE, scope.path()))
    }
}

impl Record for ServiceEvent {
    const TABLE: &'static str = "service-event";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.cluster, &self.service, self.number)
    }
}

/// Keeps a task from being stopped when its service needs fewer or others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskProtection {
    pub task: TaskRef,
    pub until: Timestamp,
}

impl TaskProtection {
    pub fn key_of(task: &TaskRef) -> Key {
        Key::new(format!("{}/{}/{}/{}", Self::TABLE, task.scope.path(), task.cluster, task.id))
    }
}

impl Record for TaskProtection {
    const TABLE: &'static str = "task-protection";
    fn key(&self) -> Key {
        Self::key_of(&self.task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_rounded_as_aws_does() {
        let check = |desired, minimum, maximum| {
            let of = DeploymentConfiguration {
                minimum_healthy_percent: minimum,
                maximum_percent: maximum,
                ..DeploymentConfiguration::of(SchedulingStrategy::Replica)
            };
            (of.minimum(desired), of.maximum(desired))
        };
        assert_eq!(check(4, 100, 200), (4, 8));
        assert_eq!(check(3, 50, 150), (2, 4));
        assert_eq!(check(1, 50, 199), (1, 1));
        assert_eq!(check(10, 0, 100), (0, 10));
        assert_eq!(check(0, 100, 200), (0, 0));
        assert_eq!(check(u32::MAX, 100, 200), (u32::MAX, u32::MAX));
    }

    #[test]
    fn deployments_are_named_by_nineteen_digits() {
        struct Fixed(u128);
        impl IdSource for Fixed {
            fn next_u128(&mut self) -> u128 {
                self.0
            }
        }
        for number in [0, 1, u128::MAX] {
            let id = deployment_id(&mut Fixed(number));
            let digits = id.strip_prefix("ecs-svc/").unwrap();
            assert_eq!(digits.len(), 19);
            assert!(digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0'));
        }
    }
}
