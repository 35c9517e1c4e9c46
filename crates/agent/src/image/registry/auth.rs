//! How a registry asks who is there, and what is shown to it.

use std::{fmt::Write, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::header::HeaderValue;
use serde::Deserialize;

use crate::image::Credentials;

/// What the `Authorization` header says, and for how long.
#[derive(Clone)]
pub(super) struct Grant {
    pub header: HeaderValue,
    pub lifetime: Duration,
}

/// What `WWW-Authenticate` asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Bearer(Bearer),
    Basic,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Bearer {
    pub realm: String,
    pub service: Option<String>,
    pub scope: Option<String>,
}

impl Grant {
    pub fn basic(credentials: &Credentials) -> Self {
        let pair = format!("{}:{}", credentials.username, credentials.password);
        Self {
            header: secret(&format!("Basic {}", STANDARD.encode(pair))),
            lifetime: Duration::from_secs(3600),
        }
    }
}

impl Challenge {
    /// A token is asked for where it is offered.
    pub fn strongest<'a>(headers: impl IntoIterator<Item = &'a HeaderValue>) -> Option<Self> {
        let all = headers.into_iter().filter_map(|value| parse(value.to_str().ok()?));
        all.reduce(|best, next| if matches!(best, Self::Bearer(_)) { best } else { next })
    }
}

impl Bearer {
    /// Where the token for `repository` is.
    pub fn uri(&self, repository: &str) -> String {
        let mut uri = self.realm.clone();
        let mut separator = if uri.contains('?') { '&' } else { '?' };
        let wanted = format!("repository:{repository}:pull");
        let scope = self.scope.as_deref().unwrap_or(&wanted);
        for (name, value) in [("service", self.service.as_deref()), ("scope", Some(scope))] {
            if let Some(value) = value {
                let _ = write!(uri, "{separator}{name}={}", escape(value));
                separator = '&';
            }
        }
        uri
    }
}

/// The answer of a token server.
pub(super) fn read_token(bytes: &[u8]) -> Option<Grant> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<u64>,
    }
    /// What servers mean when they do not say.
    const DEFAULT: u64 = 60;
    let answer: Answer = serde_json::from_slice(bytes).ok()?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty())?;
    // Short of the end, for the way takes time too.
    let seconds = answer.expires_in.unwrap_or(DEFAULT).clamp(10, 86_400) - 5;
    Some(Grant { header: secret(&format!("Bearer {token}")), lifetime: Duration::from_secs(seconds) })
}

/// `Scheme name="value",name="value"`
fn parse(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut bearer = Bearer::default();
    for (name, value) in parameters(rest) {
        match name.to_ascii_lowercase().as_str() {
            "realm" => bearer.realm = value,
            "service" => bearer.service = Some(value),
            "scope" => bearer.scope = Some(value),
            _ => {}
        }
    }
    (!bearer.realm.is_empty()).then_some(Challenge::Bearer(bearer))
}

/// Values may be quoted, and commas stand inside quotes: `scope="repository:a:pull,push"`.
fn parameters(text: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',']);
    while let Some((name, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        found.push((name.trim(), value.trim().to_owned()));
        rest = next.trim_start_matches([' ', ',']);
    }
    found
}

/// A header that is kept out of logs. What cannot be sent becomes empty and so is refused.
fn secret(text: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~:/".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[&'static str]) -> Option<Challenge> {
        let values: Vec<HeaderValue> = headers.iter().map(|text| HeaderValue::from_static(text)).collect();
        Challenge::strongest(&values)
    }

    #[test]
    fn challenges_are_read() {
        let header = r#"Bearer realm="https://auth.example/token",service="my registry",scope="repository:a/b:pull,push""#;
        let Some(Challenge::Bearer(bearer)) = read(&[r#"Basic realm="x""#, header]) else {
            panic!("no bearer challenge was read")
        };
        assert_eq!(
            bearer.uri("a/b"),
            "https://auth.example/token?service=my%20registry&scope=repository:a/b:pull%2Cpush"
        );
        assert_eq!(read(&["basic"]), Some(Challenge::Basic));
        assert_eq!(read(&["Bearer", "Negotiate x"]), None);
    }

    #[test]
    fn the_scope_is_completed() {
        let bearer = Bearer { realm: "http://127.0.0.1:1/t?x=1".into(), ..Bearer::default() };
        assert_eq!(bearer.uri("a/b"), "http://127.0.0.1:1/t?x=1&scope=repository:a/b:pull");
    }

    #[test]
    fn tokens_are_read_under_both_names() {
        let header = |json: &str| read_token(json.as_bytes()).map(|g| g.header.to_str().unwrap().to_owned());
        assert_eq!(header(r#"{"token":"a"}"#).as_deref(), Some("Bearer a"));
        assert_eq!(header(r#"{"access_token":"b","expires_in":0}"#).as_deref(), Some("Bearer b"));
        assert_eq!(header(r#"{"token":""}"#), None);
    }
}
