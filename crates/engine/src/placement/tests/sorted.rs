//! Whatever instances, services and tasks have become: the instance that is taken is one that the plain definition of the
//! strategies takes, and the shelves are those that the records alone would give.

use super::*;
use crate::testing::{self, Random, scope};
use crate::view::{Orders, Sorting};
use longshore_model::service::Service;
use longshore_model::task::LaunchType;
use std::collections::BTreeMap;

const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];
const SERVICES: [&str; 4] = ["a", "b", "c", "d"];

fn spread(name: &str) -> PlacementStrategy {
    PlacementStrategy::Spread(SpreadField::Attribute(name.to_owned()))
}

fn any_strategies(random: &mut Random) -> Vec<PlacementStrategy> {
    let choices = [
        vec![],
        vec![spread(ZONE), PlacementStrategy::Spread(SpreadField::Instance)],
        vec![PlacementStrategy::Spread(SpreadField::Instance)],
        vec![spread("rack")],
        vec![spread("rack"), PlacementStrategy::Binpack(BinpackField::Cpu)],
        vec![spread("disk"), spread("rack"), PlacementStrategy::Spread(SpreadField::Instance)],
        vec![PlacementStrategy::Binpack(BinpackField::Memory)],
        vec![spread("rack"), PlacementStrategy::Random],
    ];
    random.of(&choices).clone()
}

fn any_constraints(random: &mut Random) -> Vec<PlacementConstraint> {
    let member_of = |text: &str| PlacementConstraint::MemberOf(text.to_owned());
    let choices = [
        vec![],
        vec![],
        vec![member_of("attribute:disk == ssd")],
        vec![member_of("attribute:disk == ssd"), member_of("attribute:rack in [r0, r1]")],
        vec![PlacementConstraint::DistinctInstance, member_of("attribute:rack exists")],
        vec![member_of("runningTasksCount < 2 and attribute:disk == ssd")],
        vec![member_of("not (attribute:rack == r0)")],
    ];
    random.of(&choices).clone()
}

fn any_instance(id: u128, random: &mut Random) -> ContainerInstance {
    let status = *random.of(&[Status::Active, Status::Active, Status::Active, Status::Draining]);
    let mut instance = ContainerInstance {
        resources: Resources { cpu: 1024 * (1 + random.below(3)) as u64, memory: 4096 },
        agent_connected: random.below(8) > 0,
        ..member(id, status)
    };
    instance.attributes.insert(ZONE.to_owned(), (*random.of(&ZONES)).to_owned());
    for (name, values) in [("rack", ["r0", "r1", "r2", ""]), ("disk", ["ssd", "ssd", "hdd", ""])] {
        let value = *random.of(&values);
        if !value.is_empty() {
            instance.attributes.insert(name.to_owned(), value.to_owned());
        }
    }
    instance
}

fn put(view: &mut View, record: &impl Record) {
    let mut transaction = Transaction::at(Version(0));
    transaction.update(record);
    apply(view, transaction);
}

fn view_of_none() -> View {
    view(&[])
}

/// The same records, taken in anew.
fn anew(view: &View) -> View {
    let mut fresh = view_of_none();
    view.container_instances.iter().for_each(|instance| put(&mut fresh, &**instance));
    view.services.iter().for_each(|service| put(&mut fresh, &**service));
    view.tasks.iter().for_each(|task| put(&mut fresh, &**task));
    fresh
}

type Dump = BTreeMap<String, [Vec<(u64, ContainerInstanceId)>; 4]>;

fn dump<'a>(parts: impl Iterator<Item = (&'a Arc<str>, &'a Orders)>) -> Dump {
    let all = |orders: &Orders| {
        [
            orders.by_id.iter().map(|id| (0, *id)).collect(),
            orders.by_tasks.iter().copied().collect(),
            orders.by_cpu.iter().copied().collect(),
            orders.by_memory.iter().copied().collect(),
        ]
    };
    parts.map(|(value, orders)| (value.to_string(), all(orders))).collect()
}

/// How good an instance is by each strategy, the lower the better, from the records alone.
fn rank(view: &View, request: &Request, instance: &ContainerInstance) -> Vec<u64> {
    let of_group = |task: &&Arc<Task>| {
        task.group == request.group && task.desired_status == DesiredStatus::Running && task.holds_resources()
    };
    let value = |id: ContainerInstanceId, name: &str| {
        let instance = view.container_instance(id);
        instance.and_then(|i| i.attributes.get(name).cloned()).unwrap_or_default()
    };
    let count = |wanted: &dyn Fn(&Task) -> bool| {
        view.tasks.iter().filter(of_group).filter(|task| wanted(task)).count() as u64
    };
    let left = instance.resources.minus(view.used_on(instance.id));
    let by = |strategy: &PlacementStrategy| match strategy {
        PlacementStrategy::Random => 0,
        PlacementStrategy::Binpack(BinpackField::Cpu) => left.cpu,
        PlacementStrategy::Binpack(BinpackField::Memory) => left.memory,
        PlacementStrategy::Spread(SpreadField::Instance) => count(&|t| t.container_instance == instance.id),
        PlacementStrategy::Spread(SpreadField::Attribute(name)) if name == ZONE => {
            count(&|task| task.availability_zone == value(instance.id, ZONE))
        }
        PlacementStrategy::Spread(SpreadField::Attribute(name)) => {
            count(&|task| value(task.container_instance, name) == value(instance.id, name))
        }
    };
    let last = if request.strategies.is_empty() { view.task_count_on(instance.id) as u64 } else { 0 };
    request.strategies.iter().map(by).chain([last]).collect()
}

