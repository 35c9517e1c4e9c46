//! Stages moved from one version to another. Follows
//! <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_UpdateSecretVersionStage.html>.

use super::value::{CURRENT, move_stage};
use super::{change, invalid, missing};
use crate::api::Call;
use longshore_secretsmanager as secretsmanager;
use longshore_wire::Fault;

pub async fn update(
    call: Call,
    request: secretsmanager::UpdateSecretVersionStageRequest,
) -> Result<secretsmanager::UpdateSecretVersionStageResponse, Fault> {
    let secretsmanager::UpdateSecretVersionStageRequest {
        secret_id,
        version_stage: stage,
        remove_from_version_id: from,
        move_to_version_id: to,
    } = request;
    let now = call.context.now();
    let (secret, ()) = change(&call, &secret_id, |secret| {
        let holder = secret.versions.iter().find(|version| version.stages.contains(&stage));
        let holder = holder.map(|version| version.id.clone());
        let is_known = |to: &&String| secret.versions.iter().any(|version| version.id == **to);
        if let Some(unknown) = to.as_ref().filter(|to| !is_known(to)) {
            return Err(missing(format!(
                "Secrets Manager can't find the specified secret value for VersionId: {unknown}"
            )));
        }
        if holder != to && holder != from {
            let holder = holder.unwrap_or_else(|| "no version".to_owned());
            return Err(invalid(format!(
                "The parameter RemoveFromVersionId is required, and must be the version that the staging label {stage} is \
                 attached to: {holder}."
            )));
        }
        if to.is_none() && stage == CURRENT {
            return Err(invalid(format!("You can't remove the staging label {CURRENT}: move it to another version.")));
        }
        move_stage(secret, &stage, to.as_deref());
        secret.changed_at = now;
        Ok(())
    })
    .await?;
    Ok(secretsmanager::UpdateSecretVersionStageResponse { arn: Some(secret.arn()), name: Some(secret.name) })
}
