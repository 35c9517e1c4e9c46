//! A group of t3.micro (2 vCPU, 1 GiB) and the tasks that its provider is given: `check` says how many instances are wanted.

use super::*;
use crate::auto_scaling::tests::{World, capacity_provider};
use crate::lifecycle;
use crate::placement::{self, Placement, Request};
use crate::testing::{Count, instance as container_instance_of, request, scope};
use longshore_model::Record;
use longshore_model::capacity_provider::ManagedScaling;
use longshore_model::cluster::Cluster;
use longshore_model::container_instance::{self, Capacity, ContainerInstance};
use longshore_model::task::{LaunchType, Stop, StopCode};

const AFTER: i64 = 1000;

fn world(scaling: ManagedScaling) -> World {
    let mut world = World::new(0);
    let provider =
        CapacityProvider { managed_scaling: scaling, ..capacity_provider(&world.group().unwrap()) };
    let cluster = world.view.cluster(&scope(), "default").unwrap();
    let cluster = Cluster { capacity_providers: vec!["web".to_owned()], ..(**cluster).clone() };
    world.write(|transaction| {
        transaction.create(&provider);
        transaction.update(&cluster);
    });
    world
}

fn enabled() -> ManagedScaling {
    ManagedScaling { enabled: true, instance_warmup: 0, ..ManagedScaling::default() }
}

fn provider(world: &World) -> CapacityProvider {
    (**world.view.capacity_providers.get(&CapacityProvider::key_of(&scope(), "web")).unwrap()).clone()
}

/// Runs tasks of 512 MiB, which two of a t3.micro take.
fn run(world: &mut World, count: u32) -> Placement {
    let whole = request(&world.view, count);
    let request = Request {
        launch_type: LaunchType::Ec2,
        capacity_providers: vec!["web".to_owned(); count as usize],
        ..whole
    };
    let placement = placement::place(&world.view, &request, world.now, &mut world.ids);
    let view = world.view.clone();
    world.write(|transaction| placement::write(&view, &placement, transaction));
    placement
}

/// Lets the group follow, the instances register and the tasks settle, until nothing moves.
fn settle(world: &mut World) {
    for _ in 0..50 {
        let (view, now, provider) = (world.view.clone(), world.now, provider(world));
        world.write(|transaction| reconcile(&view, &provider, AFTER, now, transaction));
        world.settle();
        register(world);
        for task in placement::waiting(&world.view.clone()) {
            let view = world.view.clone();
            let mut ids = Count(world.ids.0);
            world.write(|transaction| {
                placement::settle(&view, task, &mut ids, transaction);
            });
            world.ids = ids;
        }
        world.now = world.now.plus_millis(10);
    }
}

fn register(world: &mut World) {
    for there in world.alive() {
        if world.view.container_instance(there.container_instance).is_some() {
            continue;
        }
        let member = container_instance::Membership {
            scope: scope(),
            cluster: "default".to_owned(),
            launch_type: LaunchType::Ec2,
            ec2_instance_id: Some(there.id.clone()),
            launched: true,
            capacity_provider: instance::provider_of(&world.view, &there, "default"),
            status: container_instance::Status::Active,
        };
        let zone = (container_instance::ZONE.to_owned(), there.availability_zone.clone());
        let made = ContainerInstance {
            capacity: Capacity::Cluster(member),
            attributes: [zone].into(),
            ..container_instance_of(there.container_instance.0, 2048, 1024)
        };
        world.write(|transaction| transaction.create(&made));
    }
}

fn stop(world: &mut World, count: usize) {
    let tasks: Vec<_> =
        world.view.tasks.iter().filter(|task| task.holds_resources()).take(count).cloned().collect();
    for task in tasks {
        let why = Stop { code: StopCode::UserInitiated, reason: String::new() };
        let ended = lifecycle::lose(&task, why, world.now).unwrap();
        let view = world.view.clone();
        world.write(|transaction| drop(lifecycle::write(&view, &ended, transaction)));
    }
}

fn check(world: &mut World, expected: usize) {
    settle(world);
    assert_eq!(world.alive().len(), expected);
}

#[test]
fn tasks_wait_until_there_are_instances_for_them() {
    let mut world = world(enabled());
    let placed = run(&mut world, 5);
    assert!(placed.failures.is_empty());
    assert!(placed.tasks.iter().all(|(task, interface)| task.waiting.is_some() && interface.is_none()));
    assert_eq!(reservation(&world.view, &provider(&world)), Reservation { needed: 3, present: 0 });
    check(&mut world, 3);
    assert!(placement::waiting(&world.view).is_empty());
    assert_eq!(reservation(&world.view, &provider(&world)), Reservation { needed: 3, present: 3 });
    for there in world.alive() {
        assert!(world.view.used_on(there.container_instance).memory <= 1024);
    }
    assert!(run(&mut world, 1).tasks[0].0.waiting.is_none(), "there is room on the third");
}

#[test]
fn a_group_shrinks_when_it_was_too_large_for_long_enough() {
    let mut world = world(enabled());
    run(&mut world, 6);
    check(&mut world, 3);
    stop(&mut world, 6);
    check(&mut world, 3);
    world.now = world.now.plus_millis(AFTER);
    check(&mut world, 0);
}

