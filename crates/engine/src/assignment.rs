//! What an instance is told of a task. Invariant: an assignment is a function of the task's record and its
//! definition, so that any control plane tells an agent the same.

use crate::dns;
use crate::lifecycle;
use crate::view::View;
use longshore_model::id::stable_hash;
use longshore_model::link::{
    Assignment, ContainerSpec, LogTarget, Mount, NetworkInterface, Resolver, TaskNetwork,
};
use longshore_model::task::{ContainerOverride, Health, LaunchType, Task};
use longshore_model::task_definition::{
    ContainerDefinition, EnvironmentVariable, NetworkMode, TaskDefinition,
};
use longshore_model::vpc::{Subnet, Vpc};
use longshore_model::{ContainerInstanceId, Resources, TaskId};

/// The assignments of one instance. Log offsets are zero: who keeps the logs fills them in.
pub fn all_of(view: &View, instance: ContainerInstanceId) -> Vec<Assignment> {
    view.tasks_on(instance).filter_map(|task| of(view, task)).collect()
}

/// `None` for a task whose definition or subnet is gone, which deletion refuses while a task uses them.
pub fn of(view: &View, task: &Task) -> Option<Assignment> {
    let definition = view.task_definition(&task.scope, &task.family, task.revision)?;
    Some(Assignment {
        task: task.reference(),
        goal: lifecycle::goal(task),
        network: network(view, task, definition)?,
        hostname: hostname(task),
        resolver: resolver(view, task),
        limits: caps(task, definition),
        volumes: definition.volumes.clone(),
        containers: definition.containers.iter().map(|c| container(task, definition, c)).collect(),
    })
}

/// The container's id in the runtime, as Fargate writes it: the task's id and ten digits.
pub fn runtime_id(task: TaskId, container: &str) -> String {
    let hash = stable_hash(container.bytes());
    format!("{task}-{:010}", hash % 10_000_000_000)
}

/// The private DNS name that AWS gives a task's address; without one, the start of its id, as docker does.
pub fn hostname(task: &Task) -> String {
    let Some(network) = &task.network else {
        return task.id.to_string().chars().take(12).collect();
    };
    dns::private_name(network.address, &task.scope.region)
}

/// That of the task's VPC. A task without a network interface is in its instance's, which is the default one.
fn resolver(view: &View, task: &Task) -> Option<Resolver> {
    let of_interface = task.network.as_ref().map(|own| &own.subnet);
    let vpc = match of_interface {
        Some(subnet) => {
            let subnet = view.subnets.get(&Subnet::key_of(&task.scope, subnet))?;
            view.vpcs.get(&Vpc::key_of(&task.scope, &subnet.vpc))?
        }
        None => view.vpcs.of(&task.scope).find(|vpc| vpc.is_default)?,
    };
    Some(Resolver { address: dns::resolver_of(vpc)?, search: dns::private_domain(&task.scope.region) })
}

fn network(view: &View, task: &Task, definition: &TaskDefinition) -> Option<TaskNetwork> {
    Some(match definition.mode() {
        NetworkMode::Awsvpc => {
            let own = task.network.as_ref()?;
            let subnet = view.subnets.get(&Subnet::key_of(&task.scope, &own.subnet))?;
            let interface = NetworkInterface { address: own.address, subnet: subnet.cidr, mac: own.mac };
            TaskNetwork::Interface(interface)
        }
        NetworkMode::Bridge => TaskNetwork::Bridge { ports: task.host_ports.clone() },
        NetworkMode::Host => TaskNetwork::Host,
        NetworkMode::None => TaskNetwork::None,
    })
}

/// A task is capped where its definition, or its overrides, give it a size as a whole.
fn caps(task: &Task, definition: &TaskDefinition) -> Resources {
    let overrides = task.overrides.as_deref();
    let capped = |defined: Option<u64>, changed: Option<u64>, size| {
        if changed.or(defined).is_some() { size } else { 0 }
    };
    Resources {
        cpu: capped(definition.cpu, overrides.and_then(|o| o.cpu), task.size.cpu),
        memory: capped(definition.memory, overrides.and_then(|o| o.memory), task.size.memory),
    }
}

