//! Cookies that keep a client with a group and with a target. Invariant: a cookie is a wish: a target that is given no
//! requests is not asked for it, and what a client made up chooses nothing that the rules do not.
//!
//! Follows <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-target-group-attributes.html>.

use http::HeaderMap;
use http::header::{COOKIE, HeaderValue, SET_COOKIE};
use longshore_model::Timestamp;
use longshore_model::elb::TargetGroup;
use std::time::{Duration, UNIX_EPOCH};

/// Names the target, where the load balancer makes the cookie.
const TARGET: &str = "AWSALB";
/// The same for requests from pages of other sites.
const TARGET_CORS: &str = "AWSALBCORS";
/// Names the target, beside a cookie of the application's.
const BESIDE: &str = "AWSALBAPP-0";
/// Names the target group.
const GROUP: &str = "AWSALBTG";
const GROUP_CORS: &str = "AWSALBTGCORS";

/// How a group keeps clients with targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeping {
    ByOwnCookie {
        seconds: u32,
    },
    /// For as long as the target's cookie of this name lives.
    ByCookieOf {
        name: String,
        seconds: u32,
    },
}

impl Keeping {
    /// `None` where each request is on its own.
    pub fn of(group: &TargetGroup) -> Option<Self> {
        if group.attribute("stickiness.enabled") != Some("true") {
            return None;
        }
        let seconds = |attribute: &str| group.attribute(attribute).and_then(|text| text.parse().ok());
        Some(match group.attribute("stickiness.type") {
            Some("app_cookie") => Self::ByCookieOf {
                name: group.attribute("stickiness.app_cookie.cookie_name").unwrap_or_default().to_owned(),
                seconds: seconds("stickiness.app_cookie.duration_seconds").unwrap_or(86400),
            },
            _ => Self::ByOwnCookie {
                seconds: seconds("stickiness.lb_cookie.duration_seconds").unwrap_or(86400),
            },
        })
    }

    /// The target that a request asks for.
    pub fn wish(&self, headers: &HeaderMap, now: Timestamp) -> Option<u64> {
        match self {
            Self::ByOwnCookie { .. } => {
                wished(headers, TARGET, now).or_else(|| wished(headers, TARGET_CORS, now))
            }
            Self::ByCookieOf { name, .. } => cookie(headers, name).and_then(|_| wished(headers, BESIDE, now)),
        }
    }

    /// Has the client come back to the target that has answered.
    pub fn keep(&self, answer: &mut HeaderMap, target: u64, now: Timestamp) {
        match self {
            Self::ByOwnCookie { seconds } => set(answer, [TARGET, TARGET_CORS], target, *seconds, now),
            Self::ByCookieOf { name, seconds } => {
                let sets = |value: &HeaderValue| {
                    value
                        .to_str()
                        .is_ok_and(|text| text.split_once('=').is_some_and(|(n, _)| n.trim() == name))
                };
                if answer.get_all(SET_COOKIE).iter().any(sets) {
                    set(answer, [BESIDE, ""], target, *seconds, now);
                }
            }
        }
    }
}

/// The group that a request asks for.
pub fn wished_group(headers: &HeaderMap, now: Timestamp) -> Option<u64> {
    wished(headers, GROUP, now).or_else(|| wished(headers, GROUP_CORS, now))
}

/// Has the client come back to a group.
pub fn keep_group(answer: &mut HeaderMap, group: u64, seconds: u32, now: Timestamp) {
    set(answer, [GROUP, GROUP_CORS], group, seconds, now);
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let texts = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(given, _)| *given == name).map(|(_, value)| value)
}

/// What a cookie of ours names, until the second that it says.
fn wished(headers: &HeaderMap, name: &str, now: Timestamp) -> Option<u64> {
    let (mark, until) = cookie(headers, name)?.split_once('-')?;
    let until = i64::from_str_radix(until, 16).ok()?;
    (until > now.millis() / 1000).then(|| u64::from_str_radix(mark, 16).ok()).flatten()
}

/// The second name is for requests from other sites; empty for none.
fn set(answer: &mut HeaderMap, names: [&str; 2], mark: u64, seconds: u32, now: Timestamp) {
    let until = now.plus_millis(i64::from(seconds) * 1000).millis() / 1000;
    let expires = UNIX_EPOCH + Duration::from_secs(u64::try_from(until).unwrap_or_default());
    let expires = httpdate::fmt_http_date(expires);
    for (name, more) in names.into_iter().zip(["", "; SameSite=None"]).filter(|(name, _)| !name.is_empty()) {
        let text = format!("{name}={mark:016x}-{until:x}; Expires={expires}; Path=/{more}");
        if let Ok(value) = HeaderValue::from_str(&text) {
            answer.append(SET_COOKIE, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn sent_back(answer: &HeaderMap) -> HeaderMap {
        let pairs =
            answer.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().unwrap().split(';').next());
        let cookies = pairs.collect::<Vec<_>>().join("; ");
        [(COOKIE, HeaderValue::from_str(&cookies).unwrap())].into_iter().collect()
    }

    #[test]
    fn a_client_comes_back_until_the_time_is_over() {
        let keeping = Keeping::ByOwnCookie { seconds: 60 };
        let mut answer = HeaderMap::new();
        keeping.keep(&mut answer, 0xabc, NOW);
        let names: Vec<_> =
            answer.get_all(SET_COOKIE).iter().map(|v| v.to_str().unwrap().to_owned()).collect();
        assert!(names[0].starts_with("AWSALB=0000000000000abc-"), "{names:?}");
        assert!(
            names[0].contains("Expires=Tue, 14 Nov 2023 22:14:20 GMT") && names[1].contains("SameSite=None")
        );
        let request = sent_back(&answer);
        assert_eq!(keeping.wish(&request, NOW), Some(0xabc));
        assert_eq!(keeping.wish(&request, NOW.plus_millis(60_000)), None);
    }

    #[test]
    fn a_cookie_of_the_application_is_followed_where_it_is_set() {
        let keeping = Keeping::ByCookieOf { name: "sid".to_owned(), seconds: 60 };
        let mut answer = HeaderMap::new();
        keeping.keep(&mut answer, 7, NOW);
        assert!(answer.is_empty());
        answer.append(SET_COOKIE, HeaderValue::from_static("sid=1; Path=/"));
        keeping.keep(&mut answer, 7, NOW);
        assert_eq!(keeping.wish(&sent_back(&answer), NOW), Some(7));
    }

    #[test]
    fn what_a_client_makes_up_is_no_wish() {
        let keeping = Keeping::ByOwnCookie { seconds: 60 };
        for text in ["AWSALB=", "AWSALB=x-y", "AWSALB=1", "AWSALB=-;", "=", "AWSALBX=1-ffffffffff"] {
            let request = [(COOKIE, HeaderValue::from_str(text).unwrap())].into_iter().collect();
            assert_eq!(keeping.wish(&request, NOW), None, "{text}");
        }
    }
}
