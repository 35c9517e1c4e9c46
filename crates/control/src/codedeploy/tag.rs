//! Tags of applications and deployment groups.
//! Follows <https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_TagResource.html>.

use super::{application, group};
use crate::api::Call;
use longshore_codedeploy as cd;
use longshore_engine::View;
use longshore_model::arn::Arn;
use longshore_model::codedeploy::{Application, DeploymentGroup};
use longshore_model::tag::GivenError;
use longshore_model::{Scope, Tags, Transaction};
use longshore_wire::Fault;

pub fn with(present: &Tags, more: Vec<cd::Tag>) -> Result<Tags, Fault> {
    let pair = |cd::Tag { key, value }| (key.unwrap_or_default(), value.unwrap_or_default());
    let wrong = |error: GivenError| cd::Error::InvalidTagsToAddException(error.to_string()).into();
    present.with_given(more.into_iter().map(pair)).map_err(wrong)
}

/// What has tags.
enum Tagged {
    Application(Application),
    Group(Box<DeploymentGroup>),
}

impl Tagged {
    fn find(view: &View, scope: &Scope, arn: &str) -> Result<Self, Fault> {
        let wrong =
            || Fault::from(cd::Error::InvalidArnException(format!("The ARN {arn} is not supported.")));
        let parsed = Arn::parse(arn).filter(|parsed| parsed.service == "codedeploy").ok_or_else(wrong)?;
        let (kind, rest) = parsed.resource.split_once(':').ok_or_else(wrong)?;
        match (kind, rest.split_once('/')) {
            ("application", None) => Ok(Self::Application((**application(view, scope, rest)?).clone())),
            ("deploymentgroup", Some((of, name))) => {
                Ok(Self::Group(Box::new((**group(view, scope, of, name)?).clone())))
            }
            _ => Err(wrong()),
        }
    }

    fn tags(&mut self) -> &mut Tags {
        match self {
            Self::Application(application) => &mut application.tags,
            Self::Group(group) => &mut group.tags,
        }
    }

    fn write(&self, transaction: &mut Transaction) {
        match self {
            Self::Application(application) => transaction.update(application),
            Self::Group(group) => transaction.update(&**group),
        }
    }
}

async fn change(call: &Call, arn: &str, next: impl Fn(&Tags) -> Result<Tags, Fault>) -> Result<(), Fault> {
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let mut tagged = Tagged::find(&snapshot.view, call.scope(), arn)?;
        let tags = next(tagged.tags())?;
        *tagged.tags() = tags;
        tagged.write(transaction);
        Ok(())
    });
    commit.await
}

pub async fn add(call: Call, request: cd::TagResourceInput) -> Result<cd::TagResourceOutput, Fault> {
    let cd::TagResourceInput { resource_arn, tags } = request;
    change(&call, &resource_arn, |present| with(present, tags.clone())).await?;
    Ok(cd::TagResourceOutput {})
}

pub async fn remove(call: Call, request: cd::UntagResourceInput) -> Result<cd::UntagResourceOutput, Fault> {
    let cd::UntagResourceInput { resource_arn, tag_keys } = request;
    change(&call, &resource_arn, |present| Ok(present.without(&tag_keys))).await?;
    Ok(cd::UntagResourceOutput {})
}

pub async fn list(
    call: Call,
    request: cd::ListTagsForResourceInput,
) -> Result<cd::ListTagsForResourceOutput, Fault> {
    // The tags of a resource are few enough for one page.
    let cd::ListTagsForResourceInput { next_token: _, resource_arn } = request;
    let mut tagged = Tagged::find(&call.context.view(), call.scope(), &resource_arn)?;
    let tag =
        |(key, value): (&String, &String)| cd::Tag { key: Some(key.clone()), value: Some(value.clone()) };
    Ok(cd::ListTagsForResourceOutput {
        next_token: None,
        tags: Some(tagged.tags().0.iter().map(tag).collect()),
    })
}
