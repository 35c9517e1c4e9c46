//! Letting agents of other machines in. Invariant: what lets an agent in is compared in constant time and kept as a hash.

use crate::context::{CommitError, Context, RandomIds};
use longshore_engine::View;
use longshore_engine::admission::{self, Refused};
use longshore_model::change::Key;
use longshore_model::container_instance::Capacity;
use longshore_model::id::IdSource;
use longshore_model::join::{Administrator, Admission, Authority, JoinToken};
use longshore_model::{ContainerInstanceId, Record};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Why an agent has to stay out, or could not be let in now.
#[derive(Debug, thiserror::Error)]
pub enum NotAdmitted {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// The authority of the store, made by `make` where there is none.
pub async fn authority(context: &Context, make: impl Fn() -> Authority) -> Result<Authority, CommitError> {
    shared(context, &Authority::key_of(), |view, key| view.authorities.get(key).map(|a| (**a).clone()), make)
        .await
}

/// The administrator that the control planes of a store share, made by `make` where there is none.
pub async fn administrator(
    context: &Context,
    make: impl Fn() -> Administrator,
) -> Result<Administrator, CommitError> {
    let find = |view: &View, key: &Key| view.administrators.get(key).map(|found| (**found).clone());
    shared(context, &Administrator::key_of(), find, make).await
}

async fn shared<R: Record>(
    context: &Context,
    key: &Key,
    find: impl Fn(&View, &Key) -> Option<R>,
    make: impl Fn() -> R,
) -> Result<R, CommitError> {
    context
        .commit(|snapshot, transaction| {
            if let Some(present) = find(&snapshot.view, key) {
                return Ok(present);
            }
            let made = make();
            transaction.create(&made);
            Ok(made)
        })
        .await
}

/// Makes a token; its id and secret are for the agent's operator, and the secret is nowhere else.
pub async fn create_token(
    context: &Context,
    capacity: Capacity,
    millis: i64,
) -> Result<(String, String), CommitError> {
    let (id, secret) =
        (format!("{:016x}", RandomIds.next_u128() >> 64), format!("{:032x}", RandomIds.next_u128()));
    let now = context.now();
    let token = JoinToken {
        id: id.clone(),
        secret_hash: hash(&secret),
        capacity,
        created_at: now,
        expires_at: now.plus_millis(millis),
        used_by: None,
    };
    context
        .commit(|_, transaction| {
            transaction.create(&token);
            Ok::<_, CommitError>(())
        })
        .await?;
    Ok((id, secret))
}

/// Lets an agent in as a new instance.
pub async fn admit(context: &Context, token: &str, secret: &str) -> Result<Admission, NotAdmitted> {
    let (now, given) = (context.now(), hash(secret));
    let is_secret = |kept: &str| bool::from(kept.as_bytes().ct_eq(given.as_bytes()));
    context
        .commit(|snapshot, transaction| {
            let instance = RandomIds.container_instance();
            Ok(admission::admit(&snapshot.view, token, is_secret, instance, now, transaction)?)
        })
        .await
}

pub fn capacity_of(context: &Context, instance: ContainerInstanceId) -> Result<Capacity, Refused> {
    admission::capacity_of(&context.view(), instance)
}

fn hash(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
