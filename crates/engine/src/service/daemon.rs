//! DAEMON services: one task on each ACTIVE instance that meets the constraints.

use super::part::Part;
use super::seen::{One, Standing};
use crate::placement;
use crate::view::View;
use longshore_model::ContainerInstanceId;
use longshore_model::service::Service;
use std::collections::BTreeSet;

/// The instances that are to have a task, also those without room for it.
pub fn instances(view: &View, service: &Service, part: &Part<'_>) -> BTreeSet<ContainerInstanceId> {
    let request = super::request(view, service, part, 1);
    request.map(|request| placement::eligible(view, &request)).unwrap_or_default()
}

/// How many instances are to be given a task, and which of them have none of the service now.
pub fn missing(
    instances: &BTreeSet<ContainerInstanceId>,
    tasks: &[One],
) -> (usize, Vec<ContainerInstanceId>) {
    let served = |one: &&One| one.stays && one.standing != Standing::Unhealthy;
    let served: BTreeSet<_> = tasks.iter().filter(served).map(|one| one.task.container_instance).collect();
    let taken: BTreeSet<_> = tasks.iter().map(|one| one.task.container_instance).collect();
    let mut missing: Vec<ContainerInstanceId> = instances.difference(&served).copied().collect();
    let count = missing.len();
    // An instance without any task of the service comes first.
    missing.sort_by_key(|instance| taken.contains(instance));
    (count, missing)
}
