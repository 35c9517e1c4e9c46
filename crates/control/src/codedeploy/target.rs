//! What a deployment deploys to: the one ECS service, with its two task sets and what happened to them.
//! Follows <https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_ECSTarget.html>.

use super::deployment;
use crate::api::Call;
use crate::ec2::instance::spec::text;
use longshore_codedeploy as cd;
use longshore_engine::View;
use longshore_model::Timestamp as At;
use longshore_model::arn;
use longshore_model::codedeploy::{CodeDeployment, Status};
use longshore_model::service::Service;
use longshore_wire::{Fault, Timestamp};

pub async fn get(
    call: Call,
    request: cd::GetDeploymentTargetInput,
) -> Result<cd::GetDeploymentTargetOutput, Fault> {
    let cd::GetDeploymentTargetInput { deployment_id, target_id } = request;
    let view = call.context.view();
    let found = deployment(&view, call.scope(), &deployment_id)?;
    check(found, &target_id)?;
    Ok(cd::GetDeploymentTargetOutput { deployment_target: Some(render(&view, found)) })
}

pub async fn get_several(
    call: Call,
    request: cd::BatchGetDeploymentTargetsInput,
) -> Result<cd::BatchGetDeploymentTargetsOutput, Fault> {
    let cd::BatchGetDeploymentTargetsInput { deployment_id, target_ids } = request;
    let view = call.context.view();
    let found = deployment(&view, call.scope(), &deployment_id)?;
    target_ids.iter().try_for_each(|id| check(found, id))?;
    let targets = target_ids.iter().map(|_| render(&view, found)).collect();
    Ok(cd::BatchGetDeploymentTargetsOutput { deployment_targets: Some(targets) })
}

pub async fn list(
    call: Call,
    request: cd::ListDeploymentTargetsInput,
) -> Result<cd::ListDeploymentTargetsOutput, Fault> {
    // There is one target.
    let cd::ListDeploymentTargetsInput { deployment_id, next_token: _, target_filters } = request;
    let view = call.context.view();
    let found = deployment(&view, call.scope(), &deployment_id)?;
    let passes = target_filters.unwrap_or_default().iter().all(|(name, values)| {
        name != "TargetStatus" || values.iter().any(|value| *value == text(status(found)))
    });
    Ok(cd::ListDeploymentTargetsOutput {
        next_token: None,
        target_ids: Some(passes.then(|| id_of(found)).into_iter().collect()),
    })
}

/// `CLUSTER:SERVICE`.
fn id_of(one: &CodeDeployment) -> String {
    format!("{}:{}", one.settings.cluster, one.settings.service)
}

fn check(one: &CodeDeployment, id: &str) -> Result<(), Fault> {
    if id == id_of(one) {
        return Ok(());
    }
    let message = format!("The deployment {} has no target {id}.", one.id);
    Err(cd::Error::DeploymentTargetDoesNotExistException(message).into())
}

fn status(one: &CodeDeployment) -> cd::TargetStatus {
    match one.status {
        Status::Created => cd::TargetStatus::Pending,
        Status::InProgress => cd::TargetStatus::InProgress,
        Status::Ready => cd::TargetStatus::Ready,
        Status::Succeeded => cd::TargetStatus::Succeeded,
        Status::Failed => cd::TargetStatus::Failed,
        Status::Stopped => cd::TargetStatus::Skipped,
    }
}

fn render(view: &View, one: &CodeDeployment) -> cd::DeploymentTarget {
    let service = view.service(&one.scope, &one.settings.cluster, &one.settings.service);
    let last =
        one.times.completed_at.or(one.times.shifted_at).or(one.times.installed_at).or(one.times.started_at);
    let (cluster, name) = (&one.settings.cluster, &one.settings.service);
    cd::DeploymentTarget {
        deployment_target_type: Some(cd::DeploymentTargetType::ECSTarget),
        ecs_target: Some(cd::ECSTarget {
            deployment_id: Some(one.id.clone()),
            last_updated_at: Some(Timestamp(last.unwrap_or(one.times.created_at).millis())),
            lifecycle_events: Some(if one.takes_back.is_some() { Vec::new() } else { events(one) }),
            status: Some(status(one)),
            target_arn: Some(arn::ecs(&one.scope, format_args!("service/{cluster}/{name}"))),
            target_id: Some(id_of(one)),
            task_sets_info: Some(service.map(|service| sets(view, one, service)).unwrap_or_default()),
        }),
        ..cd::DeploymentTarget::default()
    }
}

fn sets(view: &View, one: &CodeDeployment, service: &Service) -> Vec<cd::ECSTaskSet> {
    let (before, after) = one.target_groups();
    let of = [
        (&one.blue, cd::TargetLabel::Blue, before, 100 - one.percent.min(100)),
        (&one.green, cd::TargetLabel::Green, after, one.percent),
    ];
    let shown = of.into_iter().filter_map(|(id, label, group, percent)| {
        let set = service.task_sets.iter().find(|set| Some(&set.deployment.id) == id.as_ref())?;
        let tasks =
            view.service_tasks().deployment(&longshore_model::Record::key(service), &set.deployment.id);
        let count = |count: usize| i64::try_from(count).ok();
        Some(cd::ECSTaskSet {
            desired_count: Some(i64::from(set.desired(service.desired_count))),
            identifer: Some(set.deployment.id.clone()),
            pending_count: count(tasks.map_or(0, |tasks| tasks.starting.len())),
            running_count: count(tasks.map_or(0, |tasks| tasks.running.len())),
            status: Some(set.status.as_str().to_owned()),
            target_group: Some(cd::TargetGroupInfo { name: Some(group.to_owned()) }),
            task_set_label: Some(label),
            traffic_weight: Some(f64::from(percent)),
        })
    });
    shown.collect()
}

/// What each event of a deployment's life came to. Those of hooks, of which there are none, take no time.
fn events(one: &CodeDeployment) -> Vec<cd::LifecycleEvent> {
    let times = &one.times;
    let begun = times.started_at;
    let mut all = vec![
        ("BeforeInstall", begun, begun),
        ("Install", begun, times.installed_at),
        ("AfterInstall", times.installed_at, times.installed_at),
    ];
    if one.settings.test.is_some() {
        all.push(("AllowTestTraffic", times.installed_at, times.tested_at));
        all.push(("AfterAllowTestTraffic", times.tested_at, times.tested_at));
    }
    all.push(("BeforeAllowTraffic", times.shifting_at, times.shifting_at));
    all.push(("AllowTraffic", times.shifting_at, times.shifted_at));
    all.push(("AfterAllowTraffic", times.shifted_at, times.shifted_at));
    let is_over = !one.status.is_under_way();
    let at = |time: Option<At>| time.map(|time| Timestamp(time.millis()));
    let event = |(name, started, ended): (&str, Option<At>, Option<At>)| {
        let (status, ended) = match (started, ended) {
            (_, Some(ended)) => (cd::LifecycleEventStatus::Succeeded, Some(ended)),
            (Some(_), None) if is_over => (cd::LifecycleEventStatus::Failed, times.completed_at),
            (Some(_), None) => (cd::LifecycleEventStatus::InProgress, None),
            (None, None) if is_over => (cd::LifecycleEventStatus::Skipped, None),
            (None, None) => (cd::LifecycleEventStatus::Pending, None),
        };
        cd::LifecycleEvent {
            diagnostics: None,
            end_time: at(ended),
            lifecycle_event_name: Some(name.to_owned()),
            start_time: at(started),
            status: Some(status),
        }
    };
    all.into_iter().map(event).collect()
}
