//! What the kernel passes on for network load balancers. Invariant: loading the rules again changes nothing for flows that
//! exist, and there is no instant without them.

use super::error::Error;
use super::names::ServerId;
use super::rules::{nft, remove_table};
use longshore_model::elb::Forward;
use std::fmt::Write;

/// Makes these the only ones of the server.
pub async fn forward(server: &ServerId, forwards: &[Forward]) -> Result<(), Error> {
    let script = script(&server.forwards_table(), forwards);
    nft(None, "pass traffic on", &["-f", "-"], &script).await.map(drop)
}

/// Removes them and their table.
pub async fn unload(server: &ServerId) -> Result<(), Error> {
    remove_table(&server.forwards_table()).await
}

fn script(table: &str, forwards: &[Forward]) -> String {
    let mut to_target = String::new();
    let mut from_here = String::new();
    for forward in forwards.iter().filter(|forward| !forward.targets.is_empty()) {
        let Forward { address, port, transport, targets, keeps_client } = forward;
        let transport = transport.as_str();
        let places = targets.iter().enumerate();
        let places: Vec<String> =
            places.map(|(place, target)| format!("{place} : {} . {}", target.ip(), target.port())).collect();
        // A text never refuses to be written to.
        let _ = writeln!(
            to_target,
            "    ip daddr {address} {transport} dport {port} dnat ip to numgen inc mod {} map {{ {} }}",
            targets.len(),
            places.join(", ")
        );
        if !keeps_client {
            let _ = writeln!(
                from_here,
                "    ct original ip daddr {address} meta l4proto {transport} ct original proto-dst {port} ct status dnat snat ip to {address}"
            );
        }
    }
    format!(
        r#"
table inet {table} {{
  chain prerouting {{ type nat hook prerouting priority dstnat; policy accept; }}
  chain output {{ type nat hook output priority -100; policy accept; }}
  chain postrouting {{ type nat hook postrouting priority srcnat - 5; policy accept; }}
}}
flush chain inet {table} prerouting
flush chain inet {table} output
flush chain inet {table} postrouting
table inet {table} {{
  chain prerouting {{
{to_target}  }}
  chain output {{
{to_target}  }}
  chain postrouting {{
{from_here}  }}
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_model::elb::Transport;
    use std::net::Ipv4Addr;

    #[test]
    fn a_forward_without_targets_is_none() {
        let mut forward = Forward {
            address: Ipv4Addr::new(172, 31, 0, 9),
            port: 80,
            transport: Transport::Tcp,
            targets: Vec::new(),
            keeps_client: false,
        };
        assert!(!script("t", &[forward.clone()]).contains("dnat ip"));
        forward.targets = vec!["10.0.0.1:8080".parse().unwrap(), "10.0.0.2:8080".parse().unwrap()];
        let both = script("t", &[forward.clone()]);
        assert!(both.contains("numgen inc mod 2 map { 0 : 10.0.0.1 . 8080, 1 : 10.0.0.2 . 8080 }"), "{both}");
        assert!(both.contains("snat ip to 172.31.0.9"));
        forward.keeps_client = true;
        assert!(!script("t", &[forward]).contains("snat ip"));
    }
}
