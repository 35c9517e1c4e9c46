//! Health checks. Invariant: a check is one that its group's protocol has, with every number in AWS's bounds.
//! Follows <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/target-group-health-checks.html>.

use super::super::invalid;
use super::protocol_name as group_protocol_name;
use longshore_elbv2 as elb;
use longshore_model::elb::{GroupProtocol, HealthCheck, HealthCheckProtocol, Matcher, ProtocolVersion};
use longshore_wire::Fault;

/// What a request says of a health check.
#[derive(Clone, Default)]
pub struct Given {
    pub enabled: Option<bool>,
    pub interval: Option<i32>,
    pub path: Option<String>,
    pub port: Option<String>,
    pub protocol: Option<elb::ProtocolEnum>,
    pub timeout: Option<i32>,
    pub healthy_threshold: Option<i32>,
    pub unhealthy_threshold: Option<i32>,
    pub matcher: Option<elb::Matcher>,
}

const TRAFFIC_PORT: &str = "traffic-port";
const GRPC_PATH: &str = "/AWS.ALB/healthcheck";

pub fn of_new(group: GroupProtocol, version: ProtocolVersion, given: Given) -> Result<HealthCheck, Fault> {
    let own = if group.is_application() { HealthCheckProtocol::Http } else { HealthCheckProtocol::Tcp };
    let protocol = given.protocol.map(|given| parse_protocol(group, given)).transpose()?.unwrap_or(own);
    let check = HealthCheck {
        enabled: true,
        protocol,
        port: None,
        path: path_of(protocol, version),
        interval: 30,
        timeout: timeout_of(group, protocol),
        healthy_threshold: 5,
        unhealthy_threshold: 2,
        matcher: matcher_of(group, protocol, version),
    };
    changed(check, group, version, given)
}

/// A check with what is given put over it.
pub fn changed(
    mut check: HealthCheck,
    group: GroupProtocol,
    version: ProtocolVersion,
    given: Given,
) -> Result<HealthCheck, Fault> {
    let Given {
        enabled,
        interval,
        path,
        port,
        protocol,
        timeout,
        healthy_threshold,
        unhealthy_threshold,
        matcher,
    } = given;
    if enabled == Some(false) {
        return Err(invalid(
            "Health check enabled must be true for target groups with target type 'instance' or 'ip'",
        ));
    }
    if let Some(protocol) = protocol.map(|given| parse_protocol(group, given)).transpose()?
        && protocol != check.protocol
    {
        if (protocol == HealthCheckProtocol::Tcp) != (check.protocol == HealthCheckProtocol::Tcp) {
            check.path = path_of(protocol, version);
            check.matcher = matcher_of(group, protocol, version);
        }
        check.protocol = protocol;
    }
    if let Some(path) = path.filter(|path| !path.is_empty()) {
        check.path = Some(parse_path(check.protocol, path)?);
    }
    if let Some(port) = port.filter(|port| !port.is_empty()) {
        check.port = parse_port(&port)?;
    }
    let number = |given: Option<i32>, present: u32| {
        given.and_then(|given| u32::try_from(given).ok()).unwrap_or(present)
    };
    check.interval = number(interval, check.interval);
    check.timeout = number(timeout, check.timeout);
    check.healthy_threshold = number(healthy_threshold, check.healthy_threshold);
    check.unhealthy_threshold = number(unhealthy_threshold, check.unhealthy_threshold);
    check_times(&check, group)?;
    if let Some(matcher) = matcher.and_then(given_codes) {
        check.matcher = Some(parse_matcher(check.protocol, group, version, matcher)?);
    }
    Ok(check)
}

/// The protocols that no health check speaks.
pub fn refuse_protocol(given: Option<elb::ProtocolEnum>) -> Result<(), Fault> {
    match given {
        None | Some(elb::ProtocolEnum::Http | elb::ProtocolEnum::Https | elb::ProtocolEnum::Tcp) => Ok(()),
        Some(other) => {
            Err(invalid(format!("Health check protocol '{}' must be one of 'HTTP, HTTPS, TCP'", other)))
        }
    }
}

fn parse_protocol(group: GroupProtocol, given: elb::ProtocolEnum) -> Result<HealthCheckProtocol, Fault> {
    refuse_protocol(Some(given))?;
    match given {
        elb::ProtocolEnum::Https => Ok(HealthCheckProtocol::Https),
        elb::ProtocolEnum::Tcp if group.is_application() => Err(invalid(format!(
            "Health check protocol 'TCP' is not supported for target groups with the protocol '{}'",
            group_protocol_name(group)
        ))),
        elb::ProtocolEnum::Tcp => Ok(HealthCheckProtocol::Tcp),
        _ => Ok(HealthCheckProtocol::Http),
    }
}

fn path_of(protocol: HealthCheckProtocol, version: ProtocolVersion) -> Option<String> {
    let path = if version == ProtocolVersion::Grpc { GRPC_PATH } else { "/" };
    (protocol != HealthCheckProtocol::Tcp).then(|| path.to_owned())
}

