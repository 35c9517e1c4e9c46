//! Secrets go after a while in which they can be had back. Follows
//! <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_DeleteSecret.html>.

use super::{find, invalid, named, not_now};
use crate::api::Call;
use longshore_model::Record as _;
use longshore_model::secret::{Deletion, Secret};
use longshore_secretsmanager as secretsmanager;
use longshore_wire::{Fault, Timestamp};

/// Days.
const WINDOW: i64 = 30;
const DAY: i64 = 24 * 3600 * 1000;

pub async fn delete(
    call: Call,
    request: secretsmanager::DeleteSecretRequest,
) -> Result<secretsmanager::DeleteSecretResponse, Fault> {
    let secretsmanager::DeleteSecretRequest {
        secret_id,
        recovery_window_in_days: window,
        force_delete_without_recovery: force,
    } = request;
    let force = force.unwrap_or(false);
    if force && window.is_some() {
        return Err(invalid(
            "You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.",
        ));
    }
    if window.is_some_and(|days| !(7..=30).contains(&days)) {
        return Err(invalid("The RecoveryWindowInDays value must be between 7 and 30 days (inclusive)."));
    }
    let now = call.context.now();
    let goes_at = if force { now } else { now.plus_millis(window.unwrap_or(WINDOW) * DAY) };
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        if force {
            let present = find(view, call.scope(), &secret_id);
            if let Some(present) = present {
                transaction.delete(present.key());
            }
            return Ok(present.map(|present| (present.arn(), present.name.clone())));
        }
        let present = named(view, call.scope(), &secret_id)?;
        if present.deleted.is_some() {
            return Err(not_now(
                "You can't perform this operation on the secret because it was already scheduled for deletion.",
            ));
        }
        let deleted = Some(Deletion { marked_at: now, goes_at });
        transaction.update(&Secret { deleted, ..Secret::clone(present) });
        Ok(Some((present.arn(), present.name.clone())))
    });
    // One that is not there, or not any more, is as gone as it was to be.
    let (arn, name) = commit.await?.map_or((None, secret_id.clone()), |(arn, name)| (Some(arn), name));
    Ok(secretsmanager::DeleteSecretResponse {
        arn,
        name: Some(name),
        deletion_date: Some(Timestamp(goes_at.millis())),
    })
}

pub async fn restore(
    call: Call,
    request: secretsmanager::RestoreSecretRequest,
) -> Result<secretsmanager::RestoreSecretResponse, Fault> {
    let secretsmanager::RestoreSecretRequest { secret_id } = request;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let present = named(&snapshot.view, call.scope(), &secret_id)?;
        if present.deleted.is_some() {
            transaction.update(&Secret { deleted: None, ..Secret::clone(present) });
        }
        Ok((present.arn(), present.name.clone()))
    });
    let (arn, name) = commit.await?;
    Ok(secretsmanager::RestoreSecretResponse { arn: Some(arn), name: Some(name) })
}
