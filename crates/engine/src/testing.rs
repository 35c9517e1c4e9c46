//! Records for tests: one cluster, one definition of two containers, one task.

use crate::placement::{Network, Request, place};
use crate::service::deployment;
use crate::{View, default_vpc};
use longshore_model::change::{Change, View as _, Write};
use longshore_model::cluster::{Cluster, ContainerInsights};
use longshore_model::container_instance::{
    AgentVersion, Capacity, ContainerInstance, CpuArchitecture, Ports,
};
use longshore_model::elb::{
    Action, ForwardGroup, GroupProtocol, HealthCheck, HealthCheckProtocol, Listener, Protocol,
    ProtocolVersion, TargetGroup, TargetType,
};
use longshore_model::id::IdSource;
use longshore_model::service::Service;
use longshore_model::task::{LaunchType, Task};
use longshore_model::task_definition::{
    ContainerDefinition, Isolation, Names, NetworkMode, Status, TaskDefinition,
};
use longshore_model::{Resources, Scope, Tags, Timestamp, Transaction};
use std::collections::BTreeMap;
use std::sync::Arc;

pub struct Count(pub u128);

impl IdSource for Count {
    fn next_u128(&mut self) -> u128 {
        self.0 += 1;
        (self.0 << 64) | self.0
    }
}

pub fn scope() -> Scope {
    Scope::new("123456789012", "us-east-1")
}

pub fn definition() -> TaskDefinition {
    TaskDefinition {
        scope: scope(),
        family: "web".to_owned(),
        revision: 1,
        status: Status::Active,
        containers: vec![container("app", true), container("side", false)],
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

fn container(name: &str, essential: bool) -> ContainerDefinition {
    ContainerDefinition {
        name: name.to_owned(),
        image: "busybox".to_owned(),
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
    }
}

pub fn instance(id: u128, cpu: u64, memory: u64) -> ContainerInstance {
    ContainerInstance {
        id: longshore_model::ContainerInstanceId(id),
        name: format!("instance-{id}"),
        capacity: Capacity::Fargate,
        resources: Resources { cpu, memory },
        cpu_architecture: CpuArchitecture::X86_64,
        attributes: BTreeMap::new(),
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

pub fn apply(view: &mut View, transaction: Transaction) {
    for write in transaction.into_commit().writes {
        let value = write.value().map(Arc::from);
        let key = match write {
            Write::Create { key, .. } | Write::Update { key, .. } | Write::Delete { key } => key,
        };
        view.apply(&Change { key, value }).unwrap();
    }
}

/// A view with a cluster, the default VPC and the given instances.
pub fn view(instances: &[ContainerInstance]) -> View {
    let mut view = View::default();
    let mut transaction = Transaction::at(longshore_model::Version(0));
    let made = default_vpc::make(&scope(), "172.31.0.0/16".parse().unwrap(), &mut Count(1 << 32));
    transaction.create(&made.vpc);
    made.subnets.iter().for_each(|subnet| transaction.create(subnet));
    transaction.create(&made.security_group);
    transaction.create(&definition());
    transaction.create(&Cluster {
        scope: scope(),
        name: "default".to_owned(),
        status: longshore_model::cluster::Status::Active,
        container_insights: ContainerInsights::Disabled,
        capacity_providers: Vec::new(),
        default_strategy: Vec::new(),
        tags: Tags::default(),
        created_at: Timestamp(1),
    });
    instances.iter().for_each(|instance| transaction.create(instance));
    apply(&mut view, transaction);
    view
}

pub fn request(view: &View, count: u32) -> Request {
    Request {
        scope: scope(),
        cluster: "default".to_owned(),
        definition: Arc::new(definition()),
        count,
        overrides: None,
        size: crate::placement::size(None, &definition()),
        launch_type: LaunchType::Fargate,
        network: Some(Network {
            subnets: view.subnets.iter().cloned().collect(),
            security_groups: Vec::new(),
        }),
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

pub fn task() -> Task {
    let view = view(&[instance(1, 1024, 4096)]);
    let placed = place(&view, &request(&view, 1), Timestamp(10), &mut Count(0));
    placed.tasks.into_iter().next().map(|(task, _)| task).unwrap()
}

/// A service of one task, with its first deployment.
pub fn service() -> Service {
    Service {
        desired_count: 1,
        deployments: vec![deployment(
            &definition(),
            None,
            None,
            Vec::new(),
            Vec::new(),
            Timestamp(1000),
            &mut Count(9),
        )],
        ..Service::new(scope(), "default", "web", LaunchType::Ec2, Timestamp(1000))
    }
}

/// Of the load balancer that listeners are of.
pub const PATH: &str = "app/alb/0000000000000001";

/// A target group for addresses, checked by HTTP.
pub fn target_group(name: &str) -> TargetGroup {
    TargetGroup {
        scope: scope(),
        name: name.to_owned(),
        id: format!("{:016x}", name.len()),
        vpc: "vpc-1".to_owned(),
        target_type: TargetType::Ip,
        protocol: GroupProtocol::Http,
        protocol_version: ProtocolVersion::Http1,
        port: 80,
        health_check: HealthCheck {
            enabled: true,
            protocol: HealthCheckProtocol::Http,
            port: None,
            path: Some("/".to_owned()),
            interval: 30,
            timeout: 5,
            healthy_threshold: 5,
            unhealthy_threshold: 2,
            matcher: None,
        },
        attributes: Default::default(),
        tags: Tags::default(),
        created_at: Timestamp(1),
    }
}

/// A listener that sends everything to the group `blue`.
pub fn listener(port: u16) -> Listener {
    let groups = vec![ForwardGroup { target_group: "blue".to_owned(), weight: 1 }];
    Listener {
        scope: scope(),
        load_balancer: PATH.to_owned(),
        id: format!("{port:016x}"),
        protocol: Protocol::Http,
        port,
        certificates: Vec::new(),
        ssl_policy: None,
        default_actions: vec![Action::Forward { groups, stickiness: None }],
        action_orders: Vec::new(),
        attributes: Default::default(),
        tags: Tags::default(),
        created_at: Timestamp(1),
    }
}
