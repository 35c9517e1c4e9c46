//! `ecs.config`, the file by which ECS users configure an instance's agent.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-agent-config.html>.

use crate::Outcome;
use longshore_model::Tags;
use longshore_model::task_definition::Protocol;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

/// Where user data writes it.
pub const PATH: &str = "/etc/ecs/ecs.config";

const STOP_TIMEOUTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

#[derive(Debug, Default, PartialEq)]
pub struct EcsConfig {
    pub cluster: Option<String>,
    pub attributes: BTreeMap<String, String>,
    pub tags: Tags,
    /// MiB.
    pub reserved_memory: u64,
    /// Whether tasks may be given the machine's GPUs.
    pub gpu_support: bool,
    pub reserved_ports: Vec<(Protocol, u16)>,
    pub availability_zone: Option<String>,
    /// Between the stop signal and SIGKILL, for containers whose definitions name none.
    pub stop_timeout: Option<Duration>,
    /// Keys that have no effect here.
    pub unused: Vec<String>,
}

/// Reads the file; one that is not there says nothing.
pub fn read(path: &Path) -> Outcome<EcsConfig> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text).map_err(|error| format!("{}: {error}", path.display()).into()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(EcsConfig::default()),
        Err(error) => Err(format!("read {}: {error}", path.display()).into()),
    }
}

/// What user data writes into the file, whatever commands it uses: the assignments to `ECS_…` in it, or the settings of
/// Bottlerocket. Nothing else of user data has an effect.
pub fn of_user_data(text: &str) -> Result<EcsConfig, String> {
    let mut lines: Vec<String> = text.lines().filter_map(assignment).collect();
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if section == "[settings.ecs]"
            && let Some((key, value)) = line.split_once('=')
            && key.trim() == "cluster"
        {
            lines.push(format!("ECS_CLUSTER={}", value.trim()));
        }
    }
    parse(&lines.join("\n"))
}

/// `ECS_KEY=VALUE` of a line such as `echo "ECS_CLUSTER=web" >> /etc/ecs/ecs.config`.
fn assignment(line: &str) -> Option<String> {
    let start = line.find("ECS_")?;
    let before = line.get(..start)?.trim_end();
    if before.starts_with('#') {
        return None;
    }
    let rest = line.get(start..)?;
    let (key, _) = rest.split_once('=')?;
    if !key.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_') {
        return None;
    }
    let quote = before.chars().last().filter(|c| ['"', '\''].contains(c));
    let written = match quote {
        Some(quote) => quoted(rest, quote),
        None => rest.split(" >").next().unwrap_or(rest).to_owned(),
    };
    Some(written.trim().to_owned())
}

/// The text up to a closing quote, with what a backslash keeps.
fn quoted(text: &str, quote: char) -> String {
    let mut written = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if quote == '"' => written.extend(chars.next()),
            c if c == quote => break,
            c => written.push(c),
        }
    }
    written
}

fn parse(text: &str) -> Result<EcsConfig, String> {
    let mut config = EcsConfig::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (key, value) = line.split_once('=').ok_or_else(|| format!("'{line}' is not KEY=VALUE"))?;
        let value = value.trim().trim_matches(['"', '\'']);
        let wrong = |what: &str| format!("{key} must be {what}, and is {value}");
        match key.trim() {
            "ECS_CLUSTER" => config.cluster = Some(value.to_owned()),
            "ECS_AVAILABILITY_ZONE" => config.availability_zone = Some(value.to_owned()),
            "ECS_INSTANCE_ATTRIBUTES" => {
                config.attributes = json(value).ok_or_else(|| wrong("a JSON object of strings"))?;
            }
            "ECS_CONTAINER_INSTANCE_TAGS" => {
                config.tags = Tags(json(value).ok_or_else(|| wrong("a JSON object of strings"))?);
            }
            "ECS_RESERVED_MEMORY" => {
                config.reserved_memory = value.parse().map_err(|_| wrong("a number of MiB"))?;
            }
            "ECS_ENABLE_GPU_SUPPORT" => {
                config.gpu_support = value.parse().map_err(|_| wrong("true or false"))?;
            }
            "ECS_CONTAINER_STOP_TIMEOUT" => {
                let timeout = duration(value).filter(|timeout| STOP_TIMEOUTS.contains(timeout));
                config.stop_timeout =
                    Some(timeout.ok_or_else(|| wrong("a time from 1s to 24h, such as 90s or 1m30s"))?);
            }
            "ECS_RESERVED_PORTS" => {
                reserve(&mut config, Protocol::Tcp, value).ok_or_else(|| wrong("a JSON list of ports"))?
            }
            "ECS_RESERVED_PORTS_UDP" => {
                reserve(&mut config, Protocol::Udp, value).ok_or_else(|| wrong("a JSON list of ports"))?;
            }
            other => config.unused.push(other.to_owned()),
        }
    }
    Ok(config)
}

