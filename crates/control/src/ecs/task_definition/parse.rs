//! RegisterTaskDefinition's request to a record. Invariant: what is accepted here has an effect when it runs.

use super::super::{client, invalid, is_name, placement, tag};
use super::size::{cpu_units, fargate_size, mebibytes, not_negative};
use super::{isolation, together};
use crate::api::Call;
use crate::given_when_present;
use crate::refuse::{Given, unsupported};
use longshore_ecs as ecs;
use longshore_model::container_instance::CpuArchitecture;
use longshore_model::task_definition::{
    AwsLogs, Compatibility, ContainerDefinition, EnvironmentVariable, NetworkMode, PortMapping, Protocol,
    SecretReference, Status, TaskDefinition,
};
use std::collections::{BTreeMap, BTreeSet};

given_when_present!(
    ecs::ApplicationProtocol,
    ecs::EphemeralStorage,
    ecs::FirelensConfiguration,
    ecs::IpcMode,
    ecs::PidMode,
    ecs::ProxyConfiguration,
    ecs::RepositoryCredentials,
);

/// The most containers of a task.
const CONTAINERS: usize = 10;

pub fn definition(
    call: &Call,
    request: ecs::RegisterTaskDefinitionRequest,
) -> Result<TaskDefinition, ecs::Error> {
    let ecs::RegisterTaskDefinitionRequest {
        family,
        task_role_arn,
        execution_role_arn,
        network_mode,
        container_definitions,
        volumes,
        placement_constraints,
        requires_compatibilities,
        cpu,
        memory,
        tags,
        pid_mode,
        ipc_mode,
        proxy_configuration,
        inference_accelerators,
        ephemeral_storage,
        runtime_platform,
        enable_fault_injection,
    } = request;
    unsupported(&[
        ("taskRoleArn", task_role_arn.given()),
        ("pidMode", pid_mode.given()),
        ("ipcMode", ipc_mode.given()),
        ("proxyConfiguration", proxy_configuration.given()),
        ("inferenceAccelerators", inference_accelerators.given()),
        ("ephemeralStorage", ephemeral_storage.given()),
        ("enableFaultInjection", enable_fault_injection.given()),
    ])
    .map_err(client)?;
    if !is_name(&family) {
        return Err(client(format!(
            "family must be 1 to 255 letters, digits, hyphens and underscores, and is '{family}'."
        )));
    }
    let (cpu_architecture, operating_system_named) = platform(runtime_platform)?;
    let definition = TaskDefinition {
        scope: call.scope().clone(),
        family,
        revision: 0,
        status: Status::Active,
        containers: containers(container_definitions, &call.caller.scope.region)?,
        network_mode: network_mode.map(self::network_mode),
        requires_compatibilities: compatibilities(requires_compatibilities)?,
        cpu: cpu.filter(|cpu| !cpu.is_empty()).map(|cpu| cpu_units(&cpu)).transpose()?,
        memory: memory.filter(|memory| !memory.is_empty()).map(|memory| mebibytes(&memory)).transpose()?,
        execution_role_arn: execution_role_arn.filter(|arn| !arn.is_empty()),
        cpu_architecture,
        operating_system_named,
        volumes: together::volumes(volumes)?,
        placement_constraints: placement_constraints
            .unwrap_or_default()
            .into_iter()
            .map(placement::of_definition)
            .collect::<Result<_, _>>()?,
        tags: tag::parse(tags)?,
        registered_at: call.context.now(),
        registered_by: call.caller.arn(),
        deregistered_at: None,
        delete_requested_at: None,
    };
    check_sizes(&definition)?;
    together::check(&definition)?;
    isolation::check(&definition)?;
    check_ports(&definition)?;
    if definition.requires_compatibilities.contains(&Compatibility::Fargate) {
        check_fargate(&definition)?;
    }
    Ok(definition)
}

