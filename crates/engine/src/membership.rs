//! Who is there: control planes by their beats, container instances by their links.
//!
//! Invariant: an observer judges by its own clock alone, from when it began to look, so that machines whose clocks differ
//! agree and a control plane that just started takes nobody for gone. One that does not see its own beat change sees
//! nothing (it was frozen, or does not reach the store) and judges nobody; what it saw before counts no more afterwards.

use crate::view::View;
use core::time::Duration;
use longshore_model::ContainerInstanceId;
use longshore_model::container_instance::ContainerInstance;
use longshore_model::control_plane::ControlPlaneId;
use longshore_model::task::{Stop, StopCode};
use std::collections::BTreeMap;

use crate::lifecycle::INSTANCE_LOST;

/// A control plane whose beat has not changed for so long is dead.
pub const DEAD_AFTER: Duration = Duration::from_millis(2500);
/// An observer that has not seen its own beat change for so long may be behind, and judges nobody. A beat is about a second
/// old when sight is lost, so that no other grows too old before it is.
const BLIND_AFTER: Duration = Duration::from_millis(1500);
/// Between two looks of an observer that was not frozen; with others about it looks more often. After a longer one it cannot
/// tell what it sees for the first time from what is new, its own beat among that.
const LONGEST_GAP: Duration = Duration::from_secs(1);
const LONGEST_GAP_ALONE: Duration = Duration::from_secs(5);
/// After so long the record of a dead control plane is of no use to anybody.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// Who looks.
#[derive(Clone, Copy, Debug)]
pub struct Observer {
    pub own: ControlPlaneId,
    /// Whether there can be other control planes.
    pub shared: bool,
    /// How long an instance may be away before its tasks are given up.
    pub lost_after: Duration,
}

/// What an observer has seen, with times of its own monotonic clock.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    beats: BTreeMap<ControlPlaneId, (u64, Duration)>,
    away: BTreeMap<ContainerInstanceId, Duration>,
    began: Option<Duration>,
    last: Option<Duration>,
    blind: bool,
}

/// What follows from a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Recorded as connected to a control plane that is dead, or to us without a link.
    pub disconnected: Vec<ContainerInstanceId>,
    /// Away for too long, with tasks.
    pub lost: Vec<ContainerInstanceId>,
    /// Dead for long.
    pub forgotten: Vec<ControlPlaneId>,
    /// Of those that live the observer is the first: it does what one is enough for.
    pub leads: bool,
    /// The others take the observer for dead by now: agents must look for another control plane.
    pub isolated: bool,
}

impl Watch {
    pub fn look(
        &mut self,
        view: &View,
        observer: Observer,
        is_linked: impl Fn(ContainerInstanceId) -> bool,
        at: Duration,
    ) -> Findings {
        self.see_beats(view, at);
        if let Some(isolated) = self.is_blind(observer, at) {
            return Findings { isolated, ..Findings::default() };
        }
        let silent = |id: ControlPlaneId| {
            // A beat that is not there is one that stopped before we looked.
            self.beats.get(&id).map_or(Duration::MAX, |(_, since)| at.saturating_sub(*since))
        };
        let lives = |id: ControlPlaneId| id == observer.own || observer.shared && silent(id) < DEAD_AFTER;
        let connected = |instance: &ContainerInstance| match instance.connected_to {
            Some(id) if id == observer.own => is_linked(instance.id),
            Some(id) => lives(id),
            None => false,
        };
        let mut findings = Findings {
            leads: view
                .control_planes
                .iter()
                .filter(|other| lives(other.id))
                .all(|other| observer.own <= other.id),
            forgotten: self
                .beats
                .keys()
                .copied()
                .filter(|id| !lives(*id) && silent(*id) >= FORGOTTEN_AFTER)
                .collect(),
            ..Findings::default()
        };
        let mut away = BTreeMap::new();
        for instance in view.container_instances.iter() {
            if instance.agent_connected && !connected(instance) {
                findings.disconnected.push(instance.id);
            }
            if !instance.agent_connected && view.task_count_on(instance.id) > 0 {
                let since = self.away.get(&instance.id).copied().unwrap_or(at);
                away.insert(instance.id, since);
                if at.saturating_sub(since) >= observer.lost_after {
                    findings.lost.push(instance.id);
                }
            }
        }
        self.away = away;
        findings
    }

