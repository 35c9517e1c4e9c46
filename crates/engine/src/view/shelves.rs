//! The instances that take tasks, in the orders in which strategies ask for them.
//!
//! Invariant: a shelf holds exactly those of its pool that meet its expressions, each in the part of its values.

use crate::query::Expression;
use imbl::{OrdMap, OrdSet};
use longshore_model::container_instance::{ContainerInstance, ZONE};
use longshore_model::placement::{PlacementStrategy, SpreadField};
use longshore_model::{ContainerInstanceId, Resources};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The most attributes by which a shelf parts its instances; strategies after them are asked of each.
pub const ATTRIBUTES: usize = 3;

/// Which instances a placement asks for, and by what it parts them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sorting {
    attributes: Vec<Arc<str>>,
    /// Those that ask for nothing but the instance's record.
    expressions: BTreeSet<Arc<str>>,
}

/// The shelves of one pool.
#[derive(Clone)]
pub struct Shelves {
    /// All instances, by zone.
    usual: Shelf,
    further: Vec<(Arc<Sorting>, Shelf)>,
}

#[derive(Clone)]
pub struct Shelf {
    attributes: Arc<[Arc<str>]>,
    expressions: Arc<[Arc<Expression>]>,
    places: OrdMap<ContainerInstanceId, Values>,
    parts: OrdMap<Values, Orders>,
}

/// What an instance has for the attributes of a shelf; empty where it has nothing.
pub type Values = Arc<[Arc<str>]>;

/// The instances of one part.
#[derive(Clone, Default)]
pub struct Orders {
    pub by_id: OrdSet<ContainerInstanceId>,
    pub by_tasks: OrdSet<(u64, ContainerInstanceId)>,
    /// By what is left.
    pub by_cpu: OrdSet<(u64, ContainerInstanceId)>,
    pub by_memory: OrdSet<(u64, ContainerInstanceId)>,
}

/// What the orders of an instance go by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    pub tasks: u64,
    pub left: Resources,
}

impl Sorting {
    /// `None` where the usual shelf is the one.
    pub fn of<'a>(
        strategies: &[PlacementStrategy],
        expressions: impl Iterator<Item = &'a str>,
    ) -> Option<Self> {
        let mut attributes: Vec<Arc<str>> = leading(strategies).map(Arc::from).collect();
        let expressions: BTreeSet<Arc<str>> = expressions.map(Arc::from).collect();
        let usual = attributes.iter().all(|name| **name == *ZONE) && attributes.len() < 2;
        if usual && expressions.is_empty() {
            return None;
        }
        if attributes.is_empty() {
            // A task's network can only be in some zones.
            attributes.push(ZONE.into());
        }
        Some(Self { attributes, expressions })
    }

    pub fn expressions(&self) -> impl Iterator<Item = &str> {
        self.expressions.iter().map(|text| &**text)
    }
}

/// The attributes over which strategies spread before they do anything else, as many as a shelf is parted by.
pub fn leading(strategies: &[PlacementStrategy]) -> impl Iterator<Item = &str> {
    let attributes = strategies.iter().map_while(|strategy| match strategy {
        PlacementStrategy::Spread(SpreadField::Attribute(name)) => Some(name.as_str()),
        PlacementStrategy::Spread(SpreadField::Instance)
        | PlacementStrategy::Binpack(_)
        | PlacementStrategy::Random => None,
    });
    attributes.take(ATTRIBUTES)
}

/// What an instance has for an attribute; those without it are alike, and Fargate capacity is in every zone.
pub fn value<'a>(instance: &'a ContainerInstance, attribute: &str) -> &'a str {
    let named = instance.membership().is_some() || attribute != ZONE;
    let value = instance.attributes.get(attribute).filter(|_| named);
    value.map(String::as_str).unwrap_or_default()
}

impl Default for Shelves {
    fn default() -> Self {
        Self { usual: Shelf::new(&[ZONE.into()], Vec::new()), further: Vec::new() }
    }
}

impl Shelves {
    pub fn usual(&self) -> &Shelf {
        &self.usual
    }

    pub fn further(&self) -> impl Iterator<Item = (&Sorting, &Shelf)> {
        self.further.iter().map(|(sorting, shelf)| (&**sorting, shelf))
    }

