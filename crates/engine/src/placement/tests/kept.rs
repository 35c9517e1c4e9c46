//! What the view keeps for placement, after any history: it is what the records say, and the choices that are made with
//! it are those that the strategies mean.

use super::*;
use crate::testing::service as new_service;
use crate::view::{Orders, Shelf};
use longshore_model::service::{SchedulingStrategy, Service};
use longshore_model::task_definition::Protocol;

const SERVICES: usize = 4;
const INSTANCES: u128 = 10;
const STRATEGIES: [&str; 16] = [
    "",
    "instance",
    "cpu",
    "memory",
    "random",
    "zone",
    "zone instance",
    "zone instance memory",
    "zone rack",
    "rack",
    "rack instance",
    "rack zone instance cpu",
    "rack zone disk rack random",
    "instance rack",
    "instance random",
    "cpu disk instance",
];
const CONSTRAINTS: [&[&str]; 7] = [
    &[],
    &["distinct"],
    &["attribute:disk == ssd"],
    &["distinct", "attribute:disk == ssd", "attribute:rack < 3"],
    &["attribute:rack =~ [0-2]", "not (task:group == service:1)"],
    &["runningTasksCount < 2"],
    &["this is not the language"],
];

/// A step of a history: what is done, to which, and how.
type Step = (u32, usize, usize);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0u32..7, 0usize..1024, 0usize..1024), 1..60)
}

/// Two revisions of which the second may have constraints.
fn a_definition(revision: u32, rules: &[&str]) -> TaskDefinition {
    TaskDefinition {
        revision,
        network_mode: Some(NetworkMode::Bridge),
        placement_constraints: constraints(rules),
        ..crate::testing::definition()
    }
}

fn an_instance(id: u128) -> ContainerInstance {
    let attributes = [
        (ZONE, ZONES[(id % 3) as usize].to_owned()),
        ("rack", (id / 2).to_string()),
        ("disk", if id.is_multiple_of(2) { "ssd" } else { "hdd" }.to_owned()),
    ];
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value)).into();
    ContainerInstance { attributes, ..member(id, Status::Active) }
}

fn a_service(which: usize, how: usize) -> Service {
    let name = format!("{}", which % SERVICES);
    let launch_type = LaunchType::Ec2;
    let mut made = Service {
        name,
        strategies: strategies(STRATEGIES[how % STRATEGIES.len()]),
        launch_type,
        ..new_service()
    };
    made.constraints = constraints(CONSTRAINTS[how / 16 % CONSTRAINTS.len()]);
    for deployment in &mut made.deployments {
        deployment.revision = 1 + u32::from(how % 5 < 2);
    }
    match how % 23 {
        0 => made.scheduling_strategy = SchedulingStrategy::Daemon,
        1 => made.status = longshore_model::service::Status::Draining,
        _ => {}
    }
    made
}

fn a_request(by: &str, rules: &[&str], group: usize, definition: &TaskDefinition) -> Request {
    let view = View::default();
    Request {
        definition: Arc::new(definition.clone()),
        strategies: strategies(by),
        constraints: constraints(rules),
        group: format!("service:{group}"),
        launch_type: LaunchType::Ec2,
        network: None,
        ..request(&view, 1)
    }
}

fn history(steps: &[Step]) -> View {
    let instances: Vec<ContainerInstance> = (0..INSTANCES).map(an_instance).collect();
    let mut view = view(&instances);
    let mut transaction = Transaction::at(Version(0));
    transaction.create(&a_definition(2, &["attribute:disk == ssd"]));
    apply(&mut view, transaction);
    let mut ids = Count(0);
    for (step, which, how) in steps {
        let mut transaction = Transaction::at(Version(0));
        match step {
            0..3 => {
                let definition = a_definition(1, &[]);
                let by = STRATEGIES[how % STRATEGIES.len()];
                let request = Request { count: 2, ..a_request(by, &[], which % SERVICES, &definition) };
                write(&view, &place(&view, &request, Timestamp(1), &mut ids), &mut transaction);
            }
            3 => change_task(&view, *which, *how, &mut transaction),
            4 => change_instance(&view, *which as u128 % INSTANCES, *how, &mut transaction),
            5 => {
                let made = a_service(*which, *how);
                match view.services.get(&made.key()) {
                    Some(_) if how % 7 == 0 => transaction.delete(made.key()),
                    Some(_) => transaction.update(&made),
                    None => transaction.create(&made),
                }
            }
            _ => {
                let made = a_definition(2, CONSTRAINTS[how % CONSTRAINTS.len()]);
                match view.task_definitions.get(&made.key()) {
                    Some(_) if which % 3 == 0 => transaction.delete(made.key()),
                    Some(_) => transaction.update(&made),
                    None => transaction.create(&made),
                }
            }
        }
        apply(&mut view, transaction);
    }
    view
}

