//! The shell for traffic: what load balancers listen to and where they send it, the checks of targets, and the resolvers
//! of VPCs.
//!
//! Invariant: what is done is a function of the records that control sent last; a change of them breaks no connection that
//! it does not concern.

mod dns;
mod forwards;
mod group;
mod http;
mod listening;
mod peer;
mod probe;
mod stream;
mod target;
mod tls;
mod traffic;

use async_trait::async_trait;
use longshore_model::Timestamp;
use longshore_model::elb::Forward;
use longshore_model::link::edge::{FromEdge, ToEdge};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use traffic::Traffic;

/// The machine that an edge is on.
#[async_trait]
pub trait Machine: Send + Sync {
    /// The machine has these and no others of the edge's. Says which of them it could not have, and why.
    async fn hold(&self, addresses: &BTreeSet<Ipv4Addr>) -> Vec<(Ipv4Addr, String)>;

    /// The kernel passes these on and nothing else of the edge's.
    async fn forward(&self, forwards: &[Forward]) -> Result<(), String>;
}

/// The addresses that a machine could not have, each with why.
type Refused = BTreeMap<Ipv4Addr, String>;

/// How long an address or a socket is done without that the machine refused.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// What an edge needs of the machine that it is on.
#[derive(Clone)]
pub struct Config {
    pub machine: Arc<dyn Machine>,
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

/// The edge's end of its link.
pub struct Link {
    pub from_control: mpsc::Receiver<ToEdge>,
    pub to_control: mpsc::Sender<FromEdge>,
}

/// Until the link closes. Connections that stand then go on until their ends close them.
///
/// What control says is taken in also while it does not listen: each of two ends that waited for the other to listen
/// would wait for ever.
pub async fn run(config: Config, mut link: Link) {
    let mut traffic = Traffic::new(config);
    let mut unsaid = Vec::new();
    let mut again = tokio::time::interval(TRY_AGAIN);
    loop {
        tokio::select! {
            message = link.from_control.recv() => match message {
                None => return,
                Some(ToEdge::Everything(rows)) => traffic.restart(rows).await,
                Some(ToEdge::Changed(rows)) => traffic.change(rows).await,
            },
            _ = again.tick() => traffic.try_again().await,
            reports = traffic.seen(), if unsaid.is_empty() => unsaid = reports,
            place = link.to_control.reserve(), if !unsaid.is_empty() => match place {
                Ok(place) => place.send(FromEdge::Targets(std::mem::take(&mut unsaid))),
                Err(_) => return,
            },
        }
    }
}
