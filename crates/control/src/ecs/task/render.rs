//! A task as describe calls show it.

use super::super::tag;
use super::super::task_definition::environment;
use longshore_ecs as ecs;
use longshore_engine::View;
use longshore_engine::assignment::{hostname, runtime_id};
use longshore_engine::lifecycle;
use longshore_model::cluster::arn_of;
use longshore_model::task::{
    Attachment, Container, ContainerOverride, Health, HostPort, LastStatus, LaunchType, Overrides, StopCode,
    Task,
};
use longshore_model::task_definition::{self, ContainerDefinition, Protocol};
use longshore_model::{arn, container_instance};
use longshore_wire::Timestamp;

/// GiB of ephemeral storage that a Fargate task has where its definition names none.
const EPHEMERAL_STORAGE: i32 = 20;

pub fn task(view: &View, t: &Task, with_tags: bool) -> ecs::Task {
    let definition = view.task_definition(&t.scope, &t.family, t.revision);
    let defined = |name: &str| definition.and_then(|d| d.containers.iter().find(|c| c.name == name));
    let on_fargate = t.launch_type == LaunchType::Fargate;
    let on_instance = !on_fargate && t.waiting.is_none();
    let sized = |amount: u64| (on_fargate || amount > 0).then(|| amount.to_string());
    let at = |time: Option<longshore_model::Timestamp>| time.map(|time| Timestamp(time.millis()));
    ecs::Task {
        attachments: Some(t.network.iter().map(|network| attachment(t, network)).collect()),
        attributes: Some(vec![cpu_architecture(view, t)]),
        availability_zone: Some(t.availability_zone.clone()).filter(|zone| !zone.is_empty()),
        capacity_provider_name: t.capacity_provider.as_deref().map(str::to_owned),
        cluster_arn: Some(arn_of(&t.scope, &t.cluster)),
        connectivity: t.times.connectivity_at.map(|_| ecs::Connectivity::Connected),
        connectivity_at: at(t.times.connectivity_at),
        container_instance_arn: on_instance
            .then(|| container_instance::arn_of(&t.scope, &t.cluster, t.container_instance)),
        containers: Some(t.containers.iter().map(|c| container(t, c, defined(&c.name))).collect()),
        cpu: sized(t.size.cpu),
        created_at: at(Some(t.times.created_at)),
        desired_status: Some(t.desired_status.as_str().to_owned()),
        enable_execute_command: Some(false),
        execution_stopped_at: at(t.times.execution_stopped_at),
        group: Some(t.group.clone()),
        health_status: Some(health(definition.map_or(Health::Unknown, |d| lifecycle::health(t, d)))),
        inference_accelerators: Some(Vec::new()),
        last_status: Some(t.last_status.as_str().to_owned()),
        launch_type: Some(launch_type(t.launch_type)),
        memory: sized(t.size.memory),
        overrides: Some(overrides(t)),
        platform_version: on_fargate.then(|| "1.4.0".to_owned()),
        platform_family: on_fargate.then(|| "Linux".to_owned()),
        pull_started_at: at(t.times.pull_started_at),
        pull_stopped_at: at(t.times.pull_stopped_at),
        started_at: at(t.times.started_at),
        started_by: t.started_by.clone(),
        stop_code: t.stop.as_ref().map(|stop| stop_code(stop.code)),
        stopped_at: at(t.times.stopped_at),
        stopped_reason: t.stop.as_ref().map(|stop| stop.reason.clone()),
        stopping_at: at(t.times.stopping_at),
        tags: Some(if with_tags { tag::render(&t.tags) } else { Vec::new() }),
        task_arn: Some(t.arn()),
        task_definition_arn: Some(task_definition::arn_of(&t.scope, &t.family, t.revision)),
        version: i64::try_from(t.version).ok(),
        ephemeral_storage: on_fargate.then_some(ecs::EphemeralStorage { size_in_gib: EPHEMERAL_STORAGE }),
        fargate_ephemeral_storage: on_fargate
            .then_some(ecs::TaskEphemeralStorage { size_in_gib: Some(EPHEMERAL_STORAGE), kms_key_id: None }),
    }
}

fn attachment(t: &Task, network: &Attachment) -> ecs::Attachment {
    let status = match t.last_status {
        LastStatus::Provisioning if t.times.connectivity_at.is_none() => "PRECREATED",
        LastStatus::Stopped => "DELETED",
        LastStatus::Deprovisioning => "DETACHING",
        LastStatus::Provisioning
        | LastStatus::Pending
        | LastStatus::Activating
        | LastStatus::Running
        | LastStatus::Deactivating
        | LastStatus::Stopping => "ATTACHED",
    };
    let detail =
        |name: &str, value: String| ecs::KeyValuePair { name: Some(name.to_owned()), value: Some(value) };
    ecs::Attachment {
        id: Some(network.id.to_string()),
        r#type: Some("ElasticNetworkInterface".to_owned()),
        status: Some(status.to_owned()),
        details: Some(vec![
            detail("subnetId", network.subnet.clone()),
            detail("networkInterfaceId", network.network_interface.clone()),
            detail("macAddress", network.mac.to_string()),
            detail("privateDnsName", hostname(t)),
            detail("privateIPv4Address", network.address.to_string()),
        ]),
    }
}

