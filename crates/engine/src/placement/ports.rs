//! Which ports of an instance lead into a task. Invariant: a port that is reserved or held is never given.

use crate::view::View;
use longshore_model::container_instance::ContainerInstance;
use longshore_model::task::HostPort;
use longshore_model::task_definition::{NetworkMode, TaskDefinition};

/// `None` where a port that the task must have is taken, or none is left of those for any task.
pub fn choose(
    view: &View,
    instance: &ContainerInstance,
    definition: &TaskDefinition,
) -> Option<Vec<HostPort>> {
    let mode = definition.mode();
    let mut chosen: Vec<HostPort> = Vec::new();
    if matches!(mode, NetworkMode::Awsvpc | NetworkMode::None) {
        return Some(chosen);
    }
    for container in &definition.containers {
        for mapping in &container.port_mappings {
            let protocol = mapping.protocol.unwrap_or_default();
            let is_free = |port: u16| {
                !view.capacity().holds_port(instance.id, protocol, port)
                    && !instance.ports.reserved.contains(&(protocol, port))
                    && !chosen.iter().any(|c| c.protocol == protocol && c.host_port == port)
            };
            let fixed = match mode {
                NetworkMode::Host => Some(mapping.container_port),
                NetworkMode::Awsvpc | NetworkMode::Bridge | NetworkMode::None => {
                    mapping.host_port.filter(|port| *port != 0)
                }
            };
            let (first, last) = instance.ports.dynamic;
            let host_port = match fixed {
                Some(port) => Some(port).filter(|port| is_free(*port)),
                None => (first..=last).find(|port| is_free(*port)),
            }?;
            chosen.push(HostPort {
                container: container.name.clone(),
                container_port: mapping.container_port,
                host_port,
                protocol,
            });
        }
    }
    Some(chosen)
}
