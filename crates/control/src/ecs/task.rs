//! Tasks: describe, list, stop.

pub mod render;

use super::page::{Order, page};
use super::{failure, invalid, reference};
use crate::api::Call;
use longshore_ecs as ecs;
use longshore_engine::lifecycle::{self, STOPPED_BY_USER};
use longshore_model::arn;
use longshore_model::task::{DesiredStatus, LaunchType, Stop, StopCode, Task};
use std::sync::Arc;

pub async fn describe(
    call: Call,
    request: ecs::DescribeTasksRequest,
) -> Result<ecs::DescribeTasksResponse, ecs::Error> {
    let ecs::DescribeTasksRequest { cluster, tasks, include } = request;
    if !(1..=100).contains(&tasks.len()) {
        return Err(invalid("tasks must have 1 to 100 items."));
    }
    let view = call.context.view();
    let cluster = reference::cluster(&view, call.scope(), cluster.as_deref())?;
    let with_tags = include.unwrap_or_default().contains(&ecs::TaskField::Tags);
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for given in tasks {
        let id = reference::task_id(call.scope(), &cluster.name, &given)?;
        match id.and_then(|id| view.task(call.scope(), &cluster.name, id)) {
            Some(task) => found.push(render::task(&view, task, with_tags)),
            None => {
                let is_arn = given.starts_with("arn:");
                let named = || arn::ecs(call.scope(), format_args!("task/{}/{given}", cluster.name));
                let arn = if is_arn { given.clone() } else { named() };
                failures.push(failure(Some(arn), "MISSING"));
            }
        }
    }
    Ok(ecs::DescribeTasksResponse { tasks: Some(found), failures: Some(failures) })
}

pub async fn list(call: Call, request: ecs::ListTasksRequest) -> Result<ecs::ListTasksResponse, ecs::Error> {
    let ecs::ListTasksRequest {
        cluster,
        container_instance,
        family,
        next_token,
        max_results,
        started_by,
        service_name,
        desired_status,
        launch_type,
        daemon_name,
    } = request;
    let view = call.context.view();
    let cluster = reference::cluster(&view, call.scope(), cluster.as_deref())?;
    let service = service_name.filter(|name| !name.is_empty());
    let group = service
        .map(|given| reference::service(&view, call.scope(), &cluster.name, &given))
        .transpose()?
        .map(|service| service.group());
    if daemon_name.is_some_and(|name| !name.is_empty()) {
        return Err(ecs::Error::DaemonNotFoundException("Daemon not found.".to_owned()));
    }
    let instance = container_instance
        .filter(|instance| !instance.is_empty())
        .map(|given| reference::container_instance_id(call.scope(), &cluster.name, &given));
    let instance = instance.transpose()?;
    // A Fargate task runs on no container instance that a user could name.
    let is_on = |task: &Task| {
        instance.is_none_or(|wanted| {
            task.launch_type != LaunchType::Fargate && Some(task.container_instance) == wanted
        })
    };
    let wanted = |task: &&Arc<Task>| {
        is_on(task)
            && group.as_ref().is_none_or(|group| task.group == *group)
            && family.as_ref().is_none_or(|family| task.family == *family)
            && started_by.as_ref().is_none_or(|by| task.started_by.as_ref() == Some(by))
            && status_matches(task, desired_status)
            && launch_type.is_none_or(|wanted| wanted == render::launch_type(task.launch_type))
    };
    let tasks = view.tasks_of(call.scope(), &cluster.name).filter(wanted);
    let arns = tasks.map(|task| (task.id.to_string(), task.arn()));
    let (arns, next_token) = page(arns, Order::Ascending, next_token.as_deref(), max_results, 100)?;
    Ok(ecs::ListTasksResponse { task_arns: Some(arns), next_token })
}

/// `PENDING` is never a task's desired status, and matches nothing.
fn status_matches(task: &Task, wanted: Option<ecs::DesiredStatus>) -> bool {
    match wanted {
        None | Some(ecs::DesiredStatus::Running) => task.desired_status == DesiredStatus::Running,
        Some(ecs::DesiredStatus::Stopped) => task.desired_status == DesiredStatus::Stopped,
        Some(ecs::DesiredStatus::Pending) => false,
    }
}

pub async fn stop(call: Call, request: ecs::StopTaskRequest) -> Result<ecs::StopTaskResponse, ecs::Error> {
    let ecs::StopTaskRequest { cluster, task, reason } = request;
    let reason = reason.filter(|reason| !reason.is_empty()).unwrap_or_else(|| STOPPED_BY_USER.to_owned());
    if reason.chars().count() > 1024 {
        return Err(invalid("reason can have at most 1024 characters."));
    }
    let now = call.context.now();
    let stopped = call
        .context
        .commit::<_, ecs::Error, _>(|snapshot, transaction| {
            let view = &snapshot.view;
            let cluster = reference::cluster(view, call.scope(), cluster.as_deref())?;
            let id = reference::task_id(call.scope(), &cluster.name, &task)?;
            let found = id.and_then(|id| view.task(call.scope(), &cluster.name, id));
            let present = found.ok_or_else(|| invalid("The referenced task was not found."))?;
            let why = Stop { code: StopCode::UserInitiated, reason: reason.clone() };
            let Some(next) = lifecycle::stop(present, why, now) else { return Ok(Arc::clone(present)) };
            Ok(Arc::new(lifecycle::write(view, &next, transaction)))
        })
        .await?;
    Ok(ecs::StopTaskResponse { task: Some(render::task(&call.context.view(), &stopped, false)) })
}
