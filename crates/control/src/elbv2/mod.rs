//! Elastic Load Balancing, version 2: one file per resource.

mod action;
mod attribute;
mod certificate;
mod condition;
mod listener;
mod load_balancer;
mod reference;
mod rule;
mod security;
mod tag;
mod target;
mod target_group;

use crate::api::Routes;
use crate::refuse::unsupported;
use longshore_elbv2 as elb;
use longshore_elbv2::operations as op;
use longshore_wire::Fault;

pub fn routes() -> Routes {
    Routes::new(&elb::SERVICE)
        .on::<op::CreateLoadBalancer, _, _, _>(load_balancer::create)
        .on::<op::DeleteLoadBalancer, _, _, _>(load_balancer::delete)
        .on::<op::DescribeLoadBalancers, _, _, _>(load_balancer::describe)
        .on::<op::CreateTargetGroup, _, _, _>(target_group::create)
        .on::<op::DeleteTargetGroup, _, _, _>(target_group::delete)
        .on::<op::DescribeTargetGroups, _, _, _>(target_group::describe)
        .on::<op::RegisterTargets, _, _, _>(target::register)
        .on::<op::DeregisterTargets, _, _, _>(target::deregister)
        .on::<op::DescribeTargetHealth, _, _, _>(target::describe_health)
        .on::<op::CreateListener, _, _, _>(listener::create)
        .on::<op::DeleteListener, _, _, _>(listener::delete)
        .on::<op::DescribeListeners, _, _, _>(listener::describe)
        .on::<op::SetSubnets, _, _, _>(load_balancer::set_subnets)
        .on::<op::SetSecurityGroups, _, _, _>(load_balancer::set_security_groups)
        .on::<op::SetIpAddressType, _, _, _>(load_balancer::set_ip_address_type)
        .on::<op::DescribeCapacityReservation, _, _, _>(load_balancer::describe_capacity)
        .on::<op::ModifyTargetGroup, _, _, _>(target_group::modify)
        .on::<op::ModifyListener, _, _, _>(listener::modify)
        .on::<op::CreateRule, _, _, _>(rule::create)
        .on::<op::ModifyRule, _, _, _>(rule::modify)
        .on::<op::DeleteRule, _, _, _>(rule::delete)
        .on::<op::DescribeRules, _, _, _>(rule::describe)
        .on::<op::SetRulePriorities, _, _, _>(rule::set_priorities)
        .on::<op::DescribeLoadBalancerAttributes, _, _, _>(attribute::describe_of_load_balancer)
        .on::<op::ModifyLoadBalancerAttributes, _, _, _>(attribute::modify_of_load_balancer)
        .on::<op::DescribeTargetGroupAttributes, _, _, _>(attribute::describe_of_target_group)
        .on::<op::ModifyTargetGroupAttributes, _, _, _>(attribute::modify_of_target_group)
        .on::<op::DescribeListenerAttributes, _, _, _>(attribute::describe_of_listener)
        .on::<op::ModifyListenerAttributes, _, _, _>(attribute::modify_of_listener)
        .on::<op::AddListenerCertificates, _, _, _>(certificate::add)
        .on::<op::RemoveListenerCertificates, _, _, _>(certificate::remove)
        .on::<op::DescribeListenerCertificates, _, _, _>(certificate::describe)
        .on::<op::DescribeSSLPolicies, _, _, _>(security::describe_policies)
        .on::<op::AddTags, _, _, _>(tag::add)
        .on::<op::RemoveTags, _, _, _>(tag::remove)
        .on::<op::DescribeTags, _, _, _>(tag::describe)
}

/// What the service answers to values that are wrong by themselves.
fn invalid(message: impl Into<String>) -> Fault {
    Fault::sender("ValidationError", message.into())
}

/// What does not fit the rest of the request, or what is there.
fn misfit(message: impl Into<String>) -> Fault {
    elb::Error::InvalidConfigurationRequestException(message.into()).into()
}

/// Fields that have no effect yet.
fn refuse(fields: &[(&str, bool)]) -> Result<(), Fault> {
    unsupported(fields).map_err(invalid)
}

/// The rules for the names of load balancers and target groups.
fn check_name(what: &str, name: &str) -> Result<(), Fault> {
    if name.is_empty() {
        return Err(invalid(format!("{what} name cannot be empty")));
    }
    if name.len() > 32 {
        return Err(invalid(format!("{what} name '{name}' cannot be longer than '32' characters")));
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Err(invalid(format!(
            "{what} name '{name}' can only contain characters that are alphanumeric characters or hyphens(-)"
        )));
    }
    if name.starts_with('-') || name.ends_with('-') {
        return Err(invalid(format!("{what} name '{name}' cannot begin or end with '-'")));
    }
    Ok(())
}

/// A port that the API model has checked.
fn port(given: i32) -> Result<u16, Fault> {
    u16::try_from(given).map_err(|_| invalid(format!("Port '{given}' must be between '1-65535' inclusive")))
}
