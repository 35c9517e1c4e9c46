//! Keeps services as they are wanted: starts what is missing, stops what is too much, replaces one deployment by another.
//!
//! Invariant: nothing here stops a healthy task while fewer than the healthy minimum would be left, or starts one while
//! there are as many as the maximum; a service that is as it is wanted is left alone.
//!
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-ecs.html>.

mod agenda;
mod alarms;
mod daemon;
mod deployment;
mod failures;
mod leave;
mod obstacle;
mod part;
mod rebalance;
mod seen;
mod stages;
pub mod targets;
#[cfg(test)]
mod tests;

use crate::capacity_provider::{self, Counts};
use crate::lifecycle;
use crate::placement::{self, Network, Placement, Request};
use crate::view::View;
use core::time::Duration;
use deployment::Ending;
use longshore_model::change::Key;
use longshore_model::id::IdSource;
use longshore_model::placement::{PlacementStrategy, SpreadField};
use longshore_model::service::{
    Controller, Deployment, NetworkConfiguration, Obstacle, ObstacleKind, Progress, PropagateTags,
    RolloutState, SchedulingStrategy, Service, ServiceEvent, Status, TaskSet, TaskSetStatus,
};
use longshore_model::task::{Task, TaskRef};
use longshore_model::vpc::{SecurityGroup, Subnet};
use longshore_model::{ContainerInstanceId, Record, Tags, TaskId, Timestamp, Transaction};
use part::Part;
use seen::Seen;
use std::sync::Arc;
use targets::Traffic;

pub use agenda::Agenda;
pub use deployment::{Stopped, deploy, deployment, stop_deployment};
pub use failures::{failed_tasks, threshold};
pub use rebalance::can_rebalance;
pub use stages::{
    HookAnswer, HookCall, NotPaused, continue_deployment, hook_answered, shift, source, traffic, write_hook,
};

/// The `stoppedReason` of a task that its service replaces because a health check of a container fails.
pub const FAILED_HEALTH_CHECKS: &str = "Task failed container health checks";
/// How many events of a service are kept.
pub const EVENTS_KEPT: u64 = 100;
/// Tasks that one commit starts or stops: etcd takes 128 operations in a transaction.
const AT_ONCE: usize = 20;

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long a task without health checks has to be RUNNING to count as healthy.
    pub healthy_after: Duration,
}

/// What is to be done for a service now.
#[derive(Debug)]
pub struct Plan {
    pub next: Service,
    /// Tasks as they are once they are told to stop.
    pub stops: Vec<Task>,
    pub placement: Placement,
    /// Events, first one first.
    pub said: Vec<String>,
    /// When to look again if nothing changes before.
    pub again_at: Option<Timestamp>,
    /// How the service deployment that was under way goes on.
    ended: Option<Ending>,
    /// How far the service deployment is, where that changes.
    progress: Option<Progress>,
    /// Functions that are to be called now.
    pub calls: Vec<HookCall>,
    /// What changes of load balancers.
    pub traffic: Traffic,
    /// Tasks found no place, and may find one when an instance comes or a task goes.
    pub waits_for_capacity: bool,
}

/// What a service needs now. A plan that changes nothing is none to commit.
pub fn reconcile(
    view: &View,
    service: &Service,
    settings: Settings,
    now: Timestamp,
    ids: &mut dyn IdSource,
) -> Plan {
    let mut plan = Plan::nothing(service);
    if service.status == Status::Inactive {
        return plan;
    }
    plan.forget_drained(view, now);
    plan.fail_deployment(view, now);
    plan.heed_alarms(view, now);
    let settled = plan.next.clone();
    let parts = part::parts(view, &settled);
    let mut obstacle = None;
    let mut all_seen = Vec::with_capacity(parts.len());
    for part in &parts {
        let seen = Seen::of(view, &settled, part, settings, now);
        let met = plan.keep(view, part, &seen, now, ids);
        obstacle = obstacle.or(met);
        if part.replaces {
            plan.rebalance(view, part, &seen, now, ids);
        }
        all_seen.push(seen);
    }
    plan.advance(view, all_seen.first(), now, ids);
    plan.meet(obstacle, now);
    plan.conclude(view, &all_seen, now);
    plan.follow_task_sets(&all_seen, now);
    plan.follow_targets(view, now);
    plan.shift_traffic(view);
    plan
}

