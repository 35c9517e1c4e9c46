//! `docs/coverage.md` says what the routes serve, and which fields they refuse: each field of each served operation
//! is sent alone, on top of a request that is otherwise in order.

#![allow(clippy::unwrap_used, reason = "a test ends where its ground is missing")]

use longshore_control::api::{Call, Caller, Services};
use longshore_control::coverage::{self, Refused};
use longshore_control::log_store::{LogStore, Options};
use longshore_control::metric_store::MetricStore;
use longshore_control::vault::Vault;
use longshore_control::{Config, Context, context};
use longshore_model::Scope;
use longshore_store::{Store, memory::Memory};
use longshore_wire::schema::{Bounds, Kind, Schema};
use longshore_wire::{Map, ServiceInfo, Value};
use std::sync::Arc;

#[tokio::test]
async fn coverage() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/coverage.md");
    let services = Services::default();
    let page = coverage::page(&services, &refused(&services).await);
    if std::env::var_os("LONGSHORE_UPDATE").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(page.contains("`containerDefinitions.links`"), "fields that are refused are found");
    assert_eq!(written, page, "docs/coverage.md is out of date: run this test with LONGSHORE_UPDATE=1");
}

async fn refused(services: &Services) -> Refused {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Arc::new(Memory::default())).await.unwrap();
    let log_store = LogStore::open(directory.path(), Options::default()).unwrap();
    let config = Config {
        vpc_cidr: "172.31.0.0/16".parse().unwrap(),
        keep_stopped_tasks: 0,
        shared_store: false,
        instance_lost_after: std::time::Duration::MAX,
        task_healthy_after: std::time::Duration::ZERO,
        scale_in_after: std::time::Duration::ZERO,
        instances: Some(longshore_model::container_instance::CpuArchitecture::X86_64),
        lambda_endpoint: None,
    };
    let metric_store = MetricStore::open(&directory.path().join("metrics"), context::now()).unwrap();
    let vault = Vault::new(&Vault::make_key()).unwrap();
    let context = Arc::new(Context::new(Arc::new(store), log_store, metric_store, vault, config));
    let scope = Scope::new("123456789012", "us-east-1");
    let caller = Caller { scope, access_key: "AKIDEXAMPLE".into(), user: "admin".into() };
    let mut refused = Refused::new();
    for routes in services.all() {
        for operation in routes.service.operations.iter().filter(|operation| routes.serves(operation.name)) {
            let mut probes = Vec::new();
            let whole = in_order(operation.name, operation.input);
            probe(operation.input, &whole, "", &|request| request, &mut probes);
            // One that is refused as it stands would have every field of it look refused.
            let name = operation.name;
            let answer = attempt(services, &context, &caller, routes.service, name, whole).await;
            assert!(!answer, "the request for {name} that others are made of is not in order");
            let mut fields: Vec<String> = Vec::new();
            let tried: Vec<String> = probes.iter().map(|(field, _)| field.clone()).collect();
            for (field, request) in probes {
                let is_refused = attempt(services, &context, &caller, routes.service, name, request).await;
                // What a refused field contains needs no line of its own.
                if is_refused && !fields.iter().any(|outer| field.starts_with(&format!("{outer}."))) {
                    fields.push(field);
                }
            }
            if !fields.is_empty() {
                refused.insert((routes.service.name, operation.name), join_values(&tried, fields));
            }
        }
    }
    refused
}

/// Whether a request is refused for what Longshore does not do.
async fn attempt(
    services: &Services,
    context: &Arc<Context>,
    caller: &Caller,
    service: &ServiceInfo,
    operation: &str,
    request: Value,
) -> bool {
    let call = Call { context: Arc::clone(context), caller: caller.clone() };
    let answer = services.call(call, service.signing_name, operation, request).await;
    answer.is_err_and(|fault| fault.message.contains("not supported by Longshore"))
}

/// Where every value of a field is refused, the field is.
fn join_values(tried: &[String], refused: Vec<String>) -> Vec<String> {
    let mut joined: Vec<String> = Vec::new();
    for field in &refused {
        let name = field.split('=').next().unwrap_or_default();
        let of_name = |other: &&String| other.starts_with(&format!("{name}="));
        let whole = refused.iter().filter(of_name).count() == tried.iter().filter(of_name).count();
        let shown = if whole { name } else { field.as_str() };
        if joined.last().is_none_or(|last| last != shown) {
            joined.push(shown.to_owned());
        }
    }
    joined
}

