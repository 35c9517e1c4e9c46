//! Which service and operation a request is for: by its credential scope, and without one by its target, its
//! action and version.

use crate::api::not_served;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use longshore_wire::protocol::Form;
use longshore_wire::sigv4::Scope;
use longshore_wire::{Fault, OperationInfo, Protocol, ServiceInfo};

use super::Head;

/// The form that a request has by its looks, for answers before its service is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Envelope {
    Json,
    Query,
}

impl Envelope {
    pub(super) fn protocol(self) -> Protocol {
        match self {
            Self::Json => Protocol::Json11,
            Self::Query => Protocol::Query,
        }
    }
}

/// Services whose clients can read XML alone.
const XML_SERVICES: &[&str] = &["cloudfront", "route53", "s3", "s3express"];
const TARGET: &str = "x-amz-target";
const FORM: &str = "application/x-www-form-urlencoded";

pub(super) fn envelope(parts: &Parts) -> Envelope {
    let is_query = is_form(parts) || parts.uri.query().is_some_and(|query| query.contains("Action="));
    match is_query && !parts.headers.contains_key(TARGET) {
        true => Envelope::Query,
        false => Envelope::Json,
    }
}

/// The same, when the credential scope is known too.
pub(super) fn envelope_of(envelope: Envelope, scope: Option<&Scope>) -> Envelope {
    match scope {
        Some(scope) if XML_SERVICES.contains(&scope.service.as_str()) => Envelope::Query,
        _ => envelope,
    }
}

pub(super) fn service(
    services: &[&'static ServiceInfo],
    scope: Option<&Scope>,
    parts: &Parts,
) -> Option<&'static ServiceInfo> {
    let prefix = target(parts).map(|(prefix, _)| prefix);
    let by_target =
        |service: &&&'static ServiceInfo| prefix.is_some_and(|prefix| service.target_prefix == prefix);
    let spoken = |service: &'static ServiceInfo| match service.json {
        Some(json) if prefix == Some(service.target_prefix) => json,
        Some(_) | None => service,
    };
    let Some(scope) = scope else {
        return services.iter().find(by_target).copied().map(spoken);
    };
    let signed_for = || services.iter().filter(|service| service.signing_name == scope.service);
    // Where services share a signing name, the target or the version tells them apart.
    let version = || {
        let form = Form::parse(parts.uri.query()?.as_bytes())?;
        let version = form.get("Version")?.to_owned();
        signed_for().find(|service| service.api_version == version)
    };
    signed_for().find(by_target).or_else(version).or_else(|| signed_for().next()).copied().map(spoken)
}

pub(super) fn service_of_form(
    services: &[&'static ServiceInfo],
    head: &Head,
    form: Option<&Form>,
) -> Option<&'static ServiceInfo> {
    if head.presented.is_some() {
        return None;
    }
    let form = form?;
    let (action, version) = (form.get("Action"), form.get("Version")?);
    let fits = |service: &&&'static ServiceInfo| {
        let knows = action
            .is_none_or(|action| service.operation(action).is_some() || service.unserved.contains(&action));
        is_query(service.protocol) && service.api_version == version && knows
    };
    services.iter().find(fits).copied()
}

/// The parameters of a query or ec2 request, from its URL and its body.
pub(super) fn form(
    parts: &Parts,
    service: Option<&ServiceInfo>,
    envelope: Envelope,
    body: &[u8],
) -> Option<Form> {
    if !service.map_or(envelope == Envelope::Query, |service| is_query(service.protocol)) {
        return None;
    }
    let mut form = Form::parse(parts.uri.query().unwrap_or_default().as_bytes()).unwrap_or_default();
    // A body that is not UTF-8 has no parameters that any model knows.
    form.append(Form::parse(body).unwrap_or_default());
    Some(form)
}

pub(super) fn operation(
    service: &'static ServiceInfo,
    parts: &Parts,
    form: Option<&Form>,
) -> Result<&'static OperationInfo, Fault> {
    let name = match form {
        Some(form) => form.get("Action").filter(|action| !action.is_empty()).ok_or_else(missing_action)?,
        None => target(parts)
            .filter(|(prefix, _)| *prefix == service.target_prefix)
            .map(|(_, name)| name)
            .ok_or_else(|| Fault::sender("UnknownOperationException", unknown_target(service)))?,
    };
    service.operation(name).ok_or_else(|| unknown_operation(service, name))
}

pub(super) fn unknown_service(name: Option<&str>) -> Fault {
    match name {
        Some(name) => Fault::sender(
            "UnknownOperationException",
            format!("Longshore does not serve `{name}` yet. docs/coverage.md lists what it serves."),
        ),
        None => Fault::sender(
            "UnknownOperationException",
            "This is not a request to an AWS API that Longshore serves.",
        )
        .with_status(404),
    }
}

fn unknown_operation(service: &ServiceInfo, name: &str) -> Fault {
    if service.unserved.contains(&name) {
        return not_served(service.name, name, Some(service.protocol));
    }
    let code = if is_query(service.protocol) { "InvalidAction" } else { "UnknownOperationException" };
    Fault::sender(code, format!("The action {name} is not valid for this web service."))
}

fn missing_action() -> Fault {
    Fault::sender("MissingAction", "The request must contain the parameter Action")
}

fn unknown_target(service: &ServiceInfo) -> String {
    format!("The X-Amz-Target header must name an operation as {}.Operation.", service.target_prefix)
}

/// The parts of `AmazonEC2ContainerServiceV20141113.RunTask`.
fn target(parts: &Parts) -> Option<(&str, &str)> {
    parts.headers.get(TARGET)?.to_str().ok()?.split_once('.')
}

fn is_form(parts: &Parts) -> bool {
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.get(..FORM.len()).is_some_and(|start| start.eq_ignore_ascii_case(FORM))
}

fn is_query(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Query | Protocol::Ec2)
}
