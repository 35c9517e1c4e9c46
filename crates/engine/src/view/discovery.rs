//! What Cloud Map's records are found by: names, and the tasks that ECS registers.
//!
//! Invariant: everything here is a function of the tables of the view, kept as they change.

use super::View;
use imbl::{OrdMap, OrdSet};
use longshore_model::change::{Change, Key, Undecodable};
use longshore_model::discovery::{DiscoveryInstance, DiscoveryService, Namespace};
use longshore_model::{Record, Scope};
use std::sync::Arc;

/// The records by their names, which are the same in capital and small letters.
#[derive(Clone, Default)]
pub struct Names {
    /// VPC, name of a namespace that DNS knows there.
    zones: OrdMap<(String, String), Key>,
    /// Id of the namespace, name of the service.
    services: OrdSet<(String, String, Key)>,
    instances_by_task: OrdMap<Key, OrdSet<Key>>,
}

impl View {
    /// The namespace whose names are known in a VPC under this one. `name` is in small letters.
    pub fn zone(&self, vpc: &str, name: &str) -> Option<&Arc<Namespace>> {
        self.namespaces.get(self.names.zones.get(&(vpc.to_owned(), name.to_owned()))?)
    }

    /// The services of a namespace that have a name, whose letters may be capital ones or not.
    pub fn discovery_services_named<'a>(
        &'a self,
        namespace: &str,
        name: &str,
    ) -> impl Iterator<Item = &'a Arc<DiscoveryService>> + use<'a> {
        let (namespace, name) = (namespace.to_owned(), name.to_ascii_lowercase());
        let from = (namespace.clone(), name.clone(), Key::new(""));
        let same = self
            .names
            .services
            .range(from..)
            .take_while(move |(of, named, _)| *of == namespace && *named == name);
        same.filter_map(|(_, _, key)| self.discovery_services.get(key))
    }

    /// The services of a namespace, in the order of their names.
    pub fn discovery_services_of<'a>(
        &'a self,
        namespace: &str,
    ) -> impl Iterator<Item = &'a Arc<DiscoveryService>> + use<'a> {
        let namespace = namespace.to_owned();
        let from = (namespace.clone(), String::new(), Key::new(""));
        let own = self.names.services.range(from..).take_while(move |(of, ..)| *of == namespace);
        own.filter_map(|(_, _, key)| self.discovery_services.get(key))
    }

    /// The instances of a service, in the order of their ids.
    pub fn discovery_instances_of<'a>(
        &'a self,
        scope: &Scope,
        service: &str,
    ) -> impl Iterator<Item = &'a Arc<DiscoveryInstance>> + use<'a> {
        self.discovery_instances.under(&DiscoveryInstance::prefix_of(scope, service))
    }

    /// The instances that a task, by its key, is registered as.
    pub fn discovery_instances_of_task<'a>(
        &'a self,
        task: &Key,
    ) -> impl Iterator<Item = &'a Arc<DiscoveryInstance>> + use<'a> {
        let keys = self.names.instances_by_task.get(task).into_iter().flatten();
        keys.filter_map(|key| self.discovery_instances.get(key))
    }

    pub(super) fn apply_namespace(&mut self, change: &Change) -> Result<(), Undecodable> {
        if let Some(name) = self.namespaces.get(&change.key).and_then(|before| zone_of(before)) {
            self.names.zones.remove(&name);
        }
        self.namespaces.apply(change)?;
        if let Some(name) = self.namespaces.get(&change.key).and_then(|after| zone_of(after)) {
            self.names.zones.insert(name, change.key.clone());
        }
        Ok(())
    }

    pub(super) fn apply_discovery_service(&mut self, change: &Change) -> Result<(), Undecodable> {
        if let Some(before) = self.discovery_services.get(&change.key) {
            self.names.services.remove(&name_of(before));
        }
        self.discovery_services.apply(change)?;
        if let Some(after) = self.discovery_services.get(&change.key) {
            self.names.services.insert(name_of(after));
        }
        Ok(())
    }

    pub(super) fn apply_discovery_instance(&mut self, change: &Change) -> Result<(), Undecodable> {
        let task_of = |instance: &Arc<DiscoveryInstance>| instance.task.as_ref().map(|task| task.key());
        if let Some(task) = self.discovery_instances.get(&change.key).and_then(task_of) {
            let of_task = self.names.instances_by_task.entry(task.clone()).or_default();
            of_task.remove(&change.key);
            if of_task.is_empty() {
                self.names.instances_by_task.remove(&task);
            }
        }
        self.discovery_instances.apply(change)?;
        if let Some(task) = self.discovery_instances.get(&change.key).and_then(task_of) {
            self.names.instances_by_task.entry(task).or_default().insert(change.key.clone());
        }
        Ok(())
    }
}

fn zone_of(namespace: &Namespace) -> Option<(String, String)> {
    Some((namespace.vpc()?.to_owned(), namespace.name.to_ascii_lowercase()))
}

fn name_of(service: &DiscoveryService) -> (String, String, Key) {
    (service.namespace.clone(), service.name.to_ascii_lowercase(), service.key())
}
