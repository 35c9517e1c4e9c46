//! Attributes of load balancers. Follows
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_LoadBalancerAttribute.html>.

use super::super::reference;
use super::{Attribute, Effect, NONE, Values, all, changed};
use crate::api::Call;
use longshore_elbv2 as elb;
use longshore_model::elb::{LoadBalancer, LoadBalancerType, Scheme};
use longshore_wire::Fault;

const BOTH: [Attribute; 5] = [
    Attribute::new("access_logs.s3.enabled", "false", Values::Switch, NONE),
    Attribute::new("access_logs.s3.bucket", "", Values::Text, NONE),
    Attribute::new("access_logs.s3.prefix", "", Values::Text, NONE),
    Attribute::new("deletion_protection.enabled", "false", Values::Switch, Effect::Every),
    Attribute::new("zonal_shift.config.enabled", "false", Values::Switch, NONE),
];

const DESYNC_MODES: &[&str] = &["monitor", "defensive", "strictest"];
const FORWARDED_FOR_MODES: &[&str] = &["append", "preserve", "remove"];

const OF_APPLICATION: [Attribute; 17] = [
    Attribute::new("idle_timeout.timeout_seconds", "60", Values::Number(1, 4000), Effect::Every),
    Attribute::new("client_keep_alive.seconds", "3600", Values::Number(60, 604_800), Effect::Every),
    Attribute::new("load_balancing.cross_zone.enabled", "true", Values::OneOf(&["true"]), NONE),
    Attribute::new("connection_logs.s3.enabled", "false", Values::Switch, NONE),
    Attribute::new("connection_logs.s3.bucket", "", Values::Text, NONE),
    Attribute::new("connection_logs.s3.prefix", "", Values::Text, NONE),
    Attribute::new("health_check_logs.s3.enabled", "false", Values::Switch, NONE),
    Attribute::new("health_check_logs.s3.bucket", "", Values::Text, NONE),
    Attribute::new("health_check_logs.s3.prefix", "", Values::Text, NONE),
    Attribute::new("routing.http.desync_mitigation_mode", "defensive", Values::OneOf(DESYNC_MODES), NONE),
    Attribute::new("routing.http.drop_invalid_header_fields.enabled", "false", Values::Switch, Effect::Every),
    Attribute::new("routing.http.preserve_host_header.enabled", "false", Values::Switch, Effect::Every),
    Attribute::new("routing.http.x_amzn_tls_version_and_cipher_suite.enabled", "false", Values::Switch, NONE),
    Attribute::new("routing.http.xff_client_port.enabled", "false", Values::Switch, NONE),
    Attribute::new(
        "routing.http.xff_header_processing.mode",
        "append",
        Values::OneOf(FORWARDED_FOR_MODES),
        Effect::Every,
    ),
    Attribute::new("routing.http2.enabled", "true", Values::Switch, Effect::Every),
    Attribute::new("waf.fail_open.enabled", "false", Values::Switch, NONE),
];

const ROUTING_POLICIES: &[&str] =
    &["availability_zone_affinity", "partial_availability_zone_affinity", "any_availability_zone"];

const OF_NETWORK: [Attribute; 3] = [
    // A connection may go to any zone.
    Attribute::new("load_balancing.cross_zone.enabled", "false", Values::Switch, Effect::Every),
    Attribute::new(
        "dns_record.client_routing_policy",
        "any_availability_zone",
        Values::OneOf(ROUTING_POLICIES),
        NONE,
    ),
    Attribute::new("secondary_ips.auto_assigned.per_subnet", "0", Values::Number(0, 7), NONE),
];

fn of(load_balancer: &LoadBalancer) -> Vec<Attribute> {
    // There is no IPv6 that could be kept out.
    let denied = if load_balancer.scheme == Scheme::Internal { "true" } else { "false" };
    let gateway = Attribute::new("ipv6.deny_all_igw_traffic", denied, Values::Switch, NONE);
    let mut attributes: Vec<Attribute> = BOTH.into();
    attributes.push(gateway);
    match load_balancer.kind {
        LoadBalancerType::Application => attributes.extend(OF_APPLICATION),
        LoadBalancerType::Network => attributes.extend(OF_NETWORK),
    }
    attributes
}

fn render(load_balancer: &LoadBalancer) -> Vec<elb::LoadBalancerAttribute> {
    let all = all(&of(load_balancer), &load_balancer.attributes).collect::<Vec<_>>();
    let one = |(key, value)| elb::LoadBalancerAttribute { key: Some(key), value: Some(value) };
    all.into_iter().map(one).collect()
}

pub async fn describe(
    call: Call,
    request: elb::DescribeLoadBalancerAttributesInput,
) -> Result<elb::DescribeLoadBalancerAttributesOutput, Fault> {
    let elb::DescribeLoadBalancerAttributesInput { load_balancer_arn: arn } = request;
    let view = call.context.view();
    let attributes = render(reference::load_balancer(&view, call.scope(), &arn)?);
    Ok(elb::DescribeLoadBalancerAttributesOutput { attributes: Some(attributes) })
}

pub async fn modify(
    call: Call,
    request: elb::ModifyLoadBalancerAttributesInput,
) -> Result<elb::ModifyLoadBalancerAttributesOutput, Fault> {
    let elb::ModifyLoadBalancerAttributesInput { attributes, load_balancer_arn: arn } = request;
    let given = attributes.into_iter().map(|elb::LoadBalancerAttribute { key, value }| (key, value));
    let given: Vec<_> = given.collect();
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let present = reference::load_balancer(&snapshot.view, call.scope(), &arn)?;
        let set = changed("Load balancer", &of(present), &present.attributes, given.iter().cloned())?;
        let next = LoadBalancer { attributes: set, ..(**present).clone() };
        if next != **present {
            transaction.update(&next);
        }
        Ok(render(&next))
    });
    Ok(elb::ModifyLoadBalancerAttributesOutput { attributes: Some(commit.await?) })
}
