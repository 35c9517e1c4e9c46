//! Targets. Follows
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_RegisterTargets.html>.

use super::{invalid, port, reference, refuse};
use crate::api::Call;
use crate::refuse::Given;
use longshore_elbv2 as elb;
use longshore_engine::{View, elb as engine};
use longshore_model::elb::{HealthState, Target, TargetGroup, TargetHealth, TargetType};
use longshore_model::vpc::{Cidr, Vpc};
use longshore_model::{Record, Scope, Timestamp, Transaction};
use longshore_wire::Fault;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// In a group.
const MOST: usize = 1000;
/// Targets that one commit writes: etcd takes 128 operations in a transaction.
const AT_ONCE: usize = 100;
/// The zone of an address outside of the VPC.
const EVERY_ZONE: &str = "all";

/// A target as a request names it.
struct Wanted {
    id: String,
    /// The group's own where it is not given.
    port: Option<u16>,
    zone: Option<String>,
}

fn parse(given: Vec<elb::TargetDescription>) -> Result<Vec<Wanted>, Fault> {
    let one = |given| {
        let elb::TargetDescription { availability_zone, id, port: given_port, quic_server_id } = given;
        refuse(&[("Targets.QuicServerId", quic_server_id.given())])?;
        let zone = availability_zone.filter(|zone| !zone.is_empty());
        Ok(Wanted { id, port: given_port.map(port).transpose()?, zone })
    };
    given.into_iter().map(one).collect()
}

pub async fn register(
    call: Call,
    request: elb::RegisterTargetsInput,
) -> Result<elb::RegisterTargetsOutput, Fault> {
    let elb::RegisterTargetsInput { target_group_arn: arn, targets } = request;
    let wanted = parse(targets)?;
    let resolve = |view: &View, wanted: &[Wanted]| {
        let group = Arc::clone(reference::target_group(view, call.scope(), &arn)?);
        let now = call.context.now();
        let targets = wanted.iter().map(|wanted| resolve(view, &group, wanted, now));
        let targets = targets.collect::<Result<Vec<_>, Fault>>()?;
        Ok::<_, Fault>((group, targets))
    };
    // All of them must be in order before the first is registered.
    let view = call.context.view();
    let (group, all) = resolve(&view, &wanted)?;
    check_room(&view, &group, &all)?;
    for part in wanted.chunks(AT_ONCE) {
        let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
            let (group, targets) = resolve(&snapshot.view, part)?;
            check_room(&snapshot.view, &group, &targets)?;
            targets.iter().for_each(|target| add(&snapshot.view, target, transaction));
            if !transaction.is_empty() {
                transaction.rely_on(group.key());
            }
            Ok(())
        });
        commit.await?;
    }
    Ok(elb::RegisterTargetsOutput {})
}

/// A target that drains becomes a new one; one that is registered stays as it is.
fn add(view: &View, target: &Target, transaction: &mut Transaction) {
    let key = target.key();
    if transaction.writes().iter().any(|write| *write.key() == key) {
        return;
    }
    match view.targets.get(&key) {
        None => transaction.create(target),
        Some(present) if present.deregistered_at.is_some() => {
            // What is still reported of the registration before is not taken for one of this.
            let registered_at = target.registered_at.max(present.registered_at.plus_millis(1));
            transaction.update(&Target { registered_at, ..target.clone() });
        }
        Some(_) => {}
    }
}

fn check_room(view: &View, group: &TargetGroup, more: &[Target]) -> Result<(), Fault> {
    let new = more.iter().filter(|target| view.targets.get(&target.key()).is_none()).count();
    if new == 0 || engine::targets_of(view, group).count() + new <= MOST {
        return Ok(());
    }
    let message = format!("You have reached the maximum number of targets in a target group: '{MOST}'");
    Err(elb::Error::TooManyTargetsException(message).into())
}

