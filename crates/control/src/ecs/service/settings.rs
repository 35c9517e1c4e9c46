//! What CreateService and UpdateService say of a service.

use super::super::capacity_provider;
use super::super::placement::{constraints, strategies};
use super::super::run_task::{check_for_fargate, check_platform_version};
use super::super::{invalid, task_definition::not_negative};
use super::{configuration, load_balancers, registries};
use crate::given_when_present;
use crate::refuse::{Given, unsupported};
use longshore_ecs as ecs;
use longshore_engine::service::can_rebalance;
use longshore_model::capacity_provider::StrategyItem;
use longshore_model::placement::{PlacementConstraint, PlacementStrategy};
use longshore_model::service::{
    Controller, PropagateTags, SchedulingStrategy, Service, ServiceLoadBalancer, ServiceRegistry,
};
use longshore_model::task::LaunchType;

given_when_present!(ecs::ServiceConnectConfiguration);

/// What may be said at any time; what is not said stays.
pub struct Settings {
    pub desired_count: Option<u32>,
    pub task_definition: Option<String>,
    pub network: Option<ecs::AwsVpcConfiguration>,
    pub platform_version: Option<String>,
    pub capacity_strategy: Vec<StrategyItem>,
    pub controller: Option<Controller>,
    /// `None` leaves them as they are; an empty list takes them away.
    pub load_balancers: Option<Vec<ServiceLoadBalancer>>,
    /// As the load balancers.
    pub registries: Option<Vec<ServiceRegistry>>,
    grace_period: Option<u32>,
    rebalancing: Option<bool>,
    configuration: Option<ecs::DeploymentConfiguration>,
    constraints: Option<Vec<PlacementConstraint>>,
    strategies: Option<Vec<PlacementStrategy>>,
    propagate_tags: Option<Option<PropagateTags>>,
    managed_tags: Option<bool>,
}

/// What is said only when a service is made.
pub struct OfCreate {
    pub cluster: Option<String>,
    pub name: String,
    pub launch_type: Option<ecs::LaunchType>,
    pub scheduling_strategy: Option<ecs::SchedulingStrategy>,
    pub client_token: Option<String>,
    pub tags: Option<Vec<ecs::Tag>>,
}

/// Which service an update is of, and how.
pub struct OfUpdate {
    pub cluster: Option<String>,
    pub service: String,
    pub force_new_deployment: bool,
}

pub fn of_create(request: ecs::CreateServiceRequest) -> Result<(OfCreate, Settings), ecs::Error> {
    let ecs::CreateServiceRequest {
        cluster,
        service_name,
        task_definition,
        availability_zone_rebalancing,
        load_balancers,
        service_registries,
        desired_count,
        client_token,
        launch_type,
        capacity_provider_strategy,
        platform_version,
        role,
        deployment_configuration,
        placement_constraints,
        placement_strategy,
        network_configuration,
        health_check_grace_period_seconds,
        scheduling_strategy,
        deployment_controller,
        tags,
        enable_ecs_managed_tags,
        propagate_tags,
        enable_execute_command,
        service_connect_configuration,
        volume_configurations,
        vpc_lattice_configurations,
    } = request;
    refuse(&[("role", role.given())])?;
    let settings = settings(Said {
        availability_zone_rebalancing,
        capacity_provider_strategy,
        deployment_configuration,
        deployment_controller,
        desired_count,
        enable_ecs_managed_tags,
        enable_execute_command,
        health_check_grace_period_seconds,
        load_balancers,
        network_configuration,
        placement_constraints,
        placement_strategy,
        platform_version,
        propagate_tags,
        service_connect_configuration,
        service_registries,
        task_definition,
        volume_configurations,
        vpc_lattice_configurations,
    })?;
    let rest = OfCreate { cluster, name: service_name, launch_type, scheduling_strategy, client_token, tags };
    Ok((rest, settings))
}

