//! What a load balancer changes in headers.
//!
//! Follows <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/x-forwarded-headers.html>.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use longshore_model::Timestamp;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const TRACE: HeaderName = HeaderName::from_static("x-amzn-trace-id");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What is done with `X-Forwarded-For`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedFor {
    Append,
    Preserve,
    Remove,
}

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub client: IpAddr,
    /// The listener's port.
    pub port: u16,
    pub protocol: &'static str,
}

/// Whether both ends want to speak another protocol on this connection.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
        && headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade")))
}

/// Takes away what concerns one connection only (RFC 9110, 7.6.1); an upgrade's headers stay.
pub fn strip(headers: &mut HeaderMap, keeps_upgrade: bool) {
    let upgrade = headers.get(header::UPGRADE).filter(|_| keeps_upgrade).cloned();
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(header::UPGRADE, upgrade);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// HTTP/2 may send a cookie's parts as headers of their own, which HTTP/1.1 has in one (RFC 9113, 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    let parts: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if parts.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&parts.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}

/// Has the host's header say the listener's port, where it is not the one that is meant when none is said.
pub fn name_port(headers: &mut HeaderMap, port: u16) {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let is_bare = |host: &&str| !host.rsplit(']').next().unwrap_or_default().contains(':');
    if !matches!(port, 80 | 443)
        && let Some(host) = host.filter(is_bare)
        && let Ok(named) = HeaderValue::from_str(&format!("{host}:{port}"))
    {
        headers.insert(header::HOST, named);
    }
}

/// Takes away headers that programs read in different ways.
pub fn drop_invalid(headers: &mut HeaderMap) {
    let is_plain =
        |name: &HeaderName| name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let invalid: Vec<HeaderName> = headers.keys().filter(|name| !is_plain(name)).cloned().collect();
    for name in invalid {
        headers.remove(name);
    }
}

/// Says to the target where a request came from.
pub fn forward(headers: &mut HeaderMap, origin: Origin, mode: ForwardedFor, now: Timestamp) {
    match mode {
        ForwardedFor::Append => append_client(headers, origin.client),
        ForwardedFor::Preserve => {}
        ForwardedFor::Remove => {
            headers.remove(FORWARDED_FOR);
        }
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(origin.protocol));
    headers.insert(FORWARDED_PORT, HeaderValue::from(origin.port));
    if !headers.contains_key(TRACE)
        && let Ok(trace) = HeaderValue::from_str(&trace_id(now))
    {
        headers.insert(TRACE, trace);
    }
}

fn append_client(headers: &mut HeaderMap, client: IpAddr) {
    let client = client.to_canonical().to_string();
    let before: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    let value = if before.is_empty() { client } else { format!("{}, {client}", before.join(", ")) };
    if let Ok(value) = HeaderValue::from_str(&value) {
        headers.insert(FORWARDED_FOR, value);
    }
}

/// Such as `Root=1-67891233-abcdef012345678912345678`: the second, and 24 digits that no other request has.
fn trace_id(now: Timestamp) -> String {
    static START: OnceLock<u64> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let start = START.get_or_init(|| {
        let mut bytes = [0; 8];
        // Without chance the number of the process is not told apart from others', and nothing depends on it.
        let _ = getrandom::fill(&mut bytes);
        u64::from_ne_bytes(bytes)
    });
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let (second, start) = (now.millis() / 1000, start & 0xffff_ffff_ffff);
    format!("Root=1-{second:08x}-{start:012x}{:012x}", number & 0xffff_ffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    fn shown(headers: &HeaderMap) -> Vec<String> {
        let mut shown: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        shown.sort();
        shown
    }

    #[test]
    fn what_concerns_one_connection_stays_behind() {
        let mut given = headers(&[
            ("connection", "close, x-secret"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ]);
        strip(&mut given, false);
        assert_eq!(shown(&given), ["accept: */*", "te: trailers"]);
    }

    #[test]
    fn a_host_has_the_port_of_its_listener() {
        for (host, port, expected) in [
            ("example.com", 8080, "example.com:8080"),
            ("example.com", 443, "example.com"),
            ("example.com:81", 8080, "example.com:81"),
            ("[::1]", 8080, "[::1]:8080"),
            ("[::1]:9", 8080, "[::1]:9"),
        ] {
            let mut given = headers(&[("host", host)]);
            name_port(&mut given, port);
            assert_eq!(given["host"], expected);
        }
    }

    #[test]
    fn parts_of_a_cookie_are_joined() {
        let mut given = HeaderMap::new();
        for part in ["a=1", "b=2"] {
            given.append("cookie", HeaderValue::from_static(part));
        }
        join_cookies(&mut given);
        assert_eq!(shown(&given), ["cookie: a=1; b=2"]);
    }

    #[test]
    fn an_upgrade_is_passed_on() {
        let mut given = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        assert!(is_upgrade(&given));
        strip(&mut given, true);
        assert_eq!(shown(&given), ["connection: upgrade", "upgrade: websocket"]);
        assert!(!is_upgrade(&headers(&[("upgrade", "h2c")])));
    }

    #[test]
    fn the_target_is_told_of_the_client() {
        let origin = Origin { client: [10, 0, 0, 7].into(), port: 80, protocol: "http" };
        let told = |before: &[(&'static str, &'static str)], mode| {
            let mut given = headers(before);
            forward(&mut given, origin, mode, Timestamp(1_700_000_000_000));
            given.get(FORWARDED_FOR).map(|value| value.to_str().unwrap().to_owned())
        };
        let before = [("x-forwarded-for", "1.2.3.4")];
        assert_eq!(told(&[], ForwardedFor::Append).as_deref(), Some("10.0.0.7"));
        assert_eq!(told(&before, ForwardedFor::Append).as_deref(), Some("1.2.3.4, 10.0.0.7"));
        assert_eq!(told(&before, ForwardedFor::Preserve).as_deref(), Some("1.2.3.4"));
        assert_eq!(told(&before, ForwardedFor::Remove), None);
    }

    #[test]
    fn each_request_has_a_trace_of_its_own() {
        let (one, other) = (trace_id(Timestamp(0)), trace_id(Timestamp(0)));
        assert_ne!(one, other);
        assert_eq!(one.len(), "Root=1-67891233-abcdef012345678912345678".len());
    }
}
