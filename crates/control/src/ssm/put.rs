//! Parameters as they are written and deleted. Follows
//! <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutParameter.html>.

use super::{invalid, missing, parameter, sealed_as, sealing, tag};
use crate::api::Call;
use crate::refuse::{Given as _, unsupported};
use longshore_model::secret::{Parameter, ParameterValue, ParameterVersion};
use longshore_model::{Record as _, Tags};
use longshore_ssm as ssm;
use longshore_wire::Fault;
use std::collections::BTreeSet;

const MOST: usize = 10_000;
const MOST_VERSIONS: usize = 100;
const STANDARD_BYTES: usize = 4096;
const ADVANCED_BYTES: usize = 8192;
const MOST_LEVELS: usize = 15;
const DEFAULT_KEY: &str = "alias/aws/ssm";

pub async fn put(call: Call, request: ssm::PutParameterRequest) -> Result<ssm::PutParameterResult, Fault> {
    let ssm::PutParameterRequest {
        name,
        description,
        value,
        r#type,
        key_id,
        overwrite,
        allowed_pattern,
        tags,
        tier,
        policies,
        data_type,
    } = request;
    unsupported(&[("Policies", policies.given())]).map_err(invalid)?;
    check_name(&name)?;
    if value.is_empty() {
        return Err(invalid("The parameter value can't be empty."));
    }
    let tier = tier.unwrap_or(ssm::ParameterTier::Standard);
    let (most, shown_tier) = match tier {
        ssm::ParameterTier::Standard => (STANDARD_BYTES, "Standard"),
        ssm::ParameterTier::Advanced => (ADVANCED_BYTES, "Advanced"),
        ssm::ParameterTier::IntelligentTiering if value.len() > STANDARD_BYTES => {
            (ADVANCED_BYTES, "Advanced")
        }
        ssm::ParameterTier::IntelligentTiering => (STANDARD_BYTES, "Standard"),
    };
    if value.len() > most {
        return Err(invalid(format!(
            "{shown_tier} tier parameters support a maximum parameter value of {most} characters."
        )));
    }
    let data_type = data_type.filter(|given| !given.is_empty()).unwrap_or_else(|| "text".to_owned());
    if data_type != "text" {
        return Err(invalid(
            unsupported(&[(&format!("DataType={data_type}"), true)]).err().unwrap_or_default(),
        ));
    }
    let overwrite = overwrite.unwrap_or(false);
    if overwrite && tags.given() {
        return Err(invalid(
            "Invalid request: tags and overwrite can't be used together. To create a parameter with tags, please remove \
             overwrite flag. To update tags for an existing parameter, please use AddTagsToResource or \
             RemoveTagsFromResource.",
        ));
    }
    let allowed_pattern = allowed_pattern.filter(|pattern| !pattern.is_empty());
    check_pattern(allowed_pattern.as_deref(), &value)?;
    let tags = tag::with(&Tags::default(), tags.unwrap_or_default())?;
    let now = call.context.now();
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let key = Parameter::key_of(call.scope(), &name);
        let present = view.parameters.get(&key);
        if present.is_some() && !overwrite {
            return Err(ssm::Error::ParameterAlreadyExists(
                "The parameter already exists. To overwrite this value, set the overwrite option in the request to true."
                    .to_owned(),
            )
            .into());
        }
        if present.is_none() && view.parameters.of(call.scope()).nth(MOST - 1).is_some() {
            let message = format!("You have reached the maximum number of parameters: {MOST}.");
            return Err(ssm::Error::ParameterLimitExceeded(message).into());
        }
        let mut next = match present {
            Some(present) => Parameter::clone(present),
            None => Parameter {
                scope: call.scope().clone(),
                name: name.clone(),
                tags: tags.clone(),
                versions: Vec::new(),
            },
        };
        let before = next.latest().cloned();
        let number = before.as_ref().map_or(1, |before| before.number + 1);
        let kind = match (&r#type, &before) {
            (Some(kind), _) => kind.as_str(),
            (None, Some(before)) => before.value.kind(),
            (None, None) => return Err(invalid("A parameter type is required when you create a parameter.")),
        };
        let value = match kind {
            "SecureString" => {
                call.context.vault.claim(view, transaction).map_err(sealing)?;
                let sealed = call.context.vault.seal(&sealed_as(&next.arn(), number), value.as_bytes());
                let key_id = key_id.clone().unwrap_or_else(|| DEFAULT_KEY.to_owned());
                ParameterValue::SecureString { value: sealed.map_err(sealing)?, key_id }
            }
            "StringList" => ParameterValue::StringList(value.clone()),
            _ => ParameterValue::String(value.clone()),
        };
        next.versions.push(ParameterVersion {
            number,
            value,
            tier: shown_tier.to_owned(),
            data_type: data_type.clone(),
            description: description.clone().or_else(|| before.and_then(|before| before.description)),
            allowed_pattern: allowed_pattern.clone(),
            labels: BTreeSet::new(),
            modified_at: now,
            modified_by: call.caller.arn(),
        });
        let unlabelled = next.versions.iter().position(|version| version.labels.is_empty());
        if let Some(oldest) = unlabelled.filter(|_| next.versions.len() > MOST_VERSIONS) {
            next.versions.remove(oldest);
        }
        match present {
            Some(_) => transaction.update(&next),
            None => transaction.create(&next),
        }
        Ok(number)
    });
    let version = commit.await?;
    Ok(ssm::PutParameterResult { version: i64::try_from(version).ok(), tier: shown_tier.parse().ok() })
}

