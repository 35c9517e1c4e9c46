//! What rules of a security group a request names.
//! Follows <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_IpPermission.html>.

use super::super::{refuse, refused, vpc};
use crate::context::RandomIds;
use crate::refuse::Given;
use longshore_ec2 as ec2;
use longshore_engine::View;
use longshore_model::id::IdSource;
use longshore_model::vpc::{Peer, Rule, SecurityGroup};
use longshore_model::{Scope, Tags};
use longshore_wire::Fault;

/// The parameters by which a request names rules: one rule flat, or any number as permissions.
#[derive(Clone, Default)]
pub struct Named {
    pub cidr_ip: Option<String>,
    pub from_port: Option<i32>,
    pub to_port: Option<i32>,
    pub ip_protocol: Option<String>,
    pub source_security_group_name: Option<String>,
    pub source_security_group_owner_id: Option<String>,
    pub ip_permissions: Option<Vec<ec2::IpPermission>>,
}

impl Named {
    pub fn of_permissions(ip_permissions: Option<Vec<ec2::IpPermission>>) -> Self {
        Self { ip_permissions, ..Self::default() }
    }

    /// The rules, each with an id of its own.
    pub fn rules(&self, view: &View, group: &SecurityGroup) -> Result<Vec<Rule>, Fault> {
        let owner = self.source_security_group_owner_id.as_ref();
        let other = owner.is_some_and(|owner| **owner != *group.scope.account);
        refuse(&[("SourceSecurityGroupOwnerId of another account", other)])?;
        let mut permissions = self.ip_permissions.clone().unwrap_or_default();
        let pair = self
            .source_security_group_name
            .clone()
            .map(|name| ec2::UserIdGroupPair { group_name: Some(name), ..ec2::UserIdGroupPair::default() });
        let range = self.cidr_ip.clone().map(|cidr| ec2::IpRange { cidr_ip: Some(cidr), description: None });
        if range.is_some() || pair.is_some() || self.ip_protocol.is_some() {
            permissions.push(ec2::IpPermission {
                ip_protocol: self.ip_protocol.clone(),
                from_port: self.from_port,
                to_port: self.to_port,
                user_id_group_pairs: Some(pair.into_iter().collect()),
                ip_ranges: Some(range.into_iter().collect()),
                ipv6_ranges: None,
                prefix_list_ids: None,
            });
        }
        let rules = permissions.into_iter().map(|permission| rules(view, group, permission));
        Ok(rules.collect::<Result<Vec<_>, _>>()?.concat())
    }
}

fn rules(view: &View, group: &SecurityGroup, permission: ec2::IpPermission) -> Result<Vec<Rule>, Fault> {
    let ec2::IpPermission {
        ip_protocol,
        from_port,
        to_port,
        user_id_group_pairs,
        ip_ranges,
        ipv6_ranges,
        prefix_list_ids,
    } = permission;
    refuse(&[("PrefixListIds", prefix_list_ids.given())])?;
    let protocol = protocol(ip_protocol)?;
    let ports = ports(&protocol, from_port, to_port)?;
    let mut peers: Vec<(Peer, Option<String>)> = Vec::new();
    for range in ip_ranges.unwrap_or_default() {
        let cidr = vpc::parse_cidr("cidrIp", &range.cidr_ip.unwrap_or_default())
            .map_err(|_| refused("InvalidParameterValue", "CIDR block is malformed"))?;
        peers.push((Peer::Cidr(cidr), range.description));
    }
    for range in ipv6_ranges.unwrap_or_default() {
        peers.push((ipv6(&range.cidr_ipv6.unwrap_or_default())?, range.description));
    }
    for pair in user_id_group_pairs.unwrap_or_default() {
        let description = pair.description.clone();
        peers.push((Peer::SecurityGroup(referenced(view, group, pair)?), description));
    }
    if peers.is_empty() {
        return Err(refused(
            "InvalidParameterValue",
            "A permission must name at least one CIDR block or security group.",
        ));
    }
    let rule = |(peer, description): (Peer, Option<String>)| Rule {
        id: RandomIds.ec2("sgr"),
        description: description.filter(|text| !text.is_empty()),
        tags: Tags::default(),
        protocol: protocol.clone(),
        ports,
        peer,
    };
    Ok(peers.into_iter().map(rule).collect())
}

/// `tcp`, `udp` and `icmp` by their names, others by their numbers, `-1` for all.
pub fn protocol(given: Option<String>) -> Result<String, Fault> {
    let given = given.unwrap_or_default().to_ascii_lowercase();
    Ok(match given.as_str() {
        "tcp" | "6" => "tcp",
        "udp" | "17" => "udp",
        "icmp" | "1" => "icmp",
        "icmpv6" | "58" => "icmpv6",
        "-1" | "all" => "-1",
        number if number.parse::<u8>().is_ok() => number,
        _ => {
            let message = format!("Invalid value '{given}' for IP protocol. Unknown protocol.");
            return Err(refused("InvalidParameterValue", message));
        }
    }
    .to_owned())
}

