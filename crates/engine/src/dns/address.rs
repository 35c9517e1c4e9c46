//! The names that follow from addresses, such as `ip-172-31-1-2.ec2.internal`, and back.

use super::{Data, Kind, Known, Question, Record, TTL, client, soa};
use crate::view::View;
use longshore_model::Record as _;
use longshore_model::vpc::Vpc;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The domain of a region's private names.
pub fn private_domain(region: &str) -> String {
    match region {
        "us-east-1" => "ec2.internal".to_owned(),
        _ => format!("{region}.compute.internal"),
    }
}

/// The name that EC2 gives an address: <https://docs.aws.amazon.com/vpc/latest/userguide/vpc-dns.html>.
pub fn private_name(address: Ipv4Addr, region: &str) -> String {
    let dashed = address.to_string().replace('.', "-");
    format!("ip-{dashed}.{}", private_domain(region))
}

pub fn look_up(view: &View, vpcs: &[Arc<Vpc>], question: &Question) -> Option<Known> {
    let name = question.name.to_ascii_lowercase();
    match name.strip_suffix(".in-addr.arpa") {
        Some(reversed) => backward(view, vpcs, question, reversed),
        None => forward(vpcs, question, &name),
    }
}

fn forward(vpcs: &[Arc<Vpc>], question: &Question, name: &str) -> Option<Known> {
    let domain_of = |vpc: &Arc<Vpc>| private_domain(&vpc.scope.region);
    let is_in =
        |domain: &str| name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let domain = vpcs.iter().map(domain_of).find(|domain| is_in(domain))?;
    let soa = soa(&domain, TTL);
    if *name == domain {
        let answers = if question.kind == Kind::Soa { vec![soa.clone()] } else { Vec::new() };
        return Some(Known::of(answers, soa));
    }
    let address = name.strip_suffix(&domain).and_then(|host| parse(host.strip_suffix('.')?));
    let is_known = |vpc: &Arc<Vpc>, address| domain_of(vpc) == domain && vpc.cidr.contains(address);
    let Some(address) = address.filter(|address| vpcs.iter().any(|vpc| is_known(vpc, *address))) else {
        return Some(Known::absent(soa));
    };
    let record = Record { name: question.name.clone(), ttl: TTL, data: Data::A(address) };
    let answers = if matches!(question.kind, Kind::A | Kind::Any) { vec![record] } else { Vec::new() };
    Some(Known::of(answers, soa))
}

/// `ip-172-31-1-2`
fn parse(host: &str) -> Option<Ipv4Addr> {
    let address: Ipv4Addr = host.strip_prefix("ip-")?.replace('-', ".").parse().ok()?;
    // There is one way to write it.
    (host == format!("ip-{}", address.to_string().replace('.', "-"))).then_some(address)
}

/// Where VPCs share a block, the name is that of the VPC in which something has the address.
fn backward(view: &View, vpcs: &[Arc<Vpc>], question: &Question, reversed: &str) -> Option<Known> {
    let address: Ipv4Addr = reversed.split('.').rev().collect::<Vec<_>>().join(".").parse().ok()?;
    let holder = client::vpc_of(view, address);
    let contains = |vpc: &&Arc<Vpc>| vpc.cidr.contains(address);
    let holds = |vpc: &&Arc<Vpc>| holder.is_some_and(|holder| holder.key() == vpc.key());
    let vpc = vpcs.iter().filter(contains).find(holds).or_else(|| vpcs.iter().find(contains))?;
    let name = private_name(address, &vpc.scope.region);
    let record = Record { name: question.name.clone(), ttl: TTL, data: Data::Ptr(name) };
    let answers = if matches!(question.kind, Kind::Ptr | Kind::Any) { vec![record] } else { Vec::new() };
    Some(Known::of(answers, soa("in-addr.arpa", TTL)))
}
