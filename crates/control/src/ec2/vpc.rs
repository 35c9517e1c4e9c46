//! VPCs. Follows <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeVpcs.html>.

use super::filter::{Filters, Values};
use super::{all_found, dry_run, page, tags};
use crate::api::Call;
use longshore_ec2 as ec2;
use longshore_model::vpc::Vpc;
use longshore_wire::Fault;

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
        tags: tags(&vpc.tags),
        vpc_id: Some(vpc.id.clone()),
        ..ec2::Vpc::default()
    }
}
