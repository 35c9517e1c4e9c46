//! The target groups of a service, as requests say them and as describe calls show them.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-load-balancing.html>.

use super::super::invalid;
use crate::refuse::{Given, unsupported};
use longshore_ecs as ecs;
use longshore_engine::View;
use longshore_engine::service::targets::{Rule, find_rule};
use longshore_model::Scope;
use longshore_model::elb::{Action, TargetType};
use longshore_model::service::{Service, ServiceLoadBalancer, TrafficShift};
use longshore_model::task_definition::{NetworkMode, TaskDefinition};

/// The most target groups of a service.
const LIMIT: usize = 5;

pub fn parse(given: Vec<ecs::LoadBalancer>) -> Result<Vec<ServiceLoadBalancer>, ecs::Error> {
    if given.len() > LIMIT {
        return Err(invalid(format!("load balancers can have at most {LIMIT} items.")));
    }
    given.into_iter().map(parse_one).collect()
}

fn parse_one(given: ecs::LoadBalancer) -> Result<ServiceLoadBalancer, ecs::Error> {
    let ecs::LoadBalancer {
        target_group_arn,
        load_balancer_name,
        container_name,
        container_port,
        advanced_configuration,
    } = given;
    // Classic load balancers are no part of the API that Longshore serves.
    unsupported(&[("loadBalancers.loadBalancerName", load_balancer_name.given())]).map_err(invalid)?;
    let missing = |field: &str| invalid(format!("{field} can not be blank."));
    let port = container_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    Ok(ServiceLoadBalancer {
        target_group: target_group_arn
            .filter(|arn| !arn.is_empty())
            .ok_or_else(|| missing("targetGroupArn"))?,
        container: container_name.filter(|name| !name.is_empty()).ok_or_else(|| missing("containerName"))?,
        port: port.ok_or_else(|| invalid("containerPort must be between 1 and 65535."))?,
        shift: advanced_configuration.map(shift).transpose()?,
    })
}

fn shift(given: ecs::AdvancedConfiguration) -> Result<TrafficShift, ecs::Error> {
    let ecs::AdvancedConfiguration {
        alternate_target_group_arn,
        production_listener_rule,
        test_listener_rule,
        role_arn,
    } = given;
    let needed = |field: &str, given: Option<String>| {
        let missing = || invalid(format!("advancedConfiguration.{field} can not be blank."));
        given.filter(|given| !given.is_empty()).ok_or_else(missing)
    };
    Ok(TrafficShift {
        alternate_target_group: needed("alternateTargetGroupArn", alternate_target_group_arn)?,
        production_rule: needed("productionListenerRule", production_listener_rule)?,
        test_rule: test_listener_rule.filter(|given| !given.is_empty()),
        role: needed("roleArn", role_arn)?,
    })
}

/// What has to be true of a service's load balancers for its tasks to become targets.
pub fn check(
    view: &View,
    service: &Service,
    definition: &TaskDefinition,
    balancers: &[ServiceLoadBalancer],
) -> Result<(), ecs::Error> {
    for balancer in balancers {
        check_container(definition, balancer)?;
        let scope = &service.scope;
        check_group(view, scope, definition, &balancer.target_group, balancer.shift.is_none())?;
        let Some(shift) = &balancer.shift else { continue };
        check_group(view, scope, definition, &shift.alternate_target_group, false)?;
        for rule in [Some(&shift.production_rule), shift.test_rule.as_ref()].into_iter().flatten() {
            check_rule(view, service, rule)?;
        }
    }
    let staged = !service.configuration.strategy.is_rolling();
    if staged && balancers.iter().any(|balancer| balancer.shift.is_none()) {
        return Err(invalid(
            "advancedConfiguration is required for each load balancer of a service whose deployment strategy shifts traffic.",
        ));
    }
    Ok(())
}

