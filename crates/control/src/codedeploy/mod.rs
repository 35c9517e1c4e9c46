//! AWS CodeDeploy, for blue/green deployments of ECS services.

mod app_spec;
mod application;
mod config;
mod deployment;
pub mod drive;
mod group;
mod settings;
mod tag;
mod target;

use crate::api::Routes;
use longshore_codedeploy as cd;
use longshore_codedeploy::operations as op;
use longshore_engine::View;
use longshore_model::Scope;
use longshore_model::codedeploy::{Application, CodeDeployment, DeploymentGroup};
use longshore_wire::Fault;
use std::sync::Arc;

pub fn routes() -> Routes {
    Routes::new(&cd::SERVICE)
        .on::<op::CreateApplication, _, _, _>(application::create)
        .on::<op::GetApplication, _, _, _>(application::get)
        .on::<op::UpdateApplication, _, _, _>(application::update)
        .on::<op::DeleteApplication, _, _, _>(application::delete)
        .on::<op::ListApplications, _, _, _>(application::list)
        .on::<op::CreateDeploymentConfig, _, _, _>(config::create)
        .on::<op::GetDeploymentConfig, _, _, _>(config::get)
        .on::<op::DeleteDeploymentConfig, _, _, _>(config::delete)
        .on::<op::ListDeploymentConfigs, _, _, _>(config::list)
        .on::<op::CreateDeploymentGroup, _, _, _>(group::create)
        .on::<op::GetDeploymentGroup, _, _, _>(group::get)
        .on::<op::UpdateDeploymentGroup, _, _, _>(group::update)
        .on::<op::DeleteDeploymentGroup, _, _, _>(group::delete)
        .on::<op::ListDeploymentGroups, _, _, _>(group::list)
        .on::<op::CreateDeployment, _, _, _>(deployment::create)
        .on::<op::GetDeployment, _, _, _>(deployment::get)
        .on::<op::ListDeployments, _, _, _>(deployment::list)
        .on::<op::StopDeployment, _, _, _>(deployment::stop)
        .on::<op::ContinueDeployment, _, _, _>(deployment::proceed)
        .on::<op::GetDeploymentTarget, _, _, _>(target::get)
        .on::<op::BatchGetDeploymentTargets, _, _, _>(target::get_several)
        .on::<op::ListDeploymentTargets, _, _, _>(target::list)
        .on::<op::TagResource, _, _, _>(tag::add)
        .on::<op::UntagResource, _, _, _>(tag::remove)
        .on::<op::ListTagsForResource, _, _, _>(tag::list)
}

fn invalid(message: impl Into<String>) -> Fault {
    cd::Error::InvalidInputException(message.into()).into()
}

/// Fields that have no effect yet.
fn refuse(fields: &[(&str, bool)]) -> Result<(), Fault> {
    crate::refuse::unsupported(fields).map_err(invalid)
}

/// The rules for the names of applications, groups and configurations.
fn is_name(name: &str) -> bool {
    (1..=100).contains(&name.chars().count())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "+=,.@-_".contains(c))
}

fn application<'a>(view: &'a View, scope: &Scope, name: &str) -> Result<&'a Arc<Application>, Fault> {
    let missing = || {
        let message = format!("No application found for name: {name}");
        cd::Error::ApplicationDoesNotExistException(message).into()
    };
    view.code_applications.get(&Application::key_of(scope, name)).ok_or_else(missing)
}

fn group<'a>(
    view: &'a View,
    scope: &Scope,
    application: &str,
    name: &str,
) -> Result<&'a Arc<DeploymentGroup>, Fault> {
    self::application(view, scope, application)?;
    let missing = || {
        let message = format!("No Deployment Group found for name: {name}");
        cd::Error::DeploymentGroupDoesNotExistException(message).into()
    };
    view.deployment_groups.get(&DeploymentGroup::key_of(scope, application, name)).ok_or_else(missing)
}

fn deployment<'a>(view: &'a View, scope: &Scope, id: &str) -> Result<&'a Arc<CodeDeployment>, Fault> {
    let missing = || {
        let message = format!("The deployment {id} could not be found.");
        cd::Error::DeploymentDoesNotExistException(message).into()
    };
    view.code_deployments.get(&CodeDeployment::key_of(scope, id)).ok_or_else(missing)
}
