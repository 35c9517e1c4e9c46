//! Where the tasks of each group are that are to run.
//!
//! Invariant: everything here is a function of the tasks of the view and of their container instances' records.

use super::shelves::value;
use imbl::{OrdMap, OrdSet};
use longshore_model::ContainerInstanceId;
use longshore_model::change::Key;
use longshore_model::cluster::Cluster;
use longshore_model::container_instance::ContainerInstance;
use longshore_model::task::Task;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The cluster of a group, and its name.
pub type GroupKey = (Key, Arc<str>);

/// Tasks by the value that their instances have for an attribute.
pub type Counts = OrdMap<Arc<str>, u64>;

#[derive(Clone, Default)]
pub struct Groups {
    groups: OrdMap<GroupKey, Group>,
    /// Of the groups that are spread over attributes other than the zone.
    spreads: OrdMap<GroupKey, OrdMap<Arc<str>, Counts>>,
}

/// The tasks of one group that are to run.
#[derive(Clone, Default)]
pub struct Group {
    by_instance: OrdMap<ContainerInstanceId, u64>,
    pub by_zone: Counts,
    /// Instances with tasks of the group, those with the fewest first.
    pub by_count: OrdSet<(u64, ContainerInstanceId)>,
}

impl Group {
    pub fn on(&self, instance: ContainerInstanceId) -> u64 {
        self.by_instance.get(&instance).copied().unwrap_or_default()
    }

    /// In the order of their ids.
    pub fn instances(&self) -> impl ExactSizeIterator<Item = (ContainerInstanceId, u64)> {
        self.by_instance.iter().map(|(id, count)| (*id, *count))
    }
}

impl Groups {
    pub fn get(&self, key: &GroupKey) -> Option<&Group> {
        self.groups.get(key)
    }

    /// The tasks of a group by the values of an attribute, where they are counted.
    pub fn spread(&self, key: &GroupKey, attribute: &str) -> Option<&Counts> {
        self.spreads.get(key)?.get(attribute)
    }

    pub fn add(&mut self, task: &Task, instance: Option<&ContainerInstance>) {
        let (key, id) = (key_of(task), task.container_instance);
        self.count_spreads(&key, instance, plus, 1);
        let group = self.groups.entry(key).or_default();
        let count = group.by_instance.entry(id).or_default();
        group.by_count.remove(&(*count, id));
        *count += 1;
        group.by_count.insert((*count, id));
        plus(&mut group.by_zone, &task.availability_zone, 1);
    }

    pub fn remove(&mut self, task: &Task, instance: Option<&ContainerInstance>) {
        let (key, id) = (key_of(task), task.container_instance);
        self.count_spreads(&key, instance, minus, 1);
        let Some(group) = self.groups.get_mut(&key) else { return };
        let count = group.on(id);
        group.by_count.remove(&(count, id));
        if count > 1 {
            group.by_instance.insert(id, count - 1);
            group.by_count.insert((count - 1, id));
        } else {
            group.by_instance.remove(&id);
        }
        minus(&mut group.by_zone, &task.availability_zone, 1);
        if group.by_instance.is_empty() {
            self.groups.remove(&key);
        }
    }

    /// Counts the tasks of a group from now on by the values of these attributes, and of no others.
    pub fn spread_over<'a>(
        &mut self,
        key: &GroupKey,
        attributes: &BTreeSet<&str>,
        instance: impl Fn(ContainerInstanceId) -> Option<&'a ContainerInstance>,
    ) {
        self.spreads.remove(key);
        if attributes.is_empty() {
            return;
        }
        let none = attributes.iter().map(|name| (Arc::from(*name), Counts::default()));
        self.spreads.insert(key.clone(), none.collect());
        let present: Vec<_> = self.groups.get(key).into_iter().flat_map(Group::instances).collect();
        for (id, count) in present {
            self.count_spreads(key, instance(id), plus, count);
        }
    }

    /// Takes in another record of an instance that has tasks.
    pub fn change_instance(
        &mut self,
        id: ContainerInstanceId,
        before: Option<&ContainerInstance>,
        after: Option<&ContainerInstance>,
    ) {
        if before.map(|before| &before.attributes) == after.map(|after| &after.attributes) {
            return;
        }
        let on = |key: &&GroupKey| self.groups.get(*key).is_some_and(|group| group.on(id) > 0);
        let touched: Vec<GroupKey> = self.spreads.keys().filter(on).cloned().collect();
        for key in touched {
            let count = self.groups.get(&key).map_or(0, |group| group.on(id));
            self.count_spreads(&key, before, minus, count);
            self.count_spreads(&key, after, plus, count);
        }
    }

    fn count_spreads(
        &mut self,
        key: &GroupKey,
        instance: Option<&ContainerInstance>,
        change: fn(&mut Counts, &str, u64),
        by: u64,
    ) {
        let Some(instance) = instance.filter(|_| !self.spreads.is_empty()) else { return };
        let Some(spread) = self.spreads.get_mut(key) else { return };
        let names: Vec<Arc<str>> = spread.keys().cloned().collect();
        for name in names {
            change(spread.entry(Arc::clone(&name)).or_default(), value(instance, &name), by);
        }
    }
}

fn plus(counts: &mut Counts, value: &str, by: u64) {
    *counts.entry(value.into()).or_default() += by;
}

fn minus(counts: &mut Counts, value: &str, by: u64) {
    match counts.get_mut(value) {
        Some(count) if *count > by => *count -= by,
        _ => {
            counts.remove(value);
        }
    }
}

fn key_of(task: &Task) -> GroupKey {
    (Cluster::key_of(&task.scope, &task.cluster), task.group.as_str().into())
}
