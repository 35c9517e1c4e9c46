mod alarms;
mod rebalance;
mod stages;
mod targets;
mod task_sets;
mod world;

use super::seen::Standing;
use super::*;
use crate::lifecycle;
use crate::testing::{self, Count, apply, instance, scope};
use longshore_model::Version;
use longshore_model::container_instance::{self, Capacity, ContainerInstance, Membership, ZONE};
use longshore_model::service::{
    CircuitBreaker, DeploymentConfiguration, ServiceDeploymentStatus, Steps, Strategy, TaskProtection,
};
use longshore_model::task::{ContainerStatus, DesiredStatus, Health, LastStatus, LaunchType, Stop, StopCode};
use longshore_model::task_definition::{HealthCheck, NetworkMode, TaskDefinition};
use std::collections::BTreeSet;
use world::{World, definition, member, words};

#[test]
fn a_service_comes_up_and_is_left_alone() {
    let mut world = World::new(3, 100, 200);
    world.settle();
    assert_eq!(world.tasks().len(), 3);
    assert_eq!(world.service().primary().unwrap().rollout_state, RolloutState::Completed);
    let said = words(&world);
    let expected = [
        "(service web) has started 3 tasks: (task ID) (task ID) (task ID).",
        "(service web) (deployment ecs-svc/ID) deployment completed.",
        "(service web) has reached a steady state.",
    ];
    assert_eq!(said, expected);
    let zones: BTreeSet<_> = world.tasks().iter().map(|task| task.availability_zone.clone()).collect();
    assert_eq!(zones.len(), 2);
    assert!(!world.look());
}

#[test]
fn each_pair_of_bounds_ends_with_the_new_revision() {
    let pairs = [(100, 200), (50, 100), (0, 100), (75, 150), (100, 150), (50, 200)];
    for (minimum, maximum) in pairs {
        for desired in [1, 2, 3, 4, 10] {
            if maximum * desired / 100 == desired && minimum * desired > 100 * (desired - 1) {
                continue;
            }
            let mut world = World::new(desired, minimum, maximum);
            world.settle();
            world.deploy(3, false);
            world.settle();
            assert_eq!(world.revisions(), vec![3; desired as usize], "{desired} at {minimum}/{maximum}");
            assert_eq!(world.service().deployments.len(), 1);
        }
    }
}

#[test]
fn a_deployment_without_room_says_so_and_stops_nothing() {
    let mut world = World::new(2, 100, 100);
    world.settle();
    world.deploy(3, false);
    world.settle();
    assert_eq!(world.revisions(), [2, 2]);
    let last = world.said.last().unwrap();
    assert!(last.contains("was unable to stop or start tasks during a deployment"), "{last}");
    let count = world.said.len();
    world.now = world.now.plus_millis(obstacle::REPEATED_AFTER);
    assert!(world.look());
    assert_eq!(world.said.len(), count + 1, "it is said again after six hours, and not before");
}

#[test]
fn a_task_that_ends_is_replaced() {
    let mut world = World::new(2, 100, 200);
    world.settle();
    let task = world.tasks()[0].clone();
    world.advance(&task, false);
    world.look();
    assert_eq!(world.tasks().iter().filter(|t| t.desired_status == DesiredStatus::Running).count(), 2);
    world.settle();
    assert_eq!(world.tasks().len(), 2);
}

#[test]
fn an_unhealthy_task_stays_until_its_replacement_is_healthy() {
    let mut world = World::new(2, 100, 200);
    world.deploy(3, true);
    world.settle();
    let mut sick = world.tasks()[0].clone();
    sick.containers[0].health = Health::Unhealthy;
    world.put(&sick);
    world.look();
    assert_eq!(world.tasks().len(), 3);
    assert!(world.tasks().iter().all(|task| task.desired_status == DesiredStatus::Running));
    world.settle();
    assert_eq!(world.tasks().len(), 2);
    let stopped = world.view.tasks.iter().find(|task| task.id == sick.id).unwrap();
    assert_eq!(stopped.stop.as_ref().unwrap().reason, FAILED_HEALTH_CHECKS);
    assert!(
        words(&world).contains(&"(service web) (task ID) failed container health checks.".to_owned()),
        "{:?}",
        words(&world)
    );
}

