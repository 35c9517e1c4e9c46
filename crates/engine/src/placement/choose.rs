//! Which of the instances that could take a task does. Invariant: the strategies decide in their order, each among the
//! instances that are equal by those before it; the same view, request and ids give the same instance.
//!
//! Instances are asked in the order of the strategies as far as the view keeps it, so that the first one that fits is
//! taken and most are never looked at.

mod merge;

use super::rules::Rules;
use super::{Request, pool_of};
use crate::view::{ATTRIBUTES, Counts, Group, Orders, Shelf, Values, View, leading, value};
use longshore_model::ContainerInstanceId;
use longshore_model::container_instance::{ContainerInstance, ZONE};
use longshore_model::id::IdSource;
use longshore_model::placement::{BinpackField, PlacementStrategy, SpreadField};
use merge::merge;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Of so few instances all are asked how many tasks of the group they have. Tests take both ways with few instances.
const FEW: usize = if cfg!(test) { 3 } else { 256 };
/// So many instances are looked at one by one at least before all are.
const LOOKS: usize = if cfg!(test) { 1 } else { 16 };

pub fn choose(
    view: &View,
    request: &Request,
    rules: &Rules,
    ids: &mut dyn IdSource,
) -> Option<Arc<ContainerInstance>> {
    let strategies = deciding(&request.strategies);
    let chance = if strategies.last() == Some(&PlacementStrategy::Random) { ids.next_u128() } else { 0 };
    let shelves = view.capacity().shelves(&pool_of(request))?;
    let shelf = rules.sorting.as_ref().and_then(|sorting| shelves.of(sorting)).unwrap_or(shelves.usual());
    let led = leading(strategies).zip(shelf.attributes()).take_while(|(by, of)| by == of).count();
    let group = view.capacity().group(&rules.group);
    let tallies = strategies.iter().filter_map(|strategy| match strategy {
        PlacementStrategy::Spread(SpreadField::Attribute(name)) => {
            Some((name.as_str(), Tally::of(view, rules, group, name)))
        }
        PlacementStrategy::Spread(SpreadField::Instance)
        | PlacementStrategy::Binpack(_)
        | PlacementStrategy::Random => None,
    });
    let tallies = tallies.collect();
    let choice =
        Choice { view, request, rules, shelf, led, group, tallies, chance: ContainerInstanceId(chance) };
    let rest = strategies.get(led..).unwrap_or_default();
    let ranked = choice.ranked();
    let mut tied = ranked.chunk_by(|(one, _), (other, _)| one == other);
    let chosen = tied.find_map(|tied| choice.best(tied, rest));
    chosen.and_then(|id| view.capacity().instance(id)).cloned()
}

/// Chance leaves nothing to decide for the strategies after it.
fn deciding(strategies: &[PlacementStrategy]) -> &[PlacementStrategy] {
    let random = strategies.iter().position(|strategy| *strategy == PlacementStrategy::Random);
    random.and_then(|random| strategies.get(..=random)).unwrap_or(strategies)
}

struct Choice<'a> {
    view: &'a View,
    request: &'a Request,
    rules: &'a Rules,
    shelf: &'a Shelf,
    /// How many of the strategies are spreads over the attributes by which the shelf is parted.
    led: usize,
    group: Option<&'a Group>,
    /// By the attributes of the strategies.
    tallies: Vec<(&'a str, Tally<'a>)>,
    chance: ContainerInstanceId,
}

/// The tasks of the group by the value that their instances have for an attribute.
enum Tally<'a> {
    Kept(&'a Counts),
    Counted(BTreeMap<&'a str, u64>),
}

/// How many tasks of the group have the values of a part, in the order of the strategies.
type Rank = [u64; ATTRIBUTES];

/// The parts of a shelf whose instances are equal by the strategies that the shelf is parted by.
type Tied<'a> = [(Rank, &'a Orders)];

type Valued = (u64, ContainerInstanceId);

const LOWEST: ContainerInstanceId = ContainerInstanceId(0);

impl<'a> Tally<'a> {
    fn of(view: &'a View, rules: &Rules, group: Option<&'a Group>, attribute: &str) -> Self {
        let kept = if attribute == ZONE {
            group.map(|group| &group.by_zone)
        } else {
            view.capacity().spread(&rules.group, attribute)
        };
        if let Some(kept) = kept {
            return Self::Kept(kept);
        }
        let mut counted = BTreeMap::new();
        for (id, count) in group.into_iter().flat_map(Group::instances) {
            if let Some(instance) = view.capacity().record(id) {
                *counted.entry(value(instance, attribute)).or_default() += count;
            }
        }
        Self::Counted(counted)
    }

    fn get(&self, value: &str) -> u64 {
        match self {
            Self::Kept(counts) => counts.get(value),
            Self::Counted(counts) => counts.get(value),
        }
        .copied()
        .unwrap_or_default()
    }
}

