//! Tags. Follows <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_AddTags.html>.

use super::{invalid, reference, refuse};
use crate::api::Call;
use longshore_elbv2 as elb;
use longshore_engine::View;
use longshore_model::elb::{Listener, ListenerRule, LoadBalancer, TargetGroup};
use longshore_model::{Scope, Tags, Transaction, tag};
use longshore_wire::Fault;
use std::sync::Arc;

/// Resources that one request describes.
const MOST: usize = 20;

/// The tags of a resource that a request makes.
pub fn of_new(given: Option<Vec<elb::Tag>>) -> Result<Tags, Fault> {
    with(&Tags::default(), given.unwrap_or_default())
}

fn with(present: &Tags, more: Vec<elb::Tag>) -> Result<Tags, Fault> {
    let mut given = Tags::default();
    for elb::Tag { key, value } in more {
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(invalid(format!(
                "Tag key '{key}' cannot begin with 'aws:', which is reserved for AWS"
            )));
        }
        if given.0.contains_key(&key) {
            let message = format!("Tag key was specified more than once: {key}");
            return Err(elb::Error::DuplicateTagKeysException(message).into());
        }
        given.0.insert(key, value.unwrap_or_default());
    }
    present.with(given).map_err(|tag::Error::TooMany| {
        let message = format!("The maximum number of tags on a resource is {}", tag::LIMIT);
        elb::Error::TooManyTagsException(message).into()
    })
}

pub async fn add(call: Call, request: elb::AddTagsInput) -> Result<elb::AddTagsOutput, Fault> {
    let elb::AddTagsInput { resource_arns, tags } = request;
    change(&call, &resource_arns, |present| with(present, tags.clone())).await?;
    Ok(elb::AddTagsOutput {})
}

pub async fn remove(call: Call, request: elb::RemoveTagsInput) -> Result<elb::RemoveTagsOutput, Fault> {
    let elb::RemoveTagsInput { resource_arns, tag_keys } = request;
    change(&call, &resource_arns, |present| Ok(present.without(&tag_keys))).await?;
    Ok(elb::RemoveTagsOutput {})
}

/// Changes the tags of all of the resources, or of none.
async fn change(
    call: &Call,
    arns: &[String],
    next: impl Fn(&Tags) -> Result<Tags, Fault>,
) -> Result<(), Fault> {
    let mut arns: Vec<&String> = arns.iter().collect();
    arns.sort();
    arns.dedup();
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        arns.iter().try_for_each(|arn| {
            let resource = Resource::find(&snapshot.view, call.scope(), arn)?;
            resource.retag(next(&resource.tags())?, transaction)
        })
    });
    commit.await
}

pub async fn describe(call: Call, request: elb::DescribeTagsInput) -> Result<elb::DescribeTagsOutput, Fault> {
    let elb::DescribeTagsInput { resource_arns } = request;
    if resource_arns.len() > MOST {
        return Err(invalid(format!("The tags of at most '{MOST}' resources can be described at a time")));
    }
    let view = call.context.view();
    let one = |arn: String| {
        let tags = Resource::find(&view, call.scope(), &arn)?.tags();
        let tags = tags.0.into_iter().map(|(key, value)| elb::Tag { key, value: Some(value) }).collect();
        Ok::<_, Fault>(elb::TagDescription { resource_arn: Some(arn), tags: Some(tags) })
    };
    let described = resource_arns.into_iter().map(one).collect::<Result<Vec<_>, _>>()?;
    Ok(elb::DescribeTagsOutput { tag_descriptions: Some(described) })
}

/// What has tags.
enum Resource<'a> {
    LoadBalancer(&'a Arc<LoadBalancer>),
    TargetGroup(&'a Arc<TargetGroup>),
    Listener(&'a Arc<Listener>),
    Rule(&'a Arc<ListenerRule>),
    /// It is a part of its listener's record, and has no tags of its own.
    DefaultRule,
}

impl<'a> Resource<'a> {
    fn find(view: &'a View, scope: &Scope, arn: &str) -> Result<Self, Fault> {
        let kind = arn.splitn(6, ':').nth(5).and_then(|resource| resource.split('/').next());
        match kind.unwrap_or_default() {
            "loadbalancer" => reference::load_balancer(view, scope, arn).map(Self::LoadBalancer),
            "targetgroup" => reference::target_group(view, scope, arn).map(Self::TargetGroup),
            "listener" => reference::listener(view, scope, arn).map(|(_, listener)| Self::Listener(listener)),
            "listener-rule" => match reference::rule(view, scope, arn)? {
                (_, reference::Rule::Own(rule)) => Ok(Self::Rule(rule)),
                (_, reference::Rule::Default) => Ok(Self::DefaultRule),
            },
            _ => Err(invalid(format!("'{arn}' is not a valid load balancer ARN"))),
        }
    }

    fn tags(&self) -> Tags {
        match self {
            Self::LoadBalancer(found) => found.tags.clone(),
            Self::TargetGroup(found) => found.tags.clone(),
            Self::Listener(found) => found.tags.clone(),
            Self::Rule(found) => found.tags.clone(),
            Self::DefaultRule => Tags::default(),
        }
    }

    fn retag(&self, tags: Tags, transaction: &mut Transaction) -> Result<(), Fault> {
        match self {
            Self::LoadBalancer(found) => transaction.update(&LoadBalancer { tags, ..(***found).clone() }),
            Self::TargetGroup(found) => transaction.update(&TargetGroup { tags, ..(***found).clone() }),
            Self::Listener(found) => transaction.update(&Listener { tags, ..(***found).clone() }),
            Self::Rule(found) => transaction.update(&ListenerRule { tags, ..(***found).clone() }),
            Self::DefaultRule => return refuse(&[("Tagging a default rule", true)]),
        }
        Ok(())
    }
}
