//! The control plane of the simulation: the store's index, the view over it, and decisions that take time, so that
//! they are made on snapshots that others have changed meanwhile.

use crate::random::Random;
use longshore_engine::placement::{self, Network, Request};
use longshore_engine::{View, default_vpc, lifecycle};
use longshore_model::change::{Batch, Commit, Version, View as _};
use longshore_model::cluster::{Cluster as ClusterRecord, ContainerInsights, Status};
use longshore_model::container_instance::{
    AgentVersion, Capacity, ContainerInstance, CpuArchitecture, Ports,
};
use longshore_model::link::Observation;
use longshore_model::task::{LaunchType, Overrides, Stop, StopCode};
use longshore_model::task_definition::{self, ContainerDefinition, NetworkMode, TaskDefinition};
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
    Run { count: u32 },
    Stop { task: TaskId },
    Observe(Box<Observation>),
    Connected { instance: ContainerInstanceId, connected: bool },
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
        transaction.create(&definition());
        transaction.create(&ClusterRecord {
            scope: scope(),
            name: NAME.to_owned(),
            status: Status::Active,
            container_insights: ContainerInsights::Disabled,
            tags: Tags::default(),
            created_at: Timestamp(1),
        });
        for (number, id) in instances.iter().enumerate() {
            transaction.create(&ContainerInstance {
                id: *id,
                name: format!("instance-{number}"),
                capacity: Capacity::Fargate,
                resources: size,
                cpu_architecture: CpuArchitecture::X86_64,
                attributes: BTreeMap::new(),
                ports: Ports::default(),
                gpus: Vec::new(),
                agent: AgentVersion::default(),
                tags: Tags::default(),
                registered_at: Timestamp(1),
                agent_connected: false,
                connected_to: None,
                version: 1,
            });
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
            Operation::Run { count } => {
                let placement = placement::place(&self.view, &self.request(*count), now, random);
                if !placement.tasks.is_empty() {
                    placement::write(&self.view, &placement, &mut transaction);
                }
            }
            Operation::Stop { task } => {
                let why =
                    Stop { code: StopCode::UserInitiated, reason: lifecycle::STOPPED_BY_USER.to_owned() };
                let task = self.view.task(&scope(), NAME, *task)?;
                transaction.update(&lifecycle::stop(task, why, now)?);
            }
            Operation::Observe(seen) => {
                let task = self.view.tasks.get(&seen.task.key())?;
                let next = lifecycle::observe(task, &definition(), seen, now)?;
                lifecycle::write(&self.view, &next, &mut transaction);
            }
            Operation::Connected { instance, connected } => {
                let instance = self.view.container_instances.get(&ContainerInstance::key_of(*instance))?;
                if instance.agent_connected == *connected {
                    return None;
                }
                transaction
                    .update(&ContainerInstance { agent_connected: *connected, ..(**instance).clone() });
            }
        }
        (!transaction.is_empty()).then(|| transaction.into_commit())
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

    fn request(&self, count: u32) -> Request {
        let definition = Arc::new(definition());
        Request {
            scope: scope(),
            cluster: NAME.to_owned(),
            size: placement::size(&Overrides::default(), &definition),
            definition,
            count,
            overrides: Overrides::default(),
            launch_type: LaunchType::Fargate,
            network: Some(Network {
                subnets: self.view.subnets.iter().cloned().collect(),
                security_groups: Vec::new(),
            }),
            constraints: Vec::new(),
            strategies: Vec::new(),
            instances: None,
            group: "family:app".to_owned(),
            started_by: None,
            tags: Tags::default(),
        }
    }
}

/// The id in the key of a task's record.
pub fn task_of(key: &str) -> Option<TaskId> {
    let id = key.strip_prefix(longshore_model::task::Task::TABLE)?.rsplit('/').next()?;
    id.parse().ok()
}

/// An essential container and one beside it.
pub fn definition() -> TaskDefinition {
    let container = |name: &str, essential| ContainerDefinition {
        name: name.to_owned(),
        image: "app".to_owned(),
        cpu: 0,
        memory: None,
        memory_reservation: None,
        essential,
        entry_point: None,
        command: None,
        environment: Vec::new(),
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
    };
    TaskDefinition {
        scope: scope(),
        family: "app".to_owned(),
        revision: 1,
        status: task_definition::Status::Active,
        containers: vec![container("main", true), container("side", false)],
        network_mode: Some(NetworkMode::Awsvpc),
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
