//! Deployments as they begin and end, and what is remembered of them: service revisions and service deployments.

use super::{Plan, alarms, stages};
use crate::view::View;
use longshore_model::capacity_provider::StrategyItem;
use longshore_model::id::IdSource;
use longshore_model::service::{
    Deployment, NetworkConfiguration, Progress, Rollback, RolloutState, Service, ServiceDeployment,
    ServiceDeploymentStatus as Status, ServiceLoadBalancer, ServiceRevision, deployment_id,
    service_deployment_id, service_revision_id,
};
use longshore_model::task_definition::TaskDefinition;
use longshore_model::{Timestamp, Transaction};

const REPLACED: &str = "The service deployment was stopped because another one was started.";

/// What becomes of the service deployment that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    Completed,
    /// It is given up; where `to` names a revision, the service goes back to it.
    Failed {
        reason: String,
        failures: Option<u32>,
        alarms: Vec<String>,
        to: Option<String>,
    },
}

/// A deployment of a service that starts now.
pub fn deployment(
    definition: &TaskDefinition,
    network: Option<NetworkConfiguration>,
    platform_version: Option<String>,
    capacity_strategy: Vec<StrategyItem>,
    load_balancers: Vec<ServiceLoadBalancer>,
    now: Timestamp,
    ids: &mut dyn IdSource,
) -> Deployment {
    let id = deployment_id(ids);
    Deployment {
        rollout_state: RolloutState::InProgress,
        rollout_state_reason: format!("ECS deployment {id} in progress."),
        id,
        service_revision: service_revision_id(ids),
        family: definition.family.clone(),
        revision: definition.revision,
        network,
        platform_version,
        capacity_strategy,
        load_balancers,
        registries: Vec::new(),
        alternate: false,
        created_at: now,
        updated_at: now,
    }
}

/// Makes a deployment the PRIMARY one; the others are replaced by it. The caller writes the service.
pub fn deploy(
    view: &View,
    service: &mut Service,
    mut deployment: Deployment,
    transaction: &mut Transaction,
    ids: &mut dyn IdSource,
) {
    let now = deployment.created_at;
    deployment.alternate = is_alternate(service);
    if let Some(present) = current(view, service).filter(|present| present.status.is_under_way()) {
        transaction.update(&ServiceDeployment {
            status: Status::Stopped,
            status_reason: Some(REPLACED.to_owned()),
            updated_at: now,
            finished_at: Some(now),
            stopped_at: Some(now),
            ..present.clone()
        });
    }
    let sources = service.deployments.iter().map(|source| source.service_revision.clone()).collect();
    service.deployments.insert(0, deployment.clone());
    let made = ServiceDeployment {
        scope: service.scope.clone(),
        cluster: service.cluster.clone(),
        service: service.name.clone(),
        id: service_deployment_id(ids),
        sources,
        target: deployment.service_revision.clone(),
        status: Status::InProgress,
        status_reason: None,
        configuration: service.configuration.clone(),
        rollback: None,
        failures: None,
        ignored_alarms: alarms::off(view, service, &service.configuration),
        triggered_alarms: Vec::new(),
        progress: stages::begin(service, &service.configuration, now, ids),
        created_at: now,
        updated_at: now,
        finished_at: None,
        stopped_at: None,
    };
    transaction.create(&made);
    transaction.create(&ServiceRevision {
        scope: service.scope.clone(),
        cluster: service.cluster.clone(),
        service: service.name.clone(),
        id: deployment.service_revision.clone(),
        family: deployment.family.clone(),
        revision: deployment.revision,
        launch_type: service.launch_type,
        network: deployment.network.clone(),
        platform_version: deployment.platform_version.clone(),
        capacity_strategy: deployment.capacity_strategy.clone(),
        load_balancers: deployment.load_balancers.clone(),
        registries: deployment.registries.clone(),
        alternate: deployment.alternate,
        created_at: now,
    });
    service.service_deployment = Some(made.id);
    service.obstacle = None;
    service.steady = false;
}

/// Whether the next revision's tasks are in the alternate groups: beside the revision that has the traffic they are in the
/// others, in its place in the same.
fn is_alternate(service: &Service) -> bool {
    let beside = !service.configuration.strategy.is_rolling();
    let before =
        if beside { service.last_completed.as_deref().or(service.primary()) } else { service.primary() };
    before.is_some_and(|before| before.alternate != beside)
}

/// Writes how the service deployment under way goes on.
pub(super) fn follow(
    view: &View,
    service: &Service,
    progress: Option<&Progress>,
    ending: Option<&Ending>,
    transaction: &mut Transaction,
    now: Timestamp,
) {
    let present = current(view, service).filter(|present| present.status.is_under_way());
    let Some(present) = present.filter(|_| progress.is_some() || ending.is_some()) else { return };
    let progress = progress.or(present.progress.as_ref()).cloned();
    let mut next = ServiceDeployment { updated_at: now, progress, ..present.clone() };
    if let Some(ending) = ending {
        end(&mut next, ending, now);
    }
    transaction.update(&next);
}

