//! Why a service does not go on, as ECS words it.

use crate::placement::{Failure, Placement, Reason};
use crate::view::View;
use longshore_model::container_instance;
use longshore_model::service::{Deployment, Service};
use longshore_model::task::LaunchType;

/// An obstacle that lasts is said again after so long, in milliseconds.
pub const REPEATED_AFTER: i64 = 6 * 60 * 60 * 1000;

pub fn deadlock(service: &Service) -> String {
    format!(
        "(service {}) was unable to stop or start tasks during a deployment because of the service deployment \
         configuration. Update the minimumHealthyPercent or maximumPercent value and try again.",
        service.name
    )
}

pub fn throttled(service: &Service) -> String {
    format!("(service {}) is unable to consistently start tasks successfully.", service.name)
}

pub fn without_definition(service: &Service, deployment: &Deployment) -> String {
    format!(
        "(service {}) was unable to start a task: the task definition {}:{} or its subnets do not exist any more.",
        service.name, deployment.family, deployment.revision
    )
}

/// What kept tasks from a place, by the instance that came closest.
pub fn of_placement(
    service: &Service,
    launch_type: LaunchType,
    view: &View,
    placement: &Placement,
) -> Option<String> {
    let closest = placement.failures.iter().max_by_key(|failure| failure.reason)?;
    let name = &service.name;
    if launch_type == LaunchType::Fargate {
        return Some(format!(
            "(service {name}) was unable to place a task. Reason: {}",
            closest.reason.detail()
        ));
    }
    let reason = refusal(service, view, closest);
    Some(format!(
        "(service {name}) was unable to place a task because no container instance met all of its requirements. \
         Reason: {reason}."
    ))
}

fn refusal(service: &Service, view: &View, closest: &Failure) -> String {
    let Some(on) = closest.on else {
        let is_there = |i: &&std::sync::Arc<container_instance::ContainerInstance>| {
            i.membership().is_some_and(|member| member.status != container_instance::Status::Inactive)
        };
        return match view.instances_of(&service.scope, &service.cluster).find(is_there) {
            None => "No Container Instances were found in your cluster".to_owned(),
            Some(_) => {
                "No Container Instances were found in your capacity provider or launch type".to_owned()
            }
        };
    };
    let what = match closest.reason {
        Reason::Cpu => "has insufficient CPU units available".to_owned(),
        Reason::Memory => "has insufficient memory available".to_owned(),
        Reason::Ports => "is already using a port required by your task".to_owned(),
        Reason::Attribute => "is missing an attribute required by your task".to_owned(),
        Reason::Agent => "encountered error \"AGENT\"".to_owned(),
        other => format!("encountered error \"{}\"", other.reason()),
    };
    format!("The closest matching (container-instance {on}) {what}")
}
