//! Lists of secrets and of their versions. Follows
//! <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_ListSecrets.html>.

use super::{named, stages, tag};
use crate::api::Call;
use crate::refuse::{Given as _, unsupported};
use longshore_model::secret::{Secret, SecretVersion};
use longshore_secretsmanager as secretsmanager;
use longshore_wire::{Fault, Timestamp};
use std::sync::Arc;

crate::given_when_present!(secretsmanager::SortByType);

const PAGE: usize = 100;

pub async fn secrets(
    call: Call,
    request: secretsmanager::ListSecretsRequest,
) -> Result<secretsmanager::ListSecretsResponse, Fault> {
    let secretsmanager::ListSecretsRequest {
        include_planned_deletion,
        max_results,
        next_token,
        filters,
        sort_order,
        sort_by,
    } = request;
    unsupported(&[("SortBy", sort_by.given())]).map_err(super::invalid)?;
    let view = call.context.view();
    let with_deleted = include_planned_deletion.unwrap_or(false);
    let filters = filters.unwrap_or_default();
    let wanted = |secret: &&Arc<Secret>| {
        (with_deleted || secret.deleted.is_none()) && filters.iter().all(|filter| passes(filter, secret))
    };
    let mut found: Vec<_> = view.secrets.of(call.scope()).filter(wanted).collect();
    // Of one moment, by their names, so that a page goes on where the last one ended.
    let place = |secret: &Secret| format!("{:020} {}", secret.created_at.millis(), secret.name);
    found.sort_by_key(|secret| place(secret));
    let is_ascending = sort_order == Some(secretsmanager::SortOrderType::Asc);
    if !is_ascending {
        found.reverse();
    }
    let start = match &next_token {
        None => 0,
        Some(token) => {
            let after = |secret: &&Arc<Secret>| {
                let place = place(secret);
                if is_ascending { place > *token } else { place < *token }
            };
            found.iter().position(after).unwrap_or(found.len())
        }
    };
    let size = max_results.and_then(|size| usize::try_from(size).ok()).unwrap_or(PAGE).min(PAGE);
    let page: Vec<_> = found.iter().skip(start).take(size).collect();
    let more = start + page.len() < found.len();
    let next_token = page.last().filter(|_| more).map(|last| place(last));
    Ok(secretsmanager::ListSecretsResponse {
        secret_list: Some(page.into_iter().map(|secret| entry(secret)).collect()),
        next_token,
    })
}

/// Values are beginnings of what is looked for, and an exclamation mark in front says what it must not be.
fn passes(filter: &secretsmanager::Filter, secret: &Secret) -> bool {
    let texts: Vec<&str> = match filter.key {
        Some(secretsmanager::FilterNameStringType::Name) => vec![&secret.name],
        Some(secretsmanager::FilterNameStringType::Description) => {
            secret.description.iter().map(String::as_str).collect()
        }
        Some(secretsmanager::FilterNameStringType::TagKey) => {
            secret.tags.0.keys().map(String::as_str).collect()
        }
        Some(secretsmanager::FilterNameStringType::TagValue) => {
            secret.tags.0.values().map(String::as_str).collect()
        }
        Some(secretsmanager::FilterNameStringType::All) | None => {
            let tags = secret.tags.0.iter().flat_map(|(key, value)| [key, value]);
            [&secret.name].into_iter().chain(&secret.description).chain(tags).map(String::as_str).collect()
        }
        // No secret is another service's or another region's.
        Some(_) => Vec::new(),
    };
    let has = |value: &str| {
        texts.iter().any(|text| text.to_ascii_lowercase().starts_with(&value.to_ascii_lowercase()))
    };
    let values = filter.values.as_deref().unwrap_or_default();
    values.iter().any(|value| match value.strip_prefix('!') {
        Some(not) => !has(not),
        None => has(value),
    })
}

fn entry(secret: &Secret) -> secretsmanager::SecretListEntry {
    let time = |at: longshore_model::Timestamp| Some(Timestamp(at.millis()));
    secretsmanager::SecretListEntry {
        arn: Some(secret.arn()),
        name: Some(secret.name.clone()),
        description: secret.description.clone(),
        kms_key_id: secret.kms_key_id.clone(),
        last_changed_date: time(secret.changed_at),
        deleted_date: secret.deleted.and_then(|deleted| time(deleted.marked_at)),
        tags: Some(tag::render(&secret.tags)),
        secret_versions_to_stages: Some(stages(secret)),
        created_date: time(secret.created_at),
        ..secretsmanager::SecretListEntry::default()
    }
}

pub async fn versions(
    call: Call,
    request: secretsmanager::ListSecretVersionIdsRequest,
) -> Result<secretsmanager::ListSecretVersionIdsResponse, Fault> {
    let secretsmanager::ListSecretVersionIdsRequest {
        secret_id,
        max_results,
        next_token,
        include_deprecated,
    } = request;
    let view = call.context.view();
    let secret = named(&view, call.scope(), &secret_id)?;
    let all = include_deprecated.unwrap_or(false);
    let found: Vec<_> = secret.versions.iter().filter(|version| all || !version.stages.is_empty()).collect();
    let last = next_token.and_then(|token| found.iter().position(|version| version.id == token));
    let start = last.map_or(0, |last| last + 1);
    let size = max_results.and_then(|size| usize::try_from(size).ok()).unwrap_or(PAGE).min(PAGE);
    let page: Vec<_> = found.iter().skip(start).take(size).collect();
    let more = start + page.len() < found.len();
    let next_token = page.last().filter(|_| more).map(|last| last.id.clone());
    let entry = |version: &&&SecretVersion| secretsmanager::SecretVersionsListEntry {
        version_id: Some(version.id.clone()),
        version_stages: Some(version.stages.iter().cloned().collect()),
        created_date: Some(Timestamp(version.created_at.millis())),
        ..secretsmanager::SecretVersionsListEntry::default()
    };
    Ok(secretsmanager::ListSecretVersionIdsResponse {
        versions: Some(page.iter().map(entry).collect()),
        next_token,
        arn: Some(secret.arn()),
        name: Some(secret.name.clone()),
    })
}
