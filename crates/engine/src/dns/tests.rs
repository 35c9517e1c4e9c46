//! What clients in two VPCs are answered: `check` writes an answer as a line of its rcode, records and what follows.

use super::*;
use crate::testing::{apply, instance, scope, view};
use longshore_model::discovery::{
    DiscoveryInstance, DiscoveryService, DnsConfig, DnsRecord, HealthStatus, Namespace, NamespaceKind,
    RecordType, RoutingPolicy,
};
use longshore_model::elb::{LoadBalancerType, LoadBalancerZone, Scheme};
use longshore_model::id::Uuid;
use longshore_model::vpc::{Holder, NetworkInterface, Subnet};
use longshore_model::{Scope, Tags, Timestamp, Transaction, Version};
use proptest::prelude::*;
use std::collections::BTreeSet;

struct World {
    view: View,
    vpc: String,
}

fn records(kinds: &[RecordType]) -> Option<DnsConfig> {
    let records = kinds.iter().map(|kind| DnsRecord { kind: *kind, ttl: 60 }).collect();
    Some(DnsConfig { routing: RoutingPolicy::Multivalue, records })
}

fn namespace(id: &str, name: &str, vpc: &str) -> Namespace {
    Namespace {
        scope: scope(),
        id: id.to_owned(),
        name: name.to_owned(),
        http_name: name.to_owned(),
        kind: NamespaceKind::DnsPrivate { vpc: vpc.to_owned(), hosted_zone: "Z1".to_owned(), soa_ttl: 15 },
        description: None,
        creator_request_id: None,
        tags: Tags::default(),
        created_at: Timestamp(1),
    }
}

fn service(id: &str, namespace: &str, name: &str, dns: Option<DnsConfig>) -> DiscoveryService {
    DiscoveryService {
        scope: scope(),
        id: id.to_owned(),
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        dns,
        custom_health: true,
        description: None,
        creator_request_id: None,
        tags: Tags::default(),
        created_at: Timestamp(1),
        revision: 1,
    }
}

fn registered(service: &str, id: &str, attributes: &[(&str, &str)]) -> DiscoveryInstance {
    let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    DiscoveryInstance {
        scope: scope(),
        service: service.to_owned(),
        id: id.to_owned(),
        attributes: attributes.collect(),
        health: Some(HealthStatus::Healthy),
        task: None,
        creator_request_id: None,
        operation: None,
        registered_at: Timestamp(1),
    }
}

impl World {
    /// The default VPC with `production.internal`, and an empty one with `other.internal`.
    fn new() -> Self {
        let view = view(&[instance(1, 1024, 4096)]);
        let default = view.vpcs.iter().next().unwrap().clone();
        let mut world = Self { view, vpc: default.id.clone() };
        let other = Vpc {
            id: "vpc-2".to_owned(),
            cidr: "10.0.0.0/16".parse().unwrap(),
            is_default: false,
            ..(*default).clone()
        };
        let subnet = Subnet {
            id: "subnet-2".to_owned(),
            vpc: other.id.clone(),
            cidr: "10.0.1.0/24".parse().unwrap(),
            ..(**world.view.subnets.iter().next().unwrap()).clone()
        };
        world.put(&other);
        world.put(&subnet);
        world.put(&namespace("ns-1", "production.internal", &default.id));
        world.put(&namespace("ns-2", "other.internal", "vpc-2"));
        world
    }

    fn put<R: longshore_model::Record>(&mut self, record: &R) {
        let mut transaction = Transaction::at(Version(0));
        transaction.create(record);
        apply(&mut self.view, transaction);
    }

    fn remove<R: longshore_model::Record>(&mut self, record: &R) {
        let mut transaction = Transaction::at(Version(0));
        transaction.delete(record.key());
        apply(&mut self.view, transaction);
    }

    fn interface(&mut self, subnet: &str, address: &str) {
        self.put(&NetworkInterface {
            scope: scope(),
            id: format!("eni-{address}"),
            attachment: Uuid(1),
            network: crate::default_vpc::NETWORK.to_owned(),
            subnet: subnet.to_owned(),
            address: address.parse().unwrap(),
            mac: longshore_model::vpc::MacAddress::of(address.parse().unwrap()),
            security_groups: Vec::new(),
            holder: Holder::LoadBalancer("any".to_owned()),
            created_at: Timestamp(1),
        });
    }

    fn vpcs(&self, id: &str) -> Vec<Arc<Vpc>> {
        self.view.vpcs.iter().filter(|vpc| vpc.id == id).cloned().collect()
    }

    #[track_caller]
    fn check(&self, name: &str, kind: Kind, expected: &str) {
        let question = Question { name: name.to_owned(), kind };
        assert_eq!(written(&answer(&self.view, &self.vpcs(&self.vpc), &question, 7)), expected);
    }

