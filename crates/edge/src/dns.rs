//! The resolvers of VPCs. Invariant: what is known here is answered from the records that control sent last, and all else
//! is asked of the machine's own resolvers, of which no more is asked at a time than they can be expected to take.

mod message;
mod serve;
#[cfg(test)]
mod tests;
mod upstream;

use crate::Refused;
use arc_swap::ArcSwap;
use hickory_proto::op::{Message, ResponseCode};
use longshore_engine::View;
use longshore_engine::dns::{self, Answer, Known};
use message::Asked;
use serve::Open;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use upstream::Upstream;

pub use upstream::Transport;

const PORT: u16 = 53;

/// The resolvers of this edge.
pub struct Resolvers {
    names: Arc<Names>,
    open: BTreeMap<Ipv4Addr, Open>,
    /// Those whose sockets could not be had, as was said.
    failed: BTreeSet<Ipv4Addr>,
}

/// What they answer from.
pub struct Names {
    view: ArcSwap<View>,
    upstream: Upstream,
}

impl Default for Resolvers {
    fn default() -> Self {
        let names = Names { view: ArcSwap::default(), upstream: Upstream::of_this_machine() };
        Self { names: Arc::new(names), open: BTreeMap::new(), failed: BTreeSet::new() }
    }
}

impl Resolvers {
    /// Answers from the records as they are now.
    pub fn change(&self, view: &View) {
        self.names.view.store(Arc::new(view.clone()));
    }

    pub fn lacks_sockets(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Listens at these addresses and no others; those that the machine could not have are passed over.
    pub async fn listen(&mut self, addresses: &BTreeSet<Ipv4Addr>, refused: &Refused) {
        self.names.upstream.leave_out(addresses);
        self.open.retain(|address, _| addresses.contains(address));
        self.failed.retain(|address| addresses.contains(address));
        for address in addresses {
            if self.open.contains_key(address) || refused.contains_key(address) {
                continue;
            }
            match Open::at(*address, PORT, &self.names).await {
                Ok(open) => {
                    self.failed.remove(address);
                    self.open.insert(*address, open);
                }
                Err(error) if self.failed.insert(*address) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, %address, "a VPC's resolver has no socket");
                }
                Err(_) => {}
            }
        }
    }
}

impl Names {
    /// The response to a request that came to a resolver's address; `None` for what is none.
    async fn respond(
        &self,
        request: &[u8],
        client: Ipv4Addr,
        own: Ipv4Addr,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let asked = match Asked::parse(request) {
            Ok(asked) => asked,
            Err(response) => return response,
        };
        let view = self.view.load_full();
        let vpcs = dns::vpcs_of(&view, client, own);
        if vpcs.is_empty() {
            return asked.refuse(ResponseCode::Refused, transport);
        }
        let known = match asked.question() {
            Some(question) => dns::answer(&view, &vpcs, &question, chance()),
            None => Answer::Forward,
        };
        match known {
            Answer::Known(known) => self.complete(&asked, &known, client, transport).await,
            Answer::Forward => match self.upstream.ask(request, client, transport).await {
                Some(response) => Some(response),
                None => asked.refuse(ResponseCode::ServFail, transport),
            },
        }
    }

    /// Follows a CNAME that leads to where others know.
    async fn complete(
        &self,
        asked: &Asked,
        known: &Known,
        client: Ipv4Addr,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let Some(next) = &known.next else { return asked.respond(known, None, transport) };
        let request = asked.for_name(next)?;
        let further = match self.upstream.ask(&request, client, Transport::Tcp).await {
            Some(response) => Message::from_vec(&response).ok(),
            None => None,
        };
        asked.respond(known, further.as_ref(), transport)
    }
}

fn chance() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness the same instances are named each time, which is a good answer still.
    let _ = getrandom::fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}
