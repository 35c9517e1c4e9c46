//! A service's tasks as targets, and the rules by which traffic goes from one revision to another.
//!
//! Invariant: a RUNNING task that is to go on is registered in the groups of its deployment, whatever was done before.

use super::{AT_ONCE, FAILED_HEALTH_CHECKS, Plan, stages};
use crate::elb::targets::{self, Standing};
use crate::view::View;
use longshore_model::change::Key;
use longshore_model::elb::{Action, ForwardGroup, Listener, ListenerRule, Target, TargetGroup};
use longshore_model::service::{ALL_TRAFFIC, Deployment, Service, Strategy, TrafficShift};
use longshore_model::task::{LastStatus, Task};
use longshore_model::{Record, Timestamp, Transaction};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The `stoppedReason` of a task that its service replaces begins with it where a load balancer found it unhealthy.
pub const FAILED_TARGET_CHECKS: &str = "Task failed ELB health checks in";

/// What a plan changes of load balancers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// New ones, and those of names that were given back.
    pub targets: Vec<Target>,
    pub listeners: Vec<Listener>,
    pub rules: Vec<ListenerRule>,
    /// Tasks that waited for targets which are gone.
    pub released: Vec<Task>,
}

impl Traffic {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn write(&self, view: &View, transaction: &mut Transaction) {
        for target in &self.targets {
            if view.targets.get(&target.key()).is_some() {
                transaction.update(target);
            } else {
                transaction.create(target);
            }
        }
        self.listeners.iter().for_each(|listener| transaction.update(listener));
        self.rules.iter().for_each(|rule| transaction.update(rule));
        self.released.iter().for_each(|task| transaction.update(task));
    }
}

/// Every deployment and task set of a service.
pub(crate) fn deployments(service: &Service) -> impl Iterator<Item = &Deployment> {
    service.deployments.iter().chain(service.task_sets.iter().map(|set| &set.deployment))
}

/// The event and the `stoppedReason` of a task that was found unhealthy.
pub(super) fn blame(view: &View, service: &Service, task: &Task) -> (String, String) {
    let name = &service.name;
    let of = deployments(service).find(|deployment| Some(&deployment.id) == task.started_by.as_ref());
    match of.and_then(|deployment| targets::standing(view, task, deployment)) {
        Some(Standing::Unhealthy { group, port, description }) => (
            format!(
                "(service {name}) (port {port}) is unhealthy in (target-group {group}) due to (reason {description})."
            ),
            format!("{FAILED_TARGET_CHECKS} (target-group {group})"),
        ),
        Some(Standing::Healthy | Standing::Unknown) | None => (
            format!("(service {name}) (task {}) failed container health checks.", task.id),
            FAILED_HEALTH_CHECKS.to_owned(),
        ),
    }
}

impl Plan {
    /// Registers the tasks that are not yet, and says what the stops take out of the groups.
    pub(super) fn follow_targets(&mut self, view: &View, now: Timestamp) {
        let service = self.next.clone();
        let key = service.key();
        let stops: Vec<Key> = self.stops.iter().map(|task| task.key()).collect();
        let mut registered: BTreeMap<String, usize> = BTreeMap::new();
        for deployment in deployments(&service).filter(|deployment| !deployment.load_balancers.is_empty()) {
            let Some(tasks) = view.service_tasks().deployment(&key, &deployment.id) else { continue };
            for task in tasks.running.values().filter(|task| !stops.contains(&task.key())) {
                for (group, target) in targets::wanted(view, task, deployment, now) {
                    if self.traffic.targets.len() < AT_ONCE && is_missing(view, &target) {
                        *registered.entry(group.arn()).or_default() += 1;
                        self.traffic.targets.push(target);
                    }
                }
            }
            let stopping =
                tasks.stopping.iter().filter_map(|id| view.task(&service.scope, &service.cluster, *id));
            let waits = |task: &&Arc<Task>| {
                task.last_status == LastStatus::Deactivating && view.targets_of(&task.key()).next().is_none()
            };
            self.traffic
                .released
                .extend(stopping.filter(waits).take(AT_ONCE).map(|task| targets::stopping(task)));
        }
        let name = &service.name;
        let taken =
            |(group, count)| format!("(service {name}) registered {count} targets in (target-group {group})");
        self.said.extend(registered.into_iter().map(taken));
        self.say_deregistered(view);
    }

    fn say_deregistered(&mut self, view: &View) {
        let name = self.next.name.clone();
        let mut left: BTreeMap<String, usize> = BTreeMap::new();
        let mut draining: BTreeMap<String, usize> = BTreeMap::new();
        for task in &self.stops {
            let mut any = false;
            for target in view.targets_of(&task.key()).filter(|target| target.deregistered_at.is_none()) {
                any = true;
                let mut groups = view.target_groups.of(&target.scope);
                let group = groups.find(|group| group.id == target.target_group);
                *left.entry(group.map(|group| group.arn()).unwrap_or_default()).or_default() += 1;
            }
            if any && let Some(deployment) = &task.started_by {
                *draining.entry(deployment.clone()).or_default() += 1;
            }
        }
        for (deployment, count) in draining {
            self.said.push(format!(
                "(service {name}, taskSet {deployment}) has begun draining connections on {count} tasks."
            ));
        }
        for (group, count) in left {
            self.said
                .push(format!("(service {name}) deregistered {count} targets in (target-group {group})"));
        }
    }

