//! The registries of a service, as requests say them and as describe calls show them.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-discovery.html>.

use super::super::invalid;
use longshore_ecs as ecs;
use longshore_engine::{View, discovery};
use longshore_model::discovery::{DiscoveryService, RecordType};
use longshore_model::service::{Service, ServiceRegistry};
use longshore_model::task_definition::{NetworkMode, TaskDefinition};

pub fn parse(given: Vec<ecs::ServiceRegistry>) -> Result<Vec<ServiceRegistry>, ecs::Error> {
    if given.len() > 1 {
        return Err(invalid("serviceRegistries can have at most 1 item."));
    }
    given.into_iter().map(parse_one).collect()
}

fn parse_one(given: ecs::ServiceRegistry) -> Result<ServiceRegistry, ecs::Error> {
    let ecs::ServiceRegistry { registry_arn, port, container_name, container_port } = given;
    let arn = registry_arn.filter(|arn| !arn.is_empty());
    let arn = arn.ok_or_else(|| invalid("registryArn can not be blank."))?;
    let port = port.map(|port| checked("port", port)).transpose()?;
    let container_port = container_port.map(|port| checked("containerPort", port)).transpose()?;
    let container_name = container_name.filter(|name| !name.is_empty());
    let container = match (container_name, container_port) {
        (Some(name), Some(port)) => Some((name, port)),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(invalid(format!(
                "Specify both 'containerName' and 'containerPort', or neither. Registry: {arn}"
            )));
        }
    };
    if port.is_some() && container.is_some() {
        return Err(invalid(format!(
            "Specify a value for either 'port' or the 'containerName' and 'containerPort' combination, but not both. \
             Registry: {arn}"
        )));
    }
    Ok(ServiceRegistry { arn, container, port })
}

fn checked(field: &str, port: i32) -> Result<u16, ecs::Error> {
    let port = u16::try_from(port).ok().filter(|port| *port > 0);
    port.ok_or_else(|| invalid(format!("{field} must be between 1 and 65535.")))
}

/// What has to be true of a service's registries for its tasks to be found.
pub fn check(
    view: &View,
    service: &Service,
    definition: &TaskDefinition,
    registries: &[ServiceRegistry],
) -> Result<(), ecs::Error> {
    for registry in registries {
        let arn = &registry.arn;
        let found = discovery::find(view, service, registry)
            .filter(|found| found.arn() == *arn)
            .ok_or_else(|| invalid(format!("The service registry {arn} does not exist.")))?;
        check_records(found, definition, registry)?;
        if let Some((name, port)) = &registry.container {
            check_container(definition, name, *port)?;
        }
    }
    Ok(())
}

fn check_records(
    found: &DiscoveryService,
    definition: &TaskDefinition,
    registry: &ServiceRegistry,
) -> Result<(), ecs::Error> {
    let arn = &registry.arn;
    let has = |kind| found.record(kind).is_some();
    if has(RecordType::Cname) || found.dns.is_some() && !has(RecordType::A) && !has(RecordType::Srv) {
        return Err(invalid(format!(
            "The DNS records of the service registry must be of the type A or SRV. Registry: {arn}"
        )));
    }
    let with_port = has(RecordType::Srv) || found.dns.is_none();
    match definition.mode() {
        NetworkMode::Awsvpc
            if has(RecordType::Srv) && registry.container.is_none() && registry.port.is_none() =>
        {
            Err(invalid(format!(
                "Specify a value for either 'port' or the 'containerName' and 'containerPort' combination. Registry: {arn}"
            )))
        }
        NetworkMode::Awsvpc if !with_port => match (&registry.container, registry.port) {
            (Some(_), _) => Err(unneeded("containerPort", arn)),
            (None, Some(_)) => Err(unneeded("port", arn)),
            (None, None) => Ok(()),
        },
        NetworkMode::Awsvpc => Ok(()),
        NetworkMode::Bridge | NetworkMode::Host if has(RecordType::A) => Err(invalid(format!(
            "The network mode of the task definition supports DNS records of the type SRV only. Registry: {arn}"
        ))),
        NetworkMode::Bridge | NetworkMode::Host if registry.container.is_none() => Err(invalid(format!(
            "When specifying 'host' or 'bridge' for networkMode, values for 'containerName' and 'containerPort' must be \
             specified from the task definition. Registry: {arn}"
        ))),
        NetworkMode::Bridge | NetworkMode::Host => Ok(()),
        NetworkMode::None => Err(invalid("Service registries are not supported for the network mode none.")),
    }
}

fn unneeded(field: &str, arn: &str) -> ecs::Error {
    invalid(format!(
        "The values specified for serviceRegistries do not require a value for '{field}'. Remove the value and retry. \
         Registry: {arn}"
    ))
}

fn check_container(definition: &TaskDefinition, name: &str, port: u16) -> Result<(), ecs::Error> {
    let container = definition.containers.iter().find(|container| container.name == name);
    let container = container
        .ok_or_else(|| invalid(format!("The container {name} does not exist in the task definition.")))?;
    if !container.port_mappings.iter().any(|mapping| mapping.container_port == port) {
        return Err(invalid(format!("The container {name} did not have a container port {port} defined.")));
    }
    Ok(())
}

pub fn render(registries: &[ServiceRegistry]) -> Vec<ecs::ServiceRegistry> {
    let shown = registries.iter().map(|registry| ecs::ServiceRegistry {
        registry_arn: Some(registry.arn.clone()),
        port: registry.port.map(i32::from),
        container_name: registry.container.as_ref().map(|(name, _)| name.clone()),
        container_port: registry.container.as_ref().map(|(_, port)| i32::from(*port)),
    });
    shown.collect()
}
