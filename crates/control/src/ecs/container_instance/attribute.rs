//! Attributes of container instances: put, list, delete.

use super::super::page::{Order, page};
use super::super::{invalid, reference};
use super::find;
use crate::api::Call;
use longshore_ecs as ecs;
use longshore_engine::View;
use longshore_model::cluster::Cluster;
use longshore_model::container_instance::{ContainerInstance, Status};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The most attributes that users may give an instance, as on AWS.
const LIMIT: usize = 10;
/// Names that only machines give themselves.
const BUILT_IN: [&str; 2] = ["ecs.", "com.amazonaws.ecs."];

pub async fn put(
    call: Call,
    request: ecs::PutAttributesRequest,
) -> Result<ecs::PutAttributesResponse, ecs::Error> {
    let ecs::PutAttributesRequest { cluster, attributes } = request;
    for attribute in &attributes {
        check(attribute)?;
    }
    change(&call, cluster.as_deref(), &attributes, |instance, given| {
        instance.attributes.insert(given.name.clone(), given.value.clone().unwrap_or_default());
        let own = instance.attributes.keys().filter(|name| !is_built_in(name)).count();
        if own > LIMIT {
            return Err(ecs::Error::AttributeLimitExceededException(format!(
                "A container instance can have at most {LIMIT} custom attributes."
            )));
        }
        Ok(())
    })
    .await?;
    Ok(ecs::PutAttributesResponse { attributes: Some(attributes) })
}

pub async fn delete(
    call: Call,
    request: ecs::DeleteAttributesRequest,
) -> Result<ecs::DeleteAttributesResponse, ecs::Error> {
    let ecs::DeleteAttributesRequest { cluster, attributes } = request;
    change(&call, cluster.as_deref(), &attributes, |instance, given| {
        if is_built_in(&given.name) {
            return Err(invalid(format!("The attribute {} is the machine's own.", given.name)));
        }
        let same = |value: &String| given.value.as_ref().is_none_or(|wanted| wanted == value);
        if instance.attributes.get(&given.name).is_some_and(same) {
            instance.attributes.remove(&given.name);
        }
        Ok(())
    })
    .await?;
    Ok(ecs::DeleteAttributesResponse { attributes: Some(attributes) })
}

pub async fn list(
    call: Call,
    request: ecs::ListAttributesRequest,
) -> Result<ecs::ListAttributesResponse, ecs::Error> {
    let ecs::ListAttributesRequest {
        cluster,
        target_type: ecs::TargetType::ContainerInstance,
        attribute_name,
        attribute_value,
        next_token,
        max_results,
    } = request;
    let view = call.context.view();
    let cluster = reference::cluster(&view, call.scope(), cluster.as_deref())?;
    let registered = |instance: &&Arc<ContainerInstance>| {
        instance.membership().is_some_and(|member| member.status != Status::Inactive)
    };
    let wanted = |attribute: &ecs::Attribute| {
        attribute_name.as_ref().is_none_or(|name| *name == attribute.name)
            && attribute_value.as_ref().is_none_or(|value| Some(value) == attribute.value.as_ref())
    };
    let all: Vec<(String, ecs::Attribute)> = view
        .instances_of(call.scope(), &cluster.name)
        .filter(registered)
        .flat_map(|instance| {
            let key = move |name: &str| format!("{} {name}", instance.id);
            all(instance).into_iter().map(move |attribute| {
                let target_id = instance.arn();
                (key(&attribute.name), ecs::Attribute { target_id, ..attribute })
            })
        })
        .filter(|(_, attribute)| wanted(attribute))
        .collect();
    let (attributes, next_token) =
        page(all.into_iter(), Order::Ascending, next_token.as_deref(), max_results, 100)?;
    Ok(ecs::ListAttributesResponse { attributes: Some(attributes), next_token })
}

/// The attributes of an instance in the order of their names.
pub fn all(instance: &ContainerInstance) -> Vec<ecs::Attribute> {
    let one = |(name, value): (&String, &String)| ecs::Attribute {
        name: name.clone(),
        value: Some(value.clone()).filter(|value| !value.is_empty()),
        target_type: None,
        target_id: None,
    };
    instance.attributes.iter().map(one).collect()
}

/// Changes the instances that the attributes name, all or none.
async fn change(
    call: &Call,
    cluster: Option<&str>,
    attributes: &[ecs::Attribute],
    apply: impl Fn(&mut ContainerInstance, &ecs::Attribute) -> Result<(), ecs::Error>,
) -> Result<(), ecs::Error> {
    if !(1..=10).contains(&attributes.len()) {
        return Err(invalid("attributes must have 1 to 10 items."));
    }
    call.context
        .commit(|snapshot, transaction| {
            let cluster = reference::cluster(&snapshot.view, call.scope(), cluster)?;
            let mut changed = BTreeMap::new();
            for attribute in attributes {
                let before = target(&snapshot.view, &cluster, attribute)?;
                let next = changed.entry(before.id).or_insert_with(|| (*before).clone());
                apply(next, attribute)?;
            }
            for mut next in changed.into_values() {
                if snapshot.view.container_instance(next.id).is_none_or(|before| **before != next) {
                    next.version += 1;
                    transaction.update(&next);
                }
            }
            Ok::<_, ecs::Error>(())
        })
        .await
}

fn target(
    view: &View,
    cluster: &Cluster,
    attribute: &ecs::Attribute,
) -> Result<Arc<ContainerInstance>, ecs::Error> {
    let Some(id) = attribute.target_id.as_deref().filter(|id| !id.is_empty()) else {
        return Err(invalid(format!("The attribute {} needs a targetId.", attribute.name)));
    };
    let found = find(view, cluster, id)?.ok();
    let registered = found.filter(|i| i.membership().is_some_and(|m| m.status != Status::Inactive));
    registered.ok_or_else(|| {
        ecs::Error::TargetNotFoundException(format!("The cluster has no container instance {id}."))
    })
}

fn check(attribute: &ecs::Attribute) -> Result<(), ecs::Error> {
    let name = &attribute.name;
    check_name(name)?;
    if is_built_in(name) {
        return Err(invalid(format!("The attribute {name} is the machine's own.")));
    }
    check_value(name, attribute.value.as_deref().unwrap_or_default())
}

pub fn check_name(name: &str) -> Result<(), ecs::Error> {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    if !(1..=128).contains(&name.len()) || !name.bytes().all(is_allowed) {
        return Err(invalid(format!(
            "The name of an attribute has 1 to 128 letters, digits, hyphens, underscores, dots and slashes, and is \
             '{name}'."
        )));
    }
    Ok(())
}

pub fn check_value(name: &str, value: &str) -> Result<(), ecs::Error> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.@:/\\ ".contains(c);
    if value.len() > 128 || !value.chars().all(is_allowed) || value.trim() != value {
        return Err(invalid(format!(
            "The value of the attribute {name} has at most 128 letters, digits, spaces within, and the signs - _ . @ : / \\."
        )));
    }
    Ok(())
}

fn is_built_in(name: &str) -> bool {
    BUILT_IN.iter().any(|prefix| name.starts_with(prefix))
}