    /// Gives each revision its part of the traffic.
    pub(super) fn shift_traffic(&mut self, view: &View) {
        let service = self.next.clone();
        let Some(primary) = service.primary().filter(|_| service.configuration.strategy != Strategy::Rolling)
        else {
            return;
        };
        for balancer in &primary.load_balancers {
            let Some(shift) = &balancer.shift else { continue };
            let groups = [&balancer.target_group, &shift.alternate_target_group];
            let [Some(own), Some(other)] = groups.map(|arn| view.target_group(&service.scope, arn)) else {
                continue;
            };
            let (production, test) = stages::traffic_of(view, self.progress.as_ref(), &service, primary);
            let groups = if primary.alternate { [other, own] } else { [own, other] };
            self.set(view, &service, Some(&shift.production_rule), groups, production);
            self.set(view, &service, test_rule(shift), groups, test);
        }
    }

    fn set(
        &mut self,
        view: &View,
        service: &Service,
        rule: Option<&String>,
        groups: [&Arc<TargetGroup>; 2],
        share: u32,
    ) {
        let Some(rule) = rule else { return };
        let wanted = forward(groups, share);
        match find_rule(view, service, rule) {
            Some(Rule::OfListener(rule)) => {
                if let Some(actions) = with_groups(&rule.actions, &wanted) {
                    self.traffic.rules.push(ListenerRule { actions, ..(**rule).clone() });
                }
            }
            Some(Rule::Default(listener)) => {
                if let Some(default_actions) = with_groups(&listener.default_actions, &wanted) {
                    self.traffic.listeners.push(Listener { default_actions, ..(**listener).clone() });
                }
            }
            None => {}
        }
    }
}

fn test_rule(shift: &TrafficShift) -> Option<&String> {
    shift.test_rule.as_ref().filter(|test| **test != shift.production_rule)
}

/// Whether a target is to be registered: nobody has its name, or somebody who is leaving.
fn is_missing(view: &View, target: &Target) -> bool {
    view.targets.get(&target.key()).is_none_or(|present| present.task != target.task)
}

/// The first group's share is in tenths of a percent, and the second one has the rest.
fn forward([first, second]: [&Arc<TargetGroup>; 2], share: u32) -> Vec<ForwardGroup> {
    // Weights go up to 999, and whole percents are what users know.
    let unit = if share.is_multiple_of(10) { 10 } else { 1 };
    let group = |group: &TargetGroup, share: u32| ForwardGroup {
        target_group: group.name.clone(),
        weight: share / unit,
    };
    vec![group(first, share), group(second, ALL_TRAFFIC.saturating_sub(share))]
}

/// The actions with these groups in the place of those that are forwarded to; `None` where they are so already.
fn with_groups(actions: &[Action], wanted: &[ForwardGroup]) -> Option<Vec<Action>> {
    let mut next = actions.to_vec();
    match next.last_mut() {
        Some(Action::Forward { groups, .. }) => {
            let weight = |of: &[ForwardGroup], name: &str| {
                of.iter().find(|group| group.target_group == name).map_or(0, |group| group.weight)
            };
            let total = |of: &[ForwardGroup]| of.iter().map(|group| group.weight).sum::<u32>().max(1);
            // Other numbers may say the same. A group that is not named is not checked, so that both have to be.
            let is_named =
                |group: &ForwardGroup| groups.iter().any(|other| other.target_group == group.target_group);
            let (has, wants) = (total(groups), total(wanted));
            let same = wanted.iter().all(|group| {
                is_named(group) && weight(groups, &group.target_group) * wants == group.weight * has
            });
            let others =
                groups.iter().any(|group| group.weight > 0 && weight(wanted, &group.target_group) == 0);
            if same && !others {
                return None;
            }
            *groups = wanted.to_vec();
        }
        Some(Action::Redirect(_) | Action::FixedResponse(_)) | None => return None,
    }
    Some(next)
}

/// What an ARN of a listener's rule names.
pub enum Rule<'a> {
    OfListener(&'a Arc<ListenerRule>),
    /// What a listener does without one: the ARN is the listener's, or that of its default rule.
    Default(&'a Arc<Listener>),
}

/// The rule or the listener that has an ARN.
pub fn find_rule<'a>(view: &'a View, service: &Service, arn: &str) -> Option<Rule<'a>> {
    let rule = view.listener_rules.of(&service.scope).find(|rule| rule.arn() == arn);
    rule.map(Rule::OfListener).or_else(|| {
        let mut listeners = view.listeners.of(&service.scope);
        let is_it = |listener: &&Arc<Listener>| {
            let own = listener.arn();
            let default =
                arn.rsplit_once('/').map(|(start, _)| start.replace(":listener-rule/", ":listener/"));
            own == arn || arn.contains(":listener-rule/") && default.as_ref() == Some(&own)
        };
        listeners.find(is_it).map(Rule::Default)
    })
}
