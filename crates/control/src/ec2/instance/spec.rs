//! What a call says of the instances that it launches. Instances have the machine's disk, no metadata service and no burst of
//! CPU: what is said of those is taken and has no effect.

use super::super::{dry_run, refuse, refused, tag};
use crate::given_when_present;
use crate::refuse::Given;
use longshore_ec2 as ec2;
use longshore_model::Scope;
use longshore_model::instance::LaunchSpec;
use longshore_wire::{Encode, Fault};
use std::net::Ipv4Addr;

given_when_present!(
    ec2::CpuOptionsRequest,
    ec2::CapacityReservationSpecification,
    ec2::ElasticGpuSpecification,
    ec2::ElasticInferenceAccelerator,
    ec2::EnclaveOptionsRequest,
    ec2::HibernationOptionsRequest,
    ec2::InstanceMarketOptionsRequest,
    ec2::InstanceIpv6Address,
    ec2::LicenseConfigurationRequest,
    ec2::InstanceNetworkPerformanceOptionsRequest,
    ec2::OperatorRequest,
    ec2::InstanceSecondaryInterfaceSpecificationRequest,
    ec2::ConnectionTrackingSpecificationRequest,
    ec2::EnaSrdSpecificationRequest,
    ec2::Ipv4PrefixSpecificationRequest,
    ec2::Ipv6PrefixSpecificationRequest,
    ec2::PrivateIpAddressSpecification,
);

/// A call's own part, and what it refers to.
pub struct Asked {
    pub spec: LaunchSpec,
    pub template: Option<ec2::LaunchTemplateSpecification>,
    /// How many instances there must be, and how many there may be.
    pub least: u32,
    pub most: u32,
    pub client_token: Option<String>,
}

pub fn of_request(scope: &Scope, request: ec2::RunInstancesRequest) -> Result<Asked, Fault> {
    let ec2::RunInstancesRequest {
        additional_info,
        block_device_mappings: _,
        capacity_reservation_specification,
        client_token,
        cpu_options,
        credit_specification: _,
        disable_api_stop: _,
        disable_api_termination,
        dry_run: dry,
        ebs_optimized,
        elastic_gpu_specification,
        elastic_inference_accelerators,
        enable_primary_ipv6,
        enclave_options,
        hibernation_options,
        iam_instance_profile,
        image_id,
        instance_initiated_shutdown_behavior: _,
        instance_market_options,
        instance_type,
        ipv6_address_count,
        ipv6_addresses,
        kernel_id,
        key_name,
        launch_template,
        license_specifications,
        maintenance_options: _,
        max_count,
        metadata_options: _,
        min_count,
        monitoring,
        network_interfaces,
        network_performance_options,
        operator,
        placement,
        private_dns_name_options: _,
        private_ip_address,
        ramdisk_id,
        secondary_interfaces,
        security_group_ids,
        security_groups,
        subnet_id,
        tag_specifications,
        user_data,
    } = request;
    dry_run(dry)?;
    refuse(&[
        ("AdditionalInfo", additional_info.given()),
        ("CapacityReservationSpecification", capacity_reservation_specification.given()),
        ("CpuOptions", cpu_options.given()),
        ("ElasticGpuSpecification", elastic_gpu_specification.given()),
        ("ElasticInferenceAccelerators", elastic_inference_accelerators.given()),
        ("EnablePrimaryIpv6", enable_primary_ipv6.given()),
        ("EnclaveOptions", enclave_options.given()),
        ("HibernationOptions", hibernation_options.given()),
        ("InstanceMarketOptions", instance_market_options.given()),
        ("Ipv6AddressCount", ipv6_address_count.is_some_and(|count| count != 0)),
        ("Ipv6Addresses", ipv6_addresses.given()),
        ("KernelId", kernel_id.given()),
        ("LicenseSpecifications", license_specifications.given()),
        ("NetworkPerformanceOptions", network_performance_options.given()),
        ("Operator", operator.given()),
        ("RamdiskId", ramdisk_id.given()),
        ("SecondaryInterfaces", secondary_interfaces.given()),
        ("SecurityGroups", security_groups.given()),
    ])?;
    let counts = u32::try_from(min_count).ok().zip(u32::try_from(max_count).ok());
    let (least, most) = counts.filter(|(least, most)| *least >= 1 && least <= most).ok_or_else(|| {
        refused(
            "InvalidParameterValue",
            format!("MinCount must be from 1 to MaxCount, and is {min_count} of {max_count}."),
        )
    })?;
    let mut spec = LaunchSpec {
        image: image_id.map(|id| image(&id)).transpose()?,
        instance_type: instance_type.map(text),
        key_name,
        user_data: user_data.filter(|data| !data.is_empty()),
        profile: iam_instance_profile.and_then(|profile| self::profile(scope, profile.arn, profile.name)),
        subnet: subnet_id,
        availability_zone: placement.map(zone_of).transpose()?.flatten(),
        private_address: private_ip_address.map(|text| address(&text)).transpose()?,
        security_groups: security_group_ids.unwrap_or_default(),
        monitoring: monitoring.map(|monitoring| monitoring.enabled),
        ebs_optimized,
        termination_protection: disable_api_termination,
        tags: tag::of_several(tag_specifications, ec2::ResourceType::Instance)?,
    };
    if let Some(interface) = only(network_interfaces.unwrap_or_default())? {
        let of_interface = of_interface(interface)?;
        if spec.subnet.is_some() || !spec.security_groups.is_empty() {
            return Err(refused(
                "InvalidParameterCombination",
                "Network interfaces and an instance-level subnet ID or security groups may not be specified on the same \
                 request",
            ));
        }
        spec = spec.or(&of_interface);
    }
    if spec.private_address.is_some() && most > 1 {
        let message = "One private address is for one instance: MaxCount must be 1.";
        return Err(refused("InvalidParameterCombination", message));
    }
    let client_token = client_token.filter(|token| !token.is_empty());
    Ok(Asked { spec, template: launch_template, least, most, client_token })
}

