//! RunTask: checked, placed and committed before it is answered.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html>.

use super::task::render;
use super::task_definition::{cpu_units, fargate_size, mebibytes};
use super::{client, invalid, reference, tag};
use crate::api::Call;
use crate::context::RandomIds;
use crate::refuse::{Given, unsupported};
use longshore_ecs as ecs;
use longshore_engine::View;
use longshore_engine::placement::{self, Placement, Request};
use longshore_model::cluster::{Cluster, arn_of};
use longshore_model::id::stable_hash;
use longshore_model::record::encode;
use longshore_model::task::{ClientToken, ContainerOverride, Overrides, Task};
use longshore_model::task_definition::{Compatibility, NetworkMode, Status, TaskDefinition};
use longshore_model::vpc::{SecurityGroup, Subnet};
use longshore_model::{Resources, Scope, Tags, Timestamp, Transaction};
use std::sync::Arc;

pub async fn run(call: Call, request: ecs::RunTaskRequest) -> Result<ecs::RunTaskResponse, ecs::Error> {
    let command = Command::parse(request)?;
    let now = call.context.now();
    let (cluster, tasks, failures) = call
        .context
        .commit::<_, ecs::Error, _>(|snapshot, transaction| {
            let view = &snapshot.view;
            let request = command.resolve(view, call.scope())?;
            if let Some(tasks) = command.earlier(view, &request)? {
                return Ok((request.cluster, tasks, Vec::new()));
            }
            let placement = placement::place(view, &request, now, &mut RandomIds);
            if !placement.tasks.is_empty() {
                transaction.rely_on(Cluster::key_of(call.scope(), &request.cluster));
                placement::write(view, &placement, transaction);
                command.remember(&request, &placement, now, transaction);
            }
            let Placement { tasks, failures } = placement;
            let tasks = tasks.into_iter().map(|(task, _)| Arc::new(task)).collect();
            Ok((request.cluster, tasks, failures))
        })
        .await?;
    let view = call.context.view();
    let cluster = arn_of(call.scope(), &cluster);
    let failures = failures.into_iter().map(|failure| ecs::Failure {
        arn: Some(cluster.clone()),
        reason: Some(failure.reason().to_owned()),
        detail: Some(failure.detail().to_owned()),
    });
    Ok(ecs::RunTaskResponse {
        tasks: Some(tasks.iter().map(|task| render::task(&view, task, true)).collect()),
        failures: Some(failures.collect()),
    })
}

/// RunTask's request, with all that can be checked without the records.
struct Command {
    cluster: Option<String>,
    definition: String,
    count: u32,
    network: Option<ecs::AwsVpcConfiguration>,
    launch_type: ecs::LaunchType,
    overrides: Overrides,
    group: Option<String>,
    started_by: Option<String>,
    client_token: Option<String>,
    propagate_tags: bool,
    managed_tags: bool,
    tags: Tags,
}

impl Command {
    fn parse(request: ecs::RunTaskRequest) -> Result<Self, ecs::Error> {
        let ecs::RunTaskRequest {
            capacity_provider_strategy,
            cluster,
            count,
            enable_ecs_managed_tags,
            enable_execute_command,
            group,
            launch_type,
            network_configuration,
            overrides,
            placement_constraints,
            placement_strategy,
            platform_version,
            propagate_tags,
            reference_id,
            started_by,
            tags,
            task_definition,
            client_token,
            volume_configurations,
        } = request;
        unsupported(&[
            ("capacityProviderStrategy", capacity_provider_strategy.given()),
            ("enableExecuteCommand", enable_execute_command.given()),
            ("placementConstraints", placement_constraints.given()),
            ("placementStrategy", placement_strategy.given()),
            ("referenceId", reference_id.given()),
            ("volumeConfigurations", volume_configurations.given()),
        ])
        .map_err(invalid)?;
        let count = count.unwrap_or(1);
        if !(1..=10).contains(&count) {
            return Err(invalid(format!("count must be between 1 and 10, and is {count}.")));
        }
        check_platform_version(platform_version.as_deref())?;
        let propagate_tags = match propagate_tags {
            None | Some(ecs::PropagateTags::None) => false,
            Some(ecs::PropagateTags::TaskDefinition) => true,
            Some(ecs::PropagateTags::Service) => {
                return Err(invalid("propagateTags SERVICE is for the tasks of services."));
            }
        };
        Ok(Self {
            cluster,
            definition: task_definition,
            count: count.unsigned_abs(),
            network: network_configuration.and_then(|network| network.awsvpc_configuration),
            launch_type: launch_type.unwrap_or(ecs::LaunchType::Ec2),
            overrides: overrides.map(parse_overrides).transpose()?.unwrap_or_default(),
            group: short("group", group.filter(|group| !group.is_empty()), 255)?,
            started_by: short("startedBy", started_by.filter(|by| !by.is_empty()), 128)?,
            client_token: short("clientToken", client_token.filter(|token| !token.is_empty()), 64)?,
            propagate_tags,
            managed_tags: enable_ecs_managed_tags.unwrap_or(false),
            tags: tag::parse(tags)?,
        })
    }