fn change_task(view: &View, which: usize, how: usize, transaction: &mut Transaction) {
    let tasks: Vec<&Arc<Task>> = view.tasks.iter().collect();
    let Some(task) = tasks.get(which % tasks.len().max(1)) else { return };
    let mut task = (***task).clone();
    match how % 4 {
        0 => return transaction.delete(task.key()),
        // STOPPED is for ever.
        _ if !task.holds_resources() => {}
        1 => task.last_status = LastStatus::Running,
        2 => task.desired_status = DesiredStatus::Stopped,
        _ => task.last_status = LastStatus::Stopped,
    }
    transaction.update(&task);
}

fn change_instance(view: &View, id: u128, how: usize, transaction: &mut Transaction) {
    let Some(instance) = view.container_instance(ContainerInstanceId(id)) else {
        return transaction.create(&an_instance(id));
    };
    let mut instance = (**instance).clone();
    let mut set = |name: &str, value: &str| instance.attributes.insert(name.to_owned(), value.to_owned());
    match how % 8 {
        0 => instance.agent_connected = !instance.agent_connected,
        1 => instance.capacity = member(id, Status::Draining).capacity,
        2 => instance.capacity = member(id, Status::Active).capacity,
        3 => instance.resources.cpu += 256,
        4 => drop(set("rack", &(how / 8 % 4).to_string())),
        5 => drop(set("disk", if (how / 8).is_multiple_of(2) { "ssd" } else { "hdd" })),
        6 => drop(instance.attributes.remove("rack")),
        _ => return transaction.delete(instance.key()),
    }
    transaction.update(&instance);
}

/// The same records, read in one order of the tables or in the other.
fn read_anew(view: &View, backwards: bool) -> View {
    let writes: [&dyn Fn(&mut Transaction); 4] = [
        &|to| view.container_instances.iter().for_each(|record| to.create(&**record)),
        &|to| view.services.iter().for_each(|record| to.create(&**record)),
        &|to| view.task_definitions.iter().for_each(|record| to.create(&**record)),
        &|to| view.tasks.iter().for_each(|record| to.create(&**record)),
    ];
    let mut anew = View::default();
    let mut take = |write: &dyn Fn(&mut Transaction)| {
        let mut transaction = Transaction::at(Version(0));
        write(&mut transaction);
        apply(&mut anew, transaction);
    };
    if backwards {
        writes.into_iter().rev().for_each(&mut take)
    } else {
        writes.into_iter().for_each(&mut take)
    }
    anew
}

/// All that placement reads from the indexes, as text.
fn indexes(view: &View) -> String {
    let mut said = String::new();
    let cluster = Cluster::key_of(&crate::testing::scope(), "default");
    let capacity = view.capacity();
    if let Some(shelves) = capacity.shelves(&Pool::Cluster(cluster.clone(), LaunchType::Ec2)) {
        said += &format!("{}\n", shown(shelves.usual()));
        let further: BTreeSet<String> =
            shelves.further().map(|(sorting, shelf)| format!("{sorting:?}: {}\n", shown(shelf))).collect();
        said.extend(further);
    }
    for number in 0..SERVICES {
        let key = (cluster.clone(), format!("service:{number}").into());
        if let Some(group) = capacity.group(&key) {
            let instances: Vec<_> = group.instances().collect();
            said += &format!("{number} {instances:?} {:?} {:?}\n", group.by_zone, group.by_count);
        }
        for attribute in ["rack", "disk", ZONE] {
            said += &format!("{number} {attribute} {:?}\n", capacity.spread(&key, attribute));
        }
    }
    for text in CONSTRAINTS.iter().flat_map(|rules| *rules) {
        said += &format!("{text} {:?}\n", capacity.expression(text).map(ToString::to_string));
    }
    for instance in view.container_instances.iter() {
        let id = instance.id;
        let ports: Vec<u16> = capacity.ports_held(id, Protocol::Tcp, 49153..=49300).collect();
        said += &format!("{} {:?} {} {ports:?}\n", id.0, view.used_on(id), view.task_count_on(id));
    }
    said
}

fn shown(shelf: &Shelf) -> String {
    let part = |(values, orders): (_, &Orders)| {
        let Orders { by_id, by_tasks, by_cpu, by_memory } = orders;
        let placed = by_id.iter().all(|id| shelf.part_of(*id) == Some(values));
        format!("{values:?} {placed} {by_id:?} {by_tasks:?} {by_cpu:?} {by_memory:?}; ")
    };
    shelf.parts().map(part).collect()
}

struct Fixed(u128);

impl IdSource for Fixed {
    fn next_u128(&mut self) -> u128 {
        self.0
    }
}

