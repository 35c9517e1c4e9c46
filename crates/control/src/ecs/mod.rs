//! Amazon ECS: one file per resource.

mod capacity_provider;
mod cluster;
mod container_instance;
pub mod event;
mod page;
mod placement;
pub(crate) mod reference;
mod run_task;
mod service;
pub mod spot;
mod start_task;
mod tag;
mod task;
mod task_definition;

use crate::api::Routes;
use crate::context::CommitError;
use longshore_ecs as ecs;
use longshore_ecs::operations as op;

pub fn routes() -> Routes {
    Routes::new(&ecs::SERVICE)
        .on::<op::CreateCluster, _, _, _>(cluster::create)
        .on::<op::DeleteCluster, _, _, _>(cluster::delete)
        .on::<op::DescribeClusters, _, _, _>(cluster::describe)
        .on::<op::ListClusters, _, _, _>(cluster::list)
        .on::<op::RegisterTaskDefinition, _, _, _>(task_definition::register)
        .on::<op::DescribeTaskDefinition, _, _, _>(task_definition::describe)
        .on::<op::ListTaskDefinitions, _, _, _>(task_definition::list)
        .on::<op::ListTaskDefinitionFamilies, _, _, _>(task_definition::list_families)
        .on::<op::DeregisterTaskDefinition, _, _, _>(task_definition::deregister)
        .on::<op::DeleteTaskDefinitions, _, _, _>(task_definition::delete)
        .on::<op::RunTask, _, _, _>(run_task::run)
        .on::<op::StartTask, _, _, _>(start_task::start)
        .on::<op::DescribeContainerInstances, _, _, _>(container_instance::describe)
        .on::<op::ListContainerInstances, _, _, _>(container_instance::list)
        .on::<op::UpdateContainerInstancesState, _, _, _>(container_instance::update_state)
        .on::<op::DeregisterContainerInstance, _, _, _>(container_instance::deregister)
        .on::<op::RegisterContainerInstance, _, _, _>(container_instance::register)
        .on::<op::UpdateContainerAgent, _, _, _>(container_instance::update_agent)
        .on::<op::PutAttributes, _, _, _>(container_instance::put_attributes)
        .on::<op::ListAttributes, _, _, _>(container_instance::list_attributes)
        .on::<op::DeleteAttributes, _, _, _>(container_instance::delete_attributes)
        .on::<op::DescribeTasks, _, _, _>(task::describe)
        .on::<op::ListTasks, _, _, _>(task::list)
        .on::<op::StopTask, _, _, _>(task::stop)
        .on::<op::CreateService, _, _, _>(service::create)
        .on::<op::UpdateService, _, _, _>(service::update)
        .on::<op::DeleteService, _, _, _>(service::delete)
        .on::<op::DescribeServices, _, _, _>(service::describe)
        .on::<op::ListServices, _, _, _>(service::list)
        .on::<op::PutClusterCapacityProviders, _, _, _>(capacity_provider::put)
        .on::<op::CreateCapacityProvider, _, _, _>(capacity_provider::create)
        .on::<op::UpdateCapacityProvider, _, _, _>(capacity_provider::update)
        .on::<op::DeleteCapacityProvider, _, _, _>(capacity_provider::delete)
        .on::<op::DescribeCapacityProviders, _, _, _>(capacity_provider::describe)
        .on::<op::ListServiceDeployments, _, _, _>(service::list_deployments)
        .on::<op::DescribeServiceDeployments, _, _, _>(service::describe_deployments)
        .on::<op::DescribeServiceRevisions, _, _, _>(service::describe_revisions)
        .on::<op::StopServiceDeployment, _, _, _>(service::stop_deployment)
        .on::<op::ContinueServiceDeployment, _, _, _>(service::continue_deployment)
        .on::<op::CreateTaskSet, _, _, _>(service::task_set::create)
        .on::<op::UpdateTaskSet, _, _, _>(service::task_set::update)
        .on::<op::UpdateServicePrimaryTaskSet, _, _, _>(service::task_set::update_primary)
        .on::<op::DeleteTaskSet, _, _, _>(service::task_set::delete)
        .on::<op::DescribeTaskSets, _, _, _>(service::task_set::describe)
        .on::<op::UpdateTaskProtection, _, _, _>(service::protect)
        .on::<op::GetTaskProtection, _, _, _>(service::protection)
        .on::<op::TagResource, _, _, _>(tag::tag)
        .on::<op::UntagResource, _, _, _>(tag::untag)
        .on::<op::ListTagsForResource, _, _, _>(tag::list)
}

impl From<CommitError> for ecs::Error {
    fn from(error: CommitError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "a commit failed");
        Self::ServerException(format!("The request was not carried out: {error}. Try again."))
    }
}

fn invalid(message: impl Into<String>) -> ecs::Error {
    ecs::Error::InvalidParameterException(message.into())
}

fn client(message: impl Into<String>) -> ecs::Error {
    ecs::Error::ClientException(message.into())
}

/// Names of clusters and families: up to 255 letters, digits, underscores and hyphens.
fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn failure(arn: Option<String>, reason: &str) -> ecs::Failure {
    ecs::Failure { arn, reason: Some(reason.to_owned()), detail: None }
}