    /// Looks up what the request names.
    fn resolve(&self, view: &View, scope: &Scope) -> Result<Request, ecs::Error> {
        let cluster = reference::cluster(view, scope, self.cluster.as_deref())?;
        let definition = self.definition(view, scope)?;
        self.check_launch_type(&definition)?;
        let network = self.network.as_ref().ok_or_else(|| {
            invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified.")
        })?;
        let subnets = subnets(view, scope, network)?;
        let security_groups = security_groups(view, scope, network, &subnets)?;
        check_overrides(&self.overrides, &definition)?;
        let declared = definition.resources();
        let size = Resources {
            cpu: self.overrides.cpu.unwrap_or(declared.cpu),
            memory: self.overrides.memory.unwrap_or(declared.memory),
        };
        fargate_size(size.cpu, size.memory)?;
        Ok(Request {
            scope: scope.clone(),
            count: self.count,
            overrides: self.overrides.clone(),
            size,
            subnets,
            security_groups,
            group: self.group.clone().unwrap_or_else(|| format!("family:{}", definition.family)),
            started_by: self.started_by.clone(),
            tags: self.task_tags(&cluster, &definition)?,
            cluster: cluster.name.clone(),
            definition,
        })
    }

    /// The tasks of an earlier call with this client token: repeating a call starts nothing.
    fn earlier(&self, view: &View, request: &Request) -> Result<Option<Vec<Arc<Task>>>, ecs::Error> {
        let Some(token) = &self.client_token else { return Ok(None) };
        let Some(used) =
            view.client_tokens.get(&ClientToken::key_of(&request.scope, &request.cluster, token))
        else {
            return Ok(None);
        };
        let tasks =
            used.tasks.iter().filter_map(|id| view.task(&request.scope, &request.cluster, *id).cloned());
        if used.request == fingerprint(request) {
            return Ok(Some(tasks.collect()));
        }
        Err(ecs::Error::ConflictException {
            message: "The provided clientToken is already in use with a different RunTask request."
                .to_owned(),
            resource_ids: Some(tasks.map(|task| task.arn()).collect()),
        })
    }

    fn remember(
        &self,
        request: &Request,
        placement: &Placement,
        now: Timestamp,
        transaction: &mut Transaction,
    ) {
        let Some(token) = &self.client_token else { return };
        transaction.create(&ClientToken {
            scope: request.scope.clone(),
            cluster: request.cluster.clone(),
            token: token.clone(),
            request: fingerprint(request),
            tasks: placement.tasks.iter().map(|(task, _)| task.id).collect(),
            used_at: now,
        });
    }

    fn definition(&self, view: &View, scope: &Scope) -> Result<Arc<TaskDefinition>, ecs::Error> {
        let definition = reference::task_definition(view, scope, &self.definition)?;
        let definition = definition.ok_or_else(|| client("TaskDefinition not found."))?;
        match definition.status {
            Status::Active => Ok(definition),
            Status::Inactive | Status::DeleteInProgress => Err(client("TaskDefinition is inactive")),
        }
    }

    fn check_launch_type(&self, definition: &TaskDefinition) -> Result<(), ecs::Error> {
        match self.launch_type {
            ecs::LaunchType::Fargate => {}
            ecs::LaunchType::Ec2 | ecs::LaunchType::External | ecs::LaunchType::ManagedInstances => {
                return Err(invalid("No Container Instances were found in your cluster."));
            }
        }
        let required = &definition.requires_compatibilities;
        let declared = required.is_empty() || required.contains(&Compatibility::Fargate);
        let sized = definition.cpu.is_some() && definition.memory.is_some();
        if !declared || !sized || definition.network_mode != Some(NetworkMode::Awsvpc) {
            return Err(invalid("Task definition does not support launch_type FARGATE."));
        }
        Ok(())
    }

    fn task_tags(&self, cluster: &Cluster, definition: &TaskDefinition) -> Result<Tags, ecs::Error> {
        let mut tags = if self.propagate_tags { definition.tags.clone() } else { Tags::default() };
        tags = tags.with(self.tags.clone()).map_err(|error| invalid(error.to_string()))?;
        if self.managed_tags {
            // Tags of AWS's own do not count towards the limit.
            tags.0.insert("aws:ecs:clusterName".to_owned(), cluster.name.clone());
        }
        Ok(tags)
    }
}

/// Tells one request from another; the same in every version, since it is kept.
fn fingerprint(request: &Request) -> u64 {
    let definition = (&request.definition.family, request.definition.revision);
    let subnets: Vec<&String> = request.subnets.iter().map(|subnet| &subnet.id).collect();
    let network = (subnets, &request.security_groups);
    let said = (definition, request.count, &request.overrides, network, &request.group, &request.started_by);
    stable_hash(encode(&said))
}

fn check_platform_version(version: Option<&str>) -> Result<(), ecs::Error> {
    match version {
        None | Some("" | "LATEST" | "1.4.0" | "1.3.0") => Ok(()),
        Some(_) => {
            Err(ecs::Error::PlatformUnknownException("The specified platform does not exist.".to_owned()))
        }
    }
}

