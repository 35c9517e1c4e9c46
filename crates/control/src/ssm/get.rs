//! Parameters as they are read. Follows
//! <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter.html>.

use super::page::page;
use super::{Named, describe, find, invalid, render};
use crate::api::Call;
use longshore_model::secret::Parameter;
use longshore_ssm as ssm;
use longshore_wire::Fault;
use std::collections::BTreeSet;
use std::sync::Arc;

const PAGE: usize = 10;

pub async fn one(call: Call, request: ssm::GetParameterRequest) -> Result<ssm::GetParameterResult, Fault> {
    let ssm::GetParameterRequest { name, with_decryption } = request;
    let view = call.context.view();
    let named = find(&view, call.scope(), &name)?;
    let parameter = render(&call.context, &named, with_decryption.unwrap_or(false))?;
    Ok(ssm::GetParameterResult { parameter: Some(parameter) })
}

pub async fn several(
    call: Call,
    request: ssm::GetParametersRequest,
) -> Result<ssm::GetParametersResult, Fault> {
    let ssm::GetParametersRequest { names, with_decryption } = request;
    let view = call.context.view();
    let (mut parameters, mut missing) = (Vec::new(), Vec::new());
    for name in names.into_iter().collect::<BTreeSet<_>>() {
        match find(&view, call.scope(), &name) {
            Ok(named) => parameters.push(render(&call.context, &named, with_decryption.unwrap_or(false))?),
            Err(_) => missing.push(name),
        }
    }
    Ok(ssm::GetParametersResult { parameters: Some(parameters), invalid_parameters: Some(missing) })
}

pub async fn by_path(
    call: Call,
    request: ssm::GetParametersByPathRequest,
) -> Result<ssm::GetParametersByPathResult, Fault> {
    let ssm::GetParametersByPathRequest {
        path,
        recursive,
        parameter_filters,
        with_decryption,
        max_results,
        next_token,
    } = request;
    if !path.starts_with('/') {
        return Err(invalid(format!("The path '{path}' must begin with a slash.")));
    }
    let filters = describe::filters(parameter_filters.unwrap_or_default())?;
    let recursive = recursive.unwrap_or(false);
    let view = call.context.view();
    let inside = |parameter: &&Arc<Parameter>| {
        describe::is_below(&parameter.name, &path, recursive)
            && filters.iter().all(|filter| filter.passes(parameter))
    };
    let mut found: Vec<_> = view.parameters.of(call.scope()).filter(inside).collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    let (page, next_token) = page(found, |parameter| parameter.name.clone(), next_token, max_results, PAGE)?;
    let mut parameters = Vec::new();
    for parameter in page {
        let Some(version) = parameter.latest() else { continue };
        let named = Named { parameter, version, selector: None };
        parameters.push(render(&call.context, &named, with_decryption.unwrap_or(false))?);
    }
    Ok(ssm::GetParametersByPathResult { parameters: Some(parameters), next_token })
}