/// Writes a plan, so that of two that were made on one state only the first is carried out.
pub fn write(
    view: &View,
    service: &Service,
    plan: &Plan,
    transaction: &mut Transaction,
    now: Timestamp,
    ids: &mut dyn IdSource,
) {
    if !plan.changes(service) {
        return;
    }
    let mut next = plan.next.clone();
    next.version += 1;
    if !plan.placement.tasks.is_empty() {
        placement::write(view, &plan.placement, transaction);
    }
    for task in &plan.stops {
        lifecycle::write(view, task, transaction);
    }
    plan.traffic.write(view, transaction);
    deployment::follow(view, service, plan.progress.as_ref(), plan.ended.as_ref(), transaction, now);
    for message in &plan.said {
        say(&mut next, message, transaction, now, ids);
    }
    transaction.update(&next);
}

/// Adds an event to those of a service, which the caller writes, and forgets the one that is too old.
pub fn say(
    service: &mut Service,
    message: &str,
    transaction: &mut Transaction,
    now: Timestamp,
    ids: &mut dyn IdSource,
) {
    let (scope, cluster, name) = (&service.scope, &service.cluster, &service.name);
    transaction.create(&ServiceEvent {
        scope: scope.clone(),
        cluster: cluster.clone(),
        service: name.clone(),
        number: service.events,
        id: ids.uuid().to_string(),
        at: now,
        message: message.to_owned(),
    });
    if let Some(old) = service.events.checked_sub(EVENTS_KEPT) {
        transaction.delete(ServiceEvent::key_of(scope, cluster, name, old));
    }
    service.events += 1;
}

impl Plan {
    fn nothing(service: &Service) -> Self {
        Self {
            next: service.clone(),
            stops: Vec::new(),
            placement: Placement::default(),
            said: Vec::new(),
            again_at: None,
            ended: None,
            progress: None,
            calls: Vec::new(),
            traffic: Traffic::default(),
            waits_for_capacity: false,
        }
    }

    pub fn changes(&self, service: &Service) -> bool {
        self.next != *service
            || !self.stops.is_empty()
            || !self.placement.tasks.is_empty()
            || !self.said.is_empty()
            || self.progress.is_some()
            || !self.traffic.is_empty()
    }

    fn look_again_at(&mut self, when: Option<Timestamp>) {
        self.again_at = self.again_at.into_iter().chain(when).min();
    }

    /// Deployments that were replaced and have no tasks left.
    fn forget_drained(&mut self, view: &View, now: Timestamp) {
        let key = self.next.key();
        let kept = stages::kept(view, &self.next).map(|kept| kept.id.clone());
        let drained = |deployment: &Deployment| {
            kept.as_ref() != Some(&deployment.id) && is_drained(view, &key, &deployment.id)
        };
        let mut first = true;
        self.next.deployments.retain(|deployment| std::mem::take(&mut first) || !drained(deployment));
        let is_gone = |set: &TaskSet| set.status == TaskSetStatus::Draining && drained(&set.deployment);
        self.next.task_sets.retain(|set| !is_gone(set));
        if self.next.status == Status::Draining {
            let all_drained =
                view.service_tasks().deployments(&key).all(|(id, _)| is_drained(view, &key, id));
            if all_drained {
                self.next.status = Status::Inactive;
                self.next.deleted_at = Some(now);
                self.next.obstacle = None;
                self.next.task_sets.clear();
            }
        }
    }

    /// Starts what a part has too few of and stops what it has too much of; says what keeps it from that.
    fn keep(
        &mut self,
        view: &View,
        part: &Part<'_>,
        seen: &Seen,
        now: Timestamp,
        ids: &mut dyn IdSource,
    ) -> Option<(ObstacleKind, String)> {
        self.look_again_at(seen.again_at);
        self.follow_instances(seen);
        let before = (self.placement.tasks.len(), self.stops.len());
        let (obstacle, unplaced) = self.start(view, part, seen, now, ids);
        self.stop(view, part, seen, unplaced, now);
        let moves = before != (self.placement.tasks.len(), self.stops.len());
        if obstacle.is_none() && !moves && seen.is_deadlocked() {
            return Some((ObstacleKind::Bounds, obstacle::deadlock(&self.next)));
        }
        obstacle
    }

    /// The desired count of a DAEMON service is the number of its instances.
    fn follow_instances(&mut self, seen: &Seen) {
        if self.next.scheduling_strategy == SchedulingStrategy::Daemon {
            self.next.desired_count = seen.desired;
        }
    }

