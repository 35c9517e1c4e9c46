//! The records as decisions read them: typed tables and the indexes over them.
//!
//! Invariant: the indexes hold exactly what the tables say, kept as changes arrive; cloning is O(1).

mod capacity;
mod demands;
mod discovery;
mod groups;
mod services;
mod shelves;
mod targets;

pub use capacity::{Capacity, Pool};
pub use demands::expression;
pub use discovery::Names;
pub use groups::{Counts, Group, GroupKey};
pub use services::{DeploymentTasks, Services};
pub use shelves::{ATTRIBUTES, Orders, Shelf, Sorting, Values, leading, value};

use demands::Demand;
use imbl::{OrdMap, OrdSet};
use longshore_model::alarm::Alarm;
use longshore_model::auto_scaling::{AutoScalingGroup, ScalingActivity};
use longshore_model::capacity_provider::CapacityProvider;
use longshore_model::certificate::Certificate;
use longshore_model::change::{Change, Key, Undecodable};
use longshore_model::cluster::Cluster;
use longshore_model::codedeploy::{Application, CodeDeployment, DeploymentConfig, DeploymentGroup};
use longshore_model::container_instance::{ContainerInstance, Placements};
use longshore_model::control_plane::ControlPlane;
use longshore_model::discovery::{DiscoveryInstance, DiscoveryService, Namespace, Operation};
use longshore_model::elb::{Listener, ListenerRule, LoadBalancer, Target, TargetGroup};
use longshore_model::event::Event;
use longshore_model::instance::{Instance, LaunchTemplate};
use longshore_model::join::{Administrator, Admission, Authority, JoinToken};
use longshore_model::log_group::LogGroup;
use longshore_model::placement::PlacementConstraint;
use longshore_model::record::{Record, decode};
use longshore_model::route::{InternetGateway, RouteTable};
use longshore_model::secret::{Parameter, SealingKey, Secret};
use longshore_model::service::{
    Deployment, Service, ServiceDeployment, ServiceEvent, ServiceRevision, TaskProtection,
};
use longshore_model::task::{ClientToken, LastStatus, LaunchType, Task};
use longshore_model::task_definition::{Family, TaskDefinition};
use longshore_model::vpc::{NetworkInterface, OpenedRegion, SecurityGroup, Subnet, Vpc};
use longshore_model::{ContainerInstanceId, Resources, Scope, TaskId, Timestamp};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Everything the store holds at one version.
#[derive(Clone, Default)]
pub struct View {
    pub clusters: Table<Cluster>,
    pub task_definitions: Table<TaskDefinition>,
    pub families: Table<Family>,
    pub tasks: Table<Task>,
    pub services: Table<Service>,
    pub service_events: Table<ServiceEvent>,
    pub service_revisions: Table<ServiceRevision>,
    pub service_deployments: Table<ServiceDeployment>,
    pub task_protections: Table<TaskProtection>,
    pub container_instances: Table<ContainerInstance>,
    pub placements: Table<Placements>,
    pub opened_regions: Table<OpenedRegion>,
    pub vpcs: Table<Vpc>,
    pub subnets: Table<Subnet>,
    pub security_groups: Table<SecurityGroup>,
    pub route_tables: Table<RouteTable>,
    pub internet_gateways: Table<InternetGateway>,
    pub network_interfaces: Table<NetworkInterface>,
    pub load_balancers: Table<LoadBalancer>,
    pub target_groups: Table<TargetGroup>,
    pub targets: Table<Target>,
    pub listeners: Table<Listener>,
    pub listener_rules: Table<ListenerRule>,
    pub namespaces: Table<Namespace>,
    pub discovery_services: Table<DiscoveryService>,
    pub discovery_instances: Table<DiscoveryInstance>,
    pub discovery_operations: Table<Operation>,
    pub alarms: Table<Alarm>,
    pub certificates: Table<Certificate>,
    pub instances: Table<Instance>,
    pub launch_templates: Table<LaunchTemplate>,
    pub auto_scaling_groups: Table<AutoScalingGroup>,
    pub scaling_activities: Table<ScalingActivity>,
    pub capacity_providers: Table<CapacityProvider>,
    pub code_applications: Table<Application>,
    pub deployment_configs: Table<DeploymentConfig>,
    pub deployment_groups: Table<DeploymentGroup>,
    pub code_deployments: Table<CodeDeployment>,
    pub secrets: Table<Secret>,
    pub parameters: Table<Parameter>,
    pub sealing_keys: Table<SealingKey>,
    pub log_groups: Table<LogGroup>,
    pub client_tokens: Table<ClientToken>,
    /// What was not read yet by all who want to know.
    pub events: Table<Event>,
    pub control_planes: Table<ControlPlane>,
    pub authorities: Table<Authority>,
    pub administrators: Table<Administrator>,
    pub join_tokens: Table<JoinToken>,
    pub admissions: Table<Admission>,
    stopped: OrdSet<(Timestamp, Key)>,
    tokens_by_age: OrdSet<(Timestamp, Key)>,
    draining_targets: OrdSet<Key>,
    capacity: Capacity,
    service_tasks: Services,
    /// The task definitions of services, each with the service.
    definitions_used: OrdSet<(Key, Key)>,
    addresses_used: OrdMap<String, u64>,
    /// The addresses in each security group.
    members: OrdMap<String, OrdSet<Ipv4Addr>>,
    targets_by_task: OrdMap<Key, OrdSet<Key>>,
    names: Names,
    counts_by_cluster: OrdMap<(Key, LaunchType), TaskCounts>,
    instances_by_cluster: OrdMap<Key, OrdSet<ContainerInstanceId>>,
}

