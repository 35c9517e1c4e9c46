//! The packet filter's rules: our own table, and the few that live in tables of others.
//! Invariant: loading them again changes nothing for connections that exist, and keeps the elements of every set;
//! what each task is allowed (security groups) goes into sets and chains of this table, which loading never flushes.

use super::error::Error;
use super::names::{PREFIX, ServerId};
use longshore_model::vpc::Cidr;
use serde::Deserialize;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Where a VPC's resolver answers besides its address in the VPC. Servers that share a machine have it each for themselves.
const EVERY_RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);

/// Loads the table of a server whose VPC and links use these blocks.
pub async fn load(server: &ServerId, vpc: Cidr, blocks: &[Cidr]) -> Result<(), Error> {
    nft(None, "load the rules", &["-f", "-"], &table(server, vpc, blocks)).await?;
    Ok(())
}

/// Counts a block more as inside.
pub async fn add_inside(server: &ServerId, block: Cidr) -> Result<(), Error> {
    let script = format!("add element inet {} inside {{ {block} }}\n", server.nft_table());
    nft(None, "add a subnet to the rules", &["-f", "-"], &script).await.map(drop)
}

/// Removes the table and the rules elsewhere.
pub async fn unload(server: &ServerId) -> Result<(), Error> {
    remove_table(&server.nft_table()).await?;
    leave_forwarding(server).await
}

/// Removes a table of the machine's own namespace.
pub async fn remove_table(name: &str) -> Result<(), Error> {
    // Declared first, so that removing what is not there succeeds.
    let script = format!("table inet {name}\ndelete table inet {name}\n");
    nft(None, "remove the rules", &["-f", "-"], &script).await.map(drop)
}

fn table(server: &ServerId, vpc: Cidr, blocks: &[Cidr]) -> String {
    let name = server.nft_table();
    let own = format!("\"{}*\"", server.interface_prefix());
    let resolver = vpc.nth(2).unwrap_or(vpc.base());
    let blocks = blocks.iter().map(Cidr::to_string).collect::<Vec<_>>().join(", ");
    format!(
        r#"
table inet {name} {{
  set inside {{ type ipv4_addr; flags interval; auto-merge; }}
  chain forward {{ type filter hook forward priority filter; policy accept; }}
  chain postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}
  chain prerouting {{ type nat hook prerouting priority dstnat; policy accept; }}
}}
flush chain inet {name} forward
flush chain inet {name} prerouting
flush chain inet {name} postrouting
add element inet {name} inside {{ {blocks} }}
table inet {name} {{
  chain forward {{
    iifname {own} oifname "{PREFIX}*" oifname != {own} drop comment "the VPC of another server"
    ip saddr @inside tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu comment "narrower ways out"
  }}
  chain prerouting {{
    iifname {own} ip daddr {EVERY_RESOLVER} dnat ip to {resolver} comment "the resolver that every VPC has"
  }}
  chain postrouting {{
    ip saddr @inside ip daddr != @inside oifname != {own} masquerade comment "out of the VPC"
  }}
}}
"#
    )
}

/// Lets the VPC's traffic pass where another program drops what it does not know. Docker sets `FORWARD policy drop`
/// and leaves `DOCKER-USER` to others; it may do so at any time, thus this is worth repeating.
pub async fn join_forwarding(server: &ServerId) -> Result<(), Error> {
    let there = forwarding().await?;
    let Some(chain) = there.chain_for_others() else { return Ok(()) };
    if there.rules_of(server).next().is_some() {
        return Ok(());
    }
    let own = format!("{}*", server.interface_prefix());
    let comment = server.comment();
    let script: String = ["iifname", "oifname"]
        .map(|side| format!("insert rule ip filter {chain} {side} \"{own}\" accept comment \"{comment}\"\n"))
        .concat();
    nft(None, "let the VPC's traffic pass", &["-f", "-"], &script).await?;
    Ok(())
}

async fn leave_forwarding(server: &ServerId) -> Result<(), Error> {
    let there = forwarding().await?;
    let remove = |rule: &Rule| format!("delete rule ip filter {} handle {}\n", rule.chain, rule.handle);
    let script: String = there.rules_of(server).map(remove).collect();
    if !script.is_empty() {
        nft(None, "remove the rules that let traffic pass", &["-f", "-"], &script).await?;
    }
    Ok(())
}

