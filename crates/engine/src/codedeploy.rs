//! CodeDeploy's deployments: what is to be done next of one, so that a service's tasks are replaced by others beside them.
//!
//! Invariant: of the two task sets the one with production traffic is never removed, and whoever decides on a deployment decides
//! on its record, its service's and its listeners' as they are.

use crate::service::deployment as new_deployment;
use crate::view::View;
use longshore_model::alarm::{Alarm, AlarmState};
use longshore_model::codedeploy::{CodeDeployment, DeploymentGroup, Routing, Settings, Stage, Status, Times};
use longshore_model::elb::{Action, ForwardGroup, Listener, ListenerRule, TargetGroup};
use longshore_model::id::IdSource;
use longshore_model::service::{self, Deployment, Service, ServiceLoadBalancer, TaskSet, TaskSetStatus};
use longshore_model::{Record, Timestamp, Transaction};
use std::sync::Arc;

/// How long the new tasks may take until they are healthy, in milliseconds.
const INSTALL: i64 = 60 * 60 * 1000;
const MINUTE: i64 = 60 * 1000;
const ALL: u32 = 100;
/// The digits of deployments' ids.
const DIGITS: &[u8; 36] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// The configurations that every account has.
pub const PREDEFINED: [(&str, Routing); 5] = [
    ("CodeDeployDefault.ECSAllAtOnce", Routing::AllAtOnce),
    ("CodeDeployDefault.ECSCanary10Percent5Minutes", Routing::Canary { percent: 10, interval: 5 }),
    ("CodeDeployDefault.ECSCanary10Percent15Minutes", Routing::Canary { percent: 10, interval: 15 }),
    ("CodeDeployDefault.ECSLinear10PercentEvery1Minutes", Routing::Linear { percent: 10, interval: 1 }),
    ("CodeDeployDefault.ECSLinear10PercentEvery3Minutes", Routing::Linear { percent: 10, interval: 3 }),
];

/// Such as `d-A1B2C3D4E`.
pub fn deployment_id(ids: &mut dyn IdSource) -> String {
    let mut left = ids.next_u128();
    let mut digits = String::from("d-");
    for _ in 0..9 {
        let digit = DIGITS.get((left % 36) as usize).copied().unwrap_or(b'0');
        digits.push(char::from(digit));
        left /= 36;
    }
    digits
}

/// The part of the traffic that goes over by now, and when it changes next.
pub fn part(routing: Routing, since: Timestamp, now: Timestamp) -> (u32, Option<Timestamp>) {
    let elapsed = now.since(since).max(0);
    let after = |intervals: i64, interval: u32| since.plus_millis(intervals * i64::from(interval) * MINUTE);
    match routing {
        Routing::AllAtOnce => (ALL, None),
        Routing::Canary { percent, interval } if elapsed < i64::from(interval) * MINUTE => {
            (percent.min(ALL), Some(after(1, interval)))
        }
        Routing::Canary { .. } => (ALL, None),
        Routing::Linear { percent, interval } => {
            let steps = elapsed / (i64::from(interval) * MINUTE).max(1);
            let shifted = u32::try_from(steps + 1).unwrap_or(ALL).saturating_mul(percent.max(1)).min(ALL);
            (shifted, (shifted < ALL).then(|| after(steps + 1, interval)))
        }
    }
}

/// The deployment of a group that is under way.
pub fn under_way<'a>(view: &'a View, group: &DeploymentGroup) -> Option<&'a Arc<CodeDeployment>> {
    let of_group = |one: &&Arc<CodeDeployment>| {
        one.status.is_under_way() && one.application == group.application && one.group == group.name
    };
    view.code_deployments.of(&group.scope).find(of_group)
}

/// What comes of a look at a deployment.
struct Work<'a> {
    view: &'a View,
    next: CodeDeployment,
    /// With what is changed of it.
    service: Service,
    listeners: Vec<Listener>,
    rules: Vec<ListenerRule>,
    now: Timestamp,
    again_at: Option<Timestamp>,
}

