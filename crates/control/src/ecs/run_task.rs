//! RunTask: checked, placed and committed before it is answered.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html>.

use super::capacity_provider::Capacity;
use super::placement::{constraints, strategies};
use super::task::render;
use super::task_definition::{cpu_units, fargate_size, mebibytes};
use super::{client, invalid, reference, tag};
use crate::api::Call;
use crate::context::RandomIds;
use crate::refuse::{Given, unsupported};
use longshore_ecs as ecs;
use longshore_engine::View;
use longshore_engine::capacity_provider::{self, Counts};
use longshore_engine::placement::{self, Network, Placement, Request};
use longshore_model::cluster::{Cluster, arn_of};
use longshore_model::container_instance::{self, ContainerInstance};
use longshore_model::id::stable_hash;
use longshore_model::placement::{PlacementConstraint, PlacementStrategy};
use longshore_model::record::encode;
use longshore_model::service::GROUP;
use longshore_model::task::{ClientToken, ContainerOverride, LaunchType, Overrides, Task};
use longshore_model::task_definition::{Compatibility, NetworkMode, Status, TaskDefinition};
use longshore_model::vpc::{SecurityGroup, Subnet};
use longshore_model::{ContainerInstanceId, Scope, Tags, Timestamp, Transaction};
use std::sync::Arc;

pub async fn run(call: Call, request: ecs::RunTaskRequest) -> Result<ecs::RunTaskResponse, ecs::Error> {
    let (tasks, failures) = place(call, Command::parse(request)?).await?;
    Ok(ecs::RunTaskResponse { tasks: Some(tasks), failures: Some(failures) })
}

/// Places what a command asks for, and shows what became of it.
pub async fn place(call: Call, command: Command) -> Result<(Vec<ecs::Task>, Vec<ecs::Failure>), ecs::Error> {
    let (now, scope) = (call.context.now(), call.scope().clone());
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
    let failures = failures.into_iter().map(|failure| ecs::Failure {
        arn: Some(match failure.on {
            Some(instance) => container_instance::arn_of(&scope, &cluster, instance),
            None => arn_of(&scope, &cluster),
        }),
        reason: Some(failure.reason.reason().to_owned()),
        detail: Some(failure.reason.detail().to_owned()),
    });
    Ok((tasks.iter().map(|task| render::task(&view, task, true)).collect(), failures.collect()))
}

/// A request for tasks, with all that can be checked without the records.
pub struct Command {
    pub cluster: Option<String>,
    pub definition: String,
    pub place: Place,
    pub network: Option<ecs::AwsVpcConfiguration>,
    pub overrides: Option<Box<Overrides>>,
    pub group: Option<String>,
    pub started_by: Option<String>,
    pub client_token: Option<String>,
    pub propagate_tags: bool,
    pub managed_tags: bool,
    pub tags: Tags,
}

