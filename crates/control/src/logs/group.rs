//! Log groups.

use super::{find_group, group_id, invalid, limit, tag};
use crate::api::Call;
use crate::refuse::{Given, unsupported};
use longshore_logs as logs;
use longshore_model::Record;
use longshore_model::log_group::LogGroup;

pub async fn create(call: Call, request: logs::CreateLogGroupRequest) -> Result<(), logs::Error> {
    let logs::CreateLogGroupRequest {
        log_group_name,
        kms_key_id,
        tags,
        log_group_class,
        deletion_protection_enabled,
    } = request;
    unsupported(&[
        ("kmsKeyId", kms_key_id.given()),
        ("deletionProtectionEnabled", deletion_protection_enabled.given()),
        (
            "logGroupClass other than STANDARD",
            log_group_class.is_some_and(|class| class != logs::LogGroupClass::Standard),
        ),
    ])
    .map_err(invalid)?;
    let group = LogGroup {
        scope: call.scope().clone(),
        name: log_group_name,
        retention_days: None,
        tags: tag::checked(tags.unwrap_or_default())?,
        created_at: call.context.now(),
    };
    call.context
        .commit(|snapshot, transaction| {
            if snapshot.view.log_groups.get(&group.key()).is_some() {
                return Err(logs::Error::ResourceAlreadyExistsException(
                    "The specified log group already exists".to_owned(),
                ));
            }
            transaction.create(&group);
            Ok(())
        })
        .await
}

pub async fn delete(call: Call, request: logs::DeleteLogGroupRequest) -> Result<(), logs::Error> {
    let logs::DeleteLogGroupRequest { log_group_name } = request;
    call.context
        .commit(|snapshot, transaction| {
            let group = find_group(&snapshot.view, call.scope(), &log_group_name)?;
            transaction.delete(group.key());
            Ok::<_, logs::Error>(())
        })
        .await?;
    Ok(call.context.log_store.delete_group(&group_id(&call, &log_group_name)).await?)
}

pub async fn describe(
    call: Call,
    request: logs::DescribeLogGroupsRequest,
) -> Result<logs::DescribeLogGroupsResponse, logs::Error> {
    let logs::DescribeLogGroupsRequest {
        account_identifiers,
        log_group_name_prefix,
        log_group_name_pattern,
        next_token,
        limit: size,
        include_linked_accounts,
        log_group_class,
        log_group_identifiers,
    } = request;
    unsupported(&[
        ("accountIdentifiers", account_identifiers.given()),
        ("includeLinkedAccounts", include_linked_accounts.given()),
    ])
    .map_err(invalid)?;
    if log_group_name_prefix.given() && log_group_name_pattern.given() {
        return Err(invalid("Give logGroupNamePrefix or logGroupNamePattern, not both."));
    }
    let size = limit(size, 50, 50)?;
    let identifiers = log_group_identifiers.unwrap_or_default();
    let identifiers: Vec<String> = identifiers
        .iter()
        .map(|identifier| super::group_of_identifier(call.scope(), identifier))
        .collect::<Result<_, _>>()?;
    let prefix = log_group_name_prefix.unwrap_or_default();
    let pattern = log_group_name_pattern.unwrap_or_default().to_lowercase();
    let wanted = |group: &LogGroup| {
        group.name.starts_with(&prefix)
            && group.name.to_lowercase().contains(&pattern)
            && (identifiers.is_empty() || identifiers.contains(&group.name))
            && log_group_class.is_none_or(|class| class == logs::LogGroupClass::Standard)
    };
    let view = call.context.view();
    let after = |group: &LogGroup| next_token.as_ref().is_none_or(|last| group.name > *last);
    let mut groups = view.log_groups.of(call.scope()).filter(|group| wanted(group) && after(group));
    let page: Vec<_> = groups.by_ref().take(size).map(|group| render(&call, group)).collect();
    let last = page.last().and_then(|group| group.log_group_name.clone());
    let next_token = groups.next().and(last);
    Ok(logs::DescribeLogGroupsResponse { log_groups: Some(page), next_token })
}

fn render(call: &Call, group: &LogGroup) -> logs::LogGroup {
    let bytes = call.context.log_store.group_bytes(&group_id(call, &group.name));
    logs::LogGroup {
        log_group_name: Some(group.name.clone()),
        creation_time: Some(group.created_at.millis()),
        retention_in_days: group.retention_days.and_then(|days| i32::try_from(days).ok()),
        metric_filter_count: Some(0),
        arn: Some(format!("{}:*", group.arn())),
        log_group_arn: Some(group.arn()),
        stored_bytes: i64::try_from(bytes).ok(),
        log_group_class: Some(logs::LogGroupClass::Standard),
        ..logs::LogGroup::default()
    }
}
