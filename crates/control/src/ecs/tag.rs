//! Tags of ECS resources. Invariant: keys are at most 128 characters, values 256, and `aws:` is AWS's.

use super::{invalid, reference};
use crate::api::Call;
use longshore_ecs as ecs;
use longshore_engine::View;
use longshore_model::arn::Arn;
use longshore_model::capacity_provider::CapacityProvider;
use longshore_model::cluster::{Cluster, Status};
use longshore_model::container_instance::ContainerInstance;
use longshore_model::service::{self, Service};
use longshore_model::task::Task;
use longshore_model::task_definition::TaskDefinition;
use longshore_model::{Scope, Tags, Transaction, tag};
use std::sync::Arc;

pub fn parse(tags: Option<Vec<ecs::Tag>>) -> Result<Tags, ecs::Error> {
    let mut parsed = Tags::default();
    for ecs::Tag { key, value } in tags.unwrap_or_default() {
        let key = key.unwrap_or_default();
        check_key(&key)?;
        let value = value.unwrap_or_default();
        if value.chars().count() > 256 {
            return Err(invalid(format!("The value of the tag '{key}' is longer than 256 characters.")));
        }
        if parsed.0.insert(key.clone(), value).is_some() {
            return Err(invalid(format!("Duplicate tag keys found: '{key}'.")));
        }
    }
    if parsed.0.len() > tag::LIMIT { Err(invalid(tag::Error::TooMany.to_string())) } else { Ok(parsed) }
}

fn check_key(key: &str) -> Result<(), ecs::Error> {
    let length = key.chars().count();
    if !(1..=128).contains(&length) {
        return Err(invalid("A tag key must be 1 to 128 characters."));
    }
    if key.to_ascii_lowercase().starts_with("aws:") {
        return Err(invalid(format!("The tag key '{key}' starts with aws:, which only AWS may use.")));
    }
    Ok(())
}

pub fn render(tags: &Tags) -> Vec<ecs::Tag> {
    tags.0
        .iter()
        .map(|(key, value)| ecs::Tag { key: Some(key.clone()), value: Some(value.clone()) })
        .collect()
}

pub async fn tag(
    call: Call,
    request: ecs::TagResourceRequest,
) -> Result<ecs::TagResourceResponse, ecs::Error> {
    let ecs::TagResourceRequest { resource_arn, tags } = request;
    let more = parse(Some(tags))?;
    call.context
        .commit(|snapshot, transaction| {
            let tagged = Tagged::find(&snapshot.view, call.scope(), &resource_arn)?;
            let tags = tagged.tags().with(more.clone()).map_err(|error| invalid(error.to_string()))?;
            tagged.write(tags, transaction);
            Ok::<_, ecs::Error>(())
        })
        .await?;
    Ok(ecs::TagResourceResponse {})
}

pub async fn untag(
    call: Call,
    request: ecs::UntagResourceRequest,
) -> Result<ecs::UntagResourceResponse, ecs::Error> {
    let ecs::UntagResourceRequest { resource_arn, tag_keys } = request;
    call.context
        .commit(|snapshot, transaction| {
            let tagged = Tagged::find(&snapshot.view, call.scope(), &resource_arn)?;
            tagged.write(tagged.tags().without(&tag_keys), transaction);
            Ok::<_, ecs::Error>(())
        })
        .await?;
    Ok(ecs::UntagResourceResponse {})
}

pub async fn list(
    call: Call,
    request: ecs::ListTagsForResourceRequest,
) -> Result<ecs::ListTagsForResourceResponse, ecs::Error> {
    let ecs::ListTagsForResourceRequest { resource_arn } = request;
    let tagged = Tagged::find(&call.context.view(), call.scope(), &resource_arn)?;
    Ok(ecs::ListTagsForResourceResponse { tags: Some(render(tagged.tags())) })
}

/// A resource that can have tags.
enum Tagged {
    Cluster(Arc<Cluster>),
    ContainerInstance(Arc<ContainerInstance>),
    TaskDefinition(Arc<TaskDefinition>),
    Service(Arc<Service>),
    Task(Arc<Task>),
    CapacityProvider(Arc<CapacityProvider>),
}

