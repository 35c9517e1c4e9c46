//! A target group as traffic meets it. Invariant: choosing a target never waits for a change of the group.

use crate::http::Keeping;
use crate::peer::{Busy, Peer};
use crate::target::Speech;
use arc_swap::ArcSwap;
use longshore_engine::elb::choice;
use longshore_model::Timestamp;
use longshore_model::elb::{Target, TargetGroup};
use longshore_model::id::stable_hash;
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
    members: Vec<Member>,
    /// By the fewest requests under way, and not in turn.
    by_load: bool,
    /// How long a target takes to get its whole part, in milliseconds; 0 for at once.
    slow_start: i64,
    keeping: Option<Keeping>,
    /// Names the group in cookies.
    mark: u64,
    speech: Speech,
}

#[derive(Clone)]
struct Member {
    peer: Arc<Peer>,
    since: Timestamp,
}

impl Group {
    /// Takes in the group as it is now.
    pub fn change(&self, record: &TargetGroup, targets: &[(Arc<Target>, Arc<Peer>)], now: Timestamp) {
        let before = self.rotation.load();
        let since = |peer: &Arc<Peer>| {
            before.members.iter().find(|member| Arc::ptr_eq(&member.peer, peer)).map(|member| member.since)
        };
        let eligible = choice::eligible(targets, |(target, _)| target);
        let member = |(_, peer): &(Arc<Target>, Arc<Peer>)| Member {
            since: since(peer).unwrap_or(now),
            peer: Arc::clone(peer),
        };
        let slow_start = record.attribute("slow_start.duration_seconds").and_then(|text| text.parse().ok());
        self.rotation.store(Arc::new(Rotation {
            members: eligible.into_iter().map(member).collect(),
            by_load: record.attribute("load_balancing.algorithm.type") == Some("least_outstanding_requests"),
            slow_start: slow_start.map_or(0, |seconds: i64| seconds.saturating_mul(1000)),
            keeping: Keeping::of(record),
            mark: stable_hash(record.id.bytes()),
            speech: Speech::of(record),
        }));
    }

    /// Names the group in cookies.
    pub fn mark(&self) -> u64 {
        self.rotation.load().mark
    }

    pub fn speech(&self) -> Speech {
        self.rotation.load().speech
    }

    /// How clients are kept with targets.
    pub fn keeping(&self) -> Option<Keeping> {
        self.rotation.load().keeping.clone()
    }

    /// The target for the next request, which counts from now on: the one that is wished for, else the next one that was
    /// not tried yet.
    pub fn choose(&self, tried: &[Arc<Peer>], wish: Option<u64>, now: Timestamp) -> Option<Busy> {
        let rotation = self.rotation.load();
        let members = &rotation.members;
        let is_new = |member: &&Member| !tried.iter().any(|other| Arc::ptr_eq(other, &member.peer));
        if let Some(wish) = wish
            && let Some(member) = members.iter().filter(is_new).find(|member| member.peer.mark == wish)
        {
            return Some(member.peer.begin());
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let start = turn.checked_rem(members.len())?;
        let mut in_turn = members.iter().cycle().skip(start).take(members.len()).filter(is_new);
        let chosen = if rotation.by_load {
            in_turn.min_by_key(|member| member.peer.busy())
        } else if rotation.slow_start == 0 {
            in_turn.next()
        } else {
            let first = in_turn.next()?;
            let is_up = |member: &Member| rotation.has_its_part(member, turn, now);
            Some(if is_up(first) { first } else { in_turn.find(|member| is_up(member)).unwrap_or(first) })
        };
        chosen.map(|member| member.peer.begin())
    }
}

impl Rotation {
    /// A target that is new gets as much of its part as the time that it has been there, in a pattern that repeats.
    fn has_its_part(&self, member: &Member, turn: usize, now: Timestamp) -> bool {
        let age = now.since(member.since).max(0);
        if age >= self.slow_start || self.members.iter().all(|other| now.since(other.since) < self.slow_start)
        {
            return true;
        }
        // The golden ratio's multiples are spread evenly over the range, so that the turns taken are too.
        let place =
            (turn as u64 / self.members.len().max(1) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        let part = age.saturating_mul(1 << 16) / self.slow_start.max(1);
        (place as i64) < part
    }
}
