//! Service deployments and service revisions: list, describe, stop, continue.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-deployment.html>.

use super::super::page::{Order, page};
use super::super::{failure, invalid, reference};
use super::{configuration, render};
use crate::api::Call;
use crate::context::RandomIds;
use longshore_ecs as ecs;
use longshore_engine::service::NotPaused;
use longshore_engine::{View, service as engine};
use longshore_model::Scope;
use longshore_model::arn::Arn;
use longshore_model::service::{
    HookAction, Service, ServiceDeployment, ServiceDeploymentStatus, ServiceRevision, Status,
};
use std::sync::Arc;

pub async fn list(
    call: Call,
    request: ecs::ListServiceDeploymentsRequest,
) -> Result<ecs::ListServiceDeploymentsResponse, ecs::Error> {
    let ecs::ListServiceDeploymentsRequest { service, cluster, status, created_at, next_token, max_results } =
        request;
    let view = call.context.view();
    let cluster = reference::cluster(&view, call.scope(), cluster.as_deref())?;
    let service = reference::service(&view, call.scope(), &cluster.name, &service)?;
    let statuses = status.unwrap_or_default();
    let (after, before) = created_at.map_or((None, None), |range| (range.after, range.before));
    let wanted = |deployment: &&Arc<ServiceDeployment>| {
        let at = deployment.created_at.millis();
        (statuses.is_empty() || statuses.contains(&render::deployment_status(deployment.status)))
            && after.is_none_or(|after| at > after.0)
            && before.is_none_or(|before| at < before.0)
    };
    let mut found: Vec<_> = view.deployments_of(&service).filter(wanted).collect();
    found.sort_by_key(|deployment| std::cmp::Reverse(order(deployment)));
    let briefs = found.into_iter().map(|deployment| (order(deployment), render::brief(deployment)));
    let (briefs, next_token) = page(briefs, Order::Descending, next_token.as_deref(), max_results, 20)?;
    Ok(ecs::ListServiceDeploymentsResponse { service_deployments: Some(briefs), next_token })
}

/// Newest last; digits of equal length keep their order as text.
fn order(deployment: &ServiceDeployment) -> String {
    format!("{:020}/{}", deployment.created_at.millis(), deployment.id)
}

pub async fn describe(
    call: Call,
    request: ecs::DescribeServiceDeploymentsRequest,
) -> Result<ecs::DescribeServiceDeploymentsResponse, ecs::Error> {
    let ecs::DescribeServiceDeploymentsRequest { service_deployment_arns } = request;
    check_count("serviceDeploymentArns", &service_deployment_arns)?;
    let view = call.context.view();
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for arn in service_deployment_arns {
        match find(&view, call.scope(), &arn)? {
            Some((service, deployment)) => {
                found.push(render::service_deployment(&view, service, deployment));
            }
            None => failures.push(failure(Some(arn), "MISSING")),
        }
    }
    Ok(ecs::DescribeServiceDeploymentsResponse { service_deployments: Some(found), failures: Some(failures) })
}

pub async fn describe_revisions(
    call: Call,
    request: ecs::DescribeServiceRevisionsRequest,
) -> Result<ecs::DescribeServiceRevisionsResponse, ecs::Error> {
    let ecs::DescribeServiceRevisionsRequest { service_revision_arns } = request;
    check_count("serviceRevisionArns", &service_revision_arns)?;
    let view = call.context.view();
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for arn in service_revision_arns {
        let (cluster, service, id) = parts(call.scope(), "service-revision", &arn)?;
        let key = ServiceRevision::key_of(call.scope(), &cluster, &service, &id);
        match view.service_revisions.get(&key) {
            Some(revision) => found.push(render::revision(&view, revision)),
            None => failures.push(failure(Some(arn), "MISSING")),
        }
    }
    Ok(ecs::DescribeServiceRevisionsResponse { service_revisions: Some(found), failures: Some(failures) })
}

