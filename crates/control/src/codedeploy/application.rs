//! Applications. Follows <https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_CreateApplication.html>.

use super::{application, invalid, is_name, tag};
use crate::api::Call;
use crate::context::RandomIds;
use crate::pages::page;
use longshore_codedeploy as cd;
use longshore_model::codedeploy::{Application, CodeDeployment, DeploymentGroup};
use longshore_model::id::IdSource;
use longshore_model::{Record, Tags};
use longshore_wire::{Fault, Timestamp};

pub async fn create(
    call: Call,
    request: cd::CreateApplicationInput,
) -> Result<cd::CreateApplicationOutput, Fault> {
    let cd::CreateApplicationInput { application_name: name, compute_platform, tags } = request;
    if compute_platform != Some(cd::ComputePlatform::Ecs) {
        let message = "Longshore deploys ECS services: computePlatform must be ECS.";
        return Err(cd::Error::InvalidComputePlatformException(message.to_owned()).into());
    }
    check_name(&name)?;
    let made = Application {
        scope: call.scope().clone(),
        name,
        id: RandomIds.uuid(),
        created_at: call.context.now(),
        tags: tag::with(&Tags::default(), tags.unwrap_or_default())?,
    };
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        if snapshot.view.code_applications.get(&made.key()).is_some() {
            return Err(exists(&made.name));
        }
        transaction.create(&made);
        Ok(())
    });
    commit.await?;
    Ok(cd::CreateApplicationOutput { application_id: Some(made.id.to_string()) })
}

fn check_name(name: &str) -> Result<(), Fault> {
    if is_name(name) {
        return Ok(());
    }
    let message =
        format!("Application name must be 1 to 100 letters, digits and +=,.@-_ characters, and is '{name}'.");
    Err(cd::Error::InvalidApplicationNameException(message).into())
}

fn exists(name: &str) -> Fault {
    let message = format!("An application with the name {name} already exists.");
    cd::Error::ApplicationAlreadyExistsException(message).into()
}

pub async fn get(call: Call, request: cd::GetApplicationInput) -> Result<cd::GetApplicationOutput, Fault> {
    let cd::GetApplicationInput { application_name } = request;
    let view = call.context.view();
    let found = application(&view, call.scope(), &application_name)?;
    Ok(cd::GetApplicationOutput {
        application: Some(cd::ApplicationInfo {
            application_id: Some(found.id.to_string()),
            application_name: Some(found.name.clone()),
            compute_platform: Some(cd::ComputePlatform::Ecs),
            create_time: Some(Timestamp(found.created_at.millis())),
            git_hub_account_name: None,
            linked_to_git_hub: Some(false),
        }),
    })
}

/// Gives an application another name, with all that is its own.
pub async fn update(call: Call, request: cd::UpdateApplicationInput) -> Result<(), Fault> {
    let cd::UpdateApplicationInput { application_name, new_application_name } = request;
    let name = application_name.ok_or_else(|| {
        Fault::from(cd::Error::ApplicationNameRequiredException("applicationName is required.".to_owned()))
    })?;
    let Some(new) = new_application_name.filter(|new| *new != name) else { return Ok(()) };
    check_name(&new)?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let (view, scope) = (&snapshot.view, call.scope());
        let present = application(view, scope, &name)?;
        if view.code_applications.get(&Application::key_of(scope, &new)).is_some() {
            return Err(exists(&new));
        }
        transaction.delete(present.key());
        transaction.create(&Application { name: new.clone(), ..(**present).clone() });
        for group in view.deployment_groups.under(&DeploymentGroup::prefix_of(scope, &name)) {
            transaction.delete(group.key());
            transaction.create(&DeploymentGroup { application: new.clone(), ..(**group).clone() });
        }
        for deployment in view.code_deployments.of(scope).filter(|one| one.application == name) {
            transaction.update(&CodeDeployment { application: new.clone(), ..(**deployment).clone() });
        }
        Ok(())
    });
    commit.await
}

/// With its groups and deployments, none of which may be under way. One that is not there is deleted already.
pub async fn delete(call: Call, request: cd::DeleteApplicationInput) -> Result<(), Fault> {
    let cd::DeleteApplicationInput { application_name: name } = request;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let (view, scope) = (&snapshot.view, call.scope());
        let Some(present) = view.code_applications.get(&Application::key_of(scope, &name)) else {
            return Ok(());
        };
        let own = || view.code_deployments.of(scope).filter(|one| one.application == name);
        if let Some(busy) = own().find(|one| one.status.is_under_way()) {
            return Err(invalid(format!(
                "The application has the deployment {}, which is under way.",
                busy.id
            )));
        }
        transaction.delete(present.key());
        let groups = view.deployment_groups.under(&DeploymentGroup::prefix_of(scope, &name));
        groups.for_each(|group| transaction.delete(group.key()));
        own().for_each(|deployment| transaction.delete(deployment.key()));
        Ok(())
    });
    commit.await
}

pub async fn list(
    call: Call,
    request: cd::ListApplicationsInput,
) -> Result<cd::ListApplicationsOutput, Fault> {
    let cd::ListApplicationsInput { next_token } = request;
    let view = call.context.view();
    let names = view.code_applications.of(call.scope()).map(|found| (found.name.clone(), found.name.clone()));
    let (applications, next_token) = page(names, next_token.as_deref(), Some(100));
    Ok(cd::ListApplicationsOutput { applications: Some(applications), next_token })
}
