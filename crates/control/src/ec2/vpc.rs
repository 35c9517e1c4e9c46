//! VPCs. Follows <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeVpcs.html>.

use super::filter::{Filters, Values};
use super::{all_found, dry_run, needed, page, refuse, refused, tag};
use crate::api::Call;
use crate::context::RandomIds;
use crate::refuse::Given;
use longshore_ec2 as ec2;
use longshore_engine::{View, default_vpc};
use longshore_model::id::IdSource;
use longshore_model::vpc::{Cidr, Vpc};
use longshore_model::{Record, Scope};
use longshore_wire::Fault;
use std::sync::Arc;

const FILTERS: [&str; 8] = [
    "cidr",
    "cidr-block-association.cidr-block",
    "dhcp-options-id",
    "is-default",
    "isDefault",
    "owner-id",
    "state",
    "vpc-id",
];

pub fn find<'a>(view: &'a View, scope: &Scope, id: &str) -> Result<&'a Arc<Vpc>, Fault> {
    let missing = || refused("InvalidVpcID.NotFound", format!("The vpc ID '{id}' does not exist"));
    view.vpcs.get(&Vpc::key_of(scope, id)).ok_or_else(missing)
}

/// A block as requests give it, whose host bits EC2 clears.
pub fn parse_cidr(field: &str, given: &str) -> Result<Cidr, Fault> {
    let parsed = given.split_once('/').and_then(|(base, prefix)| {
        let prefix: u8 = prefix.parse().ok()?;
        Cidr::around(base.parse().ok()?, prefix).filter(|_| prefix <= 32)
    });
    parsed.ok_or_else(|| {
        let message =
            format!("Value ({given}) for parameter {field} is invalid. This is not a valid CIDR block.");
        refused("InvalidParameterValue", message)
    })
}

pub async fn create(call: Call, request: ec2::CreateVpcRequest) -> Result<ec2::CreateVpcResult, Fault> {
    let ec2::CreateVpcRequest {
        cidr_block,
        ipv6_pool,
        ipv6_cidr_block,
        ipv4_ipam_pool_id,
        ipv4_netmask_length,
        ipv6_ipam_pool_id,
        ipv6_netmask_length,
        ipv6_cidr_block_network_border_group,
        vpc_encryption_control,
        tag_specifications,
        dry_run: dry,
        instance_tenancy,
        amazon_provided_ipv6_cidr_block,
    } = request;
    dry_run(dry)?;
    refuse(&[
        ("Ipv6Pool", ipv6_pool.given()),
        ("Ipv6CidrBlock", ipv6_cidr_block.given()),
        ("Ipv4IpamPoolId", ipv4_ipam_pool_id.given()),
        ("Ipv4NetmaskLength", ipv4_netmask_length.given()),
        ("Ipv6IpamPoolId", ipv6_ipam_pool_id.given()),
        ("Ipv6NetmaskLength", ipv6_netmask_length.given()),
        ("Ipv6CidrBlockNetworkBorderGroup", ipv6_cidr_block_network_border_group.given()),
        ("VpcEncryptionControl", vpc_encryption_control.is_some()),
        ("AmazonProvidedIpv6CidrBlock", amazon_provided_ipv6_cidr_block.given()),
        ("InstanceTenancy", instance_tenancy.is_some_and(|tenancy| tenancy != ec2::Tenancy::Default)),
    ])?;
    let given = cidr_block
        .ok_or_else(|| refused("MissingParameter", "The request must contain the parameter cidrBlock"))?;
    let cidr = parse_cidr("cidrBlock", &given)?;
    if !(16..=28).contains(&cidr.prefix()) {
        return Err(refused("InvalidVpc.Range", format!("The CIDR '{given}' is invalid.")));
    }
    let scope = call.scope();
    let made = Vpc {
        scope: scope.clone(),
        id: RandomIds.ec2("vpc"),
        cidr,
        is_default: false,
        // One address has one holder in all VPCs, so that they can share machines.
        network: default_vpc::NETWORK.to_owned(),
        dhcp_options: RandomIds.ec2("dopt"),
        network_acl: RandomIds.ec2("acl"),
        dns_support: true,
        dns_hostnames: false,
        tags: tag::of_new(tag_specifications, ec2::ResourceType::Vpc)?,
    };
    let commit = call.context.commit::<_, Fault, _>(|_, transaction| {
        transaction.create(&made);
        transaction.create(&default_vpc::main_route_table(scope, &made.id, &mut RandomIds));
        transaction.create(&default_vpc::default_security_group(scope, &made.id, &mut RandomIds));
        Ok(())
    });
    commit.await?;
    Ok(ec2::CreateVpcResult { vpc: Some(render(&made)) })
}

pub async fn delete(call: Call, request: ec2::DeleteVpcRequest) -> Result<(), Fault> {
    let ec2::DeleteVpcRequest { vpc_id: id, dry_run: dry } = request;
    dry_run(dry)?;
    let scope = call.scope();
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let present = find(view, scope, &id)?;
        let groups: Vec<_> = view.security_groups.of(scope).filter(|group| group.vpc == id).collect();
        let tables: Vec<_> = view.route_tables.of(scope).filter(|table| table.vpc == id).collect();
        let is_used = view.subnets.of(scope).any(|subnet| subnet.vpc == id)
            || view.internet_gateways.of(scope).any(|gateway| gateway.vpc.as_ref() == Some(&id))
            || groups.iter().any(|group| group.name != "default")
            || tables.iter().any(|table| table.main.is_none());
        if is_used {
            return Err(needed("vpc", &id));
        }
        groups.iter().for_each(|group| transaction.delete(group.key()));
        tables.iter().for_each(|table| transaction.delete(table.key()));
        transaction.delete(present.key());
        Ok(())
    });
    commit.await
}