fn network_mode(mode: ecs::NetworkMode) -> NetworkMode {
    match mode {
        ecs::NetworkMode::Awsvpc => NetworkMode::Awsvpc,
        ecs::NetworkMode::Bridge => NetworkMode::Bridge,
        ecs::NetworkMode::Host => NetworkMode::Host,
        ecs::NetworkMode::None => NetworkMode::None,
    }
}

fn compatibilities(given: Option<Vec<ecs::Compatibility>>) -> Result<Vec<Compatibility>, ecs::Error> {
    let one = |compatibility| match compatibility {
        ecs::Compatibility::Ec2 => Ok(Compatibility::Ec2),
        ecs::Compatibility::External => Ok(Compatibility::External),
        ecs::Compatibility::Fargate => Ok(Compatibility::Fargate),
        ecs::Compatibility::ManagedInstances => {
            Err(client("requiresCompatibilities: MANAGED_INSTANCES is not supported by Longshore yet."))
        }
    };
    given.unwrap_or_default().into_iter().map(one).collect()
}

fn platform(platform: Option<ecs::RuntimePlatform>) -> Result<(Option<CpuArchitecture>, bool), ecs::Error> {
    let Some(ecs::RuntimePlatform { cpu_architecture, operating_system_family }) = platform else {
        return Ok((None, false));
    };
    let architecture = cpu_architecture.map(|architecture| match architecture {
        ecs::CPUArchitecture::X8664 => CpuArchitecture::X86_64,
        ecs::CPUArchitecture::Arm64 => CpuArchitecture::Arm64,
    });
    match operating_system_family {
        None => Ok((architecture, false)),
        Some(ecs::OSFamily::Linux) => Ok((architecture, true)),
        Some(other) => Err(client(format!(
            "runtimePlatform.operatingSystemFamily {} is not supported: Longshore runs LINUX containers.",
            other.as_str()
        ))),
    }
}

fn containers(
    given: Vec<ecs::ContainerDefinition>,
    region: &str,
) -> Result<Vec<ContainerDefinition>, ecs::Error> {
    if given.is_empty() {
        return Err(client("Container list cannot be empty."));
    }
    if given.len() > CONTAINERS {
        return Err(client(format!("A task definition can have at most {CONTAINERS} containers.")));
    }
    let containers: Vec<_> = given.into_iter().map(|c| container(c, region)).collect::<Result<_, _>>()?;
    let mut names = BTreeSet::new();
    if let Some(twice) = containers.iter().find(|container| !names.insert(&container.name)) {
        return Err(client(format!("Container names must be unique. '{}' is there twice.", twice.name)));
    }
    if !containers.iter().any(|container| container.essential) {
        return Err(client("At least one container must be essential."));
    }
    Ok(containers)
}

