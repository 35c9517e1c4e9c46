//! Placement decisions as data, and the properties that no plan may break.

mod kept;

use super::*;
use crate::testing::{Count, apply, instance, request, view};
use longshore_model::container_instance::Capacity;
use longshore_model::container_instance::CpuArchitecture;
use longshore_model::placement::{BinpackField, SpreadField};
use longshore_model::task_definition::NetworkMode;
use longshore_model::{Record, Version};
use proptest::prelude::*;

fn check(instances: &[ContainerInstance], count: u32, expected: &[&str]) {
    let view = view(instances);
    let placement = place(&view, &request(&view, count), Timestamp(1), &mut Count(0));
    let mut shown: Vec<String> = Vec::new();
    for (task, _) in &placement.tasks {
        shown.push(format!("on {}", task.container_instance.0));
    }
    shown.extend(placement.failures.iter().map(|failure| failure.reason.reason().to_owned()));
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
    assert_eq!(placement.failures, [Failure { on: None, reason: Reason::Attribute }]);
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
    assert_eq!(placement.failures, [Failure { on: None, reason: Reason::NetworkInterface }]);
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
        launched: false,
        capacity_provider: None,
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
    let failed = placement.failures.iter().map(|failure| match failure.on {
        Some(on) => format!("{} on {}", failure.reason.reason(), on.0),
        None => failure.reason.reason().to_owned(),
    });
    placed.chain(failed).collect()
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
    assert_eq!(
        shown(&placed),
        ["on 2 at 8080", "on 3 at 8080", "RESOURCE:PORTS on 2", "RESOURCE:PORTS on 3"]
    );
    let mut transaction = Transaction::at(Version(0));
    write(&view, &placed, &mut transaction);
    apply(&mut view, transaction);
    let again = place(&view, &on_instances(&view, 1, 8080), Timestamp(1), &mut Count(1 << 20));
    assert_eq!(shown(&again), ["RESOURCE:PORTS on 2", "RESOURCE:PORTS on 3"]);
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
    assert_eq!(
        shown(&placed),
        ["on 3 at 49153", "on 2 at 49153", "AGENT on 4", "INACTIVE on 5", "MISSING on 6"]
    );
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

const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];

/// A cluster of instances of 1,024 CPU units and 4,096 MiB, in three zones in turn, on racks of two.
fn fleet(count: u128) -> View {
    let instances: Vec<ContainerInstance> = (0..count)
        .map(|n| {
            let attributes = [(ZONE, ZONES[(n % 3) as usize].to_owned()), ("rack", (n / 2).to_string())];
            let attributes = attributes.map(|(name, value)| (name.to_owned(), value)).into();
            ContainerInstance { attributes, ..member(n, Status::Active) }
        })
        .collect();
    view(&instances)
}

fn strategies(words: &str) -> Vec<PlacementStrategy> {
    let one = |word: &str| match word {
        "random" => PlacementStrategy::Random,
        "instance" => PlacementStrategy::Spread(SpreadField::Instance),
        "cpu" => PlacementStrategy::Binpack(BinpackField::Cpu),
        "memory" => PlacementStrategy::Binpack(BinpackField::Memory),
        "zone" => PlacementStrategy::Spread(SpreadField::Attribute(ZONE.to_owned())),
        name => PlacementStrategy::Spread(SpreadField::Attribute(name.to_owned())),
    };
    words.split_whitespace().map(one).collect()
}

fn constraints(words: &[&str]) -> Vec<PlacementConstraint> {
    let one = |word: &&str| match *word {
        "distinct" => PlacementConstraint::DistinctInstance,
        expression => PlacementConstraint::MemberOf(expression.to_owned()),
    };
    words.iter().map(one).collect()
}

/// Tasks of 256 CPU units and 512 MiB without a network.
fn on_fleet(view: &View, count: u32) -> Request {
    let mut wanted = on_instances(view, count, 0);
    let mut definition = (*wanted.definition).clone();
    definition.network_mode = Some(NetworkMode::None);
    wanted.definition = Arc::new(definition);
    wanted
}

/// Where tasks of one group go on an empty fleet, one request after the other, as instances' numbers.
fn check_order(fleet_size: u128, by: &str, rules: &[&str], counts: &[u32], expected: &[&str]) {
    let mut view = fleet(fleet_size);
    let mut ids = Count(0);
    let mut said: Vec<String> = Vec::new();
    for count in counts {
        let request = Request {
            strategies: strategies(by),
            constraints: constraints(rules),
            ..on_fleet(&view, *count)
        };
        let placed = place(&view, &request, Timestamp(1), &mut ids);
        let numbers: Vec<String> =
            placed.tasks.iter().map(|(task, _)| task.container_instance.0.to_string()).collect();
        said.push(numbers.join(" "));
        let reasons: BTreeSet<&str> = placed.failures.iter().map(|failure| failure.reason.reason()).collect();
        said.extend(reasons.into_iter().map(str::to_owned));
        let mut transaction = Transaction::at(Version(0));
        write(&view, &placed, &mut transaction);
        apply(&mut view, transaction);
    }
    assert_eq!(said, expected, "{by} {rules:?}");
}

