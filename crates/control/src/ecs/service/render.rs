//! A service as describe calls show it.

use super::super::tag;
use super::super::task::render::launch_type;
use super::super::{capacity_provider, placement};
use super::{configuration, load_balancers, registries};
use longshore_ecs as ecs;
use longshore_engine::View;
use longshore_engine::service::{failed_tasks, threshold, traffic};
use longshore_model::capacity_provider::StrategyItem;
use longshore_model::cluster::arn_of;
use longshore_model::service::{
    Controller, Deployment, NetworkConfiguration, PropagateTags, RolloutState, SchedulingStrategy, Service,
    ServiceDeployment, ServiceDeploymentStatus, ServiceEvent, ServiceRevision, Status, TaskSet, revision_arn,
};
use longshore_model::task::LaunchType;
use longshore_model::{Record, arn, task_definition};
use longshore_wire::Timestamp;

pub fn service(view: &View, s: &Service, with_tags: bool) -> ecs::Service {
    let set = s.primary_task_set();
    let (primary, launched_on) = match set {
        Some(set) => (Some(&set.deployment), set.launch_type),
        None => (s.primary(), s.launch_type),
    };
    let on_fargate = primary.is_some() && launched_on == LaunchType::Fargate;
    let strategy = primary.map_or(&[][..], |primary| &primary.capacity_strategy);
    let deployments = if s.status == Status::Inactive { &[] } else { s.deployments.as_slice() };
    let deployments: Vec<ecs::Deployment> =
        deployments.iter().enumerate().map(|(place, d)| deployment(view, s, d, place == 0)).collect();
    let sets = if s.status == Status::Inactive { &[] } else { s.task_sets.as_slice() };
    let sets: Vec<ecs::TaskSet> = sets.iter().map(|set| task_set(view, s, set, with_tags)).collect();
    let sum = |of: fn(&ecs::Deployment) -> Option<i32>, of_set: fn(&ecs::TaskSet) -> Option<i32>| {
        deployments.iter().filter_map(of).chain(sets.iter().filter_map(of_set)).sum()
    };
    let events = view.events_of(s).rev().filter(|event| event.at >= s.created_at);
    let described = primary.and_then(|p| p.platform_version.clone());
    ecs::Service {
        service_arn: Some(s.arn()),
        service_name: Some(s.name.clone()),
        cluster_arn: Some(arn_of(&s.scope, &s.cluster)),
        load_balancers: Some(load_balancers::render(primary.map(|p| &*p.load_balancers).unwrap_or_default())),
        service_registries: Some(registries::render(primary.map(|p| &*p.registries).unwrap_or_default())),
        status: Some(s.status.as_str().to_owned()),
        desired_count: i32::try_from(s.desired_count).ok(),
        running_count: Some(sum(|d| d.running_count, |set| set.running_count)),
        pending_count: Some(sum(|d| d.pending_count, |set| set.pending_count)),
        launch_type: by_launch_type(strategy).then(|| launch_type(launched_on)),
        capacity_provider_strategy: shown_strategy(strategy),
        platform_version: on_fargate.then(|| described.unwrap_or_else(|| "LATEST".to_owned())),
        platform_family: on_fargate.then(|| "Linux".to_owned()),
        task_definition: primary.map(|p| task_definition::arn_of(&s.scope, &p.family, p.revision)),
        deployment_configuration: Some(configuration::render(&s.configuration)),
        task_sets: s.controller.has_task_sets().then_some(sets),
        deployments: Some(deployments),
        role_arn: Some(format!(
            "arn:aws:iam::{}:role/aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS",
            s.scope.account
        )),
        events: Some(events.map(|e| event(e)).collect()),
        created_at: Some(Timestamp(s.created_at.millis())),
        current_service_deployment: current(view, s).map(|current| current.arn()),
        current_service_revisions: Some(s.deployments.iter().map(|d| current_revision(view, s, d)).collect()),
        placement_constraints: Some(s.constraints.iter().map(placement::render_constraint).collect()),
        placement_strategy: Some(s.strategies.iter().map(placement::render_strategy).collect()),
        network_configuration: primary.and_then(|p| p.network.as_ref()).map(network),
        health_check_grace_period_seconds: s.health_check_grace_period.and_then(|s| i32::try_from(s).ok()),
        scheduling_strategy: Some(scheduling_strategy(s.scheduling_strategy)),
        deployment_controller: Some(ecs::DeploymentController { r#type: controller(s.controller) }),
        tags: Some(if with_tags { tag::render(&s.tags) } else { Vec::new() }),
        created_by: Some(s.created_by.clone()),
        enable_ecs_managed_tags: Some(s.managed_tags),
        propagate_tags: Some(match s.propagate_tags {
            None => ecs::PropagateTags::None,
            Some(PropagateTags::TaskDefinition) => ecs::PropagateTags::TaskDefinition,
            Some(PropagateTags::Service) => ecs::PropagateTags::Service,
        }),
        enable_execute_command: Some(false),
        availability_zone_rebalancing: Some(if s.availability_zone_rebalancing {
            ecs::AvailabilityZoneRebalancing::Enabled
        } else {
            ecs::AvailabilityZoneRebalancing::Disabled
        }),
        resource_management_type: None,
    }
}

fn controller(controller: Controller) -> ecs::DeploymentControllerType {
    match controller {
        Controller::Ecs => ecs::DeploymentControllerType::Ecs,
        Controller::External => ecs::DeploymentControllerType::External,
        Controller::CodeDeploy => ecs::DeploymentControllerType::CodeDeploy,
    }
}

pub fn task_set(view: &View, s: &Service, set: &TaskSet, with_tags: bool) -> ecs::TaskSet {
    let d = &set.deployment;
    let tasks = view.service_tasks().deployment(&s.key(), &d.id).cloned().unwrap_or_default();
    let number = |count: usize| i32::try_from(count).ok();
    let on_fargate = set.launch_type == LaunchType::Fargate;
    ecs::TaskSet {
        id: Some(d.id.clone()),
        task_set_arn: Some(set.arn(s)),
        service_arn: Some(s.arn()),
        cluster_arn: Some(arn_of(&s.scope, &s.cluster)),
        started_by: (s.controller == Controller::CodeDeploy).then(|| "CODE_DEPLOY".to_owned()),
        external_id: set.external_id.clone(),
        status: Some(set.status.as_str().to_owned()),
        task_definition: Some(task_definition::arn_of(&s.scope, &d.family, d.revision)),
        computed_desired_count: i32::try_from(set.desired(s.desired_count)).ok(),
        pending_count: number(tasks.starting.len()),
        running_count: number(tasks.running.len()),
        created_at: Some(Timestamp(d.created_at.millis())),
        updated_at: Some(Timestamp(d.updated_at.millis())),
        launch_type: by_launch_type(&d.capacity_strategy).then(|| launch_type(set.launch_type)),
        capacity_provider_strategy: shown_strategy(&d.capacity_strategy),
        platform_version: on_fargate
            .then(|| d.platform_version.clone().unwrap_or_else(|| "LATEST".to_owned())),
        platform_family: on_fargate.then(|| "Linux".to_owned()),
        network_configuration: d.network.as_ref().map(network),
        load_balancers: Some(load_balancers::render(&d.load_balancers)),
        service_registries: Some(registries::render(&d.registries)),
        scale: Some(ecs::Scale {
            value: Some(f64::from(set.scale) / 1000.0),
            unit: Some(ecs::ScaleUnit::Percent),
        }),
        stability_status: Some(if set.stable {
            ecs::StabilityStatus::SteadyState
        } else {
            ecs::StabilityStatus::Stabilizing
        }),
        stability_status_at: Some(Timestamp(set.stable_at.millis())),
        tags: Some(if with_tags { tag::render(&set.tags) } else { Vec::new() }),
        fargate_ephemeral_storage: None,
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
        capacity_provider_strategy: shown_strategy(&d.capacity_strategy),
        launch_type: by_launch_type(&d.capacity_strategy).then(|| launch_type(s.launch_type)),
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

/// A service with a strategy is shown without a launch type.
fn by_launch_type(strategy: &[StrategyItem]) -> bool {
    strategy.is_empty()
}

fn shown_strategy(strategy: &[StrategyItem]) -> Option<Vec<ecs::CapacityProviderStrategyItem>> {
    (!strategy.is_empty()).then(|| capacity_provider::render_strategy(strategy))
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

/// The service deployment that is under way.
fn current<'a>(view: &'a View, s: &Service) -> Option<&'a ServiceDeployment> {
    let id = s.service_deployment.as_ref()?;
    let key = ServiceDeployment::key_of(&s.scope, &s.cluster, &s.name, id);
    view.service_deployments.get(&key).map(|found| &**found).filter(|found| found.status.is_under_way())
}

fn current_revision(view: &View, s: &Service, d: &Deployment) -> ecs::ServiceCurrentRevisionSummary {
    let summary = summary(view, s, &d.service_revision);
    ecs::ServiceCurrentRevisionSummary {
        arn: summary.arn,
        requested_task_count: summary.requested_task_count,
        running_task_count: summary.running_task_count,
        pending_task_count: summary.pending_task_count,
    }
}

/// A revision with the tasks that it has now.
fn summary(view: &View, s: &Service, id: &str) -> ecs::ServiceRevisionSummary {
    let place = s.deployments.iter().position(|deployment| deployment.service_revision == id);
    let found = place.and_then(|place| s.deployments.get(place));
    let tasks = found.and_then(|found| view.service_tasks().deployment(&s.key(), &found.id));
    let tasks = tasks.cloned().unwrap_or_default();
    let requested = if place == Some(0) { s.desired_count as usize } else { tasks.active_count() };
    // Rolling deployments give no traffic by weights.
    let shifts = !s.configuration.strategy.is_rolling();
    let weights = found.filter(|_| shifts).map(|found| traffic(view, s, found));
    let percent = |tenths: u32| f64::from(tenths) / 10.0;
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    ecs::ServiceRevisionSummary {
        arn: Some(revision_arn(&s.scope, &s.cluster, &s.name, id)),
        requested_task_count: Some(number(requested)),
        running_task_count: Some(number(tasks.running.len())),
        pending_task_count: Some(number(tasks.starting.len())),
        requested_test_traffic_weight: weights.map(|(_, test)| percent(test)),
        requested_production_traffic_weight: weights.map(|(production, _)| percent(production)),
    }
}

pub fn deployment_status(status: ServiceDeploymentStatus) -> ecs::ServiceDeploymentStatus {
    match status {
        ServiceDeploymentStatus::InProgress => ecs::ServiceDeploymentStatus::InProgress,
        ServiceDeploymentStatus::Successful => ecs::ServiceDeploymentStatus::Successful,
        ServiceDeploymentStatus::Stopped => ecs::ServiceDeploymentStatus::Stopped,
        ServiceDeploymentStatus::RollbackInProgress => ecs::ServiceDeploymentStatus::RollbackInProgress,
        ServiceDeploymentStatus::RollbackSuccessful => ecs::ServiceDeploymentStatus::RollbackSuccessful,
        ServiceDeploymentStatus::RollbackFailed => ecs::ServiceDeploymentStatus::RollbackFailed,
    }
}

pub fn brief(d: &ServiceDeployment) -> ecs::ServiceDeploymentBrief {
    let at = |time: longshore_model::Timestamp| Timestamp(time.millis());
    ecs::ServiceDeploymentBrief {
        service_deployment_arn: Some(d.arn()),
        service_arn: Some(arn::ecs(&d.scope, format_args!("service/{}/{}", d.cluster, d.service))),
        cluster_arn: Some(arn_of(&d.scope, &d.cluster)),
        started_at: Some(at(d.created_at)),
        created_at: Some(at(d.created_at)),
        finished_at: d.finished_at.map(at),
        target_service_revision_arn: Some(revision_arn(&d.scope, &d.cluster, &d.service, &d.target)),
        status: Some(deployment_status(d.status)),
        status_reason: d.status_reason.clone(),
    }
}

pub fn service_deployment(view: &View, s: &Service, d: &ServiceDeployment) -> ecs::ServiceDeployment {
    let at = |time: longshore_model::Timestamp| Timestamp(time.millis());
    let rollback = d.rollback.as_ref().map(|rollback| ecs::Rollback {
        reason: Some(rollback.reason.clone()),
        started_at: Some(at(rollback.started_at)),
        service_revision_arn: Some(revision_arn(&d.scope, &d.cluster, &d.service, &rollback.to)),
    });
    ecs::ServiceDeployment {
        service_deployment_arn: Some(d.arn()),
        service_arn: Some(s.arn()),
        cluster_arn: Some(arn_of(&d.scope, &d.cluster)),
        created_at: Some(at(d.created_at)),
        started_at: Some(at(d.created_at)),
        finished_at: d.finished_at.map(at),
        stopped_at: d.stopped_at.map(at),
        updated_at: Some(at(d.updated_at)),
        source_service_revisions: Some(d.sources.iter().map(|id| summary(view, s, id)).collect()),
        target_service_revision: Some(summary(view, s, &d.target)),
        status: Some(deployment_status(d.status)),
        status_reason: d.status_reason.clone(),
        lifecycle_stage: d.progress.as_ref().map(|progress| configuration::render_stage(progress.stage)),
        deployment_configuration: Some(configuration::render(&d.configuration)),
        rollback,
        deployment_circuit_breaker: Some(circuit_breaker(view, s, d)),
        alarms: Some(alarms(d)),
        lifecycle_hook_details: configuration::render_hook_details(d),
    }
}

fn alarms(d: &ServiceDeployment) -> ecs::ServiceDeploymentAlarms {
    use ecs::ServiceDeploymentRollbackMonitorsStatus as Monitors;
    let alarms = d.configuration.alarms();
    let status = match (alarms.is_some(), d.triggered_alarms.is_empty(), d.status) {
        (false, _, _) => Monitors::Disabled,
        (true, false, _) => Monitors::Triggered,
        (true, true, ServiceDeploymentStatus::InProgress) => Monitors::Monitoring,
        (true, true, _) => Monitors::MonitoringComplete,
    };
    ecs::ServiceDeploymentAlarms {
        status: Some(status),
        alarm_names: Some(alarms.map(|alarms| alarms.names.clone()).unwrap_or_default()),
        triggered_alarm_names: Some(d.triggered_alarms.clone()),
    }
}

fn circuit_breaker(view: &View, s: &Service, d: &ServiceDeployment) -> ecs::ServiceDeploymentCircuitBreaker {
    use ecs::ServiceDeploymentRollbackMonitorsStatus as Monitors;
    let enabled = d.configuration.circuit_breaker.is_some_and(|breaker| breaker.enable);
    let status = match (enabled, d.failures, d.status) {
        (false, _, _) => Monitors::Disabled,
        (true, Some(_), _) => Monitors::Triggered,
        (true, None, ServiceDeploymentStatus::InProgress) => Monitors::Monitoring,
        (true, None, _) => Monitors::MonitoringComplete,
    };
    let target = s.deployments.iter().find(|deployment| deployment.service_revision == d.target);
    let failures = d.failures.or_else(|| target.map(|target| failed_tasks(view, s, target)));
    ecs::ServiceDeploymentCircuitBreaker {
        status: Some(status),
        failure_count: failures.and_then(|count| i32::try_from(count).ok()).or(Some(0)),
        threshold: i32::try_from(threshold(s.desired_count)).ok(),
    }
}

pub fn revision(view: &View, r: &ServiceRevision) -> ecs::ServiceRevision {
    let on_fargate = r.launch_type == LaunchType::Fargate;
    let definition = view.task_definition(&r.scope, &r.family, r.revision);
    let images = definition.into_iter().flat_map(|definition| &definition.containers).map(|container| {
        ecs::ContainerImage {
            container_name: Some(container.name.clone()),
            image_digest: None,
            image: Some(container.image.clone()),
        }
    });
    ecs::ServiceRevision {
        service_revision_arn: Some(revision_arn(&r.scope, &r.cluster, &r.service, &r.id)),
        service_arn: Some(arn::ecs(&r.scope, format_args!("service/{}/{}", r.cluster, r.service))),
        cluster_arn: Some(arn_of(&r.scope, &r.cluster)),
        task_definition: Some(task_definition::arn_of(&r.scope, &r.family, r.revision)),
        capacity_provider_strategy: shown_strategy(&r.capacity_strategy),
        launch_type: by_launch_type(&r.capacity_strategy).then(|| launch_type(r.launch_type)),
        platform_version: on_fargate.then(|| "1.4.0".to_owned()),
        platform_family: on_fargate.then(|| "Linux".to_owned()),
        load_balancers: Some(load_balancers::render(&r.load_balancers)),
        service_registries: Some(registries::render(&r.registries)),
        network_configuration: r.network.as_ref().map(network),
        container_images: Some(images.collect()),
        guard_duty_enabled: Some(false),
        service_connect_configuration: None,
        volume_configurations: None,
        fargate_ephemeral_storage: None,
        created_at: Some(Timestamp(r.created_at.millis())),
        vpc_lattice_configurations: None,
        resolved_configuration: (!r.load_balancers.is_empty()).then(|| ecs::ResolvedConfiguration {
            load_balancers: Some(load_balancers::render_resolved(&r.load_balancers, r.alternate)),
        }),
        ecs_managed_resources: None,
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
