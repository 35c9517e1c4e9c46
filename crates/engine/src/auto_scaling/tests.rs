//! A group whose instances start and end as they are told: `check` says how many there are to be in each zone, and what became
//! of them.

use super::*;
use crate::testing::{Count, apply, scope, view};
use longshore_model::Version;
use longshore_model::auto_scaling::Size;
use longshore_model::capacity_provider::{CapacityProvider, ManagedScaling, UpdateStatus};
use longshore_model::instance::LaunchSpec;
use proptest::prelude::*;

pub(crate) struct World {
    pub view: View,
    pub now: Timestamp,
    pub ids: Count,
}

pub(crate) fn template(instance_type: &str) -> LaunchTemplate {
    let spec = LaunchSpec {
        image: Some("ami-1".to_owned()),
        instance_type: Some(instance_type.to_owned()),
        ..LaunchSpec::default()
    };
    let version = LaunchTemplateVersion {
        number: 1,
        description: None,
        created_at: Timestamp(1),
        created_by: String::new(),
        data: serde_json_null(),
        spec,
    };
    LaunchTemplate {
        scope: scope(),
        id: "lt-1".to_owned(),
        name: "web".to_owned(),
        created_at: Timestamp(1),
        created_by: String::new(),
        default_version: 1,
        latest_version: 1,
        versions: vec![version],
        tags: Tags::default(),
    }
}

/// The engine has no JSON of its own: a template's data is whatever its record decodes to by default.
fn serde_json_null<T: Default>() -> T {
    T::default()
}

impl World {
    /// A group of this many in the first two zones.
    pub fn new(desired: u32) -> Self {
        let view = view(&[]);
        let subnets = view.subnets.iter().take(2).map(|subnet| subnet.id.clone()).collect();
        let group = AutoScalingGroup {
            scope: scope(),
            name: "web".to_owned(),
            uuid: Count(5).uuid(),
            size: Size { min: 0, max: 100, desired },
            template: "lt-1".to_owned(),
            template_version: "$Latest".to_owned(),
            subnets,
            default_cooldown: 300,
            health_check_type: "EC2".to_owned(),
            health_check_grace_period: 0,
            default_instance_warmup: None,
            termination_policies: vec![TerminationPolicy::Default],
            new_instances_protected: false,
            capacity_rebalance: false,
            tags: BTreeMap::new(),
            created_at: Timestamp(1),
            deleting: false,
            launches_after: None,
        };
        let mut world = Self { view, now: Timestamp(1000), ids: Count(100) };
        world.write(|transaction| {
            transaction.create(&template("t3.micro"));
            transaction.create(&group);
        });
        world
    }

    pub fn write(&mut self, decide: impl FnOnce(&mut Transaction)) {
        let mut transaction = Transaction::at(Version(0));
        decide(&mut transaction);
        apply(&mut self.view, transaction);
    }

    pub fn group(&self) -> Option<AutoScalingGroup> {
        let group = self.view.auto_scaling_groups.get(&AutoScalingGroup::key_of(&scope(), "web"));
        group.map(|group| (**group).clone())
    }

    pub fn change(&mut self, change: impl FnOnce(&mut AutoScalingGroup)) {
        let mut group = self.group().unwrap();
        change(&mut group);
        self.write(|transaction| transaction.update(&group));
    }

    /// One step; `false` when it was none.
    fn step(&mut self) -> bool {
        let Some(group) = self.group() else { return false };
        let mut transaction = Transaction::at(Version(0));
        reconcile(&self.view, &group, self.now, &mut self.ids, &mut transaction);
        let keys: std::collections::BTreeSet<_> =
            transaction.writes().iter().map(|write| write.key()).collect();
        assert_eq!(keys.len(), transaction.writes().len(), "no record is written twice");
        let moved = !transaction.is_empty();
        apply(&mut self.view, transaction);
        self.now = self.now.plus_millis(1);
        moved
    }

