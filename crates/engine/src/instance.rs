//! EC2 instances: launched with an address and a number of their own, and ended with all that ran on them.
//!
//! Invariant: no two instances that are not terminated have one number or one address.

use crate::placement::free_address;
use crate::view::View;
use crate::{instance_type, lifecycle};
use longshore_model::container_instance::{self, Capacity, ContainerInstance};
use longshore_model::id::IdSource;
use longshore_model::instance::{Instance, LaunchSpec, Membership, Reason, Settings, State, TemplateVersion};
use longshore_model::task::{Stop, StopCode, Task};
use longshore_model::vpc::{Holder, MacAddress, NetworkInterface, SecurityGroup, Subnet};
use longshore_model::{ContainerInstanceId, Record, Scope, Tags, Timestamp, Transaction};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// The numbers of launched instances among all that a machine has.
pub const NUMBERS: RangeInclusive<u16> = 128..=255;

/// What is launched, in one place.
pub struct Launch<'a> {
    pub subnet: &'a Arc<Subnet>,
    pub settings: Settings,
    pub security_groups: Vec<String>,
    pub tags: Tags,
    pub reservation: String,
    /// The first one's place among those of the reservation.
    pub first: u32,
    pub count: u32,
    /// For one instance alone.
    pub address: Option<Ipv4Addr>,
    pub client_token: Option<String>,
    pub group: Option<Membership>,
}

/// What of a specification is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    NoImage,
    /// No type of this name is known.
    Type(String),
}

/// How an instance of this specification is.
pub fn settings(spec: &LaunchSpec, template: Option<TemplateVersion>) -> Result<Settings, Unfit> {
    let name = spec.instance_type.clone().unwrap_or_else(|| instance_type::DEFAULT.to_owned());
    let Some(of_type) = instance_type::of(&name) else { return Err(Unfit::Type(name)) };
    Ok(Settings {
        image: spec.image.clone().ok_or(Unfit::NoImage)?,
        instance_type: name,
        architecture: of_type.architecture,
        key_name: spec.key_name.clone(),
        user_data: spec.user_data.clone(),
        profile: spec.profile.clone(),
        monitoring: spec.monitoring.unwrap_or(false),
        ebs_optimized: spec.ebs_optimized.unwrap_or(false),
        termination_protection: spec.termination_protection.unwrap_or(false),
        template,
    })
}

/// The groups of a specification, or the VPC's default one.
pub fn security_groups(view: &View, spec: &LaunchSpec, subnet: &Subnet) -> Vec<String> {
    if !spec.security_groups.is_empty() {
        return spec.security_groups.clone();
    }
    let default = |group: &&Arc<SecurityGroup>| group.vpc == subnet.vpc && group.name == "default";
    view.security_groups.of(&subnet.scope).filter(default).map(|group| group.id.clone()).collect()
}

/// Why instances are not launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// The machine has as many as it can.
    Numbers,
    /// The subnet has no free address, or the one that was asked for is taken.
    Addresses,
}

/// Launches all of them or none.
pub fn launch(
    view: &View,
    launch: &Launch<'_>,
    now: Timestamp,
    ids: &mut dyn IdSource,
    transaction: &mut Transaction,
) -> Result<Vec<Instance>, Shortage> {
    let taken: BTreeSet<u16> =
        view.instances.iter().filter(|i| i.state != State::Terminated).map(|i| i.number).collect();
    let mut numbers = NUMBERS.filter(|number| !taken.contains(number));
    let subnet = launch.subnet;
    let mut given: BTreeSet<Ipv4Addr> = BTreeSet::new();
    let mut launched = Vec::new();
    for place in 0..launch.count {
        let interface = ids.ec2("eni");
        let address = match launch.address {
            Some(address) => Some(address).filter(|at| is_free(view, subnet, *at)),
            None => (0..=given.len())
                .filter_map(|attempt| free_address(view, subnet, &format!("{interface}{attempt}")))
                .find(|address| !given.contains(address)),
        };
        let address = address.ok_or(Shortage::Addresses)?;
        given.insert(address);
        launched.push(Instance {
            scope: subnet.scope.clone(),
            id: ids.ec2("i"),
            reservation: launch.reservation.clone(),
            launch_index: launch.first + place,
            state: State::Pending,
            settings: launch.settings.clone(),
            vpc: subnet.vpc.clone(),
            subnet: subnet.id.clone(),
            availability_zone: subnet.availability_zone.clone(),
            network: subnet.network.clone(),
            address,
            network_interface: interface,
            security_groups: launch.security_groups.clone(),
            tags: launch.tags.clone(),
            client_token: launch.client_token.clone(),
            number: numbers.next().ok_or(Shortage::Numbers)?,
            container_instance: ids.container_instance(),
            group: launch.group.clone(),
            launched_at: now,
            terminated_at: None,
            why: None,
        });
    }
    for instance in &launched {
        transaction.create(instance);
        transaction.create(&interface_of(instance, now, ids));
    }
    transaction.rely_on(subnet.key());
    // Of two that are launched at once the second one looks for its numbers again.
    transaction.rely_on_nothing_new_under(format!("{}/", Instance::TABLE));
    Ok(launched)
}

