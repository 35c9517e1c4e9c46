//! Parameters without their values. Follows
//! <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_DescribeParameters.html>.

use super::invalid;
use super::page::page;
use crate::api::Call;
use crate::refuse::{Given as _, unsupported};
use longshore_model::secret::{Parameter, ParameterValue};
use longshore_ssm as ssm;
use longshore_wire::{Fault, Timestamp};
use std::sync::Arc;

crate::given_when_present!(ssm::ParametersFilter);

const PAGE: usize = 50;

/// A condition on parameters.
pub struct Filter {
    key: String,
    option: String,
    values: Vec<String>,
}

pub fn filters(given: Vec<ssm::ParameterStringFilter>) -> Result<Vec<Filter>, Fault> {
    let filter = |ssm::ParameterStringFilter { key, option, values }| {
        let (option, values) = (option.unwrap_or_default(), values.unwrap_or_default());
        let options: &[&str] = match key.as_str() {
            "Name" => &["", "Equals", "BeginsWith", "Contains"],
            "Path" => &["", "OneLevel", "Recursive"],
            "Type" | "Tier" | "DataType" | "Label" => &["", "Equals"],
            "KeyId" => &["", "Equals", "BeginsWith"],
            key if key.starts_with("tag:") => &["", "Equals"],
            _ => {
                let message = format!("The following filter key is not valid: {key}.");
                return Err(Fault::from(ssm::Error::InvalidFilterKey(message)));
            }
        };
        if !options.contains(&option.as_str()) {
            let message = format!("The following filter option is not valid: {option}.");
            return Err(ssm::Error::InvalidFilterOption(message).into());
        }
        if values.is_empty() && !key.starts_with("tag:") {
            return Err(ssm::Error::InvalidFilterValue(format!("The filter {key} needs a value.")).into());
        }
        Ok(Filter { key, option, values })
    };
    given.into_iter().map(filter).collect()
}

impl Filter {
    pub fn passes(&self, parameter: &Parameter) -> bool {
        let Some(latest) = parameter.latest() else { return false };
        let fits = |text: &str| {
            self.values.iter().any(|value| match self.option.as_str() {
                "BeginsWith" => text.starts_with(value.as_str()),
                "Contains" => text.contains(value.as_str()),
                _ => text == value,
            })
        };
        match self.key.as_str() {
            "Name" => fits(&parameter.name) || fits(parameter.name.trim_start_matches('/')),
            "Path" => {
                self.values.iter().any(|path| is_below(&parameter.name, path, self.option == "Recursive"))
            }
            "Type" => fits(latest.value.kind()),
            "Tier" => fits(&latest.tier),
            "DataType" => fits(&latest.data_type),
            "Label" => parameter.versions.iter().flat_map(|version| &version.labels).any(|label| fits(label)),
            "KeyId" => match &latest.value {
                ParameterValue::SecureString { key_id, .. } => fits(key_id),
                ParameterValue::String(_) | ParameterValue::StringList(_) => false,
            },
            tag => {
                let value = tag.strip_prefix("tag:").and_then(|key| parameter.tags.0.get(key));
                value.is_some_and(|value| self.values.is_empty() || fits(value))
            }
        }
    }
}

/// Whether a name is below a path: right below, or at any depth.
pub fn is_below(name: &str, path: &str, recursive: bool) -> bool {
    let rest = name.strip_prefix(path.trim_end_matches('/')).and_then(|rest| rest.strip_prefix('/'));
    rest.is_some_and(|rest| recursive || !rest.contains('/'))
}

pub async fn describe(
    call: Call,
    request: ssm::DescribeParametersRequest,
) -> Result<ssm::DescribeParametersResult, Fault> {
    let ssm::DescribeParametersRequest { filters: old, parameter_filters, max_results, next_token, shared } =
        request;
    unsupported(&[("Filters", old.given()), ("Shared", shared.given())]).map_err(invalid)?;
    let filters = filters(parameter_filters.unwrap_or_default())?;
    let view = call.context.view();
    let passes = |parameter: &&Arc<Parameter>| filters.iter().all(|filter| filter.passes(parameter));
    let mut found: Vec<_> = view.parameters.of(call.scope()).filter(passes).collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    let (page, next_token) = page(found, |parameter| parameter.name.clone(), next_token, max_results, PAGE)?;
    let metadata = |parameter: &Arc<Parameter>| {
        let version = parameter.latest()?;
        let key_id = match &version.value {
            ParameterValue::SecureString { key_id, .. } => Some(key_id.clone()),
            ParameterValue::String(_) | ParameterValue::StringList(_) => None,
        };
        Some(ssm::ParameterMetadata {
            name: Some(parameter.name.clone()),
            arn: Some(parameter.arn()),
            r#type: version.value.kind().parse().ok(),
            key_id,
            last_modified_date: Some(Timestamp(version.modified_at.millis())),
            last_modified_user: Some(version.modified_by.clone()),
            description: version.description.clone(),
            allowed_pattern: version.allowed_pattern.clone(),
            version: i64::try_from(version.number).ok(),
            tier: version.tier.parse().ok(),
            policies: Some(Vec::new()),
            data_type: Some(version.data_type.clone()),
        })
    };
    Ok(ssm::DescribeParametersResult {
        parameters: Some(page.into_iter().filter_map(metadata).collect()),
        next_token,
    })
}