    /// Starts what is missing; says what keeps it from that, and how many tasks found no place.
    fn start(
        &mut self,
        view: &View,
        part: &Part<'_>,
        seen: &Seen,
        now: Timestamp,
        ids: &mut dyn IdSource,
    ) -> (Option<(ObstacleKind, String)>, usize) {
        let (service, deployment) = (&self.next, part.deployment);
        // What another part takes is not in the view yet.
        let is_late = !self.placement.tasks.is_empty();
        let is_idle = seen.missing == 0 || service.status != Status::Active;
        if is_idle || is_late || deployment.rollout_state == RolloutState::Failed {
            return (None, 0);
        }
        if let Some(pause) = seen.pause.filter(|pause| pause.until > now) {
            let obstacle = pause.is_long.then(|| (ObstacleKind::Starts, obstacle::throttled(&self.next)));
            self.look_again_at(Some(pause.until));
            return (obstacle, 0);
        }
        let count = seen.missing.min(seen.room).min(AT_ONCE);
        if count == 0 {
            return (None, 0);
        }
        let Some(mut request) = request(view, service, part, count) else {
            let message = obstacle::without_definition(service, deployment);
            return (Some((ObstacleKind::Definition, message)), 0);
        };
        if service.scheduling_strategy == SchedulingStrategy::Daemon {
            let instances: Vec<ContainerInstanceId> =
                seen.free_instances.iter().copied().take(count).collect();
            request.count = u32::try_from(instances.len()).unwrap_or(u32::MAX);
            request.instances = Some(instances);
        }
        let placement = placement::place(view, &request, now, ids);
        let obstacle = obstacle::of_placement(service, part.launch_type, view, &placement);
        let obstacle = obstacle.map(|message| (ObstacleKind::Placement, message));
        let waits = !placement.failures.is_empty();
        self.waits_for_capacity |= waits;
        if !placement.tasks.is_empty() {
            let started = placement.tasks.iter().map(|(task, _)| task.id);
            self.said.push(started_tasks(&service.name, started));
        }
        let unplaced = if waits { seen.missing.saturating_sub(placement.tasks.len()) } else { 0 };
        self.placement = placement;
        (obstacle, unplaced)
    }

    /// Remembers what keeps the service from going on, and says it when it is new or was said long ago.
    fn meet(&mut self, obstacle: Option<(ObstacleKind, String)>, now: Timestamp) {
        let Some((kind, message)) = obstacle else {
            self.next.obstacle = None;
            return;
        };
        let known = self.next.obstacle.as_ref().filter(|known| known.message == message);
        let repeat_at = known.map(|known| known.said_at.plus_millis(obstacle::REPEATED_AFTER));
        match repeat_at.filter(|at| *at > now) {
            Some(at) => self.look_again_at(Some(at)),
            None => {
                self.said.push(message.clone());
                self.next.obstacle = Some(Obstacle { kind, message, said_at: now });
            }
        }
    }

    /// Ends a deployment that has reached what it was for, and says that the service is steady.
    fn conclude(&mut self, view: &View, seen: &[Seen], now: Timestamp) {
        let name = self.next.name.clone();
        let unmoved = self.stops.is_empty() && self.placement.tasks.is_empty();
        let at_rest = unmoved && seen.iter().all(Seen::is_as_wanted);
        let alone = self.next.deployments.len() == 1;
        let active = self.next.status == Status::Active;
        let in_progress = |primary: &Deployment| primary.rollout_state == RolloutState::InProgress;
        let is_complete = at_rest
            && alone
            && active
            && self.next.primary().is_some_and(in_progress)
            && self.is_baked(view, now);
        if is_complete && let Some(primary) = self.next.deployments.first_mut() {
            primary.rollout_state = RolloutState::Completed;
            primary.rollout_state_reason = format!("ECS deployment {} completed.", primary.id);
            primary.updated_at = now;
            self.said.push(format!("(service {name}) (deployment {}) deployment completed.", primary.id));
            self.next.last_completed = Some(Box::new(primary.clone()));
            self.ended = Some(Ending::Completed);
        }
        let settled = match self.next.controller {
            Controller::Ecs => alone && !self.next.primary().is_some_and(in_progress),
            Controller::External | Controller::CodeDeploy => self.next.primary_task_set().is_some(),
        };
        let exact = seen.iter().all(|seen| seen.desired == seen.good_healthy);
        let steady = at_rest && settled && active && exact;
        if steady && !self.next.steady {
            self.said.push(format!("(service {name}) has reached a steady state."));
        }
        self.next.steady = steady;
    }

    /// Task sets say for themselves whether they are steady.
    fn follow_task_sets(&mut self, seen: &[Seen], now: Timestamp) {
        for (set, seen) in self.next.task_sets.iter_mut().zip(seen) {
            let stable = seen.is_as_wanted() && seen.desired == seen.good_healthy;
            if set.stable != stable {
                set.stable = stable;
                set.stable_at = now;
            }
        }
    }
}