pub fn ports(protocol: &str, from: Option<i32>, to: Option<i32>) -> Result<Option<(i32, i32)>, Fault> {
    match protocol {
        "tcp" | "udp" => {
            let (Some(from), Some(to)) = (from, to) else {
                return Err(refused(
                    "InvalidParameterValue",
                    "Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.",
                ));
            };
            if !(0..=65_535).contains(&from) || !(0..=65_535).contains(&to) || from > to {
                let message = format!("Invalid TCP/UDP port range ({from}:{to})");
                return Err(refused("InvalidParameterValue", message));
            }
            Ok(Some((from, to)))
        }
        "icmp" | "icmpv6" => {
            let (kind, code) = (from.unwrap_or(-1), to.unwrap_or(-1));
            if !(-1..=255).contains(&kind) || !(-1..=255).contains(&code) {
                let message = format!("ICMP code ({code}) or type ({kind}) is invalid");
                return Err(refused("InvalidParameterValue", message));
            }
            Ok(Some((kind, code)))
        }
        // Other protocols have no ports; EC2 takes what is said of them as all.
        _ => Ok(None),
    }
}

pub fn ipv6(given: &str) -> Result<Peer, Fault> {
    let parsed = given.split_once('/').and_then(|(base, prefix)| {
        let base: std::net::Ipv6Addr = base.parse().ok()?;
        prefix.parse::<u8>().ok().filter(|prefix| *prefix <= 128).map(|prefix| (base, prefix))
    });
    let (base, prefix) = parsed.ok_or_else(|| refused("InvalidParameterValue", "CIDR block is malformed"))?;
    Ok(Peer::Cidr6(format!("{base}/{prefix}")))
}

/// The id of a group that a rule of another one names.
fn referenced(view: &View, group: &SecurityGroup, pair: ec2::UserIdGroupPair) -> Result<String, Fault> {
    let scope = &group.scope;
    let other = pair.user_id.filter(|user| **user != *scope.account);
    refuse(&[
        ("UserId of another account", other.given()),
        ("VpcPeeringConnectionId", pair.vpc_peering_connection_id.given()),
    ])?;
    find_in(view, scope, Some(&group.vpc), pair.group_id.as_deref(), pair.group_name.as_deref())
        .map(|found| found.id.clone())
}

/// A group by its id, or by its name in a VPC.
pub fn find_in<'a>(
    view: &'a View,
    scope: &Scope,
    vpc: Option<&str>,
    id: Option<&str>,
    name: Option<&str>,
) -> Result<&'a SecurityGroup, Fault> {
    let mut groups = view.security_groups.of(scope).map(|group| &**group);
    let is_default =
        |group: &SecurityGroup| vpc::find(view, scope, &group.vpc).is_ok_and(|vpc| vpc.is_default);
    let found = match (id.filter(|id| !id.is_empty()), name.filter(|name| !name.is_empty())) {
        (Some(id), _) => groups.find(|group| group.id == id),
        (None, Some(name)) => groups.find(|group| {
            group.name == name && vpc.map_or_else(|| is_default(group), |vpc| group.vpc == vpc)
        }),
        (None, None) => {
            return Err(refused(
                "MissingParameter",
                "The request must contain the parameter groupName or groupId",
            ));
        }
    };
    found.ok_or_else(|| {
        let named = id.or(name).unwrap_or_default();
        refused("InvalidGroup.NotFound", format!("The security group '{named}' does not exist"))
    })
}

/// Whether two rules let the same pass.
pub fn is_same(one: &Rule, other: &Rule) -> bool {
    (&one.protocol, one.ports, &one.peer) == (&other.protocol, other.ports, &other.peer)
}

/// As EC2 names a rule in its errors.
pub fn words(rule: &Rule) -> String {
    let peer = match &rule.peer {
        Peer::Cidr(cidr) => cidr.to_string(),
        Peer::Cidr6(cidr) => cidr.clone(),
        Peer::SecurityGroup(id) => id.clone(),
    };
    let protocol = match rule.protocol.as_str() {
        "-1" => "ALL".to_owned(),
        other => other.to_ascii_uppercase(),
    };
    let ports = rule.ports.map(|(from, to)| format!(", from port: {from}, to port: {to}"));
    format!("peer: {peer}, {protocol}{}, ALLOW", ports.unwrap_or_default())
}