fn container(given: ecs::ContainerDefinition, region: &str) -> Result<ContainerDefinition, ecs::Error> {
    let ecs::ContainerDefinition {
        name,
        image,
        repository_credentials,
        cpu,
        memory,
        memory_reservation,
        links,
        port_mappings,
        essential,
        restart_policy,
        entry_point,
        command,
        environment,
        environment_files,
        mount_points,
        volumes_from,
        linux_parameters,
        secrets,
        depends_on,
        start_timeout,
        stop_timeout,
        version_consistency,
        hostname,
        user,
        working_directory,
        disable_networking,
        privileged,
        readonly_root_filesystem,
        dns_servers,
        dns_search_domains,
        extra_hosts,
        docker_security_options,
        interactive,
        pseudo_terminal,
        docker_labels,
        ulimits,
        log_configuration,
        health_check,
        system_controls,
        resource_requirements,
        firelens_configuration,
        credential_specs,
    } = given;
    unsupported(&[
        ("containerDefinitions.repositoryCredentials", repository_credentials.given()),
        ("containerDefinitions.links", links.given()),
        ("containerDefinitions.environmentFiles", environment_files.given()),
        (
            "containerDefinitions.versionConsistency=enabled",
            version_consistency == Some(ecs::VersionConsistency::Enabled),
        ),
        ("containerDefinitions.disableNetworking", disable_networking.given()),
        ("containerDefinitions.interactive", interactive.given()),
        ("containerDefinitions.pseudoTerminal", pseudo_terminal.given()),
        ("containerDefinitions.resourceRequirements", resource_requirements.given()),
        ("containerDefinitions.firelensConfiguration", firelens_configuration.given()),
        ("containerDefinitions.credentialSpecs", credential_specs.given()),
    ])
    .map_err(client)?;
    let name = name.unwrap_or_default();
    if name.is_empty() {
        return Err(client("Container.name should not be null or empty."));
    }
    if !is_name(&name) {
        return Err(client(format!(
            "Container.name must be 1 to 255 letters, digits, hyphens and underscores, and is '{name}'."
        )));
    }
    let image = image.unwrap_or_default();
    if image.is_empty() {
        return Err(client("Container.image should not be null or empty."));
    }
    let labels = docker_labels.unwrap_or_default();
    isolation::check_labels(&labels)?;
    let environment = environment_variables(environment)?;
    let secrets = secret_references(secrets, &environment)?;
    Ok(ContainerDefinition {
        name,
        image,
        cpu: not_negative("containerDefinitions.cpu", cpu.unwrap_or(0))?,
        memory: memory.map(|memory| at_least("memory", memory, 4)).transpose()?,
        memory_reservation: memory_reservation.map(|m| at_least("memoryReservation", m, 4)).transpose()?,
        essential: essential.unwrap_or(true),
        entry_point: entry_point.filter(|words| !words.is_empty()),
        command: command.filter(|words| !words.is_empty()),
        environment,
        secrets,
        working_directory: working_directory.filter(|directory| !directory.is_empty()),
        user: user.filter(|user| !user.is_empty()),
        readonly_root_filesystem,
        port_mappings: port_mappings
            .unwrap_or_default()
            .into_iter()
            .map(port_mapping)
            .collect::<Result<_, _>>()?,
        log: log_configuration.map(|log| awslogs(log, region)).transpose()?,
        start_timeout: together::start_timeout(start_timeout)?,
        stop_timeout: stop_timeout.map(seconds).transpose()?,
        depends_on: together::dependencies(depends_on),
        health_check: health_check.map(together::health_check).transpose()?,
        restart_policy: restart_policy.map(together::restart_policy).transpose()?,
        mount_points: together::mount_points(mount_points)?,
        volumes_from: together::volumes_from(volumes_from),
        isolation: isolation::isolation(isolation::Said {
            privileged,
            security_options: docker_security_options,
            linux: linux_parameters,
            ulimits,
            system_controls,
        })?,
        names: isolation::names(isolation::SaidNames {
            hostname,
            dns_servers,
            dns_search_domains,
            extra_hosts,
        })?,
        labels,
    })
}

pub fn at_least(field: &str, value: i32, least: u64) -> Result<u64, ecs::Error> {
    let value = not_negative(field, value)?;
    if value < least {
        return Err(client(format!(
            "Invalid '{field}' setting for container: it must be at least {least} MiB."
        )));
    }
    Ok(value)
}

fn seconds(timeout: i32) -> Result<u32, ecs::Error> {
    let seconds = u32::try_from(timeout).ok().filter(|seconds| *seconds <= 120);
    seconds.ok_or_else(|| client(format!("stopTimeout must be between 0 and 120 seconds, and is {timeout}.")))
}

pub fn environment_variables(
    given: Option<Vec<ecs::KeyValuePair>>,
) -> Result<Vec<EnvironmentVariable>, ecs::Error> {
    let one = |ecs::KeyValuePair { name, value }| {
        let name = name.unwrap_or_default();
        let value = value.unwrap_or_default();
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(client(format!("The environment variable name '{name}' is not valid.")));
        }
        Ok(EnvironmentVariable { name, value })
    };
    given.unwrap_or_default().into_iter().map(one).collect()
}

