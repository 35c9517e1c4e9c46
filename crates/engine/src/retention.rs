//! When finished records are forgotten. Invariant: nothing that is still in use is forgotten.

use crate::admission;
use crate::view::View;
use longshore_model::change::Key;
use longshore_model::service::{self, Service};
use longshore_model::task_definition::{Status, TaskDefinition};
use longshore_model::{Record, Timestamp};

/// How long a RunTask may be repeated, in milliseconds.
const KEEP_CLIENT_TOKENS: i64 = 24 * 60 * 60 * 1000;

/// How long service deployments are described, in milliseconds: 90 days, as on AWS.
const KEEP_SERVICE_DEPLOYMENTS: i64 = 90 * 24 * 60 * 60 * 1000;

/// The client tokens and join tokens that have expired, the STOPPED tasks that ended more than `keep_millis` ago, and the definitions under deletion that no task
/// uses any more: at most `limit` of them.
pub fn to_forget(view: &View, now: Timestamp, keep_millis: i64, limit: usize) -> Vec<Key> {
    let tasks = view.stopped_before(now.plus_millis(-keep_millis)).cloned();
    let tokens = view.client_tokens_before(now.plus_millis(-KEEP_CLIENT_TOKENS)).cloned();
    let deleting = view.task_definitions.iter().filter(|d| d.status == Status::DeleteInProgress);
    let unused = deleting.filter(|definition| !is_used(view, definition)).map(|definition| definition.key());
    let joins =
        view.join_tokens.iter().filter(|token| admission::is_old(token, now)).map(|token| token.key());
    let services = view.services.iter().filter(|service| is_over(service, now, keep_millis));
    let services = services.flat_map(|service| {
        let own = view.events_of(service).map(|event| event.key());
        let revisions = view.revisions_of(service).map(|revision| revision.key());
        let deployments = view.deployments_of(service).map(|deployment| deployment.key());
        // The service itself goes last, so that what a round leaves is found by the next.
        own.chain(revisions).chain(deployments).chain([service.key()]).collect::<Vec<_>>()
    });
    let past = now.plus_millis(-KEEP_SERVICE_DEPLOYMENTS);
    let ended = view.service_deployments.iter().filter(|d| d.updated_at < past && !d.status.is_under_way());
    let ended = ended.map(|deployment| deployment.key());
    let protections = view.task_protections.iter().filter(|protection| protection.until <= now);
    let protections = protections.map(|protection| protection.key());
    tasks
        .chain(tokens)
        .chain(joins)
        .chain(unused)
        .chain(services)
        .chain(ended)
        .chain(protections)
        .take(limit)
        .collect()
}

/// A deleted service that was described for long enough.
fn is_over(service: &Service, now: Timestamp, keep_millis: i64) -> bool {
    service.status == service::Status::Inactive
        && service.deleted_at.is_none_or(|at| at < now.plus_millis(-keep_millis))
}

fn is_used(view: &View, definition: &TaskDefinition) -> bool {
    let of_definition = |task: &longshore_model::task::Task| {
        task.scope == definition.scope
            && task.family == definition.family
            && task.revision == definition.revision
    };
    let of_service = |service: &Service| {
        let deployed = service.deployments.iter().chain(service.last_completed.as_deref());
        service.scope == definition.scope
            && service.status != service::Status::Inactive
            && deployed
                .into_iter()
                .any(|d| d.family == definition.family && d.revision == definition.revision)
    };
    view.tasks.iter().any(|task| of_definition(task))
        || view.services.iter().any(|service| of_service(service))
}
