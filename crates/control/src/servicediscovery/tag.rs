//! Tags of namespaces and services. Follows <https://docs.aws.amazon.com/cloud-map/latest/api/API_TagResource.html>.

use super::invalid;
use crate::api::Call;
use longshore_engine::View;
use longshore_model::discovery::{DiscoveryService, Namespace, id_in};
use longshore_model::{Scope, Tags, Transaction, tag as limits};
use longshore_servicediscovery as sd;
use longshore_wire::Fault;
use std::sync::Arc;

/// The tags of a resource that a request makes.
pub fn of_new(given: Option<Vec<sd::Tag>>) -> Result<Tags, Fault> {
    Tags::default().with(parse(given.unwrap_or_default())?).map_err(|limits::Error::TooMany| too_many(None))
}

fn parse(given: Vec<sd::Tag>) -> Result<Tags, Fault> {
    let mut parsed = Tags::default();
    for sd::Tag { key, value } in given {
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(invalid(format!("The tag key '{key}' starts with aws:, which only AWS may use.")));
        }
        if parsed.0.insert(key.clone(), value).is_some() {
            return Err(invalid(format!("The tag key '{key}' is given more than once.")));
        }
    }
    Ok(parsed)
}

fn too_many(resource: Option<&str>) -> Fault {
    sd::Error::TooManyTagsException {
        message: limits::Error::TooMany.to_string(),
        resource_name: resource.map(str::to_owned),
    }
    .into()
}

pub async fn tag(call: Call, request: sd::TagResourceRequest) -> Result<sd::TagResourceResponse, Fault> {
    let sd::TagResourceRequest { resource_arn, tags } = request;
    let more = parse(tags)?;
    change(&call, &resource_arn, |present| {
        present.with(more.clone()).map_err(|limits::Error::TooMany| too_many(Some(&resource_arn)))
    })
    .await?;
    Ok(sd::TagResourceResponse {})
}

pub async fn untag(
    call: Call,
    request: sd::UntagResourceRequest,
) -> Result<sd::UntagResourceResponse, Fault> {
    let sd::UntagResourceRequest { resource_arn, tag_keys } = request;
    change(&call, &resource_arn, |present| Ok(present.without(&tag_keys))).await?;
    Ok(sd::UntagResourceResponse {})
}

pub async fn list(
    call: Call,
    request: sd::ListTagsForResourceRequest,
) -> Result<sd::ListTagsForResourceResponse, Fault> {
    let sd::ListTagsForResourceRequest { resource_arn } = request;
    let view = call.context.view();
    let tags = match Tagged::find(&view, call.scope(), &resource_arn)? {
        Tagged::Namespace(namespace) => &namespace.tags,
        Tagged::Service(service) => &service.tags,
    };
    let tags = tags.0.iter().map(|(key, value)| sd::Tag { key: key.clone(), value: value.clone() });
    Ok(sd::ListTagsForResourceResponse { tags: Some(tags.collect()) })
}

enum Tagged<'a> {
    Namespace(&'a Arc<Namespace>),
    Service(&'a Arc<DiscoveryService>),
}

impl<'a> Tagged<'a> {
    fn find(view: &'a View, scope: &Scope, arn: &str) -> Result<Self, Fault> {
        let id = |kind| id_in(scope, kind, arn).filter(|_| arn.starts_with("arn:"));
        let namespace = id("namespace").and_then(|id| view.namespaces.get(&Namespace::key_of(scope, id)));
        let service =
            id("service").and_then(|id| view.discovery_services.get(&DiscoveryService::key_of(scope, id)));
        let found = namespace.map(Self::Namespace).or(service.map(Self::Service));
        found.ok_or_else(|| {
            sd::Error::ResourceNotFoundException(format!("The resource {arn} does not exist.")).into()
        })
    }
}

async fn change(call: &Call, arn: &str, next: impl Fn(&Tags) -> Result<Tags, Fault>) -> Result<(), Fault> {
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction: &mut Transaction| {
        match Tagged::find(&snapshot.view, call.scope(), arn)? {
            Tagged::Namespace(present) => {
                transaction.update(&Namespace { tags: next(&present.tags)?, ..(**present).clone() });
            }
            Tagged::Service(present) => {
                transaction.update(&DiscoveryService { tags: next(&present.tags)?, ..(**present).clone() });
            }
        }
        Ok(())
    });
    commit.await
}
