//! Which tasks of a service are counted together, and how many of them are wanted.

use super::stages;
use crate::view::View;
use longshore_model::service::{Deployment, Service, Stage, Status};
use longshore_model::task::LaunchType;

#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// What its tasks run.
    pub deployment: &'a Deployment,
    pub launch_type: LaunchType,
    pub desired: u32,
    /// Whether the tasks of all other deployments count as well, and are replaced; else they are of other parts.
    pub replaces: bool,
}

/// A rolling deployment replaces the others; revisions that are to run beside one another are parts of their own.
pub fn parts<'a>(view: &View, service: &'a Service) -> Vec<Part<'a>> {
    let part =
        |deployment, desired| Part { deployment, launch_type: service.launch_type, desired, replaces: false };
    if service.controller.has_task_sets() {
        let sets = service.task_sets.iter();
        let of_sets = sets.map(|set| Part {
            launch_type: set.launch_type,
            ..part(&set.deployment, set.desired(service.desired_count))
        });
        return of_sets.collect();
    }
    let Some((primary, others)) = service.deployments.split_first() else { return Vec::new() };
    let stage = stages::shift(view, service).map(|(_, progress)| progress.stage);
    let Some(stage) = stage.filter(|_| service.status == Status::Active) else {
        return vec![Part { replaces: true, ..part(primary, service.desired_count) }];
    };
    let source = stages::source(service).map(|source| &source.id);
    let count = |is_wanted: bool| if is_wanted { service.desired_count } else { 0 };
    let kept = |other: &Deployment| Some(&other.id) == source && stage < Stage::CleanUp;
    let target = part(primary, count(stage >= Stage::ScaleUp));
    std::iter::once(target).chain(others.iter().map(|other| part(other, count(kept(other))))).collect()
}
