//! AWS STS: who is calling.

use crate::api::{Call, Routes};
use longshore_sts as sts;
use longshore_sts::operations;
use longshore_wire::Fault;

pub fn routes() -> Routes {
    Routes::new(&sts::SERVICE).on::<operations::GetCallerIdentity, _, _, _>(get_caller_identity)
}

async fn get_caller_identity(
    call: Call,
    request: sts::GetCallerIdentityRequest,
) -> Result<sts::GetCallerIdentityResponse, Fault> {
    let sts::GetCallerIdentityRequest {} = request;
    Ok(sts::GetCallerIdentityResponse {
        user_id: Some(call.caller.user_id()),
        account: Some(call.caller.scope.account.to_string()),
        arn: Some(call.caller.arn()),
    })
}
