//! A parameter's versions and their labels. Follows
//! <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameterHistory.html>.

use super::page::page;
use super::{Named, missing, parameter, shown};
use crate::api::Call;
use longshore_model::secret::{Parameter, ParameterValue};
use longshore_ssm as ssm;
use longshore_wire::{Fault, Timestamp};

const PAGE: usize = 50;
const MOST_LABELS: usize = 10;

pub async fn get(
    call: Call,
    request: ssm::GetParameterHistoryRequest,
) -> Result<ssm::GetParameterHistoryResult, Fault> {
    let ssm::GetParameterHistoryRequest { name, with_decryption, max_results, next_token } = request;
    let view = call.context.view();
    let parameter = parameter(&view, call.scope(), &name).ok_or_else(missing)?;
    let number = |version: &&longshore_model::secret::ParameterVersion| format!("{:020}", version.number);
    let (page, next_token) =
        page(parameter.versions.iter().collect(), number, next_token, max_results, PAGE)?;
    let mut parameters = Vec::new();
    for version in page {
        let named = Named { parameter, version, selector: None };
        let key_id = match &version.value {
            ParameterValue::SecureString { key_id, .. } => Some(key_id.clone()),
            ParameterValue::String(_) | ParameterValue::StringList(_) => None,
        };
        parameters.push(ssm::ParameterHistory {
            name: Some(parameter.name.clone()),
            r#type: version.value.kind().parse().ok(),
            key_id,
            last_modified_date: Some(Timestamp(version.modified_at.millis())),
            last_modified_user: Some(version.modified_by.clone()),
            description: version.description.clone(),
            value: Some(shown(&call.context, &named, with_decryption.unwrap_or(false))?),
            allowed_pattern: version.allowed_pattern.clone(),
            version: i64::try_from(version.number).ok(),
            labels: Some(version.labels.iter().cloned().collect()),
            tier: version.tier.parse().ok(),
            policies: Some(Vec::new()),
            data_type: Some(version.data_type.clone()),
        });
    }
    Ok(ssm::GetParameterHistoryResult { parameters: Some(parameters), next_token })
}

pub async fn label(
    call: Call,
    request: ssm::LabelParameterVersionRequest,
) -> Result<ssm::LabelParameterVersionResult, Fault> {
    let ssm::LabelParameterVersionRequest { name, parameter_version, labels } = request;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let is_valid = |label: &String| {
        let lower = label.to_ascii_lowercase();
        let digit = label.bytes().next().is_none_or(|byte| byte.is_ascii_digit());
        !digit && !lower.starts_with("aws") && !lower.starts_with("ssm") && label.bytes().all(is_plain)
    };
    let (good, wrong): (Vec<_>, Vec<_>) = labels.into_iter().partition(is_valid);
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let present = parameter(&snapshot.view, call.scope(), &name).ok_or_else(missing)?;
        let mut next = Parameter::clone(present);
        let latest = next.latest().map(|version| version.number);
        let wanted = parameter_version.and_then(|number| u64::try_from(number).ok()).or(latest);
        let at = next.versions.iter().position(|version| Some(version.number) == wanted);
        let at = at.ok_or_else(|| {
            let message = format!("Systems Manager could not find that version of {name}.");
            Fault::from(ssm::Error::ParameterVersionNotFound(message))
        })?;
        for version in &mut next.versions {
            version.labels.retain(|label| !good.contains(label));
        }
        if let Some(version) = next.versions.get_mut(at) {
            version.labels.extend(good.iter().cloned());
            if version.labels.len() > MOST_LABELS {
                let message = format!("A parameter version can have maximum {MOST_LABELS} labels.");
                return Err(ssm::Error::ParameterVersionLabelLimitExceeded(message).into());
            }
        }
        if next != **present {
            transaction.update(&next);
        }
        Ok(wanted)
    });
    let version = commit.await?;
    Ok(ssm::LabelParameterVersionResult {
        invalid_labels: Some(wrong),
        parameter_version: version.and_then(|version| i64::try_from(version).ok()),
    })
}
