//! Auto Scaling groups: what is to be done so that a group has as many instances as it is to have.
//!
//! Invariant: a group has no more instances than are desired but those that give their tasks away, and of those that are
//! protected none is ended unless the whole group is.

use crate::instance::{self, Launch, Shortage, with_status};
use crate::view::View;
use longshore_model::auto_scaling::{
    ActivityKind, ActivityStatus, AutoScalingGroup, ScalingActivity, TerminationPolicy,
};
use longshore_model::capacity_provider::CapacityProvider;
use longshore_model::container_instance;
use longshore_model::id::IdSource;
use longshore_model::instance::{
    Instance, LaunchTemplate, LaunchTemplateVersion, Membership, Reason, State, TemplateVersion,
};
use longshore_model::service::SchedulingStrategy;
use longshore_model::task::Task;
use longshore_model::vpc::Subnet;
use longshore_model::{ContainerInstanceId, Record, Scope, Tags, Timestamp, Transaction};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How long nothing is launched after a launch has failed, in milliseconds.
const PAUSE: i64 = 30_000;
/// Activities of a group that are kept.
const ACTIVITIES: usize = 100;
/// After so long an instance is ended with the tasks that have not left it, in milliseconds.
const LONGEST_DRAINING: i64 = 48 * 3600 * 1000;

/// The version of a template that a number, `$Latest` or `$Default` names; nothing means the default.
pub fn version<'a>(template: &'a LaunchTemplate, given: &str) -> Option<&'a LaunchTemplateVersion> {
    match given {
        "" | "$Default" => template.version(template.default_version),
        "$Latest" => template.versions.last(),
        number => template.version(number.parse().ok()?),
    }
}

/// The instances of a group that are not terminated.
pub fn members<'a>(view: &'a View, scope: &Scope, group: &str) -> Vec<&'a Arc<Instance>> {
    let is_member = |instance: &&Arc<Instance>| {
        instance.state != State::Terminated && instance.group.as_ref().is_some_and(|of| of.name == group)
    };
    view.instances.of(scope).filter(is_member).collect()
}

/// The provider whose capacity a group is, where a group is one's.
pub fn provider<'a>(view: &'a View, group: &AutoScalingGroup) -> Option<&'a Arc<CapacityProvider>> {
    view.capacity_providers.of(&group.scope).find(|provider| provider.group == group.name)
}

/// Whether tasks are on an instance that are not those of daemons, which are on every instance.
pub fn is_used(view: &View, id: ContainerInstanceId) -> bool {
    view.tasks_on(id).any(|task| !is_daemon(view, task))
}

pub fn is_daemon(view: &View, task: &Task) -> bool {
    let service = task.group.strip_prefix("service:");
    let service = service.and_then(|name| view.service(&task.scope, &task.cluster, name));
    service.is_some_and(|service| service.scheduling_strategy == SchedulingStrategy::Daemon)
}

/// Brings a group a step nearer to what it is to be; says when to look again though nothing has changed.
pub fn reconcile(
    view: &View,
    group: &AutoScalingGroup,
    now: Timestamp,
    ids: &mut dyn IdSource,
    transaction: &mut Transaction,
) -> Option<Timestamp> {
    let members = members(view, &group.scope, &group.name);
    if group.deleting && members.is_empty() {
        remove(view, group, transaction);
        return None;
    }
    settle_activities(view, group, now, transaction);
    let mut work = Work { view, group, now, ids, transaction };
    let (draining, staying): (Vec<_>, Vec<_>) =
        members.into_iter().filter(|member| member.state.is_alive()).partition(|member| member.is_draining());
    for member in &draining {
        work.end_if_left(member);
    }
    let wanted = if group.deleting { 0 } else { group.size.desired as usize };
    if staying.len() < wanted && group.launches_after.is_none_or(|after| after <= now) {
        work.launch(&staying, wanted);
    }
    for victim in victims(group, &staying, staying.len().saturating_sub(wanted)) {
        work.take_away(victim, staying.len(), wanted);
    }
    let drained = draining.iter().filter_map(|member| member.group.as_ref()?.draining_since);
    let given_up = drained.map(|since| since.plus_millis(LONGEST_DRAINING)).min();
    let retried = group.launches_after.filter(|after| *after > now && staying.len() < wanted);
    [given_up, retried].into_iter().flatten().min()
}

struct Work<'a> {
    view: &'a View,
    group: &'a AutoScalingGroup,
    now: Timestamp,
    ids: &'a mut dyn IdSource,
    transaction: &'a mut Transaction,
}

