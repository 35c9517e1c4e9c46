//! The certificates of listeners. Invariant: the first one is the default, and the others are each there once.
//! Follows <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_AddListenerCertificates.html>.

use super::{invalid, reference, security};
use crate::api::Call;
use crate::pages::page;
use longshore_elbv2 as elb;
use longshore_engine::{View, elb as engine};
use longshore_model::elb::{Listener, LoadBalancer};
use longshore_wire::Fault;
use std::collections::BTreeSet;

/// Of one load balancer, the default ones not among them.
const MOST: usize = 25;

pub fn render(arn: &str, is_default: Option<bool>) -> elb::Certificate {
    elb::Certificate { certificate_arn: Some(arn.to_owned()), is_default }
}

fn parse(given: Vec<elb::Certificate>) -> Result<BTreeSet<String>, Fault> {
    let one = |elb::Certificate { certificate_arn, is_default }| match is_default {
        None => Ok(certificate_arn.unwrap_or_default()),
        Some(_) => Err(invalid("You cannot set the 'IsDefault' attribute of a certificate")),
    };
    given.into_iter().map(one).collect()
}

fn check_tls(listener: &Listener) -> Result<(), Fault> {
    if security::speaks_tls(listener.protocol) {
        return Ok(());
    }
    let protocol = super::listener::protocol_name(listener.protocol);
    Err(invalid(format!("Certificates cannot be specified for listeners with the protocol '{protocol}'")))
}

pub async fn add(
    call: Call,
    request: elb::AddListenerCertificatesInput,
) -> Result<elb::AddListenerCertificatesOutput, Fault> {
    let elb::AddListenerCertificatesInput { certificates, listener_arn } = request;
    let wanted = parse(certificates)?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let (load_balancer, present) = reference::listener(view, call.scope(), &listener_arn)?;
        check_tls(present)?;
        let mut next = (**present).clone();
        for arn in &wanted {
            let found = security::certificate(view, call.scope(), arn)?;
            if !next.certificates.iter().skip(1).any(|other| other == arn) {
                next.certificates.push(arn.clone());
                // So that it is not deleted meanwhile.
                transaction.update(&**found);
            }
        }
        if next != **present {
            check_room(view, load_balancer, present, &next)?;
            transaction.update(&next);
            // So that of two that use up what is left the second is refused.
            transaction.update(&**load_balancer);
        }
        Ok(())
    });
    commit.await?;
    let certificates = wanted.iter().map(|arn| render(arn, Some(false))).collect();
    Ok(elb::AddListenerCertificatesOutput { certificates: Some(certificates) })
}

fn check_room(
    view: &View,
    load_balancer: &LoadBalancer,
    present: &Listener,
    next: &Listener,
) -> Result<(), Fault> {
    let others = engine::listeners_of(view, load_balancer).filter(|other| other.id != present.id);
    let count = |listener: &Listener| listener.certificates.len().saturating_sub(1);
    if others.map(|other| count(other)).sum::<usize>() + count(next) <= MOST {
        return Ok(());
    }
    let message = format!("You have reached the maximum number of certificates per load balancer: '{MOST}'");
    Err(elb::Error::TooManyCertificatesException(message).into())
}

pub async fn remove(
    call: Call,
    request: elb::RemoveListenerCertificatesInput,
) -> Result<elb::RemoveListenerCertificatesOutput, Fault> {
    let elb::RemoveListenerCertificatesInput { certificates, listener_arn } = request;
    let wanted = parse(certificates)?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let (_, present) = reference::listener(&snapshot.view, call.scope(), &listener_arn)?;
        check_tls(present)?;
        let (default, others) = present.certificates.split_first().unzip();
        let others = others.unwrap_or_default();
        if let Some(default) = default.filter(|arn| wanted.contains(*arn) && !others.contains(arn)) {
            let message = format!("Default certificate '{default}' cannot be removed");
            return Err(elb::Error::OperationNotPermittedException(message).into());
        }
        let kept = others.iter().filter(|arn| !wanted.contains(*arn));
        let certificates = default.into_iter().chain(kept).cloned().collect();
        let next = Listener { certificates, ..(**present).clone() };
        if next != **present {
            transaction.update(&next);
        }
        Ok(())
    });
    commit.await?;
    Ok(elb::RemoveListenerCertificatesOutput {})
}

pub async fn describe(
    call: Call,
    request: elb::DescribeListenerCertificatesInput,
) -> Result<elb::DescribeListenerCertificatesOutput, Fault> {
    let elb::DescribeListenerCertificatesInput { listener_arn, marker, page_size } = request;
    let view = call.context.view();
    let (_, listener) = reference::listener(&view, call.scope(), &listener_arn)?;
    // The default one comes first, as `!` is before every letter.
    let keyed = |(at, arn): (usize, &String)| {
        let key = if at == 0 { String::from("!") } else { arn.clone() };
        (key, render(arn, Some(at == 0)))
    };
    let mut all: Vec<_> = listener.certificates.iter().enumerate().map(keyed).collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    let (certificates, next_marker) = page(all.into_iter(), marker.as_deref(), page_size);
    Ok(elb::DescribeListenerCertificatesOutput { certificates: Some(certificates), next_marker })
}
