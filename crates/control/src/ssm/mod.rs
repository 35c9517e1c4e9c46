//! AWS Systems Manager: its Parameter Store.

mod describe;
mod get;
mod history;
mod page;
mod put;
mod tag;

use crate::api::Routes;
use crate::context::Context;
use crate::vault;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use longshore_engine::View;
use longshore_model::Scope;
use longshore_model::arn::Arn;
use longshore_model::secret::{Parameter, ParameterValue, ParameterVersion};
use longshore_ssm as ssm;
use longshore_ssm::operations as op;
use longshore_wire::Fault;
use std::sync::Arc;

pub fn routes() -> Routes {
    Routes::new(&ssm::SERVICE)
        .on::<op::PutParameter, _, _, _>(put::put)
        .on::<op::DeleteParameter, _, _, _>(put::delete)
        .on::<op::DeleteParameters, _, _, _>(put::delete_all)
        .on::<op::GetParameter, _, _, _>(get::one)
        .on::<op::GetParameters, _, _, _>(get::several)
        .on::<op::GetParametersByPath, _, _, _>(get::by_path)
        .on::<op::GetParameterHistory, _, _, _>(history::get)
        .on::<op::LabelParameterVersion, _, _, _>(history::label)
        .on::<op::DescribeParameters, _, _, _>(describe::describe)
        .on::<op::AddTagsToResource, _, _, _>(tag::add)
        .on::<op::RemoveTagsFromResource, _, _, _>(tag::remove)
        .on::<op::ListTagsForResource, _, _, _>(tag::list)
}

/// What names a version of a parameter: `name`, `name:3` or `name:label`.
pub struct Named<'a> {
    pub parameter: &'a Arc<Parameter>,
    pub version: &'a ParameterVersion,
    /// What stood after the name, with its colon.
    pub selector: Option<String>,
}

/// The parameter of a name or an ARN, and its version.
pub fn find<'a>(view: &'a View, scope: &Scope, id: &str) -> Result<Named<'a>, Fault> {
    let (id, selector) = split(id);
    let parameter = parameter(view, scope, id).ok_or_else(missing)?;
    let Some(selector) = selector else {
        let version = parameter.latest().ok_or_else(missing)?;
        return Ok(Named { parameter, version, selector: None });
    };
    let fits = |version: &&ParameterVersion| match selector.parse::<u64>() {
        Ok(number) => version.number == number,
        Err(_) => version.labels.contains(selector),
    };
    let version = parameter.versions.iter().find(fits).ok_or_else(|| {
        let message = format!("Systems Manager could not find version {selector} of {}.", parameter.name);
        Fault::from(ssm::Error::ParameterVersionNotFound(message))
    })?;
    Ok(Named { parameter, version, selector: Some(format!(":{selector}")) })
}

/// The name or ARN, and what follows its last colon where that is no part of it.
fn split(id: &str) -> (&str, Option<&str>) {
    let name_at = id.find(":parameter/").map_or(0, |at| at + ":parameter/".len());
    match id.get(name_at..).and_then(|name| name.rsplit_once(':')) {
        Some((name, selector)) => (id.get(..name_at + name.len()).unwrap_or(id), Some(selector)),
        None => (id, None),
    }
}

pub fn parameter<'a>(view: &'a View, scope: &Scope, id: &str) -> Option<&'a Arc<Parameter>> {
    let named = |name: &str| view.parameters.get(&Parameter::key_of(scope, name));
    let Some(arn) = Arn::parse(id) else { return named(id) };
    let path = arn.resource.strip_prefix("parameter").filter(|_| arn.service == "ssm")?;
    let found = named(path).or_else(|| named(path.strip_prefix('/')?));
    found.filter(|parameter| parameter.arn() == id)
}

/// The value as it is, opened where it is sealed.
pub fn open(context: &Context, named: &Named<'_>) -> Result<String, Fault> {
    match &named.version.value {
        ParameterValue::String(value) | ParameterValue::StringList(value) => Ok(value.clone()),
        ParameterValue::SecureString { value, .. } => {
            let name = sealed_as(&named.parameter.arn(), named.version.number);
            let bytes = context.vault.open(&name, value).map_err(sealing)?;
            String::from_utf8(bytes).map_err(|_| sealing(vault::Error::Damaged))
        }
    }
}

fn sealed_as(arn: &str, version: u64) -> String {
    format!("{arn}:{version}")
}

/// The value as it is shown to who may not, or does not want to, have it opened.
fn shown(context: &Context, named: &Named<'_>, with_decryption: bool) -> Result<String, Fault> {
    match &named.version.value {
        ParameterValue::SecureString { value, .. } if !with_decryption => Ok(BASE64.encode(&value.0)),
        _ => open(context, named),
    }
}

fn render(context: &Context, named: &Named<'_>, with_decryption: bool) -> Result<ssm::Parameter, Fault> {
    let version = named.version;
    Ok(ssm::Parameter {
        name: Some(named.parameter.name.clone()),
        r#type: version.value.kind().parse().ok(),
        value: Some(shown(context, named, with_decryption)?),
        version: i64::try_from(version.number).ok(),
        selector: named.selector.clone(),
        source_result: None,
        last_modified_date: Some(longshore_wire::Timestamp(version.modified_at.millis())),
        arn: Some(named.parameter.arn()),
        data_type: Some(version.data_type.clone()),
    })
}

fn missing() -> Fault {
    ssm::Error::ParameterNotFound(String::new()).into()
}

/// What the service answers to values that are wrong by themselves; its model has no error for it.
fn invalid(message: impl Into<String>) -> Fault {
    Fault::sender("ValidationException", message.into())
}

fn sealing(error: vault::Error) -> Fault {
    tracing::error!(%error, "a parameter cannot be sealed or opened");
    ssm::Error::InternalServerError(format!("{error}.")).into()
}
