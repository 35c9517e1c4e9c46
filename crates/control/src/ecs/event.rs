//! Events as EventBridge passes them on.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_cwe_events.html>.

use super::{container_instance, task};
use longshore_engine::View;
use longshore_model::event::{Event, InstanceState, ServiceAction, Subject};
use longshore_model::task::Task;
use longshore_model::{arn, cluster};
use longshore_wire::{Encode, Timestamp, Value};
use serde_json::{Map, json};

type Json = serde_json::Value;

/// What DescribeContainerInstances shows and the events of AWS have.
const OF_AN_INSTANCE: [&str; 10] = [
    "agentConnected",
    "attributes",
    "containerInstanceArn",
    "ec2InstanceId",
    "registeredAt",
    "registeredResources",
    "remainingResources",
    "status",
    "version",
    "versionInfo",
];

/// The event in EventBridge's envelope.
pub fn render(view: &View, event: &Event) -> Json {
    let (kind, arn, mut detail) = match &event.subject {
        Subject::Task(task) => ("ECS Task State Change", Some(task.arn()), of_task(view, task)),
        Subject::ContainerInstance(state) => {
            ("ECS Container Instance State Change", state.instance.arn(), of_instance(view, state))
        }
        Subject::Service(action) => {
            let kind = if action.deployment.is_some() {
                "ECS Deployment State Change"
            } else {
                "ECS Service Action"
            };
            let (cluster, service) = (&action.cluster, &action.service);
            let arn = arn::ecs(&action.scope, format_args!("service/{cluster}/{service}"));
            (kind, Some(arn), of_service(action))
        }
    };
    let at = json!(Timestamp(event.at.millis()).to_string());
    let is_action = matches!(&event.subject, Subject::Service(action) if action.deployment.is_none());
    detail.insert(if is_action { "createdAt" } else { "updatedAt" }.to_owned(), at);
    let scope = event.subject.scope();
    json!({
        "version": "0",
        "id": event.id,
        "detail-type": kind,
        "source": "aws.ecs",
        "account": scope.map(|scope| &*scope.account),
        "time": Timestamp(event.at.millis() / 1000 * 1000).to_string(),
        "region": scope.map(|scope| &*scope.region),
        "resources": [arn],
        "detail": detail,
    })
}

fn of_task(view: &View, task: &Task) -> Map<String, Json> {
    let mut detail = members(task::render::task(view, task, false));
    // Events carry no tags, and call the attachment by another name than DescribeTasks does.
    detail.remove("tags");
    for attachment in detail.get_mut("attachments").and_then(Json::as_array_mut).into_iter().flatten() {
        attachment["type"] = json!("eni");
    }
    detail
}

fn of_service(action: &ServiceAction) -> Map<String, Json> {
    let mut detail = Map::new();
    detail.insert("eventType".to_owned(), json!(action.what.severity()));
    detail.insert("eventName".to_owned(), json!(action.what.as_str()));
    match &action.deployment {
        Some(deployment) => detail.insert("deploymentId".to_owned(), json!(deployment)),
        None => {
            detail.insert("clusterArn".to_owned(), json!(cluster::arn_of(&action.scope, &action.cluster)))
        }
    };
    detail.extend(action.reason.iter().map(|reason| ("reason".to_owned(), json!(reason))));
    detail
}

fn of_instance(view: &View, state: &InstanceState) -> Map<String, Json> {
    let shown = members(container_instance::render_as(view, state, false));
    let mut detail: Map<String, Json> =
        shown.into_iter().filter(|(name, _)| OF_AN_INSTANCE.contains(&name.as_str())).collect();
    let cluster = state.instance.membership().map(|member| cluster::arn_of(&member.scope, &member.cluster));
    detail.insert("clusterArn".to_owned(), json!(cluster));
    detail
}

fn members(shape: impl Encode) -> Map<String, Json> {
    let mut text = Vec::new();
    longshore_wire::protocol::write_json(&mut text, &with_iso_times(shape.encode()));
    serde_json::from_slice(&text).unwrap_or_default()
}

/// The APIs write points in time as numbers, events as ISO 8601.
fn with_iso_times(value: Value) -> Value {
    match value {
        Value::Timestamp(time) => Value::String(time.to_string().into()),
        Value::List(values) => Value::List(values.into_iter().map(with_iso_times).collect()),
        Value::Map(members) => {
            let mut changed = longshore_wire::Map::with_capacity(members.len());
            members.into_iter().for_each(|(name, value)| changed.push(name, with_iso_times(value)));
            Value::Map(changed)
        }
        other => other,
    }
}
