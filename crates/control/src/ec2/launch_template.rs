//! Launch templates: what instances are launched from, in versions that never change.
//! Follows <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateLaunchTemplate.html>.

mod data;
mod version;

pub use version::{create as create_version, describe as describe_versions};

use super::filter::Filters;
use super::{dry_run, page, refuse, refused, tag};
use crate::api::Call;
use crate::context::RandomIds;
use crate::refuse::Given;
use longshore_ec2 as ec2;
use longshore_engine::View;
use longshore_model::auto_scaling::AutoScalingGroup;
use longshore_model::id::IdSource;
use longshore_model::instance::{LaunchTemplate, LaunchTemplateVersion, TemplateVersion};
use longshore_model::{Record, Scope};
use longshore_wire::{Fault, Timestamp};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// How long a template's name may be, in characters.
const NAME: RangeInclusive<usize> = 3..=128;

/// A template as requests name it.
pub struct Named {
    pub id: Option<String>,
    pub name: Option<String>,
}

impl Named {
    pub fn new(id: Option<String>, name: Option<String>) -> Result<Self, Fault> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let named = Self { id: given(id), name: given(name) };
        match (&named.id, &named.name) {
            (Some(_), Some(_)) => Err(refused(
                "InvalidParameterCombination",
                "Launch template ID and launch template name may not both be specified.",
            )),
            (None, None) => Err(refused(
                "MissingParameter",
                "Either launch template ID or launch template name must be specified.",
            )),
            _ => Ok(named),
        }
    }

    pub fn find<'a>(&self, view: &'a View, scope: &Scope) -> Result<&'a Arc<LaunchTemplate>, Fault> {
        if let Some(id) = &self.id {
            let missing = || {
                let message =
                    format!("The specified launch template, with template ID {id}, does not exist.");
                refused("InvalidLaunchTemplateId.NotFound", message)
            };
            return view.launch_templates.get(&LaunchTemplate::key_of(scope, id)).ok_or_else(missing);
        }
        let name = self.name.as_deref().unwrap_or_default();
        let missing = || {
            let message =
                format!("The specified launch template, with template name {name}, does not exist.");
            refused("InvalidLaunchTemplateName.NotFoundException", message)
        };
        view.launch_templates.of(scope).find(|template| template.name == name).ok_or_else(missing)
    }
}

/// The version that is meant by a number, `$Latest` or `$Default`, or by nothing.
pub fn version<'a>(template: &'a LaunchTemplate, given: &str) -> Result<&'a LaunchTemplateVersion, Fault> {
    longshore_engine::auto_scaling::version(template, given).ok_or_else(|| {
        let id = &template.id;
        let message =
            format!("Could not find the specified version {given} for the launch template with ID {id}.");
        refused("InvalidLaunchTemplateId.VersionNotFound", message)
    })
}

/// What a call that launches from a template means.
pub fn resolve<'a>(
    view: &'a View,
    scope: &Scope,
    given: &ec2::LaunchTemplateSpecification,
) -> Result<(&'a LaunchTemplateVersion, TemplateVersion), Fault> {
    let ec2::LaunchTemplateSpecification { launch_template_id, launch_template_name, version } =
        given.clone();
    let template = Named::new(launch_template_id, launch_template_name)?.find(view, scope)?;
    let found = self::version(template, version.as_deref().unwrap_or_default())?;
    let named =
        TemplateVersion { id: template.id.clone(), name: template.name.clone(), version: found.number };
    Ok((found, named))
}

pub async fn create(
    call: Call,
    request: ec2::CreateLaunchTemplateRequest,
) -> Result<ec2::CreateLaunchTemplateResult, Fault> {
    let ec2::CreateLaunchTemplateRequest {
        client_token: _,
        dry_run: dry,
        launch_template_data,
        launch_template_name: name,
        operator,
        tag_specifications,
        version_description,
    } = request;
    dry_run(dry)?;
    refuse(&[("Operator", operator.given())])?;
    let is_known = |c: char| c.is_ascii_alphanumeric() || "()./_-".contains(c);
    if !NAME.contains(&name.chars().count()) || !name.chars().all(is_known) {
        let message = format!(
            "Launch template names must be 3 to 128 letters, digits and ()./_- characters long, and this is '{name}'."
        );
        return Err(refused("InvalidLaunchTemplateName.MalformedException", message));
    }
    let (now, created_by) = (call.context.now(), call.caller.arn());
    let (data, spec) = data::read(call.scope(), launch_template_data)?;
    let first = LaunchTemplateVersion {
        number: 1,
        description: version_description,
        created_at: now,
        created_by: created_by.clone(),
        data,
        spec,
    };
    let made = LaunchTemplate {
        scope: call.scope().clone(),
        id: RandomIds.ec2("lt"),
        name,
        created_at: now,
        created_by,
        default_version: 1,
        latest_version: 1,
        versions: vec![first],
        tags: tag::of_new(tag_specifications, ec2::ResourceType::LaunchTemplate)?,
    };
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        if snapshot.view.launch_templates.of(call.scope()).any(|other| other.name == made.name) {
            return Err(refused(
                "InvalidLaunchTemplateName.AlreadyExistsException",
                "Launch template name already in use.",
            ));
        }
        transaction.create(&made);
        // Of two of one name the second one is refused.
        transaction.rely_on_nothing_new_under(format!("{}/{}/", LaunchTemplate::TABLE, call.scope().path()));
        Ok(())
    });
    commit.await?;
    Ok(ec2::CreateLaunchTemplateResult { launch_template: Some(render(&made)), warning: None })
}