fn secret_references(
    given: Option<Vec<ecs::Secret>>,
    environment: &[EnvironmentVariable],
) -> Result<Vec<SecretReference>, ecs::Error> {
    let mut names: BTreeSet<&str> = environment.iter().map(|variable| variable.name.as_str()).collect();
    let given = given.unwrap_or_default();
    for ecs::Secret { name, value_from } in &given {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(client(format!("The secret name '{name}' is not valid.")));
        }
        if value_from.is_empty() {
            return Err(client(format!("The secret {name} needs a valueFrom.")));
        }
        if !names.insert(name) {
            return Err(client(format!(
                "The secret name must be unique and not shared with any new or existing environment variables set on the \
                 container, such as '{name}'."
            )));
        }
    }
    Ok(given
        .into_iter()
        .map(|ecs::Secret { name, value_from }| SecretReference { name, value_from })
        .collect())
}

fn port_mapping(given: ecs::PortMapping) -> Result<PortMapping, ecs::Error> {
    let ecs::PortMapping { container_port, host_port, protocol, name, app_protocol, container_port_range } =
        given;
    unsupported(&[
        ("portMappings.appProtocol", app_protocol.given()),
        ("portMappings.containerPortRange", container_port_range.given()),
    ])
    .map_err(client)?;
    let port = |field: &str, port: i32| {
        u16::try_from(port)
            .map_err(|_| client(format!("{field} must be between 0 and 65535, and is {port}.")))
    };
    let container_port = container_port.ok_or_else(|| client("A port mapping needs a containerPort."))?;
    Ok(PortMapping {
        container_port: port("containerPort", container_port)?,
        host_port: host_port.map(|host_port| port("hostPort", host_port)).transpose()?,
        protocol: protocol.map(|protocol| match protocol {
            ecs::TransportProtocol::Tcp => Protocol::Tcp,
            ecs::TransportProtocol::Udp => Protocol::Udp,
        }),
        name,
    })
}

fn awslogs(given: ecs::LogConfiguration, task_region: &str) -> Result<AwsLogs, ecs::Error> {
    let ecs::LogConfiguration { log_driver, options, secret_options } = given;
    unsupported(&[("logConfiguration.secretOptions", secret_options.given())]).map_err(client)?;
    if log_driver != ecs::LogDriver::Awslogs {
        return Err(client(format!(
            "The log driver {} is not supported by Longshore yet: use awslogs.",
            log_driver.as_str()
        )));
    }
    let options = options.unwrap_or_default();
    let known = ["awslogs-group", "awslogs-region", "awslogs-stream-prefix", "awslogs-create-group", "mode"];
    if let Some(unknown) = options.keys().find(|option| !known.contains(&option.as_str())) {
        return Err(client(format!("The awslogs option {unknown} is not supported by Longshore yet.")));
    }
    if let Some(mode) = options.get("mode").filter(|mode| *mode != "blocking") {
        return Err(client(format!(
            "The awslogs mode {mode} is not supported by Longshore yet: use blocking."
        )));
    }
    let group = options.get("awslogs-group").filter(|group| !group.is_empty()).cloned();
    Ok(AwsLogs {
        group: group.ok_or_else(|| client("Log driver awslogs requires options: awslogs-group"))?,
        region: options.get("awslogs-region").cloned().unwrap_or_else(|| task_region.to_owned()),
        stream_prefix: options.get("awslogs-stream-prefix").cloned(),
        create_group: create_group(&options)?,
        options,
    })
}

fn create_group(options: &BTreeMap<String, String>) -> Result<bool, ecs::Error> {
    match options.get("awslogs-create-group").map(String::as_str) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(client(format!("awslogs-create-group must be true or false, and is '{other}'."))),
    }
}