fn is_free(view: &View, subnet: &Subnet, address: Ipv4Addr) -> bool {
    subnet.cidr.contains(address)
        && view.network_interfaces.get(&NetworkInterface::key_of(&subnet.network, address)).is_none()
}

fn interface_of(instance: &Instance, now: Timestamp, ids: &mut dyn IdSource) -> NetworkInterface {
    NetworkInterface {
        scope: instance.scope.clone(),
        id: instance.network_interface.clone(),
        attachment: ids.uuid(),
        network: instance.network.clone(),
        subnet: instance.subnet.clone(),
        address: instance.address,
        mac: MacAddress::of(instance.address),
        security_groups: instance.security_groups.clone(),
        holder: Holder::Instance(instance.id.clone()),
        created_at: now,
    }
}

/// Tells an instance to end: from this commit on its container instance takes no tasks and counts in no cluster. Says what is
/// written of it; `None` when it was told before.
pub fn terminate(
    view: &View,
    instance: &Instance,
    why: Reason,
    now: Timestamp,
    transaction: &mut Transaction,
) -> Option<Instance> {
    if !instance.state.is_alive() {
        return None;
    }
    let next = Instance { state: State::ShuttingDown, why: Some(why), ..instance.clone() };
    transaction.update(&next);
    if let Some(present) = view.container_instance(instance.container_instance) {
        let mut gone = with_status(present, container_instance::Status::Inactive);
        gone.deregistered_at.get_or_insert(now);
        transaction.update(&gone);
    }
    Some(next)
}

/// A container instance with another status.
pub fn with_status(instance: &ContainerInstance, status: container_instance::Status) -> ContainerInstance {
    let mut next = instance.clone();
    if let Capacity::Cluster(member) = &mut next.capacity
        && member.status != status
    {
        member.status = status;
        next.version += 1;
    }
    next
}

/// The tasks of an instance that shuts down, as they are once nothing of them runs; at most so many.
pub fn lost_tasks(view: &View, instance: &Instance, now: Timestamp, at_most: usize) -> Vec<Task> {
    let reason = format!("Host EC2 (instance {}) terminated", instance.id);
    let why = Stop { code: StopCode::InfrastructureHealth, reason };
    let tasks = view.tasks_on(instance.container_instance);
    tasks.filter_map(|task| lifecycle::lose(task, why.clone(), now)).take(at_most).collect()
}

/// Writes that nothing of an instance is left: its address and its number are free.
pub fn terminated(view: &View, instance: &Instance, now: Timestamp, transaction: &mut Transaction) {
    transaction.update(&Instance { state: State::Terminated, terminated_at: Some(now), ..instance.clone() });
    let key = NetworkInterface::key_of(&instance.network, instance.address);
    let holder = Holder::Instance(instance.id.clone());
    if view.network_interfaces.get(&key).is_some_and(|held| held.holder == holder) {
        transaction.delete(key);
    }
    if let Some(present) =
        view.container_instance(instance.container_instance).filter(|there| there.agent_connected)
    {
        transaction.update(&ContainerInstance {
            agent_connected: false,
            connected_to: None,
            version: present.version + 1,
            ..(**present).clone()
        });
    }
}

/// Whether the instance that a container instance is was not terminated.
pub fn exists(view: &View, member: &container_instance::Membership) -> bool {
    let id = member.ec2_instance_id.as_deref().unwrap_or_default();
    let found = view.instances.get(&Instance::key_of(&member.scope, id));
    found.is_some_and(|instance| instance.state != State::Terminated)
}

/// The name of the capacity provider that an instance is capacity of: that of its group, in its cluster.
pub fn provider_of(view: &View, instance: &Instance, cluster: &str) -> Option<String> {
    let group = &instance.group.as_ref()?.name;
    let providers = &view.cluster(&instance.scope, cluster)?.capacity_providers;
    let mut of_group =
        view.capacity_providers.of(&instance.scope).filter(|provider| provider.group == *group);
    of_group.find(|provider| providers.contains(&provider.name)).map(|provider| provider.name.clone())
}

/// The instance that is this container instance.
pub fn of_container_instance<'a>(
    view: &'a View,
    scope: &Scope,
    id: ContainerInstanceId,
) -> Option<&'a Arc<Instance>> {
    view.instances.of(scope).find(|instance| instance.container_instance == id)
}

#[cfg(test)]
mod tests;