#[test]
fn strategies_decide_in_their_order() {
    check_order(4, "", &[], &[4, 2], &["0 1 2 3", "0 1"]);
    check_order(4, "instance", &[], &[4, 2], &["0 1 2 3", "0 1"]);
    check_order(4, "cpu", &[], &[4, 2], &["0 0 0 0", "1 1"]);
    check_order(3, "memory", &[], &[6], &["0 0 0 0 1 1"]);
    // Zone a has instances 0 and 3, b has 1, c has 2.
    check_order(4, "zone", &[], &[4, 2], &["0 1 2 3", "1 2"]);
    check_order(4, "zone cpu", &[], &[6], &["0 1 2 0 1 2"]);
    check_order(4, "rack", &[], &[4], &["0 2 1 3"]);
    check_order(6, "zone rack", &[], &[6], &["0 2 4 1 3 5"]);
}

#[test]
fn zones_that_are_full_are_passed_over() {
    // Four tasks fill an instance, and only zone a has two.
    check_order(4, "zone", &[], &[12, 5], &["0 1 2 3 1 2 0 1 2 3 1 2", "0 3 0 3", "RESOURCE:CPU"]);
}

#[test]
fn constraints_bind() {
    let distinct = "DistinctInstance placement constraint unsatisfied.";
    let member_of = "MemberOf placement constraint unsatisfied.";
    check_order(3, "", &["distinct"], &[2, 2], &["0 1", "2", distinct]);
    check_order(4, "", &["attribute:rack == 1"], &[3], &["2 3 2"]);
    check_order(4, "cpu", &["attribute:rack == 1", "distinct"], &[3], &["2 3", distinct, member_of]);
    check_order(4, "", &["attribute:rack == 9"], &[1], &["", member_of]);
    check_order(2, "", &["this is not the language"], &[1], &["", member_of]);
    check_order(3, "", &["not (task:group == family:web)"], &[2, 2], &["0 1", "2", member_of]);
}

#[test]
fn chance_comes_from_the_ids() {
    let view = fleet(50);
    let place_with = |seed: u128| {
        let request = Request { strategies: strategies("random"), ..on_fleet(&view, 1) };
        place(&view, &request, Timestamp(1), &mut Count(seed)).tasks[0].0.container_instance
    };
    assert_eq!(place_with(7), place_with(7));
}

#[test]
fn every_refusal_of_every_instance_is_explained() {
    let mut away = member(1, Status::Draining);
    away.agent_connected = false;
    let small = ContainerInstance { resources: Resources { cpu: 1, memory: 1 }, ..member(2, Status::Active) };
    let view = view(&[away, small, member(3, Status::Active), member(4, Status::Inactive)]);
    let request = Request { constraints: constraints(&["attribute:rack exists"]), ..on_fleet(&view, 1) };
    let said: Vec<String> = explain(&view, &request)
        .iter()
        .map(|(instance, reasons)| {
            let reasons: Vec<&str> = reasons.iter().map(|reason| reason.reason()).collect();
            format!("{} {}", instance.id.0, reasons.join(" "))
        })
        .collect();
    let member_of = "MemberOf placement constraint unsatisfied.";
    assert_eq!(
        said,
        [format!("1 AGENT {member_of}"), format!("2 RESOURCE:CPU {member_of}"), format!("3 {member_of}")]
    );
}

proptest! {
    #[test]
    fn plans_keep_constraints_and_spread_evenly(
        fleet_size in 1u128..12,
        rounds in prop::collection::vec((1u32..8, 0usize..6, any::<bool>(), 0usize..3), 1..8),
    ) {
        let mut view = fleet(fleet_size);
        let mut ids = Count(0);
        for (count, by, distinct, group) in rounds {
            let by = ["", "instance", "cpu", "zone instance", "zone memory", "random"][by];
            let rules: &[&str] = if distinct { &["distinct"] } else { &[] };
            let group = format!("service:{group}");
            let request = Request {
                strategies: strategies(by),
                constraints: constraints(rules),
                group: group.clone(),
                ..on_fleet(&view, count)
            };
            let placed = place(&view, &request, Timestamp(1), &mut ids);
            let before = view.clone();
            let mut transaction = Transaction::at(Version(0));
            write(&view, &placed, &mut transaction);
            apply(&mut view, transaction);
            let of_group = |view: &View, id| {
                view.tasks_on(id).filter(|task| task.group == group).count()
            };
            for instance in view.container_instances.iter() {
                let used = view.used_on(instance.id);
                prop_assert!(instance.resources.lacks(used).is_none());
                if distinct {
                    let (was, is) = (of_group(&before, instance.id), of_group(&view, instance.id));
                    prop_assert!(is <= was.max(1), "two of a group on one instance");
                }
            }
            // Of the instances that took a task none has more of the group than another with room has.
            if by == "instance" && !distinct {
                let roomy = |i: &&Arc<ContainerInstance>| {
                    i.resources.minus(view.used_on(i.id)).lacks(request.size).is_none()
                };
                let fewest = view.container_instances.iter().filter(roomy).map(|i| of_group(&view, i.id)).min();
                for (task, _) in &placed.tasks {
                    let here = of_group(&view, task.container_instance);
                    prop_assert!(fewest.is_none_or(|fewest| here <= fewest + 1), "{here} beside {fewest:?}");
                }
            }
        }
    }
}
