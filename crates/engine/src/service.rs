//! Keeps services as they are wanted: starts what is missing, stops what is too much, replaces one deployment by another.
//!
//! Invariant: nothing here stops a healthy task while fewer than the healthy minimum would be left, or starts one while
//! there are as many as the maximum; a service that is as it is wanted is left alone.
//!
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-ecs.html>.

mod agenda;
mod daemon;
mod deployment;
mod failures;
mod leave;
mod obstacle;
mod seen;
#[cfg(test)]
mod tests;

use crate::capacity_provider::{self, Counts};
use crate::placement::{self, Network, Placement, Request};
use crate::view::View;
use core::time::Duration;
use deployment::Ending;
use longshore_model::change::Key;
use longshore_model::id::IdSource;
use longshore_model::placement::{PlacementStrategy, SpreadField};
use longshore_model::service::{
    Deployment, NetworkConfiguration, Obstacle, ObstacleKind, PropagateTags, RolloutState,
    SchedulingStrategy, Service, ServiceEvent, Status,
};
use longshore_model::task::{Overrides, Task, TaskRef};
use longshore_model::vpc::{SecurityGroup, Subnet};
use longshore_model::{ContainerInstanceId, Record, Tags, TaskId, Timestamp, Transaction};
use seen::Seen;
use std::sync::Arc;

pub use agenda::Agenda;
pub use deployment::{Stopped, deploy, deployment, stop_deployment};
pub use failures::{failed_tasks, threshold};

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
    let seen = Seen::of(view, &plan.next, settings, now);
    plan.look_again_at(seen.again_at);
    plan.follow_instances(&seen);
    let mut obstacle = plan.start(view, &seen, now, ids);
    let stopped = plan.stop(view, &seen, now);
    if obstacle.is_none() && !stopped && plan.placement.tasks.is_empty() && seen.is_deadlocked() {
        obstacle = Some((ObstacleKind::Bounds, obstacle::deadlock(service)));
    }
    plan.meet(obstacle, now);
    plan.conclude(&seen, now);
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
    plan.stops.iter().for_each(|task| transaction.update(task));
    if let Some(ending) = &plan.ended {
        deployment::end(view, service, ending, transaction, now);
    }
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
        id: ids.uuid(),
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
            waits_for_capacity: false,
        }
    }

    pub fn changes(&self, service: &Service) -> bool {
        self.next != *service
            || !self.stops.is_empty()
            || !self.placement.tasks.is_empty()
            || !self.said.is_empty()
    }

    fn look_again_at(&mut self, when: Option<Timestamp>) {
        self.again_at = self.again_at.into_iter().chain(when).min();
    }

    /// Deployments that were replaced and have no tasks left.
    fn forget_drained(&mut self, view: &View, now: Timestamp) {
        let key = self.next.key();
        let drained = |deployment: &Deployment| is_drained(view, &key, &deployment.id);
        let mut first = true;
        self.next.deployments.retain(|deployment| std::mem::take(&mut first) || !drained(deployment));
        if self.next.status == Status::Draining {
            let all_drained =
                view.service_tasks().deployments(&key).all(|(id, _)| is_drained(view, &key, id));
            if all_drained {
                self.next.status = Status::Inactive;
                self.next.deleted_at = Some(now);
                self.next.obstacle = None;
            }
        }
    }

    /// The desired count of a DAEMON service is the number of its instances.
    fn follow_instances(&mut self, seen: &Seen) {
        if self.next.scheduling_strategy == SchedulingStrategy::Daemon {
            self.next.desired_count = seen.desired;
        }
    }

    /// Starts what is missing; says what keeps it from that.
    fn start(
        &mut self,
        view: &View,
        seen: &Seen,
        now: Timestamp,
        ids: &mut dyn IdSource,
    ) -> Option<(ObstacleKind, String)> {
        let service = &self.next;
        let deployment = service.primary()?;
        if seen.missing == 0
            || service.status != Status::Active
            || deployment.rollout_state == RolloutState::Failed
        {
            return None;
        }
        if let Some(pause) = seen.pause.filter(|pause| pause.until > now) {
            self.again_at = self.again_at.into_iter().chain([pause.until]).min();
            return pause.is_long.then(|| (ObstacleKind::Starts, obstacle::throttled(&self.next)));
        }
        let count = seen.missing.min(seen.room).min(AT_ONCE);
        if count == 0 {
            return None;
        }
        let Some(mut request) = request(view, service, deployment, count) else {
            return Some((ObstacleKind::Definition, obstacle::without_definition(service, deployment)));
        };
        if service.scheduling_strategy == SchedulingStrategy::Daemon {
            let instances: Vec<ContainerInstanceId> =
                seen.free_instances.iter().copied().take(count).collect();
            request.count = u32::try_from(instances.len()).unwrap_or(u32::MAX);
            request.instances = Some(instances);
        }
        let placement = placement::place(view, &request, now, ids);
        let obstacle = obstacle::of_placement(service, view, &placement);
        let obstacle = obstacle.map(|message| (ObstacleKind::Placement, message));
        self.waits_for_capacity = !placement.failures.is_empty();
        if !placement.tasks.is_empty() {
            let started = placement.tasks.iter().map(|(task, _)| task.id);
            self.said.push(started_tasks(&service.name, started));
        }
        self.placement = placement;
        obstacle
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
    fn conclude(&mut self, seen: &Seen, now: Timestamp) {
        let name = self.next.name.clone();
        let at_rest = self.stops.is_empty() && self.placement.tasks.is_empty() && seen.is_as_wanted();
        let alone = self.next.deployments.len() == 1;
        let active = self.next.status == Status::Active;
        if let Some(primary) = self.next.deployments.first_mut()
            && primary.rollout_state == RolloutState::InProgress
            && at_rest
            && alone
            && active
        {
            primary.rollout_state = RolloutState::Completed;
            primary.rollout_state_reason = format!("ECS deployment {} completed.", primary.id);
            primary.updated_at = now;
            self.said.push(format!("(service {name}) (deployment {}) deployment completed.", primary.id));
            self.next.last_completed = Some(Box::new(primary.clone()));
            self.ended = Some(Ending::Completed);
        }
        let steady = at_rest && alone && active && seen.desired == seen.good_healthy;
        if steady && !self.next.steady {
            self.said.push(format!("(service {name}) has reached a steady state."));
        }
        self.next.steady = steady;
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
pub fn request(view: &View, service: &Service, deployment: &Deployment, count: usize) -> Option<Request> {
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
        overrides: Overrides::default(),
        size: placement::size(&Overrides::default(), definition),
        launch_type: service.launch_type,
        network,
        constraints: service.constraints.clone(),
        strategies: strategies(service),
        capacity_providers: chosen,
        instances: None,
        group: service.group(),
        started_by: Some(deployment.id.clone()),
        tags: managed(service, own),
    })
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
    let present = present.filter_map(|id| view.task(&service.scope, &service.cluster, id));
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