/// Where the tasks are to run.
pub enum Place {
    /// RunTask: wherever the scheduler finds room.
    Anywhere {
        count: u32,
        capacity: Capacity,
        /// Whether a platform version was named, which only Fargate has.
        platform_named: bool,
        constraints: Vec<PlacementConstraint>,
        strategies: Vec<PlacementStrategy>,
    },
    /// StartTask: one on each of these.
    On(Vec<String>),
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
            ("enableExecuteCommand", enable_execute_command.given()),
            ("referenceId", reference_id.given()),
            ("volumeConfigurations", volume_configurations.given()),
        ])
        .map_err(invalid)?;
        let count = count.unwrap_or(1);
        if !(1..=10).contains(&count) {
            return Err(invalid(format!("count must be between 1 and 10, and is {count}.")));
        }
        check_platform_version(platform_version.as_deref())?;
        let capacity = Capacity::parse(launch_type, capacity_provider_strategy)?;
        Ok(Self {
            cluster,
            definition: task_definition,
            place: Place::Anywhere {
                count: count.unsigned_abs(),
                capacity,
                platform_named: platform_version.is_some_and(|version| !version.is_empty()),
                constraints: constraints(placement_constraints)?,
                strategies: strategies(placement_strategy)?,
            },
            network: network_configuration.and_then(|network| network.awsvpc_configuration),
            overrides: overrides.map(parse_overrides).transpose()?.flatten(),
            group: parse_group(group)?,
            started_by: short("startedBy", started_by, 128)?,
            client_token: short("clientToken", client_token, 64)?,
            propagate_tags: parse_propagate_tags(propagate_tags)?,
            managed_tags: enable_ecs_managed_tags.unwrap_or(false),
            tags: tag::parse(tags)?,
        })
    }

    /// Looks up what the request names.
    fn resolve(&self, view: &View, scope: &Scope) -> Result<Request, ecs::Error> {
        let cluster = reference::cluster(view, scope, self.cluster.as_deref())?;
        let definition = active_definition(view, scope, &self.definition)?;
        check_overrides(self.overrides.as_deref(), &definition)?;
        let mut providers = Vec::new();
        let (count, launch_type, constraints, strategies, instances) = match &self.place {
            Place::Anywhere { count, capacity, platform_named, constraints, strategies } => {
                let (launch_type, strategy) = capacity.resolve(view, &cluster)?;
                check_for_fargate(launch_type, *platform_named, constraints.given(), strategies.given())?;
                let chosen = capacity_provider::split(&strategy, Counts::new(), *count as usize);
                providers = chosen.into_iter().map(str::to_owned).collect();
                (*count, launch_type, constraints.clone(), strategies.clone(), None)
            }
            Place::On(given) => {
                let ids = instances(scope, &cluster.name, given)?;
                let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
                (count, launch_type_of(view, &ids), Vec::new(), Vec::new(), Some(ids))
            }
        };
        check_launch_type(&definition, launch_type)?;
        if launch_type != LaunchType::Fargate && providers.is_empty() && !has_instances(view, &cluster) {
            return Err(invalid("No Container Instances were found in your cluster."));
        }
        if constraints.len() + definition.placement_constraints.len() > 10 {
            return Err(invalid(
                "The task definition and the request have more than 10 placement constraints.",
            ));
        }
        let size = placement::size(self.overrides.as_deref(), &definition);
        if launch_type == LaunchType::Fargate {
            fargate_size(size.cpu, size.memory)?;
        }
        Ok(Request {
            scope: scope.clone(),
            count,
            overrides: self.overrides.clone(),
            size,
            launch_type,
            network: network(view, scope, &definition, self.network.as_ref())?,
            constraints,
            strategies,
            capacity_providers: providers,
            provider: None,
            instances,
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

/// The definition that was named, which must be ACTIVE.
pub fn active_definition(view: &View, scope: &Scope, given: &str) -> Result<Arc<TaskDefinition>, ecs::Error> {
    let definition = reference::task_definition(view, scope, given)?;
    let definition = definition.ok_or_else(|| client("TaskDefinition not found."))?;
    match definition.status {
        Status::Active => Ok(definition),
        Status::Inactive | Status::DeleteInProgress => Err(client("TaskDefinition is inactive")),
    }
}

/// Where the tasks' network interfaces may be, which tasks in awsvpc mode have and no others.
pub fn network(
    view: &View,
    scope: &Scope,
    definition: &TaskDefinition,
    given: Option<&ecs::AwsVpcConfiguration>,
) -> Result<Option<Network>, ecs::Error> {
    match (definition.mode(), given) {
        (NetworkMode::Awsvpc, Some(given)) => {
            let subnets = subnets(view, scope, given)?;
            let security_groups = security_groups(view, scope, given, &subnets)?;
            Ok(Some(Network { subnets, security_groups }))
        }
        (NetworkMode::Awsvpc, None) => {
            Err(invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified."))
        }
        (NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None, None) => Ok(None),
        (NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None, Some(_)) => Err(invalid(
            "Network Configuration is not valid for the given networkMode of this task definition.",
        )),
    }
}

/// Tasks and services run on instances unless they say otherwise.
pub fn parse_launch_type(given: Option<ecs::LaunchType>) -> Result<LaunchType, ecs::Error> {
    match given {
        None | Some(ecs::LaunchType::Ec2) => Ok(LaunchType::Ec2),
        Some(ecs::LaunchType::External) => Ok(LaunchType::External),
        Some(ecs::LaunchType::Fargate) => Ok(LaunchType::Fargate),
        Some(ecs::LaunchType::ManagedInstances) => {
            Err(invalid("launchType MANAGED_INSTANCES is not supported by Longshore yet."))
        }
    }
}

pub fn parse_propagate_tags(given: Option<ecs::PropagateTags>) -> Result<bool, ecs::Error> {
    match given {
        None | Some(ecs::PropagateTags::None) => Ok(false),
        Some(ecs::PropagateTags::TaskDefinition) => Ok(true),
        Some(ecs::PropagateTags::Service) => {
            Err(invalid("propagateTags SERVICE is for the tasks of services."))
        }
    }
}

/// What only one of Fargate and the others knows.
pub fn check_for_fargate(
    launch_type: LaunchType,
    platform_named: bool,
    constraints: bool,
    strategies: bool,
) -> Result<(), ecs::Error> {
    if launch_type == LaunchType::Fargate {
        refuse_on_fargate("Placement constraints", constraints)?;
        refuse_on_fargate("Placement strategies", strategies)
    } else if platform_named {
        Err(invalid("The platform version must be null when specifying an EC2 launch type."))
    } else {
        Ok(())
    }
}

fn refuse_on_fargate(what: &str, given: bool) -> Result<(), ecs::Error> {
    if given {
        return Err(invalid(format!("{what} are not supported with FARGATE launch type.")));
    }
    Ok(())
}

pub fn check_launch_type(definition: &TaskDefinition, launch_type: LaunchType) -> Result<(), ecs::Error> {
    let compatibility = match launch_type {
        LaunchType::Ec2 => Compatibility::Ec2,
        LaunchType::External => Compatibility::External,
        LaunchType::Fargate => Compatibility::Fargate,
    };
    let required = &definition.requires_compatibilities;
    let declared = required.is_empty() || required.contains(&compatibility);
    let fits = match launch_type {
        LaunchType::Ec2 | LaunchType::External => true,
        LaunchType::Fargate => {
            let sized = definition.cpu.is_some() && definition.memory.is_some();
            sized && definition.network_mode == Some(NetworkMode::Awsvpc)
        }
    };
    if declared && fits {
        return Ok(());
    }
    Err(invalid(format!("Task definition does not support launch_type {}.", launch_type.as_str())))
}

fn has_instances(view: &View, cluster: &Cluster) -> bool {
    let is_registered = |instance: &Arc<ContainerInstance>| {
        instance.membership().is_some_and(|member| member.status != container_instance::Status::Inactive)
    };
    view.instances_of(&cluster.scope, &cluster.name).any(is_registered)
}

/// The instances that StartTask names; an ARN of another cluster names none of this one's.
fn instances(scope: &Scope, cluster: &str, given: &[String]) -> Result<Vec<ContainerInstanceId>, ecs::Error> {
    let one = |given: &String| {
        let id = reference::container_instance_id(scope, cluster, given)?;
        id.ok_or_else(|| invalid(format!("The container instance {given} is not in the cluster {cluster}.")))
    };
    given.iter().map(one).collect()
}

fn launch_type_of(view: &View, instances: &[ContainerInstanceId]) -> LaunchType {
    let found = instances.iter().filter_map(|id| view.container_instance(*id)).find_map(|i| i.membership());
    found.map_or(LaunchType::Ec2, |member| member.launch_type)
}

/// Tells one request from another; the same in every version, since it is kept.
fn fingerprint(request: &Request) -> u64 {
    let definition = (&request.definition.family, request.definition.revision);
    let network = request.network.as_ref().map(|network| {
        let subnets: Vec<&String> = network.subnets.iter().map(|subnet| &subnet.id).collect();
        (subnets, &network.security_groups)
    });
    let place = (request.launch_type, &request.constraints, &request.strategies, &request.capacity_providers);
    let said = (definition, request.count, &request.overrides, network, &request.group, &request.started_by);
    stable_hash(encode(&(said, place)))
}

pub fn check_platform_version(version: Option<&str>) -> Result<(), ecs::Error> {
    match version {
        None | Some("" | "LATEST" | "1.4.0" | "1.3.0") => Ok(()),
        Some(_) => {
            Err(ecs::Error::PlatformUnknownException("The specified platform does not exist.".to_owned()))
        }
    }
}

/// The groups of services are theirs alone.
pub fn parse_group(group: Option<String>) -> Result<Option<String>, ecs::Error> {
    let group = short("group", group, 255)?;
    if group.as_ref().is_some_and(|group| group.starts_with(GROUP)) {
        return Err(invalid("Invalid namespace for group: service."));
    }
    Ok(group)
}

pub fn short(field: &str, text: Option<String>, most: usize) -> Result<Option<String>, ecs::Error> {
    let text = text.filter(|text| !text.is_empty());
    match &text {
        Some(given) if given.chars().count() > most => {
            Err(invalid(format!("{field} can have at most {most} characters.")))
        }
        Some(_) | None => Ok(text),
    }
}

/// Nothing where the request overrides nothing.
pub fn parse_overrides(given: ecs::TaskOverride) -> Result<Option<Box<Overrides>>, ecs::Error> {
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
    let overrides = Overrides {
        containers: containers.collect::<Result<_, _>>()?,
        cpu: cpu.filter(|cpu| !cpu.is_empty()).map(|cpu| cpu_units(&cpu)).transpose()?,
        memory: memory.filter(|memory| !memory.is_empty()).map(|memory| mebibytes(&memory)).transpose()?,
        execution_role_arn: execution_role_arn.filter(|arn| !arn.is_empty()),
    };
    Ok((overrides != Overrides::default()).then(|| Box::new(overrides)))
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

fn check_overrides(overrides: Option<&Overrides>, definition: &TaskDefinition) -> Result<(), ecs::Error> {
    let known = |name: &str| definition.containers.iter().any(|container| container.name == name);
    let mut changed = overrides.iter().flat_map(|overrides| &overrides.containers);
    match changed.find(|changed| !known(&changed.name)) {
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
