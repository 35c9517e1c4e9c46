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
            let may_have = |port: &u16| {
                !instance.ports.reserved.contains(&(protocol, *port))
                    && !chosen.iter().any(|c| c.protocol == protocol && c.host_port == *port)
            };
            let fixed = match mode {
                NetworkMode::Host => Some(mapping.container_port),
                NetworkMode::Awsvpc | NetworkMode::Bridge | NetworkMode::None => {
                    mapping.host_port.filter(|port| *port != 0)
                }
            };
            let (first, last) = fixed.map_or(instance.ports.dynamic, |port| (port, port));
            let mut held = view.capacity().ports_held(instance.id, protocol, first..=last).peekable();
            let is_free = |port: &u16| held.next_if_eq(port).is_none();
            let host_port = (first..=last).filter(is_free).find(may_have)?;
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