    /// Whether a blind observer is isolated; `None` for one that sees.
    fn is_blind(&mut self, observer: Observer, at: Duration) -> Option<bool> {
        let began = *self.began.get_or_insert(at);
        let gap = at.saturating_sub(self.last.replace(at).unwrap_or(at));
        let own = self.beats.get(&observer.own).map_or(began, |(_, since)| *since);
        let silent = at.saturating_sub(own);
        if observer.shared && silent >= BLIND_AFTER {
            self.blind = true;
            return Some(silent >= DEAD_AFTER);
        }
        let longest = if observer.shared { LONGEST_GAP } else { LONGEST_GAP_ALONE };
        if std::mem::take(&mut self.blind) || gap >= longest {
            self.beats.values_mut().for_each(|(_, since)| *since = at);
            self.away.clear();
        }
        None
    }

    fn see_beats(&mut self, view: &View, at: Duration) {
        self.beats.retain(|id, _| view.control_planes.iter().any(|present| present.id == *id));
        for present in view.control_planes.iter() {
            let seen = self.beats.entry(present.id).or_insert((present.beat, at));
            if seen.0 != present.beat {
                *seen = (present.beat, at);
            }
        }
    }
}

/// Why the tasks of a lost instance stop.
pub fn why_lost(instance: &ContainerInstance) -> Stop {
    let ec2 = instance.membership().and_then(|member| member.ec2_instance_id.as_ref());
    let reason =
        ec2.map_or_else(|| INSTANCE_LOST.to_owned(), |id| format!("Host EC2 (instance {id}) terminated"));
    Stop { code: StopCode::InfrastructureHealth, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, apply, instance, task};
    use longshore_model::change::Version;
    use longshore_model::control_plane::ControlPlane;
    use longshore_model::{Record, Transaction};

    const OWN: ControlPlaneId = ControlPlaneId(5);
    const OTHER: ControlPlaneId = ControlPlaneId(3);

    fn put(view: &mut View, record: &impl Record) {
        let mut transaction = Transaction::at(Version(0));
        transaction.update(record);
        apply(view, transaction);
    }

    fn connected(to: Option<ControlPlaneId>) -> ContainerInstance {
        ContainerInstance { connected_to: to, agent_connected: to.is_some(), ..instance(1, 1024, 4096) }
    }

    /// A time in tenths of a second, and what has happened until then.
    type Step<'a> = (u64, &'a dyn Fn(&mut View));

    /// Looks every tenth of a second, and says what follows at the given times (in tenths), after what is done to the view
    /// at each. The observer beats all the time, but while it is `frozen`.
    fn check(
        shared: bool,
        steps: &[Step<'_>],
        linked: bool,
        frozen: std::ops::Range<u64>,
        expected: &[&str],
    ) {
        let observer = Observer { own: OWN, shared, lost_after: Duration::from_secs(60) };
        let mut view = testing::view(&[]);
        put(&mut view, &task());
        let mut watch = Watch::default();
        let mut said = Vec::new();
        let end = steps.last().map_or(0, |(at, _)| *at);
        for tenth in 0..=end {
            if !frozen.contains(&tenth) && tenth % 9 == 0 {
                put(&mut view, &ControlPlane { id: OWN, beat: tenth });
            }
            let step = steps.iter().find(|(at, _)| *at == tenth);
            step.iter().for_each(|(_, change)| change(&mut view));
            let found = watch.look(&view, observer, |_| linked, Duration::from_millis(tenth * 100));
            if step.is_none() {
                continue;
            }
            let mut words = vec![if found.leads { "leads" } else { "follows" }];
            words.extend(found.isolated.then_some("isolated"));
            words.extend((!found.disconnected.is_empty()).then_some("disconnected"));
            words.extend((!found.lost.is_empty()).then_some("lost"));
            words.extend((!found.forgotten.is_empty()).then_some("forgotten"));
            said.push(words.join(" "));
        }
        assert_eq!(said, expected);
    }

    const NEVER: std::ops::Range<u64> = 0..0;

    fn beat(number: u64) -> impl Fn(&mut View) {
        move |view| put(view, &ControlPlane { id: OTHER, beat: number })
    }

    fn nothing(_: &mut View) {}

    #[test]
    fn a_control_plane_is_dead_when_its_beat_stands_still() {
        let connect = |view: &mut View| {
            beat(1)(view);
            put(view, &connected(Some(OTHER)));
        };
        let steps: [Step<'_>; 6] =
            [(0, &connect), (20, &beat(2)), (44, &nothing), (45, &nothing), (600, &nothing), (621, &nothing)];
        let expected = [
            "follows",
            "follows",
            "follows",
            "leads disconnected",
            "leads disconnected",
            "leads disconnected forgotten",
        ];
        check(true, &steps, false, NEVER, &expected);
    }

    #[test]
    fn who_does_not_see_its_own_beat_judges_nobody() {
        let connect = |view: &mut View| {
            beat(1)(view);
            put(view, &connected(Some(OTHER)));
        };
        // The other goes on to beat, and the observer sees nothing of it from 2 s to 9 s.
        let steps: [Step<'_>; 8] = [
            (0, &connect),
            (17, &beat(2)),
            (33, &nothing),
            (43, &nothing),
            (89, &nothing),
            (90, &nothing),
            (95, &beat(9)),
            (119, &nothing),
        ];
        let expected = [
            "follows",
            "follows",
            "follows",
            "follows isolated",
            "follows isolated",
            "follows",
            "follows",
            "follows",
        ];
        check(true, &steps, false, 19..90, &expected);
    }

    #[test]
    fn who_was_frozen_judges_nobody_by_what_it_missed() {
        let observer = Observer { own: OWN, shared: true, lost_after: Duration::from_secs(60) };
        // Frozen at any time, for any time, and looking before it has caught up.
        for (start, length) in (30..50).flat_map(|start| (0..60).map(move |length| (start, length))) {
            let mut view = testing::view(&[]);
            put(&mut view, &connected(Some(OTHER)));
            beat(0)(&mut view);
            let mut watch = Watch::default();
            for tenth in (0..150).filter(|tenth| !(start..start + length).contains(tenth)) {
                if tenth % 3 == 0 || tenth == start + length {
                    let found = watch.look(&view, observer, |_| false, Duration::from_millis(tenth * 100));
                    assert_eq!(found.disconnected, [], "at {tenth}, frozen from {start} for {length}");
                }
                beat((tenth + 4) / 9)(&mut view);
                if tenth % 9 == 0 || tenth == start + length {
                    put(&mut view, &ControlPlane { id: OWN, beat: tenth });
                }
            }
        }
    }

    #[test]
    fn who_was_frozen_gives_instances_their_whole_time_again() {
        let observer = Observer { own: OWN, shared: false, lost_after: Duration::from_secs(60) };
        let mut view = testing::view(&[]);
        put(&mut view, &task());
        put(&mut view, &connected(None));
        let mut watch = Watch::default();
        let mut lost_at =
            |second| !watch.look(&view, observer, |_| true, Duration::from_secs(second)).lost.is_empty();
        assert!(!(0..10).step_by(2).any(&mut lost_at));
        assert!(!(500..560).step_by(2).any(&mut lost_at));
        assert!(lost_at(560));
    }

    #[test]
    fn alone_every_other_control_plane_is_one_of_the_past() {
        let connect = |view: &mut View| put(view, &connected(Some(OTHER)));
        check(false, &[(0, &connect)], false, NEVER, &["leads disconnected"]);
    }

    #[test]
    fn a_link_of_ours_that_is_gone_is_noticed() {
        let connect = |view: &mut View| put(view, &connected(Some(OWN)));
        check(false, &[(0, &connect), (900, &nothing)], true, NEVER, &["leads", "leads"]);
        check(false, &[(0, &connect)], false, NEVER, &["leads disconnected"]);
    }

    #[test]
    fn an_instance_is_lost_after_it_was_seen_to_be_away_for_long() {
        let away = |view: &mut View| put(view, &connected(None));
        let back = |view: &mut View| put(view, &connected(Some(OWN)));
        let steps: [Step<'_>; 3] = [(9000, &away), (9599, &nothing), (9600, &nothing)];
        check(false, &steps, true, NEVER, &["leads", "leads", "leads lost"]);
        let steps: [Step<'_>; 4] = [(0, &away), (599, &back), (600, &away), (1100, &nothing)];
        check(false, &steps, true, NEVER, &["leads", "leads", "leads", "leads"]);
    }

    #[test]
    fn what_is_said_of_a_lost_instance() {
        assert_eq!(why_lost(&instance(1, 1, 1)).reason, INSTANCE_LOST);
    }
}
