//! Signature Version 4, from the server's side: headers and presigned URLs.
//! Invariant: `verify` accepts a request only if its method, path, query, signed headers and body are those that the
//! holder of the secret signed within the allowed time. The clock and the keys are the caller's.

mod canonical;
mod problem;

pub use problem::Problem;

use hmac::{Hmac, Mac as _};
use http::HeaderMap;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::Timestamp;
use crate::protocol::Form;

pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// How far a client's clock may be from ours, in milliseconds.
const SKEW: i64 = 5 * 60 * 1000;
/// The longest life of a presigned URL, in seconds.
const LONGEST_LIFE: i64 = 7 * 24 * 60 * 60;

/// A request as it came over the wire: `path` and `query` are still encoded.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub query: &'a str,
    pub headers: &'a HeaderMap,
    /// The host where it is in no header, as in HTTP/2.
    pub authority: Option<&'a str>,
    pub body: &'a [u8],
}

/// What the signature is for, as the client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub access_key: String,
    pub date: String,
    pub region: String,
    pub service: String,
}

/// A signature and all that is needed to check it, read from the headers or the query string.
#[derive(Clone, PartialEq, Eq)]
pub struct Presented {
    pub scope: Scope,
    /// Temporary credentials carry one.
    pub session_token: Option<String>,
    time: Timestamp,
    /// Seconds, for a presigned URL.
    life: Option<i64>,
    signed_headers: String,
    signature: String,
}

impl std::fmt::Debug for Presented {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presented")
            .field("scope", &self.scope)
            .field("time", &self.time)
            .finish_non_exhaustive()
    }
}

/// Reads the signature that a request carries; nothing where it is not signed.
pub fn present(request: &Request<'_>) -> Result<Option<Presented>, Problem> {
    if let Some(authorization) = header(request.headers, "authorization") {
        if !authorization.starts_with("AWS4-") {
            return Ok(None);
        }
        return in_headers(request, authorization).map(Some);
    }
    if request.query.contains("X-Amz-Algorithm=") {
        return in_query(request).map(Some);
    }
    Ok(None)
}

/// Checks a signature. `secret` finds the secret key for an access key and the session token it came with.
pub fn verify(
    request: &Request<'_>,
    presented: &Presented,
    now: Timestamp,
    secret: impl FnOnce(&str, Option<&str>) -> Option<String>,
) -> Result<(), Problem> {
    let Presented { scope, session_token, .. } = presented;
    let secret = secret(&scope.access_key, session_token.as_deref()).ok_or(Problem::UnknownKey)?;
    check_time(presented, now)?;
    check_signed_headers(request, presented)?;
    let expected = signature(request, presented, &secret);
    match bool::from(expected.as_bytes().ct_eq(presented.signature.as_bytes())) {
        true => Ok(()),
        false => Err(Problem::Mismatch(problem::MISMATCH.to_owned())),
    }
}

fn in_headers(request: &Request<'_>, authorization: &str) -> Result<Presented, Problem> {
    let (algorithm, fields) = authorization.split_once(' ').unwrap_or((authorization, ""));
    if algorithm != ALGORITHM {
        return Err(Problem::Incomplete(format!("Unsupported AWS 'algorithm': '{algorithm}'.")));
    }
    let field = |name: &str| {
        let mut fields = fields.split(',').filter_map(|field| field.trim().split_once('='));
        fields.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
    };
    let (credential, headers, signature) = (field("Credential"), field("SignedHeaders"), field("Signature"));
    let date = header(request.headers, "x-amz-date").or_else(|| header(request.headers, "date"));
    let (Some(credential), Some(headers), Some(signature), Some(date)) =
        (credential, headers, signature, date)
    else {
        let missing = [("Credential", credential), ("Signature", signature), ("SignedHeaders", headers)];
        let mut text: Vec<String> = missing
            .iter()
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| format!("Authorization header requires '{name}' parameter."))
            .collect();
        if date.is_none() {
            text.push(
                "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.".into(),
            );
        }
        text.push(format!("Authorization={algorithm}"));
        return Err(Problem::Incomplete(text.join(" ")));
    };
    let time = Timestamp::parse_basic(date).or_else(|| parse_http_date(date)).ok_or_else(|| {
        Problem::Incomplete(format!(
            "Date must be in ISO-8601 'basic format'. Got '{date}'. See http://en.wikipedia.org/wiki/ISO_8601"
        ))
    })?;
    Ok(Presented {
        scope: scope(credential)?,
        session_token: header(request.headers, "x-amz-security-token").map(str::to_owned),
        time,
        life: None,
        signed_headers: headers.to_owned(),
        signature: signature.to_owned(),
    })
}

