//! What the containers of a task are to one another: dependencies, health checks, restarts, shared volumes.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html>.

use super::super::client;
use crate::given_when_present;
use crate::refuse::{Given, unsupported};
use longshore_ecs as ecs;
use longshore_model::task_definition::{
    Condition, ContainerDefinition, Dependency, HealthCheck, MountPoint, RestartPolicy, TaskDefinition,
    Volume, VolumeFrom,
};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

given_when_present!(
    ecs::DockerVolumeConfiguration,
    ecs::EFSVolumeConfiguration,
    ecs::FSxWindowsFileServerVolumeConfiguration,
    ecs::S3FilesVolumeConfiguration,
);

pub fn dependencies(given: Option<Vec<ecs::ContainerDependency>>) -> Vec<Dependency> {
    let one = |ecs::ContainerDependency { container_name, condition }| Dependency {
        container: container_name,
        condition: match condition {
            ecs::ContainerCondition::Start => Condition::Start,
            ecs::ContainerCondition::Complete => Condition::Complete,
            ecs::ContainerCondition::Success => Condition::Success,
            ecs::ContainerCondition::Healthy => Condition::Healthy,
        },
    };
    given.unwrap_or_default().into_iter().map(one).collect()
}

pub fn health_check(given: ecs::HealthCheck) -> Result<HealthCheck, ecs::Error> {
    let ecs::HealthCheck { command, interval, retries, start_period, timeout } = given;
    match command.first().map(String::as_str) {
        Some("CMD" | "CMD-SHELL") if command.len() > 1 => {}
        _ => {
            return Err(client(
                "healthCheck.command must be CMD and the words of a command, or CMD-SHELL and one line.",
            ));
        }
    }
    Ok(HealthCheck {
        command,
        interval: seconds("healthCheck.interval", interval.unwrap_or(30), 5..=300)?,
        timeout: seconds("healthCheck.timeout", timeout.unwrap_or(5), 2..=60)?,
        retries: within("healthCheck.retries", retries.unwrap_or(3), 1..=10)?,
        start_period: start_period.map(|p| seconds("healthCheck.startPeriod", p, 0..=300)).transpose()?,
    })
}

pub fn restart_policy(given: ecs::ContainerRestartPolicy) -> Result<RestartPolicy, ecs::Error> {
    let ecs::ContainerRestartPolicy { enabled, ignored_exit_codes, restart_attempt_period } = given;
    let ignored_exit_codes = ignored_exit_codes.unwrap_or_default();
    if ignored_exit_codes.len() > 50 {
        return Err(client("restartPolicy.ignoredExitCodes can have at most 50 items."));
    }
    let period = restart_attempt_period.map(|p| seconds("restartPolicy.restartAttemptPeriod", p, 60..=1800));
    Ok(RestartPolicy {
        enabled,
        ignored_exit_codes,
        attempt_period: period.transpose()?.unwrap_or(RestartPolicy::DEFAULT_ATTEMPT_PERIOD),
    })
}

pub fn mount_points(given: Option<Vec<ecs::MountPoint>>) -> Result<Vec<MountPoint>, ecs::Error> {
    let one = |ecs::MountPoint { source_volume, container_path, read_only }| {
        let container_path = container_path.unwrap_or_default();
        if !container_path.starts_with('/') {
            return Err(client(format!(
                "mountPoints.containerPath must be an absolute path, and is '{container_path}'."
            )));
        }
        let read_only = read_only.unwrap_or(false);
        Ok(MountPoint { volume: source_volume.unwrap_or_default(), container_path, read_only })
    };
    given.unwrap_or_default().into_iter().map(one).collect()
}

pub fn volumes_from(given: Option<Vec<ecs::VolumeFrom>>) -> Vec<VolumeFrom> {
    let one = |ecs::VolumeFrom { source_container, read_only }| VolumeFrom {
        container: source_container.unwrap_or_default(),
        read_only: read_only.unwrap_or(false),
    };
    given.unwrap_or_default().into_iter().map(one).collect()
}

pub fn volumes(given: Option<Vec<ecs::Volume>>) -> Result<Vec<Volume>, ecs::Error> {
    let volumes: Vec<_> = given.unwrap_or_default().into_iter().map(volume).collect::<Result<_, _>>()?;
    let mut names = BTreeSet::new();
    match volumes.iter().find(|volume| !names.insert(&volume.name)) {
        Some(twice) => Err(client(format!("Volume names must be unique. '{}' is there twice.", twice.name))),
        None => Ok(volumes),
    }
}

fn volume(given: ecs::Volume) -> Result<Volume, ecs::Error> {
    let ecs::Volume {
        name,
        host,
        docker_volume_configuration,
        efs_volume_configuration,
        fsx_windows_file_server_volume_configuration,
        s3files_volume_configuration,
        configured_at_launch,
    } = given;
    unsupported(&[
        ("volumes.dockerVolumeConfiguration", docker_volume_configuration.given()),
        ("volumes.efsVolumeConfiguration", efs_volume_configuration.given()),
        (
            "volumes.fsxWindowsFileServerVolumeConfiguration",
            fsx_windows_file_server_volume_configuration.given(),
        ),
        ("volumes.s3filesVolumeConfiguration", s3files_volume_configuration.given()),
        ("volumes.configuredAtLaunch", configured_at_launch.given()),
    ])
    .map_err(client)?;
    let name = name.unwrap_or_default();
    if !super::super::is_name(&name) {
        return Err(client(format!(
            "volumes.name must be 1 to 255 letters, digits, hyphens and underscores, and is '{name}'."
        )));
    }
    let host_path = host.and_then(|host| host.source_path).filter(|path| !path.is_empty());
    if let Some(path) = host_path.as_ref().filter(|path| !path.starts_with('/')) {
        return Err(client(format!("volumes.host.sourcePath must be an absolute path, and is '{path}'.")));
    }
    Ok(Volume { name, host_path })
}

