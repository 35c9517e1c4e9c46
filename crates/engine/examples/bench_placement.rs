//! Placements in clusters of 100, 1,000 and 10,000 instances with a hundred tasks on each: how long one takes, what it
//! takes of a processor, and the memory of the state that it decides on. `--output json` prints them for other programs.
//!
//! `cargo run --release -p longshore-engine --example bench_placement`

use longshore_engine::View;
use longshore_engine::placement::{self, Request};
use longshore_engine::service::deployment;
use longshore_model::change::{Change, Undecodable, Version, View as _, Write};
use longshore_model::container_instance::{
    AgentVersion, Capacity, ContainerInstance, CpuArchitecture, Membership, Ports, Status, ZONE,
};
use longshore_model::id::IdSource;
use longshore_model::placement::{BinpackField, PlacementConstraint, PlacementStrategy, SpreadField};
use longshore_model::record::encode;
use longshore_model::service::{GROUP, Service};
use longshore_model::task::{HostPort, LastStatus, LaunchType, Task};
use longshore_model::task_definition::{
    self, ContainerDefinition, Isolation, Names, NetworkMode, PortMapping, TaskDefinition,
};
use longshore_model::{ContainerInstanceId, Record, Resources, Scope, Tags, Timestamp, Transaction};
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

type Failed = Box<dyn Error + Send + Sync>;

const SIZES: [usize; 3] = [100, 1_000, 10_000];
/// The tasks of one service.
const SERVICE: usize = 1_000;
/// The most placements that a figure is of; on few instances there is room for fewer.
const SAMPLES: usize = 2_000;
/// How long a figure is measured at most.
const MEASURED: Duration = Duration::from_secs(5);
/// As many tasks as an instance has room for; from 72 to all of them are there, a hundred on average.
const ROOM: u64 = 128;
const SIZE: Resources = Resources { cpu: 128, memory: 512 };
const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--output", "json"] => true,
        _ => return Err("usage: bench_placement [--output json]".into()),
    };
    let (mut figures, mut states) = (Vec::new(), Vec::new());
    for instances in SIZES {
        let mut ids = Numbers(instances as u64);
        let mut view = fleet(instances, &mut ids)?;
        states.push(fill(&mut view, instances, &mut ids)?);
        for case in &CASES {
            figures.push(measure(&view, instances, case, &mut ids)?);
        }
    }
    if json {
        print_json(&figures, &states)
    } else {
        print_table(&figures, &states)
    }
    Ok(())
}

/// What is asked of each placement, which is the next task of a service or of a job, that is there or that begins.
struct Case {
    what: &'static str,
    strategies: fn() -> Vec<PlacementStrategy>,
    constraints: fn() -> Vec<PlacementConstraint>,
    group: fn(usize, usize) -> String,
}

const CASES: [Case; 8] = [
    Case {
        what: "spread over zones and instances",
        strategies: || vec![spread(ZONE), PlacementStrategy::Spread(SpreadField::Instance)],
        constraints: Vec::new,
        group: service,
    },
    Case {
        what: "spread over instances",
        strategies: || vec![PlacementStrategy::Spread(SpreadField::Instance)],
        constraints: Vec::new,
        group: service,
    },
    Case {
        what: "binpack by memory",
        strategies: || vec![PlacementStrategy::Binpack(BinpackField::Memory)],
        constraints: Vec::new,
        group: service,
    },
    Case {
        what: "random",
        strategies: || vec![PlacementStrategy::Random],
        constraints: Vec::new,
        group: service,
    },
    Case {
        what: "distinctInstance and memberOf",
        strategies: || vec![spread(ZONE)],
        constraints: apart_on_fast_disks,
        group: |sample, _| format!("{GROUP}new-{}", sample / 10),
    },
    Case {
        what: "distinctInstance and memberOf, of jobs",
        strategies: || vec![spread(ZONE)],
        constraints: apart_on_fast_disks,
        group: |sample, _| format!("family:job-{}", sample / 10),
    },
    Case {
        what: "spread over racks",
        strategies: || vec![spread("rack")],
        constraints: Vec::new,
        group: service,
    },
    Case {
        what: "spread over racks, of jobs",
        strategies: || vec![spread("rack")],
        constraints: Vec::new,
        group: |sample, _| format!("family:job-{}", sample / 10),
    },
];