fn end(next: &mut ServiceDeployment, ending: &Ending, now: Timestamp) {
    let status = next.status;
    match ending {
        Ending::Completed => {
            next.finished_at = Some(now);
            next.status = match status {
                Status::RollbackInProgress => Status::RollbackSuccessful,
                _ => Status::Successful,
            };
        }
        Ending::Failed { reason, failures, alarms, to } => {
            next.status_reason = Some(reason.clone());
            next.failures = *failures;
            next.triggered_alarms.clone_from(alarms);
            match to {
                Some(to) => {
                    next.status = Status::RollbackInProgress;
                    // The traffic goes back at once.
                    if let Some(progress) = &mut next.progress {
                        (progress.production, progress.test) = (0, 0);
                    }
                    next.rollback =
                        Some(Rollback { reason: reason.clone(), started_at: now, to: to.clone() });
                }
                None => {
                    next.status = match status {
                        Status::RollbackInProgress => Status::RollbackFailed,
                        _ => Status::Stopped,
                    };
                    next.finished_at = Some(now);
                    next.stopped_at = Some(now);
                }
            }
        }
    }
}

pub(super) fn current<'a>(view: &'a View, service: &Service) -> Option<&'a ServiceDeployment> {
    let id = service.service_deployment.as_ref()?;
    let key = ServiceDeployment::key_of(&service.scope, &service.cluster, &service.name, id);
    view.service_deployments.get(&key).map(|found| &**found)
}

/// How a user wants a deployment to be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The service goes back to what it ran before.
    RolledBack,
    /// What runs stays as it is, and nothing more is started.
    Aborted,
}

/// Why a deployment is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The circuit breaker counted so many.
    FailedTasks(u32),
    /// These went off.
    Alarms(Vec<String>),
    /// A lifecycle hook did not succeed; what is said of it.
    Hook(String),
    /// A user stopped it, and what runs stays.
    Aborted,
    /// A user stopped it, and the service goes back.
    RolledBack,
}

impl Cause {
    fn reason(&self) -> String {
        match self {
            Self::FailedTasks(_) => "ECS deployment circuit breaker: tasks failed to start.".to_owned(),
            Self::Alarms(names) => format!("ECS deployment alarms: {} detected.", names.join(", ")),
            Self::Hook(reason) => reason.clone(),
            Self::Aborted => "The service deployment was stopped by a user.".to_owned(),
            Self::RolledBack => "The service deployment was rolled back by a user.".to_owned(),
        }
    }

    /// As the service's event has it.
    fn event(&self) -> &'static str {
        match self {
            Self::FailedTasks(_) => "tasks failed to start",
            Self::Alarms(_) => "alarm detected",
            Self::Hook(_) => "a lifecycle hook did not succeed",
            Self::Aborted | Self::RolledBack => "it was stopped by a user",
        }
    }

    fn failed_tasks(&self) -> Option<u32> {
        match self {
            Self::FailedTasks(failed) => Some(*failed),
            Self::Alarms(_) | Self::Hook(_) | Self::Aborted | Self::RolledBack => None,
        }
    }

    fn alarms(&self) -> &[String] {
        match self {
            Self::Alarms(names) => names,
            Self::FailedTasks(_) | Self::Hook(_) | Self::Aborted | Self::RolledBack => &[],
        }
    }

    /// What the deployment says that the service goes back to.
    fn going_back(&self, deployment: &str) -> String {
        let by = match self {
            Self::FailedTasks(_) => "ECS deployment circuit breaker",
            Self::Alarms(_) => "ECS deployment alarms",
            Self::Hook(_) => "ECS deployment lifecycle hook",
            Self::Aborted | Self::RolledBack => "ECS deployment stopped by a user",
        };
        format!("{by}: rolling back to deploymentId {deployment}.")
    }
}

/// Stops the deployment under way by a user's wish. `None` when there is nothing to go back to.
pub fn stop_deployment(service: &Service, how: Stopped, now: Timestamp) -> Option<Plan> {
    let mut plan = Plan::nothing(service);
    let primary = service.primary().filter(|primary| primary.rollout_state == RolloutState::InProgress)?;
    match how {
        Stopped::Aborted => plan.give_up(&Cause::Aborted, None, now),
        Stopped::RolledBack => {
            let back = service.last_completed.clone().filter(|last| last.id != primary.id)?;
            plan.give_up(&Cause::RolledBack, Some(*back), now);
        }
    }
    Some(plan)
}

impl Plan {
    /// Gives up the PRIMARY deployment, and goes back to another where there is one.
    pub(super) fn give_up(&mut self, cause: &Cause, back: Option<Deployment>, now: Timestamp) {
        let name = self.next.name.clone();
        let reason = cause.reason();
        let Some(primary) = self.next.deployments.first_mut() else { return };
        primary.rollout_state = RolloutState::Failed;
        primary.rollout_state_reason.clone_from(&reason);
        primary.updated_at = now;
        self.said.push(format!(
            "(service {name}) (deployment {}) deployment failed: {}.",
            primary.id,
            cause.event()
        ));
        let to = back.as_ref().map(|back| back.service_revision.clone());
        let (failures, alarms) = (cause.failed_tasks(), cause.alarms().to_vec());
        self.ended = Some(Ending::Failed { reason, failures, alarms, to });
        let Some(mut back) = back else { return };
        self.said.push(format!("(service {name}) rolling back to deployment {}.", back.id));
        back.rollout_state = RolloutState::InProgress;
        back.rollout_state_reason = cause.going_back(&back.id);
        back.updated_at = now;
        self.next.deployments.retain(|deployment| deployment.id != back.id);
        self.next.deployments.insert(0, back);
    }
}