pub fn of_update(request: ecs::UpdateServiceRequest) -> Result<(OfUpdate, Settings), ecs::Error> {
    let ecs::UpdateServiceRequest {
        cluster,
        service,
        desired_count,
        task_definition,
        capacity_provider_strategy,
        deployment_configuration,
        availability_zone_rebalancing,
        network_configuration,
        placement_constraints,
        placement_strategy,
        platform_version,
        force_new_deployment,
        health_check_grace_period_seconds,
        deployment_controller,
        enable_execute_command,
        enable_ecs_managed_tags,
        load_balancers,
        propagate_tags,
        service_registries,
        service_connect_configuration,
        volume_configurations,
        vpc_lattice_configurations,
    } = request;
    let settings = settings(Said {
        availability_zone_rebalancing,
        capacity_provider_strategy,
        deployment_configuration,
        deployment_controller,
        desired_count,
        enable_ecs_managed_tags,
        enable_execute_command,
        health_check_grace_period_seconds,
        load_balancers,
        network_configuration,
        placement_constraints,
        placement_strategy,
        platform_version,
        propagate_tags,
        service_connect_configuration,
        service_registries,
        task_definition,
        volume_configurations,
        vpc_lattice_configurations,
    })?;
    let force_new_deployment = force_new_deployment.unwrap_or(false);
    Ok((OfUpdate { cluster, service, force_new_deployment }, settings))
}

/// What both requests say, as they say it.
struct Said {
    availability_zone_rebalancing: Option<ecs::AvailabilityZoneRebalancing>,
    capacity_provider_strategy: Option<Vec<ecs::CapacityProviderStrategyItem>>,
    deployment_configuration: Option<ecs::DeploymentConfiguration>,
    deployment_controller: Option<ecs::DeploymentController>,
    desired_count: Option<i32>,
    enable_ecs_managed_tags: Option<bool>,
    enable_execute_command: Option<bool>,
    health_check_grace_period_seconds: Option<i32>,
    load_balancers: Option<Vec<ecs::LoadBalancer>>,
    network_configuration: Option<ecs::NetworkConfiguration>,
    placement_constraints: Option<Vec<ecs::PlacementConstraint>>,
    placement_strategy: Option<Vec<ecs::PlacementStrategy>>,
    platform_version: Option<String>,
    propagate_tags: Option<ecs::PropagateTags>,
    service_connect_configuration: Option<ecs::ServiceConnectConfiguration>,
    service_registries: Option<Vec<ecs::ServiceRegistry>>,
    task_definition: Option<String>,
    volume_configurations: Option<Vec<ecs::ServiceVolumeConfiguration>>,
    vpc_lattice_configurations: Option<Vec<ecs::VpcLatticeConfiguration>>,
}

fn settings(said: Said) -> Result<Settings, ecs::Error> {
    refuse(&[
        ("enableExecuteCommand", said.enable_execute_command.given()),
        ("serviceConnectConfiguration", said.service_connect_configuration.given()),
        ("volumeConfigurations", said.volume_configurations.given()),
        ("vpcLatticeConfigurations", said.vpc_lattice_configurations.given()),
    ])?;
    let controller = said.deployment_controller.map(controller).transpose()?;
    Ok(Settings {
        desired_count: count(said.desired_count)?,
        task_definition: said.task_definition.filter(|given| !given.is_empty()),
        network: said.network_configuration.and_then(|network| network.awsvpc_configuration),
        platform_version: platform(said.platform_version)?,
        capacity_strategy: capacity_provider::strategy(said.capacity_provider_strategy)?,
        controller,
        load_balancers: said.load_balancers.map(load_balancers::parse).transpose()?,
        registries: said.service_registries.map(registries::parse).transpose()?,
        grace_period: said.health_check_grace_period_seconds.map(grace_period).transpose()?,
        rebalancing: said.availability_zone_rebalancing.map(is_rebalancing),
        configuration: said.deployment_configuration,
        constraints: said.placement_constraints.map(|given| constraints(Some(given))).transpose()?,
        strategies: said.placement_strategy.map(|given| strategies(Some(given))).transpose()?,
        propagate_tags: said.propagate_tags.map(propagation),
        managed_tags: said.enable_ecs_managed_tags,
    })
}

