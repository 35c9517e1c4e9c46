//! What the versions of launch templates say. It is kept as it was given and shown so; what instances are launched with is
//! read from it once.

use super::super::instance::spec::{image, of_interface, only, profile, text, zone_of};
use super::super::{refuse, tag};
use crate::given_when_present;
use crate::refuse::Given;
use longshore_ec2 as ec2;
use longshore_model::Scope;
use longshore_model::instance::LaunchSpec;
use longshore_wire::protocol::{parse_document, write_json};
use longshore_wire::{Decode, Encode, Fault};
use serde_json::Value as Json;

given_when_present!(
    ec2::LaunchTemplateCapacityReservationSpecificationRequest,
    ec2::LaunchTemplateCpuOptionsRequest,
    ec2::LaunchTemplateElasticInferenceAccelerator,
    ec2::LaunchTemplateEnclaveOptionsRequest,
    ec2::LaunchTemplateHibernationOptionsRequest,
    ec2::LaunchTemplateInstanceMarketOptionsRequest,
    ec2::InstanceRequirementsRequest,
    ec2::LaunchTemplateLicenseConfigurationRequest,
    ec2::LaunchTemplateNetworkPerformanceOptionsRequest,
    ec2::LaunchTemplateInstanceSecondaryInterfaceSpecificationRequest,
);

/// Data as JSON, and what it says of instances.
pub fn read(scope: &Scope, data: ec2::RequestLaunchTemplateData) -> Result<(Json, LaunchSpec), Fault> {
    let spec = spec(scope, data.clone())?;
    Ok((encode(data)?, spec))
}

pub fn encode(data: ec2::RequestLaunchTemplateData) -> Result<Json, Fault> {
    let mut text = Vec::new();
    write_json(&mut text, &data.encode());
    serde_json::from_slice(&text).map_err(|error| unreadable(&error))
}

pub fn decode(data: &Json) -> Result<ec2::RequestLaunchTemplateData, Fault> {
    of_json(data)
}

/// Data as the API shows it.
pub fn shown(data: &Json) -> Result<ec2::ResponseLaunchTemplateData, Fault> {
    of_json(data)
}

fn of_json<T: Decode>(data: &Json) -> Result<T, Fault> {
    let text = serde_json::to_vec(data).map_err(|error| unreadable(&error))?;
    T::decode(parse_document(&text)?).map_err(|error| unreadable(&error))
}

fn unreadable(error: &dyn std::fmt::Display) -> Fault {
    Fault::server("InternalError", format!("The launch template's data cannot be read: {error}"))
}

/// What is given for a new version takes the place of what its source version says.
pub fn over(source: &Json, given: &Json) -> Json {
    let mut whole = source.clone();
    if let (Some(whole), Some(given)) = (whole.as_object_mut(), given.as_object()) {
        whole.extend(given.clone());
    }
    whole
}

fn spec(scope: &Scope, data: ec2::RequestLaunchTemplateData) -> Result<LaunchSpec, Fault> {
    let ec2::RequestLaunchTemplateData {
        block_device_mappings: _,
        capacity_reservation_specification,
        cpu_options,
        credit_specification: _,
        disable_api_stop: _,
        disable_api_termination,
        ebs_optimized,
        elastic_gpu_specifications,
        elastic_inference_accelerators,
        enclave_options,
        hibernation_options,
        iam_instance_profile,
        image_id,
        instance_initiated_shutdown_behavior: _,
        instance_market_options,
        instance_requirements,
        instance_type,
        kernel_id,
        key_name,
        license_specifications,
        maintenance_options: _,
        metadata_options: _,
        monitoring,
        network_interfaces,
        network_performance_options,
        operator,
        placement,
        private_dns_name_options: _,
        ram_disk_id,
        secondary_interfaces,
        security_group_ids,
        security_groups,
        tag_specifications,
        user_data,
    } = data;
    refuse(&[
        ("LaunchTemplateData.CapacityReservationSpecification", capacity_reservation_specification.given()),
        ("LaunchTemplateData.CpuOptions", cpu_options.given()),
        ("LaunchTemplateData.ElasticGpuSpecifications", elastic_gpu_specifications.given()),
        ("LaunchTemplateData.ElasticInferenceAccelerators", elastic_inference_accelerators.given()),
        ("LaunchTemplateData.EnclaveOptions", enclave_options.given()),
        ("LaunchTemplateData.HibernationOptions", hibernation_options.given()),
        ("LaunchTemplateData.InstanceMarketOptions", instance_market_options.given()),
        ("LaunchTemplateData.InstanceRequirements", instance_requirements.given()),
        ("LaunchTemplateData.KernelId", kernel_id.given()),
        ("LaunchTemplateData.LicenseSpecifications", license_specifications.given()),
        ("LaunchTemplateData.NetworkPerformanceOptions", network_performance_options.given()),
        ("LaunchTemplateData.Operator", operator.given()),
        ("LaunchTemplateData.RamDiskId", ram_disk_id.given()),
        ("LaunchTemplateData.SecondaryInterfaces", secondary_interfaces.given()),
        ("LaunchTemplateData.SecurityGroups", security_groups.given()),
    ])?;
    let spec = LaunchSpec {
        image: image_id.filter(|id| !id.is_empty()).map(|id| image(&id)).transpose()?,
        instance_type: instance_type.map(text),
        key_name: key_name.filter(|name| !name.is_empty()),
        user_data: user_data.filter(|data| !data.is_empty()),
        profile: iam_instance_profile.and_then(|given| profile(scope, given.arn, given.name)),
        subnet: None,
        availability_zone: placement.map(|given| zone_of(recode(given)?)).transpose()?.flatten(),
        private_address: None,
        security_groups: security_group_ids.unwrap_or_default(),
        monitoring: monitoring.and_then(|monitoring| monitoring.enabled),
        ebs_optimized,
        termination_protection: disable_api_termination,
        tags: tag::of_several(
            tag_specifications.map(|given| {
                let general = |ec2::LaunchTemplateTagSpecificationRequest { resource_type, tags }| {
                    ec2::TagSpecification { resource_type, tags }
                };
                given.into_iter().map(general).collect()
            }),
            ec2::ResourceType::Instance,
        )?,
    };
    match only(network_interfaces.unwrap_or_default())? {
        None => Ok(spec),
        Some(interface) => Ok(spec.or(&of_interface(recode(interface)?)?)),
    }
}

/// What calls and templates say in the same words, as calls say it.
fn recode<T: Decode>(given: impl Encode) -> Result<T, Fault> {
    T::decode(given.encode()).map_err(|error| unreadable(&error))
}