/// The tasks of one cluster, as DescribeClusters counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskCounts {
    pub running: u32,
    pub pending: u32,
}

impl View {
    pub fn cluster(&self, scope: &Scope, name: &str) -> Option<&Arc<Cluster>> {
        self.clusters.get(&Cluster::key_of(scope, name))
    }

    pub fn task(&self, scope: &Scope, cluster: &str, id: TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(&Task::key_of(scope, cluster, id))
    }

    pub fn task_definition(
        &self,
        scope: &Scope,
        family: &str,
        revision: u32,
    ) -> Option<&Arc<TaskDefinition>> {
        self.task_definitions.get(&TaskDefinition::key_of(scope, family, revision))
    }

    /// The revisions of a family, oldest first.
    pub fn revisions(
        &self,
        scope: &Scope,
        family: &str,
    ) -> impl DoubleEndedIterator<Item = &Arc<TaskDefinition>> {
        self.task_definitions.under(&format!("{}/{}/{family}/", TaskDefinition::TABLE, scope.path()))
    }

    /// The tasks of a cluster in the order of their ids.
    pub fn tasks_of<'a>(
        &'a self,
        scope: &Scope,
        cluster: &str,
    ) -> impl DoubleEndedIterator<Item = &'a Arc<Task>> + use<'a> {
        self.tasks.under(&format!("{}/{}/{cluster}/", Task::TABLE, scope.path()))
    }

    /// The tasks that hold a place on an instance, those about to be released among them.
    pub fn tasks_on(&self, instance: ContainerInstanceId) -> impl Iterator<Item = &Arc<Task>> {
        self.capacity.tasks_on(instance).filter_map(|key| self.tasks.get(key))
    }

    pub fn task_count_on(&self, instance: ContainerInstanceId) -> usize {
        self.capacity.task_count_on(instance)
    }

    /// The STOPPED tasks that ended before `when`, oldest first.
    pub fn stopped_before(&self, when: Timestamp) -> impl Iterator<Item = &Key> {
        self.stopped.iter().take_while(move |(stopped, _)| *stopped < when).map(|(_, key)| key)
    }

    /// The client tokens that were used before `when`, oldest first.
    pub fn client_tokens_before(&self, when: Timestamp) -> impl Iterator<Item = &Key> {
        self.tokens_by_age.iter().take_while(move |(used, _)| *used < when).map(|(_, key)| key)
    }

    /// What the tasks on an instance take from it.
    pub fn used_on(&self, instance: ContainerInstanceId) -> Resources {
        self.capacity.used_on(instance)
    }

    pub fn service(&self, scope: &Scope, cluster: &str, name: &str) -> Option<&Arc<Service>> {
        self.services.get(&Service::key_of(scope, cluster, name))
    }

    /// The services of a cluster, INACTIVE ones among them, in the order of their names.
    pub fn services_of<'a>(
        &'a self,
        scope: &Scope,
        cluster: &str,
    ) -> impl DoubleEndedIterator<Item = &'a Arc<Service>> + use<'a> {
        self.services.under(&format!("{}/{}/{cluster}/", Service::TABLE, scope.path()))
    }

    /// What happened to a service, oldest first.
    pub fn events_of(&self, service: &Service) -> impl DoubleEndedIterator<Item = &Arc<ServiceEvent>> {
        self.service_events.under(&prefix_of(ServiceEvent::TABLE, service))
    }

    /// The revisions of a service that are known, in no order.
    pub fn revisions_of(&self, service: &Service) -> impl Iterator<Item = &Arc<ServiceRevision>> {
        self.service_revisions.under(&prefix_of(ServiceRevision::TABLE, service))
    }

    /// The service deployments of a service that are known, in no order.
    pub fn deployments_of(&self, service: &Service) -> impl Iterator<Item = &Arc<ServiceDeployment>> {
        self.service_deployments.under(&prefix_of(ServiceDeployment::TABLE, service))
    }

    pub fn service_tasks(&self) -> &Services {
        &self.service_tasks
    }

    pub fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// Takes in a placed task before it is committed, for those that are placed after it.
    pub fn hold(&mut self, task: &Task, network_interface: Option<&NetworkInterface>) {
        let key = task.key();
        self.capacity.change_task(&key, None, Some(task));
        self.tasks.rows.insert(key, Arc::new(task.clone()));
        if let Some(held) = network_interface {
            *self.addresses_used.entry(held.subnet.clone()).or_default() += 1;
            self.network_interfaces.rows.insert(held.key(), Arc::new(held.clone()));
        }
    }

    /// The tasks of a cluster that were asked for with a launch type.
    pub fn task_counts(&self, scope: &Scope, cluster: &str, launch_type: LaunchType) -> TaskCounts {
        self.counts_by_cluster
            .get(&(Cluster::key_of(scope, cluster), launch_type))
            .copied()
            .unwrap_or_default()
    }

    pub fn container_instance(&self, id: ContainerInstanceId) -> Option<&Arc<ContainerInstance>> {
        self.capacity.record(id)
    }

    /// The container instances of a cluster, INACTIVE ones among them, in the order of their ids.
    pub fn instances_of<'a>(
        &'a self,
        scope: &Scope,
        cluster: &str,
    ) -> impl DoubleEndedIterator<Item = &'a Arc<ContainerInstance>> + use<'a> {
        let ids = self.instances_by_cluster.get(&Cluster::key_of(scope, cluster)).into_iter().flatten();
        ids.filter_map(|id| self.container_instance(*id))
    }

    /// How many addresses of a subnet are taken.
    pub fn addresses_used(&self, subnet: &str) -> u64 {
        self.addresses_used.get(subnet).copied().unwrap_or_default()
    }

    /// The addresses of the network interfaces that are in a security group.
    pub fn members(&self, group: &str) -> BTreeSet<Ipv4Addr> {
        self.members.get(group).into_iter().flatten().copied().collect()
    }

    fn apply_task(&mut self, change: &Change) -> Result<(), Undecodable> {
        let before = self.tasks.get(&change.key).cloned();
        self.tasks.apply(change)?;
        let after = self.tasks.get(&change.key).cloned();
        self.capacity.change_task(&change.key, before.as_deref(), after.as_deref());
        self.service_tasks.change_task(before.as_ref(), after.as_ref());
        if let Some(task) = before {
            self.count(&change.key, &task, Sign::Minus);
        }
        if let Some(task) = after {
            self.count(&change.key, &task, Sign::Plus);
        }
        Ok(())
    }

    fn count(&mut self, key: &Key, task: &Task, sign: Sign) {
        self.count_in_cluster(task, sign);
        if !task.holds_resources() {
            let entry = (task.times.stopped_at.unwrap_or_default(), key.clone());
            match sign {
                Sign::Plus => self.stopped.insert(entry),
                Sign::Minus => self.stopped.remove(&entry),
            };
        }
    }

    fn count_in_cluster(&mut self, task: &Task, sign: Sign) {
        let counts = self
            .counts_by_cluster
            .entry((Cluster::key_of(&task.scope, &task.cluster), task.launch_type))
            .or_default();
        let counter = match task.last_status {
            LastStatus::Provisioning | LastStatus::Pending | LastStatus::Activating => &mut counts.pending,
            LastStatus::Running => &mut counts.running,
            LastStatus::Deactivating
            | LastStatus::Stopping
            | LastStatus::Deprovisioning
            | LastStatus::Stopped => return,
        };
        *counter = match sign {
            Sign::Plus => counter.saturating_add(1),
            Sign::Minus => counter.saturating_sub(1),
        };
    }

    fn apply_container_instance(&mut self, change: &Change) -> Result<(), Undecodable> {
        let cluster = |instance: &ContainerInstance| {
            instance.membership().map(|member| Cluster::key_of(&member.scope, &member.cluster))
        };
        let before = self.container_instances.get(&change.key).cloned();
        if let Some(before) = &before
            && let Some(cluster) = cluster(before)
        {
            self.instances_by_cluster.entry(cluster.clone()).or_default().remove(&before.id);
            if self.instances_by_cluster.get(&cluster).is_some_and(OrdSet::is_empty) {
                self.instances_by_cluster.remove(&cluster);
            }
        }
        self.container_instances.apply(change)?;
        let after = self.container_instances.get(&change.key).cloned();
        if let Some(id) = before.as_ref().or(after.as_ref()).map(|instance| instance.id) {
            self.capacity.change_instance(id, after.as_ref());
        }
        if let Some(after) = &after
            && let Some(cluster) = cluster(after)
        {
            self.instances_by_cluster.entry(cluster).or_default().insert(after.id);
        }
        Ok(())
    }

    fn apply_service(&mut self, change: &Change) -> Result<(), Undecodable> {
        if let Some(before) = self.services.get(&change.key) {
            for definition in definitions_of(before) {
                self.definitions_used.remove(&(definition, change.key.clone()));
            }
        }
        self.services.apply(change)?;
        if let Some(after) = self.services.get(&change.key) {
            let used = definitions_of(after).into_iter().map(|definition| (definition, change.key.clone()));
            self.definitions_used.extend(used);
        }
        self.apply_demand(&change.key);
        Ok(())
    }

    fn apply_task_definition(&mut self, change: &Change) -> Result<(), Undecodable> {
        let before = self.task_definitions.get(&change.key).cloned();
        self.task_definitions.apply(change)?;
        let after = self.task_definitions.get(&change.key);
        if placement_constraints(before.as_ref()) != placement_constraints(after) {
            let used = self.definitions_used.range((change.key.clone(), Key::new(""))..);
            let used = used.take_while(|(definition, _)| *definition == change.key);
            let services: Vec<Key> = used.map(|(_, service)| service.clone()).collect();
            services.iter().for_each(|service| self.apply_demand(service));
        }
        Ok(())
    }

    fn apply_demand(&mut self, service: &Key) {
        let demand = self.services.get(service).and_then(|service| {
            let definitions = definitions_of(service);
            let constraints =
                definitions.iter().map(|key| placement_constraints(self.task_definitions.get(key)));
            Demand::of(service, &constraints.collect::<Vec<_>>())
        });
        self.capacity.change_demand(service, demand);
    }

    fn apply_client_token(&mut self, change: &Change) -> Result<(), Undecodable> {
        if let Some(before) = self.client_tokens.get(&change.key) {
            self.tokens_by_age.remove(&(before.used_at, change.key.clone()));
        }
        self.client_tokens.apply(change)?;
        if let Some(after) = self.client_tokens.get(&change.key) {
            self.tokens_by_age.insert((after.used_at, change.key.clone()));
        }
        Ok(())
    }

    fn apply_network_interface(&mut self, change: &Change) -> Result<(), Undecodable> {
        if let Some(before) = self.network_interfaces.get(&change.key) {
            let used = self.addresses_used.entry(before.subnet.clone()).or_default();
            *used = used.saturating_sub(1);
            for group in &before.security_groups {
                let members = self.members.entry(group.clone()).or_default();
                members.remove(&before.address);
                if members.is_empty() {
                    self.members.remove(group);
                }
            }
        }
        self.network_interfaces.apply(change)?;
        if let Some(after) = self.network_interfaces.get(&change.key) {
            *self.addresses_used.entry(after.subnet.clone()).or_default() += 1;
            for group in &after.security_groups {
                self.members.entry(group.clone()).or_default().insert(after.address);
            }
        }
        Ok(())
    }
}

