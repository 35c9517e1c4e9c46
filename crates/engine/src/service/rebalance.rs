//! Keeps the numbers of a service's tasks even over availability zones when it is at rest: one task more is started where
//! there are too few, and one is stopped where there are too many once that one is healthy.
//!
//! Invariant: nothing is started that would not make the numbers more even, so that it comes to an end.
//!
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-rebalancing.html>.

use super::part::Part;
use super::seen::{Seen, Standing};
use super::{Plan, named, request};
use crate::placement;
use crate::view::{Pool, View};
use longshore_model::Timestamp;
use longshore_model::cluster::Cluster;
use longshore_model::container_instance::ZONE;
use longshore_model::id::IdSource;
use longshore_model::placement::{PlacementStrategy, SpreadField};
use longshore_model::service::{Controller, RolloutState, SchedulingStrategy, Service, Status};
use longshore_model::task::LaunchType;
use longshore_model::vpc::Subnet;
use std::collections::{BTreeMap, BTreeSet};

/// Whether zones can be kept even for such a service.
pub fn can_rebalance(service: &Service) -> bool {
    let by_zone = match service.strategies.first() {
        None => true,
        Some(PlacementStrategy::Spread(SpreadField::Attribute(name))) => name == ZONE,
        Some(_) => false,
    };
    by_zone
        && service.scheduling_strategy == SchedulingStrategy::Replica
        && service.controller == Controller::Ecs
        && service.launch_type != LaunchType::External
        && service.configuration.maximum_percent > 100
}

/// How many tasks there are in each zone that could have some.
struct Zones(BTreeMap<String, usize>);

impl Zones {
    fn of(view: &View, service: &Service, part: &Part<'_>, seen: &Seen) -> Self {
        let mut zones: BTreeMap<String, usize> =
            possible(view, service, part).into_iter().map(|zone| (zone, 0)).collect();
        for one in seen.tasks.iter().filter(|one| one.stays) {
            *zones.entry(one.task.availability_zone.clone()).or_default() += 1;
        }
        Self(zones)
    }

    fn most(&self) -> usize {
        self.0.values().copied().max().unwrap_or_default()
    }

    fn is_even(&self) -> bool {
        self.most() <= self.0.values().copied().min().unwrap_or_default() + 1
    }

    /// Whether a task more in the zone, and one less where there are most, makes the numbers more even.
    fn gains_by(&self, zone: &str) -> bool {
        self.0.get(zone).is_some_and(|count| count + 2 <= self.most())
    }

    /// `3 tasks in us-east-1a, 1 tasks in us-east-1b, and 0 tasks in us-east-1c`.
    fn words(&self) -> String {
        let words: Vec<String> =
            self.0.iter().map(|(zone, count)| format!("{count} tasks in {zone}")).collect();
        match words.as_slice() {
            [] => String::new(),
            [one] => one.clone(),
            [one, other] => format!("{one} and {other}"),
            [first @ .., last] => format!("{}, and {last}", first.join(", ")),
        }
    }
}

/// The zones with instances for the tasks; on Fargate, whose capacity is everywhere, those of the subnets.
fn possible(view: &View, service: &Service, part: &Part<'_>) -> BTreeSet<String> {
    let near = part.deployment.network.as_ref().map(|network| {
        let subnets = network.subnets.iter().map(|id| Subnet::key_of(&service.scope, id));
        let found = subnets.filter_map(|key| view.subnets.get(&key));
        found.map(|subnet| subnet.availability_zone.clone()).collect::<BTreeSet<_>>()
    });
    if part.launch_type == LaunchType::Fargate {
        return near.unwrap_or_default();
    }
    let pool = Pool::of_cluster(Cluster::key_of(&service.scope, &service.cluster), part.launch_type);
    let zones = view.capacity().zones(&pool).map(ToString::to_string);
    zones.filter(|zone| !zone.is_empty() && near.as_ref().is_none_or(|near| near.contains(zone))).collect()
}

impl Plan {
    /// Goes on with keeping the zones even, for a part that has what it wants.
    pub(super) fn rebalance(
        &mut self,
        view: &View,
        part: &Part<'_>,
        seen: &Seen,
        now: Timestamp,
        ids: &mut dyn IdSource,
    ) {
        let service = &self.next;
        let applies = service.availability_zone_rebalancing
            && service.status == Status::Active
            && can_rebalance(service)
            && service.deployments.len() == 1
            && part.deployment.rollout_state == RolloutState::Completed;
        if !applies {
            self.next.rebalancing = false;
            return;
        }
        let zones = Zones::of(view, service, part, seen);
        let is_healthy = seen.tasks.iter().all(|one| one.stays && one.standing == Standing::Healthy);
        let unmoved = self.placement.tasks.is_empty() && self.stops.is_empty();
        if !is_healthy || !unmoved || seen.tasks.len() != seen.desired as usize {
            return;
        }
        let name = service.name.clone();
        if zones.is_even() {
            if std::mem::take(&mut self.next.rebalancing) {
                self.said.push(format!("(service {name}) is AZ balanced with {}.", zones.words()));
            }
            return;
        }
        if seen.room == 0 {
            return;
        }
        let Some(request) = request(view, service, part, 1) else { return };
        let placement = placement::place(view, &request, now, ids);
        let Some((task, _)) =
            placement.tasks.first().filter(|(task, _)| zones.gains_by(&task.availability_zone))
        else {
            self.waits_for_capacity = true;
            return;
        };
        if !std::mem::replace(&mut self.next.rebalancing, true) {
            let words = zones.words();
            self.said.push(format!(
                "(service {name}) is not AZ balanced with {words}. AZ Rebalancing in progress."
            ));
        }
        let (zone, started) = (&task.availability_zone, named(std::iter::once(task.id)));
        self.said.push(format!("(service {name}) has started 1 tasks in {zone} to AZ Rebalance: {started}."));
        self.placement = placement;
    }
}
