//! A task as describe calls show it.

use super::super::tag;
use super::super::task_definition::environment;
use longshore_ecs as ecs;
use longshore_engine::View;
use longshore_engine::assignment::hostname;
use longshore_model::arn;
use longshore_model::cluster::arn_of;
use longshore_model::container_instance::{ContainerInstance, CpuArchitecture};
use longshore_model::task::{Container, ContainerOverride, LastStatus, Overrides, StopCode, Task};
use longshore_model::task_definition::{self, ContainerDefinition};
use longshore_wire::Timestamp;

/// GiB of ephemeral storage that a Fargate task has where its definition names none.
const EPHEMERAL_STORAGE: i32 = 20;

pub fn task(view: &View, t: &Task, with_tags: bool) -> ecs::Task {
    let definition = view.task_definition(&t.scope, &t.family, t.revision);
    let defined = |name: &str| definition.and_then(|d| d.containers.iter().find(|c| c.name == name));
    let at = |time: Option<longshore_model::Timestamp>| time.map(|time| Timestamp(time.millis()));
    ecs::Task {
        attachments: Some(vec![attachment(t)]),
        attributes: Some(vec![cpu_architecture(view, t)]),
        availability_zone: Some(t.availability_zone.clone()),
        capacity_provider_name: None,
        cluster_arn: Some(arn_of(&t.scope, &t.cluster)),
        connectivity: t.times.connectivity_at.map(|_| ecs::Connectivity::Connected),
        connectivity_at: at(t.times.connectivity_at),
        container_instance_arn: None,
        containers: Some(t.containers.iter().map(|c| container(t, c, defined(&c.name))).collect()),
        cpu: Some(t.size.cpu.to_string()),
        created_at: at(Some(t.times.created_at)),
        desired_status: Some(t.desired_status.as_str().to_owned()),
        enable_execute_command: Some(false),
        execution_stopped_at: at(t.times.execution_stopped_at),
        group: Some(t.group.clone()),
        health_status: Some(ecs::HealthStatus::Unknown),
        inference_accelerators: Some(Vec::new()),
        last_status: Some(t.last_status.as_str().to_owned()),
        launch_type: Some(ecs::LaunchType::Fargate),
        memory: Some(t.size.memory.to_string()),
        overrides: Some(overrides(t)),
        platform_version: Some("1.4.0".to_owned()),
        platform_family: Some("Linux".to_owned()),
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
        ephemeral_storage: Some(ecs::EphemeralStorage { size_in_gib: EPHEMERAL_STORAGE }),
        fargate_ephemeral_storage: Some(ecs::TaskEphemeralStorage {
            size_in_gib: Some(EPHEMERAL_STORAGE),
            kms_key_id: None,
        }),
    }
}

fn attachment(t: &Task) -> ecs::Attachment {
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
        id: Some(t.network.id.clone()),
        r#type: Some("ElasticNetworkInterface".to_owned()),
        status: Some(status.to_owned()),
        details: Some(vec![
            detail("subnetId", t.network.subnet.clone()),
            detail("networkInterfaceId", t.network.network_interface.clone()),
            detail("macAddress", t.network.mac.to_string()),
            detail("privateDnsName", hostname(t)),
            detail("privateIPv4Address", t.network.address.to_string()),
        ]),
    }
}

fn cpu_architecture(view: &View, t: &Task) -> ecs::Attribute {
    let instance = view.container_instances.get(&ContainerInstance::key_of(t.container_instance));
    let name = match instance.map(|instance| instance.cpu_architecture).unwrap_or_default() {
        CpuArchitecture::X86_64 => "x86_64",
        CpuArchitecture::Arm64 => "arm64",
    };
    ecs::Attribute {
        name: "ecs.cpu-architecture".to_owned(),
        value: Some(name.to_owned()),
        target_type: None,
        target_id: None,
    }
}

fn container(t: &Task, c: &Container, defined: Option<&ContainerDefinition>) -> ecs::Container {
    let changed = t.overrides.containers.iter().find(|changed| changed.name == c.name);
    let number = |of_override: fn(&ContainerOverride) -> Option<u64>, of_definition: Option<u64>| {
        changed.and_then(of_override).or(of_definition).map(|number| number.to_string())
    };
    ecs::Container {
        container_arn: Some(arn::ecs(&t.scope, format_args!("container/{}/{}/{}", t.cluster, t.id, c.uuid))),
        task_arn: Some(t.arn()),
        name: Some(c.name.clone()),
        image: defined.map(|definition| definition.image.clone()),
        image_digest: c.image_digest.clone(),
        runtime_id: c.runtime_id.clone(),
        last_status: Some(c.last_status.as_str().to_owned()),
        exit_code: c.exit_code,
        reason: c.reason.clone(),
        network_bindings: Some(Vec::new()),
        network_interfaces: Some(vec![ecs::NetworkInterface {
            attachment_id: Some(t.network.id.clone()),
            private_ipv4_address: Some(t.network.address.to_string()),
            ipv6_address: None,
        }]),
        health_status: Some(ecs::HealthStatus::Unknown),
        managed_agents: None,
        cpu: Some(number(|o| o.cpu, defined.map(|d| d.cpu)).unwrap_or_else(|| "0".to_owned())),
        memory: number(|o| o.memory, defined.and_then(|d| d.memory)),
        memory_reservation: number(|o| o.memory_reservation, defined.and_then(|d| d.memory_reservation)),
        gpu_ids: None,
    }
}

/// Every container has an entry, as AWS shows it, whether it was overridden or not.
fn overrides(t: &Task) -> ecs::TaskOverride {
    let Overrides { containers, cpu, memory, execution_role_arn } = &t.overrides;
    let one = |c: &Container| {
        let changed = containers.iter().find(|changed| changed.name == c.name).cloned().unwrap_or_default();
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
        execution_role_arn: execution_role_arn.clone(),
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
