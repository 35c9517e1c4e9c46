//! Whether an agent of another machine is let in. Invariant: a token lets one agent in, once, before it expires.

use crate::view::View;
use longshore_model::container_instance::{Capacity, Membership, Status};
use longshore_model::join::{Admission, JoinToken};
use longshore_model::task::LaunchType;
use longshore_model::{ContainerInstanceId, Timestamp, Transaction};

/// Why an agent is not let in, for the one who started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the token is unknown: make one with `longshore token create`")]
    Unknown,
    #[error("the token has expired: make a new one with `longshore token create`")]
    Expired,
    #[error("the token was used already: make one for each agent with `longshore token create`")]
    Used,
    #[error("the container instance was never let in: start its agent with a token")]
    Stranger,
    #[error(
        "the container instance was deregistered: remove the agent's data directory, and start it with a new token"
    )]
    Deregistered,
}

/// Lets an agent in as a new instance. `is_secret` compares a token's hash with that of what the agent gave.
pub fn admit(
    view: &View,
    token: &str,
    is_secret: impl Fn(&str) -> bool,
    instance: ContainerInstanceId,
    now: Timestamp,
    transaction: &mut Transaction,
) -> Result<Admission, Refused> {
    let token = view.join_tokens.get(&JoinToken::key_of(token)).ok_or(Refused::Unknown)?;
    if !is_secret(&token.secret_hash) {
        return Err(Refused::Unknown);
    }
    if token.used_by.is_some() {
        return Err(Refused::Used);
    }
    if token.expires_at <= now {
        return Err(Refused::Expired);
    }
    let admission = Admission { instance, capacity: named(&token.capacity, instance), admitted_at: now };
    transaction.update(&JoinToken { used_by: Some(instance), ..(**token).clone() });
    transaction.create(&admission);
    Ok(admission)
}

/// What an instance that was let in is for.
pub fn capacity_of(view: &View, instance: ContainerInstanceId) -> Result<Capacity, Refused> {
    let admission = view.admissions.get(&Admission::key_of(instance)).ok_or(Refused::Stranger)?;
    let present = view.container_instance(instance).and_then(|present| present.membership());
    if present.is_some_and(|member| member.status == Status::Inactive) {
        return Err(Refused::Deregistered);
    }
    Ok(admission.capacity.clone())
}

/// Tokens that let nobody in any more and that nobody asks about.
pub fn is_old(token: &JoinToken, now: Timestamp) -> bool {
    const KEPT: i64 = 24 * 60 * 60 * 1000;
    token.expires_at.plus_millis(KEPT) <= now
}

/// As EC2 and Systems Manager name instances, from the instance's own id.
fn named(capacity: &Capacity, instance: ContainerInstanceId) -> Capacity {
    let Capacity::Cluster(member) = capacity else { return capacity.clone() };
    let digits: String = instance.to_string().chars().take(16).collect();
    let prefix = if member.launch_type == LaunchType::External { "mi" } else { "i" };
    Capacity::Cluster(Membership { ec2_instance_id: Some(format!("{prefix}-0{digits}")), ..member.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{apply, instance, scope, view};
    use longshore_model::Version;
    use longshore_model::container_instance::ContainerInstance;

    fn member(status: Status) -> Capacity {
        Capacity::Cluster(Membership {
            scope: scope(),
            cluster: "default".to_owned(),
            launch_type: LaunchType::External,
            ec2_instance_id: None,
            launched: false,
            capacity_provider: None,
            status,
        })
    }

    fn with_token() -> View {
        let mut view = view(&[]);
        let mut transaction = Transaction::at(Version(0));
        transaction.create(&JoinToken {
            id: "t".to_owned(),
            secret_hash: "right".to_owned(),
            capacity: member(Status::Active),
            created_at: Timestamp(0),
            expires_at: Timestamp(100),
            used_by: None,
        });
        apply(&mut view, transaction);
        view
    }

    fn try_to(view: &mut View, token: &str, secret: &str, now: i64) -> Result<Admission, Refused> {
        let mut transaction = Transaction::at(Version(1));
        let id = ContainerInstanceId(7 << 120);
        let admitted = admit(view, token, |hash| hash == secret, id, Timestamp(now), &mut transaction);
        apply(view, transaction);
        admitted
    }

    #[test]
    fn a_token_lets_one_agent_in_once() {
        let mut view = with_token();
        assert_eq!(try_to(&mut view, "other", "right", 1), Err(Refused::Unknown));
        assert_eq!(try_to(&mut view, "t", "wrong", 1), Err(Refused::Unknown));
        assert_eq!(try_to(&mut view, "t", "right", 100), Err(Refused::Expired));
        let admission = try_to(&mut view, "t", "right", 99).unwrap();
        let Capacity::Cluster(member) = admission.capacity else { panic!("it belongs to a cluster") };
        assert_eq!(member.ec2_instance_id.as_deref(), Some("mi-00700000000000000"));
        assert_eq!(try_to(&mut view, "t", "right", 99), Err(Refused::Used));
        assert!(capacity_of(&view, admission.instance).is_ok());
    }

    #[test]
    fn who_was_not_let_in_or_was_sent_away_stays_out() {
        let mut view = with_token();
        assert_eq!(capacity_of(&view, ContainerInstanceId(1)), Err(Refused::Stranger));
        let id = try_to(&mut view, "t", "right", 1).unwrap().instance;
        let gone = ContainerInstance { capacity: member(Status::Inactive), ..instance(id.0, 1, 1) };
        let mut transaction = Transaction::at(Version(1));
        transaction.create(&gone);
        apply(&mut view, transaction);
        assert_eq!(capacity_of(&view, id), Err(Refused::Deregistered));
    }
}