fn cpu_architecture(view: &View, t: &Task) -> ecs::Attribute {
    let instance = view.container_instance(t.container_instance);
    let architecture = instance.map(|instance| instance.cpu_architecture).unwrap_or_default();
    ecs::Attribute {
        name: "ecs.cpu-architecture".to_owned(),
        value: Some(architecture.attribute().to_owned()),
        target_type: None,
        target_id: None,
    }
}

pub fn launch_type(launch_type: LaunchType) -> ecs::LaunchType {
    match launch_type {
        LaunchType::Fargate => ecs::LaunchType::Fargate,
        LaunchType::Ec2 => ecs::LaunchType::Ec2,
        LaunchType::External => ecs::LaunchType::External,
    }
}

fn health(health: Health) -> ecs::HealthStatus {
    match health {
        Health::Unknown => ecs::HealthStatus::Unknown,
        Health::Healthy => ecs::HealthStatus::Healthy,
        Health::Unhealthy => ecs::HealthStatus::Unhealthy,
    }
}

/// The ports that lead to a container, once it is there to be led to.
fn network_bindings(t: &Task, c: &Container) -> Vec<ecs::NetworkBinding> {
    let own = t.host_ports.iter().filter(|port| port.container == c.name && c.was_running);
    let binding = |port: &HostPort| ecs::NetworkBinding {
        bind_ip: Some("0.0.0.0".to_owned()),
        container_port: Some(port.container_port.into()),
        host_port: Some(port.host_port.into()),
        protocol: Some(transport_protocol(port.protocol)),
        container_port_range: None,
        host_port_range: None,
    };
    own.map(binding).collect()
}

fn transport_protocol(protocol: Protocol) -> ecs::TransportProtocol {
    match protocol {
        Protocol::Tcp => ecs::TransportProtocol::Tcp,
        Protocol::Udp => ecs::TransportProtocol::Udp,
    }
}

fn container(t: &Task, c: &Container, defined: Option<&ContainerDefinition>) -> ecs::Container {
    let changed = t.container_override(&c.name);
    let number = |of_override: fn(&ContainerOverride) -> Option<u64>, of_definition: Option<u64>| {
        changed.and_then(of_override).or(of_definition).map(|number| number.to_string())
    };
    ecs::Container {
        container_arn: Some(arn::ecs(&t.scope, format_args!("container/{}/{}/{}", t.cluster, t.id, c.uuid))),
        task_arn: Some(t.arn()),
        name: Some(c.name.clone()),
        image: defined.map(|definition| definition.image.clone()),
        image_digest: c.image_digest.clone(),
        runtime_id: c.was_running.then(|| runtime_id(t.id, &c.name)),
        last_status: Some(c.last_status.as_str().to_owned()),
        exit_code: c.exit_code,
        reason: c.reason.clone(),
        network_bindings: Some(network_bindings(t, c)),
        network_interfaces: Some(t.network.iter().map(network_interface).collect()),
        health_status: Some(health(c.health)),
        managed_agents: None,
        cpu: Some(number(|o| o.cpu, defined.map(|d| d.cpu)).unwrap_or_else(|| "0".to_owned())),
        memory: number(|o| o.memory, defined.and_then(|d| d.memory)),
        memory_reservation: number(|o| o.memory_reservation, defined.and_then(|d| d.memory_reservation)),
        gpu_ids: None,
    }
}

fn network_interface(network: &Attachment) -> ecs::NetworkInterface {
    ecs::NetworkInterface {
        attachment_id: Some(network.id.to_string()),
        private_ipv4_address: Some(network.address.to_string()),
        ipv6_address: None,
    }
}

/// Every container has an entry, as AWS shows it, whether it was overridden or not.
fn overrides(t: &Task) -> ecs::TaskOverride {
    let Overrides { containers: _, cpu, memory, execution_role_arn } =
        t.overrides.as_deref().cloned().unwrap_or_default();
    let one = |c: &Container| {
        let changed = t.container_override(&c.name).cloned().unwrap_or_default();
        let number = |number: Option<u64>| number.and_then(|number| i32::try_from(number).ok());
        ecs::ContainerOverride {
            name: Some(c.name.clone()),
            command: changed.command,
            environment: (!changed.environment.is_empty()).then(|| environment(&changed.environment)),
            cpu: number(changed.cpu),
            memory: number(changed.memory),
            memory_reservation: number(changed.memory_reservation),
            ..ecs::ContainerOverride::default()
        }
    };
    ecs::TaskOverride {
        container_overrides: Some(t.containers.iter().map(one).collect()),
        cpu: cpu.map(|cpu| cpu.to_string()),
        memory: memory.map(|memory| memory.to_string()),
        execution_role_arn,
        inference_accelerator_overrides: Some(Vec::new()),
        ..ecs::TaskOverride::default()
    }
}

fn stop_code(code: StopCode) -> ecs::TaskStopCode {
    match code {
        StopCode::TaskFailedToStart => ecs::TaskStopCode::TaskFailedToStart,
        StopCode::EssentialContainerExited => ecs::TaskStopCode::EssentialContainerExited,
        StopCode::UserInitiated => ecs::TaskStopCode::UserInitiated,
        StopCode::ServiceSchedulerInitiated => ecs::TaskStopCode::ServiceSchedulerInitiated,
        StopCode::SpotInterruption => ecs::TaskStopCode::SpotInterruption,
        StopCode::TerminationNotice => ecs::TaskStopCode::TerminationNotice,
        // The API has no code for it; AWS shows the reason alone.
        StopCode::InfrastructureHealth => ecs::TaskStopCode::TerminationNotice,
    }
}
