//! The checks of one target. Invariant: a check ends within its timeout, and what it finds is reported once it changes the
//! target's health.

use crate::peer::Peer;
use crate::target::{Sender, Speech, connect};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::TrySendError;
use longshore_engine::elb::health::{Course, Finding, is_success};
use longshore_model::elb::{HealthCheck, HealthCheckProtocol, Matcher, TargetHealth};
use longshore_model::link::edge::{TargetReport, TargetSeen};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

const AGENT: &str = "ELB-HealthChecker/2.0";
/// What is read of an answer to the check of a gRPC service.
const MOST: usize = 64 * 1024;

/// Checks a target from the address `own` until nobody wants to know.
pub async fn run(
    peer: Arc<Peer>,
    check: HealthCheck,
    own: Ipv4Addr,
    recorded: TargetHealth,
    reports: mpsc::Sender<TargetReport>,
) {
    let mut course = Course::from(recorded.clone());
    let mut reported = recorded;
    let mut rounds = tokio::time::interval(Duration::from_secs(check.interval.max(1).into()));
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        course.take(&check, &once(&peer, &check, own).await);
        if *course.health() == reported {
            continue;
        }
        reported = course.health().clone();
        let seen = TargetSeen::Health(reported.clone());
        let report = TargetReport { target: peer.key.clone(), registered_at: peer.registered_at, seen };
        if reports.send(report).await.is_err() {
            return;
        }
    }
}

async fn once(peer: &Peer, check: &HealthCheck, own: Ipv4Addr) -> Finding {
    let limit = Duration::from_secs(check.timeout.max(1).into());
    let port = check.port.unwrap_or(peer.address.port());
    let target = SocketAddrV4::new(*peer.address.ip(), port);
    match tokio::time::timeout(limit, ask(peer, target, check, own)).await {
        Ok(finding) => finding,
        Err(_) => Finding::TimedOut,
    }
}

async fn ask(peer: &Peer, target: SocketAddrV4, check: &HealthCheck, own: Ipv4Addr) -> Finding {
    let Ok(stream) = connect(own, target).await else { return Finding::Failed };
    let tls = match check.protocol {
        HealthCheckProtocol::Tcp => return Finding::Passed,
        HealthCheckProtocol::Http => false,
        HealthCheckProtocol::Https => true,
    };
    let speech = Speech { tls, ..peer.speech };
    let asking = async {
        let mut sender = Sender::begin(stream, speech).await?;
        match &check.matcher {
            Some(Matcher::Grpc(_)) => grpc_status(&mut sender, speech, target, check).await,
            _ => status(&mut sender, speech, target, check).await,
        }
    };
    match asking.await {
        Ok(code) if is_success(check.matcher.as_ref(), code) => Finding::Passed,
        Ok(code) => Finding::Code(code),
        Err(error) => {
            tracing::debug!(error, %target, "a check failed");
            Finding::Failed
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Body = Full<Bytes>;

/// The request of a check, without what kinds of checks have of their own.
fn request(check: &HealthCheck, target: SocketAddrV4) -> http::request::Builder {
    Request::builder()
        .uri(check.path.as_deref().unwrap_or("/"))
        .header(HOST, target.to_string())
        .header(USER_AGENT, AGENT)
}

async fn status(
    sender: &mut Sender<Body>,
    speech: Speech,
    target: SocketAddrV4,
    check: &HealthCheck,
) -> Result<u16, Failure> {
    let mut request = request(check, target).body(Body::default())?;
    speech.phrase(&mut request);
    let response = sender.send(request).await.map_err(TrySendError::into_error)?;
    Ok(response.status().as_u16())
}

/// A call without arguments; what it ended with is in the trailers, or in the headers of an answer without a body.
async fn grpc_status(
    sender: &mut Sender<Body>,
    speech: Speech,
    target: SocketAddrV4,
    check: &HealthCheck,
) -> Result<u16, Failure> {
    let request = request(check, target).method(Method::POST);
    let request = request.header(CONTENT_TYPE, "application/grpc").header(TE, "trailers");
    // One message that is not compressed, of no bytes.
    let mut request = request.body(Body::from(&[0; 5][..]))?;
    speech.phrase(&mut request);
    let response = sender.send(request).await.map_err(TrySendError::into_error)?;
    let (head, body) = response.into_parts();
    let code =
        |headers: &HeaderMap| headers.get("grpc-status").and_then(|code| code.to_str().ok()?.parse().ok());
    if let Some(code) = code(&head.headers) {
        return Ok(code);
    }
    let body = Limited::new(body, MOST).collect().await?;
    body.trailers().and_then(code).ok_or_else(|| "the answer has no grpc-status".into())
}
