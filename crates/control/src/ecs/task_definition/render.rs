//! A task definition as describe calls show it: what the user wrote, and the defaults that AWS fills in.

use super::isolation::{check_fargate, render_control, render_host, render_linux, render_ulimit};
use super::together;
use crate::ecs::placement;
use crate::ecs::task_definition::fargate_size;
use crate::secrets;
use longshore_ecs as ecs;
use longshore_model::task_definition::{
    AwsLogs, Compatibility, ContainerDefinition, EnvironmentVariable, NetworkMode, PortMapping, Protocol,
    SecretReference, Status, TaskDefinition,
};
use longshore_wire::Timestamp;

pub fn definition(d: &TaskDefinition) -> ecs::TaskDefinition {
    ecs::TaskDefinition {
        task_definition_arn: Some(d.arn()),
        container_definitions: Some(d.containers.iter().map(|c| container(d, c)).collect()),
        family: Some(d.family.clone()),
        task_role_arn: None,
        execution_role_arn: d.execution_role_arn.clone(),
        network_mode: d.network_mode.map(network_mode),
        revision: i32::try_from(d.revision).ok(),
        volumes: Some(d.volumes.iter().map(together::render_volume).collect()),
        status: Some(match d.status {
            Status::Active => ecs::TaskDefinitionStatus::Active,
            Status::Inactive => ecs::TaskDefinitionStatus::Inactive,
            Status::DeleteInProgress => ecs::TaskDefinitionStatus::DeleteInProgress,
        }),
        requires_attributes: Some(required_attributes(d)),
        placement_constraints: Some(
            d.placement_constraints.iter().map(placement::render_of_definition).collect(),
        ),
        compatibilities: Some(compatibilities(d)),
        runtime_platform: runtime_platform(d),
        requires_compatibilities: requires_compatibilities(d),
        cpu: d.cpu.map(|cpu| cpu.to_string()),
        memory: d.memory.map(|memory| memory.to_string()),
        inference_accelerators: None,
        pid_mode: None,
        ipc_mode: None,
        proxy_configuration: None,
        registered_at: Some(Timestamp(d.registered_at.millis())),
        deregistered_at: d.deregistered_at.map(|at| Timestamp(at.millis())),
        delete_requested_at: d.delete_requested_at.map(|at| Timestamp(at.millis())),
        registered_by: Some(d.registered_by.clone()),
        ephemeral_storage: None,
        enable_fault_injection: None,
    }
}

fn network_mode(mode: NetworkMode) -> ecs::NetworkMode {
    match mode {
        NetworkMode::Awsvpc => ecs::NetworkMode::Awsvpc,
        NetworkMode::Bridge => ecs::NetworkMode::Bridge,
        NetworkMode::Host => ecs::NetworkMode::Host,
        NetworkMode::None => ecs::NetworkMode::None,
    }
}

fn compatibility(compatibility: Compatibility) -> ecs::Compatibility {
    match compatibility {
        Compatibility::Ec2 => ecs::Compatibility::Ec2,
        Compatibility::External => ecs::Compatibility::External,
        Compatibility::Fargate => ecs::Compatibility::Fargate,
    }
}

fn requires_compatibilities(d: &TaskDefinition) -> Option<Vec<ecs::Compatibility>> {
    let required = &d.requires_compatibilities;
    (!required.is_empty()).then(|| required.iter().copied().map(compatibility).collect())
}

/// The launch types that could run it.
fn compatibilities(d: &TaskDefinition) -> Vec<ecs::Compatibility> {
    let mut all = vec![ecs::Compatibility::Ec2];
    if d.network_mode != Some(NetworkMode::Awsvpc) {
        all.insert(0, ecs::Compatibility::External);
    }
    if supports_fargate(d) {
        all.push(ecs::Compatibility::Fargate);
    }
    all
}

pub fn supports_fargate(d: &TaskDefinition) -> bool {
    if d.containers.iter().any(|container| check_fargate(container).is_err()) {
        return false;
    }
    let sized = d.cpu.zip(d.memory).is_some_and(|(cpu, memory)| fargate_size(cpu, memory).is_ok());
    sized && d.network_mode == Some(NetworkMode::Awsvpc)
}

fn runtime_platform(d: &TaskDefinition) -> Option<ecs::RuntimePlatform> {
    (d.cpu_architecture.is_some() || d.operating_system_named).then(|| ecs::RuntimePlatform {
        cpu_architecture: d.cpu_architecture.map(|architecture| match architecture {
            longshore_model::container_instance::CpuArchitecture::X86_64 => ecs::CPUArchitecture::X8664,
            longshore_model::container_instance::CpuArchitecture::Arm64 => ecs::CPUArchitecture::Arm64,
        }),
        operating_system_family: d.operating_system_named.then_some(ecs::OSFamily::Linux),
    })
}

