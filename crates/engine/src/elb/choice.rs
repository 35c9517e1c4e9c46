//! Where a request goes: to which group by weight, and to which of its targets.
//!
//! Invariant: a target that drains is never chosen, and one that is not healthy only while none is.

use longshore_model::elb::{ForwardGroup, HealthState, Target};

/// The group whose part of all the weights a number falls in; `None` when none has any.
pub fn group(groups: &[ForwardGroup], number: u64) -> Option<usize> {
    let all: u64 = groups.iter().map(|group| u64::from(group.weight)).sum();
    let mut left = number.checked_rem(all)?;
    groups.iter().position(|group| {
        let weight = u64::from(group.weight);
        let falls_here = left < weight;
        left = left.saturating_sub(weight);
        falls_here
    })
}

/// The targets that requests are spread over: the healthy ones, and all when there is none, for then the checks may be
/// what is wrong.
pub fn eligible<T>(targets: &[T], of: impl Fn(&T) -> &Target) -> Vec<&T> {
    let registered = |target: &&T| of(target).deregistered_at.is_none();
    let healthy = |target: &&T| of(target).health.state == HealthState::Healthy;
    let chosen: Vec<&T> = targets.iter().filter(registered).filter(healthy).collect();
    if chosen.is_empty() { targets.iter().filter(registered).collect() } else { chosen }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_model::elb::TargetHealth;
    use longshore_model::{Scope, Timestamp};
    use std::net::Ipv4Addr;

    #[test]
    fn numbers_fall_by_weight() {
        let groups = |weights: &[u32]| -> Vec<ForwardGroup> {
            weights
                .iter()
                .map(|weight| ForwardGroup { target_group: String::new(), weight: *weight })
                .collect()
        };
        let spread = |weights: &[u32]| -> Vec<Option<usize>> {
            (0..4).map(|number| group(&groups(weights), number)).collect()
        };
        assert_eq!(spread(&[1, 3]), [Some(0), Some(1), Some(1), Some(1)]);
        assert_eq!(spread(&[0, 5]), [Some(1); 4]);
        assert_eq!(spread(&[0, 0]), [None; 4]);
        assert_eq!(spread(&[]), [None; 4]);
    }

    fn target(id: &str, state: HealthState, drains: bool) -> Target {
        Target {
            scope: Scope::new("123456789012", "us-east-1"),
            target_group: "g".to_owned(),
            id: id.to_owned(),
            port: 80,
            address: Ipv4Addr::LOCALHOST,
            availability_zone: None,
            task: None,
            health: TargetHealth { state, ..TargetHealth::initial() },
            registered_at: Timestamp(0),
            deregistered_at: drains.then_some(Timestamp(1)),
        }
    }

    #[track_caller]
    fn check(targets: &[Target], expected: &[&str]) {
        let ids: Vec<&str> =
            eligible(targets, |target| target).iter().map(|target| target.id.as_str()).collect();
        assert_eq!(ids, expected);
    }

    #[test]
    fn who_is_sent_to() {
        use HealthState::{Healthy, Initial, Unhealthy};
        check(&[target("a", Healthy, false), target("b", Unhealthy, false)], &["a"]);
        check(&[target("a", Initial, false), target("b", Unhealthy, false)], &["a", "b"]);
        check(&[target("a", Healthy, true), target("b", Unhealthy, false)], &["b"]);
        check(&[target("a", Healthy, true)], &[]);
    }
}
