//! The network ACL that every VPC has, which lets everything pass.
//! Follows <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeNetworkAcls.html>.

use super::filter::{Filters, Values};
use super::{all_found, dry_run, page};
use crate::api::Call;
use longshore_ec2 as ec2;
use longshore_engine::View;
use longshore_model::Tags;
use longshore_model::vpc::{Subnet, Vpc};
use longshore_wire::Fault;
use std::sync::Arc;

const FILTERS: [&str; 5] = ["association.subnet-id", "default", "network-acl-id", "owner-id", "vpc-id"];
/// The number of the rule that holds where no other one does.
const LAST: i32 = 32_767;

pub async fn describe(
    call: Call,
    request: ec2::DescribeNetworkAclsRequest,
) -> Result<ec2::DescribeNetworkAclsResult, Fault> {
    let ec2::DescribeNetworkAclsRequest { next_token, max_results, dry_run: dry, network_acl_ids, filters } =
        request;
    dry_run(dry)?;
    let filters = Filters::parse(filters, |name| FILTERS.contains(&name))?;
    let ids = network_acl_ids.unwrap_or_default();
    let view = call.context.view();
    let all = || view.vpcs.of(call.scope()).filter(|vpc| !vpc.network_acl.is_empty());
    let is_there = |id: &str| all().any(|vpc| vpc.network_acl == id);
    all_found(&ids, is_there, "InvalidNetworkAclID.NotFound", "networkAcl")?;
    let wanted = |vpc: &Vpc| {
        (ids.is_empty() || ids.contains(&vpc.network_acl))
            && filters.pass(&Tags::default(), |filter| values(&view, vpc, filter))
    };
    let found = all().filter(|vpc| wanted(vpc)).map(|vpc| render(&view, vpc)).collect();
    let (network_acls, next_token) = page(found, max_results, next_token.as_deref())?;
    Ok(ec2::DescribeNetworkAclsResult { network_acls: Some(network_acls), next_token })
}

fn subnets<'a>(view: &'a View, vpc: &'a Vpc) -> impl Iterator<Item = &'a Arc<Subnet>> {
    view.subnets.of(&vpc.scope).filter(|subnet| subnet.vpc == vpc.id)
}

fn values(view: &View, vpc: &Vpc, filter: &str) -> Values {
    Some(match filter {
        "association.subnet-id" => subnets(view, vpc).map(|subnet| subnet.id.clone()).collect(),
        "default" => vec!["true".to_owned()],
        "network-acl-id" => vec![vpc.network_acl.clone()],
        "owner-id" => vec![vpc.scope.account.to_string()],
        "vpc-id" => vec![vpc.id.clone()],
        _ => return None,
    })
}

fn render(view: &View, vpc: &Vpc) -> ec2::NetworkAcl {
    let entry = |egress: bool, number: i32, action: ec2::RuleAction| ec2::NetworkAclEntry {
        cidr_block: Some("0.0.0.0/0".to_owned()),
        egress: Some(egress),
        protocol: Some("-1".to_owned()),
        rule_action: Some(action),
        rule_number: Some(number),
        ..ec2::NetworkAclEntry::default()
    };
    let entries = [true, false].into_iter().flat_map(|egress| {
        [entry(egress, 100, ec2::RuleAction::Allow), entry(egress, LAST, ec2::RuleAction::Deny)]
    });
    let association = |subnet: &Arc<Subnet>| ec2::NetworkAclAssociation {
        network_acl_association_id: Some(subnet.id.replacen("subnet-", "aclassoc-", 1)),
        network_acl_id: Some(vpc.network_acl.clone()),
        subnet_id: Some(subnet.id.clone()),
    };
    ec2::NetworkAcl {
        associations: Some(subnets(view, vpc).map(association).collect()),
        entries: Some(entries.collect()),
        is_default: Some(true),
        network_acl_id: Some(vpc.network_acl.clone()),
        owner_id: Some(vpc.scope.account.to_string()),
        tags: None,
        vpc_id: Some(vpc.id.clone()),
    }
}
