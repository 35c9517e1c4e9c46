//! The large scenario: 5,000 services with 1,000,000 tasks on 10,000 instances, decided by the engine on the store's index.
//! They come up, are left alone, one of 5,000 tasks is deployed anew, a zone fails and comes back. What may never happen is
//! checked at every commit; what it took is reported.

#![allow(clippy::disallowed_methods, reason = "it measures")]

use longshore_engine::service::{self, Agenda, Settings};
use longshore_engine::{View, lifecycle, membership};
use longshore_model::change::{Key, View as _};
use longshore_model::cluster::{self, Cluster, ContainerInsights};
use longshore_model::container_instance::{
    AgentVersion, Capacity, ContainerInstance, CpuArchitecture, Membership, Ports, Status, ZONE,
};
use longshore_model::id::IdSource;
use longshore_model::service::{DeploymentConfiguration, SchedulingStrategy, Service};
use longshore_model::task::{ContainerStatus, DesiredStatus, LastStatus, LaunchType, Task};
use longshore_model::task_definition::{
    self, ContainerDefinition, Isolation, Names, NetworkMode, TaskDefinition,
};
use longshore_model::{ContainerInstanceId, Record, Resources, Scope, Tags, TaskId, Timestamp, Transaction};
use longshore_store::index::Index;
use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

pub type Failed = Box<dyn Error + Send + Sync>;

const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];
pub(crate) const CLUSTER: &str = "default";
const NOW: Timestamp = Timestamp(1_000_000);

/// How large a scenario is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub instances: usize,
    pub services: usize,
    /// The tasks of each service, and of the one that is deployed anew.
    pub tasks: u32,
    pub large: u32,
}

/// What it took.
#[derive(Clone, Debug)]
pub struct Report {
    pub tasks: usize,
    /// To bring everything up.
    pub start: Duration,
    /// Processor time of one placement, decided and written, in microseconds.
    pub placement_median: f64,
    pub placement_p99: f64,
    /// Bytes, with the store's index and what is kept of services.
    pub resident_of_task: f64,
    /// To look at every service when nothing has changed.
    pub look: Duration,
    pub deployment: Duration,
    pub lost: usize,
    pub zone_lost: Duration,
    pub zone_back: Duration,
}

/// Runs the scenario; an error names the property that does not hold.
pub fn run(size: Size) -> Result<Report, Failed> {
    let mut world = World::new(size)?;
    let took = Instant::now();
    world.drive()?;
    let (start, tasks) = (took.elapsed(), world.running());
    let others = u32::try_from(size.services.saturating_sub(1))?;
    let wanted = (others * size.tasks + size.large) as usize;
    check(tasks == wanted, "every task is RUNNING")?;
    let resident_of_task = (resident()? - world.resident_at_start) / tasks as f64;

    let (took, commits) = (Instant::now(), world.commits);
    world.agenda = Agenda::of_everything(&world.view);
    world.drive()?;
    let look = took.elapsed();
    let quiet = world.commits == commits && world.agenda.next_time().is_none();
    check(quiet, "nothing is done when nothing changes")?;

    let took = Instant::now();
    world.deploy(0)?;
    world.drive()?;
    let deployment = took.elapsed();
    let new = world.service(0).and_then(|service| service.primary().map(|primary| primary.id.clone()));
    check(world.running() == wanted, "as many tasks run after a deployment as before")?;
    let is_new = |task: &Task| task.started_by == new && task.last_status == LastStatus::Running;
    let count = world.view.tasks.iter().filter(|task| is_new(task)).count();
    check(count == size.large as usize, "all tasks are of the new deployment")?;

    let took = Instant::now();
    let lost = world.fail_zone(2)?;
    world.drive()?;
    let zone_lost = took.elapsed();
    check(world.running() == wanted, "others take the place of the tasks of a lost zone")?;
    let took = Instant::now();
    world.connect(2, true)?;
    world.drive()?;
    let zone_back = took.elapsed();
    check(world.running() == wanted, "nothing is started or stopped for a zone that comes back")?;
    let (placement_median, placement_p99) = (world.percentile(50), world.percentile(99));
    Ok(Report {
        tasks,
        start,
        placement_median,
        placement_p99,
        resident_of_task,
        look,
        deployment,
        lost,
        zone_lost,
        zone_back,
    })
}

pub(crate) fn check(holds: bool, what: &str) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(format!("it does not hold that {what}").into()) }
}

struct World {
    index: Index,
    view: View,
    agenda: Agenda,
    ids: Numbers,
    instances: Vec<ContainerInstanceId>,
    commits: usize,
    /// Processor time of each started task, in nanoseconds.
    placements: Vec<u64>,
    resident_at_start: f64,
}

