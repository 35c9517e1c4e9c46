//! A target group as traffic meets it. Invariant: choosing a target never waits for a change of the group.

use crate::peer::{Busy, Peer};
use arc_swap::ArcSwap;
use longshore_engine::elb::choice;
use longshore_model::elb::{Target, TargetGroup};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Default)]
pub struct Group {
    rotation: ArcSwap<Rotation>,
    next: AtomicUsize,
}

/// Whom requests are spread over.
#[derive(Default)]
struct Rotation {
    record: Option<Arc<TargetGroup>>,
    peers: Vec<Arc<Peer>>,
}

impl Group {
    /// Takes in the group as it is now.
    pub fn change(&self, record: Option<Arc<TargetGroup>>, targets: &[(Arc<Target>, Arc<Peer>)]) {
        let eligible = choice::eligible(targets, |(target, _)| target);
        let peers = eligible.into_iter().map(|(_, peer)| Arc::clone(peer)).collect();
        self.rotation.store(Arc::new(Rotation { record, peers }));
    }

    /// The target for the next request, which counts from now on. Those that were tried already come last.
    pub fn choose(&self, tried: &[Arc<Peer>]) -> Option<Busy> {
        let rotation = self.rotation.load();
        let peers = &rotation.peers;
        let is_new = |peer: &&Arc<Peer>| !tried.iter().any(|other| Arc::ptr_eq(other, peer));
        let fewest = rotation.record.as_ref().is_some_and(|record| {
            record.attribute("load_balancing.algorithm.type") == Some("least_outstanding_requests")
        });
        let start = self.next.fetch_add(1, Ordering::Relaxed).checked_rem(peers.len())?;
        let mut in_turn = peers.iter().cycle().skip(start).take(peers.len()).filter(is_new);
        let chosen = if fewest { in_turn.min_by_key(|peer| peer.busy()) } else { in_turn.next() };
        chosen.map(Peer::begin)
    }
}