/// A request that its handler has no other objection to before it looks at the fields.
fn in_order(operation: &str, input: &'static Schema) -> Value {
    let mut request = sample(input);
    if let ("RegisterTaskDefinition", Value::Map(members)) = (operation, &mut request) {
        let options = map([("awslogs-group", text("a"))]);
        let log = map([("logDriver", text("awslogs")), ("options", options)]);
        let container = map([
            ("name", text("a")),
            ("image", text("a")),
            ("memory", Value::Int(512)),
            ("logConfiguration", log),
        ]);
        members.take("containerDefinitions");
        members.push("containerDefinitions", Value::List(vec![container]));
    }
    // Parameters are the one kind of SSM's resources that there is.
    if let Value::Map(members) = &mut request
        && operation.contains("Tags")
        && members.take("ResourceType").is_some()
    {
        members.push("ResourceType", text("Parameter"));
    }
    // On instances, which are what RunTask chooses by itself, it would ask for instances first.
    if let ("RunTask" | "CreateService", Value::Map(members)) = (operation, &mut request) {
        members.push("launchType", text("FARGATE"));
    }
    request
}

type Wrap<'a> = &'a dyn Fn(Value) -> Value;

/// Requests with one field more than `base`, for every field at every depth, each with the field's path.
fn probe(
    schema: &'static Schema,
    base: &Value,
    path: &str,
    wrap: Wrap<'_>,
    probes: &mut Vec<(String, Value)>,
) {
    let Kind::Structure(members) = &schema.kind else { return };
    let Value::Map(base) = base else { return };
    for member in *members {
        let with = |value: Value| {
            let mut changed = base.clone();
            changed.take(member.name);
            changed.push(member.name, value);
            wrap(Value::Map(changed))
        };
        let path = if path.is_empty() { member.name.to_owned() } else { format!("{path}.{}", member.name) };
        let present = base.get(member.name);
        match &member.schema.kind {
            Kind::String { values, .. } if !values.is_empty() => {
                for value in *values {
                    probes.push((format!("{path}={value}"), with(text(value))));
                }
            }
            Kind::Structure(_) => {
                let inner = present.cloned().unwrap_or_else(|| sample(member.schema));
                probes.push((path.clone(), with(inner.clone())));
                probe(member.schema, &inner, &path, &|value| with(value), probes);
            }
            Kind::List { of, .. } => match &of.kind {
                Kind::String { values, .. } if !values.is_empty() => {
                    for value in *values {
                        probes.push((format!("{path}={value}"), with(Value::List(vec![text(value)]))));
                    }
                }
                _ => {
                    let first = match present {
                        Some(Value::List(elements)) => elements.first().cloned(),
                        _ => None,
                    };
                    let inner = first.unwrap_or_else(|| sample(of));
                    probes.push((path.clone(), with(Value::List(vec![inner.clone()]))));
                    probe(of, &inner, &path, &|value| with(Value::List(vec![value])), probes);
                }
            },
            _ => probes.push((path, with(present.cloned().unwrap_or_else(|| sample(member.schema))))),
        }
    }
}

/// A value that keeps the model's constraints, with the required members and nothing else.
fn sample(schema: &'static Schema) -> Value {
    match &schema.kind {
        Kind::Structure(members) => {
            let required = members.iter().filter(|member| member.required);
            map(required.map(|member| (member.name, sample(member.schema))))
        }
        Kind::List { of, .. } => Value::List(vec![sample(of)]),
        Kind::Map { of, .. } => map([("a", sample(of))]),
        Kind::String { values, length, .. } => match values.first() {
            Some(first) => text(first),
            None => Value::String("1".repeat(number(length).unsigned_abs() as usize).into()),
        },
        Kind::Integer(bounds) | Kind::Long(bounds) => Value::Int(number(bounds)),
        Kind::Double(_) => Value::Float(1.0),
        Kind::Boolean => Value::Bool(true),
        Kind::Blob(_) => Value::Blob(vec![1]),
        Kind::Timestamp => Value::Timestamp(longshore_wire::Timestamp(0)),
        Kind::Document => map([]),
    }
}

fn number(bounds: &Bounds) -> i64 {
    bounds.min.map_or(1, |min| (min as i64).max(1))
}

fn map(members: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let mut map = Map::new();
    members.into_iter().for_each(|(name, value)| map.push(name, value));
    Value::Map(map)
}

fn text(text: &'static str) -> Value {
    Value::String(text.into())
}