/// Seconds.
fn timeout_of(group: GroupProtocol, protocol: HealthCheckProtocol) -> u32 {
    match protocol {
        _ if group.is_application() => 5,
        HealthCheckProtocol::Http => 6,
        HealthCheckProtocol::Https | HealthCheckProtocol::Tcp => 10,
    }
}

fn matcher_of(
    group: GroupProtocol,
    protocol: HealthCheckProtocol,
    version: ProtocolVersion,
) -> Option<Matcher> {
    let matcher = match group.is_application() {
        true if version == ProtocolVersion::Grpc => Matcher::Grpc("12".to_owned()),
        true => Matcher::Http("200".to_owned()),
        false => Matcher::Http("200-399".to_owned()),
    };
    (protocol != HealthCheckProtocol::Tcp).then_some(matcher)
}

fn parse_path(protocol: HealthCheckProtocol, path: String) -> Result<String, Fault> {
    if protocol == HealthCheckProtocol::Tcp {
        return Err(invalid(
            "Health check path cannot be specified for health checks with the protocol 'TCP'",
        ));
    }
    if !path.starts_with('/') {
        return Err(invalid(format!("Health check path '{path}' must begin with a '/' character")));
    }
    if !path.chars().all(|c| c.is_ascii_graphic()) {
        return Err(invalid(format!("Health check path '{path}' contains invalid characters")));
    }
    Ok(path)
}

/// `None` is the port of the traffic.
fn parse_port(given: &str) -> Result<Option<u16>, Fault> {
    if given == TRAFFIC_PORT {
        return Ok(None);
    }
    let port = given.parse().ok().filter(|port: &u16| *port > 0);
    port.map(Some).ok_or_else(|| {
        invalid(format!("Health check port '{given}' must be '{TRAFFIC_PORT}' or in the range '1-65535'"))
    })
}

fn check_times(check: &HealthCheck, group: GroupProtocol) -> Result<(), Fault> {
    let (timeout, interval) = (check.timeout, check.interval);
    if group.is_application() && timeout >= interval {
        return Err(invalid(format!(
            "Health check timeout '{timeout}' must be smaller than the interval '{interval}'"
        )));
    }
    if timeout > interval {
        return Err(invalid(format!(
            "Health check timeout '{timeout}' must be smaller than or equal to the interval '{interval}'"
        )));
    }
    Ok(())
}

/// Clients send an empty text for what they leave out.
fn given_codes(given: elb::Matcher) -> Option<elb::Matcher> {
    let elb::Matcher { grpc_code, http_code } = given;
    let kept = |codes: Option<String>| codes.filter(|codes| !codes.is_empty());
    let given = elb::Matcher { grpc_code: kept(grpc_code), http_code: kept(http_code) };
    (given != elb::Matcher::default()).then_some(given)
}

fn parse_matcher(
    protocol: HealthCheckProtocol,
    group: GroupProtocol,
    version: ProtocolVersion,
    given: elb::Matcher,
) -> Result<Matcher, Fault> {
    if protocol == HealthCheckProtocol::Tcp {
        return Err(invalid(
            "Health check matcher cannot be specified for health checks with the protocol 'TCP'",
        ));
    }
    let most = if group.is_application() { 499 } else { 599 };
    match (version == ProtocolVersion::Grpc, given.grpc_code, given.http_code) {
        (true, Some(codes), None) => check_codes("GRPC", &codes, 0, 99).map(|()| Matcher::Grpc(codes)),
        (false, None, Some(codes)) => check_codes("HTTP", &codes, 200, most).map(|()| Matcher::Http(codes)),
        (true, _, _) => {
            Err(invalid("Health check matcher GRPC code must be specified for GRPC target groups"))
        }
        (false, _, _) => {
            Err(invalid("Health check matcher GRPC code can only be specified for GRPC target groups"))
        }
    }
}

/// `200`, `200,202` or `200-299`, inside the bounds.
fn check_codes(kind: &str, codes: &str, least: u16, most: u16) -> Result<(), Fault> {
    let is_code = |text: &str| {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|code| digits && (least..=most).contains(code))
    };
    let is_part = |part: &str| match part.split_once('-') {
        None => is_code(part).is_some(),
        Some((from, to)) => is_code(from).zip(is_code(to)).is_some_and(|(from, to)| from <= to),
    };
    if codes.split(',').all(is_part) {
        return Ok(());
    }
    Err(invalid(format!(
        "Health check matcher {kind} code '{codes}' must be within '{least}-{most}' inclusive"
    )))
}

pub fn protocol_name(protocol: HealthCheckProtocol) -> elb::ProtocolEnum {
    match protocol {
        HealthCheckProtocol::Http => elb::ProtocolEnum::Http,
        HealthCheckProtocol::Https => elb::ProtocolEnum::Https,
        HealthCheckProtocol::Tcp => elb::ProtocolEnum::Tcp,
    }
}

pub fn render_matcher(matcher: &Matcher) -> elb::Matcher {
    match matcher {
        Matcher::Http(codes) => elb::Matcher { http_code: Some(codes.clone()), grpc_code: None },
        Matcher::Grpc(codes) => elb::Matcher { grpc_code: Some(codes.clone()), http_code: None },
    }
}
