//! Listeners. Follows
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateListener.html>.

use super::{action, certificate, invalid, port, reference, refuse, security, tag};
use crate::api::Call;
use crate::context::RandomIds;
use crate::pages::page;
use crate::refuse::Given;
use longshore_elbv2 as elb;
use longshore_engine::{View, elb as engine};
use longshore_model::elb::{Listener, LoadBalancer, LoadBalancerType, Protocol, TargetGroup, new_id};
use longshore_model::{Record, Scope, Transaction};
use longshore_wire::Fault;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Of one load balancer.
const MOST: usize = 50;

pub async fn create(
    call: Call,
    request: elb::CreateListenerInput,
) -> Result<elb::CreateListenerOutput, Fault> {
    let elb::CreateListenerInput {
        alpn_policy,
        certificates,
        default_actions,
        load_balancer_arn: arn,
        mutual_authentication,
        port: given_port,
        protocol,
        ssl_policy,
        tags,
    } = request;
    refuse(&[("AlpnPolicy", alpn_policy.given())])?;
    let security = security::parse(certificates, ssl_policy, mutual_authentication)?;
    let actions = action::parse(default_actions)?;
    let protocol = protocol.map(parse_protocol).transpose()?;
    let given_port = given_port.ok_or_else(|| invalid("A listener port must be specified"))?;
    let port = port(given_port)?;
    let protocol = protocol.ok_or_else(|| invalid("A listener protocol must be specified"))?;
    let tags = tag::of_new(tags)?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let load_balancer = reference::load_balancer(view, call.scope(), &arn)?;
        check_protocol(load_balancer, protocol)?;
        let resolved = action::resolve(view, load_balancer, protocol, &actions)?;
        let mut made = Listener {
            scope: call.scope().clone(),
            load_balancer: load_balancer.path(),
            id: new_id(&mut RandomIds),
            protocol,
            port,
            certificates: Vec::new(),
            ssl_policy: None,
            default_actions: resolved.actions,
            action_orders: resolved.orders,
            attributes: Default::default(),
            tags: tags.clone(),
            created_at: call.context.now(),
        };
        let certificate = security::apply(view, &security, &mut made)?;
        let arns = action::arns(view, call.scope());
        if let Some(present) = view.listeners.get(&made.key()).filter(|present| is_same(present, &made)) {
            return Ok(render(load_balancer, present, &arns));
        }
        check_port(view, load_balancer, port)?;
        check_room(view, load_balancer)?;
        transaction.create(&made);
        // So that of two that use up what is left the second is refused, and nothing it needs is deleted meanwhile.
        transaction.update(&**load_balancer);
        certificate.iter().for_each(|certificate| transaction.update(&***certificate));
        resolved.groups.iter().for_each(|group| transaction.update(&***group));
        Ok(render(load_balancer, &made, &arns))
    });
    Ok(elb::CreateListenerOutput { listeners: Some(vec![commit.await?]) })
}

/// Making one twice is one, where nothing differs.
fn is_same(present: &Listener, made: &Listener) -> bool {
    let Listener { id, attributes, created_at, .. } = present.clone();
    *present == Listener { id, attributes, created_at, ..made.clone() }
}

fn parse_protocol(given: elb::ProtocolEnum) -> Result<Protocol, Fault> {
    use elb::ProtocolEnum as Given;
    refuse(&[
        ("Protocol=GENEVE", given == Given::Geneve),
        ("Protocol=QUIC", given == Given::Quic),
        ("Protocol=TCP_QUIC", given == Given::TcpQuic),
    ])?;
    Ok(match given {
        Given::Http => Protocol::Http,
        Given::Https => Protocol::Https,
        Given::Tls => Protocol::Tls,
        Given::Udp => Protocol::Udp,
        Given::TcpUdp => Protocol::TcpUdp,
        Given::Tcp | Given::Geneve | Given::Quic | Given::TcpQuic => Protocol::Tcp,
    })
}

