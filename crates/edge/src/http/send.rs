//! Asks a target. Invariant: a request is sent again only when no byte of it can have reached a target.

use crate::group::Group;
use crate::peer::{Busy, Peer, Sender};
use crate::target;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use longshore_model::Timestamp;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long a target may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How many targets are tried that cannot be connected to.
const TRIES: usize = 3;

/// A target's answer, and the connection that it came by.
pub struct Sent {
    pub response: Response<Incoming>,
    /// To be kept when the answer has come; none of one that others use too.
    pub sender: Option<Sender>,
    pub busy: Busy,
}

/// What became of a request on one connection.
enum Tried {
    Answered(Response<Incoming>),
    /// Nothing of it was sent.
    Unsent(Request<Incoming>),
    Failed(StatusCode),
}

/// Whom to ask, and how.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// The load balancer's address that targets are asked from.
    pub own: Ipv4Addr,
    pub limit: Duration,
    /// The target that a cookie names.
    pub wish: Option<u64>,
    pub now: Timestamp,
}

/// Asks a target of the group; else the status that says why there is no answer.
pub async fn send(group: &Group, mut request: Request<Incoming>, asking: Asking) -> Result<Sent, StatusCode> {
    let Asking { own, limit, wish, now } = asking;
    let mut tried: Vec<Arc<Peer>> = Vec::new();
    let mut status = StatusCode::SERVICE_UNAVAILABLE;
    while tried.len() < TRIES {
        let Some(busy) = group.choose(&tried, wish, now) else { break };
        let peer = Arc::clone(busy.peer());
        while let Some(mut sender) = peer.take_idle().await {
            match ask(&mut sender, request, limit).await {
                Tried::Answered(response) => return Ok(Sent { response, sender: kept(sender), busy }),
                Tried::Failed(status) => return Err(status),
                Tried::Unsent(back) => request = back,
            }
        }
        match timeout(CONNECT, open(own, &peer)).await {
            Ok(Ok(mut sender)) => match ask(&mut sender, request, limit).await {
                Tried::Answered(response) => return Ok(Sent { response, sender: kept(sender), busy }),
                Tried::Failed(status) => return Err(status),
                Tried::Unsent(back) => {
                    request = back;
                    status = StatusCode::BAD_GATEWAY;
                }
            },
            Ok(Err(error)) => {
                tracing::debug!(error = &error as &dyn std::error::Error, target = %peer.address, "no connection");
                status = StatusCode::BAD_GATEWAY;
            }
            Err(_) => status = StatusCode::GATEWAY_TIMEOUT,
        }
        tried.push(peer);
    }
    Err(status)
}

async fn ask(sender: &mut Sender, request: Request<Incoming>, limit: Duration) -> Tried {
    match timeout(limit, sender.send(request)).await {
        Ok(Ok(response)) => Tried::Answered(response),
        Ok(Err(mut error)) => match error.take_message() {
            Some(request) => Tried::Unsent(request),
            None => Tried::Failed(StatusCode::BAD_GATEWAY),
        },
        Err(_) => Tried::Failed(StatusCode::GATEWAY_TIMEOUT),
    }
}

/// The one of its own that a request had; what is shared is kept already.
fn kept(sender: Sender) -> Option<Sender> {
    matches!(sender, Sender::Http1(_)).then_some(sender)
}

async fn open(own: Ipv4Addr, peer: &Peer) -> io::Result<Sender> {
    let stream = target::connect(own, peer.address).await?;
    let sender = Sender::begin(stream, peer.speech).await?;
    peer.share(&sender);
    Ok(sender)
}
