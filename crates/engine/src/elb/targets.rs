//! Tasks as targets. Invariant: a task that is told to stop is given no more requests, and its containers are stopped when
//! the last one that it has is answered, or its groups wait for that no longer.

use crate::view::View;
use longshore_model::elb::{HealthState, Target, TargetGroup, TargetHealth};
use longshore_model::service::{Deployment, ServiceLoadBalancer};
use longshore_model::task::{DesiredStatus, LastStatus, Task};
use longshore_model::{Record, Timestamp, Transaction};
use std::sync::Arc;

/// Has the targets of a task that is to stop drained, and the task wait for that if it runs.
pub fn leave(view: &View, task: &mut Task, now: Timestamp, transaction: &mut Transaction) {
    if task.desired_status != DesiredStatus::Stopped {
        return;
    }
    let mut has_any = false;
    for target in view.targets_of(&task.key()) {
        has_any = true;
        if target.deregistered_at.is_none() {
            transaction.update(&Target { deregistered_at: Some(now), ..(**target).clone() });
        }
    }
    if has_any && task.last_status == LastStatus::Running {
        task.last_status = LastStatus::Deactivating;
    }
}

/// Removes a target that is drained; the last one of a task lets the task's containers be stopped.
pub fn remove(view: &View, target: &Target, transaction: &mut Transaction) {
    transaction.delete(target.key());
    let Some(task) = target.task.as_ref().and_then(|task| view.tasks.get(&task.key())) else { return };
    let mut others = view.targets_of(&task.key()).filter(|other| other.key() != target.key());
    if task.last_status == LastStatus::Deactivating && others.next().is_none() {
        transaction.update(&stopping(task));
    }
}

/// A task that waited for its targets and waits no longer.
pub fn stopping(task: &Task) -> Task {
    Task { last_status: LastStatus::Stopping, version: task.version + 1, ..task.clone() }
}

/// What a task is to be registered as, of what its deployment says.
pub fn wanted(
    view: &View,
    task: &Task,
    deployment: &Deployment,
    now: Timestamp,
) -> impl Iterator<Item = (Arc<TargetGroup>, Target)> {
    deployment.load_balancers.iter().filter_map(move |balancer| {
        let group = group(view, task, balancer, deployment.alternate)?;
        let (id, port) = place(task, balancer)?;
        let target = Target {
            scope: task.scope.clone(),
            target_group: group.id.clone(),
            address: id.parse().ok()?,
            id,
            port,
            availability_zone: Some(task.availability_zone.clone()).filter(|zone| !zone.is_empty()),
            task: Some(task.reference()),
            health: TargetHealth::initial(),
            registered_at: now,
            deregistered_at: None,
        };
        Some((Arc::clone(group), target))
    })
}

fn group<'a>(
    view: &'a View,
    task: &Task,
    balancer: &ServiceLoadBalancer,
    alternate: bool,
) -> Option<&'a Arc<TargetGroup>> {
    view.target_group(&task.scope, balancer.group(alternate))
}

/// The id and the port that a task has in a group. `None` where it has no address of its own.
fn place(task: &Task, balancer: &ServiceLoadBalancer) -> Option<(String, u16)> {
    let network = task.network.as_ref()?;
    Some((network.address.to_string(), balancer.port))
}

/// How a task stands with its load balancers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Every group has found it healthy.
    Healthy,
    /// Some have not checked it yet.
    Unknown,
    Unhealthy {
        /// The ARN of the group.
        group: String,
        port: u16,
        description: String,
    },
}

/// `None` for a task that is behind none.
pub fn standing(view: &View, task: &Task, deployment: &Deployment) -> Option<Standing> {
    if deployment.load_balancers.is_empty() {
        return None;
    }
    let mut standing = Standing::Healthy;
    for balancer in &deployment.load_balancers {
        let target = group(view, task, balancer, deployment.alternate).and_then(|group| {
            let (id, port) = place(task, balancer)?;
            let key = Target::key_of(&group.scope, &group.id, &id, port);
            view.targets.get(&key).filter(|target| target.task.as_ref() == Some(&task.reference()))
        });
        match target.map(|target| (target, target.health.state)) {
            Some((_, HealthState::Healthy)) => {}
            Some((target, HealthState::Unhealthy)) => {
                return Some(Standing::Unhealthy {
                    group: balancer.group(deployment.alternate).to_owned(),
                    port: target.port,
                    description: target.health.description.clone().unwrap_or_default(),
                });
            }
            Some((_, HealthState::Initial)) | None => standing = Standing::Unknown,
        }
    }
    Some(standing)
}