fn check_protocol(load_balancer: &LoadBalancer, protocol: Protocol) -> Result<(), Fault> {
    let is_application = matches!(protocol, Protocol::Http | Protocol::Https);
    let (fits, allowed) = match load_balancer.kind {
        LoadBalancerType::Application => (is_application, "HTTPS, HTTP"),
        LoadBalancerType::Network => (!is_application, "TLS, TCP, TCP_UDP, UDP"),
    };
    if fits {
        return Ok(());
    }
    Err(invalid(format!("Listener protocol '{}' must be one of '{allowed}'", protocol_name(protocol))))
}

fn check_port(view: &View, load_balancer: &LoadBalancer, port: u16) -> Result<(), Fault> {
    let key = Listener::key_of(&load_balancer.scope, &load_balancer.path(), port);
    if view.listeners.get(&key).is_some() {
        let message = format!(
            "A listener already exists on this port for this load balancer '{}'",
            load_balancer.arn()
        );
        return Err(elb::Error::DuplicateListenerException(message).into());
    }
    Ok(())
}

/// Whether the load balancer takes one listener more.
fn check_room(view: &View, load_balancer: &LoadBalancer) -> Result<(), Fault> {
    if engine::listeners_of(view, load_balancer).nth(MOST - 1).is_some() {
        let message = format!("You have reached the maximum number of listeners per load balancer: '{MOST}'");
        return Err(elb::Error::TooManyListenersException(message).into());
    }
    Ok(())
}

pub async fn modify(
    call: Call,
    request: elb::ModifyListenerInput,
) -> Result<elb::ModifyListenerOutput, Fault> {
    let elb::ModifyListenerInput {
        alpn_policy,
        certificates,
        default_actions,
        listener_arn,
        mutual_authentication,
        port: given_port,
        protocol,
        ssl_policy,
    } = request;
    refuse(&[("AlpnPolicy", alpn_policy.given())])?;
    let security = security::parse(certificates, ssl_policy, mutual_authentication)?;
    let actions = default_actions.filter(|actions| !actions.is_empty()).map(action::parse).transpose()?;
    let protocol = protocol.map(parse_protocol).transpose()?;
    let port = given_port.map(port).transpose()?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let (load_balancer, present) = reference::listener(view, call.scope(), &listener_arn)?;
        let mut next = (**present).clone();
        next.port = port.unwrap_or(present.port);
        next.protocol = protocol.unwrap_or(present.protocol);
        check_protocol(load_balancer, next.protocol)?;
        // So that it is not deleted meanwhile.
        let certificate = security::apply(view, &security, &mut next)?;
        certificate.iter().for_each(|certificate| transaction.update(&***certificate));
        if let Some(actions) = &actions {
            let resolved = action::resolve(view, load_balancer, next.protocol, actions)?;
            next.default_actions = resolved.actions;
            next.action_orders = resolved.orders;
            resolved.groups.iter().for_each(|group| transaction.update(&***group));
        }
        if next.protocol != present.protocol {
            check_groups(view, load_balancer, &next)?;
        }
        replace(view, load_balancer, present, &next, transaction)?;
        Ok(render(load_balancer, &next, &action::arns(view, call.scope())))
    });
    Ok(elb::ModifyListenerOutput { listeners: Some(vec![commit.await?]) })
}

/// Whether what a listener and its rules send to fits its protocol.
fn check_groups(view: &View, load_balancer: &LoadBalancer, listener: &Listener) -> Result<(), Fault> {
    let by_default = engine::groups_of(&listener.default_actions);
    let by_rules = engine::rules_of(view, listener).flat_map(|rule| engine::groups_of(&rule.actions));
    let names: BTreeSet<&str> = by_default.chain(by_rules).collect();
    let find = |name: &&str| view.target_groups.get(&TargetGroup::key_of(&listener.scope, name));
    let groups: Vec<_> = names.iter().filter_map(find).collect();
    action::check_groups(view, load_balancer, listener.protocol, &groups)
}

/// Puts `next` in the place of `present`, at another port where it has one.
fn replace(
    view: &View,
    load_balancer: &LoadBalancer,
    present: &Listener,
    next: &Listener,
    transaction: &mut Transaction,
) -> Result<(), Fault> {
    if next.port == present.port {
        transaction.update(next);
        return Ok(());
    }
    check_port(view, load_balancer, next.port)?;
    transaction.delete(present.key());
    transaction.create(next);
    Ok(())
}

