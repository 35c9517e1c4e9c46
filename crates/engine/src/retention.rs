//! When finished records are forgotten. Invariant: nothing that is still in use is forgotten.

use crate::admission;
use crate::elb;
use crate::view::View;
use longshore_model::change::Key;
use longshore_model::container_instance::{ContainerInstance, Placements};
use longshore_model::service::{self, Service};
use longshore_model::task_definition::{Status, TaskDefinition};
use longshore_model::{Record, Timestamp};

/// How long a RunTask may be repeated, in milliseconds.
const KEEP_CLIENT_TOKENS: i64 = 24 * 60 * 60 * 1000;

/// How long service deployments are described, in milliseconds: 90 days, as on AWS.
const KEEP_SERVICE_DEPLOYMENTS: i64 = 90 * 24 * 60 * 60 * 1000;

/// How long terminated EC2 instances are described, in milliseconds: an hour, as on AWS.
const KEEP_TERMINATED: i64 = 60 * 60 * 1000;

/// How long Cloud Map's operations are described, in milliseconds.
const KEEP_OPERATIONS: i64 = 24 * 60 * 60 * 1000;

/// The client tokens and join tokens that have expired, the STOPPED tasks that ended more than `keep_millis` ago, the definitions under deletion that no task
/// uses any more, and what is left of load balancers: at most `limit` of them.
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
    let instances =
        view.container_instances.iter().filter(|instance| is_gone(view, instance, now, keep_millis));
    let instances = instances.flat_map(|instance| {
        let placements = view.placements.get(&Placements::key_of(instance.id)).map(|counted| counted.key());
        placements.into_iter().chain([instance.key()])
    });
    let past = now.plus_millis(-KEEP_SERVICE_DEPLOYMENTS);
    let ended = view.service_deployments.iter().filter(|d| d.updated_at < past && !d.status.is_under_way());
    let ended = ended.map(|deployment| deployment.key());
    let operated = now.plus_millis(-KEEP_OPERATIONS);
    let operations = view.discovery_operations.iter().filter(|operation| operation.at < operated);
    let operations = operations.map(|operation| operation.key());
    let terminated = now.plus_millis(-KEEP_TERMINATED);
    let terminated = view.instances.iter().filter(move |i| i.terminated_at.is_some_and(|at| at < terminated));
    let terminated = terminated.map(|instance| instance.key());
    let secrets = view.secrets.iter().filter(|s| s.deleted.is_some_and(|deleted| deleted.goes_at <= now));
    let secrets = secrets.map(|secret| secret.key());
    let protections = view.task_protections.iter().filter(|protection| protection.until <= now);
    let protections = protections.map(|protection| protection.key());
    tasks
        .chain(tokens)
        .chain(joins)
        .chain(unused)
        .chain(services)
        .chain(ended)
        .chain(protections)
        .chain(secrets)
        .chain(terminated)
        .chain(operations)
        .chain(instances)
        .chain(elb::orphans(view))
        .take(limit)
        .collect()
}

/// A deregistered instance that was described for long enough. One whose agent is connected would register again.
fn is_gone(view: &View, instance: &ContainerInstance, now: Timestamp, keep_millis: i64) -> bool {
    let old = |at: Timestamp| at < now.plus_millis(-keep_millis);
    instance.deregistered_at.is_some_and(old)
        && !instance.agent_connected
        && view.task_count_on(instance.id) == 0
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, apply, instance, task};
    use longshore_model::{Transaction, Version};

    /// The tables of what is forgotten at a time, when a task is kept for 100 ms.
    fn check(view: &View, at: i64, expected: &[&str]) {
        let keys = to_forget(view, Timestamp(at), 100, 1000);
        assert_eq!(keys.iter().map(|key| key.table()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn deregistered_instances_are_forgotten_once_their_agents_are_gone() {
        let gone = ContainerInstance {
            deregistered_at: Some(Timestamp(1000)),
            agent_connected: false,
            ..instance(1, 1024, 4096)
        };
        check(&testing::view(std::slice::from_ref(&gone)), 1100, &[]);
        check(&testing::view(std::slice::from_ref(&gone)), 1101, &["container-instance"]);
        check(&testing::view(&[ContainerInstance { agent_connected: true, ..gone.clone() }]), 1101, &[]);
        check(&testing::view(&[ContainerInstance { deregistered_at: None, ..gone.clone() }]), 1101, &[]);
        let mut busy = testing::view(&[gone]);
        let mut transaction = Transaction::at(Version(0));
        transaction.create(&task());
        apply(&mut busy, transaction);
        check(&busy, 1101, &[]);
    }

    #[test]
    fn deleted_services_are_forgotten_with_what_happened_to_them() {
        let mut view = testing::view(&[]);
        let mut gone = testing::service();
        gone.status = service::Status::Inactive;
        gone.deleted_at = Some(Timestamp(1000));
        let mut transaction = Transaction::at(Version(0));
        crate::service::say(&mut gone, "over", &mut transaction, Timestamp(1), &mut testing::Count(1));
        transaction.create(&gone);
        apply(&mut view, transaction);
        check(&view, 1100, &[]);
        check(&view, 1101, &["service-event", "service"]);
    }
}
