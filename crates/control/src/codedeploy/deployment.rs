//! Deployments. Follows <https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_CreateDeployment.html>.

use super::settings::{self, alarms, rollback};
use super::{app_spec, config, deployment, group, invalid, refuse};
use crate::api::Call;
use crate::context::RandomIds;
use crate::given_when_present;
use crate::pages::page;
use crate::refuse::Given;
use longshore_codedeploy as cd;
use longshore_engine::codedeploy as engine;
use longshore_model::Timestamp as At;
use longshore_model::codedeploy::{
    CodeDeployment, DeploymentGroup, Revision, Settings, Stage, Status, Times,
};
use longshore_wire::{Decode, Fault, Timestamp, Value};
use std::sync::Arc;

given_when_present!(cd::TargetInstances, cd::TimeRange);

pub async fn create(
    call: Call,
    request: cd::CreateDeploymentInput,
) -> Result<cd::CreateDeploymentOutput, Fault> {
    let cd::CreateDeploymentInput {
        application_name: of,
        auto_rollback_configuration,
        deployment_config_name,
        deployment_group_name: name,
        description,
        // Of files on instances.
        file_exists_behavior: _,
        ignore_application_stop_failures: _,
        override_alarm_configuration,
        revision,
        target_instances,
        update_outdated_instances_only,
    } = request;
    refuse(&[
        ("targetInstances", target_instances.given()),
        ("updateOutdatedInstancesOnly", update_outdated_instances_only.given()),
    ])?;
    let name = name.ok_or_else(|| {
        Fault::from(cd::Error::DeploymentGroupNameRequiredException(
            "deploymentGroupName is required.".to_owned(),
        ))
    })?;
    let own_rollback = auto_rollback_configuration.as_ref().map(rollback).transpose()?;
    let own_alarms = override_alarm_configuration.map(alarms);
    let now = call.context.now();
    let id = engine::deployment_id(&mut RandomIds);
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let (view, scope) = (&snapshot.view, call.scope());
        let group = group(view, scope, &of, &name)?;
        if let Some(busy) = engine::under_way(view, group) {
            let message =
                format!("The Deployment Group '{name}' already has an active Deployment '{}'", busy.id);
            return Err(cd::Error::DeploymentLimitExceededException(message).into());
        }
        let config = deployment_config_name.clone().unwrap_or_else(|| group.settings.config.clone());
        let settings = Settings {
            rollback: own_rollback.clone().unwrap_or_else(|| group.settings.rollback.clone()),
            alarms: own_alarms.clone().unwrap_or_else(|| group.settings.alarms.clone()),
            ..group.settings.clone()
        };
        transaction.create(&CodeDeployment {
            scope: scope.clone(),
            id: id.clone(),
            application: of.clone(),
            group: name.clone(),
            description: description.clone(),
            routing: config::routing(view, scope, &config)?,
            config,
            settings,
            revision: app_spec::read(view, scope, revision.clone())?,
            status: Status::Created,
            stage: Stage::Begin,
            error: None,
            takes_back: None,
            taken_back_by: None,
            blue: None,
            green: None,
            green_group: 0,
            percent: 0,
            proceeds: false,
            times: begun(now),
        });
        // Of two that are made at once the second one finds the first.
        transaction.update(&DeploymentGroup { last_attempted: Some(id.clone()), ..(**group).clone() });
        Ok(())
    });
    commit.await?;
    Ok(cd::CreateDeploymentOutput { deployment_id: Some(id) })
}

fn begun(now: At) -> Times {
    Times {
        created_at: now,
        started_at: None,
        installed_at: None,
        tested_at: None,
        shifting_at: None,
        shifted_at: None,
        completed_at: None,
    }
}

pub async fn stop(call: Call, request: cd::StopDeploymentInput) -> Result<cd::StopDeploymentOutput, Fault> {
    let cd::StopDeploymentInput { auto_rollback_enabled, deployment_id: id } = request;
    let now = call.context.now();
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let present = deployment(view, call.scope(), &id)?;
        if !present.status.is_under_way() {
            let message = format!("The deployment {id} is already completed.");
            return Err(cd::Error::DeploymentAlreadyCompletedException(message).into());
        }
        if present.stage >= Stage::Clean {
            return Err(invalid(format!(
                "The deployment {id} is removing tasks, and can no longer be stopped."
            )));
        }
        engine::stop(view, present, auto_rollback_enabled, now, &mut RandomIds, transaction);
        Ok(())
    });
    commit.await?;
    Ok(cd::StopDeploymentOutput {
        status: Some(cd::StopStatus::Succeeded),
        status_message: Some("Deployment Stopped Successfully".to_owned()),
    })
}

/// Goes on with a deployment that waits for it, or removes the tasks before without more waiting.
pub async fn proceed(call: Call, request: cd::ContinueDeploymentInput) -> Result<(), Fault> {
    let cd::ContinueDeploymentInput { deployment_id, deployment_wait_type } = request;
    let id = deployment_id.ok_or_else(|| {
        Fault::from(cd::Error::DeploymentIdRequiredException("deploymentId is required.".to_owned()))
    })?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let present = deployment(&snapshot.view, call.scope(), &id)?;
        if !present.status.is_under_way() {
            let message = format!("The deployment {id} is already completed.");
            return Err(cd::Error::DeploymentAlreadyCompletedException(message).into());
        }
        let waits = match deployment_wait_type.unwrap_or(cd::DeploymentWaitType::ReadyWait) {
            cd::DeploymentWaitType::ReadyWait => present.status == Status::Ready,
            cd::DeploymentWaitType::TerminationWait => present.stage == Stage::Keep,
        };
        if !waits {
            let message = format!("The deployment {id} does not wait to be continued.");
            return Err(cd::Error::DeploymentIsNotInReadyStateException(message).into());
        }
        transaction.update(&CodeDeployment { proceeds: true, ..(**present).clone() });
        Ok(())
    });
    commit.await
}

