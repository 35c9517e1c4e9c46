//! Tags of the resources of a VPC. Follows <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateTags.html>.

use super::{dry_run, refused};
use crate::api::Call;
use longshore_ec2 as ec2;
use longshore_engine::View;
use longshore_model::instance::{Instance, LaunchTemplate};
use longshore_model::route::{InternetGateway, RouteTable};
use longshore_model::vpc::{SecurityGroup, Subnet, Vpc};
use longshore_model::{Scope, Tags, Transaction, tag};
use longshore_wire::Fault;

const LONGEST_KEY: usize = 128;
const LONGEST_VALUE: usize = 256;

pub fn render(tags: &Tags) -> Option<Vec<ec2::Tag>> {
    let tag =
        |(key, value): (&String, &String)| ec2::Tag { key: Some(key.clone()), value: Some(value.clone()) };
    (!tags.is_empty()).then(|| tags.0.iter().map(tag).collect())
}

/// The tags of a resource that a request makes.
pub fn of_new(
    specifications: Option<Vec<ec2::TagSpecification>>,
    made: ec2::ResourceType,
) -> Result<Tags, Fault> {
    let mut all = Tags::default();
    for ec2::TagSpecification { resource_type, tags } in specifications.unwrap_or_default() {
        if resource_type != Some(made) {
            return Err(refused(
                "InvalidParameterValue",
                "A tag specification must name the type of the resource that the request makes.",
            ));
        }
        all = with(&all, tags.unwrap_or_default())?;
    }
    Ok(all)
}

/// The tags of one kind of what a request makes; there are none of the others here, such as volumes.
pub fn of_several(
    specifications: Option<Vec<ec2::TagSpecification>>,
    kind: ec2::ResourceType,
) -> Result<Tags, Fault> {
    let specifications = specifications.unwrap_or_default().into_iter();
    of_new(Some(specifications.filter(|given| given.resource_type == Some(kind)).collect()), kind)
}

fn with(tags: &Tags, more: Vec<ec2::Tag>) -> Result<Tags, Fault> {
    let mut given = Tags::default();
    for ec2::Tag { key, value } in more {
        let (key, value) = (key.unwrap_or_default(), value.unwrap_or_default());
        if !(1..=LONGEST_KEY).contains(&key.chars().count()) || key.starts_with("aws:") {
            return Err(refused(
                "InvalidParameterValue",
                format!("Tag key '{key}' must have 1 to {LONGEST_KEY} characters and not begin with 'aws:'."),
            ));
        }
        if value.chars().count() > LONGEST_VALUE {
            return Err(refused(
                "InvalidParameterValue",
                format!("The value of the tag '{key}' must have at most {LONGEST_VALUE} characters."),
            ));
        }
        given.0.insert(key, value);
    }
    tags.with(given).map_err(|tag::Error::TooMany| {
        refused("TagLimitExceeded", format!("The maximum number of tags on a resource is {}.", tag::LIMIT))
    })
}

pub async fn create(call: Call, request: ec2::CreateTagsRequest) -> Result<(), Fault> {
    let ec2::CreateTagsRequest { dry_run: dry, resources, tags } = request;
    dry_run(dry)?;
    change(&call, &resources, |present| with(present, tags.clone())).await
}

pub async fn delete(call: Call, request: ec2::DeleteTagsRequest) -> Result<(), Fault> {
    let ec2::DeleteTagsRequest { dry_run: dry, resources, tags } = request;
    dry_run(dry)?;
    // A tag that is named with a value goes only if it has that value; without any, all tags go.
    let goes = |key: &String, value: &String| {
        tags.as_ref().is_none_or(|tags| {
            let named = |tag: &ec2::Tag| {
                tag.key.as_ref() == Some(key) && tag.value.as_ref().is_none_or(|wanted| wanted == value)
            };
            tags.iter().any(named)
        })
    };
    let left = |present: &Tags| {
        let kept = present.0.iter().filter(|(key, value)| !goes(key, value));
        Ok(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
    };
    change(&call, &resources, left).await
}

/// Changes the tags of all of the resources, or of none.
async fn change(
    call: &Call,
    resources: &[String],
    next: impl Fn(&Tags) -> Result<Tags, Fault>,
) -> Result<(), Fault> {
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        for id in resources {
            change_one(&snapshot.view, call.scope(), id, &next, transaction)?;
        }
        Ok(())
    });
    commit.await
}

fn change_one(
    view: &View,
    scope: &Scope,
    id: &str,
    next: &impl Fn(&Tags) -> Result<Tags, Fault>,
    transaction: &mut Transaction,
) -> Result<(), Fault> {
    let missing = || refused("InvalidID", format!("The ID '{id}' is not valid"));
    match id.split('-').next().unwrap_or_default() {
        "vpc" => {
            let found = view.vpcs.get(&Vpc::key_of(scope, id)).ok_or_else(missing)?;
            transaction.update(&Vpc { tags: next(&found.tags)?, ..(**found).clone() });
        }
        "subnet" => {
            let found = view.subnets.get(&Subnet::key_of(scope, id)).ok_or_else(missing)?;
            transaction.update(&Subnet { tags: next(&found.tags)?, ..(**found).clone() });
        }
        "sg" => {
            let found = view.security_groups.get(&SecurityGroup::key_of(scope, id)).ok_or_else(missing)?;
            transaction.update(&SecurityGroup { tags: next(&found.tags)?, ..(**found).clone() });
        }
        "igw" => {
            let found =
                view.internet_gateways.get(&InternetGateway::key_of(scope, id)).ok_or_else(missing)?;
            transaction.update(&InternetGateway { tags: next(&found.tags)?, ..(**found).clone() });
        }
        "rtb" => {
            let found = view.route_tables.get(&RouteTable::key_of(scope, id)).ok_or_else(missing)?;
            transaction.update(&RouteTable { tags: next(&found.tags)?, ..(**found).clone() });
        }
        "i" => {
            let found = view.instances.get(&Instance::key_of(scope, id)).ok_or_else(missing)?;
            transaction.update(&Instance { tags: next(&found.tags)?, ..(**found).clone() });
        }
        "lt" => {
            let found = view.launch_templates.get(&LaunchTemplate::key_of(scope, id)).ok_or_else(missing)?;
            transaction.update(&LaunchTemplate { tags: next(&found.tags)?, ..(**found).clone() });
        }
        "sgr" => {
            let has =
                |group: &SecurityGroup| group.ingress.iter().chain(&group.egress).any(|rule| rule.id == id);
            let found = view.security_groups.of(scope).find(|group| has(group)).ok_or_else(missing)?;
            let mut group = (**found).clone();
            for rule in group.ingress.iter_mut().chain(&mut group.egress).filter(|rule| rule.id == id) {
                rule.tags = next(&rule.tags)?;
            }
            transaction.update(&group);
        }
        _ => return Err(missing()),
    }
    Ok(())
}
