//! The edge of this machine, linked to the control plane of this process.

use crate::Outcome;
use async_trait::async_trait;
use longshore_agent::network::{Holder, ServerId, forwards};
use longshore_control::Context;
use longshore_control::edges;
use longshore_edge::{Config, Link, Machine};
use longshore_model::elb::Forward;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Messages that may wait in each direction.
const LINK: usize = 256;

/// Starts the edge and the control plane's end of its link.
pub async fn start(context: &Arc<Context>, data_dir: &Path) -> Outcome<Vec<JoinHandle<()>>> {
    let server = ServerId::of(data_dir);
    let holder = Holder::open(server.clone(), context.config.vpc_cidr).await?;
    let timekeeper = Arc::clone(context);
    let config =
        Config { machine: Arc::new(Here { server, holder }), clock: Arc::new(move || timekeeper.now()) };
    let (to_edge, from_control) = mpsc::channel(LINK);
    let (to_control, from_edge) = mpsc::channel(LINK);
    Ok(vec![
        tokio::spawn(edges::serve(Arc::clone(context), edges::Link { to_edge, from_edge })),
        tokio::spawn(longshore_edge::run(config, Link { from_control, to_control })),
    ])
}

/// The machine that the process is on.
struct Here {
    server: ServerId,
    holder: Holder,
}

#[async_trait]
impl Machine for Here {
    async fn hold(&self, addresses: &BTreeSet<Ipv4Addr>) -> Vec<(Ipv4Addr, String)> {
        match self.holder.hold(addresses).await {
            Ok(refused) => {
                let words = |(address, error)| (address, crate::chain(&error));
                refused.into_iter().map(words).collect()
            }
            Err(error) => {
                let words = crate::chain(&error);
                addresses.iter().map(|address| (*address, words.clone())).collect()
            }
        }
    }
    async fn forward(&self, forwards: &[Forward]) -> Result<(), String> {
        forwards::forward(&self.server, forwards).await.map_err(|error| crate::chain(&error))
    }
}