#[test]
fn target_capacity_leaves_room_and_steps_bound_the_change() {
    let mut half = world(ManagedScaling { target_capacity: 50, ..enabled() });
    run(&mut half, 4);
    // Four for the two that are needed; spread over them, the tasks use all four, and as many are to be free.
    check(&mut half, 8);
    let mut leaps = world(ManagedScaling { minimum_step: 3, ..enabled() });
    run(&mut leaps, 1);
    check(&mut leaps, 3);
    let size = Size { min: 1, max: 10, desired: 4 };
    let of = |needed, minimum_step, maximum_step| {
        let scaling = ManagedScaling { minimum_step, maximum_step, ..enabled() };
        let provider = CapacityProvider { managed_scaling: scaling, ..provider(&half) };
        wanted(&provider, size, Reservation { needed, present: 4 })
    };
    assert_eq!(of(5, 1, 2), 5);
    assert_eq!(of(9, 1, 2), 6);
    assert_eq!(of(50, 1, 100), 10);
    assert_eq!(of(0, 1, 2), 2);
    assert_eq!(of(0, 1, 100), 1);
    assert_eq!(of(4, 3, 9), 4);
}

#[test]
fn without_managed_scaling_tasks_do_not_wait() {
    let mut world = world(ManagedScaling::default());
    let placed = run(&mut world, 2);
    assert!(placed.tasks.is_empty() && !placed.failures.is_empty());
}

#[test]
fn tasks_that_no_instance_takes_launch_none() {
    let mut world = world(enabled());
    let request = Request {
        launch_type: LaunchType::Ec2,
        capacity_providers: vec!["web".to_owned()],
        size: Resources { cpu: 4096, memory: 512 },
        ..request(&world.view, 1)
    };
    let placement = placement::place(&world.view, &request, world.now, &mut world.ids);
    let view = world.view.clone();
    world.write(|transaction| placement::write(&view, &placement, transaction));
    check(&mut world, 0);
    assert_eq!(placement::waiting(&world.view).len(), 1);
}

#[test]
fn distinct_tasks_need_an_instance_each() {
    let mut world = world(enabled());
    let request = Request {
        launch_type: LaunchType::Ec2,
        capacity_providers: vec!["web".to_owned(); 3],
        constraints: vec![PlacementConstraint::DistinctInstance],
        ..request(&world.view, 3)
    };
    let placement = placement::place(&world.view, &request, world.now, &mut world.ids);
    let view = world.view.clone();
    world.write(|transaction| placement::write(&view, &placement, transaction));
    check(&mut world, 3);
}

#[test]
fn protection_follows_the_tasks() {
    let mut world = world(enabled());
    world.change(|group| group.new_instances_protected = true);
    let protecting = CapacityProvider { managed_termination_protection: true, ..provider(&world) };
    world.write(|transaction| transaction.update(&protecting));
    run(&mut world, 4);
    check(&mut world, 2);
    let used: Vec<_> = world.alive().iter().map(|there| there.group.as_ref().unwrap().protected).collect();
    assert_eq!(used, [true, true]);
    let kept = world.view.tasks.iter().next_back().unwrap().container_instance;
    let others: Vec<_> =
        world.view.tasks.iter().filter(|task| task.container_instance != kept).cloned().collect();
    for task in others {
        let why = Stop { code: StopCode::UserInitiated, reason: String::new() };
        let ended = lifecycle::lose(&task, why, world.now).unwrap();
        let view = world.view.clone();
        world.write(|transaction| drop(lifecycle::write(&view, &ended, transaction)));
    }
    settle(&mut world);
    world.now = world.now.plus_millis(AFTER);
    check(&mut world, 1);
    assert_eq!(world.alive()[0].container_instance, kept);
}

#[test]
fn a_task_that_waits_ends_when_it_is_told_to() {
    let mut world = world(ManagedScaling { maximum_step: 1, ..enabled() });
    let (task, _) = run(&mut world, 1).tasks.remove(0);
    let why = Stop { code: StopCode::UserInitiated, reason: "no more".to_owned() };
    let ended = lifecycle::stop(&task, why, world.now).unwrap();
    assert_eq!(ended.last_status, longshore_model::task::LastStatus::Stopped);
    let view = world.view.clone();
    world.write(|transaction| drop(lifecycle::write(&view, &ended, transaction)));
    assert!(placement::waiting(&world.view).is_empty());
    assert!(world.view.tasks.get(&ended.key()).is_some());
}

#[test]
fn a_task_says_what_it_waits_for() {
    let mut world = world(enabled());
    let (task, _) = run(&mut world, 1).tasks.remove(0);
    let said = |world: &World| {
        let causes = crate::why::explain(&world.view, &task.arn(), "default", world.now).unwrap();
        causes.last().cloned().unwrap_or_default()
    };
    let waits = said(&world);
    assert!(
        waits.ends_with("for the instances that managed scaling launches in its Auto Scaling group web"),
        "{waits}"
    );
    world.change(|group| group.size.max = 0);
    let waits = said(&world);
    assert!(waits.ends_with("for room: its Auto Scaling group web has its largest size, 0"), "{waits}");
    world.change(|group| group.deleting = true);
    assert!(said(&world).ends_with("its Auto Scaling group is gone"));
}