impl Work<'_> {
    /// One instance a time, each where the group has the fewest, so that what is taken is seen by the next.
    fn launch(&mut self, staying: &[&Arc<Instance>], wanted: usize) {
        let present = staying.len();
        let cause = format!(
            "an instance was started in response to a difference between desired and actual capacity, increasing the \
             capacity from {present} to {wanted}."
        );
        match self.start(staying) {
            Ok(launched) => self.record(ActivityKind::Launch, Some(&launched.id), cause, None),
            Err(message) => {
                let launches_after = Some(self.now.plus_millis(PAUSE));
                self.transaction.update(&AutoScalingGroup { launches_after, ..self.group.clone() });
                self.record(ActivityKind::Launch, None, cause, Some(message));
            }
        }
    }

    fn start(&mut self, staying: &[&Arc<Instance>]) -> Result<Instance, String> {
        let (view, group) = (self.view, self.group);
        let template = view.launch_templates.get(&LaunchTemplate::key_of(&group.scope, &group.template));
        let template =
            template.ok_or_else(|| format!("The launch template {} does not exist.", group.template))?;
        let version = version(template, &group.template_version)
            .ok_or_else(|| format!("The launch template has no version {}.", group.template_version))?;
        let named =
            TemplateVersion { id: template.id.clone(), name: template.name.clone(), version: version.number };
        let settings = instance::settings(&version.spec, Some(named)).map_err(|unfit| match unfit {
            instance::Unfit::NoImage => "The launch template names no image.".to_owned(),
            instance::Unfit::Type(name) => format!("Invalid value '{name}' for InstanceType."),
        })?;
        let count = |subnet: &Arc<Subnet>| staying.iter().filter(|there| there.subnet == subnet.id).count();
        let subnets =
            group.subnets.iter().filter_map(|id| view.subnets.get(&Subnet::key_of(&group.scope, id)));
        let subnet =
            subnets.min_by_key(|subnet| count(subnet)).ok_or("None of the group's subnets exists.")?;
        let mut tags = version.spec.tags.clone();
        let propagated = group.tags.iter().filter(|(_, tag)| tag.propagate);
        tags.0.extend(propagated.map(|(key, tag)| (key.clone(), tag.value.clone())));
        tags.0.insert("aws:autoscaling:groupName".to_owned(), group.name.clone());
        tags.0.insert("aws:ec2launchtemplate:id".to_owned(), template.id.clone());
        tags.0.insert("aws:ec2launchtemplate:version".to_owned(), version.number.to_string());
        let launch = Launch {
            subnet,
            settings,
            security_groups: instance::security_groups(view, &version.spec, subnet),
            tags: Tags(tags.0),
            reservation: self.ids.ec2("r"),
            first: 0,
            count: 1,
            address: None,
            client_token: None,
            group: Some(Membership {
                name: group.name.clone(),
                protected: group.new_instances_protected,
                draining_since: None,
            }),
        };
        // What is deleted or changed meanwhile is looked at again.
        self.transaction.rely_on(group.key());
        let launched = instance::launch(view, &launch, self.now, self.ids, self.transaction);
        let launched = launched.map_err(|shortage| match shortage {
            Shortage::Numbers => "The machine has no room for more instances.".to_owned(),
            Shortage::Addresses => format!("The subnet {} has no free address.", subnet.id),
        })?;
        launched.into_iter().next().ok_or_else(|| "No instance was launched.".to_owned())
    }

    /// Ends an instance, or has it give its tasks away first.
    fn take_away(&mut self, victim: &Instance, present: usize, wanted: usize) {
        let drains = !self.group.deleting
            && provider(self.view, self.group).is_some_and(|provider| provider.managed_draining)
            && is_used(self.view, victim.container_instance);
        let cause = format!(
            "an instance was taken out of service in response to a difference between desired and actual capacity, \
             shrinking the capacity from {present} to {wanted}."
        );
        self.record(ActivityKind::Terminate, Some(&victim.id), cause, None);
        if !drains {
            return self.end(victim);
        }
        let group = victim.group.clone().map(|of| Membership { draining_since: Some(self.now), ..of });
        self.transaction.update(&Instance { group, ..victim.clone() });
        if let Some(present) = self.view.container_instance(victim.container_instance) {
            self.transaction.update(&with_status(present, container_instance::Status::Draining));
        }
    }

    fn end_if_left(&mut self, draining: &Instance) {
        let since = draining.group.as_ref().and_then(|group| group.draining_since);
        let given_up = since.is_none_or(|since| self.now.since(since) >= LONGEST_DRAINING);
        if given_up || self.group.deleting || !is_used(self.view, draining.container_instance) {
            self.end(draining);
        }
    }

    fn end(&mut self, victim: &Instance) {
        let why = Reason {
            code: "Client.UserInitiatedShutdown".to_owned(),
            message: "Client.UserInitiatedShutdown: User initiated shutdown".to_owned(),
        };
        instance::terminate(self.view, victim, why, self.now, self.transaction);
    }

    fn record(&mut self, kind: ActivityKind, instance: Option<&str>, cause: String, failed: Option<String>) {
        let status = if failed.is_some() { ActivityStatus::Failed } else { ActivityStatus::InProgress };
        self.transaction.create(&ScalingActivity {
            scope: self.group.scope.clone(),
            group: self.group.name.clone(),
            id: self.ids.uuid(),
            kind,
            instance: instance.map(str::to_owned),
            cause,
            status,
            ended_at: failed.is_some().then_some(self.now),
            message: failed,
            started_at: self.now,
        });
    }
}