fn check_sizes(definition: &TaskDefinition) -> Result<(), ecs::Error> {
    for container in &definition.containers {
        let name = &container.name;
        if definition.memory.is_none() && container.memory.is_none() && container.memory_reservation.is_none()
        {
            return Err(client(format!(
                "Invalid setting for container '{name}'. At least one of 'memory' or 'memoryReservation' must be specified."
            )));
        }
        if container.memory.zip(container.memory_reservation).is_some_and(|(hard, soft)| hard < soft) {
            return Err(client(format!(
                "Invalid setting for container '{name}'. 'memory' must not be less than 'memoryReservation'."
            )));
        }
    }
    let sum = |of: fn(&ContainerDefinition) -> u64| definition.containers.iter().map(of).sum::<u64>();
    if definition.cpu.is_some_and(|cpu| sum(|c| c.cpu) > cpu) {
        return Err(client(
            "The sum of all container cpu values cannot be greater than the value of the task cpu.",
        ));
    }
    let memory = sum(|c| c.memory_reservation.or(c.memory).unwrap_or(0));
    if definition.memory.is_some_and(|most| memory > most) {
        return Err(client(
            "The sum of all container memory values cannot be greater than the value of the task memory.",
        ));
    }
    Ok(())
}

fn check_fargate(definition: &TaskDefinition) -> Result<(), ecs::Error> {
    if definition.network_mode != Some(NetworkMode::Awsvpc) {
        return Err(client("Fargate only supports network mode \u{2018}awsvpc\u{2019}."));
    }
    let (Some(cpu), Some(memory)) = (definition.cpu, definition.memory) else {
        return Err(client("Fargate requires that 'cpu' and 'memory' be defined at the task level."));
    };
    fargate_size(cpu, memory)?;
    if !definition.placement_constraints.is_empty() {
        return Err(client("Placement constraints are not supported with FARGATE launch type."));
    }
    if definition.volumes.iter().any(|volume| volume.host_path.is_some()) {
        return Err(client(
            "host.sourcePath is not supported on Fargate: leave it out for a volume of the task.",
        ));
    }
    let has_secrets = definition.containers.iter().any(|container| !container.secrets.is_empty());
    if has_secrets && definition.execution_role_arn.is_none() {
        return Err(client(
            "When you are specifying container secrets on Fargate, you must also specify a value for 'executionRoleArn'.",
        ));
    }
    for container in &definition.containers {
        if container.stop_timeout.is_some_and(|seconds| seconds < 2) {
            return Err(invalid("stopTimeout must be between 2 and 120 seconds on Fargate."));
        }
        isolation::check_fargate(container)?;
    }
    Ok(())
}

/// Host ports that the network mode cannot give, and those that two containers of the task would need at once.
fn check_ports(definition: &TaskDefinition) -> Result<(), ecs::Error> {
    let mode = definition.mode();
    let mut taken = BTreeSet::new();
    for mapping in definition.containers.iter().flat_map(|container| &container.port_mappings) {
        let moved = mapping.host_port.is_some_and(|host| host != mapping.container_port);
        let host_port = match mode {
            NetworkMode::Awsvpc | NetworkMode::Host if moved => {
                return Err(client(format!(
                    "When networkMode={}, the host ports and container ports in port mappings must match.",
                    mode.as_str()
                )));
            }
            NetworkMode::Awsvpc | NetworkMode::Host => Some(mapping.container_port),
            NetworkMode::Bridge => mapping.host_port.filter(|port| *port != 0),
            NetworkMode::None => {
                return Err(client("Port mappings are not supported when networkMode=none."));
            }
        };
        if host_port.is_some_and(|port| !taken.insert((mapping.protocol.unwrap_or_default(), port))) {
            return Err(client(format!(
                "Two port mappings of the task definition need the same host port {}.",
                host_port.unwrap_or_default()
            )));
        }
    }
    Ok(())
}
