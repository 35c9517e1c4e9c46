//! What `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` of a task say.

use longshore_model::link::Resolver;
use longshore_model::task_definition::{HostEntry, Names};
use std::net::{IpAddr, Ipv4Addr};
use std::{fs, io, path::Path};

/// The private DNS name that EC2 gives an address: <https://docs.aws.amazon.com/vpc/latest/userguide/vpc-dns.html>.
pub fn hostname(address: Ipv4Addr, region: &str) -> String {
    let [a, b, c, d] = address.octets();
    match region {
        "us-east-1" => format!("ip-{a}-{b}-{c}-{d}.ec2.internal"),
        _ => format!("ip-{a}-{b}-{c}-{d}.{region}.compute.internal"),
    }
}

/// The content of `/etc/hosts`, as Fargate writes it.
pub fn hosts(address: Ipv4Addr, hostname: &str) -> String {
    format!("127.0.0.1 localhost\n{address} {hostname}\n")
}

/// The content of `/etc/hosts` of a task without a network interface.
pub fn hosts_isolated(hostname: &str) -> String {
    format!("127.0.0.1 localhost\n127.0.1.1 {hostname}\n")
}

/// The lines of `/etc/hosts` that a container has of its own.
pub fn extra_hosts(names: &Names) -> String {
    let line = |entry: &HostEntry| format!("{} {}\n", entry.address, entry.hostname);
    names.extra_hosts.iter().map(line).collect()
}

/// A `resolv.conf` with the servers and domains that a container has of its own in place of the others.
pub fn resolv_with(usual: &str, names: &Names) -> String {
    let (servers, domains) = (&names.dns_servers, &names.dns_search_domains);
    let replaced = |line: &&str| {
        let keyword = line.split_ascii_whitespace().next().unwrap_or_default();
        !servers.is_empty() && keyword == "nameserver"
            || !domains.is_empty() && matches!(keyword, "search" | "domain")
    };
    let search = (!domains.is_empty()).then(|| format!("search {}\n", domains.join(" ")));
    let kept = usual.lines().filter(|line| !replaced(line)).map(|line| format!("{line}\n"));
    let own = servers.iter().map(|server| format!("nameserver {server}\n"));
    search.into_iter().chain(kept).chain(own).collect()
}

/// The content of `/etc/hostname`.
pub fn etc_hostname(hostname: &str) -> String {
    format!("{hostname}\n")
}

/// A `resolv.conf` that names the resolver of a VPC.
pub fn resolv_of(resolver: &Resolver) -> String {
    format!("search {}\nnameserver {}\n", resolver.search, resolver.address)
}

/// The host's `resolv.conf` without the resolvers that answer only on the host's own loopback.
/// When that leaves none, the resolvers come from `upstream`, the file in which systemd-resolved keeps the real ones.
pub fn resolv(host: &str, upstream: Option<&str>) -> String {
    let source = match upstream {
        Some(upstream) if !host.lines().any(names_reachable) && upstream.lines().any(names_reachable) => {
            upstream
        }
        _ => host,
    };
    let kept = source.lines().map(str::trim).filter(|line| worth_keeping(line));
    kept.flat_map(|line| [line, "\n"]).collect()
}

/// [`resolv`] of this machine's files. Read anew for every task: a laptop's resolvers change with its network.
pub fn resolv_of_this_machine() -> io::Result<String> {
    let read = |path: &str| match fs::read_to_string(Path::new(path)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let host = read("/etc/resolv.conf")?.unwrap_or_default();
    Ok(resolv(&host, read("/run/systemd/resolve/resolv.conf")?.as_deref()))
}

fn worth_keeping(line: &str) -> bool {
    !line.is_empty() && !line.starts_with(['#', ';']) && (resolver(line).is_none() || names_reachable(line))
}

/// Whether the line names a resolver that a task can reach: tasks have no IPv6 outside their own loopback.
fn names_reachable(line: &str) -> bool {
    let address = resolver(line).and_then(|text| text.parse::<IpAddr>().ok());
    address.is_some_and(|address| address.is_ipv4() && !address.is_loopback() && !address.is_unspecified())
}

fn resolver(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver")).then(|| words.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_region() {
        let address = Ipv4Addr::new(172, 31, 0, 5);
        assert_eq!(hostname(address, "us-east-1"), "ip-172-31-0-5.ec2.internal");
        assert_eq!(hostname(address, "eu-west-1"), "ip-172-31-0-5.eu-west-1.compute.internal");
        assert_eq!(
            hosts(address, "ip-172-31-0-5.ec2.internal"),
            "127.0.0.1 localhost\n172.31.0.5 ip-172-31-0-5.ec2.internal\n"
        );
    }

    #[test]
    fn resolvers_on_loopback_never_reach_a_task() {
        let stub = "# systemd\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan\n";
        let upstream = "nameserver 192.0.2.53\nnameserver fe80::1%eth0\nsearch lan\n";
        assert_eq!(resolv(stub, Some(upstream)), "nameserver 192.0.2.53\nsearch lan\n");
        assert_eq!(resolv(stub, None), "options edns0 trust-ad\nsearch lan\n");
        let mixed = "nameserver 127.0.0.1\nnameserver\t198.51.100.1\nnameserver ::1\nnameserver 0.0.0.0\n";
        assert_eq!(resolv(mixed, Some(upstream)), "nameserver\t198.51.100.1\n");
        assert_eq!(resolv("", None), "");
    }
}
