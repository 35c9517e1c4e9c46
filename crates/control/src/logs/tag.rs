//! Tags of log groups, by the present calls and by the older ones that name the group.

use super::{find_group, group_of_identifier, invalid};
use crate::api::Call;
use longshore_logs as logs;
use longshore_model::Tags;
use longshore_model::log_group::LogGroup;
use longshore_model::tag::LIMIT;
use std::collections::BTreeMap;

pub fn checked(tags: BTreeMap<String, String>) -> Result<Tags, logs::Error> {
    if let Some(key) = tags.keys().find(|key| key.to_ascii_lowercase().starts_with("aws:")) {
        return Err(invalid(format!("The tag key '{key}' starts with aws:, which only AWS may use.")));
    }
    if tags.len() > LIMIT {
        return Err(too_many());
    }
    Ok(Tags(tags))
}

fn too_many() -> logs::Error {
    logs::Error::TooManyTagsException {
        message: format!("The maximum number of tags on a resource is {LIMIT}."),
        resource_name: None,
    }
}

pub async fn tag(call: Call, request: logs::TagResourceRequest) -> Result<(), logs::Error> {
    let logs::TagResourceRequest { resource_arn, tags } = request;
    let group = group_of_identifier(call.scope(), &resource_arn)?;
    add(call, &group, tags).await
}

pub async fn tag_group(call: Call, request: logs::TagLogGroupRequest) -> Result<(), logs::Error> {
    let logs::TagLogGroupRequest { log_group_name, tags } = request;
    add(call, &log_group_name, tags).await
}

pub async fn untag(call: Call, request: logs::UntagResourceRequest) -> Result<(), logs::Error> {
    let logs::UntagResourceRequest { resource_arn, tag_keys } = request;
    let group = group_of_identifier(call.scope(), &resource_arn)?;
    remove(call, &group, &tag_keys).await
}

pub async fn untag_group(call: Call, request: logs::UntagLogGroupRequest) -> Result<(), logs::Error> {
    let logs::UntagLogGroupRequest { log_group_name, tags } = request;
    remove(call, &log_group_name, &tags).await
}

pub async fn list(
    call: Call,
    request: logs::ListTagsForResourceRequest,
) -> Result<logs::ListTagsForResourceResponse, logs::Error> {
    let logs::ListTagsForResourceRequest { resource_arn } = request;
    let group = group_of_identifier(call.scope(), &resource_arn)?;
    let group = find_group(&call.context.view(), call.scope(), &group)?;
    Ok(logs::ListTagsForResourceResponse { tags: Some(group.tags.0.clone()) })
}

pub async fn list_group(
    call: Call,
    request: logs::ListTagsLogGroupRequest,
) -> Result<logs::ListTagsLogGroupResponse, logs::Error> {
    let logs::ListTagsLogGroupRequest { log_group_name } = request;
    let group = find_group(&call.context.view(), call.scope(), &log_group_name)?;
    Ok(logs::ListTagsLogGroupResponse { tags: Some(group.tags.0.clone()) })
}

async fn add(call: Call, group: &str, tags: BTreeMap<String, String>) -> Result<(), logs::Error> {
    let more = checked(tags)?;
    write(call, group, |tags| tags.with(more.clone()).map_err(|_| too_many())).await
}

async fn remove(call: Call, group: &str, keys: &[String]) -> Result<(), logs::Error> {
    write(call, group, |tags| Ok(tags.without(keys))).await
}

async fn write(
    call: Call,
    group: &str,
    change: impl Fn(&Tags) -> Result<Tags, logs::Error>,
) -> Result<(), logs::Error> {
    call.context
        .commit(|snapshot, transaction| {
            let group = find_group(&snapshot.view, call.scope(), group)?;
            let tags = change(&group.tags)?;
            if tags != group.tags {
                transaction.update(&LogGroup { tags, ..(*group).clone() });
            }
            Ok(())
        })
        .await
}
