//! How many instances the group of a capacity provider is to have, so that its tasks have room.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/cluster-auto-scaling.html>.
//!
//! Invariant: the size stays within the group's bounds, grows at once and shrinks only after it was too large for long enough;
//! where instances are protected, none with tasks is without protection.

use crate::auto_scaling::{is_daemon, is_used, members, version};
use crate::view::View;
use crate::{instance, instance_type};
use longshore_model::auto_scaling::{AutoScalingGroup, Size};
use longshore_model::capacity_provider::CapacityProvider;
use longshore_model::instance::{Instance, LaunchTemplate, Membership};
use longshore_model::placement::PlacementConstraint;
use longshore_model::task::Task;
use longshore_model::{ContainerInstanceId, Resources, Timestamp, Transaction};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What `CapacityProviderReservation` is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// How many instances the tasks need, those that wait among them.
    pub needed: u32,
    /// How many there are, or are about to be.
    pub present: u32,
}

impl Reservation {
    /// In percent. Without instances, 100 says that none is needed, and 200 that some are.
    pub fn percent(self) -> f64 {
        match (self.needed, self.present) {
            (0, 0) => 100.0,
            (_, 0) => 200.0,
            (needed, present) => f64::from(needed) / f64::from(present) * 100.0,
        }
    }
}

/// The group of a provider, while it is the one that the provider was made with.
pub fn group_of<'a>(view: &'a View, provider: &CapacityProvider) -> Option<&'a Arc<AutoScalingGroup>> {
    let group = view.auto_scaling_groups.get(&AutoScalingGroup::key_of(&provider.scope, &provider.group));
    group.filter(|group| group.arn() == provider.group_arn && !group.deleting)
}

pub fn reservation(view: &View, provider: &CapacityProvider) -> Reservation {
    let staying = staying(view, provider);
    let used = staying.iter().filter(|there| is_used(view, there.container_instance)).count();
    let more = instances_for(view, provider, &waiting(view, provider));
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Reservation { needed: number(used + more), present: number(staying.len()) }
}

fn staying<'a>(view: &'a View, provider: &CapacityProvider) -> Vec<&'a Arc<Instance>> {
    let stays = |there: &&Arc<Instance>| there.state.is_alive() && !there.is_draining();
    members(view, &provider.scope, &provider.group).into_iter().filter(stays).collect()
}

fn waiting<'a>(view: &'a View, provider: &CapacityProvider) -> Vec<&'a Arc<Task>> {
    let of_provider = |task: &&Arc<Task>| {
        task.scope == provider.scope
            && task.capacity_provider.as_deref() == Some(provider.name.as_str())
            && !is_daemon(view, task)
    };
    view.tasks_on(ContainerInstanceId::NONE).filter(of_provider).collect()
}

/// How many instances of the group's type take these tasks: the largest first, each into the first one with room. Tasks that are
/// larger than the type need none.
fn instances_for(view: &View, provider: &CapacityProvider, tasks: &[&Arc<Task>]) -> usize {
    let Some(size) = group_of(view, provider).and_then(|group| size_of(view, group)) else { return 0 };
    let mut tasks: Vec<&Arc<Task>> =
        tasks.iter().copied().filter(|task| size.lacks(task.size).is_none()).collect();
    tasks.sort_by_key(|task| std::cmp::Reverse((task.size.memory, task.size.cpu)));
    let mut bins: Vec<(Resources, BTreeSet<&str>)> = Vec::new();
    for task in tasks {
        let alone = is_alone(view, task);
        let takes = |(left, groups): &(Resources, BTreeSet<&str>)| {
            left.lacks(task.size).is_none() && !(alone && groups.contains(task.group.as_str()))
        };
        let place = match bins.iter().position(takes) {
            Some(place) => place,
            None => {
                bins.push((size, BTreeSet::new()));
                bins.len() - 1
            }
        };
        if let Some((left, groups)) = bins.get_mut(place) {
            *left = left.minus(task.size);
            groups.insert(&task.group);
        }
    }
    bins.len()
}

