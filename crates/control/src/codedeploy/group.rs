//! Deployment groups: an ECS service, and how it is deployed.
//! Follows <https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_CreateDeploymentGroup.html>.

use super::deployment::status;
use super::settings::{self, OfServers, Said};
use super::{application, group, invalid, is_name, tag};
use crate::api::Call;
use crate::context::RandomIds;
use crate::pages::page;
use longshore_codedeploy as cd;
use longshore_engine::View;
use longshore_engine::codedeploy::under_way;
use longshore_model::codedeploy::{CodeDeployment, DeploymentGroup};
use longshore_model::id::IdSource;
use longshore_model::{Record, Tags};
use longshore_wire::{Fault, Timestamp};

pub async fn create(
    call: Call,
    request: cd::CreateDeploymentGroupInput,
) -> Result<cd::CreateDeploymentGroupOutput, Fault> {
    let cd::CreateDeploymentGroupInput {
        alarm_configuration,
        application_name: of,
        auto_rollback_configuration,
        auto_scaling_groups,
        blue_green_deployment_configuration,
        deployment_config_name,
        deployment_group_name: name,
        deployment_style,
        ec2_tag_filters,
        ec2_tag_set,
        ecs_services,
        load_balancer_info,
        on_premises_instance_tag_filters,
        on_premises_tag_set,
        // Of instances that were not updated.
        outdated_instances_strategy: _,
        service_role_arn,
        tags,
        termination_hook_enabled,
        trigger_configurations,
    } = request;
    let servers = OfServers {
        auto_scaling_groups,
        ec2_tag_filters,
        ec2_tag_set,
        on_premises_instance_tag_filters,
        on_premises_tag_set,
        termination_hook_enabled,
        trigger_configurations,
    };
    servers.refuse()?;
    check_name(&name)?;
    let said = Said {
        config: deployment_config_name,
        role: Some(service_role_arn),
        services: ecs_services,
        balancers: load_balancer_info,
        style: deployment_style,
        blue_green: blue_green_deployment_configuration,
        rollback: auto_rollback_configuration,
        alarms: alarm_configuration,
    };
    let id = RandomIds.uuid();
    let tags = tag::with(&Tags::default(), tags.unwrap_or_default())?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let (view, scope) = (&snapshot.view, call.scope());
        let present = application(view, scope, &of)?;
        let made = DeploymentGroup {
            scope: scope.clone(),
            application: of.clone(),
            name: name.clone(),
            id,
            settings: said.apply(view, scope, None)?,
            tags: tags.clone(),
            last_successful: None,
            last_attempted: None,
        };
        check_alone(view, &made)?;
        if view.deployment_groups.get(&made.key()).is_some() {
            return Err(exists(&name));
        }
        transaction.create(&made);
        transaction.rely_on(present.key());
        Ok(())
    });
    commit.await?;
    Ok(cd::CreateDeploymentGroupOutput { deployment_group_id: Some(id.to_string()) })
}

fn check_name(name: &str) -> Result<(), Fault> {
    if is_name(name) {
        return Ok(());
    }
    let message = format!(
        "Deployment group name must be 1 to 100 letters, digits and +=,.@-_ characters, and is '{name}'."
    );
    Err(cd::Error::InvalidDeploymentGroupNameException(message).into())
}

fn exists(name: &str) -> Fault {
    let message = format!("A deployment group with the name {name} already exists.");
    cd::Error::DeploymentGroupAlreadyExistsException(message).into()
}

/// A service is of one deployment group.
fn check_alone(view: &View, group: &DeploymentGroup) -> Result<(), Fault> {
    let service = |group: &DeploymentGroup| (group.settings.cluster.clone(), group.settings.service.clone());
    let mut others = view.deployment_groups.of(&group.scope).filter(|other| other.id != group.id);
    match others.find(|other| service(other) == service(group)) {
        None => Ok(()),
        Some(other) => Err(cd::Error::ECSServiceMappingLimitExceededException(format!(
            "The ECS service {} is associated with the deployment group {} of the application {} already.",
            group.settings.service, other.name, other.application
        ))
        .into()),
    }
}

