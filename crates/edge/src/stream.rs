//! TLS listeners of network load balancers: the bytes that a client sent, to a target, and back.
//! Invariant: a connection stays with the target that it was first sent to.

use crate::group::Group;
use crate::listening::Ends;
use crate::peer::{Busy, Peer};
use crate::{target, tls};
use arc_swap::ArcSwap;
use longshore_model::Timestamp;
use rustls::ServerConfig;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a target may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How many targets are tried that cannot be connected to.
const TRIES: usize = 3;

/// A listener as its connections meet it.
pub struct Door {
    pub route: ArcSwap<Route>,
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

pub struct Route {
    pub tls: Arc<ServerConfig>,
    pub group: Arc<Group>,
}

/// Serves one connection until one end closes it or the target leaves.
pub async fn serve(door: Arc<Door>, stream: TcpStream, ends: Ends) {
    let route = door.route.load_full();
    let Some(mut client) = tls::from_client(stream, &route.tls, ends.client).await else { return };
    let Some((busy, stream)) = reach(&route.group, ends, (door.clock)()).await else { return };
    let passed = match busy.peer().speech.tls {
        false => pass(&mut client, stream, &busy).await,
        true => match tls::to_target(stream, busy.peer().speech).await {
            Ok(stream) => pass(&mut client, stream, &busy).await,
            Err(error) => Err(error),
        },
    };
    if let Err(error) = passed {
        let error = &error as &dyn std::error::Error;
        tracing::debug!(error, client = %ends.client, target = %busy.peer().address, "a connection broke");
    }
}

async fn reach(group: &Group, ends: Ends, now: Timestamp) -> Option<(Busy, TcpStream)> {
    let mut tried: Vec<Arc<Peer>> = Vec::new();
    while tried.len() < TRIES {
        let busy = group.choose(&tried, None, now)?;
        let peer = Arc::clone(busy.peer());
        if let Ok(Ok(stream)) = timeout(CONNECT, target::connect(ends.own, peer.address)).await {
            // Without it small answers are late, and nothing more.
            let _ = stream.set_nodelay(true);
            return Some((busy, stream));
        }
        tried.push(peer);
    }
    None
}

async fn pass(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    mut target: impl AsyncRead + AsyncWrite + Unpin,
    busy: &Busy,
) -> io::Result<()> {
    tokio::select! {
        ended = copy_bidirectional(client, &mut target) => ended.map(drop),
        () = busy.peer().until_gone() => Ok(()),
    }
}
