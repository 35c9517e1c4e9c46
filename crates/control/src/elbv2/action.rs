//! What is done with requests. Invariant: a list has exactly one action that ends a request, and each target group that
//! it forwards to is there, in the load balancer's VPC, and of a protocol that fits the listener's.
//! Follows <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_Action.html>.

use super::target_group::{protocol_name, version_name};
use super::{invalid, misfit, reference, refuse};
use longshore_elbv2 as elb;
use longshore_engine::{View, elb as engine};
use longshore_model::Scope;
use longshore_model::elb::{
    Action, FixedResponse, ForwardGroup, GroupProtocol, LoadBalancer, LoadBalancerType, Protocol,
    ProtocolVersion, Redirect, Stickiness, TargetGroup,
};
use longshore_wire::Fault;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Target groups of one action.
const MOST_GROUPS: usize = 5;
/// Target groups of one load balancer.
const MOST_GROUPS_IN_ALL: usize = 100;
const MOST_WEIGHT: u32 = 999;
/// Seven days.
const LONGEST_STICKINESS: u32 = 604_800;
const CONTENT_TYPES: [&str; 5] =
    ["text/plain", "text/css", "text/html", "application/javascript", "application/json"];

/// What a request gives as actions, before target groups are looked up.
pub struct Parsed {
    actions: Vec<Unresolved>,
    orders: Vec<u32>,
}

enum Unresolved {
    Forward { groups: Vec<(String, u32)>, stickiness: Option<Stickiness> },
    Done(Action),
}

/// Actions as a record keeps them, and the target groups that they forward to.
pub struct Resolved<'a> {
    pub actions: Vec<Action>,
    pub orders: Vec<u32>,
    pub groups: Vec<&'a Arc<TargetGroup>>,
}

pub fn parse(mut given: Vec<elb::Action>) -> Result<Parsed, Fault> {
    let orders = orders(&given)?;
    given.sort_by_key(|action| action.order);
    let actions = given.into_iter().map(parse_one).collect::<Result<Vec<_>, _>>()?;
    if actions.len() != 1 {
        return Err(unfit(
            "Exactly one action of type 'forward', 'redirect', or 'fixed-response' must be specified",
        ));
    }
    Ok(Parsed { actions, orders })
}

/// The order of each action, the first one first; nothing where none was given.
fn orders(given: &[elb::Action]) -> Result<Vec<u32>, Fault> {
    let orders = given.iter().filter_map(|action| action.order.and_then(|order| u32::try_from(order).ok()));
    let orders: BTreeSet<u32> = orders.collect();
    if !orders.is_empty() && orders.len() < given.len() {
        return Err(unfit("Each action must have an order of its own"));
    }
    Ok(orders.into_iter().collect())
}

fn unfit(message: impl Into<String>) -> Fault {
    elb::Error::InvalidLoadBalancerActionException(message.into()).into()
}

