//! Attributes of target groups. Follows
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_TargetGroupAttribute.html>.

use super::super::{invalid, misfit, reference, target_group};
use super::{Attribute, Effect, NONE, Values, all, changed};
use crate::api::Call;
use longshore_elbv2 as elb;
use longshore_model::elb::{Attributes, GroupProtocol, TargetGroup, TargetType};
use longshore_wire::Fault;

const BOTH: [Attribute; 7] = [
    Attribute::new("deregistration_delay.timeout_seconds", "300", Values::Number(0, 3600), Effect::Every),
    Attribute::new("stickiness.enabled", "false", Values::Switch, Effect::Every),
    // Requests may go to any zone.
    Attribute::new(
        "load_balancing.cross_zone.enabled",
        "use_load_balancer_configuration",
        Values::OneOf(&["true", "false", "use_load_balancer_configuration"]),
        Effect::Only(&["true"]),
    ),
    Attribute::new(
        "target_group_health.dns_failover.minimum_healthy_targets.count",
        "1",
        Values::NumberOr("off", 1, 1000),
        NONE,
    ),
    Attribute::new(
        "target_group_health.dns_failover.minimum_healthy_targets.percentage",
        "off",
        Values::NumberOr("off", 1, 100),
        NONE,
    ),
    Attribute::new(
        "target_group_health.unhealthy_state_routing.minimum_healthy_targets.count",
        "1",
        Values::Number(1, 1000),
        NONE,
    ),
    Attribute::new(
        "target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage",
        "off",
        Values::NumberOr("off", 1, 100),
        NONE,
    ),
];

const ALGORITHMS: &[&str] = &["round_robin", "least_outstanding_requests", "weighted_random"];
const STICKINESS_TYPES: &[&str] = &["lb_cookie", "app_cookie", "source_ip"];
const WEEK: u32 = 604_800;

const OF_APPLICATION: [Attribute; 7] = [
    Attribute::new("stickiness.type", "lb_cookie", Values::OneOf(STICKINESS_TYPES), Effect::Every),
    Attribute::new(
        "load_balancing.algorithm.type",
        "round_robin",
        Values::OneOf(ALGORITHMS),
        Effect::Only(&["least_outstanding_requests"]),
    ),
    Attribute::new("load_balancing.algorithm.anomaly_mitigation", "off", Values::OneOf(&["on", "off"]), NONE),
    Attribute::new("slow_start.duration_seconds", "0", Values::NumberOr("0", 30, 900), Effect::Every),
    Attribute::new("stickiness.app_cookie.cookie_name", "", Values::Text, Effect::Every),
    Attribute::new("stickiness.app_cookie.duration_seconds", "86400", Values::Number(1, WEEK), Effect::Every),
    Attribute::new("stickiness.lb_cookie.duration_seconds", "86400", Values::Number(1, WEEK), Effect::Every),
];

fn of_network(group: &TargetGroup) -> [Attribute; 6] {
    let takes_packets = matches!(group.protocol, GroupProtocol::Udp | GroupProtocol::TcpUdp);
    let hides_clients = group.target_type == TargetType::Ip && !takes_packets;
    let yes = |is: bool| if is { "true" } else { "false" };
    [
        Attribute::new("stickiness.type", "source_ip", Values::OneOf(STICKINESS_TYPES), Effect::Every),
        Attribute::new(
            "deregistration_delay.connection_termination.enabled",
            yes(takes_packets),
            Values::Switch,
            NONE,
        ),
        Attribute::new("preserve_client_ip.enabled", yes(!hides_clients), Values::Switch, Effect::Every),
        Attribute::new("proxy_protocol_v2.enabled", "false", Values::Switch, NONE),
        Attribute::new(
            "target_health_state.unhealthy.connection_termination.enabled",
            yes(!takes_packets),
            Values::Switch,
            NONE,
        ),
        Attribute::new(
            "target_health_state.unhealthy.draining_interval_seconds",
            "0",
            Values::Number(0, 360_000),
            NONE,
        ),
    ]
}

