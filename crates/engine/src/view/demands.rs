//! What services ask of placement beyond the usual: the sortings that are worth a shelf, and expressions that were read
//! once.
//!
//! Invariant: everything here is a function of the services of the view and of their task definitions.

use super::capacity::Pool;
use super::groups::GroupKey;
use super::shelves::Sorting;
use crate::query::Expression;
use imbl::OrdMap;
use longshore_model::change::Key;
use longshore_model::cluster::Cluster;
use longshore_model::container_instance::ZONE;
use longshore_model::placement::{PlacementConstraint, PlacementStrategy, SpreadField};
use longshore_model::service::{SchedulingStrategy, Service, Status};
use longshore_model::task::LaunchType;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The most further shelves of a pool: each is changed with every task.
pub const SHELVES: usize = 16;

#[derive(Clone, Default)]
pub struct Demands {
    of_services: OrdMap<Key, Arc<Demand>>,
    /// With how many services ask for each.
    sortings: OrdMap<Pool, OrdMap<Sorting, u64>>,
    /// By their text, with how many services have each.
    expressions: Expressions,
}

/// What one service asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    pub pool: Pool,
    pub group: GroupKey,
    strategies: Vec<PlacementStrategy>,
    /// The service's own with those of each of its task definitions.
    constraints: Vec<Vec<PlacementConstraint>>,
}

impl Demand {
    /// `None` for a service that asks nothing unusual. `of_definitions` are the constraints of its task definitions.
    pub fn of(service: &Service, of_definitions: &[&[PlacementConstraint]]) -> Option<Self> {
        let places = service.status == Status::Active
            && service.scheduling_strategy == SchedulingStrategy::Replica
            && service.launch_type != LaunchType::Fargate;
        if !places {
            return None;
        }
        let cluster = Cluster::key_of(&service.scope, &service.cluster);
        let mut constraints: Vec<Vec<PlacementConstraint>> = Vec::new();
        for own in of_definitions {
            let all = service.constraints.iter().chain(*own).cloned().collect();
            if !constraints.contains(&all) {
                constraints.push(all);
            }
        }
        let demand = Self {
            pool: Pool::of_cluster(cluster.clone(), service.launch_type),
            group: (cluster, service.group().into()),
            strategies: service.strategies.clone(),
            constraints,
        };
        let unusual = !demand.attributes().is_empty() || !demand.texts().is_empty();
        unusual.then_some(demand)
    }

    /// The attributes over which its tasks are spread, other than the zone.
    pub fn attributes(&self) -> BTreeSet<&str> {
        let attribute = |strategy| match strategy {
            &PlacementStrategy::Spread(SpreadField::Attribute(ref name)) => Some(name.as_str()),
            PlacementStrategy::Spread(SpreadField::Instance)
            | PlacementStrategy::Binpack(_)
            | PlacementStrategy::Random => None,
        };
        self.strategies.iter().filter_map(attribute).filter(|name| *name != ZONE).collect()
    }

    fn texts(&self) -> BTreeSet<&str> {
        self.constraints.iter().flatten().filter_map(expression).collect()
    }
}

/// The text of a constraint's expression.
pub fn expression(constraint: &PlacementConstraint) -> Option<&str> {
    match constraint {
        PlacementConstraint::DistinctInstance => None,
        PlacementConstraint::MemberOf(text) => Some(text),
    }
}

impl Demands {
    pub fn of_service(&self, service: &Key) -> Option<&Arc<Demand>> {
        self.of_services.get(service)
    }

    /// An expression that some service has.
    pub fn expression(&self, text: &str) -> Option<&Arc<Expression>> {
        self.expressions.get(text).map(|(expression, _)| expression)
    }

    /// The sortings of a pool that are to have shelves.
    pub fn shelved(&self, pool: &Pool) -> BTreeSet<Sorting> {
        self.sortings.get(pool).into_iter().flat_map(OrdMap::keys).take(SHELVES).cloned().collect()
    }

    pub fn change(&mut self, service: &Key, after: Option<Demand>) {
        let after = after.map(Arc::new);
        let before = match &after {
            None => self.of_services.remove(service),
            Some(after) => self.of_services.insert(service.clone(), Arc::clone(after)),
        };
        // What an expression asks of is known for as long as it is held: it comes first and goes last.
        if let Some(after) = &after {
            after.texts().into_iter().for_each(|text| self.hold_expression(text));
            let sortings = self.sortings.entry(after.pool.clone()).or_default();
            for sorting in sortings_of(after, &self.expressions) {
                *sortings.entry(sorting).or_default() += 1;
            }
        }
        if let Some(before) = before {
            self.release_sortings(&before);
            before.texts().into_iter().for_each(|text| self.release_expression(text));
        }
    }

    fn release_sortings(&mut self, demand: &Demand) {
        let Some(sortings) = self.sortings.get_mut(&demand.pool) else { return };
        for sorting in sortings_of(demand, &self.expressions) {
            match sortings.get_mut(&sorting) {
                Some(services) if *services > 1 => *services -= 1,
                _ => {
                    sortings.remove(&sorting);
                }
            }
        }
        if sortings.is_empty() {
            self.sortings.remove(&demand.pool);
        }
    }

    fn hold_expression(&mut self, text: &str) {
        if let Some((_, services)) = self.expressions.get_mut(text) {
            *services += 1;
        } else if let Ok(expression) = Expression::parse(text) {
            self.expressions.insert(text.into(), (Arc::new(expression), 1));
        }
    }

    fn release_expression(&mut self, text: &str) {
        match self.expressions.get_mut(text) {
            Some((_, services)) if *services > 1 => *services -= 1,
            _ => {
                self.expressions.remove(text);
            }
        }
    }
}

type Expressions = OrdMap<Arc<str>, (Arc<Expression>, u64)>;

fn sortings_of(demand: &Demand, expressions: &Expressions) -> BTreeSet<Sorting> {
    let lasts = |text: &&str| expressions.get(*text).is_some_and(|(known, _)| !known.asks_of_tasks());
    let sorting = |constraints: &Vec<PlacementConstraint>| {
        Sorting::of(&demand.strategies, constraints.iter().filter_map(expression).filter(lasts))
    };
    demand.constraints.iter().filter_map(sorting).collect()
}