fn parse_one(given: elb::Action) -> Result<Unresolved, Fault> {
    let elb::Action {
        authenticate_cognito_config,
        authenticate_oidc_config,
        fixed_response_config,
        forward_config,
        jwt_validation_config,
        order: _,
        redirect_config,
        target_group_arn,
        r#type,
    } = given;
    use elb::ActionTypeEnum as Type;
    refuse(&[
        ("An action of type authenticate-oidc", r#type == Type::AuthenticateOidc),
        ("An action of type authenticate-cognito", r#type == Type::AuthenticateCognito),
        ("An action of type jwt-validation", r#type == Type::JwtValidation),
        ("AuthenticateCognitoConfig", authenticate_cognito_config.is_some()),
        ("AuthenticateOidcConfig", authenticate_oidc_config.is_some()),
        ("JwtValidationConfig", jwt_validation_config.is_some()),
    ])?;
    let target_group_arn = target_group_arn.filter(|arn| !arn.is_empty());
    let present = [
        (Type::Forward, target_group_arn.is_some() || forward_config.is_some()),
        (Type::Redirect, redirect_config.is_some()),
        (Type::FixedResponse, fixed_response_config.is_some()),
    ];
    if let Some((other, _)) = present.into_iter().find(|(kind, present)| *present && *kind != r#type) {
        return Err(unfit(format!("An action of type '{type}' cannot have the settings of type '{other}'")));
    }
    let missing = || unfit(format!("The settings of an action of type '{type}' must be specified"));
    match r#type {
        Type::Redirect => parse_redirect(redirect_config.ok_or_else(missing)?),
        Type::FixedResponse => parse_fixed_response(fixed_response_config.ok_or_else(missing)?),
        _ => parse_forward(target_group_arn, forward_config),
    }
}

fn parse_forward(
    target_group_arn: Option<String>,
    config: Option<elb::ForwardActionConfig>,
) -> Result<Unresolved, Fault> {
    let elb::ForwardActionConfig { target_group_stickiness_config, target_groups } =
        config.unwrap_or_default();
    let mut groups = Vec::new();
    for elb::TargetGroupTuple { target_group_arn, weight } in target_groups.unwrap_or_default() {
        let arn = target_group_arn.filter(|arn| !arn.is_empty());
        let arn = arn.ok_or_else(|| invalid("A target group ARN must be specified"))?;
        let weight = u32::try_from(weight.unwrap_or(1)).ok().filter(|weight| *weight <= MOST_WEIGHT);
        let out = || {
            invalid(format!("The weight of target group '{arn}' must be between '0-{MOST_WEIGHT}' inclusive"))
        };
        groups.push((arn.clone(), weight.ok_or_else(out)?));
    }
    match target_group_arn {
        Some(arn) if groups.is_empty() => groups.push((arn, 1)),
        Some(arn) if groups.len() > 1 || groups.iter().any(|(other, _)| *other != arn) => {
            return Err(invalid(
                "TargetGroupArn and ForwardConfig can only be specified together for the same single target group",
            ));
        }
        _ => {}
    }
    let arns: BTreeSet<&String> = groups.iter().map(|(arn, _)| arn).collect();
    if arns.is_empty() {
        return Err(invalid("A target group ARN must be specified"));
    }
    if arns.len() < groups.len() {
        return Err(invalid("A target group can only be specified once in an action"));
    }
    if groups.len() > MOST_GROUPS {
        return Err(invalid(format!("An action can forward to at most '{MOST_GROUPS}' target groups")));
    }
    let stickiness = target_group_stickiness_config.map(parse_stickiness).transpose()?;
    Ok(Unresolved::Forward { groups, stickiness })
}

fn parse_stickiness(given: elb::TargetGroupStickinessConfig) -> Result<Stickiness, Fault> {
    let elb::TargetGroupStickinessConfig { duration_seconds, enabled } = given;
    let enabled = enabled.unwrap_or(false);
    let in_bounds = |seconds: i32| {
        let seconds =
            u32::try_from(seconds).ok().filter(|seconds| (1..=LONGEST_STICKINESS).contains(seconds));
        seconds.ok_or_else(|| {
            invalid(format!(
                "Target group stickiness duration must be between '1-{LONGEST_STICKINESS}' seconds"
            ))
        })
    };
    // Clients send 0 where stickiness is off.
    let seconds = duration_seconds.filter(|seconds| enabled || *seconds != 0).map(in_bounds).transpose()?;
    if enabled && seconds.is_none() {
        return Err(invalid("Target group stickiness duration must be specified when it is enabled"));
    }
    Ok(Stickiness { enabled, seconds })
}

fn parse_redirect(given: elb::RedirectActionConfig) -> Result<Unresolved, Fault> {
    let elb::RedirectActionConfig { host, path, port, protocol, query, status_code } = given;
    let or =
        |given: Option<String>, own: &str| given.filter(|g| !g.is_empty()).unwrap_or_else(|| own.to_owned());
    let redirect = Redirect {
        protocol: or(protocol, "#{protocol}"),
        host: or(host, "#{host}"),
        port: or(port, "#{port}"),
        path: or(path, "/#{path}"),
        // An empty query is one that the user takes away.
        query: query.unwrap_or_else(|| "#{query}".to_owned()),
        status: match status_code {
            elb::RedirectActionStatusCodeEnum::Http301 => 301,
            elb::RedirectActionStatusCodeEnum::Http302 => 302,
        },
    };
    if redirect.port != "#{port}" && redirect.port.parse().ok().is_none_or(|port: u16| port == 0) {
        return Err(invalid(format!(
            "Redirect port '{}' must be '#{{port}}' or between '1-65535'",
            redirect.port
        )));
    }
    if !redirect.path.starts_with('/') {
        return Err(invalid(format!("Redirect path '{}' must begin with a '/' character", redirect.path)));
    }
    let same = redirect.protocol == "#{protocol}"
        && redirect.host == "#{host}"
        && redirect.port == "#{port}"
        && redirect.path == "/#{path}";
    if same {
        return Err(unfit("The redirect configuration is not valid because it creates a loop"));
    }
    Ok(Unresolved::Done(Action::Redirect(redirect)))
}

fn parse_fixed_response(given: elb::FixedResponseActionConfig) -> Result<Unresolved, Fault> {
    let elb::FixedResponseActionConfig { content_type, message_body, status_code } = given;
    let content_type = content_type.filter(|given| !given.is_empty());
    if content_type.as_deref().is_some_and(|given| !CONTENT_TYPES.contains(&given)) {
        return Err(unfit(format!("The ContentType must be one of:'{}'", CONTENT_TYPES.join("', '"))));
    }
    let status =
        status_code.parse().map_err(|_| invalid(format!("Status code '{status_code}' is not valid")))?;
    Ok(Unresolved::Done(Action::FixedResponse(FixedResponse { status, content_type, body: message_body })))
}

/// Looks the target groups up, for a listener of `protocol`.
pub fn resolve<'a>(
    view: &'a View,
    load_balancer: &LoadBalancer,
    protocol: Protocol,
    parsed: &Parsed,
) -> Result<Resolved<'a>, Fault> {
    let mut resolved = Resolved { actions: Vec::new(), orders: parsed.orders.clone(), groups: Vec::new() };
    for action in &parsed.actions {
        let action = match action {
            Unresolved::Done(action) => action.clone(),
            Unresolved::Forward { groups, stickiness } => {
                let found = find_groups(view, load_balancer, groups)?;
                resolved.groups.extend(&found);
                let weights = found.iter().zip(groups);
                let groups = weights.map(|(group, (_, weight))| ForwardGroup {
                    target_group: group.name.clone(),
                    weight: *weight,
                });
                Action::Forward { groups: groups.collect(), stickiness: stickiness.clone() }
            }
        };
        check_kind(load_balancer, protocol, &action)?;
        resolved.actions.push(action);
    }
    check_groups(view, load_balancer, protocol, &resolved.groups)?;
    Ok(resolved)
}