pub async fn update(
    call: Call,
    request: cd::UpdateDeploymentGroupInput,
) -> Result<cd::UpdateDeploymentGroupOutput, Fault> {
    let cd::UpdateDeploymentGroupInput {
        alarm_configuration,
        application_name: of,
        auto_rollback_configuration,
        auto_scaling_groups,
        blue_green_deployment_configuration,
        current_deployment_group_name: name,
        deployment_config_name,
        deployment_style,
        ec2_tag_filters,
        ec2_tag_set,
        ecs_services,
        load_balancer_info,
        new_deployment_group_name: new,
        on_premises_instance_tag_filters,
        on_premises_tag_set,
        outdated_instances_strategy: _,
        service_role_arn,
        termination_hook_enabled,
        trigger_configurations,
    } = request;
    let servers = OfServers {
        auto_scaling_groups,
        ec2_tag_filters,
        ec2_tag_set,
        on_premises_instance_tag_filters,
        on_premises_tag_set,
        termination_hook_enabled,
        trigger_configurations,
    };
    servers.refuse()?;
    let said = Said {
        config: deployment_config_name,
        role: service_role_arn,
        services: ecs_services.filter(|given| !given.is_empty()),
        balancers: load_balancer_info,
        style: deployment_style,
        blue_green: blue_green_deployment_configuration,
        rollback: auto_rollback_configuration,
        alarms: alarm_configuration,
    };
    let new = new.filter(|new| *new != name);
    new.as_deref().map_or(Ok(()), check_name)?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let (view, scope) = (&snapshot.view, call.scope());
        let present = group(view, scope, &of, &name)?;
        let settings = said.apply(view, scope, Some(&present.settings))?;
        let mut next = DeploymentGroup { settings, ..(**present).clone() };
        check_alone(view, &next)?;
        let Some(new) = &new else {
            transaction.update(&next);
            return Ok(());
        };
        next.name.clone_from(new);
        if view.deployment_groups.get(&next.key()).is_some() {
            return Err(exists(new));
        }
        transaction.delete(present.key());
        transaction.create(&next);
        let own = view.code_deployments.of(scope).filter(|one| one.application == of && one.group == name);
        own.for_each(|one| transaction.update(&CodeDeployment { group: new.clone(), ..(**one).clone() }));
        Ok(())
    });
    commit.await?;
    Ok(cd::UpdateDeploymentGroupOutput { hooks_not_cleaned_up: Some(Vec::new()) })
}

pub async fn delete(
    call: Call,
    request: cd::DeleteDeploymentGroupInput,
) -> Result<cd::DeleteDeploymentGroupOutput, Fault> {
    let cd::DeleteDeploymentGroupInput { application_name: of, deployment_group_name: name } = request;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let (view, scope) = (&snapshot.view, call.scope());
        let Some(present) = view.deployment_groups.get(&DeploymentGroup::key_of(scope, &of, &name)) else {
            return Ok(());
        };
        if let Some(busy) = under_way(view, present) {
            return Err(invalid(format!(
                "The deployment group has the deployment {}, which is under way.",
                busy.id
            )));
        }
        transaction.delete(present.key());
        let own = view.code_deployments.of(scope).filter(|one| one.application == of && one.group == name);
        own.for_each(|one| transaction.delete(one.key()));
        Ok(())
    });
    commit.await?;
    Ok(cd::DeleteDeploymentGroupOutput { hooks_not_cleaned_up: Some(Vec::new()) })
}

pub async fn list(
    call: Call,
    request: cd::ListDeploymentGroupsInput,
) -> Result<cd::ListDeploymentGroupsOutput, Fault> {
    let cd::ListDeploymentGroupsInput { application_name: of, next_token } = request;
    let view = call.context.view();
    application(&view, call.scope(), &of)?;
    let groups = view.deployment_groups.under(&DeploymentGroup::prefix_of(call.scope(), &of));
    let names = groups.map(|group| (group.name.clone(), group.name.clone()));
    let (names, next_token) = page(names, next_token.as_deref(), Some(100));
    Ok(cd::ListDeploymentGroupsOutput {
        application_name: Some(of),
        deployment_groups: Some(names),
        next_token,
    })
}

pub async fn get(
    call: Call,
    request: cd::GetDeploymentGroupInput,
) -> Result<cd::GetDeploymentGroupOutput, Fault> {
    let cd::GetDeploymentGroupInput { application_name, deployment_group_name } = request;
    let view = call.context.view();
    let found = group(&view, call.scope(), &application_name, &deployment_group_name)?;
    Ok(cd::GetDeploymentGroupOutput { deployment_group_info: Some(render(&view, found)) })
}

fn render(view: &View, group: &DeploymentGroup) -> cd::DeploymentGroupInfo {
    let settings = &group.settings;
    let last = |id: &Option<String>| {
        let found = view.code_deployments.get(&CodeDeployment::key_of(&group.scope, id.as_deref()?))?;
        Some(cd::LastDeploymentInfo {
            create_time: Some(Timestamp(found.times.created_at.millis())),
            deployment_id: Some(found.id.clone()),
            end_time: found.times.completed_at.map(|at| Timestamp(at.millis())),
            status: Some(status(found.status)),
        })
    };
    cd::DeploymentGroupInfo {
        alarm_configuration: Some(settings::render_alarms(&settings.alarms)),
        application_name: Some(group.application.clone()),
        auto_rollback_configuration: Some(settings::render_rollback(&settings.rollback)),
        auto_scaling_groups: Some(Vec::new()),
        blue_green_deployment_configuration: Some(settings::render_waits(settings)),
        compute_platform: Some(cd::ComputePlatform::Ecs),
        deployment_config_name: Some(settings.config.clone()),
        deployment_group_id: Some(group.id.to_string()),
        deployment_group_name: Some(group.name.clone()),
        deployment_style: Some(settings::render_style()),
        ecs_services: Some(vec![cd::ECSService {
            cluster_name: Some(settings.cluster.clone()),
            service_name: Some(settings.service.clone()),
        }]),
        last_attempted_deployment: last(&group.last_attempted),
        last_successful_deployment: last(&group.last_successful),
        load_balancer_info: Some(settings::render_balancers(settings)),
        outdated_instances_strategy: Some(cd::OutdatedInstancesStrategy::Update),
        service_role_arn: Some(settings.role.clone()),
        termination_hook_enabled: Some(false),
        trigger_configurations: Some(Vec::new()),
        ..cd::DeploymentGroupInfo::default()
    }
}