pub async fn modify(
    call: Call,
    request: ec2::ModifyLaunchTemplateRequest,
) -> Result<ec2::ModifyLaunchTemplateResult, Fault> {
    let ec2::ModifyLaunchTemplateRequest {
        client_token: _,
        default_version,
        dry_run: dry,
        launch_template_id,
        launch_template_name,
    } = request;
    dry_run(dry)?;
    let named = Named::new(launch_template_id, launch_template_name)?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let present = named.find(&snapshot.view, call.scope())?;
        let Some(given) = &default_version else { return Ok((**present).clone()) };
        let default_version = version(present, given)?.number;
        let next = LaunchTemplate { default_version, ..(**present).clone() };
        transaction.update(&next);
        Ok(next)
    });
    Ok(ec2::ModifyLaunchTemplateResult { launch_template: Some(render(&commit.await?)) })
}

pub async fn delete(
    call: Call,
    request: ec2::DeleteLaunchTemplateRequest,
) -> Result<ec2::DeleteLaunchTemplateResult, Fault> {
    let ec2::DeleteLaunchTemplateRequest { dry_run: dry, launch_template_id, launch_template_name } = request;
    dry_run(dry)?;
    let named = Named::new(launch_template_id, launch_template_name)?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let present = named.find(view, call.scope())?;
        let uses = |group: &&Arc<AutoScalingGroup>| group.template == present.id;
        if let Some(group) = view.auto_scaling_groups.of(call.scope()).find(uses) {
            let message = format!(
                "The launch template {} is used by the Auto Scaling group {}.",
                present.id, group.name
            );
            return Err(refused("OperationNotPermitted", message));
        }
        transaction.delete(present.key());
        Ok((**present).clone())
    });
    Ok(ec2::DeleteLaunchTemplateResult { launch_template: Some(render(&commit.await?)) })
}

pub async fn describe(
    call: Call,
    request: ec2::DescribeLaunchTemplatesRequest,
) -> Result<ec2::DescribeLaunchTemplatesResult, Fault> {
    let ec2::DescribeLaunchTemplatesRequest {
        dry_run: dry,
        filters,
        include_managed_resources: _,
        launch_template_ids,
        launch_template_names,
        max_results,
        next_token,
    } = request;
    dry_run(dry)?;
    let filters = Filters::parse(filters, |name| ["create-time", "launch-template-name"].contains(&name))?;
    let view = call.context.view();
    let (ids, names) = (launch_template_ids.unwrap_or_default(), launch_template_names.unwrap_or_default());
    for id in &ids {
        Named { id: Some(id.clone()), name: None }.find(&view, call.scope())?;
    }
    for name in &names {
        Named { id: None, name: Some(name.clone()) }.find(&view, call.scope())?;
    }
    let wanted = |template: &&Arc<LaunchTemplate>| {
        let values = |filter: &str| match filter {
            "create-time" => Some(vec![Timestamp(template.created_at.millis()).to_string()]),
            "launch-template-name" => Some(vec![template.name.clone()]),
            _ => None,
        };
        let is_named = ids.is_empty() && names.is_empty()
            || ids.contains(&template.id)
            || names.contains(&template.name);
        is_named && filters.pass(&template.tags, values)
    };
    let found =
        view.launch_templates.of(call.scope()).filter(wanted).map(|template| render(template)).collect();
    let (templates, next_token) = page(found, max_results, next_token.as_deref())?;
    Ok(ec2::DescribeLaunchTemplatesResult { launch_templates: Some(templates), next_token })
}

fn render(template: &LaunchTemplate) -> ec2::LaunchTemplate {
    ec2::LaunchTemplate {
        create_time: Some(Timestamp(template.created_at.millis())),
        created_by: Some(template.created_by.clone()),
        default_version_number: i64::try_from(template.default_version).ok(),
        latest_version_number: i64::try_from(template.latest_version).ok(),
        launch_template_id: Some(template.id.clone()),
        launch_template_name: Some(template.name.clone()),
        operator: None,
        tags: tag::render(&template.tags),
    }
}
