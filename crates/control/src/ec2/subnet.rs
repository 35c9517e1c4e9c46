//! Subnets. Follows <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSubnets.html>.

use super::filter::{Filters, Values};
use super::{all_found, dry_run, needed, page, refuse, refused, tag, vpc};
use crate::api::Call;
use crate::context::RandomIds;
use crate::refuse::Given;
use longshore_ec2 as ec2;
use longshore_engine::placement::{RESERVED_FIRST, RESERVED_LAST};
use longshore_engine::{View, default_vpc};
use longshore_model::id::IdSource;
use longshore_model::vpc::Subnet;
use longshore_model::{Record, Scope, Tags};
use longshore_wire::Fault;
use std::sync::Arc;

const FILTERS: [&str; 16] = [
    "availability-zone",
    "availability-zone-id",
    "availabilityZone",
    "availabilityZoneId",
    "available-ip-address-count",
    "cidr",
    "cidr-block",
    "cidrBlock",
    "default-for-az",
    "defaultForAz",
    "map-public-ip-on-launch",
    "owner-id",
    "state",
    "subnet-arn",
    "subnet-id",
    "vpc-id",
];

pub fn find<'a>(view: &'a View, scope: &Scope, id: &str) -> Result<&'a Arc<Subnet>, Fault> {
    let missing = || refused("InvalidSubnetID.NotFound", format!("The subnet ID '{id}' does not exist"));
    view.subnets.get(&Subnet::key_of(scope, id)).ok_or_else(missing)
}

pub async fn create(call: Call, request: ec2::CreateSubnetRequest) -> Result<ec2::CreateSubnetResult, Fault> {
    let ec2::CreateSubnetRequest {
        tag_specifications,
        availability_zone,
        availability_zone_id,
        cidr_block,
        ipv6_cidr_block,
        outpost_arn,
        ipv6_native,
        ipv4_ipam_pool_id,
        ipv4_netmask_length,
        ipv6_ipam_pool_id,
        ipv6_netmask_length,
        vpc_id,
        dry_run: dry,
    } = request;
    dry_run(dry)?;
    refuse(&[
        ("Ipv6CidrBlock", ipv6_cidr_block.given()),
        ("OutpostArn", outpost_arn.given()),
        ("Ipv6Native", ipv6_native.given()),
        ("Ipv4IpamPoolId", ipv4_ipam_pool_id.given()),
        ("Ipv4NetmaskLength", ipv4_netmask_length.given()),
        ("Ipv6IpamPoolId", ipv6_ipam_pool_id.given()),
        ("Ipv6NetmaskLength", ipv6_netmask_length.given()),
    ])?;
    let given = cidr_block
        .ok_or_else(|| refused("MissingParameter", "The request must contain the parameter cidrBlock"))?;
    let cidr = vpc::parse_cidr("cidrBlock", &given)?;
    let (zone, zone_id) = zone(call.scope(), availability_zone, availability_zone_id)?;
    let tags: Tags = tag::of_new(tag_specifications, ec2::ResourceType::Subnet)?;
    let made = call
        .context
        .commit::<_, Fault, _>(|snapshot, transaction| {
            let view = &snapshot.view;
            let vpc = vpc::find(view, call.scope(), &vpc_id)?;
            if !vpc.cidr.covers(cidr) || cidr.prefix() > 28 {
                return Err(refused("InvalidSubnet.Range", format!("The CIDR '{given}' is invalid.")));
            }
            let mut others = view.subnets.of(call.scope()).filter(|other| other.vpc == vpc_id);
            if others.any(|other| other.cidr.overlaps(cidr)) {
                let message = format!("The CIDR '{given}' conflicts with another subnet");
                return Err(refused("InvalidSubnet.Conflict", message));
            }
            let made = Subnet {
                scope: call.scope().clone(),
                id: RandomIds.ec2("subnet"),
                vpc: vpc_id.clone(),
                network: vpc.network.clone(),
                cidr,
                availability_zone: zone.clone(),
                availability_zone_id: zone_id.clone(),
                is_default: false,
                map_public_ip: false,
                tags: tags.clone(),
            };
            transaction.create(&made);
            // So that of two that overlap the second is refused, and the VPC is not deleted meanwhile.
            transaction.update(&**vpc);
            Ok(made)
        })
        .await?;
    Ok(ec2::CreateSubnetResult { subnet: Some(render(&call.context.view(), &made)) })
}

