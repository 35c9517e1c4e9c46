//! DiscoverInstances. Follows <https://docs.aws.amazon.com/cloud-map/latest/api/API_DiscoverInstances.html>.

use super::PAGE;
use super::instance::render_health;
use crate::api::Call;
use crate::context::RandomIds;
use longshore_model::discovery::{DiscoveryInstance, HealthStatus};
use longshore_model::id::IdSource;
use longshore_servicediscovery as sd;
use longshore_wire::Fault;
use std::collections::BTreeMap;
use std::sync::Arc;

use sd::HealthStatusFilter as Wanted;

pub async fn discover(
    call: Call,
    request: sd::DiscoverInstancesRequest,
) -> Result<sd::DiscoverInstancesResponse, Fault> {
    let sd::DiscoverInstancesRequest {
        health_status,
        max_results,
        namespace_name,
        optional_parameters,
        owner_account,
        query_parameters,
        service_name,
    } = request;
    let scope = call.scope();
    let view = call.context.view();
    let is_own = owner_account.is_none_or(|owner| owner == *scope.account);
    let namespace =
        view.namespaces.of(scope).find(|namespace| is_own && namespace.http_name == namespace_name);
    let namespace = namespace.ok_or_else(|| {
        sd::Error::NamespaceNotFound(format!("Failed to find namespace by name: {namespace_name}."))
    })?;
    let mut named = view.discovery_services_named(&namespace.id, &service_name);
    let service = named.find(|service| service.name == service_name).ok_or_else(|| {
        sd::Error::ServiceNotFound(format!("Failed to find service by name: {service_name}."))
    })?;
    let all: Vec<_> = view.discovery_instances_of(scope, &service.id).collect();
    let asked = query_parameters.unwrap_or_default();
    let mut found: Vec<_> = all.into_iter().filter(|instance| has(instance, &asked)).collect();
    if let Some(preferred) = optional_parameters {
        let best: Vec<_> = found.iter().copied().filter(|instance| has(instance, &preferred)).collect();
        found = if best.is_empty() { found } else { best };
    }
    if service.custom_health {
        found = by_health(found, health_status.unwrap_or(Wanted::HealthyOrElseAll));
    }
    shuffle(&mut found);
    found.truncate(max_results.and_then(|most| usize::try_from(most).ok()).unwrap_or(PAGE));
    let summaries = found.into_iter().map(|instance| sd::HttpInstanceSummary {
        attributes: Some(instance.attributes.clone()),
        health_status: Some(render_health(instance)),
        instance_id: Some(instance.id.clone()),
        namespace_name: Some(namespace.http_name.clone()),
        service_name: Some(service.name.clone()),
    });
    Ok(sd::DiscoverInstancesResponse {
        instances: Some(summaries.collect()),
        instances_revision: i64::try_from(service.revision).ok(),
    })
}

fn has(instance: &DiscoveryInstance, parameters: &BTreeMap<String, String>) -> bool {
    parameters.iter().all(|(name, value)| instance.attribute(name) == Some(value))
}

fn by_health(found: Vec<&Arc<DiscoveryInstance>>, wanted: Wanted) -> Vec<&Arc<DiscoveryInstance>> {
    let (healthy, unhealthy): (Vec<_>, Vec<_>) =
        found.iter().copied().partition(|instance| instance.health == Some(HealthStatus::Healthy));
    match wanted {
        Wanted::Healthy => healthy,
        Wanted::Unhealthy => unhealthy,
        Wanted::HealthyOrElseAll if !healthy.is_empty() => healthy,
        Wanted::All | Wanted::HealthyOrElseAll => found,
    }
}

/// Clients that take the first one find another each time.
fn shuffle<T>(items: &mut [T]) {
    for last in (1..items.len()).rev() {
        let place = RandomIds.next_u128() % (last as u128 + 1);
        items.swap(last, place as usize);
    }
}
