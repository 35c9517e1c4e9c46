//! Placement decisions as data, and the properties that no plan may break.

use super::*;
use crate::testing::{Count, apply, instance, request, view};
use longshore_model::container_instance::CpuArchitecture;
use longshore_model::{Record, Version};
use proptest::prelude::*;

fn check(instances: &[ContainerInstance], count: u32, expected: &[&str]) {
    let view = view(instances);
    let placement = place(&view, &request(&view, count), Timestamp(1), &mut Count(0));
    let mut shown: Vec<String> = Vec::new();
    for (task, _) in &placement.tasks {
        shown.push(format!("on {}", task.container_instance.0));
    }
    shown.extend(placement.failures.iter().map(|failure| failure.reason().to_owned()));
    assert_eq!(shown, expected);
}

#[test]
fn tasks_spread_over_instances() {
    check(&[instance(1, 1024, 4096), instance(2, 1024, 4096)], 3, &["on 1", "on 2", "on 1"]);
}

#[test]
fn what_finds_no_room_is_refused_with_the_reason() {
    check(&[instance(1, 512, 4096)], 3, &["on 1", "on 1", "RESOURCE:CPU"]);
    check(&[instance(1, 4096, 512)], 2, &["on 1", "RESOURCE:MEMORY"]);
    check(&[], 1, &["AGENT"]);
    let mut away = instance(1, 4096, 4096);
    away.agent_connected = false;
    check(&[away], 1, &["AGENT"]);
}

#[test]
fn a_definition_for_another_architecture_finds_no_instance() {
    let view = view(&[instance(1, 4096, 4096)]);
    let mut wanted = request(&view, 1);
    let mut definition = (*wanted.definition).clone();
    definition.cpu_architecture = Some(CpuArchitecture::Arm64);
    wanted.definition = Arc::new(definition);
    let placement = place(&view, &wanted, Timestamp(1), &mut Count(0));
    assert_eq!(placement.failures, [Failure::Attribute]);
}

#[test]
fn subnets_fill_evenly_and_then_run_out() {
    let mut view = view(&[instance(1, 1 << 30, 1 << 30)]);
    let small: Vec<Arc<Subnet>> = view
        .subnets
        .iter()
        .take(2)
        .map(|subnet| {
            Arc::new(Subnet {
                cidr: format!("{}/29", subnet.cidr.base()).parse().unwrap(),
                ..(**subnet).clone()
            })
        })
        .collect();
    let mut wanted = request(&view, 7);
    wanted.network = Some(Network { subnets: small, security_groups: Vec::new() });
    let placement = place(&view, &wanted, Timestamp(1), &mut Count(0));
    assert_eq!(placement.tasks.len(), 6);
    assert_eq!(placement.failures, [Failure::NetworkInterface]);
    let mut transaction = Transaction::at(Version(0));
    write(&view, &placement, &mut transaction);
    apply(&mut view, transaction);
    let again = place(&view, &wanted, Timestamp(1), &mut Count(1 << 20));
    assert_eq!(again.tasks.len(), 0);
}

/// An instance of the cluster that the test requests name.
fn member(id: u128, status: Status) -> ContainerInstance {
    let membership = longshore_model::container_instance::Membership {
        scope: crate::testing::scope(),
        cluster: "default".to_owned(),
        launch_type: LaunchType::Ec2,
        ec2_instance_id: None,
        status,
    };
    ContainerInstance { capacity: Capacity::Cluster(membership), ..instance(id, 1024, 4096) }
}

/// A bridge definition with one port mapping, on instances.
fn on_instances(view: &View, count: u32, host_port: u16) -> Request {
    let mut wanted = request(view, count);
    let mut definition = (*wanted.definition).clone();
    definition.network_mode = Some(NetworkMode::Bridge);
    if let Some(container) = definition.containers.first_mut() {
        container.port_mappings.push(longshore_model::task_definition::PortMapping {
            container_port: 80,
            host_port: Some(host_port),
            protocol: None,
            name: None,
        });
    }
    wanted.definition = Arc::new(definition);
    wanted.launch_type = LaunchType::Ec2;
    wanted.network = None;
    wanted
}