fn in_query(request: &Request<'_>) -> Result<Presented, Problem> {
    let incomplete = |what: &str| Problem::Incomplete(what.to_owned());
    let form =
        Form::parse(request.query.as_bytes()).ok_or_else(|| incomplete("The query string is not UTF-8."))?;
    let parameter = |name: &str| {
        form.get(name)
            .ok_or_else(|| Problem::Incomplete(format!("AWS query-string parameters must include '{name}'.")))
    };
    let algorithm = parameter("X-Amz-Algorithm")?;
    if algorithm != ALGORITHM {
        return Err(Problem::Incomplete(format!("Unsupported AWS 'algorithm': '{algorithm}'.")));
    }
    let life: i64 = match form.get("X-Amz-Expires") {
        None => SKEW / 1000,
        Some(text) => text.parse().map_err(|_| incomplete("X-Amz-Expires should be a number"))?,
    };
    if !(0..=LONGEST_LIFE).contains(&life) {
        return Err(incomplete("X-Amz-Expires must be between 0 and 604800 seconds"));
    }
    let time = Timestamp::parse_basic(parameter("X-Amz-Date")?)
        .ok_or_else(|| incomplete("X-Amz-Date must be in ISO-8601 'basic format'."))?;
    Ok(Presented {
        scope: scope(parameter("X-Amz-Credential")?)?,
        session_token: form.get("X-Amz-Security-Token").map(str::to_owned),
        time,
        life: Some(life),
        signed_headers: parameter("X-Amz-SignedHeaders")?.to_owned(),
        signature: parameter("X-Amz-Signature")?.to_owned(),
    })
}

/// `AKID/20260131/us-east-1/ecs/aws4_request`
fn scope(credential: &str) -> Result<Scope, Problem> {
    let parts: Vec<&str> = credential.split('/').collect();
    let [access_key, date, region, service, terminator] = parts.as_slice() else {
        return Err(Problem::Incomplete(format!(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '{credential}'"
        )));
    };
    if *terminator != "aws4_request" {
        return Err(Problem::Mismatch(format!(
            "Credential should be scoped with a valid terminator: 'aws4_request', not '{terminator}'."
        )));
    }
    let is_word = |text: &str| {
        (1..=128).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if ![region, service, access_key, date].into_iter().all(|part| is_word(part)) {
        return Err(Problem::Incomplete(format!("Credential has an invalid element, got '{credential}'")));
    }
    Ok(Scope {
        access_key: (*access_key).to_owned(),
        date: (*date).to_owned(),
        region: (*region).to_owned(),
        service: (*service).to_owned(),
    })
}

fn check_time(presented: &Presented, now: Timestamp) -> Result<(), Problem> {
    let time = presented.time;
    let day = time.basic();
    let day = day.split('T').next().unwrap_or_default();
    if day != presented.scope.date {
        return Err(Problem::Mismatch(format!(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{}' != '{day}', from '{}'.",
            presented.scope.date,
            time.basic()
        )));
    }
    let life = presented.life.map_or(SKEW, |seconds| seconds * 1000);
    let earliest = Timestamp(now.0.saturating_sub(life));
    if time < earliest {
        return Err(Problem::Expired(format!(
            "Signature expired: {} is now earlier than {} ({} - {} min.)",
            time.basic(),
            earliest.basic(),
            now.basic(),
            life / 60_000
        )));
    }
    let latest = Timestamp(now.0.saturating_add(SKEW));
    if time > latest {
        return Err(Problem::Expired(format!(
            "Signature not yet current: {} is still later than {} ({} + 5 min.)",
            time.basic(),
            latest.basic(),
            now.basic()
        )));
    }
    Ok(())
}

/// What decides whom a request is for and what it does must be signed where it is present.
fn check_signed_headers(request: &Request<'_>, presented: &Presented) -> Result<(), Problem> {
    let signed = |name: &str| presented.signed_headers.split(';').any(|header| header == name);
    if !signed("host") {
        return Err(Problem::Mismatch(
            "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.".to_owned(),
        ));
    }
    for name in ["x-amz-date", "x-amz-target", "x-amz-security-token"] {
        if request.headers.contains_key(name) && !signed(name) {
            return Err(Problem::Mismatch(format!(
                "'{name}' must be a 'SignedHeader' in the AWS Authorization."
            )));
        }
    }
    Ok(())
}

fn signature(request: &Request<'_>, presented: &Presented, secret: &str) -> String {
    let Scope { date, region, service, .. } = &presented.scope;
    let canonical = canonical::hash(request, &presented.signed_headers, presented.life.is_some());
    let to_sign = format!(
        "{ALGORITHM}\n{}\n{date}/{region}/{service}/aws4_request\n{canonical}",
        presented.time.basic()
    );
    let key = hmac(format!("AWS4{secret}").as_bytes(), date);
    let key = hmac(&key, region);
    let key = hmac(&key, service);
    let key = hmac(&key, "aws4_request");
    hex::encode(hmac(&key, &to_sign))
}

fn hmac(key: &[u8], text: &str) -> [u8; 32] {
    // HMAC takes keys of every length; without one nothing can match.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return Sha256::digest(text).into();
    };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn parse_http_date(text: &str) -> Option<Timestamp> {
    let time = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(Timestamp(time.timestamp().as_millisecond()))
}
