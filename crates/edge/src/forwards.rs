//! Network load balancers: what the kernel passes on by itself. Invariant: a flow stays with the target that it was first
//! sent to, whatever changes later.

use longshore_engine::View;
use longshore_engine::elb::choice;
use longshore_model::elb::{
    Action, Forward, Listener, LoadBalancer, LoadBalancerType, Protocol, Target, TargetGroup, TargetType,
    Transport,
};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

/// What the records want to be passed on.
pub fn wanted(view: &View) -> Vec<Forward> {
    let balancers = view.load_balancers.iter().filter(|balancer| balancer.kind == LoadBalancerType::Network);
    balancers.flat_map(|balancer| of_balancer(view, balancer)).collect()
}

fn of_balancer(view: &View, balancer: &LoadBalancer) -> Vec<Forward> {
    let mut forwards = Vec::new();
    for listener in view.listeners.under(&Listener::prefix_of(&balancer.scope, &balancer.path())) {
        let transports: &[Transport] = match listener.protocol {
            Protocol::Tcp => &[Transport::Tcp],
            Protocol::Udp => &[Transport::Udp],
            Protocol::TcpUdp => &[Transport::Tcp, Transport::Udp],
            Protocol::Http | Protocol::Https | Protocol::Tls => &[],
        };
        let Some(group) = group_of(view, listener) else { continue };
        for transport in transports {
            forwards.extend(of_listener(view, balancer, listener, group, *transport));
        }
    }
    forwards
}

/// The group that a listener sends to: network load balancers have one for each.
pub fn group_of<'a>(view: &'a View, listener: &Listener) -> Option<&'a Arc<TargetGroup>> {
    let Some(Action::Forward { groups, .. }) = listener.default_actions.last() else { return None };
    let heaviest = groups.iter().filter(|group| group.weight > 0).max_by_key(|group| group.weight)?;
    view.target_groups.get(&TargetGroup::key_of(&listener.scope, &heaviest.target_group))
}

fn of_listener(
    view: &View,
    balancer: &LoadBalancer,
    listener: &Listener,
    group: &TargetGroup,
    transport: Transport,
) -> Vec<Forward> {
    let all: Vec<&Target> =
        view.targets.under(&Target::prefix_of(&group.scope, &group.id)).map(|target| &**target).collect();
    let eligible: Vec<&Target> = choice::eligible(&all, |target| target).into_iter().copied().collect();
    let across = balancer.attribute("load_balancing.cross_zone.enabled") == Some("true");
    let mut forwards: BTreeMap<Ipv4Addr, Forward> = BTreeMap::new();
    for zone in &balancer.zones {
        let is_near = |target: &Target| {
            target.availability_zone.as_ref().is_none_or(|at| *at == zone.availability_zone || at == "all")
        };
        let near: Vec<&Target> = eligible.iter().copied().filter(|target| is_near(target)).collect();
        let chosen = if across || near.is_empty() { eligible.clone() } else { near };
        let targets = chosen.iter().map(|target| SocketAddrV4::new(target.address, target.port)).collect();
        let keeps_client = keeps_client(group, transport);
        let (address, port) = (zone.address, listener.port);
        forwards.insert(address, Forward { address, port, transport, targets, keeps_client });
    }
    forwards.into_values().collect()
}

/// UDP always does, and TCP to instances where nothing else is said, as on AWS.
fn keeps_client(group: &TargetGroup, transport: Transport) -> bool {
    match (transport, group.attribute("preserve_client_ip.enabled")) {
        (Transport::Udp, _) => true,
        (Transport::Tcp, Some(said)) => said == "true",
        (Transport::Tcp, None) => group.target_type == TargetType::Instance,
    }
}