pub fn status(status: Status) -> cd::DeploymentStatus {
    match status {
        Status::Created => cd::DeploymentStatus::Created,
        Status::InProgress => cd::DeploymentStatus::InProgress,
        Status::Ready => cd::DeploymentStatus::Ready,
        Status::Succeeded => cd::DeploymentStatus::Succeeded,
        Status::Failed => cd::DeploymentStatus::Failed,
        Status::Stopped => cd::DeploymentStatus::Stopped,
    }
}

pub async fn list(call: Call, request: cd::ListDeploymentsInput) -> Result<cd::ListDeploymentsOutput, Fault> {
    let cd::ListDeploymentsInput {
        application_name: of,
        create_time_range,
        deployment_group_name: name,
        external_id,
        include_only_statuses,
        next_token,
    } = request;
    refuse(&[("createTimeRange", create_time_range.given()), ("externalId", external_id.given())])?;
    let view = call.context.view();
    if let (Some(of), Some(name)) = (&of, &name) {
        group(&view, call.scope(), of, name)?;
    } else if let Some(of) = &of {
        super::application(&view, call.scope(), of)?;
    }
    let statuses = include_only_statuses.unwrap_or_default();
    let wanted = |one: &&Arc<CodeDeployment>| {
        of.as_ref().is_none_or(|of| one.application == *of)
            && name.as_ref().is_none_or(|name| one.group == *name)
            && (statuses.is_empty() || statuses.contains(&status(one.status)))
    };
    // The newest first.
    let mut found: Vec<_> = view.code_deployments.of(call.scope()).filter(wanted).collect();
    found.sort_by_key(|one| (std::cmp::Reverse(one.times.created_at), one.id.clone()));
    let keyed = found.iter().map(|one| {
        let age = i64::MAX - one.times.created_at.millis();
        (format!("{age:020}/{}", one.id), one.id.clone())
    });
    let (deployments, next_token) = page(keyed, next_token.as_deref(), Some(100));
    Ok(cd::ListDeploymentsOutput { deployments: Some(deployments), next_token })
}

pub async fn get(call: Call, request: cd::GetDeploymentInput) -> Result<cd::GetDeploymentOutput, Fault> {
    let cd::GetDeploymentInput { deployment_id } = request;
    let view = call.context.view();
    let found = deployment(&view, call.scope(), &deployment_id)?;
    Ok(cd::GetDeploymentOutput { deployment_info: Some(render(found)) })
}

fn render(one: &CodeDeployment) -> cd::DeploymentInfo {
    let at = |time: Option<At>| time.map(|time| Timestamp(time.millis()));
    let count = |is: bool| Some(i64::from(is));
    let code = |code: &str| cd::ErrorCode::decode(Value::from(code.to_owned())).ok();
    let rollback = (one.takes_back.is_some() || one.taken_back_by.is_some()).then(|| cd::RollbackInfo {
        rollback_deployment_id: one.taken_back_by.clone(),
        rollback_message: one.takes_back.as_ref().map(|of| format!("Rollback of the deployment {of}.")),
        rollback_triggering_deployment_id: one.takes_back.clone(),
    });
    cd::DeploymentInfo {
        application_name: Some(one.application.clone()),
        auto_rollback_configuration: Some(settings::render_rollback(&one.settings.rollback)),
        blue_green_deployment_configuration: Some(settings::render_waits(&one.settings)),
        complete_time: at(one.times.completed_at),
        compute_platform: Some(cd::ComputePlatform::Ecs),
        create_time: at(Some(one.times.created_at)),
        creator: Some(match one.takes_back {
            Some(_) => cd::DeploymentCreator::CodeDeployRollback,
            None => cd::DeploymentCreator::User,
        }),
        deployment_config_name: Some(one.config.clone()),
        deployment_group_name: Some(one.group.clone()),
        deployment_id: Some(one.id.clone()),
        deployment_overview: Some(cd::DeploymentOverview {
            failed: count(one.status == Status::Failed),
            in_progress: count(one.status == Status::InProgress),
            pending: count(one.status == Status::Created),
            ready: count(one.status == Status::Ready),
            skipped: count(one.status == Status::Stopped),
            succeeded: count(one.status == Status::Succeeded),
        }),
        deployment_status_messages: Some(Vec::new()),
        deployment_style: Some(settings::render_style()),
        description: one.description.clone(),
        error_information: one
            .error
            .as_ref()
            .map(|(of, message)| cd::ErrorInformation { code: code(of), message: Some(message.clone()) }),
        ignore_application_stop_failures: Some(false),
        instance_termination_wait_time_started: Some(one.times.shifted_at.is_some()),
        load_balancer_info: Some(settings::render_balancers(&one.settings)),
        revision: Some(render_revision(&one.revision)),
        rollback_info: rollback,
        start_time: at(one.times.started_at),
        status: Some(status(one.status)),
        update_outdated_instances_only: Some(false),
        ..cd::DeploymentInfo::default()
    }
}

fn render_revision(revision: &Revision) -> cd::RevisionLocation {
    let (content, sha256) = (Some(revision.content.clone()), revision.sha256.clone());
    match revision.is_string {
        true => cd::RevisionLocation {
            revision_type: Some(cd::RevisionLocationType::String),
            string: Some(cd::RawString { content, sha256 }),
            ..cd::RevisionLocation::default()
        },
        false => cd::RevisionLocation {
            revision_type: Some(cd::RevisionLocationType::AppSpecContent),
            app_spec_content: Some(cd::AppSpecContent { content, sha256 }),
            ..cd::RevisionLocation::default()
        },
    }
}