/// The task definitions that a service's tasks may be of.
fn definitions_of(service: &Service) -> BTreeSet<Key> {
    let of = |deployment: &Deployment| {
        TaskDefinition::key_of(&service.scope, &deployment.family, deployment.revision)
    };
    service.deployments.iter().map(of).collect()
}

fn placement_constraints(definition: Option<&Arc<TaskDefinition>>) -> &[PlacementConstraint] {
    definition.map(|definition| definition.placement_constraints.as_slice()).unwrap_or_default()
}

/// What the keys of a service's own records in a table begin with.
fn prefix_of(table: &str, service: &Service) -> String {
    format!("{table}/{}/{}/{}/", service.scope.path(), service.cluster, service.name)
}

#[derive(Clone, Copy)]
enum Sign {
    Plus,
    Minus,
}

impl longshore_model::change::View for View {
    fn apply(&mut self, change: &Change) -> Result<(), Undecodable> {
        match change.key.table() {
            Cluster::TABLE => self.clusters.apply(change),
            TaskDefinition::TABLE => self.apply_task_definition(change),
            Family::TABLE => self.families.apply(change),
            Task::TABLE => self.apply_task(change),
            Service::TABLE => self.apply_service(change),
            ServiceRevision::TABLE => self.service_revisions.apply(change),
            ServiceDeployment::TABLE => self.service_deployments.apply(change),
            ServiceEvent::TABLE => self.service_events.apply(change),
            TaskProtection::TABLE => self.task_protections.apply(change),
            ClientToken::TABLE => self.apply_client_token(change),
            ContainerInstance::TABLE => self.apply_container_instance(change),
            Placements::TABLE => self.placements.apply(change),
            OpenedRegion::TABLE => self.opened_regions.apply(change),
            Vpc::TABLE => self.vpcs.apply(change),
            Subnet::TABLE => self.subnets.apply(change),
            SecurityGroup::TABLE => self.security_groups.apply(change),
            RouteTable::TABLE => self.route_tables.apply(change),
            InternetGateway::TABLE => self.internet_gateways.apply(change),
            NetworkInterface::TABLE => self.apply_network_interface(change),
            LoadBalancer::TABLE => self.load_balancers.apply(change),
            TargetGroup::TABLE => self.target_groups.apply(change),
            Target::TABLE => self.apply_target(change),
            Listener::TABLE => self.listeners.apply(change),
            ListenerRule::TABLE => self.listener_rules.apply(change),
            Namespace::TABLE => self.apply_namespace(change),
            DiscoveryService::TABLE => self.apply_discovery_service(change),
            DiscoveryInstance::TABLE => self.apply_discovery_instance(change),
            Operation::TABLE => self.discovery_operations.apply(change),
            Alarm::TABLE => self.alarms.apply(change),
            Secret::TABLE => self.secrets.apply(change),
            Parameter::TABLE => self.parameters.apply(change),
            SealingKey::TABLE => self.sealing_keys.apply(change),
            Certificate::TABLE => self.certificates.apply(change),
            Instance::TABLE => self.instances.apply(change),
            LaunchTemplate::TABLE => self.launch_templates.apply(change),
            AutoScalingGroup::TABLE => self.auto_scaling_groups.apply(change),
            ScalingActivity::TABLE => self.scaling_activities.apply(change),
            CapacityProvider::TABLE => self.capacity_providers.apply(change),
            Application::TABLE => self.code_applications.apply(change),
            DeploymentConfig::TABLE => self.deployment_configs.apply(change),
            DeploymentGroup::TABLE => self.deployment_groups.apply(change),
            CodeDeployment::TABLE => self.code_deployments.apply(change),
            ControlPlane::TABLE => self.control_planes.apply(change),
            Authority::TABLE => self.authorities.apply(change),
            Administrator::TABLE => self.administrators.apply(change),
            JoinToken::TABLE => self.join_tokens.apply(change),
            Admission::TABLE => self.admissions.apply(change),
            Event::TABLE => self.events.apply(change),
            LogGroup::TABLE => self.log_groups.apply(change),
            other => {
                Err(Undecodable { key: change.key.clone(), reason: format!("no table is named `{other}`") })
            }
        }
    }
}

