//! Container instances: describe, list, drain, deregister.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerInstance.html>.

mod attribute;
mod register;

pub use attribute::{delete as delete_attributes, list as list_attributes, put as put_attributes};
pub use register::register;

use super::page::{Order, page};
use super::placement::query;
use super::{failure, invalid, reference, tag};
use crate::api::Call;
use longshore_ecs as ecs;
use longshore_engine::instance::with_status;
use longshore_engine::{View, lifecycle};
use longshore_model::cluster::Cluster;
use longshore_model::container_instance::{ContainerInstance, Placements, Status, arn_of};
use longshore_model::event::InstanceState;
use longshore_model::task::{LastStatus, Stop, StopCode, Task};
use longshore_model::task_definition::Protocol;
use longshore_model::{Resources, Transaction};
use longshore_wire::Timestamp;
use std::sync::Arc;

/// The `stoppedReason` of tasks on an instance that was deregistered with force.
const DEREGISTERED: &str = "Container instance deregistration forced by user";

pub async fn describe(
    call: Call,
    request: ecs::DescribeContainerInstancesRequest,
) -> Result<ecs::DescribeContainerInstancesResponse, ecs::Error> {
    let ecs::DescribeContainerInstancesRequest { cluster, container_instances, include } = request;
    if !(1..=100).contains(&container_instances.len()) {
        return Err(invalid("containerInstances must have 1 to 100 items."));
    }
    let include = include.unwrap_or_default();
    let with_tags = include.contains(&ecs::ContainerInstanceField::Tags);
    let view = call.context.view();
    let cluster = reference::cluster(&view, call.scope(), cluster.as_deref())?;
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for given in container_instances {
        match find(&view, &cluster, &given)? {
            Ok(instance) => found.push(render(&view, &instance, with_tags)),
            Err(arn) => failures.push(failure(Some(arn), "MISSING")),
        }
    }
    Ok(ecs::DescribeContainerInstancesResponse { container_instances: Some(found), failures: Some(failures) })
}

pub async fn list(
    call: Call,
    request: ecs::ListContainerInstancesRequest,
) -> Result<ecs::ListContainerInstancesResponse, ecs::Error> {
    let ecs::ListContainerInstancesRequest { cluster, filter, next_token, max_results, status } = request;
    let filter = filter.filter(|filter| !filter.is_empty());
    let filter = filter.map(|filter| query(&filter)).transpose()?;
    let view = call.context.view();
    let cluster = reference::cluster(&view, call.scope(), cluster.as_deref())?;
    let wanted = |instance: &&Arc<ContainerInstance>| {
        let status_is = |wanted: Status| instance.membership().is_some_and(|m| m.status == wanted);
        match status {
            None => !status_is(Status::Inactive),
            Some(ecs::ContainerInstanceStatus::Active) => status_is(Status::Active),
            Some(ecs::ContainerInstanceStatus::Draining) => status_is(Status::Draining),
            // An instance of ours is never between the two: it registers and deregisters in one commit.
            Some(
                ecs::ContainerInstanceStatus::Registering
                | ecs::ContainerInstanceStatus::Deregistering
                | ecs::ContainerInstanceStatus::RegistrationFailed,
            ) => false,
        }
    };
    let matches = |instance: &&Arc<ContainerInstance>| {
        filter.as_ref().is_none_or(|filter| filter.is_true_of(&view, instance))
    };
    let instances = view.instances_of(call.scope(), &cluster.name).filter(wanted).filter(matches);
    let arns = instances.filter_map(|instance| Some((instance.id.to_string(), instance.arn()?)));
    let (arns, next_token) = page(arns, Order::Ascending, next_token.as_deref(), max_results, 100)?;
    Ok(ecs::ListContainerInstancesResponse { container_instance_arns: Some(arns), next_token })
}

