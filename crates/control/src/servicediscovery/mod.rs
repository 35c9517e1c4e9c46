//! AWS Cloud Map: one file per resource. Invariant: a request is done when it is answered; the operation that AWS would
//! still be at is committed with what it does.

mod discover;
mod filter;
mod instance;
mod namespace;
mod operation;
mod service;
mod tag;

use crate::api::Routes;
use longshore_engine::View;
use longshore_model::Scope;
use longshore_model::discovery::{DiscoveryService, Namespace, id_in};
use longshore_servicediscovery as sd;
use longshore_servicediscovery::operations as op;
use longshore_wire::Fault;
use std::sync::Arc;

/// The page size where none is asked for, which is the largest that lists have.
const PAGE: usize = 100;

pub fn routes() -> Routes {
    Routes::new(&sd::SERVICE)
        .on::<op::CreateHttpNamespace, _, _, _>(namespace::create_http)
        .on::<op::CreatePrivateDnsNamespace, _, _, _>(namespace::create_private_dns)
        .on::<op::DeleteNamespace, _, _, _>(namespace::delete)
        .on::<op::GetNamespace, _, _, _>(namespace::get)
        .on::<op::ListNamespaces, _, _, _>(namespace::list)
        .on::<op::UpdateHttpNamespace, _, _, _>(namespace::update_http)
        .on::<op::UpdatePrivateDnsNamespace, _, _, _>(namespace::update_private_dns)
        .on::<op::CreateService, _, _, _>(service::create)
        .on::<op::DeleteService, _, _, _>(service::delete)
        .on::<op::GetService, _, _, _>(service::get)
        .on::<op::ListServices, _, _, _>(service::list)
        .on::<op::UpdateService, _, _, _>(service::update)
        .on::<op::RegisterInstance, _, _, _>(instance::register)
        .on::<op::DeregisterInstance, _, _, _>(instance::deregister)
        .on::<op::GetInstance, _, _, _>(instance::get)
        .on::<op::ListInstances, _, _, _>(instance::list)
        .on::<op::GetInstancesHealthStatus, _, _, _>(instance::health)
        .on::<op::UpdateInstanceCustomHealthStatus, _, _, _>(instance::update_health)
        .on::<op::DiscoverInstances, _, _, _>(discover::discover)
        .on::<op::GetOperation, _, _, _>(operation::get)
        .on::<op::ListOperations, _, _, _>(operation::list)
        .on::<op::TagResource, _, _, _>(tag::tag)
        .on::<op::UntagResource, _, _, _>(tag::untag)
        .on::<op::ListTagsForResource, _, _, _>(tag::list)
}

fn invalid(message: impl Into<String>) -> Fault {
    sd::Error::InvalidInput(message.into()).into()
}

fn find_namespace<'a>(view: &'a View, scope: &Scope, given: &str) -> Result<&'a Arc<Namespace>, Fault> {
    let found =
        id_in(scope, "namespace", given).and_then(|id| view.namespaces.get(&Namespace::key_of(scope, id)));
    found.ok_or_else(|| {
        sd::Error::NamespaceNotFound(format!("Failed to find namespace by id: {given}.")).into()
    })
}

fn find_service<'a>(view: &'a View, scope: &Scope, given: &str) -> Result<&'a Arc<DiscoveryService>, Fault> {
    let key = id_in(scope, "service", given).map(|id| DiscoveryService::key_of(scope, id));
    key.and_then(|key| view.discovery_services.get(&key))
        .ok_or_else(|| sd::Error::ServiceNotFound(format!("Failed to find service by id: {given}.")).into())
}

/// One page of a list in the order of its keys, and the token of the next page: the last key that was given.
fn page<T>(
    items: impl Iterator<Item = (String, T)>,
    token: Option<String>,
    max_results: Option<i32>,
) -> (Vec<T>, Option<String>) {
    let size = max_results.and_then(|size| usize::try_from(size).ok()).unwrap_or(PAGE);
    let mut rest = items.skip_while(|(key, _)| token.as_ref().is_some_and(|last| key <= last));
    let (mut page, mut last) = (Vec::new(), None);
    for (key, item) in rest.by_ref().take(size) {
        page.push(item);
        last = Some(key);
    }
    (page, rest.next().and(last))
}