    /// Every instance does what it was told.
    fn obey(&mut self) {
        let all: Vec<Arc<Instance>> = self.view.instances.iter().cloned().collect();
        for instance in all {
            let (view, now) = (self.view.clone(), self.now);
            self.write(|transaction| match instance.state {
                State::Pending => {
                    transaction.update(&Instance { state: State::Running, ..(*instance).clone() })
                }
                State::ShuttingDown => instance::terminated(&view, &instance, now, transaction),
                State::Running | State::Terminated => {}
            });
        }
    }

    pub fn settle(&mut self) {
        for _ in 0..1000 {
            let moved = self.step();
            self.obey();
            if !moved {
                return;
            }
        }
        panic!("it never rests");
    }

    pub fn alive(&self) -> Vec<Arc<Instance>> {
        let members = members(&self.view, &scope(), "web").into_iter();
        members.filter(|instance| instance.state.is_alive()).cloned().collect()
    }

    fn by_zone(&self) -> Vec<usize> {
        let mut zones: BTreeMap<String, usize> = BTreeMap::new();
        self.alive().iter().for_each(|there| *zones.entry(there.availability_zone.clone()).or_default() += 1);
        zones.into_values().collect()
    }
}

fn check(world: &mut World, desired: u32, expected: &[usize]) {
    world.change(|group| group.size.desired = desired);
    world.settle();
    assert_eq!(world.by_zone(), expected, "{desired} instances");
    assert!(!world.step(), "quiet once it is as it should be");
}

#[test]
fn a_group_has_what_is_desired_spread_over_its_zones() {
    let mut world = World::new(0);
    check(&mut world, 3, &[2, 1]);
    check(&mut world, 4, &[2, 2]);
    check(&mut world, 1, &[1]);
    check(&mut world, 6, &[3, 3]);
    check(&mut world, 0, &[]);
    let activities: Vec<_> = world.view.scaling_activities.iter().map(|activity| activity.status).collect();
    assert!(!activities.is_empty() && activities.iter().all(|status| *status == ActivityStatus::Successful));
}

#[test]
fn an_instance_that_ends_is_replaced() {
    let mut world = World::new(2);
    world.settle();
    let victim = world.alive().remove(0);
    let (view, now) = (world.view.clone(), world.now);
    let why = Reason { code: "x".to_owned(), message: "x".to_owned() };
    world.write(|transaction| drop(instance::terminate(&view, &victim, why, now, transaction)));
    world.settle();
    assert_eq!(world.by_zone(), [1, 1]);
    assert!(world.alive().iter().all(|there| there.id != victim.id));
}

#[test]
fn policies_choose_who_goes() {
    let survivor = |policy: TerminationPolicy| {
        let mut world = World::new(0);
        world.change(|group| {
            group.termination_policies = vec![policy];
            group.subnets.truncate(1);
            group.size.desired = 3;
        });
        world.settle();
        world.change(|group| group.size.desired = 1);
        world.settle();
        let (mut all, left): (Vec<_>, _) = (world.view.instances.iter().cloned().collect(), world.alive());
        all.sort_by_key(|instance| instance.launched_at);
        all.iter().position(|instance| instance.id == left[0].id)
    };
    assert_eq!(survivor(TerminationPolicy::OldestInstance), Some(2));
    assert_eq!(survivor(TerminationPolicy::NewestInstance), Some(0));
    assert_eq!(survivor(TerminationPolicy::Default), Some(2));
}

#[test]
fn what_cannot_be_launched_is_told_and_tried_again_later() {
    let mut world = World::new(1);
    world.write(|transaction| transaction.update(&template("unknown.large")));
    world.settle();
    assert!(world.alive().is_empty());
    let failed: Vec<_> =
        world.view.scaling_activities.iter().map(|activity| activity.message.clone()).collect();
    assert_eq!(failed, [Some("Invalid value 'unknown.large' for InstanceType.".to_owned())]);
    world.write(|transaction| transaction.update(&template("t3.micro")));
    world.settle();
    assert!(world.alive().is_empty(), "not before the pause is over");
    world.now = world.now.plus_millis(PAUSE);
    world.settle();
    assert_eq!(world.alive().len(), 1);
}

