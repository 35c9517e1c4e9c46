//! The versions of launch templates.
//! Follows <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateLaunchTemplateVersion.html>.

use super::super::filter::Filters;
use super::super::{dry_run, page, refuse, refused};
use super::{Named, data};
use crate::api::Call;
use crate::refuse::Given;
use longshore_ec2 as ec2;
use longshore_model::Tags;
use longshore_model::instance::{LaunchTemplate, LaunchTemplateVersion};
use longshore_wire::{Fault, Timestamp};

/// The most versions of a template.
const VERSIONS: usize = 10_000;

pub async fn create(
    call: Call,
    request: ec2::CreateLaunchTemplateVersionRequest,
) -> Result<ec2::CreateLaunchTemplateVersionResult, Fault> {
    let ec2::CreateLaunchTemplateVersionRequest {
        client_token: _,
        dry_run: dry,
        launch_template_data,
        launch_template_id,
        launch_template_name,
        // Aliases of images are those of SSM parameters, which name none here.
        resolve_alias,
        source_version,
        version_description,
    } = request;
    dry_run(dry)?;
    refuse(&[("ResolveAlias", resolve_alias.given())])?;
    let named = Named::new(launch_template_id, launch_template_name)?;
    let given = data::encode(launch_template_data)?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let present = named.find(&snapshot.view, call.scope())?;
        let whole = match source_version.as_deref().filter(|source| !source.is_empty()) {
            None => given.clone(),
            Some(source) => data::over(&super::version(present, source)?.data, &given),
        };
        let (data, spec) = data::read(call.scope(), data::decode(&whole)?)?;
        if present.versions.len() >= VERSIONS {
            let message = format!("A launch template can have at most {VERSIONS} versions.");
            return Err(refused("VersionLimitExceeded", message));
        }
        let mut next = (**present).clone();
        next.latest_version += 1;
        let made = LaunchTemplateVersion {
            number: next.latest_version,
            description: version_description.clone(),
            created_at: call.context.now(),
            created_by: call.caller.arn(),
            data,
            spec,
        };
        next.versions.push(made.clone());
        transaction.update(&next);
        render(&next, &made)
    });
    Ok(ec2::CreateLaunchTemplateVersionResult { launch_template_version: Some(commit.await?), warning: None })
}

pub async fn describe(
    call: Call,
    request: ec2::DescribeLaunchTemplateVersionsRequest,
) -> Result<ec2::DescribeLaunchTemplateVersionsResult, Fault> {
    let ec2::DescribeLaunchTemplateVersionsRequest {
        dry_run: dry,
        filters,
        include_managed_resources: _,
        launch_template_id,
        launch_template_name,
        max_results,
        max_version,
        min_version,
        next_token,
        resolve_alias,
        versions,
    } = request;
    dry_run(dry)?;
    refuse(&[("ResolveAlias", resolve_alias.given())])?;
    let filters =
        Filters::parse(filters, |name| ["image-id", "instance-type", "is-default-version"].contains(&name))?;
    let bound = |field: &str, given: Option<String>| {
        let number = |text: String| {
            let message = format!("Invalid launch template version {text} for {field}: it must be a number.");
            text.parse::<u64>().map_err(|_| refused("InvalidLaunchTemplateId.VersionNotFound", message))
        };
        given.filter(|text| !text.is_empty()).map(number).transpose()
    };
    let (first, last) = (bound("MinVersion", min_version)?, bound("MaxVersion", max_version)?);
    let wanted = versions.unwrap_or_default();
    let view = call.context.view();
    let named = Named::new(launch_template_id, launch_template_name)?;
    let template = named.find(&view, call.scope())?;
    let mut numbers = Vec::new();
    for given in &wanted {
        numbers.push(super::version(template, given)?.number);
    }
    let passes = |version: &&LaunchTemplateVersion| {
        let values = |filter: &str| match filter {
            "image-id" => Some(version.spec.image.clone().into_iter().collect()),
            "instance-type" => Some(version.spec.instance_type.clone().into_iter().collect()),
            "is-default-version" => Some(vec![(version.number == template.default_version).to_string()]),
            _ => None,
        };
        (wanted.is_empty() || numbers.contains(&version.number))
            && first.is_none_or(|first| version.number >= first)
            && last.is_none_or(|last| version.number <= last)
            && filters.pass(&Tags::default(), values)
    };
    // Newest first, as EC2 lists them.
    let found = template.versions.iter().rev().filter(passes).map(|version| render(template, version));
    let (versions, next_token) = page(found.collect::<Result<_, _>>()?, max_results, next_token.as_deref())?;
    Ok(ec2::DescribeLaunchTemplateVersionsResult { launch_template_versions: Some(versions), next_token })
}

fn render(
    template: &LaunchTemplate,
    version: &LaunchTemplateVersion,
) -> Result<ec2::LaunchTemplateVersion, Fault> {
    Ok(ec2::LaunchTemplateVersion {
        create_time: Some(Timestamp(version.created_at.millis())),
        created_by: Some(version.created_by.clone()),
        default_version: Some(version.number == template.default_version),
        launch_template_data: Some(data::shown(&version.data)?),
        launch_template_id: Some(template.id.clone()),
        launch_template_name: Some(template.name.clone()),
        operator: None,
        version_description: version.description.clone(),
        version_number: i64::try_from(version.number).ok(),
    })
}