impl<'a> Choice<'a> {
    /// The parts that a task's network interface could be in, those that come first by the strategies first.
    fn ranked(&self) -> Vec<(Rank, &'a Orders)> {
        let parts = self.shelf.parts().filter_map(|(values, orders)| Some((self.rank(values)?, orders)));
        let mut ranked: Vec<_> = parts.collect();
        ranked.sort_unstable_by_key(|(rank, _)| *rank);
        ranked
    }

    fn rank(&self, values: &Values) -> Option<Rank> {
        let mut rank = Rank::default();
        for (place, (name, value)) in self.shelf.attributes().zip(values.iter()).enumerate() {
            if name == ZONE && !self.is_near(value) {
                return None;
            }
            if let Some(count) = rank.get_mut(place).filter(|_| place < self.led) {
                *count = self.tally(name, value);
            }
        }
        Some(rank)
    }

    /// Whether a task's network interface could be in the zone.
    fn is_near(&self, zone: &str) -> bool {
        let Some(network) = self.request.network.as_ref().filter(|_| !zone.is_empty()) else { return true };
        network.subnets.iter().any(|subnet| subnet.availability_zone == zone)
    }

    fn best(&self, tied: &Tied<'_>, strategies: &[PlacementStrategy]) -> Option<ContainerInstanceId> {
        match strategies.split_first() {
            Some((PlacementStrategy::Spread(SpreadField::Instance), rest)) => {
                self.idle(tied, rest).or_else(|| self.busy(tied, rest))
            }
            // An instance with a task of the group is not allowed anyway.
            _ if self.rules.distinct => self.idle(tied, strategies),
            Some((PlacementStrategy::Spread(SpreadField::Attribute(name)), rest)) => {
                self.least(tied, name, rest)
            }
            Some((PlacementStrategy::Binpack(_) | PlacementStrategy::Random, _)) | None => {
                self.among_all(tied, strategies, usize::MAX, |_| true)
            }
        }
    }

    /// The best of those without a task of the group.
    fn idle(&self, tied: &Tied<'_>, rest: &[PlacementStrategy]) -> Option<ContainerInstanceId> {
        let crowd = self.group.filter(|group| group.instances().len() > count(tied) / 2);
        let looks = crowd.map_or(usize::MAX, |_| looks(tied));
        self.among_all(tied, rest, looks, |id| self.in_group(id) == 0).or_else(|| {
            // Most have one: side by side, the two sequences show those that do not.
            let mut busy = crowd?.instances().map(|(id, _)| id).peekable();
            let idle = merge(tied.iter().map(|(_, part)| &part.by_id), LOWEST).filter(|id| {
                while busy.next_if(|busy| busy < id).is_some() {}
                busy.next_if_eq(id).is_none()
            });
            self.narrow(idle.collect(), rest)
        })
    }

    /// The best of those with the fewest tasks of the group, of those that have any.
    fn busy(&self, tied: &Tied<'_>, rest: &[PlacementStrategy]) -> Option<ContainerInstanceId> {
        let group = self.group.filter(|_| !self.rules.distinct)?;
        if count(tied) <= FEW {
            let ids = tied.iter().flat_map(|(_, part)| &part.by_id);
            let counts = ids.map(|id| (self.in_group(*id), *id)).filter(|(count, _)| *count > 0);
            let mut counts: Vec<Valued> = counts.collect();
            counts.sort_unstable();
            return self.first(counts.into_iter(), rest);
        }
        let rank = tied.first().map(|(rank, _)| *rank);
        let is_tied = |(_, id): &Valued| self.shelf.part_of(*id).and_then(|values| self.rank(values)) == rank;
        self.first(group.by_count.iter().copied().filter(is_tied), rest)
    }

    /// The best of those whose value for an attribute has the fewest tasks of the group, where the shelf does not tell.
    fn least(
        &self,
        tied: &Tied<'_>,
        attribute: &str,
        rest: &[PlacementStrategy],
    ) -> Option<ContainerInstanceId> {
        let tally = |id| {
            let instance = self.view.capacity().instance(id);
            instance.map_or(u64::MAX, |instance| self.tally(attribute, value(instance, attribute)))
        };
        self.among_all(tied, rest, looks(tied), |id| tally(id) == 0).or_else(|| {
            let mut equal: BTreeMap<u64, Vec<ContainerInstanceId>> = BTreeMap::new();
            for (_, id) in self.ordered(tied, None) {
                equal.entry(tally(id)).or_default().push(id);
            }
            equal.into_values().find_map(|equal| self.narrow(equal, rest))
        })
    }

    /// The best of those that are wanted, if one of them that fits is among the first in the order of the strategies.
    fn among_all(
        &self,
        tied: &Tied<'_>,
        strategies: &[PlacementStrategy],
        looks: usize,
        wanted: impl Fn(ContainerInstanceId) -> bool,
    ) -> Option<ContainerInstanceId> {
        let (order, rest) = match strategies.split_first() {
            Some((first, rest)) if !matches!(first, PlacementStrategy::Spread(_)) => (Some(first), rest),
            Some(_) | None => (None, strategies),
        };
        let mut ordered = self.ordered(tied, order);
        let first = ordered.by_ref().take(looks).find(|(_, id)| wanted(*id) && self.fits(*id))?;
        self.among_equal(first, ordered.filter(|(_, id)| wanted(*id)), rest)
    }