/// Brings a deployment a step further; says when to look again though nothing has changed.
pub fn reconcile(
    view: &View,
    deployment: &CodeDeployment,
    now: Timestamp,
    ids: &mut dyn IdSource,
    transaction: &mut Transaction,
) -> Option<Timestamp> {
    if !deployment.status.is_under_way() {
        return None;
    }
    let Settings { cluster, service, .. } = &deployment.settings;
    let present = view.service(&deployment.scope, cluster, service);
    let Some(present) = present.filter(|service| service.status == service::Status::Active) else {
        let mut next = deployment.clone();
        let message =
            format!("The ECS service {service} does not exist in the cluster {cluster}, or is not ACTIVE.");
        end(&mut next, Status::Failed, "ECS_UPDATE_ERROR", &message, now);
        transaction.update(&next);
        return None;
    };
    let mut work = Work {
        view,
        next: deployment.clone(),
        service: (**present).clone(),
        listeners: Vec::new(),
        rules: Vec::new(),
        now,
        again_at: None,
    };
    work.step(ids);
    let back = work.rollback_if_failed(ids);
    work.write(present, deployment, back, transaction)
}

/// Ends a deployment because a user says so, and takes it back where that is asked for.
pub fn stop(
    view: &View,
    deployment: &CodeDeployment,
    rollback: Option<bool>,
    now: Timestamp,
    ids: &mut dyn IdSource,
    transaction: &mut Transaction,
) {
    let mut next = deployment.clone();
    end(&mut next, Status::Stopped, "MANUAL_STOP", "The deployment was stopped by the user.", now);
    let asked = &next.settings.rollback;
    if rollback.unwrap_or(asked.enabled && asked.on_request) && next.takes_back.is_none() {
        transaction.create(&take_back(&mut next, now, ids));
    }
    note(view, &next, transaction);
    transaction.update(&next);
}

fn end(next: &mut CodeDeployment, status: Status, code: &str, message: &str, now: Timestamp) {
    next.status = status;
    next.error = Some((code.to_owned(), message.to_owned()));
    next.times.completed_at = Some(now);
}

/// The deployment that takes another one back.
fn take_back(ended: &mut CodeDeployment, now: Timestamp, ids: &mut dyn IdSource) -> CodeDeployment {
    let id = deployment_id(ids);
    ended.taken_back_by = Some(id.clone());
    CodeDeployment {
        id,
        description: None,
        status: Status::Created,
        stage: Stage::GiveBack,
        error: None,
        takes_back: Some(ended.id.clone()),
        taken_back_by: None,
        proceeds: false,
        times: Times {
            created_at: now,
            started_at: None,
            installed_at: None,
            tested_at: None,
            shifting_at: None,
            shifted_at: None,
            completed_at: None,
        },
        ..ended.clone()
    }
}

/// Keeps with the group which deployment was its last.
fn note(view: &View, deployment: &CodeDeployment, transaction: &mut Transaction) {
    let key = DeploymentGroup::key_of(&deployment.scope, &deployment.application, &deployment.group);
    if let Some(group) = view.deployment_groups.get(&key) {
        let mut next = (**group).clone();
        next.last_attempted = Some(deployment.id.clone());
        if deployment.status == Status::Succeeded {
            next.last_successful = Some(deployment.id.clone());
        }
        transaction.update(&next);
    }
}