pub async fn describe_attribute(
    call: Call,
    request: ec2::DescribeVpcAttributeRequest,
) -> Result<ec2::DescribeVpcAttributeResult, Fault> {
    let ec2::DescribeVpcAttributeRequest { attribute, vpc_id, dry_run: dry } = request;
    dry_run(dry)?;
    let view = call.context.view();
    let vpc = find(&view, call.scope(), &vpc_id)?;
    let shown = |wanted: ec2::VpcAttributeName, value: bool| {
        (attribute == wanted).then_some(ec2::AttributeBooleanValue { value: Some(value) })
    };
    Ok(ec2::DescribeVpcAttributeResult {
        enable_dns_hostnames: shown(ec2::VpcAttributeName::EnableDnsHostnames, vpc.dns_hostnames),
        enable_dns_support: shown(ec2::VpcAttributeName::EnableDnsSupport, vpc.dns_support),
        enable_network_address_usage_metrics: shown(
            ec2::VpcAttributeName::EnableNetworkAddressUsageMetrics,
            false,
        ),
        vpc_id: Some(vpc_id),
    })
}

pub async fn modify_attribute(call: Call, request: ec2::ModifyVpcAttributeRequest) -> Result<(), Fault> {
    let ec2::ModifyVpcAttributeRequest {
        enable_dns_hostnames,
        enable_dns_support,
        vpc_id,
        enable_network_address_usage_metrics: metrics,
    } = request;
    let value = |given: Option<ec2::AttributeBooleanValue>| given.and_then(|given| given.value);
    refuse(&[("EnableNetworkAddressUsageMetrics", value(metrics).given())])?;
    let (hostnames, support) = (value(enable_dns_hostnames), value(enable_dns_support));
    if hostnames.is_some() && support.is_some() {
        let message = "Fields for multiple attribute types specified: enableDnsSupport, enableDnsHostnames";
        return Err(refused("InvalidParameterCombination", message));
    }
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let present = find(&snapshot.view, call.scope(), &vpc_id)?;
        transaction.update(&Vpc {
            dns_hostnames: hostnames.unwrap_or(present.dns_hostnames),
            dns_support: support.unwrap_or(present.dns_support),
            ..(**present).clone()
        });
        Ok(())
    });
    commit.await
}

pub async fn describe(
    call: Call,
    request: ec2::DescribeVpcsRequest,
) -> Result<ec2::DescribeVpcsResult, Fault> {
    let ec2::DescribeVpcsRequest { dry_run: dry, filters, max_results, next_token, vpc_ids } = request;
    dry_run(dry)?;
    let filters = Filters::parse(filters, |name| FILTERS.contains(&name))?;
    let ids = vpc_ids.unwrap_or_default();
    let view = call.context.view();
    all_found(
        &ids,
        |id| view.vpcs.get(&Vpc::key_of(call.scope(), id)).is_some(),
        "InvalidVpcID.NotFound",
        "vpc",
    )?;
    let wanted = |vpc: &Vpc| {
        (ids.is_empty() || ids.contains(&vpc.id)) && filters.pass(&vpc.tags, |name| values(vpc, name))
    };
    let found = view.vpcs.of(call.scope()).filter(|vpc| wanted(vpc)).map(|vpc| render(vpc)).collect();
    let (vpcs, next_token) = page(found, max_results, next_token.as_deref())?;
    Ok(ec2::DescribeVpcsResult { vpcs: Some(vpcs), next_token })
}

fn values(vpc: &Vpc, filter: &str) -> Values {
    let value = match filter {
        "cidr" | "cidr-block-association.cidr-block" => vpc.cidr.to_string(),
        "dhcp-options-id" => vpc.dhcp_options.clone(),
        "is-default" | "isDefault" => vpc.is_default.to_string(),
        "owner-id" => vpc.scope.account.to_string(),
        "state" => "available".to_owned(),
        "vpc-id" => vpc.id.clone(),
        _ => return None,
    };
    Some(vec![value])
}

fn render(vpc: &Vpc) -> ec2::Vpc {
    let association = ec2::VpcCidrBlockAssociation {
        association_id: Some(vpc.id.replacen("vpc-", "vpc-cidr-assoc-", 1)),
        cidr_block: Some(vpc.cidr.to_string()),
        cidr_block_state: Some(ec2::VpcCidrBlockState {
            state: Some(ec2::VpcCidrBlockStateCode::Associated),
            status_message: None,
        }),
    };
    ec2::Vpc {
        cidr_block: Some(vpc.cidr.to_string()),
        cidr_block_association_set: Some(vec![association]),
        dhcp_options_id: Some(vpc.dhcp_options.clone()),
        instance_tenancy: Some(ec2::Tenancy::Default),
        is_default: Some(vpc.is_default),
        owner_id: Some(vpc.scope.account.to_string()),
        state: Some(ec2::VpcState::Available),
        tags: tag::render(&vpc.tags),
        vpc_id: Some(vpc.id.clone()),
        ..ec2::Vpc::default()
    }
}
