//! Target groups. Follows
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateTargetGroup.html>.

mod health_check;

use super::{check_name, invalid, port, reference, refuse, tag};
use crate::api::Call;
use crate::context::RandomIds;
use crate::pages::page;
use crate::refuse::Given;
use longshore_elbv2 as elb;
use longshore_engine::elb as engine;
use longshore_model::elb::{
    GroupProtocol, HealthCheck, LoadBalancer, ProtocolVersion, TargetGroup, TargetType, new_id,
};
use longshore_model::vpc::Vpc;
use longshore_model::{Record, Tags};
use longshore_wire::Fault;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// In a region.
const MOST: usize = 3000;
/// Targets removed by one commit, each maybe with its task: etcd takes 128 operations in a transaction.
const AT_ONCE: usize = 60;

/// A target group as a request asks for it.
struct Request {
    name: String,
    vpc: String,
    target_type: TargetType,
    protocol: GroupProtocol,
    protocol_version: ProtocolVersion,
    port: u16,
    health_check: HealthCheck,
    tags: Tags,
}

pub async fn create(
    call: Call,
    request: elb::CreateTargetGroupInput,
) -> Result<elb::CreateTargetGroupOutput, Fault> {
    let request = parse(request)?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let (view, scope) = (&snapshot.view, call.scope());
        if let Some(present) = view.target_groups.get(&TargetGroup::key_of(scope, &request.name)) {
            return same(present, &request).map(|()| Arc::clone(present));
        }
        let vpc = Vpc::key_of(scope, &request.vpc);
        if view.vpcs.get(&vpc).is_none() {
            return Err(invalid(format!("The VPC ID '{}' is not found", request.vpc)));
        }
        if view.target_groups.of(scope).nth(MOST - 1).is_some() {
            let message = format!("You have reached the maximum number of target groups: '{MOST}'");
            return Err(elb::Error::TooManyTargetGroupsException(message).into());
        }
        let made = TargetGroup {
            scope: scope.clone(),
            name: request.name.clone(),
            id: new_id(&mut RandomIds),
            vpc: request.vpc.clone(),
            target_type: request.target_type,
            protocol: request.protocol,
            protocol_version: request.protocol_version,
            port: request.port,
            health_check: request.health_check.clone(),
            attributes: BTreeMap::new(),
            tags: request.tags.clone(),
            created_at: call.context.now(),
        };
        transaction.rely_on(vpc);
        transaction.create(&made);
        Ok(Arc::new(made))
    });
    let group = commit.await?;
    let uses = uses(&call);
    Ok(elb::CreateTargetGroupOutput { target_groups: Some(vec![render(&group, &uses)]) })
}

fn parse(request: elb::CreateTargetGroupInput) -> Result<Request, Fault> {
    let elb::CreateTargetGroupInput {
        health_check_enabled,
        health_check_interval_seconds,
        health_check_path,
        health_check_port,
        health_check_protocol,
        health_check_timeout_seconds,
        healthy_threshold_count,
        ip_address_type,
        matcher,
        name,
        port: given_port,
        protocol,
        protocol_version,
        tags,
        target_control_port,
        target_type,
        unhealthy_threshold_count,
        vpc_id,
    } = request;
    refuse(&[
        ("IpAddressType=ipv6", ip_address_type == Some(elb::TargetGroupIpAddressTypeEnum::Ipv6)),
        ("TargetControlPort", target_control_port.given()),
    ])?;
    let target_type = parse_type(target_type)?;
    let protocol = protocol.map(parse_protocol).transpose()?;
    health_check::refuse_protocol(health_check_protocol)?;
    check_name("Target group", &name)?;
    let protocol = protocol.ok_or_else(|| invalid("A protocol must be specified"))?;
    let given_port = given_port.ok_or_else(|| invalid("A port must be specified"))?;
    let vpc = vpc_id.filter(|id| !id.is_empty()).ok_or_else(|| invalid("A VPC ID must be specified"))?;
    let protocol_version = parse_version(protocol, protocol_version)?;
    let given = health_check::Given {
        enabled: health_check_enabled,
        interval: health_check_interval_seconds,
        path: health_check_path,
        port: health_check_port,
        protocol: health_check_protocol,
        timeout: health_check_timeout_seconds,
        healthy_threshold: healthy_threshold_count,
        unhealthy_threshold: unhealthy_threshold_count,
        matcher,
    };
    let health_check = health_check::of_new(protocol, protocol_version, given)?;
    let tags = tag::of_new(tags)?;
    let port = port(given_port)?;
    Ok(Request { name, vpc, target_type, protocol, protocol_version, port, health_check, tags })
}

fn parse_type(given: Option<elb::TargetTypeEnum>) -> Result<TargetType, Fault> {
    refuse(&[
        ("TargetType=lambda", given == Some(elb::TargetTypeEnum::Lambda)),
        ("TargetType=alb", given == Some(elb::TargetTypeEnum::Alb)),
    ])?;
    Ok(match given {
        Some(elb::TargetTypeEnum::Ip) => TargetType::Ip,
        _ => TargetType::Instance,
    })
}