/// What is recorded of an instance that a user ends.
pub fn user_ended(
    group: &AutoScalingGroup,
    instance: &Instance,
    fewer: bool,
    now: Timestamp,
    ids: &mut dyn IdSource,
) -> ScalingActivity {
    let desired = group.size.desired;
    let shrinking = match fewer {
        true => format!(", shrinking the capacity from {desired} to {}", desired.saturating_sub(1)),
        false => String::new(),
    };
    ScalingActivity {
        scope: group.scope.clone(),
        group: group.name.clone(),
        id: ids.uuid(),
        kind: ActivityKind::Terminate,
        instance: Some(instance.id.clone()),
        cause: format!(
            "instance {} was taken out of service in response to a user request{shrinking}.",
            instance.id
        ),
        status: ActivityStatus::InProgress,
        message: None,
        started_at: now,
        ended_at: None,
    }
}

/// Which of a group's instances go: in the zone with the most, by its policies, and never those that are protected.
fn victims<'a>(
    group: &AutoScalingGroup,
    staying: &[&'a Arc<Instance>],
    count: usize,
) -> Vec<&'a Arc<Instance>> {
    let mut left: Vec<&Arc<Instance>> = staying.to_vec();
    let mut chosen = Vec::new();
    while chosen.len() < count {
        let mut by_zone: BTreeMap<&str, usize> = BTreeMap::new();
        left.iter().for_each(|there| *by_zone.entry(&there.availability_zone).or_default() += 1);
        let may_go =
            |there: &&&Arc<Instance>| group.deleting || !there.group.as_ref().is_some_and(|of| of.protected);
        let rank = |there: &&&'a Arc<Instance>| {
            let crowd = by_zone.get(there.availability_zone.as_str()).copied().unwrap_or_default();
            (std::cmp::Reverse(crowd), order(&group.termination_policies, there), there.id.clone())
        };
        let Some(victim) = left.iter().filter(may_go).min_by_key(rank).copied() else { break };
        left.retain(|there| there.id != victim.id);
        chosen.push(victim);
    }
    chosen
}

fn order(policies: &[TerminationPolicy], instance: &Instance) -> Vec<i64> {
    let launched = instance.launched_at.millis();
    let template = instance.settings.template.as_ref().map_or(0, |template| template.version);
    let template = i64::try_from(template).unwrap_or(i64::MAX);
    let by = |policy: &TerminationPolicy| match policy {
        TerminationPolicy::Default => vec![template, launched],
        TerminationPolicy::OldestInstance => vec![launched],
        TerminationPolicy::NewestInstance => vec![-launched],
        TerminationPolicy::OldestLaunchTemplate => vec![template],
    };
    policies.iter().flat_map(by).collect()
}

/// Says of activities that they are over once their instances are as they should be, and forgets old ones.
fn settle_activities(view: &View, group: &AutoScalingGroup, now: Timestamp, transaction: &mut Transaction) {
    let prefix = ScalingActivity::prefix_of(&group.scope, &group.name);
    let surplus = view.scaling_activities.under(&prefix).count().saturating_sub(ACTIVITIES);
    for (place, activity) in view.scaling_activities.under(&prefix).enumerate() {
        let over = match activity.status {
            ActivityStatus::InProgress => outcome(view, activity),
            ActivityStatus::Successful | ActivityStatus::Failed => None,
        };
        if let Some(status) = over {
            transaction.update(&ScalingActivity { status, ended_at: Some(now), ..(**activity).clone() });
        } else if place < surplus && activity.status != ActivityStatus::InProgress {
            transaction.delete(activity.key());
        }
    }
}

fn outcome(view: &View, activity: &ScalingActivity) -> Option<ActivityStatus> {
    let key = Instance::key_of(&activity.scope, activity.instance.as_deref().unwrap_or_default());
    let state = view.instances.get(&key).map_or(State::Terminated, |instance| instance.state);
    match (activity.kind, state) {
        (ActivityKind::Launch, State::Running) | (ActivityKind::Terminate, State::Terminated) => {
            Some(ActivityStatus::Successful)
        }
        (ActivityKind::Launch, State::ShuttingDown | State::Terminated) => Some(ActivityStatus::Failed),
        (ActivityKind::Launch, State::Pending) | (ActivityKind::Terminate, _) => None,
    }
}

fn remove(view: &View, group: &AutoScalingGroup, transaction: &mut Transaction) {
    transaction.delete(group.key());
    let activities = view.scaling_activities.under(&ScalingActivity::prefix_of(&group.scope, &group.name));
    activities.for_each(|activity| transaction.delete(activity.key()));
}

#[cfg(test)]
pub(crate) mod tests;