    /// In the order of a strategy; those that are alike by it have one value.
    fn ordered<'b>(
        &self,
        tied: &'b Tied<'_>,
        strategy: Option<&PlacementStrategy>,
    ) -> Box<dyn Iterator<Item = Valued> + 'b> {
        let parts = tied.iter().map(|(_, part)| *part);
        let need = self.request.size;
        match strategy {
            None | Some(PlacementStrategy::Spread(_)) => {
                let by_tasks = merge(parts.map(|part| &part.by_tasks), (0, LOWEST));
                Box::new(by_tasks.map(|(_, id)| (0, id)))
            }
            Some(PlacementStrategy::Binpack(BinpackField::Cpu)) => {
                Box::new(merge(parts.map(|part| &part.by_cpu), (need.cpu, LOWEST)))
            }
            Some(PlacementStrategy::Binpack(BinpackField::Memory)) => {
                Box::new(merge(parts.map(|part| &part.by_memory), (need.memory, LOWEST)))
            }
            Some(PlacementStrategy::Random) => {
                // Ids are random themselves: the next one after a random number is any one.
                let chance = self.chance;
                let before = merge(parts.clone().map(|part| &part.by_id), LOWEST);
                let after = merge(parts.map(|part| &part.by_id), chance);
                Box::new((0..).zip(after.chain(before.take_while(move |id| *id < chance))))
            }
        }
    }

    /// The first that fits, or the best of those that have the same value.
    fn first(
        &self,
        mut ordered: impl Iterator<Item = Valued>,
        rest: &[PlacementStrategy],
    ) -> Option<ContainerInstanceId> {
        let first = ordered.find(|(_, id)| self.fits(*id))?;
        self.among_equal(first, ordered, rest)
    }

    /// The best of one that fits and those after it with the same value.
    fn among_equal(
        &self,
        (value, first): Valued,
        others: impl Iterator<Item = Valued>,
        rest: &[PlacementStrategy],
    ) -> Option<ContainerInstanceId> {
        if rest.is_empty() {
            return Some(first);
        }
        let equal = others.take_while(|(other, _)| *other == value).map(|(_, id)| id);
        self.narrow(std::iter::once(first).chain(equal).collect(), rest)
    }

    /// The best that fits.
    fn narrow(
        &self,
        mut candidates: Vec<ContainerInstanceId>,
        strategies: &[PlacementStrategy],
    ) -> Option<ContainerInstanceId> {
        candidates.sort_by_cached_key(|id| {
            let values: Vec<u64> = strategies.iter().map(|strategy| self.value(strategy, *id)).collect();
            (values, self.between_equals(strategies.last(), *id))
        });
        candidates.into_iter().find(|id| self.fits(*id))
    }

    fn value(&self, strategy: &PlacementStrategy, id: ContainerInstanceId) -> u64 {
        let Some(instance) = self.view.capacity().instance(id) else { return u64::MAX };
        let left = || instance.resources.minus(self.view.used_on(id));
        match strategy {
            PlacementStrategy::Random => u64::from(id < self.chance),
            PlacementStrategy::Binpack(BinpackField::Cpu) => left().cpu,
            PlacementStrategy::Binpack(BinpackField::Memory) => left().memory,
            PlacementStrategy::Spread(SpreadField::Instance) => self.in_group(id),
            PlacementStrategy::Spread(SpreadField::Attribute(name)) => {
                self.tally(name, value(instance, name))
            }
        }
    }

    /// What decides where all strategies leave instances equal: the tasks on them, unless the last strategy filled some on
    /// purpose.
    fn between_equals(&self, last: Option<&PlacementStrategy>, id: ContainerInstanceId) -> Valued {
        let by_id = match last {
            Some(PlacementStrategy::Binpack(_) | PlacementStrategy::Random) => true,
            Some(PlacementStrategy::Spread(SpreadField::Instance)) => self.in_group(id) > 0,
            Some(PlacementStrategy::Spread(SpreadField::Attribute(_))) | None => false,
        };
        (if by_id { 0 } else { self.view.task_count_on(id) as u64 }, id)
    }

    fn fits(&self, id: ContainerInstanceId) -> bool {
        let instance = self.view.capacity().instance(id);
        instance.is_some_and(|instance| self.rules.allow(self.view, self.request, instance))
    }

    fn tally(&self, attribute: &str, value: &str) -> u64 {
        let tally = self.tallies.iter().find(|(name, _)| *name == attribute);
        tally.map_or(0, |(_, tally)| tally.get(value))
    }

    fn in_group(&self, id: ContainerInstanceId) -> u64 {
        self.group.map_or(0, |group| group.on(id))
    }
}

fn count(tied: &Tied<'_>) -> usize {
    tied.iter().map(|(_, part)| part.by_id.len()).sum()
}

/// How many instances are looked at one by one before all are.
fn looks(tied: &Tied<'_>) -> usize {
    LOOKS + count(tied) / 16
}