impl Settings {
    /// What a launch type or a scheduling strategy does not know.
    pub fn check(&self, launch_type: LaunchType, strategy: SchedulingStrategy) -> Result<(), ecs::Error> {
        if launch_type == LaunchType::Fargate && strategy == SchedulingStrategy::Daemon {
            return Err(invalid("The daemon scheduling strategy is not supported for Fargate launch type."));
        }
        let (constraints, strategies) = (self.constraints.given(), self.strategies.given());
        check_for_fargate(launch_type, self.platform_version.is_some(), constraints, strategies)?;
        if strategy == SchedulingStrategy::Daemon && !self.capacity_strategy.is_empty() {
            return Err(invalid(
                "The daemon scheduling strategy does not support capacity provider strategies.",
            ));
        }
        if strategy == SchedulingStrategy::Daemon {
            if self.desired_count.is_some() {
                return Err(invalid("The daemon scheduling strategy does not support a desired count."));
            }
            if self.strategies.given() {
                return Err(invalid("The daemon scheduling strategy does not support placement strategies."));
            }
        }
        Ok(())
    }

    /// What task sets say, and not their service.
    pub fn check_external(&self) -> Result<(), ecs::Error> {
        let said = [
            ("task definition", self.task_definition.is_some()),
            ("network configuration", self.network.is_some()),
            ("platform version", self.platform_version.is_some()),
            ("service registry", self.registries.as_ref().is_some_and(|given| !given.is_empty())),
            ("load balancer", self.load_balancers.as_ref().is_some_and(|given| !given.is_empty())),
            ("capacity provider strategy", !self.capacity_strategy.is_empty()),
            ("deployment configuration", self.configuration.as_ref().is_some_and(is_of_deployments)),
        ];
        match said.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((what, _)) => Err(invalid(format!(
                "Unable to set a {what} on services with an EXTERNAL deployment controller: their task sets have it."
            ))),
        }
    }

    /// What CodeDeploy brings into use, and an update does not.
    pub fn check_code_deploy(&self, forced: bool) -> Result<(), ecs::Error> {
        let elsewhere = "on services with a CODE_DEPLOY deployment controller. Use AWS CodeDeploy to trigger a new deployment.";
        if self.task_definition.is_some() {
            return Err(invalid(format!("Unable to update task definition {elsewhere}")));
        }
        if self.network.is_some() {
            return Err(invalid(format!("Unable to update network parameters {elsewhere}")));
        }
        if forced {
            return Err(invalid(format!("Cannot force a new deployment {elsewhere}")));
        }
        let others = [
            ("platform version", self.platform_version.is_some()),
            ("load balancers", self.load_balancers.is_some()),
            ("service registries", self.registries.is_some()),
            ("capacity provider strategy", !self.capacity_strategy.is_empty()),
        ];
        match others.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((what, _)) => Err(invalid(format!("Unable to update {what} {elsewhere}"))),
        }
    }

    pub fn apply(&self, service: &mut Service) -> Result<(), ecs::Error> {
        service.desired_count = self.desired_count.unwrap_or(service.desired_count);
        if let Some(given) = &self.configuration {
            service.configuration = configuration::parse(given.clone(), service.configuration.clone())?;
            let rolling = service.configuration.strategy.is_rolling();
            if service.scheduling_strategy == SchedulingStrategy::Daemon && !rolling {
                return Err(invalid(
                    "The daemon scheduling strategy only supports the deployment strategy ROLLING.",
                ));
            }
        }
        if let Some(given) = &self.constraints {
            service.constraints.clone_from(given);
        }
        if let Some(given) = &self.strategies {
            service.strategies.clone_from(given);
        }
        service.propagate_tags = self.propagate_tags.unwrap_or(service.propagate_tags);
        service.managed_tags = self.managed_tags.unwrap_or(service.managed_tags);
        let primary = service.primary_task_set().map(|set| &set.deployment).or(service.primary());
        let present = primary.is_some_and(|primary| !primary.load_balancers.is_empty());
        let by_task_sets = service.controller == Controller::External;
        let is_behind =
            by_task_sets || self.load_balancers.as_ref().map_or(present, |given| !given.is_empty());
        if !is_behind && self.grace_period.is_some_and(|seconds| seconds > 0) {
            return Err(invalid(
                "Health check grace period is only valid for services configured to use load balancers",
            ));
        }
        let grace_period = self.grace_period.or(service.health_check_grace_period);
        let grace_period = grace_period.or((!by_task_sets).then_some(0));
        service.health_check_grace_period = grace_period.filter(|_| is_behind);
        self.rebalance(service)
    }

    /// Zones of a new service are kept even where that is possible and nothing else is said.
    fn rebalance(&self, service: &mut Service) -> Result<(), ecs::Error> {
        let possible = can_rebalance(service);
        if self.rebalancing == Some(true) && !possible {
            return Err(invalid(
                "Availability Zone rebalancing needs the scheduling strategy REPLICA, a maximumPercent above 100, the \
                 deployment controller ECS, and a placement strategy that is none or begins with a spread over \
                 attribute:ecs.availability-zone; it is not supported for the launch type EXTERNAL.",
            ));
        }
        let present =
            if service.deployments.is_empty() { possible } else { service.availability_zone_rebalancing };
        service.availability_zone_rebalancing = self.rebalancing.unwrap_or(present && possible);
        Ok(())
    }
}

