//! Tags of parameters. Follows
//! <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_AddTagsToResource.html>.

use super::{invalid, parameter};
use crate::api::Call;
use longshore_engine::View;
use longshore_model::secret::Parameter;
use longshore_model::tag::GivenError;
use longshore_model::{Scope, Tags};
use longshore_ssm as ssm;
use longshore_wire::Fault;
use std::sync::Arc;

pub fn with(present: &Tags, more: Vec<ssm::Tag>) -> Result<Tags, Fault> {
    let pairs = more.into_iter().map(|ssm::Tag { key, value }| (key, value));
    present.with_given(pairs).map_err(|error| match error {
        GivenError::Reserved(_) => invalid(error.to_string()),
        GivenError::TooMany => ssm::Error::TooManyTagsError(error.to_string()).into(),
    })
}

pub async fn add(
    call: Call,
    request: ssm::AddTagsToResourceRequest,
) -> Result<ssm::AddTagsToResourceResult, Fault> {
    let ssm::AddTagsToResourceRequest { resource_type, resource_id, tags } = request;
    change(&call, resource_type, &resource_id, |present| with(present, tags.clone())).await?;
    Ok(ssm::AddTagsToResourceResult {})
}

pub async fn remove(
    call: Call,
    request: ssm::RemoveTagsFromResourceRequest,
) -> Result<ssm::RemoveTagsFromResourceResult, Fault> {
    let ssm::RemoveTagsFromResourceRequest { resource_type, resource_id, tag_keys } = request;
    let left = |present: &Tags| {
        let kept = present.0.iter().filter(|(key, _)| !tag_keys.contains(key));
        Ok(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
    };
    change(&call, resource_type, &resource_id, left).await?;
    Ok(ssm::RemoveTagsFromResourceResult {})
}

async fn change(
    call: &Call,
    kind: ssm::ResourceTypeForTagging,
    id: &str,
    next: impl Fn(&Tags) -> Result<Tags, Fault>,
) -> Result<(), Fault> {
    check_kind(kind)?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let present = named(&snapshot.view, call.scope(), id)?;
        transaction.update(&Parameter { tags: next(&present.tags)?, ..Parameter::clone(present) });
        Ok(())
    });
    commit.await
}

pub async fn list(
    call: Call,
    request: ssm::ListTagsForResourceRequest,
) -> Result<ssm::ListTagsForResourceResult, Fault> {
    let ssm::ListTagsForResourceRequest { resource_type, resource_id } = request;
    check_kind(resource_type)?;
    let view = call.context.view();
    let tags = &named(&view, call.scope(), &resource_id)?.tags.0;
    let tags = tags.iter().map(|(key, value)| ssm::Tag { key: key.clone(), value: value.clone() });
    Ok(ssm::ListTagsForResourceResult { tag_list: Some(tags.collect()) })
}

fn check_kind(kind: ssm::ResourceTypeForTagging) -> Result<(), Fault> {
    match kind {
        ssm::ResourceTypeForTagging::Parameter => Ok(()),
        other => {
            let message =
                format!("Resources of the type {} have no tags here: only parameters do.", other.as_str());
            Err(ssm::Error::InvalidResourceType(message).into())
        }
    }
}

fn named<'a>(view: &'a View, scope: &Scope, id: &str) -> Result<&'a Arc<Parameter>, Fault> {
    let missing = || {
        let message = format!("The resource ID '{id}' is not valid. Verify that it is a parameter's name.");
        Fault::from(ssm::Error::InvalidResourceId(message))
    };
    parameter(view, scope, id).ok_or_else(missing)
}
