//! From ARNs to records. Invariant: an ARN finds the record that has this very ARN, or nothing.

use super::invalid;
use longshore_elbv2::Error;
use longshore_engine::View;
use longshore_model::Scope;
use longshore_model::arn::Arn;
use longshore_model::elb::{Listener, ListenerRule, LoadBalancer, TargetGroup};
use longshore_wire::Fault;
use std::sync::Arc;

pub fn load_balancer<'a>(view: &'a View, scope: &Scope, arn: &str) -> Result<&'a Arc<LoadBalancer>, Fault> {
    find_load_balancer(view, scope, arn)?.ok_or_else(|| no_load_balancer(arn))
}

pub fn find_load_balancer<'a>(
    view: &'a View,
    scope: &Scope,
    arn: &str,
) -> Result<Option<&'a Arc<LoadBalancer>>, Fault> {
    let parts = parts(arn, "loadbalancer/", "load balancer")?;
    let &[_, name, _] = parts.as_slice() else { return Err(not_an_arn(arn, "load balancer")) };
    let found = view.load_balancers.get(&LoadBalancer::key_of(scope, name));
    Ok(found.filter(|found| found.arn() == arn))
}

pub fn target_group<'a>(view: &'a View, scope: &Scope, arn: &str) -> Result<&'a Arc<TargetGroup>, Fault> {
    find_target_group(view, scope, arn)?.ok_or_else(no_target_groups)
}

pub fn find_target_group<'a>(
    view: &'a View,
    scope: &Scope,
    arn: &str,
) -> Result<Option<&'a Arc<TargetGroup>>, Fault> {
    let parts = parts(arn, "targetgroup/", "target group")?;
    let &[name, _] = parts.as_slice() else { return Err(not_an_arn(arn, "target group")) };
    let found = view.target_groups.get(&TargetGroup::key_of(scope, name));
    Ok(found.filter(|found| found.arn() == arn))
}

/// A listener with its load balancer.
pub fn listener<'a>(
    view: &'a View,
    scope: &Scope,
    arn: &str,
) -> Result<(&'a Arc<LoadBalancer>, &'a Arc<Listener>), Fault> {
    let parts = parts(arn, "listener/", "listener")?;
    let &[kind, name, load_balancer, id] = parts.as_slice() else { return Err(not_an_arn(arn, "listener")) };
    let found = listener_at(view, scope, [kind, name, load_balancer], id);
    found.filter(|(_, listener)| listener.arn() == arn).ok_or_else(no_listeners)
}

/// What the ARN of a rule names.
pub enum Rule<'a> {
    /// The one that has no record of its own.
    Default,
    Own(&'a Arc<ListenerRule>),
}

pub fn rule<'a>(view: &'a View, scope: &Scope, arn: &str) -> Result<(&'a Arc<Listener>, Rule<'a>), Fault> {
    let parts = parts(arn, "listener-rule/", "listener rule")?;
    let &[kind, name, load_balancer, listener, id] = parts.as_slice() else {
        return Err(not_an_arn(arn, "listener rule"));
    };
    let found = listener_at(view, scope, [kind, name, load_balancer], listener);
    let (_, listener) = found.ok_or_else(no_rules)?;
    if listener.default_rule_arn() == arn {
        return Ok((listener, Rule::Default));
    }
    let key = ListenerRule::key_of(scope, &listener.load_balancer, &listener.id, id);
    let rule = view.listener_rules.get(&key).filter(|rule| rule.arn() == arn);
    rule.map(|rule| (listener, Rule::Own(rule))).ok_or_else(no_rules)
}

fn listener_at<'a>(
    view: &'a View,
    scope: &Scope,
    load_balancer: [&str; 3],
    id: &str,
) -> Option<(&'a Arc<LoadBalancer>, &'a Arc<Listener>)> {
    let path = load_balancer.join("/");
    let [_, name, _] = load_balancer;
    let load_balancer = view.load_balancers.get(&LoadBalancer::key_of(scope, name))?;
    let mut listeners = view.listeners.under(&Listener::prefix_of(scope, &path));
    Some((load_balancer, listeners.find(|listener| listener.id == id)?)).filter(|(lb, _)| lb.path() == path)
}

fn parts<'a>(arn: &'a str, kind: &str, what: &str) -> Result<Vec<&'a str>, Fault> {
    let resource = Arn::parse(arn)
        .filter(|arn| arn.service == "elasticloadbalancing")
        .and_then(|arn| arn.resource.strip_prefix(kind));
    Ok(resource.ok_or_else(|| not_an_arn(arn, what))?.split('/').collect())
}

fn not_an_arn(text: &str, what: &str) -> Fault {
    invalid(format!("'{text}' is not a valid {what} ARN"))
}

pub fn no_load_balancer(arn: &str) -> Fault {
    Error::LoadBalancerNotFoundException(format!("Load balancer '{arn}' not found")).into()
}

pub fn no_target_groups() -> Fault {
    Error::TargetGroupNotFoundException("One or more target groups not found".to_owned()).into()
}

pub fn no_listeners() -> Fault {
    Error::ListenerNotFoundException("One or more listeners not found".to_owned()).into()
}

pub fn no_rules() -> Fault {
    Error::RuleNotFoundException("One or more rules not found".to_owned()).into()
}
