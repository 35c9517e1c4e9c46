//! What an instance is told of a task. Invariant: an assignment is a function of the task's record and its
//! definition, so that any control plane tells an agent the same.

use crate::lifecycle;
use crate::view::View;
use longshore_model::id::stable_hash;
use longshore_model::link::{Assignment, ContainerSpec, LogTarget, NetworkInterface};
use longshore_model::task::{ContainerOverride, Task};
use longshore_model::task_definition::{ContainerDefinition, EnvironmentVariable, TaskDefinition};
use longshore_model::vpc::Subnet;
use longshore_model::{ContainerInstanceId, TaskId};

/// Seconds between the stop signal and SIGKILL where the definition names none.
pub const DEFAULT_STOP_TIMEOUT: u32 = 30;

/// The assignments of one instance. Log offsets are zero: who keeps the logs fills them in.
pub fn all_of(view: &View, instance: ContainerInstanceId) -> Vec<Assignment> {
    view.tasks_on(instance).filter_map(|task| of(view, task)).collect()
}

/// `None` for a task whose definition or subnet is gone, which deletion refuses while a task uses them.
pub fn of(view: &View, task: &Task) -> Option<Assignment> {
    let definition = view.task_definition(&task.scope, &task.family, task.revision)?;
    let subnet = view.subnets.get(&Subnet::key_of(&task.scope, &task.network.subnet))?;
    Some(Assignment {
        task: task.reference(),
        goal: lifecycle::goal(task),
        network: NetworkInterface {
            address: task.network.address,
            subnet: subnet.cidr,
            mac: task.network.mac,
            hostname: hostname(task),
        },
        limits: task.size,
        containers: definition.containers.iter().map(|c| container(task, definition, c)).collect(),
    })
}

/// The container's id in the runtime, as Fargate writes it: the task's id and ten digits.
pub fn runtime_id(task: TaskId, container: &str) -> String {
    let hash = stable_hash(container.bytes());
    format!("{task}-{:010}", hash % 10_000_000_000)
}

/// The private DNS name that AWS gives an address.
pub fn hostname(task: &Task) -> String {
    let dashed = task.network.address.to_string().replace('.', "-");
    match task.scope.region.as_ref() {
        "us-east-1" => format!("ip-{dashed}.ec2.internal"),
        region => format!("ip-{dashed}.{region}.compute.internal"),
    }
}

fn container(task: &Task, definition: &TaskDefinition, container: &ContainerDefinition) -> ContainerSpec {
    let nothing = ContainerOverride::default();
    let changed = task.overrides.containers.iter().find(|o| o.name == container.name).unwrap_or(&nothing);
    let record = task.containers.iter().find(|c| c.name == container.name);
    ContainerSpec {
        name: container.name.clone(),
        runtime_id: runtime_id(task.id, &container.name),
        image: container.image.clone(),
        essential: container.essential,
        was_running: record.is_some_and(|c| c.runtime_id.is_some()),
        entry_point: container.entry_point.clone(),
        command: changed.command.clone().or_else(|| container.command.clone()),
        environment: environment(task, container, changed),
        working_directory: container.working_directory.clone(),
        user: container.user.clone(),
        readonly_root_filesystem: container.readonly_root_filesystem.unwrap_or(false),
        cpu: changed.cpu.unwrap_or(container.cpu),
        memory: changed.memory.or(container.memory).or(sole_memory(task, definition)),
        memory_reservation: changed.memory_reservation.or(container.memory_reservation),
        stop_timeout: container.stop_timeout.unwrap_or(DEFAULT_STOP_TIMEOUT),
        log: container.log.as_ref().map(|_| LogTarget { stored: 0, missing_group: false }),
    }
}

/// A task's only container has the whole of the task's memory as its limit, so that running out of it is
/// seen as the container's own end.
fn sole_memory(task: &Task, definition: &TaskDefinition) -> Option<u64> {
    (definition.containers.len() == 1 && task.size.memory > 0).then_some(task.size.memory)
}

/// The variables that ECS sets, under the definition's, under the override's.
fn environment(
    task: &Task,
    container: &ContainerDefinition,
    changed: &ContainerOverride,
) -> Vec<EnvironmentVariable> {
    let region = task.scope.region.to_string();
    let set = [
        ("AWS_EXECUTION_ENV", "AWS_ECS_FARGATE".to_owned()),
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
