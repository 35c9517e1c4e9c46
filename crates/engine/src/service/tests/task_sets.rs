//! Task sets: what a user's controller says of each is what there is, and nothing of one is touched for another.

use super::*;
use longshore_model::service::{Controller, TaskSet, TaskSetStatus};

fn world(desired: u32, scales: &[u32]) -> World {
    let mut world = World::new(desired, 100, 200);
    let definitions: Vec<_> = (3..).zip(scales).map(|(revision, _)| definition(revision, false)).collect();
    definitions.iter().for_each(|definition| world.put(definition));
    let (now, mut ids) = (world.now, Count(7));
    world.change(|service| {
        service.controller = Controller::External;
        service.deployments.clear();
        let sets = definitions.iter().zip(scales).map(|(definition, scale)| TaskSet {
            deployment: deployment(definition, None, None, Vec::new(), Vec::new(), now, &mut ids),
            launch_type: LaunchType::Ec2,
            status: TaskSetStatus::Active,
            scale: *scale,
            stable: false,
            stable_at: now,
            external_id: None,
            client_token: None,
            tags: Tags::default(),
        });
        service.task_sets = sets.collect();
    });
    world
}

fn of(world: &World, revision: u32) -> usize {
    world.revisions().iter().filter(|r| **r == revision).count()
}

#[test]
fn each_has_its_share_rounded_up_and_its_own_steadiness() {
    let mut world = world(3, &[100_000, 33_334, 0]);
    world.settle();
    assert_eq!((of(&world, 3), of(&world, 4), of(&world, 5)), (3, 2, 0));
    assert!(world.service().task_sets.iter().all(|set| set.stable));
    assert!(!world.service().steady, "a service without a PRIMARY task set is not steady");
    let kept: BTreeSet<_> = world.tasks().iter().filter(|t| t.revision == 3).map(|t| t.id).collect();
    world.change(|service| {
        service.task_sets[0].status = TaskSetStatus::Primary;
        service.task_sets[1].scale = 0;
        service.task_sets[2].scale = 50_000;
    });
    world.look();
    assert_eq!(
        world.service().task_sets.iter().map(|set| set.stable).collect::<Vec<_>>(),
        [true, false, false]
    );
    world.settle();
    assert_eq!((of(&world, 3), of(&world, 4), of(&world, 5)), (3, 0, 2));
    let now: BTreeSet<_> = world.tasks().iter().filter(|t| t.revision == 3).map(|t| t.id).collect();
    assert_eq!((now, world.service().steady), (kept, true), "the others are left alone");
    assert!(!world.look());
}

#[test]
fn one_that_is_deleted_is_forgotten_with_its_last_task() {
    let mut world = world(2, &[100_000, 50_000]);
    world.settle();
    world.change(|service| service.task_sets[0].status = TaskSetStatus::Draining);
    world.look();
    assert_eq!(world.service().task_sets.len(), 2);
    world.settle();
    let left: Vec<u32> = world.service().task_sets.iter().map(|set| set.deployment.revision).collect();
    assert_eq!((left, world.revisions()), (vec![4], vec![4]));
}

#[test]
fn they_follow_the_desired_count_and_go_with_the_service() {
    let mut world = world(2, &[100_000, 100_000]);
    world.settle();
    world.change(|service| service.desired_count = 5);
    world.settle();
    assert_eq!((of(&world, 3), of(&world, 4)), (5, 5));
    world.change(|service| {
        service.status = Status::Draining;
        service.desired_count = 0;
    });
    world.settle();
    let service = world.service();
    assert_eq!((service.status, service.task_sets.len(), world.tasks().len()), (Status::Inactive, 0, 0));
}
