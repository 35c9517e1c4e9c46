//! Subnets. Follows <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSubnets.html>.

use super::filter::{Filters, Values};
use super::{all_found, dry_run, page, tags};
use crate::api::Call;
use longshore_ec2 as ec2;
use longshore_engine::View;
use longshore_engine::placement::{RESERVED_FIRST, RESERVED_LAST};
use longshore_model::vpc::Subnet;
use longshore_wire::Fault;

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
        "default-for-az" | "defaultForAz" | "map-public-ip-on-launch" => subnet.is_default.to_string(),
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
        map_public_ip_on_launch: Some(subnet.is_default),
        owner_id: Some(subnet.scope.account.to_string()),
        state: Some(ec2::SubnetState::Available),
        subnet_arn: Some(arn(subnet)),
        subnet_id: Some(subnet.id.clone()),
        tags: tags(&subnet.tags),
        vpc_id: Some(subnet.vpc.clone()),
        ..ec2::Subnet::default()
    }
}