/// The zone that is named by its name or id, or the first one.
fn zone(scope: &Scope, name: Option<String>, id: Option<String>) -> Result<(String, String), Fault> {
    let zones = scope.availability_zones();
    let ids: Vec<String> = (0..zones.len()).map(|index| default_vpc::zone_id(&scope.region, index)).collect();
    let all = zones.iter().cloned().zip(ids);
    let mut wanted = all.filter(|(zone, zone_id)| {
        name.as_ref().is_none_or(|n| n == zone) && id.as_ref().is_none_or(|i| i == zone_id)
    });
    wanted.next().ok_or_else(|| {
        let given = name.as_ref().or(id.as_ref()).cloned().unwrap_or_default();
        refused(
            "InvalidParameterValue",
            format!(
                "Value ({given}) for parameter availabilityZone is invalid. Subnets can currently only be created in the \
                 following availability zones: {}.",
                zones.join(", ")
            ),
        )
    })
}

pub async fn delete(call: Call, request: ec2::DeleteSubnetRequest) -> Result<(), Fault> {
    let ec2::DeleteSubnetRequest { subnet_id: id, dry_run: dry } = request;
    dry_run(dry)?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let present = find(view, call.scope(), &id)?;
        if view.addresses_used(&id) > 0 {
            return Err(needed("subnet", &id));
        }
        for table in view.route_tables.of(call.scope()) {
            if table.associations.iter().any(|association| association.subnet == id) {
                let mut next = (**table).clone();
                next.associations.retain(|association| association.subnet != id);
                transaction.update(&next);
            }
        }
        transaction.delete(present.key());
        Ok(())
    });
    commit.await
}

pub async fn modify_attribute(call: Call, request: ec2::ModifySubnetAttributeRequest) -> Result<(), Fault> {
    let ec2::ModifySubnetAttributeRequest {
        assign_ipv6_address_on_creation,
        map_public_ip_on_launch,
        subnet_id,
        map_customer_owned_ip_on_launch,
        customer_owned_ipv4_pool,
        enable_dns64,
        private_dns_hostname_type_on_launch,
        enable_resource_name_dns_a_record_on_launch,
        enable_resource_name_dns_aaaa_record_on_launch,
        enable_lni_at_device_index,
        disable_lni_at_device_index,
    } = request;
    let value = |given: Option<ec2::AttributeBooleanValue>| given.and_then(|given| given.value);
    let hostname = private_dns_hostname_type_on_launch;
    refuse(&[
        ("AssignIpv6AddressOnCreation", value(assign_ipv6_address_on_creation).given()),
        ("MapCustomerOwnedIpOnLaunch", value(map_customer_owned_ip_on_launch).given()),
        ("CustomerOwnedIpv4Pool", customer_owned_ipv4_pool.given()),
        ("EnableDns64", value(enable_dns64).given()),
        ("PrivateDnsHostnameTypeOnLaunch", hostname.is_some_and(|kind| kind != ec2::HostnameType::IpName)),
        ("EnableResourceNameDnsARecordOnLaunch", value(enable_resource_name_dns_a_record_on_launch).given()),
        (
            "EnableResourceNameDnsAAAARecordOnLaunch",
            value(enable_resource_name_dns_aaaa_record_on_launch).given(),
        ),
        ("EnableLniAtDeviceIndex", enable_lni_at_device_index.given()),
        ("DisableLniAtDeviceIndex", value(disable_lni_at_device_index).given()),
    ])?;
    let map_public_ip = value(map_public_ip_on_launch);
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let present = find(&snapshot.view, call.scope(), &subnet_id)?;
        if let Some(map_public_ip) = map_public_ip {
            transaction.update(&Subnet { map_public_ip, ..(**present).clone() });
        }
        Ok(())
    });
    commit.await
}