/// What the strategies mean: of all instances that may take the task the least one by each strategy in turn.
fn plain(view: &View, request: &Request, chance: u128) -> Option<ContainerInstanceId> {
    let rules = Rules::of(view, request);
    let active = |i: &&Arc<ContainerInstance>| i.membership().is_some_and(|m| m.status == Status::Active);
    let allowed = view.container_instances.iter().filter(active);
    let allowed = allowed.filter(|instance| rules.allow(view, request, instance));
    allowed.map(|instance| instance.id).min_by_key(|id| {
        let values: Vec<u64> =
            request.strategies.iter().map(|by| value(view, request, by, *id, chance)).collect();
        let random = request.strategies.iter().position(|by| *by == PlacementStrategy::Random);
        let values: Vec<u64> =
            values.into_iter().take(random.map_or(usize::MAX, |random| random + 1)).collect();
        let alike = match request.strategies.last() {
            _ if random.is_some() => true,
            Some(PlacementStrategy::Spread(SpreadField::Instance)) => values.last() != Some(&0),
            Some(PlacementStrategy::Spread(SpreadField::Attribute(_))) | None => false,
            Some(_) => true,
        };
        (values, if alike { 0 } else { view.task_count_on(*id) }, *id)
    })
}

fn value(
    view: &View,
    request: &Request,
    by: &PlacementStrategy,
    id: ContainerInstanceId,
    chance: u128,
) -> u64 {
    let instance = view.container_instance(id).unwrap();
    let left = instance.resources.minus(view.used_on(id));
    let of_group = |task: &&Arc<Task>| {
        task.group == request.group && task.desired_status == DesiredStatus::Running && task.holds_resources()
    };
    let tasks = || view.tasks.iter().filter(of_group);
    let attribute = |id, name: &str| {
        view.container_instance(id).map(|i| i.attributes.get(name).cloned().unwrap_or_default())
    };
    let count = match by {
        PlacementStrategy::Random => return u64::from(id.0 < chance),
        PlacementStrategy::Binpack(BinpackField::Cpu) => return left.cpu,
        PlacementStrategy::Binpack(BinpackField::Memory) => return left.memory,
        PlacementStrategy::Spread(SpreadField::Instance) => {
            tasks().filter(|task| task.container_instance == id).count()
        }
        PlacementStrategy::Spread(SpreadField::Attribute(name)) if name == ZONE => {
            tasks().filter(|task| Some(&task.availability_zone) == instance.attributes.get(ZONE)).count()
        }
        PlacementStrategy::Spread(SpreadField::Attribute(name)) => {
            tasks().filter(|task| attribute(task.container_instance, name) == attribute(id, name)).count()
        }
    };
    count as u64
}

proptest! {
    #[test]
    fn indexes_are_what_the_records_say(steps in steps()) {
        let view = history(&steps);
        prop_assert_eq!(indexes(&view), indexes(&read_anew(&view, false)));
        prop_assert_eq!(indexes(&view), indexes(&read_anew(&view, true)));
    }

    #[test]
    fn choices_are_what_the_strategies_mean(steps in steps(), chance in 0..INSTANCES + 1) {
        let view = history(&steps);
        let mut bare = view.clone();
        let mut transaction = Transaction::at(Version(0));
        view.services.iter().for_each(|service| transaction.delete(service.key()));
        apply(&mut bare, transaction);
        for by in STRATEGIES {
            for rules in CONSTRAINTS {
                for group in 0..2 {
                    let request = a_request(by, rules, group, &a_definition(1, &[]));
                    let expected = plain(&view, &request, chance);
                    for view in [&view, &bare] {
                        let chosen =
                            choose::choose(view, &request, &Rules::of(view, &request), &mut Fixed(chance));
                        prop_assert_eq!(chosen.map(|chosen| chosen.id), expected, "{} {:?}", by, rules);
                    }
                }
            }
        }
    }
}

/// More sortings than there are shelves: some are chosen without one, as with one.
#[test]
fn shelves_are_limited() {
    let instances: Vec<ContainerInstance> = (0..INSTANCES).map(an_instance).collect();
    let mut view = view(&instances);
    let rule = |number: usize| format!("attribute:rack != {number}");
    for number in 0..40 {
        let mut transaction = Transaction::at(Version(0));
        let constraints = constraints(&[&rule(number)]);
        transaction.create(&Service { name: number.to_string(), constraints, ..new_service() });
        apply(&mut view, transaction);
    }
    let cluster = Cluster::key_of(&crate::testing::scope(), "default");
    let shelves = view.capacity().shelves(&Pool::Cluster(cluster, LaunchType::Ec2)).unwrap();
    assert_eq!(shelves.further().count(), 16);
    for number in 0..40 {
        let request = a_request("zone cpu", &[&rule(number)], 0, &a_definition(1, &[]));
        let chosen = choose::choose(&view, &request, &Rules::of(&view, &request), &mut Fixed(0));
        assert_eq!(chosen.map(|chosen| chosen.id), plain(&view, &request, 0));
    }
    assert_eq!(indexes(&view), indexes(&read_anew(&view, true)));
}
