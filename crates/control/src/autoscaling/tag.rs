//! Tags of groups, which the instances that a group launches may have too.
//! Follows <https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_CreateOrUpdateTags.html>.

use super::{find, invalid};
use crate::api::Call;
use crate::pages::page;
use longshore_autoscaling as asg;
use longshore_model::auto_scaling::{AutoScalingGroup, GroupTag};
use longshore_model::tag::LIMIT;
use longshore_wire::Fault;
use std::collections::BTreeMap;

const KIND: &str = "auto-scaling-group";

pub fn with(
    present: &BTreeMap<String, GroupTag>,
    more: Vec<asg::Tag>,
) -> Result<BTreeMap<String, GroupTag>, Fault> {
    let mut tags = present.clone();
    for asg::Tag { key, propagate_at_launch, resource_id: _, resource_type: _, value } in more {
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(invalid(format!("Tag key '{key}' begins with 'aws:', which is reserved for AWS.")));
        }
        let tag =
            GroupTag { value: value.unwrap_or_default(), propagate: propagate_at_launch.unwrap_or(false) };
        tags.insert(key, tag);
    }
    if tags.len() > LIMIT {
        return Err(asg::Error::LimitExceededFault(format!("A group can have at most {LIMIT} tags.")).into());
    }
    Ok(tags)
}

pub async fn put(call: Call, request: asg::CreateOrUpdateTagsType) -> Result<(), Fault> {
    change(&call, request.tags, |present, tag| with(present, vec![tag])).await
}

pub async fn delete(call: Call, request: asg::DeleteTagsType) -> Result<(), Fault> {
    change(&call, request.tags, |present, tag| {
        let mut left = present.clone();
        left.remove(&tag.key);
        Ok(left)
    })
    .await
}

type Tags = BTreeMap<String, GroupTag>;

/// Changes the tags of all groups that are named, or of none.
async fn change(
    call: &Call,
    tags: Vec<asg::Tag>,
    next: impl Fn(&Tags, asg::Tag) -> Result<Tags, Fault>,
) -> Result<(), Fault> {
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let mut changed: BTreeMap<String, AutoScalingGroup> = BTreeMap::new();
        for tag in &tags {
            let named =
                tag.resource_id.clone().filter(|_| tag.resource_type.as_deref().unwrap_or(KIND) == KIND);
            let name = named.ok_or_else(|| invalid(format!("A tag needs the ResourceId of an {KIND}.")))?;
            if !changed.contains_key(&name) {
                changed.insert(name.clone(), (**find(&snapshot.view, call.scope(), &name)?).clone());
            }
            if let Some(group) = changed.get_mut(&name) {
                group.tags = next(&group.tags, tag.clone())?;
            }
        }
        changed.values().for_each(|group| transaction.update(group));
        Ok(())
    });
    commit.await
}

pub fn render(group: &AutoScalingGroup) -> Vec<asg::TagDescription> {
    let tag = |(key, tag): (&String, &GroupTag)| asg::TagDescription {
        key: Some(key.clone()),
        propagate_at_launch: Some(tag.propagate),
        resource_id: Some(group.name.clone()),
        resource_type: Some(KIND.to_owned()),
        value: Some(tag.value.clone()),
    };
    group.tags.iter().map(tag).collect()
}

pub async fn describe(call: Call, request: asg::DescribeTagsType) -> Result<asg::TagsType, Fault> {
    let asg::DescribeTagsType { filters, max_records, next_token } = request;
    let filters = Filters::parse(filters, &["auto-scaling-group", "key", "value", "propagate-at-launch"])?;
    let view = call.context.view();
    let groups = view.auto_scaling_groups.of(call.scope());
    let all = groups.flat_map(|group| render(group)).filter(|tag| filters.pass_tag(tag));
    let keyed = all.map(|tag| {
        let key = format!(
            "{}/{}",
            tag.resource_id.as_deref().unwrap_or_default(),
            tag.key.as_deref().unwrap_or_default()
        );
        (key, tag)
    });
    let (tags, next_token) = page(keyed, next_token.as_deref(), max_records.or(Some(50)));
    Ok(asg::TagsType { next_token, tags: Some(tags) })
}

/// Filters of describe calls: each by its name, with the values of which one must be there.
pub struct Filters(Vec<(String, Vec<String>)>);

impl Filters {
    /// Refuses names that are neither known nor `tag:KEY`.
    pub fn parse(given: Option<Vec<asg::Filter>>, known: &[&str]) -> Result<Self, Fault> {
        let filter = |asg::Filter { name, values }| {
            let name = name.unwrap_or_default();
            if !known.contains(&name.as_str()) && !name.starts_with("tag:") {
                return Err(invalid(format!(
                    "Filter type {name} is not correct. Allowed Filter types are: {known:?}"
                )));
            }
            Ok((name, values.unwrap_or_default()))
        };
        given.unwrap_or_default().into_iter().map(filter).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a group has what each filter asks of its tags.
    pub fn pass_any(&self, group: &AutoScalingGroup) -> bool {
        self.0.iter().all(|(name, wanted)| {
            let mut tags = group.tags.iter();
            match name.strip_prefix("tag:") {
                Some(key) => tags.any(|(of, tag)| of == key && wanted.contains(&tag.value)),
                None if name == "tag-key" => tags.any(|(key, _)| wanted.contains(key)),
                None => tags.any(|(_, tag)| wanted.contains(&tag.value)),
            }
        })
    }

    fn pass_tag(&self, tag: &asg::TagDescription) -> bool {
        self.0.iter().all(|(name, wanted)| {
            let value = match name.as_str() {
                "auto-scaling-group" => tag.resource_id.clone(),
                "key" => tag.key.clone(),
                "value" => tag.value.clone(),
                "propagate-at-launch" => tag.propagate_at_launch.map(|propagates| propagates.to_string()),
                of_key => tag.value.clone().filter(|_| of_key.strip_prefix("tag:") == tag.key.as_deref()),
            };
            value.is_some_and(|value| wanted.contains(&value))
        })
    }
}
