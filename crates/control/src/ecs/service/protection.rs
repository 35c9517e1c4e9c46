//! Task protection: tasks that are not stopped when their service needs fewer or others.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection.html>.

use super::super::{failure, invalid, reference};
use crate::api::Call;
use longshore_ecs as ecs;
use longshore_engine::View;
use longshore_model::cluster::Cluster;
use longshore_model::service::{TaskProtection, key_of_task};
use longshore_model::task::{DesiredStatus, Task};
use longshore_model::{Timestamp, arn};
use std::sync::Arc;

/// Minutes.
const DEFAULT: i32 = 120;
const LONGEST: i32 = 2880;

pub async fn update(
    call: Call,
    request: ecs::UpdateTaskProtectionRequest,
) -> Result<ecs::UpdateTaskProtectionResponse, ecs::Error> {
    let ecs::UpdateTaskProtectionRequest { cluster, tasks, protection_enabled, expires_in_minutes } = request;
    check_count(&tasks)?;
    let minutes = expires_in_minutes.unwrap_or(DEFAULT);
    if !(1..=LONGEST).contains(&minutes) {
        return Err(invalid(format!("expiresInMinutes must be between 1 and {LONGEST}, and is {minutes}.")));
    }
    let now = call.context.now();
    let until = now.plus_millis(i64::from(minutes) * 60_000);
    let (protected_tasks, failures) = call
        .context
        .commit::<_, ecs::Error, _>(|snapshot, transaction| {
            let view = &snapshot.view;
            let cluster = reference::cluster(view, call.scope(), Some(&cluster))?;
            let (found, failures) = find(view, &call, &cluster, &tasks)?;
            for task in &found {
                let key = TaskProtection::key_of(&task.reference());
                let record = TaskProtection { task: task.reference(), until };
                match (view.task_protections.get(&key), protection_enabled) {
                    (Some(_), true) => transaction.update(&record),
                    (None, true) => transaction.create(&record),
                    (Some(_), false) => transaction.delete(key),
                    (None, false) => {}
                }
            }
            let shown = |task: &Arc<Task>| shown(task, protection_enabled.then_some(until));
            Ok((found.iter().map(shown).collect(), failures))
        })
        .await?;
    Ok(ecs::UpdateTaskProtectionResponse { protected_tasks: Some(protected_tasks), failures: Some(failures) })
}

pub async fn describe(
    call: Call,
    request: ecs::GetTaskProtectionRequest,
) -> Result<ecs::GetTaskProtectionResponse, ecs::Error> {
    let ecs::GetTaskProtectionRequest { cluster, tasks } = request;
    let tasks = tasks.unwrap_or_default();
    check_count(&tasks)?;
    let (view, now) = (call.context.view(), call.context.now());
    let cluster = reference::cluster(&view, call.scope(), Some(&cluster))?;
    let (found, failures) = find(&view, &call, &cluster, &tasks)?;
    let until = |task: &Task| {
        let key = TaskProtection::key_of(&task.reference());
        view.task_protections.get(&key).map(|protection| protection.until).filter(|until| *until > now)
    };
    let protected_tasks = found.iter().map(|task| shown(task, until(task))).collect();
    Ok(ecs::GetTaskProtectionResponse { protected_tasks: Some(protected_tasks), failures: Some(failures) })
}

fn check_count(tasks: &[String]) -> Result<(), ecs::Error> {
    if (1..=10).contains(&tasks.len()) {
        return Ok(());
    }
    Err(invalid("tasks must have 1 to 10 items."))
}

/// The tasks that are of services and are to run; only they can be protected.
fn find(
    view: &View,
    call: &Call,
    cluster: &Cluster,
    given: &[String],
) -> Result<(Vec<Arc<Task>>, Vec<ecs::Failure>), ecs::Error> {
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for given in given {
        let id = reference::task_id(call.scope(), &cluster.name, given)?;
        let task = id.and_then(|id| view.task(call.scope(), &cluster.name, id));
        let named = || arn::ecs(call.scope(), format_args!("task/{}/{given}", cluster.name));
        match task {
            Some(task) if key_of_task(task).is_none() => {
                failures.push(failure(Some(task.arn()), "TASK_NOT_VALID"));
            }
            Some(task) if task.desired_status == DesiredStatus::Stopped => {
                failures.push(failure(Some(task.arn()), "TASK_NOT_VALID"));
            }
            Some(task) => found.push(Arc::clone(task)),
            None => {
                let arn = if given.starts_with("arn:") { given.clone() } else { named() };
                failures.push(failure(Some(arn), "MISSING"));
            }
        }
    }
    Ok((found, failures))
}

fn shown(task: &Task, until: Option<Timestamp>) -> ecs::ProtectedTask {
    ecs::ProtectedTask {
        task_arn: Some(task.arn()),
        protection_enabled: Some(until.is_some()),
        expiration_date: until.map(|until| longshore_wire::Timestamp(until.millis())),
    }
}
