//! Which of a listener's rules a request follows. Invariant: the rule of the lowest number whose conditions all hold, else
//! the default.
//!
//! Follows <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/rule-condition-types.html>.

use longshore_model::elb::{Condition, Pair, Redirect};
use std::net::IpAddr;

/// What rules ask of a request.
pub trait Request {
    /// Without the port.
    fn host(&self) -> &str;
    fn path(&self) -> &str;
    fn query(&self) -> &str;
    fn method(&self) -> &str;
    fn source(&self) -> IpAddr;
    /// Whether one of the header's values is so.
    fn any_header(&self, name: &str, is_so: &dyn Fn(&str) -> bool) -> bool;
}

pub fn meets(request: &dyn Request, conditions: &[Condition]) -> bool {
    conditions.iter().all(|condition| holds(request, condition))
}

fn holds(request: &dyn Request, condition: &Condition) -> bool {
    match condition {
        Condition::HostHeader(hosts) => hosts.iter().any(|host| like_ignoring_case(host, request.host())),
        Condition::PathPattern(paths) => paths.iter().any(|path| like(path, request.path())),
        Condition::HttpHeader { name, values } => {
            request.any_header(name, &|given| values.iter().any(|value| like_ignoring_case(value, given)))
        }
        Condition::HttpRequestMethod(methods) => methods.iter().any(|method| method == request.method()),
        Condition::QueryString(pairs) => pairs.iter().any(|pair| in_query(pair, request.query())),
        Condition::SourceIp(blocks) => match request.source().to_canonical() {
            IpAddr::V4(source) => blocks.iter().any(|block| block.contains(source)),
            IpAddr::V6(_) => false,
        },
    }
}

fn in_query(pair: &Pair, query: &str) -> bool {
    query.split('&').any(|part| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        match &pair.key {
            Some(wanted) => like_ignoring_case(wanted, key) && like_ignoring_case(&pair.value, value),
            None => like_ignoring_case(&pair.value, value) || like_ignoring_case(&pair.value, key),
        }
    })
}

/// `*` stands for any text, `?` for any one letter, and a backslash makes the next letter stand for itself.
fn like(pattern: &str, text: &str) -> bool {
    matches(pattern.as_bytes(), text.as_bytes(), |a, b| a == b)
}

fn like_ignoring_case(pattern: &str, text: &str) -> bool {
    matches(pattern.as_bytes(), text.as_bytes(), |a, b| a.eq_ignore_ascii_case(&b))
}

/// In time that grows with the product of the lengths and no faster: on a mismatch only the last `*` takes a letter more.
fn matches(pattern: &[u8], text: &[u8], same: impl Fn(u8, u8) -> bool) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(letter) = text.get(t) {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(b'?') => 1,
            Some(b'\\') if pattern.get(p + 1).is_some_and(|next| same(*next, *letter)) => 2,
            Some(other) if *other != b'\\' && same(*other, *letter) => 1,
            _ => 0,
        };
        match (step, star) {
            (0, None) => return false,
            (0, Some((after, from))) => {
                star = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
            (step, _) => (p, t) = (p + step, t + 1),
        }
    }
    pattern.get(p..).is_none_or(|rest| rest.iter().all(|letter| *letter == b'*'))
}

/// What of a request a redirect may keep.
#[derive(Clone, Copy, Debug)]
pub struct Came<'a> {
    pub protocol: &'a str,
    pub host: &'a str,
    pub port: u16,
    pub path: &'a str,
    pub query: &'a str,
}