fn resolve(view: &View, group: &TargetGroup, wanted: &Wanted, now: Timestamp) -> Result<Target, Fault> {
    let (address, zone) = match group.target_type {
        TargetType::Ip => place_of_address(view, group, wanted)?,
        TargetType::Instance => {
            // An instance's record does not say yet at which address it is reached.
            let message = format!(
                "The following targets are not in a running state and cannot be registered: '{}'. Longshore does not \
                 register instances yet; use a target group with target type 'ip'.",
                wanted.id
            );
            return Err(elb::Error::InvalidTargetException(message).into());
        }
    };
    Ok(Target {
        scope: group.scope.clone(),
        target_group: group.id.clone(),
        id: wanted.id.clone(),
        port: wanted.port.unwrap_or(group.port),
        address,
        availability_zone: zone,
        task: None,
        health: TargetHealth::initial(),
        registered_at: now,
        deregistered_at: None,
    })
}

fn place_of_address(
    view: &View,
    group: &TargetGroup,
    wanted: &Wanted,
) -> Result<(Ipv4Addr, Option<String>), Fault> {
    let id = &wanted.id;
    let address: Ipv4Addr =
        id.parse().map_err(|_| invalid(format!("The IP address '{id}' is not a valid IPv4 address")))?;
    let vpc = view.vpcs.get(&Vpc::key_of(&group.scope, &group.vpc));
    if vpc.is_some_and(|vpc| vpc.cidr.contains(address)) {
        let mut subnets = view.subnets.of(&group.scope).filter(|subnet| subnet.vpc == group.vpc);
        let subnet = subnets.find(|subnet| subnet.cidr.contains(address));
        let subnet = subnet.ok_or_else(|| {
            let message = format!("The IP address '{id}' is not in a subnet of the VPC '{}'", group.vpc);
            Fault::from(elb::Error::InvalidTargetException(message))
        })?;
        return Ok((address, Some(subnet.availability_zone.clone())));
    }
    if !is_private(address) {
        let message =
            format!("The IP address '{id}' is publicly routable and cannot be registered as a target");
        return Err(elb::Error::InvalidTargetException(message).into());
    }
    match wanted.zone.as_deref() {
        Some(EVERY_ZONE) => Ok((address, Some(EVERY_ZONE.to_owned()))),
        zone => {
            let given = zone.map(|zone| format!(", and not '{zone}',")).unwrap_or_default();
            Err(invalid(format!(
                "You must specify the Availability Zone '{EVERY_ZONE}'{given} for the IP address '{id}', which is \
                 outside of the VPC '{}'",
                group.vpc
            )))
        }
    }
}

/// The blocks of RFC 1918 and RFC 6598.
fn is_private(address: Ipv4Addr) -> bool {
    let shared = Cidr::new(Ipv4Addr::new(100, 64, 0, 0), 10);
    address.is_private() || shared.is_some_and(|shared| shared.contains(address))
}

pub async fn deregister(
    call: Call,
    request: elb::DeregisterTargetsInput,
) -> Result<elb::DeregisterTargetsOutput, Fault> {
    let elb::DeregisterTargetsInput { target_group_arn: arn, targets } = request;
    let wanted = parse(targets)?;
    reference::target_group(&call.context.view(), call.scope(), &arn)?;
    for part in wanted.chunks(AT_ONCE) {
        let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
            let view = &snapshot.view;
            let group = reference::target_group(view, call.scope(), &arn)?;
            let in_use = is_used(view, group);
            for wanted in part {
                remove(view, group, wanted, in_use, call.context.now(), transaction);
            }
            Ok(())
        });
        commit.await?;
    }
    Ok(elb::DeregisterTargetsOutput {})
}

/// A target that gets traffic drains first. One that is not registered is none to deregister, and no error.
fn remove(
    view: &View,
    group: &TargetGroup,
    wanted: &Wanted,
    in_use: bool,
    now: Timestamp,
    transaction: &mut Transaction,
) {
    let key = key_of(group, wanted);
    let Some(present) = view.targets.get(&key).filter(|present| present.deregistered_at.is_none()) else {
        return;
    };
    if transaction.writes().iter().any(|write| *write.key() == key) {
        return;
    }
    match in_use {
        true => transaction.update(&Target { deregistered_at: Some(now), ..(**present).clone() }),
        false => engine::targets::remove(view, present, transaction),
    }
}