pub async fn update_state(
    call: Call,
    request: ecs::UpdateContainerInstancesStateRequest,
) -> Result<ecs::UpdateContainerInstancesStateResponse, ecs::Error> {
    let ecs::UpdateContainerInstancesStateRequest { cluster, container_instances, status } = request;
    let status = match status {
        ecs::ContainerInstanceStatus::Active => Status::Active,
        ecs::ContainerInstanceStatus::Draining => Status::Draining,
        ecs::ContainerInstanceStatus::Registering
        | ecs::ContainerInstanceStatus::Deregistering
        | ecs::ContainerInstanceStatus::RegistrationFailed => {
            return Err(invalid("Container instances status should be one of [ACTIVE, DRAINING]"));
        }
    };
    if !(1..=10).contains(&container_instances.len()) {
        return Err(invalid("containerInstances must have 1 to 10 items."));
    }
    let (updated, failures) = call
        .context
        .commit::<_, ecs::Error, _>(|snapshot, transaction| {
            let cluster = reference::cluster(&snapshot.view, call.scope(), cluster.as_deref())?;
            let (mut updated, mut failures) = (Vec::new(), Vec::new());
            for given in &container_instances {
                match find(&snapshot.view, &cluster, given)? {
                    Ok(instance) if has_status(&instance, Status::Inactive) => {
                        failures.push(failure(instance.arn(), "INACTIVE"));
                    }
                    Ok(instance) => {
                        let next = with_status(&instance, status);
                        if next != *instance && !updated.contains(&next) {
                            transaction.update(&next);
                        }
                        updated.push(next);
                    }
                    Err(arn) => failures.push(failure(Some(arn), "MISSING")),
                }
            }
            Ok((updated, failures))
        })
        .await?;
    let view = call.context.view();
    Ok(ecs::UpdateContainerInstancesStateResponse {
        container_instances: Some(updated.iter().map(|instance| render(&view, instance, false)).collect()),
        failures: Some(failures),
    })
}

/// Tasks that one commit stops: etcd takes 128 operations in a transaction.
const AT_ONCE: usize = 40;

/// Takes an instance out of its cluster. Without force its tasks must have ended before; with force they are
/// stopped, and are orphans until its agent has stopped them.
pub async fn deregister(
    call: Call,
    request: ecs::DeregisterContainerInstanceRequest,
) -> Result<ecs::DeregisterContainerInstanceResponse, ecs::Error> {
    let ecs::DeregisterContainerInstanceRequest { cluster, container_instance, force } = request;
    let force = force.unwrap_or(false);
    let now = call.context.now();
    let step = |view: &View, transaction: &mut Transaction| {
        let cluster = reference::cluster(view, call.scope(), cluster.as_deref())?;
        let instance = find(view, &cluster, &container_instance)?
            .ok()
            .filter(|instance| !has_status(instance, Status::Inactive))
            .ok_or_else(|| invalid("Referenced container instance not found."))?;
        if !force && view.task_count_on(instance.id) > 0 {
            return Err(invalid("Found running tasks on the instance."));
        }
        let why = Stop { code: StopCode::UserInitiated, reason: DEREGISTERED.to_owned() };
        let to_stop = |task: &Arc<Task>| lifecycle::stop(task, why.clone(), now);
        let stopping: Vec<Task> = view.tasks_on(instance.id).filter_map(to_stop).take(AT_ONCE).collect();
        for task in &stopping {
            lifecycle::write(view, task, transaction);
        }
        if stopping.len() == AT_ONCE {
            return Ok(None);
        }
        let next =
            ContainerInstance { deregistered_at: Some(now), ..with_status(&instance, Status::Inactive) };
        transaction.update(&next);
        Ok(Some(next))
    };
    let gone = loop {
        let stepped = call.context.commit(|snapshot, transaction| step(&snapshot.view, transaction)).await?;
        if let Some(gone) = stepped {
            break gone;
        }
    };
    let rendered = render(&call.context.view(), &gone, true);
    Ok(ecs::DeregisterContainerInstanceResponse { container_instance: Some(rendered) })
}

/// Agents are updated with the machine's packages. Of an instance whose agent is this server's version there is nothing
/// to update.
pub async fn update_agent(
    call: Call,
    request: ecs::UpdateContainerAgentRequest,
) -> Result<ecs::UpdateContainerAgentResponse, ecs::Error> {
    let ecs::UpdateContainerAgentRequest { cluster, container_instance } = request;
    let view = call.context.view();
    let cluster = reference::cluster(&view, call.scope(), cluster.as_deref())?;
    let instance = find(&view, &cluster, &container_instance)?;
    let instance = instance.map_err(|_| invalid("Referenced container instance not found."))?;
    let ours = env!("CARGO_PKG_VERSION");
    let theirs = &instance.agent.agent;
    if theirs == ours {
        let message = "There is no update available for your container agent.";
        return Err(ecs::Error::NoUpdateAvailableException(message.to_owned()));
    }
    Err(ecs::Error::ClientException(format!(
        "The agent of this container instance has version {theirs}, the control plane {ours}. Install longshore {ours} \
         on the machine and start its agent again; its tasks run on meanwhile."
    )))
}

/// An instance by its id or ARN; `Err` has the ARN that names none.
fn find(
    view: &View,
    cluster: &Cluster,
    given: &str,
) -> Result<Result<Arc<ContainerInstance>, String>, ecs::Error> {
    let id = reference::container_instance_id(&cluster.scope, &cluster.name, given)?;
    let found = id.and_then(|id| view.container_instance(id)).filter(|instance| {
        instance.membership().is_some_and(|m| m.scope == cluster.scope && m.cluster == cluster.name)
    });
    let named = || id.map_or_else(|| given.to_owned(), |id| arn_of(&cluster.scope, &cluster.name, id));
    Ok(found.cloned().ok_or_else(named))
}

