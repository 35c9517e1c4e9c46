//! Zones are evened out one task at a time, without a task too few at any time.

use super::*;
use longshore_model::change::{Batch, Change};

pub fn zones(world: &World) -> (usize, usize) {
    let (a, b): (Vec<_>, Vec<_>) =
        world.tasks().into_iter().partition(|task| task.availability_zone == "us-east-1a");
    (a.len(), b.len())
}

/// Six tasks, all in one zone, with the other zone's instances back.
fn lopsided() -> World {
    let mut world = World::new(6, 100, 200);
    world.change(|service| service.availability_zone_rebalancing = true);
    world.settle();
    let away = |world: &mut World, status| [1, 3].map(|id| world.drain(id, status));
    away(&mut world, container_instance::Status::Draining);
    world.settle();
    assert_eq!(zones(&world), (6, 0));
    away(&mut world, container_instance::Status::Active);
    world.said.clear();
    world
}

#[test]
fn a_zone_that_comes_back_gets_its_share() {
    let mut world = lopsided();
    world.settle();
    assert_eq!(zones(&world), (3, 3));
    let said = words(&world);
    let moved = [
        "(service web) has started 1 tasks in us-east-1b to AZ Rebalance: (task ID).",
        "(service web) has stopped 1 running tasks due to AZ rebalancing: (task ID).",
    ];
    let mut expected = vec![
        "(service web) is not AZ balanced with 6 tasks in us-east-1a and 0 tasks in us-east-1b. AZ Rebalancing in \
         progress.",
    ];
    expected.extend([moved; 3].as_flattened());
    expected.push("(service web) is AZ balanced with 3 tasks in us-east-1a and 3 tasks in us-east-1b.");
    let spoken: Vec<&str> = said
        .iter()
        .map(String::as_str)
        .filter(|said| !said.ends_with("has reached a steady state."))
        .collect();
    assert_eq!(spoken, expected);
    assert!(!world.look());
}

#[test]
fn nothing_is_moved_where_that_is_not_wanted_or_not_possible() {
    let mut world = lopsided();
    world.change(|service| service.availability_zone_rebalancing = false);
    world.settle();
    assert_eq!(zones(&world), (6, 0));
    world.change(|service| service.availability_zone_rebalancing = true);
    [1, 3].iter().for_each(|id| world.put(&member(*id, 100)));
    world.settle();
    assert_eq!((zones(&world), world.said.len()), ((6, 0), 0), "the other zone has no room");
    world.put(&member(1, 4096));
    world.settle();
    assert_eq!(zones(&world), (3, 3));
}

#[test]
fn a_move_that_fails_leaves_what_there_was() {
    let mut world = lopsided();
    for _ in 0..3 {
        world.look();
        (0..2).for_each(|_| {
            let new = world.tasks().into_iter().filter(|task| task.availability_zone == "us-east-1b");
            new.collect::<Vec<_>>().iter().for_each(|task| world.advance(task, false));
        });
        assert_eq!(zones(&world).0, 6);
        world.now = world.now.plus_millis(1_000_000);
    }
    world.settle();
    assert_eq!(zones(&world), (3, 3));
}

#[test]
fn services_are_looked_at_when_a_zone_is_new() {
    let mut world = lopsided();
    [1, 3].iter().for_each(|id| world.drain(*id, container_instance::Status::Draining));
    let mut agenda = Agenda::of_everything(&world.view);
    while agenda.pop().is_some() {}
    let mut change = |world: &mut World, id: u128, status| {
        world.drain(id, status);
        let key = ContainerInstance::key_of(ContainerInstanceId(id));
        let value = longshore_model::record::encode(&**world.view.container_instances.get(&key).unwrap());
        let changes = vec![Change { key, value: Some(value.into()) }];
        agenda.take(&world.view, &Batch { version: Version(1), changes });
        agenda.pop().is_some()
    };
    assert!(change(&mut world, 1, container_instance::Status::Active), "the first instance of its zone");
    assert!(!change(&mut world, 3, container_instance::Status::Active), "it was there already");
}