pub async fn delete(
    call: Call,
    request: elb::DeleteListenerInput,
) -> Result<elb::DeleteListenerOutput, Fault> {
    let elb::DeleteListenerInput { listener_arn } = request;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let (_, listener) = reference::listener(view, call.scope(), &listener_arn)?;
        transaction.delete(listener.key());
        engine::rules_of(view, listener).for_each(|rule| transaction.delete(rule.key()));
        Ok(())
    });
    commit.await?;
    Ok(elb::DeleteListenerOutput {})
}

pub async fn describe(
    call: Call,
    request: elb::DescribeListenersInput,
) -> Result<elb::DescribeListenersOutput, Fault> {
    let elb::DescribeListenersInput { listener_arns, load_balancer_arn, marker, page_size } = request;
    let arns = listener_arns.unwrap_or_default();
    let (view, scope) = (call.context.view(), call.scope());
    let found = match load_balancer_arn.filter(|arn| !arn.is_empty()) {
        Some(_) if !arns.is_empty() => {
            return Err(invalid(
                "Listener ARNs and a load balancer ARN cannot be specified at the same time",
            ));
        }
        None if arns.is_empty() => {
            return Err(invalid("You must specify either listener ARNs or a load balancer ARN"));
        }
        Some(arn) => of_load_balancer(&view, scope, &arn)?,
        None => named(&view, scope, &arns)?,
    };
    let keyed = found.into_iter().map(|found| (found.1.key().as_str().to_owned(), found));
    let (found, next_marker) = page(keyed, marker.as_deref(), page_size);
    let arns = action::arns(&view, scope);
    let listeners = found.into_iter().map(|(load_balancer, listener)| render(load_balancer, listener, &arns));
    Ok(elb::DescribeListenersOutput { listeners: Some(listeners.collect()), next_marker })
}

type Found<'a> = (&'a Arc<LoadBalancer>, &'a Arc<Listener>);

fn of_load_balancer<'a>(view: &'a View, scope: &Scope, arn: &str) -> Result<Vec<Found<'a>>, Fault> {
    let load_balancer = reference::load_balancer(view, scope, arn)?;
    Ok(engine::listeners_of(view, load_balancer).map(|listener| (load_balancer, listener)).collect())
}

fn named<'a>(view: &'a View, scope: &Scope, arns: &[String]) -> Result<Vec<Found<'a>>, Fault> {
    let mut found =
        arns.iter().map(|arn| reference::listener(view, scope, arn)).collect::<Result<Vec<_>, _>>()?;
    found.sort_by_key(|(_, listener)| listener.key());
    found.dedup_by_key(|(_, listener)| listener.key());
    Ok(found)
}

fn render(load_balancer: &LoadBalancer, listener: &Listener, arns: &action::Arns) -> elb::Listener {
    let actions = action::render(&listener.default_actions, &listener.action_orders, arns);
    elb::Listener {
        certificates: listener.certificates.first().map(|arn| vec![certificate::render(arn, None)]),
        default_actions: Some(actions),
        listener_arn: Some(listener.arn()),
        load_balancer_arn: Some(load_balancer.arn()),
        port: Some(listener.port.into()),
        protocol: Some(protocol_name(listener.protocol)),
        mutual_authentication: (listener.protocol == Protocol::Https).then(security::no_client_certificates),
        ssl_policy: listener.ssl_policy.clone(),
        ..elb::Listener::default()
    }
}

pub fn protocol_name(protocol: Protocol) -> elb::ProtocolEnum {
    match protocol {
        Protocol::Http => elb::ProtocolEnum::Http,
        Protocol::Https => elb::ProtocolEnum::Https,
        Protocol::Tcp => elb::ProtocolEnum::Tcp,
        Protocol::Udp => elb::ProtocolEnum::Udp,
        Protocol::TcpUdp => elb::ProtocolEnum::TcpUdp,
        Protocol::Tls => elb::ProtocolEnum::Tls,
    }
}