    fn ask(&self, vpc: &str, name: &str, kind: Kind, chance: u64) -> Answer {
        let question = Question { name: name.to_owned(), kind };
        answer(&self.view, &self.vpcs(vpc), &question, chance)
    }
}

fn written(answer: &Answer) -> String {
    let Answer::Known(known) = answer else { return "forward".to_owned() };
    let data = |record: &Record| match &record.data {
        Data::A(address) => format!("{} {} A {address}", record.name, record.ttl),
        Data::Aaaa(address) => format!("{} {} AAAA {address}", record.name, record.ttl),
        Data::Cname(name) => format!("{} {} CNAME {name}", record.name, record.ttl),
        Data::Ns(name) => format!("{} {} NS {name}", record.name, record.ttl),
        Data::Ptr(name) => format!("{} {} PTR {name}", record.name, record.ttl),
        Data::Soa { minimum, .. } => format!("{} {} SOA {minimum}", record.name, record.ttl),
        Data::Srv { port, target } => format!("{} {} SRV {port} {target}", record.name, record.ttl),
    };
    let list = |records: &[Record]| {
        let mut all: Vec<String> = records.iter().map(data).collect();
        all.sort();
        all.join(", ")
    };
    let mut text = if known.exists { "found".to_owned() } else { "absent".to_owned() };
    for (name, records) in [("", &known.answers), (" soa", &known.authority), (" with", &known.additional)] {
        if !records.is_empty() {
            text.push_str(&format!("{name}: {}", list(records)));
        }
    }
    known.next.iter().for_each(|next| text.push_str(&format!(" then {next}")));
    text
}

#[test]
fn a_service_is_found_while_it_has_instances() {
    let mut world = World::new();
    world.put(&service("srv-1", "ns-1", "Api", records(&[RecordType::A])));
    let soa = "absent soa: production.internal 15 SOA 15";
    world.check("api.production.internal", Kind::A, soa);
    let one = registered("srv-1", "one", &[("AWS_INSTANCE_IPV4", "172.31.0.9")]);
    world.put(&one);
    world.put(&registered("srv-1", "two", &[("AWS_INSTANCE_IPV4", "172.31.0.10")]));
    world.check(
        "API.production.Internal",
        Kind::A,
        "found: API.production.Internal 60 A 172.31.0.10, API.production.Internal 60 A 172.31.0.9",
    );
    world.check("api.production.internal", Kind::Aaaa, "found soa: production.internal 15 SOA 15");
    world.check("api.production.internal", Kind::Other, "found soa: production.internal 15 SOA 15");
    world.check("apis.production.internal", Kind::A, soa);
    world.check("one.api.production.internal", Kind::A, soa);
    world.check("production.internal", Kind::Soa, "found: production.internal 15 SOA 15");
    world.check("production.internal", Kind::A, "found soa: production.internal 15 SOA 15");
    world.check("internal", Kind::A, "forward");
    world.check("myproduction.internal", Kind::A, "forward");
    world.remove(&one);
    world.check("api.production.internal", Kind::A, "found: api.production.internal 60 A 172.31.0.10");
}

#[test]
fn srv_records_lead_to_instances_by_their_ids() {
    let mut world = World::new();
    world.put(&service("srv-1", "ns-1", "_web._tcp", records(&[RecordType::Srv])));
    let at = [("AWS_INSTANCE_IPV4", "172.31.0.9"), ("AWS_INSTANCE_PORT", "8080")];
    world.put(&registered("srv-1", "a.b", &at));
    world.check(
        "_web._tcp.production.internal",
        Kind::Srv,
        "found: _web._tcp.production.internal 60 SRV 8080 a.b._web._tcp.production.internal \
         with: a.b._web._tcp.production.internal 60 A 172.31.0.9",
    );
    world.check("_web._tcp.production.internal", Kind::A, "found soa: production.internal 15 SOA 15");
    let own = "found: A.b._web._tcp.production.internal 60 A 172.31.0.9";
    world.check("A.b._web._tcp.production.internal", Kind::A, own);
    world.check("c._web._tcp.production.internal", Kind::A, "absent soa: production.internal 15 SOA 15");
    // A name between others is there, with nothing of its own.
    world.check("_tcp.production.internal", Kind::A, "found soa: production.internal 15 SOA 15");
}