pub async fn stop(
    call: Call,
    request: ecs::StopServiceDeploymentRequest,
) -> Result<ecs::StopServiceDeploymentResponse, ecs::Error> {
    let ecs::StopServiceDeploymentRequest { service_deployment_arn: arn, stop_type } = request;
    let how = match stop_type {
        None | Some(ecs::StopServiceDeploymentStopType::Rollback) => engine::Stopped::RolledBack,
        Some(ecs::StopServiceDeploymentStopType::Abort) => engine::Stopped::Aborted,
    };
    let now = call.context.now();
    call.context
        .commit::<_, ecs::Error, _>(|snapshot, transaction| {
            let view = &snapshot.view;
            let (service, deployment) = find(view, call.scope(), &arn)?.ok_or_else(not_found)?;
            if !is_under_way(service, deployment) {
                return Err(conflict("The service deployment is not in progress."));
            }
            let plan = engine::stop_deployment(service, how, now).ok_or_else(|| {
                conflict("There is no completed deployment to roll back to. Stop it with stopType ABORT.")
            })?;
            engine::write(view, service, &plan, transaction, now, &mut RandomIds);
            Ok(())
        })
        .await?;
    Ok(ecs::StopServiceDeploymentResponse { service_deployment_arn: Some(arn) })
}

pub async fn continue_deployment(
    call: Call,
    request: ecs::ContinueServiceDeploymentRequest,
) -> Result<ecs::ContinueServiceDeploymentResponse, ecs::Error> {
    let ecs::ContinueServiceDeploymentRequest { service_deployment_arn: arn, hook_id, action } = request;
    let action = action.map_or(HookAction::Continue, configuration::action);
    call.context
        .commit::<_, ecs::Error, _>(|snapshot, transaction| {
            let view = &snapshot.view;
            let (service, deployment) = find(view, call.scope(), &arn)?.ok_or_else(not_found)?;
            if !is_under_way(service, deployment) {
                return Err(invalid("The service deployment is not in progress."));
            }
            let next = engine::continue_deployment(view, service, &hook_id, action);
            let next = next.map_err(|why| match why {
                NotPaused::NoSuchHook => invalid(format!(
                    "The service deployment is not at a lifecycle hook with the id {hook_id}."
                )),
                NotPaused::NotWaiting => {
                    invalid(format!("The lifecycle hook {hook_id} does not await an action."))
                }
            })?;
            engine::write_hook(service, &next, transaction);
            Ok(())
        })
        .await?;
    Ok(ecs::ContinueServiceDeploymentResponse { service_deployment_arn: Some(arn) })
}

fn is_under_way(service: &Service, deployment: &ServiceDeployment) -> bool {
    deployment.status == ServiceDeploymentStatus::InProgress
        && service.service_deployment.as_ref() == Some(&deployment.id)
        && service.status == Status::Active
}

fn find<'a>(
    view: &'a View,
    scope: &Scope,
    arn: &str,
) -> Result<Option<(&'a Service, &'a ServiceDeployment)>, ecs::Error> {
    let (cluster, service, id) = parts(scope, "service-deployment", arn)?;
    let key = ServiceDeployment::key_of(scope, &cluster, &service, &id);
    let deployment = view.service_deployments.get(&key).map(|found| &**found);
    Ok(view.service(scope, &cluster, &service).map(|found| &**found).zip(deployment))
}

/// Cluster, service and id in an ARN of the kind. One of another account or region names nothing here.
fn parts(scope: &Scope, kind: &str, arn: &str) -> Result<(String, String, String), ecs::Error> {
    let wrong = || invalid(format!("Invalid identifier: {arn} is not the ARN of a {kind}."));
    let parsed = Arn::parse(arn).filter(|parsed| parsed.service == "ecs").ok_or_else(wrong)?;
    let words: Vec<&str> = parsed.resource.split('/').collect();
    match words.as_slice() {
        [of, cluster, service, id] if *of == kind => {
            let id = if parsed.in_scope(scope) { *id } else { "" };
            Ok(((*cluster).to_owned(), (*service).to_owned(), id.to_owned()))
        }
        _ => Err(wrong()),
    }
}

fn check_count(field: &str, given: &[String]) -> Result<(), ecs::Error> {
    if (1..=20).contains(&given.len()) {
        return Ok(());
    }
    Err(invalid(format!("{field} must have 1 to 20 items.")))
}

fn not_found() -> ecs::Error {
    ecs::Error::ServiceDeploymentNotFoundException("The service deployment was not found.".to_owned())
}

fn conflict(message: &str) -> ecs::Error {
    ecs::Error::ConflictException { message: message.to_owned(), resource_ids: None }
}