/// The records of one kind, in the order of their keys.
#[derive(Clone)]
pub struct Table<R> {
    rows: OrdMap<Key, Arc<R>>,
}

impl<R> Default for Table<R> {
    fn default() -> Self {
        Self { rows: OrdMap::new() }
    }
}

impl<R: Record> Table<R> {
    pub fn get(&self, key: &Key) -> Option<&Arc<R>> {
        self.rows.get(key)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<R>> {
        self.rows.values()
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The records whose keys start with `prefix`, which ends in `/`.
    pub fn under<'a>(&'a self, prefix: &str) -> impl DoubleEndedIterator<Item = &'a Arc<R>> + use<'a, R> {
        // `0` is the character after `/`: the range ends where the next prefix would begin.
        let end = format!("{}0", prefix.strip_suffix('/').unwrap_or(prefix));
        self.rows.range(Key::new(prefix)..Key::new(end)).map(|(_, row)| row)
    }

    /// The records of one account and region.
    pub fn of<'a>(&'a self, scope: &Scope) -> impl DoubleEndedIterator<Item = &'a Arc<R>> + use<'a, R> {
        self.under(&format!("{}/{}/", R::TABLE, scope.path()))
    }

    fn apply(&mut self, change: &Change) -> Result<(), Undecodable> {
        match &change.value {
            None => {
                self.rows.remove(&change.key);
            }
            Some(value) => {
                let record = decode(value)
                    .map_err(|cause| Undecodable { key: change.key.clone(), reason: cause.to_string() })?;
                self.rows.insert(change.key.clone(), Arc::new(record));
            }
        }
        Ok(())
    }
}