#[test]
fn cnames_are_followed_as_far_as_names_are_known() {
    let mut world = World::new();
    let weighted = |kind| records(&[kind]).map(|dns| DnsConfig { routing: RoutingPolicy::Weighted, ..dns });
    for (id, name, target) in [
        ("srv-1", "out", "example.com."),
        ("srv-2", "in", "api.production.internal"),
        ("srv-3", "round", "round.production.internal"),
    ] {
        world.put(&service(id, "ns-1", name, weighted(RecordType::Cname)));
        world.put(&registered(id, "one", &[("AWS_INSTANCE_CNAME", target)]));
    }
    world.put(&service("srv-4", "ns-1", "api", records(&[RecordType::A])));
    world.put(&registered("srv-4", "one", &[("AWS_INSTANCE_IPV4", "172.31.0.9")]));
    let out = "found: out.production.internal 60 CNAME example.com";
    world.check("out.production.internal", Kind::A, &format!("{out} then example.com"));
    world.check("out.production.internal", Kind::Cname, out);
    world.check(
        "in.production.internal",
        Kind::A,
        "found: api.production.internal 60 A 172.31.0.9, in.production.internal 60 CNAME api.production.internal",
    );
    let Answer::Known(round) = world.ask(&world.vpc, "round.production.internal", Kind::A, 1) else {
        panic!()
    };
    assert_eq!(round.answers.len(), 1 + LONGEST_CHAIN);
}

#[test]
fn load_balancers_have_names_and_services_may_be_theirs() {
    let mut world = World::new();
    let zone = |address: &str| LoadBalancerZone {
        chosen: false,
        availability_zone: "us-east-1a".to_owned(),
        subnet: "subnet-1".to_owned(),
        address: address.parse().unwrap(),
    };
    let balancer = LoadBalancer {
        scope: scope(),
        name: "web".to_owned(),
        id: "0000000000000001".to_owned(),
        kind: LoadBalancerType::Application,
        scheme: Scheme::Internal,
        vpc: world.vpc.clone(),
        zones: vec![zone("172.31.0.7"), zone("172.31.16.7")],
        security_groups: Vec::new(),
        attributes: Default::default(),
        tags: Tags::default(),
        created_at: Timestamp(1),
    };
    world.put(&balancer);
    let name = balancer.dns_name();
    world.check(&name, Kind::A, &format!("found: {name} 60 A 172.31.0.7, {name} 60 A 172.31.16.7"));
    let dual = format!("dualstack.{name}");
    world.check(&dual, Kind::A, &format!("found: {dual} 60 A 172.31.0.7, {dual} 60 A 172.31.16.7"));
    world.check("other-1.us-east-1.elb.amazonaws.com", Kind::A, "forward");
    world.put(&service("srv-1", "ns-1", "front", records(&[RecordType::A])));
    world.put(&registered("srv-1", "one", &[("AWS_ALIAS_DNS_NAME", &name)]));
    world.check(
        "front.production.internal",
        Kind::A,
        "found: front.production.internal 60 A 172.31.0.7, front.production.internal 60 A 172.31.16.7",
    );
}

#[test]
fn names_follow_from_the_addresses_of_the_vpc() {
    let world = World::new();
    world.check("ip-172-31-1-2.ec2.internal", Kind::A, "found: ip-172-31-1-2.ec2.internal 60 A 172.31.1.2");
    world.check("ip-172-31-1-2.ec2.internal", Kind::Aaaa, "found soa: ec2.internal 60 SOA 60");
    for absent in [
        "ip-10-0-1-2.ec2.internal",
        "ip-172-31-01-2.ec2.internal",
        "web.ec2.internal",
        "a.ip-172-31-1-2.ec2.internal",
    ] {
        world.check(absent, Kind::A, "absent soa: ec2.internal 60 SOA 60");
    }
    world.check(
        "2.1.31.172.in-addr.arpa",
        Kind::Ptr,
        "found: 2.1.31.172.in-addr.arpa 60 PTR ip-172-31-1-2.ec2.internal",
    );
    world.check("2.1.0.10.in-addr.arpa", Kind::Ptr, "forward");
    world.check("ip-172-31-1-2.eu-west-1.compute.internal", Kind::A, "forward");
    assert_eq!(
        private_name(Ipv4Addr::new(10, 0, 0, 1), "eu-west-1"),
        "ip-10-0-0-1.eu-west-1.compute.internal"
    );
}