impl Tagged {
    fn find(view: &View, scope: &Scope, arn: &str) -> Result<Self, ecs::Error> {
        let parsed = Arn::parse(arn).filter(|parsed| parsed.service == "ecs");
        let parsed = parsed.ok_or_else(|| invalid(format!("Invalid resource ARN: {arn}")))?;
        if !parsed.in_scope(scope) {
            return Err(not_found(arn));
        }
        let (kind, name) = parsed.resource.split_once('/').unwrap_or((parsed.resource, ""));
        match kind {
            "cluster" => {
                let cluster = view.cluster(scope, name).filter(|cluster| cluster.status == Status::Active);
                let missing = || ecs::Error::ClusterNotFoundException("Cluster not found.".to_owned());
                cluster.cloned().map(Self::Cluster).ok_or_else(missing)
            }
            "task-definition" => {
                let wanted = reference::family_revision(scope, name)?;
                let found = wanted.revision.and_then(|r| view.task_definition(scope, &wanted.family, r));
                found.cloned().map(Self::TaskDefinition).ok_or_else(|| not_found(arn))
            }
            "task" => {
                let (cluster, _) = name.split_once('/').unwrap_or((name, ""));
                let id = reference::task_id(scope, cluster, arn)?;
                let task = id.and_then(|id| view.task(scope, cluster, id));
                task.cloned().map(Self::Task).ok_or_else(|| not_found(arn))
            }
            "service" => {
                let (cluster, _) = name.split_once('/').unwrap_or(("default", name));
                let service = reference::service(view, scope, cluster, arn)?;
                Some(service)
                    .filter(|s| s.status != service::Status::Inactive)
                    .map(Self::Service)
                    .ok_or_else(|| not_found(arn))
            }
            "container-instance" => {
                let (cluster, _) = name.split_once('/').unwrap_or((name, ""));
                let id = reference::container_instance_id(scope, cluster, arn)?;
                let found = id.and_then(|id| view.container_instance(id));
                let found = found.filter(|instance| instance.arn().as_deref() == Some(arn));
                found.cloned().map(Self::ContainerInstance).ok_or_else(|| not_found(arn))
            }
            "capacity-provider" => {
                let found = view.capacity_providers.get(&CapacityProvider::key_of(scope, name));
                found.cloned().map(Self::CapacityProvider).ok_or_else(|| not_found(arn))
            }
            _ => Err(invalid(format!("Longshore does not tag resources such as {arn} yet."))),
        }
    }

    fn tags(&self) -> &Tags {
        match self {
            Self::Cluster(cluster) => &cluster.tags,
            Self::ContainerInstance(instance) => &instance.tags,
            Self::TaskDefinition(definition) => &definition.tags,
            Self::Service(service) => &service.tags,
            Self::Task(task) => &task.tags,
            Self::CapacityProvider(provider) => &provider.tags,
        }
    }

    fn write(&self, tags: Tags, transaction: &mut Transaction) {
        if tags == *self.tags() {
            return;
        }
        match self {
            Self::Cluster(cluster) => transaction.update(&Cluster { tags, ..(**cluster).clone() }),
            Self::ContainerInstance(instance) => {
                transaction.update(&ContainerInstance { tags, ..(**instance).clone() });
            }
            Self::TaskDefinition(definition) => {
                transaction.update(&TaskDefinition { tags, ..(**definition).clone() })
            }
            Self::Service(service) => {
                let version = service.version + 1;
                transaction.update(&Service { tags, version, ..(**service).clone() });
            }
            Self::Task(task) => transaction.update(&Task { tags, ..(**task).clone() }),
            Self::CapacityProvider(provider) => {
                transaction.update(&CapacityProvider { tags, ..(**provider).clone() });
            }
        }
    }
}

fn not_found(arn: &str) -> ecs::Error {
    invalid(format!("The specified resource is not found: {arn}"))
}