/// What an instance must be able to do, in the names that the ECS agent registers.
fn required_attributes(d: &TaskDefinition) -> Vec<ecs::Attribute> {
    let mut names = Vec::new();
    if d.containers.iter().any(|c| c.log.is_some()) {
        names.push("com.amazonaws.ecs.capability.logging-driver.awslogs");
        if d.execution_role_arn.is_some() {
            names.push("ecs.capability.execution-role-awslogs");
        }
    }
    if d.containers.iter().any(|c| c.isolation.privileged == Some(true)) {
        names.push("com.amazonaws.ecs.capability.privileged-container");
    }
    let mut sources: Vec<_> = d.containers.iter().flat_map(|c| secrets::sources(&c.secrets)).collect();
    sources.sort_unstable();
    sources.dedup();
    names.extend(sources);
    names.push("com.amazonaws.ecs.capability.docker-remote-api.1.18");
    if d.network_mode == Some(NetworkMode::Awsvpc) {
        names.push("ecs.capability.task-eni");
    }
    let attribute = |name: &str| ecs::Attribute {
        name: name.to_owned(),
        value: None,
        target_type: None,
        target_id: None,
    };
    names.into_iter().map(attribute).collect()
}

fn container(d: &TaskDefinition, c: &ContainerDefinition) -> ecs::ContainerDefinition {
    let (isolation, names) = (&c.isolation, &c.names);
    let some = |texts: &[String]| (!texts.is_empty()).then(|| texts.to_vec());
    ecs::ContainerDefinition {
        name: Some(c.name.clone()),
        image: Some(c.image.clone()),
        cpu: i32::try_from(c.cpu).ok(),
        memory: c.memory.and_then(|memory| i32::try_from(memory).ok()),
        memory_reservation: c.memory_reservation.and_then(|memory| i32::try_from(memory).ok()),
        port_mappings: Some(c.port_mappings.iter().map(|mapping| port_mapping(d, mapping)).collect()),
        essential: Some(c.essential),
        entry_point: c.entry_point.clone(),
        command: c.command.clone(),
        environment: Some(environment(&c.environment)),
        secrets: (!c.secrets.is_empty()).then(|| c.secrets.iter().map(secret).collect()),
        mount_points: Some(c.mount_points.iter().map(together::render_mount_point).collect()),
        volumes_from: Some(c.volumes_from.iter().map(together::render_volume_from).collect()),
        depends_on: (!c.depends_on.is_empty())
            .then(|| c.depends_on.iter().map(together::render_dependency).collect()),
        health_check: c.health_check.as_ref().map(together::render_health_check),
        restart_policy: c.restart_policy.as_ref().map(together::render_restart_policy),
        start_timeout: c.start_timeout.and_then(|seconds| i32::try_from(seconds).ok()),
        stop_timeout: c.stop_timeout.and_then(|seconds| i32::try_from(seconds).ok()),
        user: c.user.clone(),
        working_directory: c.working_directory.clone(),
        readonly_root_filesystem: c.readonly_root_filesystem,
        log_configuration: c.log.as_ref().map(log_configuration),
        system_controls: Some(isolation.system_controls.iter().map(render_control).collect()),
        privileged: isolation.privileged,
        docker_security_options: some(&isolation.security_options),
        linux_parameters: isolation.linux.as_ref().map(render_linux),
        ulimits: (!isolation.ulimits.is_empty())
            .then(|| isolation.ulimits.iter().filter_map(render_ulimit).collect()),
        hostname: names.hostname.clone(),
        dns_servers: some(&names.dns_servers),
        dns_search_domains: some(&names.dns_search_domains),
        extra_hosts: (!names.extra_hosts.is_empty())
            .then(|| names.extra_hosts.iter().map(render_host).collect()),
        docker_labels: (!c.labels.is_empty()).then(|| c.labels.clone()),
        ..ecs::ContainerDefinition::default()
    }
}

fn secret(reference: &SecretReference) -> ecs::Secret {
    ecs::Secret { name: reference.name.clone(), value_from: reference.value_from.clone() }
}

pub fn environment(variables: &[EnvironmentVariable]) -> Vec<ecs::KeyValuePair> {
    let pair = |v: &EnvironmentVariable| ecs::KeyValuePair {
        name: Some(v.name.clone()),
        value: Some(v.value.clone()),
    };
    variables.iter().map(pair).collect()
}

/// In awsvpc and host mode the host port is the container port, whether it was given or not.
fn port_mapping(d: &TaskDefinition, mapping: &PortMapping) -> ecs::PortMapping {
    let default = match d.network_mode {
        Some(NetworkMode::Awsvpc | NetworkMode::Host) => mapping.container_port,
        Some(NetworkMode::Bridge | NetworkMode::None) | None => 0,
    };
    ecs::PortMapping {
        container_port: Some(mapping.container_port.into()),
        host_port: Some(mapping.host_port.unwrap_or(default).into()),
        protocol: Some(match mapping.protocol.unwrap_or_default() {
            Protocol::Tcp => ecs::TransportProtocol::Tcp,
            Protocol::Udp => ecs::TransportProtocol::Udp,
        }),
        name: mapping.name.clone(),
        app_protocol: None,
        container_port_range: None,
    }
}

fn log_configuration(log: &AwsLogs) -> ecs::LogConfiguration {
    ecs::LogConfiguration {
        log_driver: ecs::LogDriver::Awslogs,
        options: Some(log.options.clone()),
        secret_options: None,
    }
}
