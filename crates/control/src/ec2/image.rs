//! Images. There is one in each region, which ECS's optimised images stand for: what runs in an instance is its tasks.
//! Follows <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeImages.html>.

use super::filter::{Filters, Values};
use super::instance::spec::{image as checked, text};
use super::{dry_run, page};
use crate::api::Call;
use longshore_ec2 as ec2;
use longshore_model::container_instance::CpuArchitecture;
use longshore_model::id::stable_hash;
use longshore_model::{Scope, Tags};
use longshore_wire::Fault;

/// Whom AWS's own images belong to.
const OWNER: &str = "amazon";
const NAME: &str = "longshore-ecs-optimized";
const FILTERS: [&str; 12] = [
    "architecture",
    "description",
    "image-id",
    "image-type",
    "is-public",
    "name",
    "owner-alias",
    "owner-id",
    "root-device-type",
    "state",
    "virtualization-type",
    "hypervisor",
];

pub async fn describe(
    call: Call,
    request: ec2::DescribeImagesRequest,
) -> Result<ec2::DescribeImagesResult, Fault> {
    let ec2::DescribeImagesRequest {
        dry_run: dry,
        // Everybody may launch it.
        executable_users: _,
        filters,
        image_ids,
        include_deprecated: _,
        include_disabled: _,
        max_results,
        next_token,
        owners,
    } = request;
    dry_run(dry)?;
    let filters = Filters::parse(filters, |name| FILTERS.contains(&name))?;
    let (ids, owners) = (image_ids.unwrap_or_default(), owners.unwrap_or_default());
    let architecture = call.context.config.instances.unwrap_or_default();
    let mut found = Vec::new();
    for id in &ids {
        found.push(render(&checked(id)?, architecture));
    }
    if ids.is_empty() {
        found.push(render(&own(call.scope()), architecture));
    }
    let owned = owners.is_empty() || owners.iter().any(|owner| owner == OWNER);
    found.retain(|image| owned && filters.pass(&Tags::default(), |name| values(image, name)));
    let (images, next_token) = page(found, max_results, next_token.as_deref())?;
    Ok(ec2::DescribeImagesResult { images: Some(images), next_token })
}

/// The image of a region.
fn own(scope: &Scope) -> String {
    format!("ami-0{:016x}", stable_hash(format!("{NAME}/{}", scope.region).bytes()))
}

fn values(image: &ec2::Image, filter: &str) -> Values {
    let value = match filter {
        "architecture" => image.architecture.map(text),
        "description" => image.description.clone(),
        "image-id" => image.image_id.clone(),
        "image-type" => image.image_type.map(text),
        "is-public" => Some("true".to_owned()),
        "name" => image.name.clone(),
        "owner-alias" | "owner-id" => Some(OWNER.to_owned()),
        "root-device-type" => image.root_device_type.map(text),
        "state" => image.state.map(text),
        "virtualization-type" => image.virtualization_type.map(text),
        "hypervisor" => image.hypervisor.map(text),
        _ => return None,
    };
    Some(value.into_iter().collect())
}

fn render(id: &str, architecture: CpuArchitecture) -> ec2::Image {
    ec2::Image {
        architecture: Some(match architecture {
            CpuArchitecture::X86_64 => ec2::ArchitectureValues::X8664,
            CpuArchitecture::Arm64 => ec2::ArchitectureValues::Arm64,
        }),
        block_device_mappings: Some(Vec::new()),
        creation_date: Some("2024-01-01T00:00:00.000Z".to_owned()),
        description: Some("Longshore's container instances, as ECS's optimised images have them".to_owned()),
        ena_support: Some(true),
        hypervisor: Some(ec2::HypervisorType::Xen),
        image_id: Some(id.to_owned()),
        image_location: Some(format!("{OWNER}/{NAME}")),
        image_owner_alias: Some(OWNER.to_owned()),
        image_type: Some(ec2::ImageTypeValues::Machine),
        name: Some(format!("{NAME}-{}", architecture.attribute())),
        owner_id: Some(OWNER.to_owned()),
        platform_details: Some("Linux/UNIX".to_owned()),
        public: Some(true),
        root_device_type: Some(ec2::DeviceType::Ebs),
        state: Some(ec2::ImageState::Available),
        virtualization_type: Some(ec2::VirtualizationType::Hvm),
        ..ec2::Image::default()
    }
}
