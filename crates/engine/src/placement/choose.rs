//! Which of the instances that could take a task does. Invariant: the strategies decide in their order, each among the
//! instances that are equal by those before it; the same view, request and ids give the same instance.
//!
//! Instances are asked in the order of the first strategy, which the view keeps, so that the first one that fits is taken
//! and most are never looked at.

use super::rules::Rules;
use super::{Request, pool_of, zone_of};
use crate::view::{Group, Orders, View};
use longshore_model::ContainerInstanceId;
use longshore_model::cluster::Cluster;
use longshore_model::container_instance::{ContainerInstance, ZONE};
use longshore_model::id::IdSource;
use longshore_model::placement::{BinpackField, PlacementStrategy, SpreadField};
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::sync::Arc;

pub fn choose(
    view: &View,
    request: &Request,
    rules: &Rules,
    ids: &mut dyn IdSource,
) -> Option<Arc<ContainerInstance>> {
    let cluster = Cluster::key_of(&request.scope, &request.cluster);
    let choice = Choice {
        view,
        request,
        rules,
        group: view.capacity().group(&cluster, &request.group),
        chance: if request.strategies.contains(&PlacementStrategy::Random) { ids.next_u128() } else { 0 },
    };
    let pool = pool_of(request);
    let zones: Vec<_> = view.capacity().zones(&pool).filter(|(zone, _)| choice.is_near(zone)).collect();
    let chosen = match request.strategies.split_first() {
        Some((PlacementStrategy::Spread(SpreadField::Attribute(name)), rest)) if name == ZONE => {
            let mut tied: BTreeMap<u64, Vec<&Orders>> = BTreeMap::new();
            for (zone, orders) in zones {
                let count = choice.group.map_or(0, |group| group.in_zone(zone));
                tied.entry(count).or_default().push(orders);
            }
            tied.into_values().find_map(|tied| choice.best(&tied, rest))
        }
        _ => {
            let all: Vec<&Orders> = zones.into_iter().map(|(_, orders)| orders).collect();
            choice.best(&all, &request.strategies)
        }
    };
    chosen.and_then(|id| view.capacity().instance(id)).cloned()
}

struct Choice<'a> {
    view: &'a View,
    request: &'a Request,
    rules: &'a Rules,
    group: Option<&'a Group>,
    chance: u128,
}

type Valued = (u64, ContainerInstanceId);

