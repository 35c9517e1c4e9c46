//! What load balancers are made of, and who sends to which target group.
//! Invariant: a listener or rule counts only while its load balancer is there.

use crate::view::View;
use longshore_model::change::Key;
use longshore_model::elb::{Action, Listener, ListenerRule, LoadBalancer, Target, TargetGroup};
use longshore_model::{Record, Scope, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Seconds, where a target group says nothing.
pub const DEREGISTRATION_DELAY: i64 = 300;

/// The listeners of a load balancer, in the order of their ports.
pub fn listeners_of<'a>(
    view: &'a View,
    load_balancer: &LoadBalancer,
) -> impl Iterator<Item = &'a Arc<Listener>> + use<'a> {
    view.listeners.under(&Listener::prefix_of(&load_balancer.scope, &load_balancer.path()))
}

/// The rules of a listener besides its default, in no order.
pub fn rules_of<'a>(
    view: &'a View,
    listener: &Listener,
) -> impl Iterator<Item = &'a Arc<ListenerRule>> + use<'a> {
    view.listener_rules.under(&ListenerRule::prefix_of(
        &listener.scope,
        &listener.load_balancer,
        &listener.id,
    ))
}

/// The rules of all listeners of a load balancer.
pub fn rules_of_all<'a>(
    view: &'a View,
    load_balancer: &LoadBalancer,
) -> impl Iterator<Item = &'a Arc<ListenerRule>> + use<'a> {
    let (table, scope) = (ListenerRule::TABLE, load_balancer.scope.path());
    view.listener_rules.under(&format!("{table}/{scope}/{}/", load_balancer.path()))
}

pub fn targets_of<'a>(
    view: &'a View,
    group: &TargetGroup,
) -> impl Iterator<Item = &'a Arc<Target>> + use<'a> {
    view.targets.under(&Target::prefix_of(&group.scope, &group.id))
}

/// The names of the target groups that actions forward to.
pub fn groups_of(actions: &[Action]) -> impl Iterator<Item = &str> {
    let groups = actions.iter().flat_map(|action| match action {
        Action::Forward { groups, .. } => groups.as_slice(),
        Action::Redirect(_) | Action::FixedResponse(_) => &[],
    });
    groups.map(|group| group.target_group.as_str())
}

/// The names of the target groups that a load balancer sends to.
pub fn groups_used_by<'a>(view: &'a View, load_balancer: &LoadBalancer) -> BTreeSet<&'a str> {
    let by_default =
        listeners_of(view, load_balancer).flat_map(|listener| groups_of(&listener.default_actions));
    let by_rules = rules_of_all(view, load_balancer).flat_map(|rule| groups_of(&rule.actions));
    by_default.chain(by_rules).collect()
}

/// The load balancers of a scope that send to each target group, by the groups' names.
pub fn load_balancers_by_group<'a>(
    view: &'a View,
    scope: &Scope,
) -> BTreeMap<&'a str, Vec<&'a Arc<LoadBalancer>>> {
    let mut by_group: BTreeMap<&str, Vec<&Arc<LoadBalancer>>> = BTreeMap::new();
    for load_balancer in view.load_balancers.of(scope) {
        for group in groups_used_by(view, load_balancer) {
            by_group.entry(group).or_default().push(load_balancer);
        }
    }
    by_group
}

/// The targets whose deregistration delay is over, whether or not an edge says that they are done: at most `limit` of them.
pub fn drained(view: &View, now: Timestamp, limit: usize) -> Vec<&Arc<Target>> {
    let mut delays: BTreeMap<&str, i64> = BTreeMap::new();
    let mut draining = view.draining_targets().peekable();
    if draining.peek().is_some() {
        delays.extend(view.target_groups.iter().map(|group| (group.id.as_str(), delay(group))));
    }
    let is_over = |target: &&Arc<Target>| {
        // A target whose group is gone waits for nothing.
        let delay = delays.get(target.target_group.as_str()).copied().unwrap_or_default();
        target.deregistered_at.is_some_and(|at| now >= at.plus_millis(delay * 1000))
    };
    draining.filter(is_over).take(limit).collect()
}

fn delay(group: &TargetGroup) -> i64 {
    let given = group.attribute("deregistration_delay.timeout_seconds");
    given.and_then(|given| given.parse().ok()).unwrap_or(DEREGISTRATION_DELAY)
}

/// What is left of load balancers and target groups that are gone: of what one commit could not delete with them.
pub fn orphans(view: &View) -> impl Iterator<Item = Key> {
    let paths: BTreeSet<String> = view.load_balancers.iter().map(|lb| lb.scope.path() + &lb.path()).collect();
    let groups: BTreeSet<&str> = view.target_groups.iter().map(|group| group.id.as_str()).collect();
    let is_gone = move |scope: &Scope, path: &str| !paths.contains(&(scope.path() + path));
    let listeners = view.listeners.iter().filter(|l| is_gone(&l.scope, &l.load_balancer));
    let rules = view.listener_rules.iter().filter(|r| is_gone(&r.scope, &r.load_balancer));
    let targets = view.targets.iter().filter(|target| !groups.contains(target.target_group.as_str()));
    let keys: Vec<Key> =
        listeners.map(|l| l.key()).chain(rules.map(|r| r.key())).chain(targets.map(|t| t.key())).collect();
    keys.into_iter()
}
