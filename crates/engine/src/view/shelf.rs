//! The instances of a pool that take tasks, sorted in the ways in which placement looks for one.
//!
//! Invariant: every shelf holds the instances that its sorting asks for, each once, under the value and with the load that
//! it has.

use crate::query::Expression;
use imbl::{OrdMap, OrdSet};
use longshore_model::container_instance::{ContainerInstance, ZONE};
use longshore_model::placement::{PlacementConstraint, PlacementStrategy, SpreadField};
use longshore_model::{ContainerInstanceId, Resources};
use std::sync::Arc;

/// The most sortings of a pool that are kept beside the one by zones: each costs something with every task.
const MOST: usize = 16;

/// An availability zone; empty for instances that are in none.
pub type Zone = Arc<str>;

/// The instances of a pool with one value, which take tasks: they are ACTIVE and connected.
#[derive(Clone, Default)]
pub struct Orders {
    pub by_id: OrdSet<ContainerInstanceId>,
    pub by_tasks: OrdSet<(u64, ContainerInstanceId)>,
    /// By what is left.
    pub by_cpu: OrdSet<(u64, ContainerInstanceId)>,
    pub by_memory: OrdSet<(u64, ContainerInstanceId)>,
}

/// Which instances of a pool are looked at, and how they are parted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sorting {
    /// They are parted by the values of this attribute.
    attribute: Arc<str>,
    /// Expressions that they meet, whatever their tasks are.
    member_of: Vec<Arc<str>>,
}

impl Default for Sorting {
    fn default() -> Self {
        Self { attribute: ZONE.into(), member_of: Vec::new() }
    }
}

impl Sorting {
    /// The one that answers such strategies and constraints without looking at instances that cannot be taken.
    pub fn of(strategies: &[PlacementStrategy], constraints: &[PlacementConstraint]) -> Self {
        let parsed =
            |text: &String| Expression::parse(text).ok().map(|expression| (text.clone(), expression));
        let expressions = constraints.iter().filter_map(|constraint| match constraint {
            PlacementConstraint::MemberOf(text) => parsed(text),
            PlacementConstraint::DistinctInstance => None,
        });
        let expressions: Vec<(String, Expression)> = expressions.collect();
        Self::of_parsed(strategies, expressions.iter().map(|(text, expression)| (text.as_str(), expression)))
    }

    /// The same with expressions that have been read already.
    pub fn of_parsed<'a>(
        strategies: &[PlacementStrategy],
        expressions: impl Iterator<Item = (&'a str, &'a Expression)>,
    ) -> Self {
        let attribute = match strategies.first() {
            Some(PlacementStrategy::Spread(SpreadField::Attribute(name))) => name.as_str(),
            _ => ZONE,
        };
        let of_record = expressions.filter(|(_, expression)| !expression.asks_about_tasks());
        let mut member_of: Vec<Arc<str>> = of_record.map(|(text, _)| text.into()).collect();
        member_of.sort();
        Self { attribute: attribute.into(), member_of }
    }

    pub fn attribute(&self) -> &str {
        &self.attribute
    }

    /// The attribute, where it is not the zone.
    pub fn other_attribute(&self) -> Option<Arc<str>> {
        (&*self.attribute != ZONE).then(|| Arc::clone(&self.attribute))
    }
}

/// All sortings of one pool.
#[derive(Clone, Default)]
pub struct Shelves {
    by_zone: Shelf,
    /// At most [`MOST`]: a sorting that is one too many is not kept, and placement does without.
    others: Vec<(Sorting, Shelf)>,
}

#[derive(Clone, Default)]
struct Shelf {
    expressions: Arc<[Expression]>,
    /// The services that want it.
    uses: usize,
    parts: OrdMap<Arc<str>, Orders>,
}

type Load = (u64, Resources);

impl Shelves {
    pub fn is_empty(&self) -> bool {
        self.by_zone.parts.is_empty() && self.others.is_empty()
    }

