//! What an instance lets pass to and from its tasks. Invariant: a function of the security groups and the network interfaces,
//! so that a change of either is all that changes it.

use crate::dns;
use crate::view::View;
use longshore_model::change::{Batch, Key};
use longshore_model::link::firewall::{Firewall, Permission, Permissions, PermittedPeer};
use longshore_model::vpc::{NetworkInterface, SecurityGroup, Subnet, Vpc};
use longshore_model::{ContainerInstanceId, Record};
use std::collections::BTreeSet;

pub fn of_instance(view: &View, instance: ContainerInstanceId) -> Firewall {
    let mut firewall = Firewall::default();
    for task in view.tasks_on(instance) {
        let Some(own) = &task.network else { continue };
        let key = NetworkInterface::key_of(&own.network, own.address);
        let Some(interface) = view.network_interfaces.get(&key) else { continue };
        let groups: BTreeSet<String> = interface.security_groups.iter().cloned().collect();
        for id in &groups {
            if !firewall.groups.contains_key(id) {
                let group = view.security_groups.get(&SecurityGroup::key_of(&interface.scope, id));
                firewall.groups.insert(id.clone(), group.map(|group| permissions(group)).unwrap_or_default());
            }
        }
        firewall.interfaces.insert(own.address, groups);
        let subnet = view.subnets.get(&Subnet::key_of(&interface.scope, &interface.subnet));
        let vpc = subnet.and_then(|subnet| view.vpcs.get(&Vpc::key_of(&interface.scope, &subnet.vpc)));
        firewall.resolvers.extend(vpc.and_then(|vpc| vpc.cidr.nth(dns::RESOLVER)));
    }
    let named = firewall.groups.values().flat_map(|group| group.ingress.iter().chain(&group.egress));
    let named: BTreeSet<String> = named.filter_map(|permission| group_of(permission).cloned()).collect();
    firewall.members =
        named.into_iter().map(|group| (view.members(&group), group)).map(|(m, g)| (g, m)).collect();
    firewall
}

fn permissions(group: &SecurityGroup) -> Permissions {
    Permissions {
        ingress: group.ingress.iter().filter_map(Permission::of).collect(),
        egress: group.egress.iter().filter_map(Permission::of).collect(),
    }
}

fn group_of(permission: &Permission) -> Option<&String> {
    match &permission.peer {
        PermittedPeer::Group(group) => Some(group),
        PermittedPeer::Block(_) => None,
    }
}

/// Whether a change may matter to an instance that has this firewall now.
pub fn concerns(view: &View, firewall: &Firewall, instance: ContainerInstanceId, batch: &Batch) -> bool {
    batch.changes.iter().any(|change| match change.key.table() {
        SecurityGroup::TABLE => firewall.groups.contains_key(last_part(&change.key)),
        NetworkInterface::TABLE => {
            let address = last_part(&change.key).parse();
            let was_member =
                address.is_ok_and(|address| firewall.members.values().any(|all| all.contains(&address)));
            let is_member = view.network_interfaces.get(&change.key).is_some_and(|interface| {
                interface.security_groups.iter().any(|group| firewall.members.contains_key(group))
            });
            was_member || is_member
        }
        longshore_model::task::Task::TABLE => view.tasks.get(&change.key).is_none_or(|task| {
            let is_here = task.container_instance == instance;
            let known =
                task.network.as_ref().is_some_and(|own| firewall.interfaces.contains_key(&own.address));
            is_here && known != task.holds_resources()
        }),
        _ => false,
    })
}

fn last_part(key: &Key) -> &str {
    key.as_str().rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::{place, write};
    use crate::testing::{Count, apply, instance, request, scope, view};
    use longshore_model::change::Change;
    use longshore_model::vpc::{Peer, Rule};
    use longshore_model::{Timestamp, Transaction, Version};

    /// Two instances with a task each, in the default group.
    fn world() -> (View, Vec<ContainerInstanceId>) {
        let mut view = view(&[instance(1, 256, 512), instance(2, 256, 512)]);
        let group = view.security_groups.iter().next().unwrap().id.clone();
        let mut request = request(&view, 2);
        request.network.as_mut().unwrap().security_groups = vec![group];
        let placed = place(&view, &request, Timestamp(1), &mut Count(0));
        let mut transaction = Transaction::at(Version(0));
        write(&view, &placed, &mut transaction);
        apply(&mut view, transaction);
        let ids = view.container_instances.iter().map(|instance| instance.id).collect();
        (view, ids)
    }

    fn put(view: &mut View, record: &impl Record) -> Batch {
        let mut transaction = Transaction::at(Version(0));
        transaction.update(record);
        let key = record.key();
        apply(view, transaction);
        Batch { version: Version(1), changes: vec![Change { key, value: Some([].into()) }] }
    }

    #[test]
    fn the_default_group_lets_its_members_in_wherever_they_are() {
        let (view, ids) = world();
        let one = of_instance(&view, ids[0]);
        assert_eq!((one.interfaces.len(), one.groups.len()), (1, 1));
        let members: Vec<_> = one.members.values().collect();
        assert_eq!(members.len(), 1);
        assert_eq!(members[0].len(), 2, "the task of the other instance is one of them");
        let other = of_instance(&view, ids[1]);
        assert_eq!(one.members, other.members);
        assert!(one.resolvers.contains(&"172.31.0.2".parse().unwrap()));
    }

    #[test]
    fn only_what_matters_concerns_an_instance() {
        let (mut view, ids) = world();
        let firewall = of_instance(&view, ids[0]);
        let group = (**view.security_groups.iter().next().unwrap()).clone();
        let rule = Rule {
            id: String::new(),
            description: None,
            tags: Default::default(),
            protocol: "tcp".to_owned(),
            ports: Some((80, 80)),
            peer: Peer::Cidr("10.0.0.0/8".parse().unwrap()),
        };
        let more = SecurityGroup { ingress: vec![rule], ..group.clone() };
        let batch = put(&mut view, &more);
        assert!(concerns(&view, &firewall, ids[0], &batch));
        assert_ne!(of_instance(&view, ids[0]), firewall);
        let other = SecurityGroup { id: "sg-0other".to_owned(), name: "other".to_owned(), ..group };
        let batch = put(&mut view, &other);
        assert!(!concerns(&view, &firewall, ids[0], &batch));
        let interface = (**view.network_interfaces.iter().next().unwrap()).clone();
        let left = NetworkInterface { security_groups: vec![other.id], ..interface };
        let batch = put(&mut view, &left);
        assert!(concerns(&view, &firewall, ids[0], &batch), "somebody has left a group that is named");
        assert_eq!(view.members(firewall.groups.keys().next().unwrap()).len(), 1);
        assert_eq!(scope(), left.scope);
    }
}