fn check_container(definition: &TaskDefinition, balancer: &ServiceLoadBalancer) -> Result<(), ecs::Error> {
    let (name, port) = (&balancer.container, balancer.port);
    let container = definition.containers.iter().find(|container| container.name == *name);
    let container = container
        .ok_or_else(|| invalid(format!("The container {name} does not exist in the task definition.")))?;
    if !container.port_mappings.iter().any(|mapping| mapping.container_port == port) {
        return Err(invalid(format!("The container {name} did not have a container port {port} defined.")));
    }
    Ok(())
}

fn check_group(
    view: &View,
    scope: &Scope,
    definition: &TaskDefinition,
    arn: &str,
    is_used: bool,
) -> Result<(), ecs::Error> {
    let group = view.target_group(scope, arn);
    let group = group.ok_or_else(|| invalid(format!("The specified target group {arn} does not exist.")))?;
    if is_used && !has_load_balancer(view, scope, &group.name) {
        return Err(invalid(format!(
            "The target group with targetGroupArn {arn} does not have an associated load balancer."
        )));
    }
    let awsvpc = definition.mode() == NetworkMode::Awsvpc;
    if awsvpc && group.target_type != TargetType::Ip {
        return Err(invalid(format!(
            "The provided target group {arn} has target type instance, which is incompatible with the awsvpc network mode \
             specified in the task definition."
        )));
    }
    if !awsvpc {
        return Err(invalid(
            "Load balancers of services are supported by Longshore for the network mode awsvpc only, so far.",
        ));
    }
    Ok(())
}

/// Whether a listener, or a rule of one, sends to a group.
fn has_load_balancer(view: &View, scope: &Scope, name: &str) -> bool {
    let names = |actions: &[Action]| {
        actions.iter().any(|action| {
            matches!(action, Action::Forward { groups, .. } if groups.iter().any(|group| group.target_group == name))
        })
    };
    view.listeners.of(scope).any(|listener| names(&listener.default_actions))
        || view.listener_rules.of(scope).any(|rule| names(&rule.actions))
}

fn check_rule(view: &View, service: &Service, arn: &str) -> Result<(), ecs::Error> {
    let actions = match find_rule(view, service, arn) {
        Some(Rule::OfListener(rule)) => &rule.actions,
        Some(Rule::Default(listener)) => &listener.default_actions,
        None => return Err(invalid(format!("The specified listener rule {arn} does not exist."))),
    };
    match actions.last() {
        Some(Action::Forward { .. }) => Ok(()),
        Some(Action::Redirect(_) | Action::FixedResponse(_)) | None => {
            Err(invalid(format!("The specified listener rule {arn} does not forward to a target group.")))
        }
    }
}

pub fn render(balancers: &[ServiceLoadBalancer]) -> Vec<ecs::LoadBalancer> {
    balancers
        .iter()
        .map(|balancer| ecs::LoadBalancer {
            target_group_arn: Some(balancer.target_group.clone()),
            load_balancer_name: None,
            container_name: Some(balancer.container.clone()),
            container_port: Some(i32::from(balancer.port)),
            advanced_configuration: balancer.shift.as_ref().map(|shift| ecs::AdvancedConfiguration {
                alternate_target_group_arn: Some(shift.alternate_target_group.clone()),
                production_listener_rule: Some(shift.production_rule.clone()),
                test_listener_rule: shift.test_rule.clone(),
                role_arn: Some(shift.role.clone()),
            }),
        })
        .collect()
}

/// The group and the rules that a revision uses.
pub fn render_resolved(
    balancers: &[ServiceLoadBalancer],
    alternate: bool,
) -> Vec<ecs::ServiceRevisionLoadBalancer> {
    balancers
        .iter()
        .map(|balancer| ecs::ServiceRevisionLoadBalancer {
            target_group_arn: Some(balancer.group(alternate).to_owned()),
            production_listener_rule: balancer.shift.as_ref().map(|shift| shift.production_rule.clone()),
        })
        .collect()
}