fn key_of(group: &TargetGroup, wanted: &Wanted) -> longshore_model::change::Key {
    Target::key_of(&group.scope, &group.id, &wanted.id, wanted.port.unwrap_or(group.port))
}

fn is_used(view: &View, group: &TargetGroup) -> bool {
    engine::load_balancers_by_group(view, &group.scope).contains_key(group.name.as_str())
}

pub async fn describe_health(
    call: Call,
    request: elb::DescribeTargetHealthInput,
) -> Result<elb::DescribeTargetHealthOutput, Fault> {
    // There are neither anomalies nor overrides to include.
    let elb::DescribeTargetHealthInput { include: _, target_group_arn, targets } = request;
    let wanted = parse(targets.unwrap_or_default())?;
    let view = call.context.view();
    let scope: &Scope = call.scope();
    let group = reference::target_group(&view, scope, &target_group_arn)?;
    let in_use = is_used(&view, group);
    let one = |target: &Arc<Target>| render(group, target, in_use);
    let descriptions = match wanted.is_empty() {
        true => engine::targets_of(&view, group).map(one).collect(),
        false => {
            let find = |wanted: &Wanted| {
                view.targets.get(&key_of(group, wanted)).map_or_else(|| unknown(group, wanted), one)
            };
            wanted.iter().map(find).collect()
        }
    };
    Ok(elb::DescribeTargetHealthOutput { target_health_descriptions: Some(descriptions) })
}

fn render(group: &TargetGroup, target: &Target, in_use: bool) -> elb::TargetHealthDescription {
    let port = group.health_check.port.unwrap_or(target.port);
    elb::TargetHealthDescription {
        health_check_port: Some(port.to_string()),
        target: Some(elb::TargetDescription {
            availability_zone: target.availability_zone.clone(),
            id: target.id.clone(),
            port: Some(target.port.into()),
            quic_server_id: None,
        }),
        target_health: Some(health(target, in_use)),
        ..elb::TargetHealthDescription::default()
    }
}

fn health(target: &Target, in_use: bool) -> elb::TargetHealth {
    use elb::{TargetHealthReasonEnum as Reason, TargetHealthStateEnum as State};
    if target.deregistered_at.is_some() {
        let description = "Target deregistration is in progress";
        return described(State::Draining, Reason::TargetDeregistrationInProgress, description);
    }
    if !in_use {
        let description = "Target group is not configured to receive traffic from the load balancer";
        return described(State::Unused, Reason::TargetNotInUse, description);
    }
    let TargetHealth { state, reason, description } = &target.health;
    let state = match state {
        HealthState::Initial => State::Initial,
        HealthState::Healthy => State::Healthy,
        HealthState::Unhealthy => State::Unhealthy,
    };
    let reason = reason.as_deref().and_then(|reason| reason.parse::<Reason>().ok());
    elb::TargetHealth { state: Some(state), reason, description: description.clone() }
}

fn described(
    state: elb::TargetHealthStateEnum,
    reason: elb::TargetHealthReasonEnum,
    description: &str,
) -> elb::TargetHealth {
    elb::TargetHealth { state: Some(state), reason: Some(reason), description: Some(description.to_owned()) }
}

fn unknown(group: &TargetGroup, wanted: &Wanted) -> elb::TargetHealthDescription {
    let health = described(
        elb::TargetHealthStateEnum::Unused,
        elb::TargetHealthReasonEnum::TargetNotRegistered,
        "Target is not registered to the target group",
    );
    elb::TargetHealthDescription {
        target: Some(elb::TargetDescription {
            id: wanted.id.clone(),
            port: Some(wanted.port.unwrap_or(group.port).into()),
            ..elb::TargetDescription::default()
        }),
        target_health: Some(health),
        ..elb::TargetHealthDescription::default()
    }
}