fn apart_on_fast_disks() -> Vec<PlacementConstraint> {
    let expression = "attribute:disk == ssd and attribute:ecs.instance-type =~ c5.*";
    vec![PlacementConstraint::DistinctInstance, PlacementConstraint::MemberOf(expression.to_owned())]
}

fn spread(attribute: &str) -> PlacementStrategy {
    PlacementStrategy::Spread(SpreadField::Attribute(attribute.to_owned()))
}

fn service(sample: usize, instances: usize) -> String {
    format!("{GROUP}{}", sample % (instances * 100 / SERVICE))
}

struct Figure {
    what: &'static str,
    instances: usize,
    median: Duration,
    p99: Duration,
    cpu: Duration,
}

/// What is held for the tasks of a view.
struct State {
    instances: usize,
    tasks: usize,
    /// Resident bytes of the view, and of them those of the record as the store keeps it.
    resident: f64,
    record: f64,
}

/// Decides and writes placements one after the other, each on what the one before it left.
fn measure(view: &View, instances: usize, case: &Case, ids: &mut Numbers) -> Result<Figure, Failed> {
    let mut view = view.clone();
    let definition = Arc::new(definition());
    let mut took = Vec::new();
    let mut cpu = Duration::ZERO;
    let samples = SAMPLES.min(instances * 5);
    create_services(&mut view, samples, instances, case, ids)?;
    let start = now();
    for sample in 0..samples {
        let request = Request {
            strategies: (case.strategies)(),
            constraints: (case.constraints)(),
            group: (case.group)(sample, instances),
            ..request(&definition)
        };
        let busy_before = busy()?;
        let began = now();
        let placed = placement::place(&view, &request, Timestamp(2), ids);
        let mut transaction = Transaction::at(Version(0));
        placement::write(&view, &placed, &mut transaction);
        took.push(began.elapsed());
        cpu += busy()?.saturating_sub(busy_before);
        if placed.tasks.is_empty() {
            return Err(format!("{}: no place for a task: {:?}", case.what, placed.failures.first()).into());
        }
        take_in(&mut view, transaction)?;
        if start.elapsed() > MEASURED {
            break;
        }
    }
    took.sort();
    let at = |percent: usize| took.get((took.len() * percent / 100).min(took.len() - 1)).copied();
    Ok(Figure {
        what: case.what,
        instances,
        median: at(50).unwrap_or_default(),
        p99: at(99).unwrap_or_default(),
        cpu: cpu / took.len() as u32,
    })
}

/// The services whose tasks are to be placed.
fn create_services(
    view: &mut View,
    samples: usize,
    instances: usize,
    case: &Case,
    ids: &mut Numbers,
) -> Result<(), Undecodable> {
    let groups: BTreeSet<String> = (0..samples).map(|sample| (case.group)(sample, instances)).collect();
    let mut transaction = Transaction::at(Version(0));
    for name in groups.iter().filter_map(|group| group.strip_prefix(GROUP)) {
        transaction.create(&Service {
            strategies: (case.strategies)(),
            constraints: (case.constraints)(),
            deployments: vec![deployment(
                &definition(),
                None,
                None,
                Vec::new(),
                Vec::new(),
                Timestamp(1),
                ids,
            )],
            ..Service::new(scope(), "default", name, LaunchType::Ec2, Timestamp(1))
        });
    }
    take_in(view, transaction)
}

#[allow(clippy::disallowed_methods, reason = "a benchmark's one reading of the clock")]
fn now() -> Instant {
    Instant::now()
}

/// The processor time of this thread. The scheduler counts it when the thread is switched or ticked, so that it means
/// something in a sum only.
fn busy() -> Result<Duration, Failed> {
    let counts = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(Duration::from_nanos(counts.split_whitespace().next().unwrap_or_default().parse()?))
}

fn resident() -> Result<u64, Failed> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

fn fleet(instances: usize, ids: &mut Numbers) -> Result<View, Undecodable> {
    let mut view = View::default();
    let mut transaction = Transaction::at(Version(0));
    transaction.create(&definition());
    for number in 0..instances {
        transaction.create(&instance(number, ids.container_instance()));
    }
    take_in(&mut view, transaction)?;
    Ok(view)
}