#[test]
fn an_address_of_several_vpcs_has_the_name_of_the_one_that_uses_it() {
    let mut world = World::new();
    let second = world.vpcs("vpc-2").remove(0);
    let elsewhere = Scope { region: "eu-west-1".into(), ..scope() };
    world.put(&Vpc { id: "vpc-0".to_owned(), scope: elsewhere, ..(*second).clone() });
    world.interface("subnet-2", "10.0.1.9");
    let name_of = |world: &World, reversed: &str, vpcs: &[Arc<Vpc>]| {
        let question = Question { name: format!("{reversed}.in-addr.arpa"), kind: Kind::Ptr };
        written(&answer(&world.view, vpcs, &question, 7))
    };
    let mut vpcs = [world.vpcs("vpc-0"), world.vpcs("vpc-2")].concat();
    for _ in 0..2 {
        let found = "found: 9.1.0.10.in-addr.arpa 60 PTR ip-10-0-1-9.ec2.internal";
        assert_eq!(name_of(&world, "9.1.0.10", &vpcs), found);
        vpcs.reverse();
    }
    let unused = "found: 8.1.0.10.in-addr.arpa 60 PTR ip-10-0-1-8.eu-west-1.compute.internal";
    assert_eq!(name_of(&world, "8.1.0.10", &vpcs), unused);
}

#[test]
fn a_client_is_in_the_vpc_of_its_interface_or_of_whom_it_asks() {
    let mut world = World::new();
    let check = |world: &World, source: &str, asked: &str, expected: &[&str]| {
        let vpcs = vpcs_of(&world.view, source.parse().unwrap(), asked.parse().unwrap());
        assert_eq!(vpcs.iter().map(|vpc| vpc.id.as_str()).collect::<Vec<_>>(), expected);
    };
    let default = world.vpc.clone();
    let own = "172.31.0.2".parse().unwrap();
    assert_eq!(resolvers(&world.view), BTreeSet::from([own]));
    world.interface("subnet-2", "10.0.1.9");
    assert_eq!(resolvers(&world.view), BTreeSet::from([own, "10.0.0.2".parse().unwrap()]));
    check(&world, "10.0.1.9", "172.31.0.2", &["vpc-2"]);
    check(&world, "172.31.0.2", "172.31.0.2", &[&default]);
    check(&world, "172.31.0.2", "10.0.0.2", &["vpc-2"]);
    check(&world, "172.31.0.2", "10.0.0.3", &[]);
    let silent = Vpc { dns_support: false, ..(*world.vpcs("vpc-2")[0]).clone() };
    world.put(&silent);
    check(&world, "10.0.1.9", "172.31.0.2", &[]);
    check(&world, "172.31.0.2", "10.0.0.2", &[]);
    assert_eq!(resolvers(&world.view), BTreeSet::from([own]));
}

proptest! {
    /// Whatever is registered, a client gets addresses of its own VPC's services alone, each once, as many as there may be,
    /// and of unhealthy instances only where all are.
    #[test]
    fn answers_keep_to_the_vpc_and_to_what_is_healthy(
        instances in prop::collection::vec((0u8..3, 1u8..250, any::<bool>()), 0..40),
        weighted in any::<bool>(),
        chance in any::<u64>(),
    ) {
        let mut world = World::new();
        let routing = if weighted { RoutingPolicy::Weighted } else { RoutingPolicy::Multivalue };
        let dns = records(&[RecordType::A]).map(|dns| DnsConfig { routing, ..dns });
        for (id, namespace, name) in [("srv-0", "ns-1", "api"), ("srv-1", "ns-1", "web"), ("srv-2", "ns-2", "api")] {
            world.put(&service(id, namespace, name, dns.clone()));
        }
        for (service, last, healthy) in &instances {
            let address = format!("172.31.{service}.{last}");
            let health = if *healthy { HealthStatus::Healthy } else { HealthStatus::Unhealthy };
            let id = format!("i-{last}");
            world.put(&DiscoveryInstance {
                health: Some(health),
                ..registered(&format!("srv-{service}"), &id, &[("AWS_INSTANCE_IPV4", &address)])
            });
        }
        let vpc = world.vpc.clone();
        let there: Vec<_> = world.view.discovery_instances_of(&scope(), "srv-0").collect();
        let healthy = there.iter().filter(|one| one.is_healthy()).count();
        let eligible = if healthy > 0 { healthy } else { there.len() };
        let Answer::Known(known) = world.ask(&vpc, "api.production.internal", Kind::A, chance) else { panic!() };
        prop_assert_eq!(known.exists, !there.is_empty());
        prop_assert_eq!(known.answers.len(), eligible.min(if weighted { 1 } else { MOST }));
        let told: BTreeSet<Ipv4Addr> = known.answers.iter().filter_map(|record| match record.data {
            Data::A(address) => Some(address),
            _ => None,
        }).collect();
        prop_assert_eq!(told.len(), known.answers.len());
        for address in told {
            let one = there.iter().find(|one| one.ipv4() == Some(address));
            prop_assert!(one.is_some_and(|one| one.is_healthy() || healthy == 0));
        }
        prop_assert_eq!(world.ask(&vpc, "api.other.internal", Kind::A, chance), Answer::Forward);
        prop_assert_eq!(world.ask("vpc-2", "api.production.internal", Kind::A, chance), Answer::Forward);
    }
}