#[test]
fn a_group_that_is_deleted_goes_with_its_instances_and_activities() {
    let mut world = World::new(2);
    world.change(|group| group.new_instances_protected = true);
    world.settle();
    world.change(|group| {
        group.deleting = true;
        group.size.desired = 0;
    });
    world.settle();
    assert!(world.group().is_none() && world.alive().is_empty());
    assert!(world.view.scaling_activities.is_empty());
}

#[test]
fn only_so_many_activities_are_kept() {
    let mut world = World::new(0);
    for _ in 0..60 {
        world.change(|group| group.size.desired = 1);
        world.settle();
        world.change(|group| group.size.desired = 0);
        world.settle();
    }
    assert!(world.view.scaling_activities.iter().count() <= ACTIVITIES + 1);
}

pub(crate) fn capacity_provider(group: &AutoScalingGroup) -> CapacityProvider {
    CapacityProvider {
        scope: scope(),
        name: "web".to_owned(),
        group_arn: group.arn(),
        group: group.name.clone(),
        managed_scaling: ManagedScaling { enabled: true, instance_warmup: 0, ..ManagedScaling::default() },
        managed_termination_protection: false,
        managed_draining: true,
        tags: Tags::default(),
        update_status: UpdateStatus::Created,
        surplus_since: None,
    }
}

#[derive(Clone, Debug)]
enum Event {
    Desire(u32),
    Protect(usize),
    End(usize),
    Step,
    Obey,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let one = prop_oneof![
        (0..8_u32).prop_map(Event::Desire),
        (0..8_usize).prop_map(Event::Protect),
        (0..8_usize).prop_map(Event::End),
        Just(Event::Step),
        Just(Event::Step),
        Just(Event::Obey),
    ];
    prop::collection::vec(one, 1..60)
}

proptest! {
    #[test]
    fn protected_instances_are_never_ended_by_scaling_and_in_the_end_there_are_enough(events in events()) {
        let mut world = World::new(3);
        for event in events {
            let alive = world.alive();
            match event {
                Event::Desire(desired) => world.change(|group| group.size.desired = desired),
                Event::Protect(place) => if let Some(there) = alive.get(place) {
                    let group = there.group.clone().map(|of| Membership { protected: true, ..of });
                    world.write(|transaction| transaction.update(&Instance { group, ..(**there).clone() }));
                },
                Event::End(place) => if let Some(there) = alive.get(place) {
                    let (view, now) = (world.view.clone(), world.now);
                    let why = Reason { code: "x".to_owned(), message: "x".to_owned() };
                    world.write(|transaction| drop(instance::terminate(&view, there, why, now, transaction)));
                },
                Event::Step => {
                    let protected: Vec<_> = alive.iter().filter(|there| there.group.as_ref().unwrap().protected).collect();
                    let desired = world.group().unwrap().size.desired as usize;
                    world.step();
                    let after = world.alive();
                    prop_assert!(protected.iter().all(|there| after.iter().any(|left| left.id == there.id)));
                    prop_assert!(after.len() <= desired.max(alive.len()), "never more than are desired");
                }
                Event::Obey => world.obey(),
            }
            let mut numbers: Vec<u16> = members(&world.view, &scope(), "web").iter().map(|there| there.number).collect();
            numbers.sort_unstable();
            let count = numbers.len();
            numbers.dedup();
            prop_assert_eq!(numbers.len(), count, "no two have one number");
        }
        world.settle();
        let protected = world.alive().iter().filter(|there| there.group.as_ref().unwrap().protected).count();
        let desired = world.group().unwrap().size.desired as usize;
        prop_assert_eq!(world.alive().len(), desired.max(protected));
    }
}
