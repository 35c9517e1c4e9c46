//! Security groups in the packet filter of an instance.
//!
//! Invariant: the table is replaced as a whole and at once, so that no packet meets half of it; flows that were let pass go
//! on, as on AWS, also when the rule that allowed them is gone.
//!
//! What leaves a task is looked at before the destination is translated, and what reaches one after the source is: a rule
//! sees a load balancer's address where the load balancer is.

use super::error::Error;
use super::rules::nft;
use longshore_model::link::firewall::{Firewall, Permission, PermittedPeer};
use longshore_model::vpc::Cidr;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::Path;

/// Where the agent and the machine answer tasks, whatever their groups say.
const OWN: &str = "169.254.0.0/16";

pub async fn load(namespace: Option<&Path>, table: &str, firewall: &Firewall) -> Result<(), Error> {
    let script = script(table, firewall);
    nft(namespace, "enforce security groups", &["-f", "-"], &script).await.map(drop)
}

#[derive(Clone, Copy)]
enum Direction {
    In,
    Out,
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }

    /// The side of a packet that the peer is on.
    fn peer(self) -> &'static str {
        match self {
            Self::In => "saddr",
            Self::Out => "daddr",
        }
    }
}

/// The lists of groups that interfaces have, numbered.
type Kinds<'a> = BTreeMap<&'a BTreeSet<String>, usize>;

fn script(table: &str, firewall: &Firewall) -> String {
    let mut kinds = Kinds::new();
    for groups in firewall.interfaces.values() {
        let next = kinds.len();
        kinds.entry(groups).or_insert(next);
    }
    let mut body = String::new();
    for (group, members) in &firewall.members {
        set(&mut body, &format!("members_{}", word(group)), members);
    }
    set(&mut body, "resolvers", &firewall.resolvers);
    for direction in [Direction::In, Direction::Out] {
        chains(&mut body, firewall, &kinds, direction);
        places(&mut body, firewall, &kinds, direction);
    }
    format!(
        r#"
table inet {table}
delete table inet {table}
table inet {table} {{
{body}
  chain ingress {{
    type filter hook postrouting priority srcnat + 10; policy accept;
    ct state established,related accept
    ip daddr vmap @places_in
  }}
  chain egress {{
    type filter hook prerouting priority mangle; policy accept;
    ct state established,related accept
    ip daddr {OWN} accept
    ip daddr @resolvers accept
    ip saddr vmap @places_out
  }}
}}
"#
    )
}

// A text never refuses to be written to, so that the results of `writeln!` say nothing.

fn set(body: &mut String, name: &str, addresses: &BTreeSet<Ipv4Addr>) {
    let all: Vec<String> = addresses.iter().map(Ipv4Addr::to_string).collect();
    let elements =
        if all.is_empty() { String::new() } else { format!("elements = {{ {} }}", all.join(", ")) };
    let _ = writeln!(body, "  set {name} {{ type ipv4_addr; {elements} }}");
}

/// A chain for each group with what it allows, and one for each list of groups, which drops the rest.
fn chains(body: &mut String, firewall: &Firewall, kinds: &Kinds<'_>, direction: Direction) {
    let side = direction.name();
    for (group, permissions) in &firewall.groups {
        let _ = writeln!(body, "  chain group_{}_{side} {{", word(group));
        let allowed = match direction {
            Direction::In => &permissions.ingress,
            Direction::Out => &permissions.egress,
        };
        for permission in allowed {
            let _ = writeln!(body, "    {} accept", matching(permission, direction));
        }
        let _ = writeln!(body, "  }}");
    }
    for (groups, number) in kinds {
        let _ = writeln!(body, "  chain kind_{number}_{side} {{");
        for group in *groups {
            let _ = writeln!(body, "    jump group_{}_{side}", word(group));
        }
        let _ = writeln!(body, "    drop\n  }}");
    }
}