pub async fn describe(
    call: Call,
    request: ec2::DescribeSubnetsRequest,
) -> Result<ec2::DescribeSubnetsResult, Fault> {
    let ec2::DescribeSubnetsRequest { dry_run: dry, filters, max_results, next_token, subnet_ids } = request;
    dry_run(dry)?;
    let filters = Filters::parse(filters, |name| FILTERS.contains(&name))?;
    let ids = subnet_ids.unwrap_or_default();
    let view = call.context.view();
    let all = || view.subnets.of(call.scope());
    all_found(
        &ids,
        |id| view.subnets.get(&Subnet::key_of(call.scope(), id)).is_some(),
        "InvalidSubnetID.NotFound",
        "subnet",
    )?;
    let wanted = |subnet: &Subnet| {
        (ids.is_empty() || ids.contains(&subnet.id))
            && filters.pass(&subnet.tags, |name| values(&view, subnet, name))
    };
    let mut found: Vec<_> = all().filter(|subnet| wanted(subnet)).collect();
    found.sort_by_key(|subnet| (&subnet.availability_zone, subnet.cidr));
    let found = found.into_iter().map(|subnet| render(&view, subnet)).collect();
    let (subnets, next_token) = page(found, max_results, next_token.as_deref())?;
    Ok(ec2::DescribeSubnetsResult { subnets: Some(subnets), next_token })
}

fn values(view: &View, subnet: &Subnet, filter: &str) -> Values {
    let value = match filter {
        "availability-zone" | "availabilityZone" => subnet.availability_zone.clone(),
        "availability-zone-id" | "availabilityZoneId" => subnet.availability_zone_id.clone(),
        "available-ip-address-count" => available(view, subnet).to_string(),
        "cidr" | "cidr-block" | "cidrBlock" => subnet.cidr.to_string(),
        "default-for-az" | "defaultForAz" => subnet.is_default.to_string(),
        "map-public-ip-on-launch" => subnet.map_public_ip.to_string(),
        "owner-id" => subnet.scope.account.to_string(),
        "state" => "available".to_owned(),
        "subnet-arn" => arn(subnet),
        "subnet-id" => subnet.id.clone(),
        "vpc-id" => subnet.vpc.clone(),
        _ => return None,
    };
    Some(vec![value])
}

fn available(view: &View, subnet: &Subnet) -> u64 {
    subnet.cidr.size().saturating_sub(RESERVED_FIRST + RESERVED_LAST + view.addresses_used(&subnet.id))
}

fn arn(subnet: &Subnet) -> String {
    format!("arn:aws:ec2:{}:{}:subnet/{}", subnet.scope.region, subnet.scope.account, subnet.id)
}

fn render(view: &View, subnet: &Subnet) -> ec2::Subnet {
    ec2::Subnet {
        assign_ipv6_address_on_creation: Some(false),
        availability_zone: Some(subnet.availability_zone.clone()),
        availability_zone_id: Some(subnet.availability_zone_id.clone()),
        available_ip_address_count: i32::try_from(available(view, subnet)).ok(),
        cidr_block: Some(subnet.cidr.to_string()),
        default_for_az: Some(subnet.is_default),
        enable_dns64: Some(false),
        ipv6_native: Some(false),
        map_customer_owned_ip_on_launch: Some(false),
        map_public_ip_on_launch: Some(subnet.map_public_ip),
        owner_id: Some(subnet.scope.account.to_string()),
        state: Some(ec2::SubnetState::Available),
        subnet_arn: Some(arn(subnet)),
        subnet_id: Some(subnet.id.clone()),
        tags: tag::render(&subnet.tags),
        vpc_id: Some(subnet.vpc.clone()),
        ..ec2::Subnet::default()
    }
}