    pub fn of(&self, sorting: &Sorting) -> Option<&Shelf> {
        self.further().find(|(other, _)| *other == sorting).map(|(_, shelf)| shelf)
    }

    pub fn is_empty(&self) -> bool {
        self.usual.places.is_empty() && self.further.is_empty()
    }

    pub fn insert(&mut self, instance: &ContainerInstance, fill: Fill) {
        self.change(|shelf| shelf.insert(instance, fill));
    }

    pub fn remove(&mut self, id: ContainerInstanceId, fill: Fill) {
        self.change(|shelf| shelf.remove(id, fill));
    }

    pub fn refill(&mut self, id: ContainerInstanceId, before: Fill, after: Fill) {
        self.change(|shelf| shelf.refill(id, before, after));
    }

    /// Puts up another shelf, with the instances that are there.
    pub fn put_up<'a>(
        &mut self,
        sorting: &Sorting,
        expressions: Vec<Arc<Expression>>,
        instances: impl Iterator<Item = (&'a ContainerInstance, Fill)>,
    ) {
        let mut shelf = Shelf::new(&sorting.attributes, expressions);
        instances.for_each(|(instance, fill)| shelf.insert(instance, fill));
        self.further.push((Arc::new(sorting.clone()), shelf));
    }

    /// Takes down the further shelves that are not among these.
    pub fn keep(&mut self, sortings: &BTreeSet<Sorting>) {
        self.further.retain(|(sorting, _)| sortings.contains(&**sorting));
    }

    fn change(&mut self, mut change: impl FnMut(&mut Shelf)) {
        change(&mut self.usual);
        self.further.iter_mut().for_each(|(_, shelf)| change(shelf));
    }
}

impl Shelf {
    fn new(attributes: &[Arc<str>], expressions: Vec<Arc<Expression>>) -> Self {
        Self {
            attributes: attributes.into(),
            expressions: expressions.into(),
            places: OrdMap::new(),
            parts: OrdMap::new(),
        }
    }

    pub fn attributes(&self) -> impl Iterator<Item = &str> {
        self.attributes.iter().map(|name| &**name)
    }

    pub fn parts(&self) -> impl Iterator<Item = (&Values, &Orders)> {
        self.parts.iter()
    }

    /// The part that an instance is in.
    pub fn part_of(&self, id: ContainerInstanceId) -> Option<&Values> {
        self.places.get(&id)
    }

    pub fn ids(&self) -> impl Iterator<Item = ContainerInstanceId> {
        self.places.keys().copied()
    }

    fn insert(&mut self, instance: &ContainerInstance, fill: Fill) {
        if !self.expressions.iter().all(|expression| expression.is_true_of_empty(instance)) {
            return;
        }
        let values: Values = self.attributes.iter().map(|name| value(instance, name).into()).collect();
        self.places.insert(instance.id, Arc::clone(&values));
        let part = self.parts.entry(values).or_default();
        part.by_id.insert(instance.id);
        part.by_tasks.insert((fill.tasks, instance.id));
        part.by_cpu.insert((fill.left.cpu, instance.id));
        part.by_memory.insert((fill.left.memory, instance.id));
    }

    fn remove(&mut self, id: ContainerInstanceId, fill: Fill) {
        let Some(values) = self.places.remove(&id) else { return };
        let Some(part) = self.parts.get_mut(&values) else { return };
        part.by_id.remove(&id);
        part.by_tasks.remove(&(fill.tasks, id));
        part.by_cpu.remove(&(fill.left.cpu, id));
        part.by_memory.remove(&(fill.left.memory, id));
        if part.by_id.is_empty() {
            self.parts.remove(&values);
        }
    }

    fn refill(&mut self, id: ContainerInstanceId, before: Fill, after: Fill) {
        let Some(values) = self.places.get(&id) else { return };
        let Some(part) = self.parts.get_mut(values) else { return };
        let change = |order: &mut OrdSet<_>, before: u64, after: u64| {
            if before != after {
                order.remove(&(before, id));
                order.insert((after, id));
            }
        };
        change(&mut part.by_tasks, before.tasks, after.tasks);
        change(&mut part.by_cpu, before.left.cpu, after.left.cpu);
        change(&mut part.by_memory, before.left.memory, after.left.memory);
    }
}