fn parse_protocol(given: elb::ProtocolEnum) -> Result<GroupProtocol, Fault> {
    let unsupported = |name| refuse(&[(name, true)]).map(|()| GroupProtocol::Tcp);
    match given {
        elb::ProtocolEnum::Http => Ok(GroupProtocol::Http),
        elb::ProtocolEnum::Https => Ok(GroupProtocol::Https),
        elb::ProtocolEnum::Tcp => Ok(GroupProtocol::Tcp),
        elb::ProtocolEnum::Tls => Ok(GroupProtocol::Tls),
        elb::ProtocolEnum::Udp => Ok(GroupProtocol::Udp),
        elb::ProtocolEnum::TcpUdp => Ok(GroupProtocol::TcpUdp),
        elb::ProtocolEnum::Geneve => unsupported("Protocol=GENEVE"),
        elb::ProtocolEnum::Quic => unsupported("Protocol=QUIC"),
        elb::ProtocolEnum::TcpQuic => unsupported("Protocol=TCP_QUIC"),
    }
}

fn parse_version(protocol: GroupProtocol, given: Option<String>) -> Result<ProtocolVersion, Fault> {
    let Some(given) = given.filter(|given| !given.is_empty()) else { return Ok(ProtocolVersion::Http1) };
    if !protocol.is_application() {
        return Err(invalid(format!(
            "Protocol version is not supported for target groups with the protocol '{}'",
            protocol_name(protocol)
        )));
    }
    match given.as_str() {
        "HTTP1" => Ok(ProtocolVersion::Http1),
        "HTTP2" => Ok(ProtocolVersion::Http2),
        "GRPC" => Ok(ProtocolVersion::Grpc),
        _ => Err(invalid(format!("Protocol version '{given}' must be one of 'GRPC, HTTP1, HTTP2'"))),
    }
}

/// Making one twice is one, where nothing differs.
fn same(present: &TargetGroup, request: &Request) -> Result<(), Fault> {
    let same = present.vpc == request.vpc
        && present.target_type == request.target_type
        && present.protocol == request.protocol
        && present.protocol_version == request.protocol_version
        && present.port == request.port
        && present.health_check == request.health_check
        && present.tags == request.tags;
    if same {
        return Ok(());
    }
    let message =
        format!("A target group with the same name '{}' exists, but with different settings", present.name);
    Err(elb::Error::DuplicateTargetGroupNameException(message).into())
}

pub async fn modify(
    call: Call,
    request: elb::ModifyTargetGroupInput,
) -> Result<elb::ModifyTargetGroupOutput, Fault> {
    let elb::ModifyTargetGroupInput {
        health_check_enabled,
        health_check_interval_seconds,
        health_check_path,
        health_check_port,
        health_check_protocol,
        health_check_timeout_seconds,
        healthy_threshold_count,
        matcher,
        target_group_arn: arn,
        unhealthy_threshold_count,
    } = request;
    let given = health_check::Given {
        enabled: health_check_enabled,
        interval: health_check_interval_seconds,
        path: health_check_path,
        port: health_check_port,
        protocol: health_check_protocol,
        timeout: health_check_timeout_seconds,
        healthy_threshold: healthy_threshold_count,
        unhealthy_threshold: unhealthy_threshold_count,
        matcher,
    };
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let present = reference::target_group(&snapshot.view, call.scope(), &arn)?;
        let before = present.health_check.clone();
        let health_check =
            health_check::changed(before, present.protocol, present.protocol_version, given.clone())?;
        let next = TargetGroup { health_check, ..(**present).clone() };
        if next != **present {
            transaction.update(&next);
        }
        Ok(next)
    });
    let group = commit.await?;
    Ok(elb::ModifyTargetGroupOutput { target_groups: Some(vec![render(&group, &uses(&call))]) })
}

pub async fn delete(
    call: Call,
    request: elb::DeleteTargetGroupInput,
) -> Result<elb::DeleteTargetGroupOutput, Fault> {
    let elb::DeleteTargetGroupInput { target_group_arn: arn } = request;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        // Deleting what is gone is no error.
        let Some(present) = reference::find_target_group(view, call.scope(), &arn)? else { return Ok(()) };
        let uses = engine::load_balancers_by_group(view, call.scope());
        if uses.contains_key(present.name.as_str()) {
            let message = format!("Target group '{arn}' is currently in use by a listener or a rule");
            return Err(elb::Error::ResourceInUseException(message).into());
        }
        transaction.delete(present.key());
        // Those that do not fit into the commit are forgotten in time.
        let targets = engine::targets_of(view, present).take(AT_ONCE);
        targets.for_each(|target| engine::targets::remove(view, target, transaction));
        Ok(())
    });
    commit.await?;
    Ok(elb::DeleteTargetGroupOutput {})
}

