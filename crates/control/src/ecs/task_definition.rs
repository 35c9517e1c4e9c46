//! Task definitions. Follows
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html>.

mod isolation;
mod parse;
mod render;
mod size;
mod together;

use super::page::{Order, page};
use super::{client, failure, invalid, reference, tag};
use crate::api::Call;
use longshore_ecs as ecs;
use longshore_engine::View;
use longshore_model::task_definition::{Family, Status, TaskDefinition, arn_of};
use longshore_model::{Record, Scope};
use std::collections::BTreeMap;
use std::sync::Arc;

pub use parse::environment_variables;
pub use render::environment;
pub use size::{cpu_units, fargate_size, mebibytes, not_negative};

pub async fn register(
    call: Call,
    request: ecs::RegisterTaskDefinitionRequest,
) -> Result<ecs::RegisterTaskDefinitionResponse, ecs::Error> {
    let wanted = parse::definition(&call, request)?;
    let registered = call
        .context
        .commit::<_, ecs::Error, _>(|snapshot, transaction| {
            let family = snapshot.view.families.get(&Family::key_of(&wanted.scope, &wanted.family));
            let revision = family.map_or(1, |family| family.last_revision + 1);
            let next =
                Family { scope: wanted.scope.clone(), name: wanted.family.clone(), last_revision: revision };
            match family {
                Some(_) => transaction.update(&next),
                None => transaction.create(&next),
            }
            let definition = TaskDefinition { revision, ..wanted.clone() };
            transaction.create(&definition);
            Ok(definition)
        })
        .await?;
    Ok(ecs::RegisterTaskDefinitionResponse {
        tags: shown_tags(&registered),
        task_definition: Some(render::definition(&registered)),
    })
}

pub async fn describe(
    call: Call,
    request: ecs::DescribeTaskDefinitionRequest,
) -> Result<ecs::DescribeTaskDefinitionResponse, ecs::Error> {
    let ecs::DescribeTaskDefinitionRequest { task_definition, include } = request;
    let definition = find(&call.context.view(), call.scope(), &task_definition)?;
    let with_tags = include.unwrap_or_default().contains(&ecs::TaskDefinitionField::Tags);
    Ok(ecs::DescribeTaskDefinitionResponse {
        tags: with_tags.then(|| tag::render(&definition.tags)),
        task_definition: Some(render::definition(&definition)),
    })
}

fn find(view: &View, scope: &Scope, given: &str) -> Result<Arc<TaskDefinition>, ecs::Error> {
    let found = reference::task_definition(view, scope, given)?;
    found.ok_or_else(|| client("Unable to describe task definition."))
}

fn shown_tags(definition: &TaskDefinition) -> Option<Vec<ecs::Tag>> {
    (!definition.tags.is_empty()).then(|| tag::render(&definition.tags))
}

pub async fn list(
    call: Call,
    request: ecs::ListTaskDefinitionsRequest,
) -> Result<ecs::ListTaskDefinitionsResponse, ecs::Error> {
    let ecs::ListTaskDefinitionsRequest { family_prefix, status, sort, next_token, max_results } = request;
    let status = match status {
        None | Some(ecs::TaskDefinitionStatus::Active) => Status::Active,
        Some(ecs::TaskDefinitionStatus::Inactive) => Status::Inactive,
        Some(ecs::TaskDefinitionStatus::DeleteInProgress) => Status::DeleteInProgress,
    };
    let view = call.context.view();
    // `familyPrefix` of this call is a whole family name, as AWS documents it.
    let wanted = |d: &&Arc<TaskDefinition>| {
        d.status == status && family_prefix.as_ref().is_none_or(|family| d.family == *family)
    };
    let definitions = view.task_definitions.of(call.scope()).filter(wanted);
    let keyed = definitions.map(|d| (d.key().to_string(), d.arn()));
    let (arns, next_token) = match sort {
        None | Some(ecs::SortOrder::Asc) => {
            page(keyed, Order::Ascending, next_token.as_deref(), max_results, 100)?
        }
        Some(ecs::SortOrder::Desc) => {
            page(keyed.rev(), Order::Descending, next_token.as_deref(), max_results, 100)?
        }
    };
    Ok(ecs::ListTaskDefinitionsResponse { task_definition_arns: Some(arns), next_token })
}

