//! The checks of one target. Invariant: a check ends within its timeout, and what it finds is reported once it changes the
//! target's health.

use crate::http::connect;
use crate::peer::Peer;
use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use longshore_engine::elb::health::{Course, Finding, is_success};
use longshore_model::elb::{HealthCheck, HealthCheckProtocol, TargetHealth};
use longshore_model::link::edge::{TargetReport, TargetSeen};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

const AGENT: &str = "ELB-HealthChecker/2.0";

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
    match tokio::time::timeout(limit, ask(target, check, own)).await {
        Ok(finding) => finding,
        Err(_) => Finding::TimedOut,
    }
}

async fn ask(target: SocketAddrV4, check: &HealthCheck, own: Ipv4Addr) -> Finding {
    let Ok(stream) = connect(own, target).await else { return Finding::Failed };
    match check.protocol {
        HealthCheckProtocol::Tcp => Finding::Passed,
        HealthCheckProtocol::Http => match status(stream, target, check.path.as_deref()).await {
            Ok(status) if is_success(check.matcher.as_ref(), status.as_u16()) => Finding::Passed,
            Ok(status) => Finding::Code(status.as_u16()),
            Err(error) => {
                tracing::debug!(error, %target, "a check failed");
                Finding::Failed
            }
        },
        HealthCheckProtocol::Https => Finding::Failed,
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn status(
    stream: tokio::net::TcpStream,
    target: SocketAddrV4,
    path: Option<&str>,
) -> Result<StatusCode, Failure> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path.unwrap_or("/"))
        .header(HOST, target.to_string())
        .header(USER_AGENT, AGENT)
        .body(Empty::<Bytes>::new())?;
    let asking = sender.send_request(request);
    // The connection is driven while the answer is waited for, and closed after it.
    tokio::select! {
        response = asking => Ok(response?.status()),
        ended = connection => match ended {
            Ok(()) => Err("the connection closed before an answer".into()),
            Err(error) => Err(error.into()),
        },
    }
}
