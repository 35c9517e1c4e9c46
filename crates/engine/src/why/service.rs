//! Why a service has the tasks that it has.

use super::placeable;
use crate::service::{failed_tasks, next_request, shift, source, threshold};
use crate::view::View;
use longshore_model::service::{
    Deployment, HookTarget, Progress, RolloutState, Service, ServiceDeployment, Status, TaskSet,
};
use longshore_model::{Record, Timestamp};

pub fn explain(view: &View, service: &Service, now: Timestamp) -> Vec<String> {
    let mut causes = vec![wanted(service)];
    let active = service.status == Status::Active;
    for (place, deployment) in
        service.deployments.iter().enumerate().filter(|_| service.status != Status::Inactive)
    {
        causes.push(of_deployment(view, service, deployment, place == 0));
    }
    causes.extend(service.task_sets.iter().map(|set| of_task_set(view, service, set)));
    causes.extend(service.primary().filter(|_| active).and_then(|primary| failures(view, service, primary)));
    if let Some(obstacle) = &service.obstacle {
        causes.push(format!(
            "it does not go on, said {} s ago: {}",
            now.since(obstacle.said_at) / 1000,
            obstacle.message
        ));
        causes.extend(instances(view, service));
    }
    causes.push(match (service.status, service.steady) {
        (Status::Active, true) => "it is as it is wanted".to_owned(),
        (Status::Active, false) => "it is not yet as it is wanted".to_owned(),
        (Status::Draining, _) => "it was deleted, and its tasks are being stopped".to_owned(),
        (Status::Inactive, _) => "it was deleted, and has no tasks".to_owned(),
    });
    causes
}

fn wanted(service: &Service) -> String {
    let (count, configuration) = (service.desired_count, &service.configuration);
    format!(
        "{count} tasks are wanted on {}; while some are replaced {} to {} of them",
        service.launch_type.as_str(),
        configuration.minimum(count),
        configuration.maximum(count).max(count)
    )
}

fn of_deployment(view: &View, service: &Service, deployment: &Deployment, is_primary: bool) -> String {
    let shift = shift(view, service);
    let kept = source(service).is_some_and(|source| source.id == deployment.id);
    let role = match (&shift, is_primary) {
        (_, true) => "is the PRIMARY deployment",
        (Some(_), false) if kept => "is kept beside it",
        (_, false) => "is being replaced",
    };
    let stage = shift.filter(|_| is_primary).map(|(present, progress)| stage(present, progress));
    let reason = &deployment.rollout_state_reason;
    format!(
        "{} {role}: {}; {reason}{}",
        named(deployment),
        tasks(view, service, deployment),
        stage.unwrap_or_default()
    )
}

/// Where a deployment in stages is, and what it waits for there.
fn stage(present: &ServiceDeployment, progress: &Progress) -> String {
    let (stage, percent) = (progress.stage.as_str(), f64::from(progress.production) / 10.0);
    let open = progress.hooks.iter().filter(|run| run.status.is_open());
    let waits = open.map(|run| match present.configuration.hooks.get(run.hook).map(|hook| &hook.target) {
        Some(HookTarget::Lambda(function)) => format!(", and waits for the function {function}"),
        Some(HookTarget::Pause) | None => format!(
            ", and waits for `aws ecs continue-service-deployment --service-deployment-arn {} --hook-id {}`",
            present.arn(),
            run.id
        ),
    });
    format!(" It is at stage {stage} with {percent} % of the traffic{}.", waits.collect::<String>())
}

fn of_task_set(view: &View, service: &Service, set: &TaskSet) -> String {
    let (deployment, status) = (&set.deployment, set.status.as_str());
    format!(
        "{} is a task set, {status}: {} tasks are wanted, {}",
        named(deployment),
        set.desired(service.desired_count),
        tasks(view, service, deployment)
    )
}

fn named(deployment: &Deployment) -> String {
    format!("{} of {}:{}", deployment.id, deployment.family, deployment.revision)
}

fn tasks(view: &View, service: &Service, deployment: &Deployment) -> String {
    let tasks = view.service_tasks().deployment(&service.key(), &deployment.id).cloned().unwrap_or_default();
    let (running, starting, stopping) = (tasks.running.len(), tasks.starting.len(), tasks.stopping.len());
    format!("{running} tasks RUNNING, {starting} on their way, {stopping} stopping")
}

/// The tasks that failed one after another, and what the circuit breaker makes of them.
fn failures(view: &View, service: &Service, primary: &Deployment) -> Option<String> {
    let failed = failed_tasks(view, service, primary);
    if failed == 0 {
        return None;
    }
    let tasks = view.service_tasks().deployment(&service.key(), &primary.id)?;
    let last = tasks.failed.get_max().or(tasks.unhealthy.get_max()).map(|(_, id)| *id)?;
    let breaker = service.configuration.circuit_breaker.is_some_and(|breaker| breaker.enable);
    let limit = match (primary.rollout_state, breaker) {
        (RolloutState::Failed, _) => "; the deployment was given up for it".to_owned(),
        (_, true) => format!("; {} in a row end the deployment", threshold(service.desired_count)),
        (_, false) => String::new(),
    };
    let task = view.task(&service.scope, &service.cluster, last);
    let reason =
        task.and_then(|task| task.stop.as_ref()).map_or("no reason was recorded", |stop| &stop.reason);
    Some(format!("{failed} tasks have failed in a row, the last one was {last}: {reason}{limit}"))
}

/// What keeps each instance from taking one task more.
fn instances(view: &View, service: &Service) -> Vec<String> {
    next_request(view, service).map(|request| placeable::lines(view, &request)).unwrap_or_default()
}