fn short(field: &str, text: Option<String>, most: usize) -> Result<Option<String>, ecs::Error> {
    match &text {
        Some(given) if given.chars().count() > most => {
            Err(invalid(format!("{field} can have at most {most} characters.")))
        }
        Some(_) | None => Ok(text),
    }
}

fn parse_overrides(given: ecs::TaskOverride) -> Result<Overrides, ecs::Error> {
    let ecs::TaskOverride {
        container_overrides,
        cpu,
        inference_accelerator_overrides,
        execution_role_arn,
        memory,
        task_role_arn,
        ephemeral_storage,
    } = given;
    unsupported(&[
        ("overrides.inferenceAcceleratorOverrides", inference_accelerator_overrides.given()),
        ("overrides.taskRoleArn", task_role_arn.given()),
        ("overrides.ephemeralStorage", ephemeral_storage.given()),
    ])
    .map_err(invalid)?;
    let containers = container_overrides.unwrap_or_default().into_iter().map(container_override);
    Ok(Overrides {
        containers: containers.collect::<Result<_, _>>()?,
        cpu: cpu.filter(|cpu| !cpu.is_empty()).map(|cpu| cpu_units(&cpu)).transpose()?,
        memory: memory.filter(|memory| !memory.is_empty()).map(|memory| mebibytes(&memory)).transpose()?,
        execution_role_arn: execution_role_arn.filter(|arn| !arn.is_empty()),
    })
}

fn container_override(given: ecs::ContainerOverride) -> Result<ContainerOverride, ecs::Error> {
    let ecs::ContainerOverride {
        name,
        command,
        environment,
        environment_files,
        cpu,
        memory,
        memory_reservation,
        resource_requirements,
    } = given;
    unsupported(&[
        ("overrides.containerOverrides.environmentFiles", environment_files.given()),
        ("overrides.containerOverrides.resourceRequirements", resource_requirements.given()),
    ])
    .map_err(invalid)?;
    let size = |field: &str, value: Option<i32>| {
        value.map(|value| super::task_definition::not_negative(field, value)).transpose()
    };
    Ok(ContainerOverride {
        name: name.unwrap_or_default(),
        command: command.filter(|words| !words.is_empty()),
        environment: super::task_definition::environment_variables(environment)?,
        cpu: size("overrides.containerOverrides.cpu", cpu)?,
        memory: size("overrides.containerOverrides.memory", memory)?,
        memory_reservation: size("overrides.containerOverrides.memoryReservation", memory_reservation)?,
    })
}

fn check_overrides(overrides: &Overrides, definition: &TaskDefinition) -> Result<(), ecs::Error> {
    let known = |name: &str| definition.containers.iter().any(|container| container.name == name);
    match overrides.containers.iter().find(|changed| !known(&changed.name)) {
        None => Ok(()),
        Some(unknown) => Err(invalid(format!(
            "Override for container named {} is not a container in the TaskDefinition.",
            unknown.name
        ))),
    }
}

fn subnets(
    view: &View,
    scope: &Scope,
    network: &ecs::AwsVpcConfiguration,
) -> Result<Vec<Arc<Subnet>>, ecs::Error> {
    if !(1..=16).contains(&network.subnets.len()) {
        return Err(invalid("subnets can have 1 to 16 items."));
    }
    let find = |id: &String| {
        view.subnets.get(&Subnet::key_of(scope, id)).cloned().ok_or_else(|| {
            invalid(format!(
                "Error retrieving subnet information for [{id}]: The subnet ID '{id}' does not exist \
                 (ErrorCode: InvalidSubnetID.NotFound)"
            ))
        })
    };
    let subnets: Vec<_> = network.subnets.iter().map(find).collect::<Result<_, _>>()?;
    if subnets.iter().any(|subnet| Some(&subnet.vpc) != subnets.first().map(|first| &first.vpc)) {
        return Err(invalid("All subnets must be in one VPC."));
    }
    Ok(subnets)
}

/// The groups that were named, or the VPC's default group.
fn security_groups(
    view: &View,
    scope: &Scope,
    network: &ecs::AwsVpcConfiguration,
    subnets: &[Arc<Subnet>],
) -> Result<Vec<String>, ecs::Error> {
    let vpc = subnets.first().map(|subnet| subnet.vpc.as_str()).unwrap_or_default();
    let named = network.security_groups.clone().unwrap_or_default();
    if named.len() > 5 {
        return Err(invalid("securityGroups can have at most 5 items."));
    }
    if named.is_empty() {
        let default = |group: &&Arc<SecurityGroup>| group.vpc == vpc && group.name == "default";
        return Ok(view.security_groups.of(scope).filter(default).map(|group| group.id.clone()).collect());
    }
    for id in &named {
        let group = view.security_groups.get(&SecurityGroup::key_of(scope, id)).ok_or_else(|| {
            invalid(format!(
                "Error retrieving security group information for [{id}]: The security group '{id}' does not exist \
                 (ErrorCode: InvalidGroup.NotFound)"
            ))
        })?;
        if group.vpc != vpc {
            return Err(invalid(format!("The security group {id} is not in the VPC of the subnets, {vpc}.")));
        }
    }
    Ok(named)
}