fn container(task: &Task, definition: &TaskDefinition, container: &ContainerDefinition) -> ContainerSpec {
    let nothing = ContainerOverride::default();
    let changed = task.container_override(&container.name).unwrap_or(&nothing);
    let record = task.containers.iter().find(|c| c.name == container.name);
    ContainerSpec {
        name: container.name.clone(),
        runtime_id: runtime_id(task.id, &container.name),
        image: container.image.clone(),
        essential: container.essential,
        was_running: record.is_some_and(|c| c.was_running),
        entry_point: container.entry_point.clone(),
        command: changed.command.clone().or_else(|| container.command.clone()),
        environment: environment(task, container, changed),
        secrets: Vec::new(),
        unresolved: None,
        working_directory: container.working_directory.clone(),
        user: container.user.clone(),
        readonly_root_filesystem: container.readonly_root_filesystem.unwrap_or(false),
        cpu: changed.cpu.unwrap_or(container.cpu),
        memory: changed.memory.or(container.memory).or(sole_memory(task, definition)),
        memory_reservation: changed.memory_reservation.or(container.memory_reservation),
        start_timeout: container.start_timeout,
        stop_timeout: container.stop_timeout,
        depends_on: container.depends_on.clone(),
        health_check: container.health_check.clone(),
        health: record.map_or(Health::Unknown, |c| c.health),
        restart_policy: container.restart_policy.clone().filter(|policy| policy.enabled),
        restarts: record.map_or(0, |c| c.restarts),
        mounts: mounts(definition, container),
        isolation: container.isolation.clone(),
        names: container.names.clone(),
        labels: container.labels.clone(),
        log: container.log.as_ref().map(|_| LogTarget { stored: 0, missing_group: false }),
    }
}

/// Its own mounts, and those of the containers that it takes volumes from.
fn mounts(definition: &TaskDefinition, container: &ContainerDefinition) -> Vec<Mount> {
    let own = container.mount_points.iter().map(|mount| (mount, mount.read_only));
    let others = container.volumes_from.iter().flat_map(|from| {
        let source = definition.containers.iter().find(|other| other.name == from.container);
        let mounts = source.into_iter().flat_map(|other| &other.mount_points);
        mounts.map(|mount| (mount, mount.read_only || from.read_only))
    });
    let mount = |(mount, read_only): (&longshore_model::task_definition::MountPoint, bool)| Mount {
        volume: mount.volume.clone(),
        container_path: mount.container_path.clone(),
        read_only,
    };
    own.chain(others).map(mount).collect()
}

/// A task's only container has the whole of the task's memory as its limit, so that running out of it is
/// seen as the container's own end.
fn sole_memory(task: &Task, definition: &TaskDefinition) -> Option<u64> {
    let memory = caps(task, definition).memory;
    (definition.containers.len() == 1 && memory > 0).then_some(memory)
}

/// The variables that ECS sets, under the definition's, under the override's.
fn environment(
    task: &Task,
    container: &ContainerDefinition,
    changed: &ContainerOverride,
) -> Vec<EnvironmentVariable> {
    let region = task.scope.region.to_string();
    let environment = match task.launch_type {
        LaunchType::Fargate => "AWS_ECS_FARGATE",
        LaunchType::Ec2 => "AWS_ECS_EC2",
        LaunchType::External => "AWS_ECS_EXTERNAL",
    };
    let set = [
        ("AWS_EXECUTION_ENV", environment.to_owned()),
        ("AWS_REGION", region.clone()),
        ("AWS_DEFAULT_REGION", region),
    ];
    let mut all: Vec<EnvironmentVariable> =
        set.into_iter().map(|(name, value)| EnvironmentVariable { name: name.to_owned(), value }).collect();
    for variable in container.environment.iter().chain(&changed.environment) {
        match all.iter_mut().find(|present| present.name == variable.name) {
            Some(present) => present.value.clone_from(&variable.value),
            None => all.push(variable.clone()),
        }
    }
    all
}
