//! What the resolver of a VPC answers: the names of Cloud Map's private namespaces, of load balancers and of addresses.
//!
//! Invariant: a client is told of the namespaces of its own VPC alone, and of unhealthy instances only when a service has
//! no healthy one.
//!
//! Follows <https://docs.aws.amazon.com/vpc/latest/userguide/AmazonDNS-concepts.html>.

mod address;
mod client;
#[cfg(test)]
mod tests;
mod zone;

pub use address::{private_domain, private_name};
pub use client::{RESOLVER, resolver_of, resolvers, vpcs_of};

use crate::view::View;
use longshore_model::elb::LoadBalancer;
use longshore_model::vpc::Vpc;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// How many instances an answer names at most.
const MOST: usize = 8;
/// How many names one leads to by CNAMEs before the rest is left to the client.
const LONGEST_CHAIN: usize = 8;
/// Seconds for which names that follow from addresses may be kept, and those of load balancers.
const TTL: u32 = 60;

/// What is asked. Names have no dot at their end, and may have capital letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub name: String,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    A,
    Aaaa,
    Cname,
    Ns,
    Ptr,
    Soa,
    Srv,
    Any,
    /// One that none of the names has.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub name: String,
    /// Seconds.
    pub ttl: u32,
    pub data: Data,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Cname(String),
    Ns(String),
    Ptr(String),
    Soa { primary: String, mailbox: String, minimum: u32 },
    Srv { port: u16, target: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is of a name of the VPC.
    Known(Known),
    /// Others know.
    Forward,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Whether there is anything of that name.
    pub exists: bool,
    pub answers: Vec<Record>,
    /// The SOA record where there are no answers.
    pub authority: Vec<Record>,
    /// The addresses of what the answers name.
    pub additional: Vec<Record>,
    /// The name that the answers lead to, which others know.
    pub next: Option<String>,
}

/// The answer to a client that is in these VPCs, of which there is at least one. `chance` chooses among instances.
pub fn answer(view: &View, vpcs: &[Arc<Vpc>], question: &Question, chance: u64) -> Answer {
    let Some(mut known) = look_up(view, vpcs, question, chance) else { return Answer::Forward };
    for step in 0..LONGEST_CHAIN {
        let Some(next) = known.next.clone() else { break };
        let further = Question { name: next, kind: question.kind };
        let Some(found) = look_up(view, vpcs, &further, chance.rotate_left(step as u32 + 1)) else { break };
        known.exists = found.exists;
        known.answers.extend(found.answers);
        known.authority = found.authority;
        known.additional.extend(found.additional);
        known.next = found.next;
    }
    Answer::Known(known)
}

/// `None` for a name of which nothing is known here.
fn look_up(view: &View, vpcs: &[Arc<Vpc>], question: &Question, chance: u64) -> Option<Known> {
    zone::look_up(view, vpcs, question, chance)
        .or_else(|| of_load_balancer(view, question))
        .or_else(|| address::look_up(view, vpcs, question))
}

/// Load balancers have names that everybody may ask for.
fn of_load_balancer(view: &View, question: &Question) -> Option<Known> {
    let balancer = load_balancer(view, &question.name)?;
    let record = |address| Record { name: question.name.clone(), ttl: TTL, data: Data::A(address) };
    let asked = matches!(question.kind, Kind::A | Kind::Any);
    let answers: Vec<Record> = balancer.addresses().filter(|_| asked).map(record).collect();
    let domain = question.name.split_once('.').map_or("", |(_, domain)| domain);
    Some(Known::of(answers, soa(domain, TTL)))
}

/// The load balancer of a name, which may begin with `dualstack.` as AWS's do.
fn load_balancer<'a>(view: &'a View, name: &str) -> Option<&'a Arc<LoadBalancer>> {
    let name = name.to_ascii_lowercase();
    let plain = name.strip_prefix("dualstack.").unwrap_or(&name);
    // Most names are not of this kind, and the balancers need not be looked at.
    if !plain.ends_with(".amazonaws.com") {
        return None;
    }
    view.load_balancers.iter().find(|balancer| balancer.dns_name().eq_ignore_ascii_case(plain))
}

impl Known {
    /// A name that is there, with what is asked for of it or with nothing.
    fn of(answers: Vec<Record>, soa: Record) -> Self {
        let authority = if answers.is_empty() { vec![soa] } else { Vec::new() };
        Self { exists: true, answers, authority, ..Self::default() }
    }

    fn absent(soa: Record) -> Self {
        Self { authority: vec![soa], ..Self::default() }
    }
}

/// As Route 53 writes it for a private zone.
fn soa(zone: &str, ttl: u32) -> Record {
    let data = Data::Soa {
        primary: NAME_SERVER.to_owned(),
        mailbox: "awsdns-hostmaster.amazon.com".to_owned(),
        minimum: ttl,
    };
    Record { name: zone.to_owned(), ttl, data }
}

const NAME_SERVER: &str = "ns-1536.awsdns-00.co.uk";
