//! Tags of certificates. Follows
//! <https://docs.aws.amazon.com/acm/latest/APIReference/API_AddTagsToCertificate.html>.

use super::named;
use crate::api::Call;
use longshore_acm as acm;
use longshore_model::Tags;
use longshore_model::certificate::Certificate;
use longshore_model::tag::GivenError;
use longshore_wire::Fault;

pub fn of_new(given: Vec<acm::Tag>) -> Result<Tags, Fault> {
    with(&Tags::default(), given)
}

fn with(present: &Tags, more: Vec<acm::Tag>) -> Result<Tags, Fault> {
    let pairs = more.into_iter().map(|acm::Tag { key, value }| (key, value.unwrap_or_default()));
    present.with_given(pairs).map_err(|error| match error {
        GivenError::Reserved(_) => acm::Error::InvalidTagException(error.to_string()).into(),
        GivenError::TooMany => acm::Error::TooManyTagsException(error.to_string()).into(),
    })
}

pub async fn add(call: Call, request: acm::AddTagsToCertificateRequest) -> Result<(), Fault> {
    let acm::AddTagsToCertificateRequest { certificate_arn: arn, tags } = request;
    change(&call, &arn, |present| with(present, tags.clone())).await
}

pub async fn remove(call: Call, request: acm::RemoveTagsFromCertificateRequest) -> Result<(), Fault> {
    let acm::RemoveTagsFromCertificateRequest { certificate_arn: arn, tags } = request;
    // A tag that is named with a value goes only if it has that value.
    let goes = |key: &String, value: &String| {
        tags.iter().any(|tag| tag.key == *key && tag.value.as_ref().is_none_or(|wanted| wanted == value))
    };
    let left = |present: &Tags| {
        let kept = present.0.iter().filter(|(key, value)| !goes(key, value));
        Ok(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
    };
    change(&call, &arn, left).await
}

async fn change(call: &Call, arn: &str, next: impl Fn(&Tags) -> Result<Tags, Fault>) -> Result<(), Fault> {
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let present = named(&snapshot.view, call.scope(), arn)?;
        transaction.update(&Certificate { tags: next(&present.tags)?, ..(**present).clone() });
        Ok(())
    });
    commit.await
}

pub async fn list(
    call: Call,
    request: acm::ListTagsForCertificateRequest,
) -> Result<acm::ListTagsForCertificateResponse, Fault> {
    let acm::ListTagsForCertificateRequest { certificate_arn: arn } = request;
    let view = call.context.view();
    let tags = &named(&view, call.scope(), &arn)?.tags.0;
    let tags = tags.iter().map(|(key, value)| acm::Tag { key: key.clone(), value: Some(value.clone()) });
    Ok(acm::ListTagsForCertificateResponse { tags: Some(tags.collect()) })
}