fn has_status(instance: &ContainerInstance, status: Status) -> bool {
    instance.membership().is_some_and(|member| member.status == status)
}

/// As it is now.
pub fn render(view: &View, instance: &ContainerInstance, with_tags: bool) -> ecs::ContainerInstance {
    let tasks = view.tasks_on(instance.id);
    let ports = tasks.flat_map(|task| task.host_ports.iter().map(|port| (port.protocol, port.host_port)));
    let placements = view.placements.get(&Placements::key_of(instance.id));
    let state = InstanceState {
        instance: instance.clone(),
        used: view.used_on(instance.id),
        held_ports: ports.collect(),
        placements: placements.map_or(0, |counted| counted.count),
    };
    render_as(view, &state, with_tags)
}

/// As it was, but for how many tasks it runs.
pub fn render_as(view: &View, state: &InstanceState, with_tags: bool) -> ecs::ContainerInstance {
    let InstanceState { instance, used, held_ports, .. } = state;
    let member = instance.membership();
    let counts = counts(view, instance);
    let reserved: Vec<(Protocol, u16)> = instance.ports.reserved.clone();
    let taken: Vec<(Protocol, u16)> = reserved.iter().chain(held_ports).copied().collect();
    ecs::ContainerInstance {
        container_instance_arn: instance.arn(),
        ec2_instance_id: member.and_then(|member| member.ec2_instance_id.clone()),
        capacity_provider_name: member.and_then(|member| member.capacity_provider.clone()),
        version: i64::try_from(state.version()).ok(),
        version_info: Some(ecs::VersionInfo {
            agent_version: Some(instance.agent.agent.clone()),
            agent_hash: None,
            docker_version: Some(instance.agent.runtime.clone()),
        }),
        registered_resources: Some(resources(instance, instance.resources, &reserved)),
        remaining_resources: Some(resources(instance, instance.resources.minus(*used), &taken)),
        status: member.map(|member| member.status.as_str().to_owned()),
        status_reason: None,
        agent_connected: Some(instance.agent_connected),
        running_tasks_count: Some(counts.running),
        pending_tasks_count: Some(counts.pending),
        agent_update_status: None,
        attributes: Some(attribute::all(instance)),
        registered_at: Some(Timestamp(instance.registered_at.millis())),
        attachments: Some(Vec::new()),
        tags: Some(if with_tags { tag::render(&instance.tags) } else { Vec::new() }),
        health_status: None,
    }
}

struct Counts {
    running: i32,
    pending: i32,
}

fn counts(view: &View, instance: &ContainerInstance) -> Counts {
    let mut counts = Counts { running: 0, pending: 0 };
    for task in view.tasks_on(instance.id) {
        match task.last_status {
            LastStatus::Provisioning | LastStatus::Pending | LastStatus::Activating => counts.pending += 1,
            LastStatus::Running => counts.running += 1,
            LastStatus::Deactivating
            | LastStatus::Stopping
            | LastStatus::Deprovisioning
            | LastStatus::Stopped => {}
        }
    }
    counts
}

/// CPU and MEMORY as numbers, ports as those that are taken.
fn resources(
    instance: &ContainerInstance,
    amount: Resources,
    taken: &[(Protocol, u16)],
) -> Vec<ecs::Resource> {
    let number = |name: &str, amount: u64| ecs::Resource {
        name: Some(name.to_owned()),
        r#type: Some("INTEGER".to_owned()),
        double_value: Some(0.0),
        long_value: Some(0),
        integer_value: Some(i32::try_from(amount).unwrap_or(i32::MAX)),
        string_set_value: None,
    };
    let set = |name: &str, values: Vec<String>| ecs::Resource {
        name: Some(name.to_owned()),
        r#type: Some("STRINGSET".to_owned()),
        double_value: Some(0.0),
        long_value: Some(0),
        integer_value: Some(0),
        string_set_value: Some(values),
    };
    let ports = |protocol: Protocol| {
        let of_protocol = taken.iter().filter(|(taken, _)| *taken == protocol);
        of_protocol.map(|(_, port)| port.to_string()).collect()
    };
    let mut all = vec![
        number("CPU", amount.cpu),
        number("MEMORY", amount.memory),
        set("PORTS", ports(Protocol::Tcp)),
        set("PORTS_UDP", ports(Protocol::Udp)),
    ];
    if !instance.gpus.is_empty() {
        all.push(set("GPU", instance.gpus.clone()));
    }
    all
}