fn instance(number: usize, id: ContainerInstanceId) -> ContainerInstance {
    let attributes = [
        (ZONE, ZONES.get(number % ZONES.len()).copied().unwrap_or_default().to_owned()),
        ("ecs.instance-type", if number.is_multiple_of(2) { "c5.4xlarge" } else { "m5.4xlarge" }.to_owned()),
        ("disk", if number % 5 < 3 { "ssd" } else { "hdd" }.to_owned()),
        ("rack", format!("rack-{}", number / 40)),
    ];
    ContainerInstance {
        id,
        name: format!("instance-{number}"),
        capacity: Capacity::Cluster(Membership {
            scope: scope(),
            cluster: "default".to_owned(),
            launch_type: LaunchType::Ec2,
            ec2_instance_id: Some(format!("i-{number:017x}")),
            launched: false,
            capacity_provider: None,
            status: Status::Active,
        }),
        resources: Resources { cpu: SIZE.cpu * ROOM, memory: SIZE.memory * ROOM },
        cpu_architecture: CpuArchitecture::X86_64,
        attributes: attributes.map(|(name, value)| (name.to_owned(), value)).into(),
        ports: Ports::default(),
        gpus: Vec::new(),
        agent: AgentVersion::default(),
        tags: Tags::default(),
        registered_at: Timestamp(1),
        agent_connected: true,
        connected_to: None,
        deregistered_at: None,
        version: 1,
    }
}

/// Puts running tasks on all instances, each service's on one after the other.
fn fill(view: &mut View, instances: usize, ids: &mut Numbers) -> Result<State, Failed> {
    let first = placement::place(view, &request(&Arc::new(definition())), Timestamp(1), ids);
    let template =
        first.tasks.into_iter().next().map(|(task, _)| task).ok_or("no place for the first task")?;
    let all: Vec<ContainerInstanceId> = view.container_instances.iter().map(|instance| instance.id).collect();
    let before = resident()?;
    let (mut tasks, mut bytes) = (0, 0);
    for slot in 0..ROOM {
        let with_room = all.iter().enumerate().filter(|(number, _)| slot < 72 + *number as u64 * 37 % 57);
        for (_, instance) in with_room {
            let task = running(&template, *instance, slot as u16, tasks / SERVICE, ids);
            let value: Arc<[u8]> = encode(&task).into();
            bytes += value.len();
            view.apply(&Change { key: task.key(), value: Some(value) })?;
            tasks += 1;
        }
    }
    let resident = resident()?.saturating_sub(before);
    Ok(State {
        instances,
        tasks,
        resident: resident as f64 / tasks as f64,
        record: bytes as f64 / tasks as f64,
    })
}

fn running(
    template: &Task,
    instance: ContainerInstanceId,
    slot: u16,
    service: usize,
    ids: &mut Numbers,
) -> Task {
    let mut task = template.clone();
    task.id = ids.task();
    task.container_instance = instance;
    task.group = format!("service:{service}");
    task.started_by = Some(format!("ecs-svc/{service:019}"));
    task.last_status = LastStatus::Running;
    for port in &mut task.host_ports {
        *port = HostPort { host_port: Ports::default().dynamic.0 + slot, ..port.clone() };
    }
    for container in &mut task.containers {
        container.uuid = ids.uuid();
        container.was_running = true;
        container.image_digest = Some(format!("sha256:{:064x}", ids.next_u128()));
        container.last_status = longshore_model::task::ContainerStatus::Running;
    }
    let times = &mut task.times;
    for time in [
        &mut times.pull_started_at,
        &mut times.pull_stopped_at,
        &mut times.connectivity_at,
        &mut times.started_at,
    ] {
        *time = Some(Timestamp(1_800_000_000_000));
    }
    task.version = 4;
    task
}

fn take_in(view: &mut View, transaction: Transaction) -> Result<(), Undecodable> {
    for write in transaction.into_commit().writes {
        let value = write.value().map(Arc::from);
        let key = match write {
            Write::Create { key, .. } | Write::Update { key, .. } | Write::Delete { key } => key,
        };
        view.apply(&Change { key, value })?;
    }
    Ok(())
}