impl Work<'_> {
    fn step(&mut self, ids: &mut dyn IdSource) {
        if self.next.times.started_at.is_none() {
            self.next.times.started_at = Some(self.now);
            self.next.status = Status::InProgress;
        }
        if let Some(alarm) = self.alarm() {
            return self.fail("ALARM_ACTIVE", &format!("One or more alarms have been activated: {alarm}."));
        }
        match self.next.stage {
            Stage::Begin => self.begin(ids),
            Stage::Install => self.install(),
            Stage::Test => self.test(),
            Stage::Shift => self.shift(),
            Stage::Keep => self.keep(),
            Stage::Clean => self.clean(),
            Stage::GiveBack => self.give_back(),
        }
    }

    /// An alarm that is off, while a deployment heeds alarms.
    fn alarm(&self) -> Option<String> {
        let alarms = &self.next.settings.alarms;
        if !alarms.enabled || self.next.stage > Stage::Keep {
            return None;
        }
        let is_off = |name: &&String| {
            let alarm = self.view.alarms.get(&Alarm::key_of(&self.next.scope, name));
            alarm.is_some_and(|alarm| alarm.state == AlarmState::Alarm)
        };
        alarms.names.iter().find(is_off).cloned()
    }

    fn fail(&mut self, code: &str, message: &str) {
        end(&mut self.next, Status::Failed, code, message, self.now);
    }

    fn begin(&mut self, ids: &mut dyn IdSource) {
        // What an earlier deployment has left.
        let leftover = |set: &TaskSet| set.status != TaskSetStatus::Primary;
        if self.service.task_sets.iter().any(leftover) {
            self.service.task_sets.iter_mut().filter(|set| leftover(set)).for_each(drain);
            return;
        }
        let Some(primary) = self.service.primary_task_set().cloned() else {
            return self.fail("ECS_UPDATE_ERROR", "The ECS service has no primary task set.");
        };
        let revision = &self.next.revision;
        let scope = &self.next.scope;
        let Some(definition) = self.view.task_definition(scope, &revision.family, revision.revision) else {
            let message =
                format!("The task definition {}:{} does not exist.", revision.family, revision.revision);
            return self.fail("INVALID_REVISION", &message);
        };
        let arn = |name: &str| {
            let group = self.view.target_groups.get(&TargetGroup::key_of(scope, name));
            group.map(|group| group.arn())
        };
        let of_primary =
            primary.deployment.load_balancers.first().map(|balancer| balancer.target_group.clone());
        let [first, second] = &self.next.settings.target_groups;
        let green_group = usize::from(of_primary != arn(second));
        let name = if green_group == 0 { first } else { second };
        let Some(target_group) = arn(name) else {
            return self
                .fail("ELASTIC_LOAD_BALANCING_INVALID", &format!("The target group {name} does not exist."));
        };
        let balancer = ServiceLoadBalancer {
            target_group,
            container: revision.container.clone(),
            port: revision.port,
            shift: None,
        };
        let strategy = match revision.strategy.is_empty() {
            true => primary.deployment.capacity_strategy.clone(),
            false => revision.strategy.clone(),
        };
        let made = new_deployment(
            definition,
            revision.network.clone().or_else(|| primary.deployment.network.clone()),
            revision.platform_version.clone().or_else(|| primary.deployment.platform_version.clone()),
            strategy,
            vec![balancer],
            self.now,
            ids,
        );
        let set = TaskSet {
            deployment: Deployment { registries: primary.deployment.registries.clone(), ..made },
            launch_type: primary.launch_type,
            status: TaskSetStatus::Active,
            scale: TaskSet::FULL_SCALE,
            stable: false,
            stable_at: self.now,
            external_id: Some(self.next.id.clone()),
            client_token: None,
            tags: primary.tags.clone(),
        };
        self.next.blue = Some(primary.deployment.id.clone());
        self.next.green = Some(set.deployment.id.clone());
        self.next.green_group = green_group;
        self.next.stage = Stage::Install;
        self.service.task_sets.push(set);
        // Both groups are named from now on, so that the targets of both are checked.
        self.route_production(0);
        self.again_at = Some(self.now.plus_millis(INSTALL));
    }

    fn set(&self, id: Option<&String>) -> Option<&TaskSet> {
        self.service.task_sets.iter().find(|set| Some(&set.deployment.id) == id)
    }

    fn install(&mut self) {
        let Some(green) = self.set(self.next.green.as_ref()) else {
            return self.fail("ECS_UPDATE_ERROR", "The replacement task set does not exist any more.");
        };
        let begun = green.deployment.created_at;
        if green.stable {
            self.next.times.installed_at = Some(self.now);
            self.next.stage = Stage::Test;
            if self.next.settings.test.is_some() {
                self.route_test(true);
            }
        } else if self.now.since(begun) >= INSTALL {
            self.fail("TIMEOUT", "The replacement task set did not become healthy within 60 minutes.");
        } else {
            self.again_at = Some(begun.plus_millis(INSTALL));
        }
    }

    fn test(&mut self) {
        let installed = self.next.times.installed_at.unwrap_or(self.now);
        self.next.times.tested_at.get_or_insert(self.now);
        if let Some(minutes) = self.next.settings.ready_wait.filter(|_| !self.next.proceeds) {
            let until = installed.plus_millis(i64::from(minutes) * MINUTE);
            if self.now >= until {
                let message = "The deployment was not continued before its wait time was over.";
                return end(&mut self.next, Status::Stopped, "TIMEOUT", message, self.now);
            }
            self.next.status = Status::Ready;
            self.again_at = Some(until);
            return;
        }
        self.next.status = Status::InProgress;
        self.next.proceeds = false;
        self.next.times.shifting_at = Some(self.now);
        self.next.stage = Stage::Shift;
    }

    fn shift(&mut self) {
        let since = self.next.times.shifting_at.unwrap_or(self.now);
        let (percent, again_at) = part(self.next.routing, since, self.now);
        self.route_production(percent);
        self.next.percent = percent;
        self.again_at = again_at;
        if percent == ALL {
            self.next.times.shifted_at = Some(self.now);
            self.next.stage = Stage::Keep;
            let green = self.next.green.clone();
            self.make_primary(green.as_ref());
        }
    }

    /// The set of this id is the service's from now on.
    fn make_primary(&mut self, id: Option<&String>) {
        for set in &mut self.service.task_sets {
            let status = match (Some(&set.deployment.id) == id, set.status) {
                (true, _) => TaskSetStatus::Primary,
                (false, TaskSetStatus::Primary) => TaskSetStatus::Active,
                (false, other) => other,
            };
            if set.status != status {
                set.status = status;
                set.deployment.updated_at = self.now;
            }
        }
    }

    fn keep(&mut self) {
        let since = self.next.times.shifted_at.unwrap_or(self.now);
        let until = since.plus_millis(i64::from(self.next.settings.termination_wait) * MINUTE);
        if self.now < until && !self.next.proceeds {
            self.again_at = Some(until);
            return;
        }
        self.next.stage = Stage::Clean;
        let blue = self.next.blue.clone();
        self.service
            .task_sets
            .iter_mut()
            .filter(|set| Some(&set.deployment.id) == blue.as_ref())
            .for_each(drain);
    }

    /// The listeners name one group again once the other one's tasks are gone.
    fn clean(&mut self) {
        let primary = self.service.primary_task_set().map(|set| set.deployment.id.clone());
        if self.service.task_sets.iter().any(|set| Some(&set.deployment.id) != primary.as_ref()) {
            return;
        }
        let green = self.next.takes_back.is_none();
        self.route(self.next.settings.production.clone(), if green { ALL } else { 0 }, true);
        self.next.status = Status::Succeeded;
        self.next.times.completed_at = Some(self.now);
    }

    /// Of a rollback: the tasks before have the traffic again, and the new ones go.
    fn give_back(&mut self) {
        let (blue, green) = (self.next.blue.clone(), self.next.green.clone());
        let kept = self.set(blue.as_ref()).filter(|set| set.status != TaskSetStatus::Draining);
        if green.is_some() && kept.is_none() {
            return self.fail("ECS_UPDATE_ERROR", "The original task set does not exist any more.");
        }
        if green.is_some() {
            self.route_production(0);
            if self.next.settings.test.is_some() {
                self.route_test(false);
            }
            self.make_primary(blue.as_ref());
            self.service
                .task_sets
                .iter_mut()
                .filter(|set| Some(&set.deployment.id) == green.as_ref())
                .for_each(drain);
        }
        self.next.percent = 0;
        self.next.stage = Stage::Clean;
    }

    fn route_production(&mut self, percent: u32) {
        self.route(self.next.settings.production.clone(), percent, false);
    }

    fn route_test(&mut self, green: bool) {
        if let Some(test) =
            self.next.settings.test.clone().filter(|test| *test != self.next.settings.production)
        {
            self.route(test, if green { ALL } else { 0 }, true);
        }
    }

    /// Gives the new group a part of what a listener and its rules forward to either group.
    fn route(&mut self, listener: String, percent: u32, alone: bool) {
        let (blue, green) = self.next.target_groups();
        let weights = [(blue, ALL - percent.min(ALL)), (green, percent.min(ALL))];
        let named = weights.into_iter().filter(|(_, weight)| !alone || *weight > 0);
        let wanted: Vec<ForwardGroup> =
            named.map(|(name, weight)| ForwardGroup { target_group: name.to_owned(), weight }).collect();
        let changed = |actions: &[Action]| {
            let mut next = actions.to_vec();
            for action in &mut next {
                if let Action::Forward { groups, .. } = action
                    && groups.iter().any(|group| group.target_group == blue || group.target_group == green)
                {
                    groups.clone_from(&wanted);
                }
            }
            (next != actions).then_some(next)
        };
        let mut listeners = self.view.listeners.of(&self.next.scope);
        let Some(found) = listeners.find(|found| found.arn() == listener) else { return };
        let rules = self.view.listener_rules.of(&self.next.scope);
        let of_listener =
            rules.filter(|rule| rule.listener == found.id && rule.load_balancer == found.load_balancer);
        let rules = of_listener.filter_map(|rule| {
            changed(&rule.actions).map(|actions| ListenerRule { actions, ..(**rule).clone() })
        });
        let rules: Vec<ListenerRule> = rules.collect();
        let default = changed(&found.default_actions);
        self.listeners
            .extend(default.map(|default_actions| Listener { default_actions, ..(**found).clone() }));
        self.rules.extend(rules);
    }

    /// The deployment that takes this one back, where it has just failed and that is asked for.
    fn rollback_if_failed(&mut self, ids: &mut dyn IdSource) -> Option<CodeDeployment> {
        let asked = &self.next.settings.rollback;
        let by_alarm = self.next.error.as_ref().is_some_and(|(code, _)| code == "ALARM_ACTIVE");
        let wanted = match (self.next.status, by_alarm) {
            (Status::Failed, true) => asked.on_alarm,
            (Status::Failed, false) => asked.on_failure,
            (Status::Stopped, _) => asked.on_request,
            _ => false,
        };
        let back = asked.enabled && wanted && self.next.takes_back.is_none();
        back.then(|| take_back(&mut self.next, self.now, ids))
    }

    fn write(
        self,
        service: &Service,
        deployment: &CodeDeployment,
        back: Option<CodeDeployment>,
        transaction: &mut Transaction,
    ) -> Option<Timestamp> {
        if self.service != *service {
            let version = service.version + 1;
            transaction.update(&Service { version, steady: false, ..self.service });
        }
        self.listeners.iter().for_each(|listener| transaction.update(listener));
        self.rules.iter().for_each(|rule| transaction.update(rule));
        if self.next != *deployment {
            transaction.update(&self.next);
            transaction.rely_on(service.key());
            if !self.next.status.is_under_way() {
                note(self.view, &self.next, transaction);
            }
        }
        if let Some(back) = back {
            transaction.create(&back);
        }
        self.again_at
    }
}

/// Its tasks are stopped, and it goes with the last of them.
fn drain(set: &mut TaskSet) {
    set.status = TaskSetStatus::Draining;
}

#[cfg(test)]
mod tests;