fn size_of(view: &View, group: &AutoScalingGroup) -> Option<Resources> {
    let template = view.launch_templates.get(&LaunchTemplate::key_of(&group.scope, &group.template))?;
    let settings = instance::settings(&version(template, &group.template_version)?.spec, None).ok()?;
    instance_type::of(&settings.instance_type).map(|found| found.resources())
}

/// Whether no other task of its group may be on its instance.
fn is_alone(view: &View, task: &Task) -> bool {
    let own = task.waiting.iter().flat_map(|asked| &asked.constraints);
    let definition = view.task_definition(&task.scope, &task.family, task.revision);
    let defined = definition.into_iter().flat_map(|definition| &definition.placement_constraints);
    own.chain(defined).any(|constraint| *constraint == PlacementConstraint::DistinctInstance)
}

/// How large the group of this provider is to be, at most a step away from what it is.
fn wanted(provider: &CapacityProvider, size: Size, reservation: Reservation) -> u32 {
    let scaling = provider.managed_scaling;
    let target = scaling.target_capacity.clamp(1, 100);
    let whole = u64::from(reservation.needed) * 100;
    let wanted = u32::try_from(whole.div_ceil(u64::from(target))).unwrap_or(u32::MAX);
    let Size { min, max, desired } = size;
    if wanted > desired {
        let step = (wanted - desired).max(scaling.minimum_step).min(scaling.maximum_step);
        desired.saturating_add(step).clamp(min, max)
    } else {
        let step = (desired - wanted).min(scaling.maximum_step);
        (desired - step).clamp(min, max)
    }
}

/// Brings a provider's group a step nearer to the size that its tasks need.
pub fn reconcile(
    view: &View,
    provider: &CapacityProvider,
    scale_in_after: i64,
    now: Timestamp,
    transaction: &mut Transaction,
) {
    let Some(group) = group_of(view, provider).filter(|_| provider.managed_scaling.enabled) else { return };
    let wanted = wanted(provider, group.size, reservation(view, provider));
    let resize = |transaction: &mut Transaction| {
        let size = Size { desired: wanted, ..group.size };
        transaction.update(&AutoScalingGroup { size, ..(**group).clone() });
    };
    let surplus_since = match wanted < group.size.desired {
        true => provider.surplus_since.or(Some(now)),
        false => None,
    };
    let due =
        surplus_since.is_some_and(|since| now.since(since) >= scale_in_after) && is_warm(view, provider, now);
    protect(view, provider, due, transaction);
    if wanted > group.size.desired || due {
        resize(transaction);
    }
    let surplus_since = surplus_since.filter(|_| !due);
    if surplus_since != provider.surplus_since {
        transaction.update(&CapacityProvider { surplus_since, ..provider.clone() });
    }
}

/// Whether the youngest instance has had its time to take tasks.
fn is_warm(view: &View, provider: &CapacityProvider, now: Timestamp) -> bool {
    let warmup = i64::from(provider.managed_scaling.instance_warmup) * 1000;
    staying(view, provider).iter().all(|there| now.since(there.launched_at) >= warmup)
}

/// Protects the instances with tasks from scaling in, and when the group shrinks lets go of those without.
fn protect(view: &View, provider: &CapacityProvider, shrinks: bool, transaction: &mut Transaction) {
    if !provider.managed_termination_protection {
        return;
    }
    for there in staying(view, provider) {
        let Some(group) = &there.group else { continue };
        let used = is_used(view, there.container_instance);
        let protected = used || group.protected && !shrinks;
        if protected != group.protected {
            let group = Some(Membership { protected, ..group.clone() });
            transaction.update(&Instance { group, ..(**there).clone() });
        }
    }
}

#[cfg(test)]
mod tests;