/// An image's id. Every image is taken for one that ECS is optimised for: what runs in an instance is its tasks.
pub fn image(id: &str) -> Result<String, Fault> {
    let digits = id.strip_prefix("ami-").filter(|digits| !digits.is_empty());
    if digits.is_some_and(|digits| digits.chars().all(|c| c.is_ascii_alphanumeric())) {
        return Ok(id.to_owned());
    }
    Err(refused("InvalidAMIID.Malformed", format!("Invalid id: \"{id}\" (expecting \"ami-...\")")))
}

/// An enumeration's value as it is written.
pub fn text(value: impl Encode) -> String {
    value.encode().as_str().unwrap_or_default().to_owned()
}

/// The ARN of an instance profile.
pub fn profile(scope: &Scope, arn: Option<String>, name: Option<String>) -> Option<String> {
    let of_name = |name: String| format!("arn:aws:iam::{}:instance-profile/{name}", scope.account);
    arn.filter(|arn| !arn.is_empty()).or_else(|| name.filter(|name| !name.is_empty()).map(of_name))
}

fn address(text: &str) -> Result<Ipv4Addr, Fault> {
    let malformed =
        |_| refused("InvalidParameterValue", format!("invalid value for parameter address: {text}"));
    text.parse().map_err(malformed)
}

pub fn zone_of(placement: ec2::Placement) -> Result<Option<String>, Fault> {
    let ec2::Placement {
        affinity,
        availability_zone,
        availability_zone_id,
        group_id,
        group_name,
        host_id,
        host_resource_group_arn,
        partition_number,
        spread_domain,
        tenancy,
    } = placement;
    refuse(&[
        ("Placement.Affinity", affinity.given()),
        ("Placement.AvailabilityZoneId", availability_zone_id.given()),
        ("Placement.GroupId", group_id.given()),
        ("Placement.GroupName", group_name.given()),
        ("Placement.HostId", host_id.given()),
        ("Placement.HostResourceGroupArn", host_resource_group_arn.given()),
        ("Placement.PartitionNumber", partition_number.is_some_and(|number| number != 0)),
        ("Placement.SpreadDomain", spread_domain.given()),
        ("Placement.Tenancy", tenancy.is_some_and(|tenancy| tenancy != ec2::Tenancy::Default)),
    ])?;
    Ok(availability_zone.filter(|zone| !zone.is_empty()))
}

/// An instance has one network interface.
pub fn only<T>(mut given: Vec<T>) -> Result<Option<T>, Fault> {
    refuse(&[("NetworkInterfaces", given.len() > 1)])?;
    Ok(given.pop())
}

pub fn of_interface(given: ec2::InstanceNetworkInterfaceSpecification) -> Result<LaunchSpec, Fault> {
    let ec2::InstanceNetworkInterfaceSpecification {
        associate_carrier_ip_address,
        // As for tasks: the outside is reached by the machine's address.
        associate_public_ip_address: _,
        connection_tracking_specification,
        delete_on_termination: _,
        description: _,
        device_index,
        ena_queue_count,
        ena_srd_specification,
        groups,
        interface_type: _,
        ipv4_prefix_count,
        ipv4_prefixes,
        ipv6_address_count,
        ipv6_addresses,
        ipv6_prefix_count,
        ipv6_prefixes,
        network_card_index: _,
        network_interface_id,
        primary_ipv6,
        private_ip_address,
        private_ip_addresses,
        secondary_private_ip_address_count,
        subnet_id,
    } = given;
    refuse(&[
        ("NetworkInterfaces.AssociateCarrierIpAddress", associate_carrier_ip_address.given()),
        ("NetworkInterfaces.ConnectionTrackingSpecification", connection_tracking_specification.given()),
        ("NetworkInterfaces.DeviceIndex", device_index.is_some_and(|index| index != 0)),
        ("NetworkInterfaces.EnaQueueCount", ena_queue_count.given()),
        ("NetworkInterfaces.EnaSrdSpecification", ena_srd_specification.given()),
        ("NetworkInterfaces.Ipv4PrefixCount", ipv4_prefix_count.given()),
        ("NetworkInterfaces.Ipv4Prefixes", ipv4_prefixes.given()),
        ("NetworkInterfaces.Ipv6AddressCount", ipv6_address_count.is_some_and(|count| count != 0)),
        ("NetworkInterfaces.Ipv6Addresses", ipv6_addresses.given()),
        ("NetworkInterfaces.Ipv6PrefixCount", ipv6_prefix_count.given()),
        ("NetworkInterfaces.Ipv6Prefixes", ipv6_prefixes.given()),
        ("NetworkInterfaces.NetworkInterfaceId", network_interface_id.given()),
        ("NetworkInterfaces.PrimaryIpv6", primary_ipv6.given()),
        ("NetworkInterfaces.PrivateIpAddresses", private_ip_addresses.given()),
        (
            "NetworkInterfaces.SecondaryPrivateIpAddressCount",
            secondary_private_ip_address_count.is_some_and(|count| count != 0),
        ),
    ])?;
    Ok(LaunchSpec {
        subnet: subnet_id.filter(|id| !id.is_empty()),
        security_groups: groups.unwrap_or_default(),
        private_address: private_ip_address
            .filter(|text| !text.is_empty())
            .map(|text| address(&text))
            .transpose()?,
        ..LaunchSpec::default()
    })
}