#[test]
fn an_instance_that_drains_is_emptied_within_the_bounds() {
    let mut world = World::new(4, 100, 200);
    world.settle();
    world.drain(1, container_instance::Status::Draining);
    world.settle();
    let on: BTreeSet<_> = world.tasks().iter().map(|task| task.container_instance.0).collect();
    assert_eq!((world.tasks().len(), on.contains(&1)), (4, false));
}

#[test]
fn scaling_in_keeps_zones_even_and_protected_tasks() {
    let mut world = World::new(8, 100, 200);
    world.settle();
    let kept = world.tasks().into_iter().filter(|task| task.availability_zone == "us-east-1a").take(3);
    for task in kept.collect::<Vec<_>>() {
        let until = world.now.plus_millis(30 * 60_000);
        world.put(&TaskProtection { task: task.reference(), until });
    }
    world.change(|service| service.desired_count = 4);
    world.look();
    let zones = |world: &World| {
        let left = world.tasks().into_iter().filter(|task| task.desired_status == DesiredStatus::Running);
        let (a, b): (Vec<_>, Vec<_>) = left.partition(|task| task.availability_zone == "us-east-1a");
        (a.len(), b.len())
    };
    assert_eq!(zones(&world), (3, 1));
    world.settle();
    world.change(|service| service.desired_count = 0);
    world.settle();
    assert_eq!(zones(&world), (3, 0));
    world.now = world.now.plus_millis(30 * 60_000);
    world.settle();
    assert!(world.tasks().is_empty(), "protection has run out");
}

#[test]
fn failing_starts_are_slowed_down_and_said() {
    let mut world = World::new(1, 100, 200);
    for _ in 0..3 {
        world.now = world.now.plus_millis(60_000);
        world.look();
        (0..2).for_each(|_| world.tasks().iter().for_each(|task| world.advance(task, false)));
    }
    world.look();
    let last = world.said.last().unwrap();
    assert!(last.ends_with("is unable to consistently start tasks successfully."), "{last}");
    let started = |world: &World| world.said.iter().filter(|said| said.contains("has started")).count();
    let before = started(&world);
    world.look();
    assert_eq!(started(&world), before, "nothing is started during the pause");
    world.deploy(3, false);
    world.look();
    assert_eq!(started(&world), before + 1, "another deployment is not slowed down");
}

fn fail_until(world: &mut World, done: impl Fn(&World) -> bool) {
    for _ in 0..200 {
        world.look();
        let primary = world.service().primary().unwrap().id.clone();
        for task in world.tasks() {
            let good = task.started_by.as_ref() != Some(&primary) || task.revision == 2;
            world.advance(&task, good);
        }
        world.now = world.now.plus_millis(600_000);
        if done(world) {
            return;
        }
    }
    panic!("it does not end: {:?}", world.said);
}

#[test]
fn a_task_that_always_ends_at_once_is_replaced_with_a_breath_between() {
    let mut world = World::new(1, 100, 200);
    let began = world.now;
    for _ in 0..20 {
        while !world.look() || world.tasks().is_empty() {
            world.now = world.now.plus_millis(100);
        }
        let up = world.tasks()[0].clone();
        world.advance(&up, true);
        for _ in 0..2 {
            let task = world.tasks()[0].clone();
            world.advance(&task, false);
        }
    }
    let took = world.now.since(began);
    assert!((60_000..200_000).contains(&took), "twenty rounds take {took} ms");
    assert!(!world.said.iter().any(|said| said.contains("consistently")), "it is no failed start");
}