/// The `Location` that a request is sent to.
pub fn location(redirect: &Redirect, came: Came<'_>) -> String {
    let port = came.port.to_string();
    let path = came.path.strip_prefix('/').unwrap_or(came.path);
    let fill = |text: &str| {
        text.replace("#{protocol}", came.protocol)
            .replace("#{host}", came.host)
            .replace("#{port}", &port)
            .replace("#{path}", path)
            .replace("#{query}", came.query)
    };
    let (protocol, port) = (fill(&redirect.protocol).to_ascii_lowercase(), fill(&redirect.port));
    let mut location = format!("{protocol}://{}", fill(&redirect.host));
    if !matches!((protocol.as_str(), port.as_str()), ("http", "80") | ("https", "443")) {
        location.extend([":", port.as_str()]);
    }
    let path = fill(&redirect.path);
    if !path.starts_with('/') {
        location.push('/');
    }
    location.push_str(&path);
    let query = fill(&redirect.query);
    if !query.is_empty() {
        location.extend(["?", query.as_str()]);
    }
    location
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Asked {
        host: &'static str,
        path: &'static str,
        query: &'static str,
        header: (&'static str, &'static str),
    }

    const ASKED: Asked = Asked {
        host: "api.example.com",
        path: "/img/cat.png",
        query: "version=v2&flag",
        header: ("user-agent", "Mozilla/5.0 Chrome/1"),
    };

    impl Request for Asked {
        fn host(&self) -> &str {
            self.host
        }
        fn path(&self) -> &str {
            self.path
        }
        fn query(&self) -> &str {
            self.query
        }
        fn method(&self) -> &str {
            "GET"
        }
        fn source(&self) -> IpAddr {
            IpAddr::from([10, 1, 2, 3])
        }
        fn any_header(&self, name: &str, is_so: &dyn Fn(&str) -> bool) -> bool {
            name.eq_ignore_ascii_case(self.header.0) && is_so(self.header.1)
        }
    }

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[track_caller]
    fn check(condition: Condition, expected: bool) {
        assert_eq!(meets(&ASKED, std::slice::from_ref(&condition)), expected, "{condition:?}");
    }

    fn pair(key: Option<&str>, value: &str) -> Condition {
        Condition::QueryString(vec![Pair { key: key.map(str::to_owned), value: value.to_owned() }])
    }

    #[test]
    fn each_condition_asks_its_part_of_the_request() {
        check(Condition::HostHeader(texts(&["*.EXAMPLE.com"])), true);
        check(Condition::HostHeader(texts(&["example.com", "www.example.com"])), false);
        check(Condition::PathPattern(texts(&["/img/*.png"])), true);
        check(Condition::PathPattern(texts(&["/IMG/*"])), false);
        check(Condition::PathPattern(texts(&["/img"])), false);
        let agent =
            |value: &str| Condition::HttpHeader { name: "User-Agent".into(), values: texts(&[value]) };
        check(agent("*chrome*"), true);
        check(agent("*safari*"), false);
        check(Condition::HttpRequestMethod(texts(&["GET", "HEAD"])), true);
        check(Condition::HttpRequestMethod(texts(&["get"])), false);
        check(pair(Some("version"), "v?"), true);
        check(pair(Some("version"), "v1"), false);
        check(pair(None, "flag"), true);
        check(Condition::SourceIp(vec!["10.0.0.0/8".parse().unwrap()]), true);
        check(Condition::SourceIp(vec!["10.2.0.0/16".parse().unwrap()]), false);
    }

    #[test]
    fn wildcards() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-", false),
            ("?", "a", true),
            ("?", "", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("*/x/*", "/x/y", true),
        ] {
            assert_eq!(like(pattern, text), expected, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_matches_itself(text in "[a-z/.]{0,20}", tail in "[a-z]{0,5}") {
            prop_assert!(like(&text, &text));
            let (with_star, with_tail) = (format!("{text}*"), format!("{text}{tail}"));
            prop_assert!(like(&with_star, &with_tail));
            let ahead = format!("*{tail}");
            prop_assert!(like(&ahead, &with_tail));
        }
    }

    #[test]
    fn a_redirect_keeps_what_it_names() {
        let came = Came { protocol: "http", host: "a.com", port: 80, path: "/x/y", query: "q=1" };
        let to = |protocol: &str, port: &str, path: &str, query: &str| {
            let text = str::to_owned;
            let redirect = Redirect {
                protocol: text(protocol),
                host: text("#{host}"),
                port: text(port),
                path: text(path),
                query: text(query),
                status: 301,
            };
            location(&redirect, came)
        };
        assert_eq!(to("HTTPS", "443", "/#{path}", "#{query}"), "https://a.com/x/y?q=1");
        assert_eq!(to("#{protocol}", "8080", "/new/#{path}", ""), "http://a.com:8080/new/x/y");
    }
}