/// The table `ip filter`, in which iptables keeps its rules.
#[derive(Debug, Default)]
struct Forwarding {
    chains: Vec<Chain>,
    rules: Vec<Rule>,
}

impl Forwarding {
    /// Where rules of others belong, when forwarding is restricted at all.
    fn chain_for_others(&self) -> Option<&str> {
        let drops = |chain: &Chain| chain.name == "FORWARD" && chain.policy.as_deref() == Some("drop");
        let user = self.chains.iter().find(|chain| chain.name == "DOCKER-USER");
        let forward = self.chains.iter().find(|chain| drops(chain))?;
        Some(&user.unwrap_or(forward).name)
    }

    fn rules_of<'a>(&'a self, server: &ServerId) -> impl Iterator<Item = &'a Rule> {
        let comment = server.comment();
        self.rules.iter().filter(move |rule| rule.comment.as_deref() == Some(&comment))
    }
}

#[derive(Debug, Deserialize)]
struct Chain {
    name: String,
    policy: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    chain: String,
    handle: u64,
    comment: Option<String>,
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    chain: Option<Chain>,
    rule: Option<Rule>,
}

async fn forwarding() -> Result<Forwarding, Error> {
    let attempt = "list the table ip filter";
    let listing = match nft(None, attempt, &["-j", "list", "table", "ip", "filter"], "").await {
        Ok(listing) => listing,
        Err(Error::Nft { said, .. }) if said.contains("No such file or directory") => {
            return Ok(Forwarding::default());
        }
        Err(error) => return Err(error),
    };
    parse(&listing).map_err(|error| Error::Nft { attempt, said: error.to_string() })
}

fn parse(listing: &str) -> Result<Forwarding, serde_json::Error> {
    let mut found = Forwarding::default();
    for object in serde_json::from_str::<Listing>(listing)?.nftables {
        found.chains.extend(object.chain);
        found.rules.extend(object.rule);
    }
    Ok(found)
}

/// Runs nft in a namespace; `None` is the process's own.
pub async fn nft(
    namespace: Option<&Path>,
    attempt: &'static str,
    arguments: &[&str],
    input: &str,
) -> Result<String, Error> {
    let refused = |said: String| Error::Nft { attempt, said };
    let mut command = match namespace {
        None => Command::new("nft"),
        Some(path) => {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={}", path.display())).arg("nft");
            command
        }
    };
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| refused(format!("it does not start ({error}); is nftables installed?")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // It has ended already when this fails, and then its own words say why.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(|error| refused(error.to_string()))?;
    if !output.status.success() {
        return Err(refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(chains: &[(&str, Option<&str>)], expected: Option<&str>) {
        let chains = chains.iter().map(|(name, policy)| {
            serde_json::json!({"chain": {"family": "ip", "table": "filter", "name": name, "handle": 1, "policy": policy}})
        });
        let listing = serde_json::json!({"nftables": chains.collect::<Vec<_>>()}).to_string();
        assert_eq!(parse(&listing).unwrap().chain_for_others(), expected);
    }

    #[test]
    fn rules_go_where_forwarding_is_restricted() {
        check(&[], None);
        check(&[("FORWARD", Some("accept"))], None);
        check(&[("FORWARD", Some("drop"))], Some("FORWARD"));
        check(&[("FORWARD", Some("drop")), ("DOCKER-USER", None)], Some("DOCKER-USER"));
        check(&[("FORWARD", Some("accept")), ("DOCKER-USER", None)], None);
    }

    #[test]
    fn only_our_own_rules_are_found_again() {
        let server = ServerId::of(Path::new("/nowhere/at/all"));
        let rule = |handle: u64, comment: &str| serde_json::json!({"rule": {"chain": "FORWARD", "handle": handle, "comment": comment, "expr": []}});
        let listing = serde_json::json!({"nftables": [
            {"metainfo": {"version": "1.0.6"}}, rule(7, "longshore 000000"), rule(8, &server.comment()),
            {"rule": {"chain": "FORWARD", "handle": 9, "expr": [{"xt": null}]}}
        ]});
        let found = parse(&listing.to_string()).unwrap();
        let handles: Vec<_> = found.rules_of(&server).map(|rule| rule.handle).collect();
        assert_eq!(handles, [8]);
    }
}
