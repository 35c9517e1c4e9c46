//! Amazon EC2, the part that tasks and their instances need: one file per resource.

mod availability_zone;
mod filter;
mod image;
pub mod instance;
mod internet_gateway;
pub mod launch_template;
mod network_acl;
mod network_interface;
mod region;
mod route_table;
mod security_group;
mod subnet;
mod tag;
mod vpc;

use crate::api::Routes;
use crate::refuse::unsupported;
use longshore_ec2 as ec2;
use longshore_ec2::operations as op;
use longshore_wire::Fault;

pub fn routes() -> Routes {
    Routes::new(&ec2::SERVICE)
        .on::<op::DescribeAvailabilityZones, _, _, _>(availability_zone::describe)
        .on::<op::DescribeNetworkInterfaces, _, _, _>(network_interface::describe)
        .on::<op::DescribeSecurityGroups, _, _, _>(security_group::describe)
        .on::<op::DescribeSubnets, _, _, _>(subnet::describe)
        .on::<op::DescribeVpcs, _, _, _>(vpc::describe)
        .on::<op::CreateVpc, _, _, _>(vpc::create)
        .on::<op::DeleteVpc, _, _, _>(vpc::delete)
        .on::<op::DescribeVpcAttribute, _, _, _>(vpc::describe_attribute)
        .on::<op::ModifyVpcAttribute, _, _, _>(vpc::modify_attribute)
        .on::<op::CreateSubnet, _, _, _>(subnet::create)
        .on::<op::DeleteSubnet, _, _, _>(subnet::delete)
        .on::<op::ModifySubnetAttribute, _, _, _>(subnet::modify_attribute)
        .on::<op::CreateInternetGateway, _, _, _>(internet_gateway::create)
        .on::<op::AttachInternetGateway, _, _, _>(internet_gateway::attach)
        .on::<op::DetachInternetGateway, _, _, _>(internet_gateway::detach)
        .on::<op::DeleteInternetGateway, _, _, _>(internet_gateway::delete)
        .on::<op::DescribeInternetGateways, _, _, _>(internet_gateway::describe)
        .on::<op::CreateRouteTable, _, _, _>(route_table::create)
        .on::<op::DeleteRouteTable, _, _, _>(route_table::delete)
        .on::<op::DescribeRouteTables, _, _, _>(route_table::describe)
        .on::<op::CreateRoute, _, _, _>(route_table::create_route)
        .on::<op::ReplaceRoute, _, _, _>(route_table::replace_route)
        .on::<op::DeleteRoute, _, _, _>(route_table::delete_route)
        .on::<op::AssociateRouteTable, _, _, _>(route_table::associate)
        .on::<op::DisassociateRouteTable, _, _, _>(route_table::disassociate)
        .on::<op::ReplaceRouteTableAssociation, _, _, _>(route_table::replace_association)
        .on::<op::CreateSecurityGroup, _, _, _>(security_group::create)
        .on::<op::DeleteSecurityGroup, _, _, _>(security_group::delete)
        .on::<op::AuthorizeSecurityGroupIngress, _, _, _>(security_group::authorize_ingress)
        .on::<op::AuthorizeSecurityGroupEgress, _, _, _>(security_group::authorize_egress)
        .on::<op::RevokeSecurityGroupIngress, _, _, _>(security_group::revoke_ingress)
        .on::<op::RevokeSecurityGroupEgress, _, _, _>(security_group::revoke_egress)
        .on::<op::DescribeSecurityGroupRules, _, _, _>(security_group::describe_rules)
        .on::<op::ModifySecurityGroupRules, _, _, _>(security_group::modify_rules)
        .on::<op::UpdateSecurityGroupRuleDescriptionsIngress, _, _, _>(security_group::describe_ingress_anew)
        .on::<op::UpdateSecurityGroupRuleDescriptionsEgress, _, _, _>(security_group::describe_egress_anew)
        .on::<op::DescribeNetworkAcls, _, _, _>(network_acl::describe)
        .on::<op::CreateTags, _, _, _>(tag::create)
        .on::<op::DeleteTags, _, _, _>(tag::delete)
        .on::<op::RunInstances, _, _, _>(instance::run)
        .on::<op::TerminateInstances, _, _, _>(instance::terminate)
        .on::<op::DescribeInstances, _, _, _>(instance::describe)
        .on::<op::DescribeInstanceStatus, _, _, _>(instance::describe_status)
        .on::<op::DescribeImages, _, _, _>(image::describe)
        .on::<op::CreateLaunchTemplate, _, _, _>(launch_template::create)
        .on::<op::CreateLaunchTemplateVersion, _, _, _>(launch_template::create_version)
        .on::<op::DeleteLaunchTemplate, _, _, _>(launch_template::delete)
        .on::<op::ModifyLaunchTemplate, _, _, _>(launch_template::modify)
        .on::<op::DescribeLaunchTemplates, _, _, _>(launch_template::describe)
        .on::<op::DescribeLaunchTemplateVersions, _, _, _>(launch_template::describe_versions)
        .on::<op::DescribeRegions, _, _, _>(region::describe)
}

/// `DryRun` answers with an error that says whether the call would have been allowed.
fn dry_run(dry_run: Option<bool>) -> Result<(), Fault> {
    if dry_run != Some(true) {
        return Ok(());
    }
    Err(Fault::sender("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
        .with_status(412))
}

/// Describe calls page only when they are asked to, and then by position: their lists are short and stable.
fn page<T>(
    mut all: Vec<T>,
    max_results: Option<i32>,
    token: Option<&str>,
) -> Result<(Vec<T>, Option<String>), Fault> {
    let start: usize = match token.filter(|token| !token.is_empty()) {
        None => 0,
        Some(token) => token
            .parse()
            .map_err(|_| Fault::sender("InvalidNextToken", format!("The token '{token}' is invalid.")))?,
    };
    let size = match max_results {
        None => usize::MAX,
        Some(size) => {
            usize::try_from(size).ok().filter(|size| (5..=1000).contains(size)).ok_or_else(|| {
                let message = format!(
                    "Value ( {size} ) for parameter maxResults is invalid. Expecting a value from 5 to 1000."
                );
                Fault::sender("InvalidParameterValue", message)
            })?
        }
    };
    let end = start.saturating_add(size);
    let next = (end < all.len()).then(|| end.to_string());
    all.truncate(end);
    Ok((all.into_iter().skip(start).collect(), next))
}

/// The resources that were named by id must all be there.
fn all_found(wanted: &[String], exists: impl Fn(&str) -> bool, code: &str, what: &str) -> Result<(), Fault> {
    match wanted.iter().find(|id| !exists(id)) {
        None => Ok(()),
        Some(missing) => Err(Fault::sender(code, format!("The {what} ID '{missing}' does not exist"))),
    }
}

/// An error of the caller.
fn refused(code: &str, message: impl Into<String>) -> Fault {
    Fault::sender(code, message.into())
}

/// Something that others still need.
fn needed(what: &str, id: &str) -> Fault {
    refused("DependencyViolation", format!("The {what} '{id}' has dependencies and cannot be deleted."))
}

/// Fields that have no effect yet.
fn refuse(fields: &[(&str, bool)]) -> Result<(), Fault> {
    unsupported(fields).map_err(|message| refused("InvalidParameterValue", message))
}