/// One task of a service or of a job: it is where the definition of its strategies puts it.
fn place_one(view: &mut View, random: &mut Random, ids: &mut Count) {
    let name = SERVICES[random.below(SERVICES.len())];
    let service = view.service(&scope(), "default", name).cloned();
    let base = request(view, 1);
    let wanted = match service.filter(|_| random.below(4) > 0) {
        Some(service) => Request {
            strategies: service.strategies.clone(),
            constraints: service.constraints.clone(),
            group: service.group(),
            ..base
        },
        None => Request {
            strategies: any_strategies(random),
            constraints: any_constraints(random),
            group: format!("family:{}", random.below(2)),
            ..base
        },
    };
    let wanted = Request { launch_type: LaunchType::Ec2, network: None, ..wanted };
    let rules = Rules::of(&wanted);
    let open: Vec<_> =
        candidates(view, &wanted).filter(|i| rules.refusals(view, &wanted, i).next().is_none()).collect();
    let best = open.iter().map(|instance| rank(view, &wanted, instance)).min();
    let placement = place(view, &wanted, Timestamp(1), ids);
    let taken = placement.tasks.first().map(|(task, _)| task.container_instance);
    let taken =
        taken.and_then(|id| view.container_instance(id)).map(|instance| rank(view, &wanted, instance));
    assert_eq!(taken, best, "{:?} {:?} {}", wanted.strategies, wanted.constraints, wanted.group);
    for (task, _) in &placement.tasks {
        put(view, task);
    }
}

#[test]
fn choices_and_shelves_are_a_function_of_the_records() {
    for seed in 1..=60_u64 {
        let mut random = Random(seed);
        let (mut view, mut ids) = (view_of_none(), Count(1 << 60));
        for _ in 0..150 {
            match random.below(10) {
                0..2 => {
                    let instance = any_instance(1 + random.below(12) as u128, &mut random);
                    put(&mut view, &instance);
                }
                2 => {
                    let name = (**random.of(&SERVICES)).to_owned();
                    let status = *random.of(&[
                        longshore_model::service::Status::Active,
                        longshore_model::service::Status::Active,
                        longshore_model::service::Status::Inactive,
                    ]);
                    put(
                        &mut view,
                        &Service {
                            name,
                            status,
                            launch_type: LaunchType::Ec2,
                            strategies: any_strategies(&mut random),
                            constraints: any_constraints(&mut random),
                            ..testing::service()
                        },
                    );
                }
                3 => {
                    let mut transaction = Transaction::at(Version(0));
                    let name = SERVICES[random.below(SERVICES.len())];
                    transaction.delete(Service::key_of(&scope(), "default", name));
                    apply(&mut view, transaction);
                }
                4 => {
                    let tasks: Vec<_> = view.tasks.iter().cloned().collect();
                    if !tasks.is_empty() {
                        let mut task = (**random.of(&tasks)).clone();
                        task.desired_status = DesiredStatus::Stopped;
                        task.last_status = *random.of(&[LastStatus::Stopping, LastStatus::Stopped]);
                        put(&mut view, &task);
                    }
                }
                _ => place_one(&mut view, &mut random, &mut ids),
            }
        }
        let fresh = anew(&view);
        let pool = Pool::of_cluster(Cluster::key_of(&scope(), "default"), LaunchType::Ec2);
        assert_eq!(dump(view.capacity().zones(&pool)), dump(fresh.capacity().zones(&pool)), "seed {seed}");
        for service in view.services.iter() {
            let sorting = Sorting::of(&service.strategies, &service.constraints);
            let of = |view: &View| view.capacity().sorted(&pool, &sorting).map(dump);
            assert_eq!(of(&view), of(&fresh), "seed {seed} {sorting:?}");
            let is_kept = service.status != longshore_model::service::Status::Inactive;
            assert!(!is_kept || sorting == Sorting::default() || of(&view).is_some(), "seed {seed}");
            let cluster = Cluster::key_of(&scope(), "default");
            let values = |view: &View| {
                let group = view.capacity().group(&cluster, &service.group());
                ["r0", "r1", "r2", "ssd", "hdd", ""]
                    .map(|value| group.map_or(0, |group| group.with_value(value)))
            };
            assert_eq!(values(&view), values(&fresh), "seed {seed} {}", service.name);
        }
    }
}