fn shown(placement: &Placement) -> Vec<String> {
    let task = |task: &Task| {
        let port = task.host_ports.first().map_or(0, |port| port.host_port);
        format!("on {} at {port}", task.container_instance.0)
    };
    let placed = placement.tasks.iter().map(|(placed, _)| task(placed));
    placed.chain(placement.failures.iter().map(|failure| failure.reason().to_owned())).collect()
}

#[test]
fn instances_are_their_clusters_own() {
    let fargate = instance(1, 4096, 8192);
    let view = view(&[fargate, member(2, Status::Active), member(3, Status::Draining)]);
    let placed = place(&view, &on_instances(&view, 2, 0), Timestamp(1), &mut Count(0));
    assert_eq!(shown(&placed), ["on 2 at 49153", "on 2 at 49154"]);
    let placed = place(&view, &request(&view, 1), Timestamp(1), &mut Count(0));
    assert_eq!(shown(&placed), ["on 1 at 0"]);
}

#[test]
fn a_host_port_is_one_tasks_own() {
    let mut view = view(&[member(2, Status::Active), member(3, Status::Active)]);
    let placed = place(&view, &on_instances(&view, 3, 8080), Timestamp(1), &mut Count(0));
    assert_eq!(shown(&placed), ["on 2 at 8080", "on 3 at 8080", "RESOURCE:PORTS"]);
    let mut transaction = Transaction::at(Version(0));
    write(&view, &placed, &mut transaction);
    apply(&mut view, transaction);
    let again = place(&view, &on_instances(&view, 1, 8080), Timestamp(1), &mut Count(1 << 20));
    assert_eq!(shown(&again), ["RESOURCE:PORTS"]);
}

#[test]
fn a_named_instance_is_the_only_choice() {
    let mut away = member(4, Status::Active);
    away.agent_connected = false;
    let instances =
        [member(2, Status::Active), member(3, Status::Draining), away, member(5, Status::Inactive)];
    let view = view(&instances);
    let mut wanted = on_instances(&view, 5, 0);
    wanted.instances = Some([3, 2, 4, 5, 6].map(ContainerInstanceId).to_vec());
    let placed = place(&view, &wanted, Timestamp(1), &mut Count(0));
    assert_eq!(shown(&placed), ["on 3 at 49153", "on 2 at 49153", "AGENT", "INACTIVE", "MISSING"]);
}

proptest! {
    #[test]
    fn a_plan_never_exceeds_what_is_free(
        sizes in prop::collection::vec((0u64..4096, 0u64..8192), 1..6),
        rounds in prop::collection::vec(1u32..11, 1..6),
    ) {
        let instances: Vec<_> =
            sizes.iter().enumerate().map(|(i, (cpu, memory))| instance(i as u128, *cpu, *memory)).collect();
        let mut view = view(&instances);
        let mut ids = Count(0);
        for count in rounds {
            let placement = place(&view, &request(&view, count), Timestamp(1), &mut ids);
            prop_assert_eq!(placement.tasks.len() + placement.failures.len(), count as usize);
            let mut transaction = Transaction::at(Version(0));
            write(&view, &placement, &mut transaction);
            apply(&mut view, transaction);
        }
        let mut addresses = BTreeSet::new();
        for task in view.tasks.iter() {
            prop_assert!(addresses.insert(task.network.as_ref().unwrap().address), "two tasks on one address");
        }
        for instance in &instances {
            let used = view.used_on(instance.id);
            prop_assert!(instance.resources.lacks(used).is_none(), "{used:?} on {:?}", instance.resources);
        }
        // Deleting every task gives everything back: the indexes hold what the tables say.
        let keys: Vec<_> = view.tasks.iter().map(|task| task.key()).collect();
        let mut transaction = Transaction::at(Version(0));
        keys.into_iter().for_each(|key| transaction.delete(key));
        apply(&mut view, transaction);
        for instance in &instances {
            prop_assert_eq!(view.used_on(instance.id), Resources::default());
        }
    }
}