fn json<T: serde::de::DeserializeOwned>(value: &str) -> Option<T> {
    serde_json::from_str(value).ok()
}

/// A time as Go writes it: `90s`, `10m`, `1h30m`.
fn duration(text: &str) -> Option<Duration> {
    let mut left = text;
    let mut seconds = 0u64;
    while !left.is_empty() {
        let end = left.find(|c: char| !c.is_ascii_digit())?;
        let (number, rest) = left.split_at(end);
        let unit = match rest.chars().next()? {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        left = rest.get(1..)?;
    }
    (!text.is_empty()).then(|| Duration::from_secs(seconds))
}

fn reserve(config: &mut EcsConfig, protocol: Protocol, value: &str) -> Option<()> {
    let ports: Vec<u16> = json(value)?;
    config.reserved_ports.extend(ports.into_iter().map(|port| (protocol, port)));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_effect_or_are_named() {
        let text = r#"
            # as user data writes it
            ECS_CLUSTER=production-cluster
            ECS_ENABLE_TASK_IAM_ROLE=true
            ECS_INSTANCE_ATTRIBUTES={"disk": "ssd"}
            ECS_CONTAINER_INSTANCE_TAGS={"team": "payments"}
            ECS_RESERVED_MEMORY=256
            ECS_CONTAINER_STOP_TIMEOUT=1m30s
            ECS_ENABLE_GPU_SUPPORT=true
            ECS_RESERVED_PORTS=[22, 2376]
            ECS_RESERVED_PORTS_UDP=[53]
            ECS_AVAILABILITY_ZONE="us-east-1b"
        "#;
        let read = parse(text).unwrap();
        assert_eq!(read.cluster.as_deref(), Some("production-cluster"));
        assert_eq!(read.attributes.get("disk").map(String::as_str), Some("ssd"));
        assert_eq!(read.tags.0.get("team").map(String::as_str), Some("payments"));
        let ports = [(Protocol::Tcp, 22), (Protocol::Tcp, 2376), (Protocol::Udp, 53)];
        assert_eq!((read.reserved_memory, read.reserved_ports), (256, ports.to_vec()));
        assert!(read.gpu_support);
        assert_eq!(read.stop_timeout, Some(Duration::from_secs(90)));
        assert_eq!(read.availability_zone.as_deref(), Some("us-east-1b"));
        assert_eq!(read.unused, ["ECS_ENABLE_TASK_IAM_ROLE"]);
    }

    #[test]
    fn user_data_says_what_it_writes() {
        let cluster = |text: &str| of_user_data(text).unwrap().cluster.unwrap_or_default();
        assert_eq!(cluster("#!/bin/bash\necho \"ECS_CLUSTER=web\" >> /etc/ecs/ecs.config\n"), "web");
        assert_eq!(cluster("#!/bin/bash\necho ECS_CLUSTER=web >> /etc/ecs/ecs.config"), "web");
        assert_eq!(cluster("echo 'ECS_CLUSTER=web' >>/etc/ecs/ecs.config"), "web");
        assert_eq!(
            cluster("cat <<'EOF' >> /etc/ecs/ecs.config\nECS_CLUSTER=web\nECS_LOGLEVEL=debug\nEOF"),
            "web"
        );
        assert_eq!(cluster("#cloud-config\nwrite_files:\n- content: |\n    ECS_CLUSTER=web\n"), "web");
        assert_eq!(cluster("[settings.host-containers]\n[settings.ecs]\ncluster = \"web\"\n"), "web");
        assert_eq!(cluster("# ECS_CLUSTER=other\nyum update -y\n"), "");
        let attributes = r#"echo "ECS_INSTANCE_ATTRIBUTES={\"disk\": \"ssd\"}" >> /etc/ecs/ecs.config"#;
        let read = of_user_data(attributes).unwrap();
        assert_eq!(read.attributes.get("disk").map(String::as_str), Some("ssd"));
        let attributes = r#"echo ECS_INSTANCE_ATTRIBUTES='{"disk": "ssd"}' >> /etc/ecs/ecs.config"#;
        assert_eq!(of_user_data(attributes).unwrap(), read);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in [
            "ECS_CLUSTER",
            "ECS_RESERVED_MEMORY=much",
            "ECS_RESERVED_PORTS=[70000]",
            "ECS_INSTANCE_ATTRIBUTES={",
            "ECS_ENABLE_GPU_SUPPORT=perhaps",
            "ECS_CONTAINER_STOP_TIMEOUT=",
            "ECS_CONTAINER_STOP_TIMEOUT=30",
            "ECS_CONTAINER_STOP_TIMEOUT=0s",
            "ECS_CONTAINER_STOP_TIMEOUT=99999999999999999999h",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
