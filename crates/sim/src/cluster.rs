//! The control plane of the simulation: the store's index, the view over it, and decisions that take time, so that
//! they are made on snapshots that others have changed meanwhile.

use crate::random::Random;
use longshore_engine::placement::{self, Network, Request};
use longshore_engine::{View, default_vpc, discovery, events, lifecycle, membership, registration};
use longshore_model::change::{Batch, Commit, Version, View as _};
use longshore_model::cluster::{Cluster as ClusterRecord, ContainerInsights, Status};
use longshore_model::container_instance::{
    self, AgentVersion, Capacity, ContainerInstance, CpuArchitecture, Membership, Ports, ZONE,
};
use longshore_model::control_plane::ControlPlaneId;
use longshore_model::link::{Hello, Observation};
use longshore_model::placement::{PlacementConstraint, PlacementStrategy, SpreadField};
use longshore_model::task::{LaunchType, Stop, StopCode};
use longshore_model::task_definition::{
    self, ContainerDefinition, Isolation, Names, NetworkMode, PortMapping, TaskDefinition,
};
use longshore_model::vpc::Cidr;
use longshore_model::{ContainerInstanceId, Record, Resources, Scope, Tags, TaskId, Timestamp, Transaction};
use longshore_store::index::Index;
use std::collections::BTreeMap;
use std::sync::Arc;

pub struct Cluster {
    index: Index,
    pub view: View,
}

/// Something that a control plane decides.
#[derive(Clone, Debug)]
pub enum Operation {
    Run {
        kind: Kind,
        count: u32,
    },
    Stop {
        task: TaskId,
    },
    Observe(Box<Observation>),
    /// An agent says hello, after which its machine is registered as it is now.
    Register {
        instance: ContainerInstanceId,
    },
    Disconnected {
        instance: ContainerInstanceId,
    },
    /// Gives up the tasks of an instance that is still away.
    Lose {
        instance: ContainerInstanceId,
    },
    Drain {
        instance: ContainerInstanceId,
        draining: bool,
    },
}

/// What users run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On Fargate, each task at an address of its own.
    Fargate,
    /// On instances, each task at any port.
    AnyPort,
    /// On instances, each task at the same port.
    OnePort,
    /// On instances of their own, spread over zones.
    Distinct,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Fargate, Self::AnyPort, Self::OnePort, Self::Distinct];

    fn family(self) -> &'static str {
        match self {
            Self::Fargate => "app",
            Self::AnyPort => "any-port",
            Self::OnePort => "one-port",
            Self::Distinct => "distinct",
        }
    }
}

pub fn scope() -> Scope {
    Scope::new("123456789012", "us-east-1")
}

pub const NAME: &str = "default";

impl Cluster {
    pub fn new(instances: &[ContainerInstanceId], size: Resources, random: &mut Random) -> Self {
        let mut cluster = Self { index: Index::default(), view: View::default() };
        let mut transaction = Transaction::at(Version(0));
        // A /20 cut into /24s: small enough that addresses are used again.
        let block = Cidr::new([172, 31, 0, 0].into(), 20);
        let Some(made) = block.map(|block| default_vpc::make(&scope(), block, random)) else {
            return cluster;
        };
        transaction.create(&made.vpc);
        made.subnets.iter().for_each(|subnet| transaction.create(subnet));
        transaction.create(&made.security_group);
        Kind::ALL.iter().for_each(|kind| transaction.create(&definition(*kind)));
        transaction.create(&ClusterRecord {
            scope: scope(),
            name: NAME.to_owned(),
            status: Status::Active,
            container_insights: ContainerInsights::Disabled,
            capacity_providers: Vec::new(),
            default_strategy: Vec::new(),
            tags: Tags::default(),
            created_at: Timestamp(1),
        });
        for (number, id) in instances.iter().enumerate() {
            let mut instance =
                registration::first(&hello(*id, size), capacity(number), ControlPlaneId(1), Timestamp(1));
            instance
                .attributes
                .insert(ZONE.to_owned(), if number % 4 < 2 { "us-east-1a" } else { "us-east-1b" }.to_owned());
            instance.agent_connected = false;
            transaction.create(&instance);
        }
        let _ = cluster.commit(transaction.into_commit());
        cluster
    }

    pub fn version(&self) -> Version {
        self.index.version()
    }

