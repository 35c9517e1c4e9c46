//! Resource policies: no secret has one yet. Follows
//! <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetResourcePolicy.html>.

use super::in_use;
use crate::api::Call;
use longshore_secretsmanager as secretsmanager;
use longshore_wire::Fault;

pub async fn get(
    call: Call,
    request: secretsmanager::GetResourcePolicyRequest,
) -> Result<secretsmanager::GetResourcePolicyResponse, Fault> {
    let secretsmanager::GetResourcePolicyRequest { secret_id } = request;
    let view = call.context.view();
    let secret = in_use(&view, call.scope(), &secret_id)?;
    Ok(secretsmanager::GetResourcePolicyResponse {
        arn: Some(secret.arn()),
        name: Some(secret.name.clone()),
        resource_policy: secret.policy.clone(),
    })
}
