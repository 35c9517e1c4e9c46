//! A service as describe calls show it.

use super::super::placement;
use super::super::tag;
use super::super::task::render::launch_type;
use longshore_ecs as ecs;
use longshore_engine::View;
use longshore_engine::service::failed_tasks;
use longshore_model::cluster::arn_of;
use longshore_model::service::{
    Deployment, DeploymentConfiguration, NetworkConfiguration, PropagateTags, RolloutState,
    SchedulingStrategy, Service, ServiceEvent, Status,
};
use longshore_model::task::LaunchType;
use longshore_model::{Record, task_definition};
use longshore_wire::Timestamp;

pub fn service(view: &View, s: &Service, with_tags: bool) -> ecs::Service {
    let primary = s.primary();
    let on_fargate = s.launch_type == LaunchType::Fargate;
    let deployments = if s.status == Status::Inactive { &[] } else { s.deployments.as_slice() };
    let deployments: Vec<ecs::Deployment> =
        deployments.iter().enumerate().map(|(place, d)| deployment(view, s, d, place == 0)).collect();
    let sum = |of: fn(&ecs::Deployment) -> Option<i32>| deployments.iter().filter_map(of).sum();
    let events = view.events_of(s).rev().filter(|event| event.at >= s.created_at);
    let described = primary.and_then(|p| p.platform_version.clone());
    ecs::Service {
        service_arn: Some(s.arn()),
        service_name: Some(s.name.clone()),
        cluster_arn: Some(arn_of(&s.scope, &s.cluster)),
        load_balancers: Some(Vec::new()),
        service_registries: Some(Vec::new()),
        status: Some(s.status.as_str().to_owned()),
        desired_count: i32::try_from(s.desired_count).ok(),
        running_count: Some(sum(|d| d.running_count)),
        pending_count: Some(sum(|d| d.pending_count)),
        launch_type: Some(launch_type(s.launch_type)),
        capacity_provider_strategy: None,
        platform_version: on_fargate.then(|| described.unwrap_or_else(|| "LATEST".to_owned())),
        platform_family: on_fargate.then(|| "Linux".to_owned()),
        task_definition: primary.map(|p| task_definition::arn_of(&s.scope, &p.family, p.revision)),
        deployment_configuration: Some(configuration(&s.configuration)),
        task_sets: None,
        deployments: Some(deployments),
        role_arn: Some(format!(
            "arn:aws:iam::{}:role/aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS",
            s.scope.account
        )),
        events: Some(events.map(|e| event(e)).collect()),
        created_at: Some(Timestamp(s.created_at.millis())),
        current_service_deployment: None,
        current_service_revisions: None,
        placement_constraints: Some(s.constraints.iter().map(placement::render_constraint).collect()),
        placement_strategy: Some(s.strategies.iter().map(placement::render_strategy).collect()),
        network_configuration: primary.and_then(|p| p.network.as_ref()).map(network),
        health_check_grace_period_seconds: None,
        scheduling_strategy: Some(scheduling_strategy(s.scheduling_strategy)),
        deployment_controller: Some(ecs::DeploymentController { r#type: ecs::DeploymentControllerType::Ecs }),
        tags: Some(if with_tags { tag::render(&s.tags) } else { Vec::new() }),
        created_by: Some(s.created_by.clone()),
        enable_ecs_managed_tags: Some(s.managed_tags),
        propagate_tags: Some(match s.propagate_tags {
            None => ecs::PropagateTags::None,
            Some(PropagateTags::TaskDefinition) => ecs::PropagateTags::TaskDefinition,
            Some(PropagateTags::Service) => ecs::PropagateTags::Service,
        }),
        enable_execute_command: Some(false),
        availability_zone_rebalancing: Some(ecs::AvailabilityZoneRebalancing::Disabled),
        resource_management_type: None,
    }
}

fn deployment(view: &View, s: &Service, d: &Deployment, is_primary: bool) -> ecs::Deployment {
    let tasks = view.service_tasks().deployment(&s.key(), &d.id).cloned().unwrap_or_default();
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let wanted = if is_primary { s.desired_count as usize } else { tasks.active_count() };
    let on_fargate = s.launch_type == LaunchType::Fargate;
    ecs::Deployment {
        id: Some(d.id.clone()),
        status: Some(if is_primary { "PRIMARY" } else { "ACTIVE" }.to_owned()),
        task_definition: Some(task_definition::arn_of(&s.scope, &d.family, d.revision)),
        desired_count: Some(number(wanted)),
        pending_count: Some(number(tasks.starting.len())),
        running_count: Some(number(tasks.running.len())),
        failed_tasks: i32::try_from(failed_tasks(view, s, d)).ok(),
        created_at: Some(Timestamp(d.created_at.millis())),
        updated_at: Some(Timestamp(d.updated_at.millis())),
        capacity_provider_strategy: None,
        launch_type: Some(launch_type(s.launch_type)),
        platform_version: on_fargate.then(|| "1.4.0".to_owned()),
        platform_family: on_fargate.then(|| "Linux".to_owned()),
        network_configuration: d.network.as_ref().map(network),
        rollout_state: Some(match d.rollout_state {
            RolloutState::InProgress => ecs::DeploymentRolloutState::InProgress,
            RolloutState::Completed => ecs::DeploymentRolloutState::Completed,
            RolloutState::Failed => ecs::DeploymentRolloutState::Failed,
        }),
        rollout_state_reason: Some(d.rollout_state_reason.clone()),
        service_connect_configuration: None,
        service_connect_resources: None,
        volume_configurations: None,
        fargate_ephemeral_storage: None,
        vpc_lattice_configurations: None,
    }
}

fn configuration(c: &DeploymentConfiguration) -> ecs::DeploymentConfiguration {
    let breaker = c.circuit_breaker;
    ecs::DeploymentConfiguration {
        deployment_circuit_breaker: Some(ecs::DeploymentCircuitBreaker {
            enable: breaker.is_some_and(|breaker| breaker.enable),
            rollback: breaker.is_some_and(|breaker| breaker.rollback),
        }),
        maximum_percent: i32::try_from(c.maximum_percent).ok(),
        minimum_healthy_percent: i32::try_from(c.minimum_healthy_percent).ok(),
        alarms: None,
        strategy: Some(ecs::DeploymentStrategy::Rolling),
        bake_time_in_minutes: Some(0),
        lifecycle_hooks: None,
        linear_configuration: None,
        canary_configuration: None,
    }
}

fn network(n: &NetworkConfiguration) -> ecs::NetworkConfiguration {
    let assign =
        if n.assign_public_ip { ecs::AssignPublicIp::Enabled } else { ecs::AssignPublicIp::Disabled };
    ecs::NetworkConfiguration {
        awsvpc_configuration: Some(ecs::AwsVpcConfiguration {
            subnets: n.subnets.clone(),
            security_groups: Some(n.security_groups.clone()),
            assign_public_ip: Some(assign),
        }),
    }
}

fn event(e: &ServiceEvent) -> ecs::ServiceEvent {
    ecs::ServiceEvent {
        id: Some(e.id.clone()),
        created_at: Some(Timestamp(e.at.millis())),
        message: Some(e.message.clone()),
    }
}

pub fn scheduling_strategy(strategy: SchedulingStrategy) -> ecs::SchedulingStrategy {
    match strategy {
        SchedulingStrategy::Replica => ecs::SchedulingStrategy::Replica,
        SchedulingStrategy::Daemon => ecs::SchedulingStrategy::Daemon,
    }
}