impl World {
    fn new(size: Size) -> Result<Self, Failed> {
        let mut world = Self {
            index: Index::default(),
            view: View::default(),
            agenda: Agenda::default(),
            ids: Numbers(1),
            instances: Vec::new(),
            commits: 0,
            placements: Vec::new(),
            resident_at_start: 0.0,
        };
        world.write(|transaction, _, _| {
            transaction.create(&Cluster {
                scope: scope(),
                name: CLUSTER.to_owned(),
                status: cluster::Status::Active,
                container_insights: ContainerInsights::Disabled,
                capacity_providers: Vec::new(),
                default_strategy: Vec::new(),
                tags: Tags::default(),
                created_at: NOW,
            });
            transaction.create(&definition(1));
            transaction.create(&definition(2));
        })?;
        for number in 0..size.instances {
            let made = instance(number, ContainerInstanceId(world.ids.next_u128()));
            world.instances.push(made.id);
            world.write(|transaction, _, _| transaction.create(&made))?;
        }
        world.resident_at_start = resident()?;
        for number in 0..size.services {
            let mut made = empty_service(number, if number == 0 { size.large } else { size.tasks });
            world.write(|transaction, view, ids| {
                let first = service::deployment(&definition(1), None, None, Vec::new(), Vec::new(), NOW, ids);
                service::deploy(view, &mut made, first, transaction, ids);
                transaction.create(&made);
            })?;
        }
        Ok(world)
    }

    fn service(&self, number: usize) -> Option<&Service> {
        self.view.service(&scope(), CLUSTER, &name(number)).map(|service| &**service)
    }

    fn running(&self) -> usize {
        let counts = self.view.task_counts(&scope(), CLUSTER, LaunchType::Ec2);
        counts.running as usize
    }

    fn deploy(&mut self, number: usize) -> Result<(), Failed> {
        let mut next = self.service(number).ok_or("no such service")?.clone();
        self.write(|transaction, view, ids| {
            let second = service::deployment(&definition(2), None, None, Vec::new(), Vec::new(), NOW, ids);
            service::deploy(view, &mut next, second, transaction, ids);
            next.version += 1;
            transaction.update(&next);
        })
    }

    /// Looks at what is due until nothing is; agents do at once what they are told.
    fn drive(&mut self) -> Result<(), Failed> {
        let settings = Settings { healthy_after: Duration::ZERO };
        while let Some(key) = self.agenda.pop() {
            let Some(present) = self.view.services.get(&key).cloned() else { continue };
            let began = Instant::now();
            let plan = service::reconcile(&self.view, &present, settings, NOW, &mut self.ids);
            let mut transaction = Transaction::at(self.index.version());
            service::write(&self.view, &present, &plan, &mut transaction, NOW, &mut self.ids);
            let took = u64::try_from(began.elapsed().as_nanos())?;
            let started: Vec<TaskId> = plan.placement.tasks.iter().map(|(task, _)| task.id).collect();
            if let Some(each) = took.checked_div(started.len() as u64) {
                self.placements.extend(std::iter::repeat_n(each, started.len()));
            }
            let stopped: Vec<TaskId> = plan.stops.iter().map(|task| task.id).collect();
            self.agenda.planned(key, &plan);
            if !transaction.is_empty() {
                self.commit(transaction)?;
                self.keeps_its_bounds(&present)?;
            }
            self.obey(&started, &stopped)?;
        }
        Ok(())
    }

    fn keeps_its_bounds(&self, service: &Service) -> Result<(), Failed> {
        let (configuration, desired) = (&service.configuration, service.desired_count);
        let (mut running, mut all) = (0, 0);
        for (_, tasks) in self.view.service_tasks().deployments(&service.key()) {
            running += tasks.running.len();
            all += tasks.active_count() + tasks.stopping.len();
        }
        check(all <= configuration.maximum(desired) as usize, "no service has more tasks than its maximum")?;
        let was_full = service.steady || service.deployments.len() > 1;
        let enough = running >= configuration.minimum(desired) as usize;
        check(
            enough || !was_full || self.zone_is_away(),
            "no service has fewer than its minimum by our doing",
        )
    }

    fn zone_is_away(&self) -> bool {
        let third = self.instances.get(2).and_then(|id| self.view.container_instance(*id));
        third.is_some_and(|instance| !instance.agent_connected)
    }

    /// What was started runs, what was told to stop ends.
    fn obey(&mut self, started: &[TaskId], stopped: &[TaskId]) -> Result<(), Failed> {
        if started.is_empty() && stopped.is_empty() {
            return Ok(());
        }
        self.write(|transaction, view, _| {
            for task in started.iter().chain(stopped).filter_map(|id| view.task(&scope(), CLUSTER, *id)) {
                let mut next = (**task).clone();
                next.version += 1;
                let (task_status, container) = match next.desired_status {
                    DesiredStatus::Running => (LastStatus::Running, ContainerStatus::Running),
                    DesiredStatus::Stopped => (LastStatus::Stopped, ContainerStatus::Stopped),
                };
                next.last_status = task_status;
                next.containers.iter_mut().for_each(|each| each.last_status = container);
                next.times.started_at.get_or_insert(NOW);
                next.times.stopped_at = (task_status == LastStatus::Stopped).then_some(NOW);
                transaction.update(&next);
            }
        })
    }