fn request(definition: &Arc<TaskDefinition>) -> Request {
    Request {
        scope: scope(),
        cluster: "default".to_owned(),
        definition: Arc::clone(definition),
        count: 1,
        overrides: None,
        size: SIZE,
        launch_type: LaunchType::Ec2,
        network: None,
        constraints: Vec::new(),
        strategies: Vec::new(),
        capacity_providers: Vec::new(),
        provider: None,
        instances: None,
        group: "family:web".to_owned(),
        started_by: None,
        tags: Tags::default(),
    }
}

fn scope() -> Scope {
    Scope::new("123456789012", "us-east-1")
}

/// One container that is reached by a port of its instance.
fn definition() -> TaskDefinition {
    TaskDefinition {
        scope: scope(),
        family: "web".to_owned(),
        revision: 1,
        status: task_definition::Status::Active,
        containers: vec![ContainerDefinition {
            name: "app".to_owned(),
            image: "nginx".to_owned(),
            cpu: 0,
            memory: None,
            memory_reservation: None,
            essential: true,
            entry_point: None,
            command: None,
            environment: Vec::new(),
            secrets: Vec::new(),
            working_directory: None,
            user: None,
            readonly_root_filesystem: None,
            port_mappings: vec![PortMapping {
                container_port: 80,
                host_port: None,
                protocol: None,
                name: None,
            }],
            log: None,
            start_timeout: None,
            stop_timeout: None,
            depends_on: Vec::new(),
            health_check: None,
            restart_policy: None,
            mount_points: Vec::new(),
            volumes_from: Vec::new(),
            isolation: Isolation::default(),
            names: Names::default(),
            labels: BTreeMap::new(),
        }],
        network_mode: Some(NetworkMode::Bridge),
        requires_compatibilities: Vec::new(),
        cpu: Some(SIZE.cpu),
        memory: Some(SIZE.memory),
        execution_role_arn: None,
        cpu_architecture: None,
        operating_system_named: false,
        volumes: Vec::new(),
        placement_constraints: Vec::new(),
        tags: Tags::default(),
        registered_at: Timestamp(1),
        registered_by: String::new(),
        deregistered_at: None,
        delete_requested_at: None,
    }
}

/// Ids that look random, and are the same in every run.
struct Numbers(u64);

impl IdSource for Numbers {
    fn next_u128(&mut self) -> u128 {
        // SplitMix64, twice.
        let mut next = || {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            u128::from(mixed ^ (mixed >> 31))
        };
        (next() << 64) | next()
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn print_json(figures: &[Figure], states: &[State]) {
    let placements: Vec<String> = figures
        .iter()
        .map(|figure| {
            format!(
                r#"{{"what": "{}", "instances": {}, "median_us": {:.2}, "p99_us": {:.2}, "cpu_us": {:.2}}}"#,
                figure.what,
                figure.instances,
                micros(figure.median),
                micros(figure.p99),
                micros(figure.cpu)
            )
        })
        .collect();
    let states: Vec<String> = states
        .iter()
        .map(|state| {
            format!(
                r#"{{"instances": {}, "tasks": {}, "resident_bytes": {:.0}, "record_bytes": {:.0}}}"#,
                state.instances, state.tasks, state.resident, state.record
            )
        })
        .collect();
    println!(
        "{{\"placements\": [\n{}\n], \"states\": [\n{}\n]}}",
        placements.join(",\n"),
        states.join(",\n")
    );
}

fn print_table(figures: &[Figure], states: &[State]) {
    println!("{:38} {:>9} {:>10} {:>10} {:>10}", "placement", "instances", "median", "p99", "mean CPU");
    for figure in figures {
        println!(
            "{:38} {:>9} {:>7.1} µs {:>7.1} µs {:>7.1} µs",
            figure.what,
            figure.instances,
            micros(figure.median),
            micros(figure.p99),
            micros(figure.cpu)
        );
    }
    println!("{:38} {:>9} {:>10} {:>10}", "state of a task", "instances", "resident", "record");
    for state in states {
        println!(
            "{:38} {:>9} {:>8.0} B {:>8.0} B",
            state.tasks, state.instances, state.resident, state.record
        );
    }
}
