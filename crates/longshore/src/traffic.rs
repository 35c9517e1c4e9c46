//! The edge of this machine, linked to the control plane of this process.

use crate::Outcome;
use async_trait::async_trait;
use longshore_agent::network::{Holder, ServerId};
use longshore_control::Context;
use longshore_control::edges;
use longshore_edge::{Addresses, Config, Link};
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
    let holder = Holder::open(ServerId::of(data_dir), context.config.vpc_cidr).await?;
    let timekeeper = Arc::clone(context);
    let config = Config { addresses: Arc::new(Held(holder)), clock: Arc::new(move || timekeeper.now()) };
    let (to_edge, from_control) = mpsc::channel(LINK);
    let (to_control, from_edge) = mpsc::channel(LINK);
    Ok(vec![
        tokio::spawn(edges::serve(Arc::clone(context), edges::Link { to_edge, from_edge })),
        tokio::spawn(longshore_edge::run(config, Link { from_control, to_control })),
    ])
}

struct Held(Holder);

#[async_trait]
impl Addresses for Held {
    async fn hold(&self, addresses: &BTreeSet<Ipv4Addr>) -> Vec<(Ipv4Addr, String)> {
        match self.0.hold(addresses).await {
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
}
