//! StartTask: RunTask without the scheduler.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_StartTask.html>.

use super::run_task::{Command, Place, parse_group, parse_overrides, parse_propagate_tags, place, short};
use super::{invalid, tag};
use crate::api::Call;
use crate::refuse::{Given, unsupported};
use longshore_ecs as ecs;

pub async fn start(call: Call, request: ecs::StartTaskRequest) -> Result<ecs::StartTaskResponse, ecs::Error> {
    let ecs::StartTaskRequest {
        cluster,
        container_instances,
        enable_ecs_managed_tags,
        enable_execute_command,
        group,
        network_configuration,
        overrides,
        propagate_tags,
        reference_id,
        started_by,
        tags,
        task_definition,
        volume_configurations,
    } = request;
    unsupported(&[
        ("enableExecuteCommand", enable_execute_command.given()),
        ("referenceId", reference_id.given()),
        ("volumeConfigurations", volume_configurations.given()),
    ])
    .map_err(invalid)?;
    if !(1..=10).contains(&container_instances.len()) {
        return Err(invalid("containerInstances must have 1 to 10 items."));
    }
    let command = Command {
        cluster,
        definition: task_definition,
        place: Place::On(container_instances),
        network: network_configuration.and_then(|network| network.awsvpc_configuration),
        overrides: overrides.map(parse_overrides).transpose()?.flatten(),
        group: parse_group(group)?,
        started_by: short("startedBy", started_by, 128)?,
        client_token: None,
        propagate_tags: parse_propagate_tags(propagate_tags)?,
        managed_tags: enable_ecs_managed_tags.unwrap_or(false),
        tags: tag::parse(tags)?,
    };
    let (tasks, failures) = place(call, command).await?;
    Ok(ecs::StartTaskResponse { tasks: Some(tasks), failures: Some(failures) })
}