fn find_groups<'a>(
    view: &'a View,
    load_balancer: &LoadBalancer,
    groups: &[(String, u32)],
) -> Result<Vec<&'a Arc<TargetGroup>>, Fault> {
    let find = |(arn, _): &(String, u32)| {
        let missing = || {
            Fault::from(elb::Error::TargetGroupNotFoundException(format!("Target group '{arn}' not found")))
        };
        reference::find_target_group(view, &load_balancer.scope, arn)?.ok_or_else(missing)
    };
    groups.iter().map(find).collect()
}

fn check_kind(load_balancer: &LoadBalancer, protocol: Protocol, action: &Action) -> Result<(), Fault> {
    let is_network = load_balancer.kind == LoadBalancerType::Network;
    match action {
        Action::Forward { groups, .. } if is_network && groups.len() > 1 => {
            Err(unfit("A listener of a network load balancer can forward to one target group"))
        }
        Action::Forward { stickiness: Some(stickiness), .. } if is_network && stickiness.enabled => {
            Err(unfit("Target group stickiness is not supported for network load balancers"))
        }
        Action::Redirect(_) | Action::FixedResponse(_) if is_network => {
            Err(unfit("Listeners of network load balancers support actions of type 'forward' only"))
        }
        Action::Redirect(redirect) if protocol == Protocol::Https && redirect.protocol == "HTTP" => {
            Err(unfit("Requests cannot be redirected from HTTPS to HTTP"))
        }
        Action::Forward { .. } | Action::Redirect(_) | Action::FixedResponse(_) => Ok(()),
    }
}

/// Whether the load balancer may send to the groups.
pub fn check_groups(
    view: &View,
    load_balancer: &LoadBalancer,
    protocol: Protocol,
    groups: &[&Arc<TargetGroup>],
) -> Result<(), Fault> {
    for group in groups {
        if group.vpc != load_balancer.vpc {
            return Err(misfit(format!(
                "Target group '{}' is in a different VPC than load balancer '{}'",
                group.arn(),
                load_balancer.arn()
            )));
        }
        check_protocols(protocol, group)?;
    }
    if groups.is_empty() {
        return Ok(());
    }
    let uses = engine::load_balancers_by_group(view, &load_balancer.scope);
    let is_elsewhere = |group: &&&Arc<TargetGroup>| {
        let users = uses.get(group.name.as_str());
        users.is_some_and(|users| users.iter().any(|user| user.name != load_balancer.name))
    };
    if let Some(group) = groups.iter().find(is_elsewhere) {
        let message = format!(
            "The following target groups cannot be associated with more than one load balancer: {}",
            group.arn()
        );
        return Err(elb::Error::TargetGroupAssociationLimitException(message).into());
    }
    let mut all = engine::groups_used_by(view, load_balancer);
    all.extend(groups.iter().map(|group| group.name.as_str()));
    if all.len() > MOST_GROUPS_IN_ALL {
        let message = format!(
            "You have reached the maximum number of unique target groups per load balancer: '{MOST_GROUPS_IN_ALL}'"
        );
        return Err(elb::Error::TooManyUniqueTargetGroupsPerLoadBalancerException(message).into());
    }
    Ok(())
}