    fn fail_zone(&mut self, zone: usize) -> Result<usize, Failed> {
        self.connect(zone, false)?;
        let mut lost = 0;
        for id in self.instances.clone().into_iter().skip(zone).step_by(ZONES.len()) {
            self.write(|transaction, view, _| {
                let Some(instance) = view.container_instance(id) else { return };
                let why = membership::why_lost(instance);
                for next in view.tasks_on(id).filter_map(|task| lifecycle::lose(task, why.clone(), NOW)) {
                    lifecycle::write(view, &next, transaction);
                    lost += 1;
                }
            })?;
        }
        Ok(lost)
    }

    fn connect(&mut self, zone: usize, connected: bool) -> Result<(), Failed> {
        for id in self.instances.clone().into_iter().skip(zone).step_by(ZONES.len()) {
            self.write(|transaction, view, _| {
                let Some(instance) = view.container_instance(id) else { return };
                let mut next = (**instance).clone();
                next.agent_connected = connected;
                next.version += 1;
                transaction.update(&next);
            })?;
        }
        Ok(())
    }

    fn write(&mut self, change: impl FnOnce(&mut Transaction, &View, &mut Numbers)) -> Result<(), Failed> {
        let mut transaction = Transaction::at(self.index.version());
        change(&mut transaction, &self.view, &mut self.ids);
        self.commit(transaction)
    }

    fn commit(&mut self, transaction: Transaction) -> Result<(), Failed> {
        let batch = self.index.commit(transaction.into_commit())?;
        let batch = batch.map_err(|key: Key| format!("a conflict without a rival: {key:?}"))?;
        for change in &batch.changes {
            self.view.apply(change)?;
        }
        self.agenda.take(&self.view, &batch);
        self.commits += 1;
        self.index.compact(self.index.version());
        Ok(())
    }

    /// In microseconds.
    fn percentile(&mut self, percent: usize) -> f64 {
        self.placements.sort_unstable();
        let place = self.placements.len().saturating_sub(1) * percent / 100;
        self.placements.get(place).map_or(0.0, |nanos| *nanos as f64 / 1000.0)
    }
}

/// Ids that are far apart, as random ones are.
struct Numbers(u64);

impl IdSource for Numbers {
    fn next_u128(&mut self) -> u128 {
        self.0 = self.0.wrapping_add(1);
        u128::from(self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(self.0)
    }
}

pub(crate) fn scope() -> Scope {
    Scope::new("123456789012", "us-east-1")
}

pub(crate) fn name(number: usize) -> String {
    format!("service-{number}")
}

pub(crate) fn empty_service(number: usize, desired_count: u32) -> Service {
    let configuration = DeploymentConfiguration {
        minimum_healthy_percent: 90,
        maximum_percent: 125,
        ..DeploymentConfiguration::of(SchedulingStrategy::Replica)
    };
    let base = Service::new(scope(), CLUSTER, &name(number), LaunchType::Ec2, NOW);
    Service { desired_count, configuration, ..base }
}

pub(crate) fn instance(number: usize, id: ContainerInstanceId) -> ContainerInstance {
    let zone = ZONES.get(number % ZONES.len()).copied().unwrap_or_default();
    ContainerInstance {
        id,
        name: format!("instance-{number}"),
        capacity: Capacity::Cluster(Membership {
            scope: scope(),
            cluster: CLUSTER.to_owned(),
            launch_type: LaunchType::Ec2,
            ec2_instance_id: None,
            launched: false,
            capacity_provider: None,
            status: Status::Active,
        }),
        // Room for the tasks of a zone that fails, and for those of a deployment.
        resources: Resources { cpu: 256 * 200, memory: 512 * 200 },
        cpu_architecture: CpuArchitecture::X86_64,
        attributes: BTreeMap::from([(ZONE.to_owned(), zone.to_owned())]),
        ports: Ports::default(),
        gpus: Vec::new(),
        agent: AgentVersion::default(),
        tags: Tags::default(),
        registered_at: NOW,
        agent_connected: true,
        connected_to: None,
        deregistered_at: None,
        version: 1,
    }
}

pub(crate) fn definition(revision: u32) -> TaskDefinition {
    let container = ContainerDefinition {
        name: "main".to_owned(),
        image: "app".to_owned(),
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
        port_mappings: Vec::new(),
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
    };
    TaskDefinition {
        scope: scope(),
        family: "app".to_owned(),
        revision,
        status: task_definition::Status::Active,
        containers: vec![container],
        network_mode: Some(NetworkMode::Bridge),
        requires_compatibilities: Vec::new(),
        cpu: Some(256),
        memory: Some(512),
        execution_role_arn: None,
        cpu_architecture: None,
        operating_system_named: false,
        volumes: Vec::new(),
        placement_constraints: Vec::new(),
        tags: Tags::default(),
        registered_at: NOW,
        registered_by: String::new(),
        deregistered_at: None,
        delete_requested_at: None,
    }
}

/// Bytes of this process that are in memory.
fn resident() -> Result<f64, Failed> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024.0)
}
