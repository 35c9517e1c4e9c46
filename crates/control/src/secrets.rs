//! What containers are given of secrets and parameters, resolved when their agent is told to start them.
//! Invariant: values go to the agent's link and nowhere else.

use crate::context::Context;
use crate::{secretsmanager, ssm};
use longshore_engine::View;
use longshore_model::Scope;
use longshore_model::arn::Arn;
use longshore_model::link::Assignment;
use longshore_model::task::LastStatus;
use longshore_model::task_definition::{EnvironmentVariable, SecretReference};
use longshore_wire::Fault;

const RETRIED: &str = "service call has been retried 1 time(s)";

/// Gives each container of a task that is still to start its secrets, or the reason why there are none.
pub fn prepare(context: &Context, view: &View, assignment: &mut Assignment) {
    let Some(task) = view.tasks.get(&assignment.task.key()) else { return };
    if task.last_status > LastStatus::Running {
        return;
    }
    let Some(definition) = view.task_definition(&task.scope, &task.family, task.revision) else { return };
    for container in &mut assignment.containers {
        let defined = definition.containers.iter().find(|defined| defined.name == container.name);
        for reference in defined.iter().flat_map(|defined| &defined.secrets) {
            match resolve(context, view, &task.scope, &reference.value_from) {
                Ok(value) => {
                    container.secrets.push(EnvironmentVariable { name: reference.name.clone(), value });
                }
                Err(why) => {
                    container.unresolved = Some(format!(
                        "unable to pull secrets or registry auth: execution resource retrieval failed: {why}"
                    ));
                    break;
                }
            }
        }
    }
}

/// The value that a reference leads to, or why it leads to none.
fn resolve(context: &Context, view: &View, scope: &Scope, from: &str) -> Result<String, String> {
    match Arn::parse(from).filter(|arn| arn.service == "secretsmanager") {
        Some(arn) => of_secret(context, view, scope, &arn, from)
            .map_err(|why| format!("unable to retrieve secret from asm: {why}")),
        None => of_parameter(context, view, scope, from),
    }
}

/// `arn:…:secret:name-suffix:json-key:version-stage:version-id`, of which the last three may be empty or left out.
fn of_secret(
    context: &Context,
    view: &View,
    scope: &Scope,
    arn: &Arn<'_>,
    from: &str,
) -> Result<String, String> {
    let mut parts = arn.resource.splitn(5, ':').skip(2);
    let mut part = || parts.next().filter(|part| !part.is_empty());
    let (json_key, stage, version) = (part(), part(), part());
    let end = arn.resource.match_indices(':').nth(1).map_or(arn.resource.len(), |(at, _)| at);
    let id = from.get(..from.len() - (arn.resource.len() - end)).unwrap_or(from);
    let failed = |fault: &Fault| {
        format!(
            "{RETRIED}: failed to fetch secret {id} from secrets manager: {}: {}",
            fault.code, fault.message
        )
    };
    let missing = "ResourceNotFoundException: Secrets Manager can't find the specified secret.";
    let not_found = || format!("{RETRIED}: failed to fetch secret {id} from secrets manager: {missing}");
    let secret = secretsmanager::find(view, scope, id).ok_or_else(not_found)?;
    if secret.deleted.is_some() {
        return Err(format!(
            "{RETRIED}: failed to fetch secret {id} from secrets manager: InvalidRequestException: You can't perform this \
             operation on the secret because it was marked for deletion."
        ));
    }
    let found = secretsmanager::find_version(secret, version, stage).map_err(|fault| failed(&fault))?;
    let bytes = secretsmanager::open(context, secret, found).map_err(|fault| failed(&fault))?;
    let text = String::from_utf8(bytes).map_err(|_| format!("secret {id} is binary"))?;
    let Some(key) = json_key else { return Ok(text) };
    let json: serde_json::Value = serde_json::from_str(&text)
        .map_err(|_| format!("failed to parse json of secret {id}: the secret is not a JSON object"))?;
    match json.get(key) {
        Some(serde_json::Value::String(value)) => Ok(value.clone()),
        Some(value) => Ok(value.to_string()),
        None => Err(format!("retrieved secret from Secrets Manager did not contain json key {key}")),
    }
}

fn of_parameter(context: &Context, view: &View, scope: &Scope, from: &str) -> Result<String, String> {
    let failed = |why: String| format!("unable to retrieve secrets from ssm: {RETRIED}: {why}");
    let named =
        ssm::find(view, scope, from).map_err(|_| failed(format!("invalid ssm parameters: {from}")))?;
    ssm::open(context, &named).map_err(|fault| failed(fault.message.to_string()))
}

/// What a definition's secrets need of those who run it.
pub fn sources(references: &[SecretReference]) -> impl Iterator<Item = &'static str> + '_ {
    references.iter().map(|reference| match Arn::parse(&reference.value_from) {
        Some(arn) if arn.service == "secretsmanager" => "ecs.capability.secrets.asm.environment-variables",
        Some(_) | None => "ecs.capability.secrets.ssm.environment-variables",
    })
}
