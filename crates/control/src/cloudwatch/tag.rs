//! Tags of alarms. Follows
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_TagResource.html>.

use super::{alarm, invalid};
use crate::api::Call;
use longshore_cloudwatch as cloudwatch;
use longshore_engine::View;
use longshore_model::alarm::Alarm;
use longshore_model::arn::Arn;
use longshore_model::{Scope, Tags};
use longshore_wire::Fault;
use std::sync::Arc;

pub fn of_new(given: Vec<cloudwatch::Tag>) -> Result<Tags, Fault> {
    with(&Tags::default(), given)
}

fn with(present: &Tags, more: Vec<cloudwatch::Tag>) -> Result<Tags, Fault> {
    let pairs = more.into_iter().map(|cloudwatch::Tag { key, value }| (key, value));
    present.with_given(pairs).map_err(|error| invalid(error.to_string()))
}

pub async fn add(
    call: Call,
    request: cloudwatch::TagResourceInput,
) -> Result<cloudwatch::TagResourceOutput, Fault> {
    let cloudwatch::TagResourceInput { resource_arn, tags } = request;
    change(&call, &resource_arn, |present| with(present, tags.clone())).await?;
    Ok(cloudwatch::TagResourceOutput {})
}

pub async fn remove(
    call: Call,
    request: cloudwatch::UntagResourceInput,
) -> Result<cloudwatch::UntagResourceOutput, Fault> {
    let cloudwatch::UntagResourceInput { resource_arn, tag_keys } = request;
    let left = |present: &Tags| {
        let kept = present.0.iter().filter(|(key, _)| !tag_keys.contains(key));
        Ok(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
    };
    change(&call, &resource_arn, left).await?;
    Ok(cloudwatch::UntagResourceOutput {})
}

async fn change(call: &Call, arn: &str, next: impl Fn(&Tags) -> Result<Tags, Fault>) -> Result<(), Fault> {
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let present = named(&snapshot.view, call.scope(), arn)?;
        transaction.update(&Alarm { tags: next(&present.tags)?, ..(**present).clone() });
        Ok(())
    });
    commit.await
}

pub async fn list(
    call: Call,
    request: cloudwatch::ListTagsForResourceInput,
) -> Result<cloudwatch::ListTagsForResourceOutput, Fault> {
    let cloudwatch::ListTagsForResourceInput { resource_arn } = request;
    let view = call.context.view();
    let tags = &named(&view, call.scope(), &resource_arn)?.tags.0;
    let tags = tags.iter().map(|(key, value)| cloudwatch::Tag { key: key.clone(), value: value.clone() });
    Ok(cloudwatch::ListTagsForResourceOutput { tags: Some(tags.collect()) })
}

fn named<'a>(view: &'a View, scope: &Scope, arn: &str) -> Result<&'a Arc<Alarm>, Fault> {
    let parsed = Arn::parse(arn).filter(|arn| arn.service == "cloudwatch");
    let name = parsed.and_then(|arn| arn.resource.strip_prefix("alarm:"));
    let found = name.and_then(|name| alarm::find(view, scope, name)).filter(|found| found.arn() == arn);
    found.ok_or_else(|| {
        let message = format!("Resource {arn} does not exist.");
        let (resource_type, resource_id) = (None, Some(arn.to_owned()));
        cloudwatch::Error::ResourceNotFoundException { message, resource_type, resource_id }.into()
    })
}
