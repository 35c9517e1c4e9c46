//! How long events are kept. Follows
//! <https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html>.

use super::{find_group, invalid};
use crate::api::Call;
use crate::context::Context;
use crate::log_store::GroupId;
use longshore_logs as logs;
use longshore_model::Timestamp;
use longshore_model::log_group::LogGroup;

const DAYS: [u32; 22] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];
const DAY: i64 = 24 * 60 * 60 * 1000;

pub async fn put(call: Call, request: logs::PutRetentionPolicyRequest) -> Result<(), logs::Error> {
    let logs::PutRetentionPolicyRequest { log_group_name, retention_in_days } = request;
    let days = u32::try_from(retention_in_days).ok().filter(|days| DAYS.contains(days));
    let days = days.ok_or_else(|| {
        let valid: Vec<String> = DAYS.iter().map(u32::to_string).collect();
        invalid(format!(
            "1 validation error detected: Value '{retention_in_days}' at 'retentionInDays' failed to satisfy \
             constraint: Member must satisfy enum value set: [{}]",
            valid.join(", ")
        ))
    })?;
    set(call, &log_group_name, Some(days)).await
}

pub async fn delete(call: Call, request: logs::DeleteRetentionPolicyRequest) -> Result<(), logs::Error> {
    let logs::DeleteRetentionPolicyRequest { log_group_name } = request;
    set(call, &log_group_name, None).await
}

async fn set(call: Call, group: &str, retention_days: Option<u32>) -> Result<(), logs::Error> {
    call.context
        .commit(|snapshot, transaction| {
            let group = find_group(&snapshot.view, call.scope(), group)?;
            if group.retention_days != retention_days {
                transaction.update(&LogGroup { retention_days, ..(*group).clone() });
            }
            Ok(())
        })
        .await
}

/// Deletes the events that are past their group's retention.
pub async fn apply_retention(context: &Context, now: Timestamp) {
    for group in context.view().log_groups.iter() {
        let Some(days) = group.retention_days else { continue };
        let before = now.plus_millis(-i64::from(days) * DAY);
        let id = GroupId::new(group.scope.clone(), group.name.clone());
        if let Err(error) = context.log_store.retain(&id, before).await {
            tracing::warn!(error = &error as &dyn std::error::Error, group = %id, "events past their retention stay");
        }
    }
}