fn check_protocols(protocol: Protocol, group: &TargetGroup) -> Result<(), Fault> {
    use GroupProtocol as Group;
    let fits = match protocol {
        Protocol::Http | Protocol::Https => group.protocol.is_application(),
        Protocol::Tcp => matches!(group.protocol, Group::Tcp | Group::TcpUdp),
        Protocol::Tls => matches!(group.protocol, Group::Tcp | Group::Tls),
        Protocol::Udp => matches!(group.protocol, Group::Udp | Group::TcpUdp),
        Protocol::TcpUdp => group.protocol == Group::TcpUdp,
    };
    if !fits {
        let message = format!(
            "The listener and its associated target group '{}' have incompatible protocols: '{}' and '{}'",
            group.arn(),
            super::listener::protocol_name(protocol),
            protocol_name(group.protocol)
        );
        return Err(elb::Error::IncompatibleProtocolsException(message).into());
    }
    if protocol == Protocol::Http && group.protocol_version != ProtocolVersion::Http1 {
        return Err(misfit(format!(
            "Listener protocol 'HTTP' is not supported with a target group with the protocol-version '{}'",
            version_name(group.protocol_version)
        )));
    }
    Ok(())
}

/// The ARNs of target groups by their names.
pub type Arns = BTreeMap<String, String>;

pub fn arns(view: &View, scope: &Scope) -> Arns {
    view.target_groups.of(scope).map(|group| (group.name.clone(), group.arn())).collect()
}

pub fn render(actions: &[Action], orders: &[u32], arns: &Arns) -> Vec<elb::Action> {
    let order = |at: usize| orders.get(at).and_then(|order| i32::try_from(*order).ok());
    actions.iter().enumerate().map(|(at, action)| render_one(action, order(at), arns)).collect()
}

fn render_one(action: &Action, order: Option<i32>, arns: &Arns) -> elb::Action {
    let bare = |r#type| elb::Action {
        authenticate_cognito_config: None,
        authenticate_oidc_config: None,
        fixed_response_config: None,
        forward_config: None,
        jwt_validation_config: None,
        order,
        redirect_config: None,
        target_group_arn: None,
        r#type,
    };
    match action {
        Action::Forward { groups, stickiness } => {
            let only =
                if let [only] = groups.as_slice() { arns.get(&only.target_group).cloned() } else { None };
            elb::Action {
                forward_config: Some(render_forward(groups, stickiness.as_ref(), arns)),
                target_group_arn: only,
                ..bare(elb::ActionTypeEnum::Forward)
            }
        }
        Action::Redirect(redirect) => elb::Action {
            redirect_config: Some(elb::RedirectActionConfig {
                host: Some(redirect.host.clone()),
                path: Some(redirect.path.clone()),
                port: Some(redirect.port.clone()),
                protocol: Some(redirect.protocol.clone()),
                query: Some(redirect.query.clone()),
                status_code: match redirect.status {
                    302 => elb::RedirectActionStatusCodeEnum::Http302,
                    _ => elb::RedirectActionStatusCodeEnum::Http301,
                },
            }),
            ..bare(elb::ActionTypeEnum::Redirect)
        },
        Action::FixedResponse(response) => elb::Action {
            fixed_response_config: Some(elb::FixedResponseActionConfig {
                content_type: response.content_type.clone(),
                message_body: response.body.clone(),
                status_code: response.status.to_string(),
            }),
            ..bare(elb::ActionTypeEnum::FixedResponse)
        },
    }
}

fn render_forward(
    groups: &[ForwardGroup],
    stickiness: Option<&Stickiness>,
    arns: &Arns,
) -> elb::ForwardActionConfig {
    let tuple = |group: &ForwardGroup| elb::TargetGroupTuple {
        target_group_arn: arns.get(&group.target_group).cloned(),
        weight: i32::try_from(group.weight).ok(),
    };
    let stickiness = elb::TargetGroupStickinessConfig {
        duration_seconds: stickiness.and_then(|s| s.seconds).and_then(|seconds| i32::try_from(seconds).ok()),
        enabled: Some(stickiness.is_some_and(|stickiness| stickiness.enabled)),
    };
    elb::ForwardActionConfig {
        target_group_stickiness_config: Some(stickiness),
        target_groups: Some(groups.iter().map(tuple).collect()),
    }
}
