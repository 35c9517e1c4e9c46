//! Tags of secrets. Follows
//! <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_TagResource.html>.

use super::{change, invalid};
use crate::api::Call;
use longshore_model::Tags;
use longshore_secretsmanager as secretsmanager;
use longshore_wire::Fault;

pub fn with(present: &Tags, more: Vec<secretsmanager::Tag>) -> Result<Tags, Fault> {
    let pair = |secretsmanager::Tag { key, value }| (key.unwrap_or_default(), value.unwrap_or_default());
    present.with_given(more.into_iter().map(pair)).map_err(|error| invalid(error.to_string()))
}

pub fn render(tags: &Tags) -> Vec<secretsmanager::Tag> {
    let tag = |(key, value): (&String, &String)| secretsmanager::Tag {
        key: Some(key.clone()),
        value: Some(value.clone()),
    };
    tags.0.iter().map(tag).collect()
}

pub async fn add(call: Call, request: secretsmanager::TagResourceRequest) -> Result<(), Fault> {
    let secretsmanager::TagResourceRequest { secret_id, tags } = request;
    change(&call, &secret_id, |secret| {
        secret.tags = with(&secret.tags, tags.clone())?;
        Ok(())
    })
    .await?;
    Ok(())
}

pub async fn remove(call: Call, request: secretsmanager::UntagResourceRequest) -> Result<(), Fault> {
    let secretsmanager::UntagResourceRequest { secret_id, tag_keys } = request;
    change(&call, &secret_id, |secret| {
        secret.tags.0.retain(|key, _| !tag_keys.contains(key));
        Ok(())
    })
    .await?;
    Ok(())
}