fn check_name(name: &str) -> Result<(), Fault> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-/".contains(&byte);
    if name.is_empty() || name.len() > 1011 || !name.bytes().all(is_plain) {
        return Err(invalid(
            "Parameter name: can't be prefixed with \"ssm\" (case-insensitive). If formed as a path, it can consist of \
             sub-paths divided by slash symbol; each sub-path can be formed as a mix of letters, numbers and the following \
             3 symbols .-_",
        ));
    }
    let first = name.trim_start_matches('/').split('/').next().unwrap_or_default().to_ascii_lowercase();
    if first.starts_with("aws") || first.starts_with("ssm") {
        return Err(invalid("Parameter name: can't be prefixed with \"aws\" or \"ssm\" (case-insensitive)."));
    }
    if name.contains('/') && !name.starts_with('/') {
        return Err(invalid(
            "Parameter name must be a fully qualified name: one with slashes begins with one.",
        ));
    }
    if name.split('/').filter(|level| !level.is_empty()).count() > MOST_LEVELS {
        let message = format!("A parameter name can have at most {MOST_LEVELS} levels.");
        return Err(ssm::Error::HierarchyLevelLimitExceededException(message).into());
    }
    Ok(())
}

fn check_pattern(pattern: Option<&str>, value: &str) -> Result<(), Fault> {
    let Some(pattern) = pattern else { return Ok(()) };
    let compiled = regex::Regex::new(&format!("^(?:{pattern})$")).map_err(|_| {
        let message = format!("The allowed pattern '{pattern}' is not a valid regular expression.");
        Fault::from(ssm::Error::InvalidAllowedPatternException(message))
    })?;
    match compiled.is_match(value) {
        true => Ok(()),
        false => Err(ssm::Error::ParameterPatternMismatchException(format!(
            "Parameter value, cannot be validated against allowedPattern: {pattern}"
        ))
        .into()),
    }
}

pub async fn delete(
    call: Call,
    request: ssm::DeleteParameterRequest,
) -> Result<ssm::DeleteParameterResult, Fault> {
    let ssm::DeleteParameterRequest { name } = request;
    let (deleted, _) = remove(&call, vec![name]).await?;
    if deleted.is_empty() { Err(missing()) } else { Ok(ssm::DeleteParameterResult {}) }
}

pub async fn delete_all(
    call: Call,
    request: ssm::DeleteParametersRequest,
) -> Result<ssm::DeleteParametersResult, Fault> {
    let ssm::DeleteParametersRequest { names } = request;
    let (deleted, missing) = remove(&call, names).await?;
    Ok(ssm::DeleteParametersResult { deleted_parameters: Some(deleted), invalid_parameters: Some(missing) })
}

/// Those that were there, and those that were not.
async fn remove(call: &Call, names: Vec<String>) -> Result<(Vec<String>, Vec<String>), Fault> {
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let unique: BTreeSet<&String> = names.iter().collect();
        let (mut deleted, mut missing) = (Vec::new(), Vec::new());
        for name in unique {
            match parameter(view, call.scope(), name) {
                Some(present) => {
                    transaction.delete(present.key());
                    deleted.push(name.clone());
                }
                None => missing.push(name.clone()),
            }
        }
        Ok((deleted, missing))
    });
    commit.await
}