fn of(group: &TargetGroup) -> Vec<Attribute> {
    let mut attributes: Vec<Attribute> = BOTH.into();
    match group.protocol.is_application() {
        true => attributes.extend(OF_APPLICATION),
        false => attributes.extend(of_network(group)),
    }
    attributes
}

/// What attributes together must keep.
fn check(group: &TargetGroup, set: &Attributes) -> Result<(), Fault> {
    let value = |name: &str| set.get(name).map(String::as_str);
    let protocol = target_group::protocol_name(group.protocol);
    let sticky = value("stickiness.enabled") == Some("true");
    let name = value("stickiness.app_cookie.cookie_name").unwrap_or_default();
    match (group.protocol.is_application(), value("stickiness.type")) {
        (true, Some("source_ip")) | (false, Some("lb_cookie" | "app_cookie")) => {
            let kind = value("stickiness.type").unwrap_or_default();
            return Err(misfit(format!(
                "Stickiness type '{kind}' is not supported for target groups with the {protocol} protocol"
            )));
        }
        (true, Some("app_cookie")) if sticky && name.is_empty() => {
            return Err(misfit(
                "You must set an application cookie name to enable stickiness of type 'app_cookie'",
            ));
        }
        _ => {}
    }
    if sticky && group.protocol == GroupProtocol::Tls {
        return Err(misfit("You cannot enable stickiness on target groups with the TLS protocol"));
    }
    if name.starts_with("AWSALB")
        || name.chars().any(|c| !c.is_ascii_graphic() || "()<>@,;:\\\"/[]?={}".contains(c))
    {
        return Err(invalid(format!("Stickiness cookie name '{name}' is reserved or not valid")));
    }
    let is_slow = value("slow_start.duration_seconds").is_some();
    if is_slow && value("load_balancing.algorithm.type").is_some() {
        return Err(misfit(
            "Slow start is not supported together with the load balancing algorithm 'least_outstanding_requests'",
        ));
    }
    let takes_packets = matches!(group.protocol, GroupProtocol::Udp | GroupProtocol::TcpUdp);
    if takes_packets && value("preserve_client_ip.enabled") == Some("false") {
        return Err(misfit(format!(
            "Client IP preservation cannot be disabled for target groups with the {protocol} protocol"
        )));
    }
    Ok(())
}

fn render(group: &TargetGroup) -> Vec<elb::TargetGroupAttribute> {
    let all = all(&of(group), &group.attributes).collect::<Vec<_>>();
    let one = |(key, value)| elb::TargetGroupAttribute { key: Some(key), value: Some(value) };
    all.into_iter().map(one).collect()
}

pub async fn describe(
    call: Call,
    request: elb::DescribeTargetGroupAttributesInput,
) -> Result<elb::DescribeTargetGroupAttributesOutput, Fault> {
    let elb::DescribeTargetGroupAttributesInput { target_group_arn: arn } = request;
    let view = call.context.view();
    let attributes = render(reference::target_group(&view, call.scope(), &arn)?);
    Ok(elb::DescribeTargetGroupAttributesOutput { attributes: Some(attributes) })
}

pub async fn modify(
    call: Call,
    request: elb::ModifyTargetGroupAttributesInput,
) -> Result<elb::ModifyTargetGroupAttributesOutput, Fault> {
    let elb::ModifyTargetGroupAttributesInput { attributes, target_group_arn: arn } = request;
    let given = attributes.into_iter().map(|elb::TargetGroupAttribute { key, value }| (key, value));
    let given: Vec<_> = given.collect();
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let present = reference::target_group(&snapshot.view, call.scope(), &arn)?;
        let set = changed("Target group", &of(present), &present.attributes, given.iter().cloned())?;
        check(present, &set)?;
        let next = TargetGroup { attributes: set, ..(**present).clone() };
        if next != **present {
            transaction.update(&next);
        }
        Ok(render(&next))
    });
    Ok(elb::ModifyTargetGroupAttributesOutput { attributes: Some(commit.await?) })
}