/// Which interface has which list.
fn places(body: &mut String, firewall: &Firewall, kinds: &Kinds<'_>, direction: Direction) {
    let side = direction.name();
    let place = |(address, groups): (&Ipv4Addr, &BTreeSet<String>)| {
        kinds.get(groups).map(|number| format!("{address} : goto kind_{number}_{side}"))
    };
    let all: Vec<String> = firewall.interfaces.iter().filter_map(place).collect();
    let elements =
        if all.is_empty() { String::new() } else { format!("elements = {{ {} }}", all.join(", ")) };
    let _ = writeln!(body, "  map places_{side} {{ type ipv4_addr : verdict; {elements} }}");
}

fn matching(permission: &Permission, direction: Direction) -> String {
    let side = direction.peer();
    let peer = match &permission.peer {
        PermittedPeer::Block(block) if *block == Cidr::ANY => String::new(),
        PermittedPeer::Block(block) => format!("ip {side} {block} "),
        PermittedPeer::Group(group) => format!("ip {side} @members_{} ", word(group)),
    };
    let traffic = match (permission.protocol.as_str(), permission.ports) {
        ("-1", _) => String::new(),
        (transport @ ("tcp" | "udp"), Some((first, last))) if first > 0 || (0..65535).contains(&last) => {
            format!("{transport} dport {first}-{last}")
        }
        ("icmp", Some((kind, _))) if kind < 0 => "meta l4proto icmp".to_owned(),
        ("icmp", Some((kind, code))) if code < 0 => format!("icmp type {kind}"),
        ("icmp", Some((kind, code))) => format!("icmp type {kind} icmp code {code}"),
        (protocol, _) => format!("meta l4proto {}", word(protocol)),
    };
    format!("{peer}{traffic}")
}

/// A name that the packet filter takes: ids have dashes, and nothing else that it would read in another way.
fn word(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(protocol: &str, ports: Option<(i32, i32)>, peer: PermittedPeer, expected: &str) {
        let permission = Permission { protocol: protocol.to_owned(), ports, peer };
        assert_eq!(matching(&permission, Direction::In), expected);
    }

    fn block(text: &str) -> PermittedPeer {
        PermittedPeer::Block(text.parse().unwrap())
    }

    #[test]
    fn each_kind_of_rule() {
        check("-1", None, block("0.0.0.0/0"), "");
        check("-1", None, PermittedPeer::Group("sg-0a".to_owned()), "ip saddr @members_sg_0a ");
        check("tcp", Some((80, 80)), block("10.0.0.0/8"), "ip saddr 10.0.0.0/8 tcp dport 80-80");
        check("udp", Some((0, 65535)), block("0.0.0.0/0"), "meta l4proto udp");
        check("tcp", Some((0, 1023)), block("0.0.0.0/0"), "tcp dport 0-1023");
        check("icmp", Some((-1, -1)), block("0.0.0.0/0"), "meta l4proto icmp");
        check("icmp", Some((8, -1)), block("0.0.0.0/0"), "icmp type 8");
        check("icmp", Some((3, 4)), block("0.0.0.0/0"), "icmp type 3 icmp code 4");
        check("50", None, block("0.0.0.0/0"), "meta l4proto 50");
    }

    #[test]
    fn interfaces_of_the_same_groups_share_their_chains() {
        let groups: BTreeSet<String> = ["sg-1".to_owned(), "sg-2".to_owned()].into();
        let address = |last: u8| Ipv4Addr::new(10, 0, 0, last);
        let firewall = Firewall {
            interfaces: [(address(1), groups.clone()), (address(2), groups.clone())].into(),
            groups: groups.iter().map(|group| (group.clone(), Default::default())).collect(),
            ..Firewall::default()
        };
        let script = script("t", &firewall);
        assert_eq!(script.matches("chain kind_").count(), 2, "{script}");
        assert!(script.contains("10.0.0.1 : goto kind_0_in, 10.0.0.2 : goto kind_0_in"));
        assert!(script.contains("jump group_sg_1_in\n    jump group_sg_2_in\n    drop"));
    }
}