#[test]
fn the_circuit_breaker_gives_up_and_goes_back() {
    let breaker = |rollback| Some(CircuitBreaker { enable: true, rollback });
    for rollback in [false, true] {
        let mut world = World::new(2, 100, 200);
        world.change(|service| service.configuration.circuit_breaker = breaker(rollback));
        world.settle();
        let first = world.service().primary().unwrap().id.clone();
        world.deploy(3, false);
        fail_until(&mut world, |world| {
            world.said.iter().any(|said| said.contains("deployment failed: tasks failed to start."))
        });
        if rollback {
            world.settle();
            assert_eq!(world.revisions(), [2, 2]);
            assert!(
                world
                    .said
                    .iter()
                    .any(|said| *said == format!("(service web) rolling back to deployment {first}."))
            );
            assert_eq!(world.service().primary().unwrap().id, first);
            assert_eq!(world.service().primary().unwrap().rollout_state, RolloutState::Completed);
            assert_eq!(
                world.ended(),
                [ServiceDeploymentStatus::Successful, ServiceDeploymentStatus::RollbackSuccessful]
            );
        } else {
            world.settle();
            assert_eq!(world.service().primary().unwrap().rollout_state, RolloutState::Failed);
            assert_eq!(world.revisions(), [2, 2], "what ran before goes on");
            assert_eq!(
                world.ended(),
                [ServiceDeploymentStatus::Successful, ServiceDeploymentStatus::Stopped]
            );
        }
    }
}

#[test]
fn a_user_stops_a_deployment() {
    for (how, revision) in [(Stopped::RolledBack, 2), (Stopped::Aborted, 2)] {
        let mut world = World::new(2, 100, 200);
        assert!(
            stop_deployment(&world.service(), Stopped::RolledBack, world.now).is_none(),
            "nothing was before"
        );
        world.settle();
        assert!(stop_deployment(&world.service(), how, world.now).is_none(), "nothing is under way");
        world.deploy(3, false);
        let service = world.service();
        let plan = stop_deployment(&service, how, world.now).unwrap();
        let mut transaction = Transaction::at(Version(0));
        write(&world.view, &service, &plan, &mut transaction, world.now, &mut world.ids);
        apply(&mut world.view, transaction);
        let reason = world.service().primary().unwrap().rollout_state_reason.clone();
        assert!(!reason.contains("circuit breaker") && reason.contains("by a user"), "{reason}");
        world.settle();
        assert_eq!(world.revisions(), [revision; 2]);
        let last = *world.ended().last().unwrap();
        let expected = match how {
            Stopped::RolledBack => ServiceDeploymentStatus::RollbackSuccessful,
            Stopped::Aborted => ServiceDeploymentStatus::Stopped,
        };
        assert_eq!(last, expected);
    }
}

#[test]
fn a_deployment_that_is_replaced_by_another_is_stopped() {
    let mut world = World::new(2, 100, 200);
    world.look();
    world.now = world.now.plus_millis(1);
    world.deploy(3, false);
    world.settle();
    assert_eq!(world.ended(), [ServiceDeploymentStatus::Stopped, ServiceDeploymentStatus::Successful]);
}

#[test]
fn a_service_that_fits_nowhere_says_which_instance_came_closest() {
    let mut world = World::new(1, 100, 200);
    for id in 1..=4 {
        world.put(&member(id, 100));
    }
    world.look();
    assert!(world.said[0].contains("has insufficient CPU units available."), "{:?}", world.said);
    assert!(!world.look(), "it is said once");
    world.put(&member(4, 4096));
    world.settle();
    assert_eq!(world.tasks().len(), 1);
    assert_eq!(world.service().obstacle, None);
}

#[test]
fn a_daemon_has_one_task_on_each_instance() {
    let mut world = World::new(0, 0, 100);
    world.change(|service| service.scheduling_strategy = SchedulingStrategy::Daemon);
    world.settle();
    let on = |world: &World| world.tasks().iter().map(|t| t.container_instance.0).collect::<BTreeSet<_>>();
    assert_eq!((on(&world), world.tasks().len()), ([1, 2, 3, 4].into(), 4));
    world.put(&member(5, 4096));
    world.drain(2, container_instance::Status::Draining);
    world.settle();
    assert_eq!((on(&world), world.tasks().len()), ([1, 3, 4, 5].into(), 4));
    world.deploy(3, false);
    world.settle();
    assert_eq!((on(&world), world.revisions()), ([1, 3, 4, 5].into(), vec![3; 4]));
}