/// Whether a configuration says how deployments go on, of which there are none with task sets.
fn is_of_deployments(given: &ecs::DeploymentConfiguration) -> bool {
    let strategy = given.strategy.is_some_and(|strategy| strategy != ecs::DeploymentStrategy::Rolling);
    let breaker = given.deployment_circuit_breaker.as_ref().is_some_and(|breaker| breaker.enable);
    strategy || breaker || given.lifecycle_hooks.given()
}

impl Given for PlacementConstraint {
    fn given(&self) -> bool {
        true
    }
}

fn refuse(fields: &[(&str, bool)]) -> Result<(), ecs::Error> {
    unsupported(fields).map_err(invalid)
}

fn grace_period(given: i32) -> Result<u32, ecs::Error> {
    let wrong = || invalid(format!("healthCheckGracePeriodSeconds must not be negative, and is {given}."));
    u32::try_from(given).map_err(|_| wrong())
}

fn is_rebalancing(given: ecs::AvailabilityZoneRebalancing) -> bool {
    given == ecs::AvailabilityZoneRebalancing::Enabled
}

fn controller(given: ecs::DeploymentController) -> Result<Controller, ecs::Error> {
    let ecs::DeploymentController { r#type } = given;
    match r#type {
        ecs::DeploymentControllerType::Ecs => Ok(Controller::Ecs),
        ecs::DeploymentControllerType::External => Ok(Controller::External),
        ecs::DeploymentControllerType::CodeDeploy => Ok(Controller::CodeDeploy),
    }
}

fn count(given: Option<i32>) -> Result<Option<u32>, ecs::Error> {
    let count = given.map(|count| not_negative("desiredCount", count)).transpose()?;
    Ok(count.and_then(|count| u32::try_from(count).ok()))
}

fn platform(given: Option<String>) -> Result<Option<String>, ecs::Error> {
    check_platform_version(given.as_deref())?;
    Ok(given.filter(|given| !given.is_empty()))
}

fn propagation(given: ecs::PropagateTags) -> Option<PropagateTags> {
    match given {
        ecs::PropagateTags::None => None,
        ecs::PropagateTags::TaskDefinition => Some(PropagateTags::TaskDefinition),
        ecs::PropagateTags::Service => Some(PropagateTags::Service),
    }
}