pub async fn list_families(
    call: Call,
    request: ecs::ListTaskDefinitionFamiliesRequest,
) -> Result<ecs::ListTaskDefinitionFamiliesResponse, ecs::Error> {
    let ecs::ListTaskDefinitionFamiliesRequest { family_prefix, status, next_token, max_results } = request;
    let view = call.context.view();
    let mut active: BTreeMap<&str, bool> = BTreeMap::new();
    for definition in view.task_definitions.of(call.scope()) {
        *active.entry(&definition.family).or_default() |= definition.status == Status::Active;
    }
    let wanted = |is_active: bool| match status {
        None | Some(ecs::TaskDefinitionFamilyStatus::All) => true,
        Some(ecs::TaskDefinitionFamilyStatus::Active) => is_active,
        Some(ecs::TaskDefinitionFamilyStatus::Inactive) => !is_active,
    };
    let prefix = family_prefix.unwrap_or_default();
    let families =
        active.into_iter().filter(|(family, is_active)| family.starts_with(&prefix) && wanted(*is_active));
    let families = families.map(|(family, _)| (family.to_owned(), family.to_owned()));
    let (families, next_token) = page(families, Order::Ascending, next_token.as_deref(), max_results, 100)?;
    Ok(ecs::ListTaskDefinitionFamiliesResponse { families: Some(families), next_token })
}

pub async fn deregister(
    call: Call,
    request: ecs::DeregisterTaskDefinitionRequest,
) -> Result<ecs::DeregisterTaskDefinitionResponse, ecs::Error> {
    let ecs::DeregisterTaskDefinitionRequest { task_definition } = request;
    let wanted = reference::family_revision(call.scope(), &task_definition)?;
    let Some(revision) = wanted.revision else {
        return Err(client("Revision is missing."));
    };
    let now = call.context.now();
    let inactive = call
        .context
        .commit::<_, ecs::Error, _>(|snapshot, transaction| {
            let found = snapshot.view.task_definition(call.scope(), &wanted.family, revision);
            let definition = found.ok_or_else(|| client("The specified task definition does not exist."))?;
            if definition.status != Status::Active {
                return Ok((**definition).clone());
            }
            let inactive = TaskDefinition {
                status: Status::Inactive,
                deregistered_at: Some(now),
                ..(**definition).clone()
            };
            transaction.update(&inactive);
            Ok(inactive)
        })
        .await?;
    Ok(ecs::DeregisterTaskDefinitionResponse { task_definition: Some(render::definition(&inactive)) })
}

const STILL_ACTIVE: &str =
    "The specified task definition is still in ACTIVE status. Please deregister the target and try again.";

/// How many definitions one call deletes.
const DELETE_AT_ONCE: usize = 10;

pub async fn delete(
    call: Call,
    request: ecs::DeleteTaskDefinitionsRequest,
) -> Result<ecs::DeleteTaskDefinitionsResponse, ecs::Error> {
    let ecs::DeleteTaskDefinitionsRequest { task_definitions } = request;
    if !(1..=DELETE_AT_ONCE).contains(&task_definitions.len()) {
        return Err(invalid(format!("taskDefinitions must have 1 to {DELETE_AT_ONCE} items.")));
    }
    let (mut deleted, mut failures) = (Vec::new(), Vec::new());
    for given in task_definitions {
        match delete_one(&call, &given).await? {
            Ok(definition) => deleted.push(render::definition(&definition)),
            Err((arn, reason)) => failures.push(failure(Some(arn), reason)),
        }
    }
    Ok(ecs::DeleteTaskDefinitionsResponse { task_definitions: Some(deleted), failures: Some(failures) })
}

/// Only an INACTIVE revision is deleted; it stays DELETE_IN_PROGRESS, and is forgotten when no task uses it.
async fn delete_one(
    call: &Call,
    given: &str,
) -> Result<Result<TaskDefinition, (String, &'static str)>, ecs::Error> {
    let wanted = reference::family_revision(call.scope(), given)?;
    let Some(revision) = wanted.revision else {
        return Err(client("Revision is missing."));
    };
    let now = call.context.now();
    let arn = arn_of(call.scope(), &wanted.family, revision);
    call.context
        .commit(|snapshot, transaction| {
            let Some(definition) = snapshot.view.task_definition(call.scope(), &wanted.family, revision)
            else {
                return Ok(Err((arn.clone(), "TASK_DEFINITION_NOT_FOUND")));
            };
            match definition.status {
                Status::Active => Ok(Err((arn.clone(), STILL_ACTIVE))),
                Status::DeleteInProgress => Ok(Ok((**definition).clone())),
                Status::Inactive => {
                    let deleting = TaskDefinition {
                        status: Status::DeleteInProgress,
                        delete_requested_at: Some(now),
                        ..(**definition).clone()
                    };
                    transaction.update(&deleting);
                    Ok(Ok(deleting))
                }
            }
        })
        .await
}