#[test]
fn a_deleted_service_ends_with_its_tasks() {
    let mut world = World::new(3, 100, 200);
    world.settle();
    world.change(|service| {
        service.status = Status::Draining;
        service.desired_count = 0;
    });
    world.settle();
    assert_eq!(world.service().status, Status::Inactive);
    assert!(world.tasks().is_empty());
}

#[test]
fn events_are_kept_to_a_hundred() {
    let mut world = World::new(1, 100, 200);
    let mut service = world.service();
    for number in 0..130 {
        let mut transaction = Transaction::at(Version(0));
        say(&mut service, &format!("event {number}"), &mut transaction, world.now, &mut world.ids);
        apply(&mut world.view, transaction);
    }
    let kept: Vec<_> = world.view.events_of(&service).map(|event| event.message.clone()).collect();
    assert_eq!((kept.len(), kept[0].as_str(), kept[99].as_str()), (100, "event 30", "event 129"));
}

/// Whatever happens in whatever order, the bounds hold at each look, and once nothing more happens the service is as it is
/// wanted and is left alone.
#[test]
fn random_histories_keep_the_bounds_and_come_to_rest() {
    for seed in 1..=300_u64 {
        let mut random = Random(seed);
        let pairs = [(100, 200), (50, 200), (50, 100), (0, 100), (100, 150), (34, 134)];
        let (minimum, maximum) = pairs[random.below(pairs.len())];
        let mut world = World::new(u32::try_from(random.below(7)).unwrap(), minimum, maximum);
        let steps = Steps { share: 400, pause: 1 };
        let strategies = [
            Strategy::Rolling,
            Strategy::Rolling,
            Strategy::BlueGreen,
            Strategy::Linear(steps),
            Strategy::Canary(steps),
        ];
        world.change(|service| {
            service.configuration.strategy = strategies[random.below(strategies.len())];
            service.configuration.bake_time = Some(u32::try_from(random.below(3)).unwrap());
            service.availability_zone_rebalancing = random.below(2) == 0;
        });
        let mut revision = 2;
        for _ in 0..120 {
            match random.below(12) {
                0..4 => drop(world.look()),
                4..9 => {
                    let tasks = world.tasks();
                    if !tasks.is_empty() {
                        let good = random.below(6) > 0;
                        world.advance(&tasks[random.below(tasks.len())], good);
                    }
                }
                9 => world.now = world.now.plus_millis(1000 * i64::try_from(random.below(100)).unwrap()),
                10 => match random.below(3) {
                    0 => {
                        revision += 1;
                        world.deploy(revision, random.below(2) == 0);
                    }
                    1 => {
                        let desired = u32::try_from(random.below(9)).unwrap();
                        world.change(|service| service.desired_count = desired);
                    }
                    _ => {
                        let status =
                            [container_instance::Status::Active, container_instance::Status::Draining];
                        world.drain(1 + random.below(4) as u128, status[random.below(2)]);
                    }
                },
                _ => {
                    let tasks = world.tasks();
                    if let Some(task) = tasks.first().filter(|task| task.last_status == LastStatus::Running) {
                        let why = Stop { code: StopCode::UserInitiated, reason: "enough".to_owned() };
                        lifecycle::stop(task, why, world.now).iter().for_each(|next| world.put(next));
                    }
                }
            }
        }
        (1..=4).for_each(|id| world.drain(id, container_instance::Status::Active));
        world.change(|service| {
            service.configuration.minimum_healthy_percent = 50;
            service.configuration.maximum_percent = 200;
        });
        world.settle();
        let service = world.service();
        assert_eq!(world.tasks().len(), service.desired_count as usize, "seed {seed}");
        assert!(world.revisions().iter().all(|r| *r == service.primary().unwrap().revision), "seed {seed}");
        assert_eq!((service.deployments.len(), service.steady), (1, true), "seed {seed}");
        let zones = rebalance::zones(&world);
        let even = !service.availability_zone_rebalancing || zones.0.abs_diff(zones.1) <= 1;
        assert!(even && !world.look(), "seed {seed}: {zones:?}");
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (end as u64)).unwrap()
    }
}