pub fn start_timeout(given: Option<i32>) -> Result<Option<u32>, ecs::Error> {
    given.map(|timeout| seconds("startTimeout", timeout, 2..=120)).transpose()
}

/// What cannot be seen from one container alone.
pub fn check(definition: &TaskDefinition) -> Result<(), ecs::Error> {
    for container in &definition.containers {
        for mount in &container.mount_points {
            if !definition.volumes.iter().any(|volume| volume.name == mount.volume) {
                return Err(client(format!("Unknown volume '{}'.", mount.volume)));
            }
        }
        for from in &container.volumes_from {
            named(definition, container, "volumesFrom", &from.container)?;
        }
        for dependency in &container.depends_on {
            check_dependency(definition, container, dependency)?;
        }
    }
    match cycle(definition) {
        Some(name) => Err(client(format!("The dependsOn of container '{name}' leads back to itself."))),
        None => Ok(()),
    }
}

fn check_dependency(
    definition: &TaskDefinition,
    container: &ContainerDefinition,
    dependency: &Dependency,
) -> Result<(), ecs::Error> {
    let other = named(definition, container, "dependsOn", &dependency.container)?;
    match dependency.condition {
        Condition::Start => Ok(()),
        Condition::Complete | Condition::Success if other.essential => Err(client(
            "A dependency container with SUCCESS or COMPLETE condition cannot be an essential container",
        )),
        Condition::Complete | Condition::Success => Ok(()),
        Condition::Healthy if other.health_check.is_none() => {
            Err(client("A dependency container with HEALTHY condition must have health check configured"))
        }
        Condition::Healthy => Ok(()),
    }
}

/// Another container of the task.
fn named<'a>(
    definition: &'a TaskDefinition,
    container: &ContainerDefinition,
    field: &str,
    name: &str,
) -> Result<&'a ContainerDefinition, ecs::Error> {
    let found = definition.containers.iter().find(|other| other.name == name && other.name != container.name);
    found.ok_or_else(|| {
        client(format!(
            "The {field} of container '{}' names '{name}', which is no other container of the task.",
            container.name
        ))
    })
}

/// A container that waits for itself, by whatever way.
fn cycle(definition: &TaskDefinition) -> Option<&str> {
    let mut free: BTreeSet<&str> = BTreeSet::new();
    loop {
        let waits = |c: &&ContainerDefinition| !free.contains(c.name.as_str());
        let ready = |c: &&ContainerDefinition| {
            let depended = c.depends_on.iter().map(|d| &d.container);
            let taken_from = c.volumes_from.iter().map(|from| &from.container);
            depended.chain(taken_from).all(|name| free.contains(name.as_str()))
        };
        let waiting = definition.containers.iter().filter(waits);
        let next: Vec<&str> = waiting.clone().filter(ready).map(|c| c.name.as_str()).collect();
        if next.is_empty() {
            return waiting.map(|c| c.name.as_str()).next();
        }
        free.extend(next);
    }
}

fn seconds(field: &str, given: i32, range: RangeInclusive<u32>) -> Result<u32, ecs::Error> {
    let (least, most) = (*range.start(), *range.end());
    let value = u32::try_from(given).ok().filter(|value| range.contains(value));
    value
        .ok_or_else(|| client(format!("{field} must be between {least} and {most} seconds, and is {given}.")))
}

fn within(field: &str, given: i32, range: RangeInclusive<u32>) -> Result<u32, ecs::Error> {
    let (least, most) = (*range.start(), *range.end());
    let value = u32::try_from(given).ok().filter(|value| range.contains(value));
    value.ok_or_else(|| client(format!("{field} must be between {least} and {most}, and is {given}.")))
}

pub fn render_dependency(d: &Dependency) -> ecs::ContainerDependency {
    ecs::ContainerDependency {
        container_name: d.container.clone(),
        condition: match d.condition {
            Condition::Start => ecs::ContainerCondition::Start,
            Condition::Complete => ecs::ContainerCondition::Complete,
            Condition::Success => ecs::ContainerCondition::Success,
            Condition::Healthy => ecs::ContainerCondition::Healthy,
        },
    }
}

pub fn render_health_check(check: &HealthCheck) -> ecs::HealthCheck {
    let number = |number: u32| i32::try_from(number).ok();
    ecs::HealthCheck {
        command: check.command.clone(),
        interval: number(check.interval),
        timeout: number(check.timeout),
        retries: number(check.retries),
        start_period: check.start_period.and_then(number),
    }
}

pub fn render_restart_policy(policy: &RestartPolicy) -> ecs::ContainerRestartPolicy {
    ecs::ContainerRestartPolicy {
        enabled: policy.enabled,
        ignored_exit_codes: Some(policy.ignored_exit_codes.clone()),
        restart_attempt_period: i32::try_from(policy.attempt_period).ok(),
    }
}

pub fn render_mount_point(mount: &MountPoint) -> ecs::MountPoint {
    ecs::MountPoint {
        source_volume: Some(mount.volume.clone()),
        container_path: Some(mount.container_path.clone()),
        read_only: Some(mount.read_only),
    }
}

pub fn render_volume_from(from: &VolumeFrom) -> ecs::VolumeFrom {
    ecs::VolumeFrom { source_container: Some(from.container.clone()), read_only: Some(from.read_only) }
}

pub fn render_volume(volume: &Volume) -> ecs::Volume {
    ecs::Volume {
        name: Some(volume.name.clone()),
        host: Some(ecs::HostVolumeProperties { source_path: volume.host_path.clone() }),
        ..ecs::Volume::default()
    }
}
