//! The default VPC that AWS makes in every region of a new account.
//!
//! Invariant: one default VPC a scope, one subnet an availability zone, one default security group.
//! Follows <https://docs.aws.amazon.com/vpc/latest/userguide/default-vpc.html>.

use longshore_model::id::IdSource;
use longshore_model::route::{InternetGateway, Route, RouteTable};
use longshore_model::vpc::{Cidr, OpenedRegion, Peer, Rule, SecurityGroup, Subnet, Vpc};
use longshore_model::{Scope, Tags, Timestamp, Transaction};

/// The routing domain that the default VPCs of all accounts and regions share.
pub const NETWORK: &str = "default";

/// The default VPC of a scope with what belongs to it.
#[derive(Clone, Debug)]
pub struct DefaultVpc {
    pub vpc: Vpc,
    pub subnets: Vec<Subnet>,
    pub security_group: SecurityGroup,
    pub gateway: InternetGateway,
    pub route_table: RouteTable,
}

pub fn make(scope: &Scope, cidr: Cidr, ids: &mut dyn IdSource) -> DefaultVpc {
    let vpc = Vpc {
        scope: scope.clone(),
        id: ids.ec2("vpc"),
        cidr,
        is_default: true,
        network: NETWORK.to_owned(),
        dhcp_options: ids.ec2("dopt"),
        network_acl: ids.ec2("acl"),
        dns_support: true,
        dns_hostnames: true,
        tags: Tags::default(),
    };
    // AWS cuts a /16 into /20s; a smaller VPC is cut in sixteen as well.
    let blocks = cidr.split((cidr.prefix() + 4).min(32));
    let zones = scope.availability_zones();
    let subnets = blocks.zip(zones).enumerate().map(|(index, (block, zone))| Subnet {
        scope: scope.clone(),
        id: ids.ec2("subnet"),
        vpc: vpc.id.clone(),
        network: vpc.network.clone(),
        cidr: block,
        availability_zone: zone,
        availability_zone_id: zone_id(&scope.region, index),
        is_default: true,
        map_public_ip: true,
        tags: Tags::default(),
    });
    let subnets = subnets.collect();
    let security_group = default_security_group(scope, &vpc.id, ids);
    let gateway = InternetGateway {
        scope: scope.clone(),
        id: ids.ec2("igw"),
        vpc: Some(vpc.id.clone()),
        tags: Tags::default(),
    };
    let mut route_table = main_route_table(scope, &vpc.id, ids);
    route_table.routes = vec![Route { destination: Cidr::ANY, gateway: gateway.id.clone() }];
    DefaultVpc { vpc, subnets, security_group, gateway, route_table }
}

/// Opens a region for an account, once.
pub fn open_region(
    scope: &Scope,
    cidr: Cidr,
    now: Timestamp,
    ids: &mut dyn IdSource,
    transaction: &mut Transaction,
) {
    transaction.create(&OpenedRegion { scope: scope.clone(), opened_at: now });
    let made = make(scope, cidr, ids);
    transaction.create(&made.vpc);
    for subnet in &made.subnets {
        transaction.create(subnet);
    }
    transaction.create(&made.security_group);
    transaction.create(&made.gateway);
    transaction.create(&made.route_table);
}

/// The route table of the subnets of a new VPC that have none of their own.
pub fn main_route_table(scope: &Scope, vpc: &str, ids: &mut dyn IdSource) -> RouteTable {
    RouteTable {
        scope: scope.clone(),
        id: ids.ec2("rtb"),
        vpc: vpc.to_owned(),
        main: Some(ids.ec2("rtbassoc")),
        routes: Vec::new(),
        associations: Vec::new(),
        tags: Tags::default(),
    }
}

/// Everything in from the group itself, everything out.
pub fn default_security_group(scope: &Scope, vpc: &str, ids: &mut dyn IdSource) -> SecurityGroup {
    let id = ids.ec2("sg");
    let ingress = vec![all_of(Peer::SecurityGroup(id.clone()), ids)];
    SecurityGroup {
        scope: scope.clone(),
        vpc: vpc.to_owned(),
        name: "default".to_owned(),
        description: "default VPC security group".to_owned(),
        ingress,
        egress: vec![all_of(Peer::Cidr(Cidr::ANY), ids)],
        id,
        tags: Tags::default(),
    }
}

/// A rule for all traffic.
pub fn all_of(peer: Peer, ids: &mut dyn IdSource) -> Rule {
    Rule {
        id: ids.ec2("sgr"),
        description: None,
        tags: Tags::default(),
        protocol: "-1".to_owned(),
        ports: None,
        peer,
    }
}

/// Such as `use1-az1` for the first zone of us-east-1.
pub fn zone_id(region: &str, index: usize) -> String {
    let mut parts = region.split('-');
    let continent = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    let (number, compass) = rest.split_last().map_or(("", &rest[..0]), |(n, c)| (*n, c));
    let compass: String = compass.iter().map(|word| compass_letters(word)).collect();
    format!("{continent}{compass}{number}-az{}", index + 1)
}

fn compass_letters(word: &str) -> String {
    match word {
        "northeast" => "ne".to_owned(),
        "northwest" => "nw".to_owned(),
        "southeast" => "se".to_owned(),
        "southwest" => "sw".to_owned(),
        other => other.chars().take(1).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Count(u128);
    impl IdSource for Count {
        fn next_u128(&mut self) -> u128 {
            self.0 += 1 << 64;
            self.0
        }
    }

    fn check(region: &str, cidr: &str, expected: &[&str]) {
        let made = make(&Scope::new("123456789012", region), cidr.parse().unwrap(), &mut Count(0));
        let subnets: Vec<String> = made
            .subnets
            .iter()
            .map(|s| format!("{} {} {}", s.availability_zone, s.availability_zone_id, s.cidr))
            .collect();
        assert_eq!(subnets, expected);
    }

    #[test]
    fn one_subnet_per_availability_zone() {
        check(
            "eu-west-1",
            "172.31.0.0/16",
            &[
                "eu-west-1a euw1-az1 172.31.0.0/20",
                "eu-west-1b euw1-az2 172.31.16.0/20",
                "eu-west-1c euw1-az3 172.31.32.0/20",
            ],
        );
        check(
            "ap-southeast-2",
            "10.9.8.0/24",
            &[
                "ap-southeast-2a apse2-az1 10.9.8.0/28",
                "ap-southeast-2b apse2-az2 10.9.8.16/28",
                "ap-southeast-2c apse2-az3 10.9.8.32/28",
            ],
        );
    }

    #[test]
    fn the_default_group_lets_itself_in() {
        let made = make(&Scope::new("1", "us-east-1"), "172.31.0.0/16".parse().unwrap(), &mut Count(0));
        assert_eq!(made.subnets.len(), 6);
        let group = made.security_group;
        assert_eq!(group.ingress[0].peer, Peer::SecurityGroup(group.id.clone()));
    }
}