    /// Decides on the view as it is now. `None` when there is nothing to write.
    pub fn decide(&self, operation: &Operation, now: Timestamp, random: &mut Random) -> Option<Commit> {
        let mut transaction = Transaction::at(self.version());
        match operation {
            Operation::Run { kind, count } => {
                let placement = placement::place(&self.view, &self.request(*kind, *count), now, random);
                if !placement.tasks.is_empty() {
                    placement::write(&self.view, &placement, &mut transaction);
                }
            }
            Operation::Stop { task } => {
                let why =
                    Stop { code: StopCode::UserInitiated, reason: lifecycle::STOPPED_BY_USER.to_owned() };
                let task = self.view.task(&scope(), NAME, *task)?;
                lifecycle::write(&self.view, &lifecycle::stop(task, why, now)?, &mut transaction);
            }
            Operation::Observe(seen) => {
                let task = self.view.tasks.get(&seen.task.key())?;
                let definition = self.view.task_definition(&task.scope, &task.family, task.revision)?;
                let next = lifecycle::observe(task, definition, seen, now)?;
                lifecycle::write(&self.view, &next, &mut transaction);
            }
            Operation::Register { instance } => {
                let present = self.view.container_instance(*instance)?;
                let hello = hello(*instance, present.resources);
                let next = registration::again(present, &hello, ControlPlaneId(1));
                if next == **present {
                    return None;
                }
                transaction.update(&next);
            }
            Operation::Disconnected { instance } => {
                let present = self.view.container_instance(*instance)?;
                if !present.agent_connected {
                    return None;
                }
                transaction.update(&ContainerInstance { agent_connected: false, ..(**present).clone() });
            }
            Operation::Lose { instance } => {
                let away = self.view.container_instance(*instance).filter(|found| !found.agent_connected)?;
                transaction.rely_on(away.key());
                let why = membership::why_lost(away);
                for task in self.view.tasks_on(*instance) {
                    if let Some(next) = lifecycle::lose(task, why.clone(), now) {
                        lifecycle::write(&self.view, &next, &mut transaction);
                    }
                }
            }
            Operation::Drain { instance, draining } => {
                let mut next = (**self.view.container_instance(*instance)?).clone();
                let Capacity::Cluster(member) = &mut next.capacity else { return None };
                let wanted = match draining {
                    true => container_instance::Status::Draining,
                    false => container_instance::Status::Active,
                };
                if member.status == wanted {
                    return None;
                }
                member.status = wanted;
                transaction.update(&next);
            }
        }
        if transaction.is_empty() {
            return None;
        }
        discovery::revise(&self.view, &mut transaction);
        events::add(&self.view, &mut transaction, now, random);
        Some(transaction.into_commit())
    }

    /// `None` on a conflict.
    pub fn commit(&mut self, commit: Commit) -> Option<Arc<Batch>> {
        let batch = self.index.commit(commit).ok()?.ok()?;
        for change in &batch.changes {
            // The simulation writes only records that the view knows.
            let _ = self.view.apply(change);
        }
        Some(batch)
    }

    fn request(&self, kind: Kind, count: u32) -> Request {
        let definition = Arc::new(definition(kind));
        let network =
            || Network { subnets: self.view.subnets.iter().cloned().collect(), security_groups: Vec::new() };
        let zone = PlacementStrategy::Spread(SpreadField::Attribute(ZONE.to_owned()));
        let (constraints, strategies) = match kind {
            Kind::Fargate | Kind::AnyPort => (Vec::new(), Vec::new()),
            Kind::OnePort => (Vec::new(), vec![PlacementStrategy::Random]),
            Kind::Distinct => (vec![PlacementConstraint::DistinctInstance], vec![zone]),
        };
        Request {
            scope: scope(),
            cluster: NAME.to_owned(),
            size: placement::size(None, &definition),
            definition,
            count,
            overrides: None,
            launch_type: if kind == Kind::Fargate { LaunchType::Fargate } else { LaunchType::Ec2 },
            network: (kind == Kind::Fargate).then(network),
            constraints,
            strategies,
            capacity_providers: Vec::new(),
            provider: None,
            instances: None,
            group: format!("family:{}", kind.family()),
            started_by: None,
            tags: Tags::default(),
        }
    }
}

/// Every other instance is one of the cluster, the rest are for Fargate.
fn capacity(number: usize) -> Capacity {
    if number.is_multiple_of(2) {
        return Capacity::Fargate;
    }
    Capacity::Cluster(Membership {
        scope: scope(),
        cluster: NAME.to_owned(),
        launch_type: LaunchType::Ec2,
        ec2_instance_id: Some(format!("i-{number:017x}")),
        launched: false,
        capacity_provider: None,
        status: container_instance::Status::Active,
    })
}

fn hello(instance: ContainerInstanceId, resources: Resources) -> Hello {
    Hello {
        instance,
        name: format!("instance-{instance}"),
        resources,
        cpu_architecture: CpuArchitecture::X86_64,
        attributes: BTreeMap::new(),
        ports: Ports::default(),
        gpus: Vec::new(),
        agent: AgentVersion::default(),
        tags: Tags::default(),
    }
}

/// The id in the key of a task's record.
pub fn task_of(key: &str) -> Option<TaskId> {
    let id = key.strip_prefix(longshore_model::task::Task::TABLE)?.rsplit('/').next()?;
    id.parse().ok()
}

/// An essential container and one beside it.
fn definition(kind: Kind) -> TaskDefinition {
    let host_port = match kind {
        Kind::Fargate | Kind::Distinct => None,
        Kind::AnyPort => Some(0),
        Kind::OnePort => Some(8080),
    };
    let mapping = host_port.map(|port| PortMapping {
        container_port: 80,
        host_port: Some(port),
        protocol: None,
        name: None,
    });
    let container = |name: &str, essential: bool| ContainerDefinition {
        name: name.to_owned(),
        image: "app".to_owned(),
        cpu: 0,
        memory: None,
        memory_reservation: None,
        essential,
        entry_point: None,
        command: None,
        environment: Vec::new(),
        secrets: Vec::new(),
        working_directory: None,
        user: None,
        readonly_root_filesystem: None,
        port_mappings: mapping.clone().filter(|_| essential).into_iter().collect(),
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
        family: kind.family().to_owned(),
        revision: 1,
        status: task_definition::Status::Active,
        containers: vec![container("main", true), container("side", false)],
        network_mode: Some(if kind == Kind::Fargate { NetworkMode::Awsvpc } else { NetworkMode::Bridge }),
        requires_compatibilities: Vec::new(),
        cpu: Some(256),
        memory: Some(512),
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