fn is_drained(view: &View, service: &Key, deployment: &str) -> bool {
    let tasks = view.service_tasks().deployment(service, deployment);
    tasks.is_none_or(|tasks| tasks.active_count() == 0 && tasks.stopping.is_empty())
}

fn started_tasks(service: &str, tasks: impl ExactSizeIterator<Item = TaskId>) -> String {
    let count = tasks.len();
    format!("(service {service}) has started {count} tasks: {}.", named(tasks))
}

/// `(task ID) (task ID)`.
fn named(tasks: impl Iterator<Item = TaskId>) -> String {
    tasks.map(|task| format!("(task {task})")).collect::<Vec<_>>().join(" ")
}

/// What placement is asked for. `None` when the definition or the subnets are gone.
fn request(view: &View, service: &Service, part: &Part<'_>, count: usize) -> Option<Request> {
    let deployment = part.deployment;
    let definition = view.task_definition(&service.scope, &deployment.family, deployment.revision)?;
    let network = match &deployment.network {
        None => None,
        Some(given) => {
            let find = |id: &String| view.subnets.get(&Subnet::key_of(&service.scope, id)).cloned();
            let subnets: Vec<_> = given.subnets.iter().filter_map(find).collect();
            if subnets.is_empty() {
                return None;
            }
            let security_groups = security_groups(view, given, &subnets);
            Some(Network { subnets, security_groups })
        }
    };
    let own = match service.propagate_tags {
        None => Tags::default(),
        Some(PropagateTags::TaskDefinition) => definition.tags.clone(),
        Some(PropagateTags::Service) => service.tags.clone(),
    };
    let chosen = chosen_providers(view, service, deployment, count);
    Some(Request {
        scope: service.scope.clone(),
        cluster: service.cluster.clone(),
        definition: definition.clone(),
        count: u32::try_from(count).unwrap_or(u32::MAX),
        overrides: None,
        size: placement::size(None, definition),
        launch_type: part.launch_type,
        network,
        constraints: service.constraints.clone(),
        strategies: strategies(service),
        capacity_providers: chosen,
        provider: None,
        instances: None,
        group: service.group(),
        started_by: Some(deployment.id.clone()),
        tags: managed(service, own),
    })
}

/// What placement would be asked for one task more of the first revision that wants one.
pub fn next_request(view: &View, service: &Service) -> Option<Request> {
    part::parts(view, service).first().and_then(|part| request(view, service, part, 1))
}

/// Those that were named, or the default one of the VPC.
fn security_groups(view: &View, given: &NetworkConfiguration, subnets: &[Arc<Subnet>]) -> Vec<String> {
    let Some(vpc) = subnets.first().filter(|_| given.security_groups.is_empty()) else {
        return given.security_groups.clone();
    };
    let default = |group: &&Arc<SecurityGroup>| group.vpc == vpc.vpc && group.name == "default";
    view.security_groups.of(&vpc.scope).filter(default).map(|group| group.id.clone()).collect()
}

/// The capacity providers of tasks that are started beside those that the deployment has.
fn chosen_providers(view: &View, service: &Service, deployment: &Deployment, count: usize) -> Vec<String> {
    let tasks = view.service_tasks().deployment(&service.key(), &deployment.id);
    let present = tasks.into_iter().flat_map(|tasks| tasks.active());
    let mut counts = Counts::new();
    for name in present.filter_map(|task| task.capacity_provider.as_deref()) {
        *counts.entry(name).or_default() += 1;
    }
    let chosen = capacity_provider::split(&deployment.capacity_strategy, counts, count);
    chosen.into_iter().map(str::to_owned).collect()
}

/// Services spread over zones and then over instances where they say nothing else.
fn strategies(service: &Service) -> Vec<PlacementStrategy> {
    if !service.strategies.is_empty() {
        return service.strategies.clone();
    }
    let zone = longshore_model::container_instance::ZONE.to_owned();
    vec![
        PlacementStrategy::Spread(SpreadField::Attribute(zone)),
        PlacementStrategy::Spread(SpreadField::Instance),
    ]
}

fn managed(service: &Service, mut tags: Tags) -> Tags {
    if service.managed_tags {
        // Tags of AWS's own do not count towards the limit.
        tags.0.insert("aws:ecs:clusterName".to_owned(), service.cluster.clone());
        tags.0.insert("aws:ecs:serviceName".to_owned(), service.name.clone());
    }
    tags
}

/// Until when a task is not to be stopped for others.
fn protected_until(view: &View, task: &TaskRef, now: Timestamp) -> Option<Timestamp> {
    let key = longshore_model::service::TaskProtection::key_of(task);
    view.task_protections.get(&key).map(|protection| protection.until).filter(|until| *until > now)
}