impl Choice<'_> {
    /// Whether a task's network interface could be in the zone.
    fn is_near(&self, zone: &str) -> bool {
        let Some(network) = self.request.network.as_ref().filter(|_| !zone.is_empty()) else { return true };
        network.subnets.iter().any(|subnet| subnet.availability_zone == zone)
    }

    fn fits(&self, id: ContainerInstanceId) -> bool {
        let instance = self.view.capacity().instance(id);
        instance.is_some_and(|instance| self.rules.allow(self.view, self.request, instance))
    }

    fn best(&self, zones: &[&Orders], strategies: &[PlacementStrategy]) -> Option<ContainerInstanceId> {
        let need = self.request.size;
        let lowest = ContainerInstanceId(0);
        let Some((first, rest)) = strategies.split_first() else {
            return self.first(merge(zones.iter().map(|zone| zone.by_tasks.iter().copied())), &[]);
        };
        match first {
            PlacementStrategy::Binpack(BinpackField::Cpu) => {
                let left = zones.iter().map(|zone| zone.by_cpu.range((need.cpu, lowest)..).copied());
                self.first(merge(left), rest)
            }
            PlacementStrategy::Binpack(BinpackField::Memory) => {
                let left = zones.iter().map(|zone| zone.by_memory.range((need.memory, lowest)..).copied());
                self.first(merge(left), rest)
            }
            PlacementStrategy::Spread(SpreadField::Instance) => {
                let idle = merge(zones.iter().map(|zone| zone.by_tasks.iter().copied()));
                let idle = idle.filter(|(_, id)| self.in_group(*id) == 0).map(|(_, id)| (0, id));
                let in_zones = |id: &ContainerInstanceId| zones.iter().any(|zone| zone.by_id.contains(id));
                let busy = self.group.into_iter().flat_map(|group| group.by_count.iter().copied());
                self.first(idle.chain(busy.filter(|(_, id)| in_zones(id))), rest)
            }
            PlacementStrategy::Random => {
                // Ids are random themselves: the next one after a random number is any one.
                let start = ContainerInstanceId(self.chance);
                let after = zones.iter().flat_map(|zone| zone.by_id.range(start..));
                let before = zones.iter().flat_map(|zone| zone.by_id.range(..start));
                after.chain(before).copied().find(|id| self.fits(*id))
            }
            PlacementStrategy::Spread(SpreadField::Attribute(_)) => {
                let all = zones.iter().flat_map(|zone| zone.by_id.iter().copied());
                self.narrow(all.filter(|id| self.fits(*id)).collect(), strategies)
            }
        }
    }

    /// The first that fits. Where more than one has its value, those that fit decide among themselves by the rest.
    fn first(
        &self,
        mut ordered: impl Iterator<Item = Valued>,
        rest: &[PlacementStrategy],
    ) -> Option<ContainerInstanceId> {
        let (value, first) = ordered.find(|(_, id)| self.fits(*id))?;
        if rest.is_empty() {
            return Some(first);
        }
        let equal = ordered.take_while(|(other, _)| *other == value).map(|(_, id)| id);
        let tied = std::iter::once(first).chain(equal.filter(|id| self.fits(*id)));
        self.narrow(tied.collect(), rest)
    }

    /// Decides among instances that all fit.
    fn narrow(
        &self,
        mut tied: Vec<ContainerInstanceId>,
        strategies: &[PlacementStrategy],
    ) -> Option<ContainerInstanceId> {
        for strategy in strategies {
            if matches!(strategy, PlacementStrategy::Random) {
                let index = self.chance % u128::try_from(tied.len()).ok().filter(|len| *len > 0)?;
                return tied.get(usize::try_from(index).ok()?).copied();
            }
            let counts = self.counts_by_value(strategy);
            let valued: Vec<Valued> =
                tied.iter().map(|id| (self.value(strategy, &counts, *id), *id)).collect();
            let least = valued.iter().map(|(value, _)| *value).min()?;
            tied = valued.into_iter().filter(|(value, _)| *value == least).map(|(_, id)| id).collect();
        }
        tied.into_iter().min_by_key(|id| (self.view.task_count_on(*id), *id))
    }

    fn value(
        &self,
        strategy: &PlacementStrategy,
        counts: &BTreeMap<String, u64>,
        id: ContainerInstanceId,
    ) -> u64 {
        let Some(instance) = self.view.capacity().instance(id) else { return u64::MAX };
        let left = || instance.resources.minus(self.view.used_on(id));
        match strategy {
            PlacementStrategy::Random => 0,
            PlacementStrategy::Binpack(BinpackField::Cpu) => left().cpu,
            PlacementStrategy::Binpack(BinpackField::Memory) => left().memory,
            PlacementStrategy::Spread(SpreadField::Instance) => self.in_group(id),
            PlacementStrategy::Spread(SpreadField::Attribute(name)) => {
                counts.get(attribute(instance, name)).copied().unwrap_or_default()
            }
        }
    }

    /// The tasks of the group by the value that their instances have for the attribute of a spread.
    fn counts_by_value(&self, strategy: &PlacementStrategy) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        if let PlacementStrategy::Spread(SpreadField::Attribute(name)) = strategy {
            for (id, count) in self.group.into_iter().flat_map(Group::instances) {
                if let Some(instance) = self.view.container_instance(id) {
                    *counts.entry(attribute(instance, name).to_owned()).or_default() += count;
                }
            }
        }
        counts
    }

    fn in_group(&self, id: ContainerInstanceId) -> u64 {
        self.group.map_or(0, |group| group.on(id))
    }
}

/// Instances without the attribute are alike.
fn attribute<'a>(instance: &'a ContainerInstance, name: &str) -> &'a str {
    if name == ZONE {
        return zone_of(instance).unwrap_or_default();
    }
    instance.attributes.get(name).map(String::as_str).unwrap_or_default()
}

/// Some ordered sequences as one.
fn merge<I: Iterator<Item = Valued>>(sequences: impl Iterator<Item = I>) -> impl Iterator<Item = Valued> {
    let mut sequences: Vec<Peekable<I>> = sequences.map(Iterator::peekable).collect();
    std::iter::from_fn(move || {
        let heads = sequences.iter_mut().filter_map(|sequence| {
            let head = *sequence.peek()?;
            Some((head, sequence))
        });
        heads.min_by_key(|(head, _)| *head)?.1.next()
    })
}
