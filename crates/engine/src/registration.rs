//! What becomes of a container instance's record when its agent says hello. Invariant: what users said of an
//! instance (its attributes, its draining) outlives its agent; what the machine says is replaced.

use longshore_model::Timestamp;
use longshore_model::container_instance::{Capacity, ContainerInstance};
use longshore_model::control_plane::ControlPlaneId;
use longshore_model::link::Hello;

/// The record of an instance that was not there before.
pub fn first(
    hello: &Hello,
    capacity: Capacity,
    control_plane: ControlPlaneId,
    now: Timestamp,
) -> ContainerInstance {
    ContainerInstance {
        id: hello.instance,
        name: hello.name.clone(),
        capacity,
        resources: hello.resources,
        cpu_architecture: hello.cpu_architecture,
        attributes: hello.attributes.clone(),
        ports: hello.ports.clone(),
        gpus: hello.gpus.clone(),
        agent: hello.agent.clone(),
        tags: hello.tags.clone(),
        registered_at: now,
        agent_connected: true,
        connected_to: Some(control_plane),
        deregistered_at: None,
        version: 1,
    }
}

/// The record of one whose agent has connected again. Attributes that a newer agent no longer names stay.
pub fn again(present: &ContainerInstance, hello: &Hello, control_plane: ControlPlaneId) -> ContainerInstance {
    let mut next = ContainerInstance {
        name: hello.name.clone(),
        resources: hello.resources,
        cpu_architecture: hello.cpu_architecture,
        ports: hello.ports.clone(),
        gpus: hello.gpus.clone(),
        agent: hello.agent.clone(),
        agent_connected: true,
        ..present.clone()
    };
    next.attributes.extend(hello.attributes.clone());
    if next != *present {
        next.version += 1;
    }
    next.connected_to = Some(control_plane);
    next
}