pub async fn describe(
    call: Call,
    request: elb::DescribeTargetGroupsInput,
) -> Result<elb::DescribeTargetGroupsOutput, Fault> {
    let elb::DescribeTargetGroupsInput { load_balancer_arn, marker, names, page_size, target_group_arns } =
        request;
    let (arns, names) = (target_group_arns.unwrap_or_default(), names.unwrap_or_default());
    let load_balancer_arn = load_balancer_arn.filter(|arn| !arn.is_empty());
    let ways = [!arns.is_empty(), !names.is_empty(), load_balancer_arn.is_some()];
    if ways.into_iter().filter(|way| *way).count() > 1 {
        return Err(invalid(
            "Target group names, target group ARNs, and a load balancer ARN cannot be specified at the same time",
        ));
    }
    let (view, scope) = (call.context.view(), call.scope());
    let mut wanted: BTreeSet<&str> = BTreeSet::new();
    for arn in &arns {
        wanted.insert(&reference::target_group(&view, scope, arn)?.name);
    }
    for name in &names {
        let found = view.target_groups.get(&TargetGroup::key_of(scope, name));
        wanted.insert(&found.ok_or_else(reference::no_target_groups)?.name);
    }
    if let Some(arn) = &load_balancer_arn {
        wanted = engine::groups_used_by(&view, reference::load_balancer(&view, scope, arn)?);
    }
    let every = ways == [false; 3];
    let uses = engine::load_balancers_by_group(&view, scope);
    let found = view.target_groups.of(scope).filter(|group| every || wanted.contains(group.name.as_str()));
    let found = found.map(|group| (group.name.clone(), group));
    let (groups, next_marker) = page(found, marker.as_deref(), page_size);
    let target_groups = groups.into_iter().map(|group| render(group, &arns_of(&uses))).collect();
    Ok(elb::DescribeTargetGroupsOutput { target_groups: Some(target_groups), next_marker })
}

/// The ARNs of the load balancers that send to each group, by its name.
type Uses = BTreeMap<String, Vec<String>>;

fn uses(call: &Call) -> Uses {
    arns_of(&engine::load_balancers_by_group(&call.context.view(), call.scope()))
}

fn arns_of(uses: &BTreeMap<&str, Vec<&Arc<LoadBalancer>>>) -> Uses {
    let arns = |lbs: &Vec<&Arc<LoadBalancer>>| lbs.iter().map(|lb| lb.arn()).collect();
    uses.iter().map(|(name, lbs)| ((*name).to_owned(), arns(lbs))).collect()
}

fn render(group: &TargetGroup, uses: &Uses) -> elb::TargetGroup {
    let check = &group.health_check;
    let number = |number: u32| i32::try_from(number).ok();
    elb::TargetGroup {
        health_check_enabled: Some(check.enabled),
        health_check_interval_seconds: number(check.interval),
        health_check_path: check.path.clone(),
        health_check_port: Some(
            check.port.map_or_else(|| "traffic-port".to_owned(), |port| port.to_string()),
        ),
        health_check_protocol: Some(health_check::protocol_name(check.protocol)),
        health_check_timeout_seconds: number(check.timeout),
        healthy_threshold_count: number(check.healthy_threshold),
        ip_address_type: Some(elb::TargetGroupIpAddressTypeEnum::Ipv4),
        load_balancer_arns: Some(uses.get(&group.name).cloned().unwrap_or_default()),
        matcher: check.matcher.as_ref().map(health_check::render_matcher),
        port: Some(group.port.into()),
        protocol: Some(protocol_name(group.protocol)),
        protocol_version: group
            .protocol
            .is_application()
            .then(|| version_name(group.protocol_version).to_owned()),
        target_control_port: None,
        target_group_arn: Some(group.arn()),
        target_group_name: Some(group.name.clone()),
        target_type: Some(match group.target_type {
            TargetType::Instance => elb::TargetTypeEnum::Instance,
            TargetType::Ip => elb::TargetTypeEnum::Ip,
        }),
        unhealthy_threshold_count: number(check.unhealthy_threshold),
        vpc_id: Some(group.vpc.clone()),
    }
}

pub fn protocol_name(protocol: GroupProtocol) -> elb::ProtocolEnum {
    match protocol {
        GroupProtocol::Http => elb::ProtocolEnum::Http,
        GroupProtocol::Https => elb::ProtocolEnum::Https,
        GroupProtocol::Tcp => elb::ProtocolEnum::Tcp,
        GroupProtocol::Udp => elb::ProtocolEnum::Udp,
        GroupProtocol::TcpUdp => elb::ProtocolEnum::TcpUdp,
        GroupProtocol::Tls => elb::ProtocolEnum::Tls,
    }
}

pub fn version_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::Http1 => "HTTP1",
        ProtocolVersion::Http2 => "HTTP2",
        ProtocolVersion::Grpc => "GRPC",
    }
}