    pub fn by_zone(&self) -> impl Iterator<Item = (&Zone, &Orders)> {
        self.by_zone.parts.iter()
    }

    pub fn sorted(&self, sorting: &Sorting) -> Option<impl Iterator<Item = (&Arc<str>, &Orders)>> {
        let (_, shelf) = self.others.iter().find(|(kept, _)| kept == sorting)?;
        Some(shelf.parts.iter())
    }

    /// Keeps a sorting for one service more.
    pub fn want<'a>(
        &mut self,
        sorting: &Sorting,
        instances: impl Iterator<Item = (ContainerInstanceId, &'a ContainerInstance, Load)>,
    ) {
        if let Some((_, shelf)) = self.others.iter_mut().find(|(kept, _)| kept == sorting) {
            shelf.uses += 1;
            return;
        }
        if self.others.len() >= MOST {
            return;
        }
        let expressions = sorting.member_of.iter().filter_map(|text| Expression::parse(text).ok()).collect();
        let mut shelf = Shelf { expressions, uses: 1, parts: OrdMap::new() };
        for (id, instance, load) in instances {
            shelf.file(sorting.attribute(), id, instance, load);
        }
        self.others.push((sorting.clone(), shelf));
    }

    /// Keeps a sorting for one service less.
    pub fn give_up(&mut self, sorting: &Sorting) {
        self.others.retain_mut(|(kept, shelf)| {
            shelf.uses = shelf.uses.saturating_sub(usize::from(kept == sorting));
            shelf.uses > 0
        });
    }

    pub fn file(&mut self, id: ContainerInstanceId, instance: &ContainerInstance, load: Load) {
        self.by_zone.file(ZONE, id, instance, load);
        for (sorting, shelf) in &mut self.others {
            shelf.file(sorting.attribute(), id, instance, load);
        }
    }

    pub fn unfile(&mut self, id: ContainerInstanceId, instance: &ContainerInstance, load: Load) {
        self.by_zone.unfile(ZONE, id, instance, load);
        for (sorting, shelf) in &mut self.others {
            shelf.unfile(sorting.attribute(), id, instance, load);
        }
    }
}

impl Shelf {
    fn holds(&self, instance: &ContainerInstance) -> bool {
        self.expressions.iter().all(|expression| expression.is_true_of_record(instance))
    }

    fn file(&mut self, attribute: &str, id: ContainerInstanceId, instance: &ContainerInstance, load: Load) {
        if !self.holds(instance) {
            return;
        }
        let value = value(instance, attribute);
        let orders = match self.parts.get_mut(value) {
            Some(orders) => orders,
            None => self.parts.entry(value.into()).or_default(),
        };
        let (tasks, left) = load;
        orders.by_id.insert(id);
        orders.by_tasks.insert((tasks, id));
        orders.by_cpu.insert((left.cpu, id));
        orders.by_memory.insert((left.memory, id));
    }

    fn unfile(&mut self, attribute: &str, id: ContainerInstanceId, instance: &ContainerInstance, load: Load) {
        if !self.holds(instance) {
            return;
        }
        let value = value(instance, attribute);
        let Some(orders) = self.parts.get_mut(value) else { return };
        let (tasks, left) = load;
        orders.by_id.remove(&id);
        orders.by_tasks.remove(&(tasks, id));
        orders.by_cpu.remove(&(left.cpu, id));
        orders.by_memory.remove(&(left.memory, id));
        if orders.by_id.is_empty() {
            self.parts.remove(value);
        }
    }
}

/// Instances without the attribute are alike. Capacity for Fargate, which is of no cluster, is in every zone.
fn value<'a>(instance: &'a ContainerInstance, attribute: &str) -> &'a str {
    let of_cluster = instance.membership().is_some() || attribute != ZONE;
    instance.attributes.get(attribute).filter(|_| of_cluster).map(String::as_str).unwrap_or_default()
}
