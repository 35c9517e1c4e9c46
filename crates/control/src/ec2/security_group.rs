//! Security groups. Follows <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSecurityGroups.html>.

use super::filter::{Filters, Values};
use super::{dry_run, page, tags};
use crate::api::Call;
use longshore_ec2 as ec2;
use longshore_model::vpc::{Peer, Rule, SecurityGroup};
use longshore_wire::Fault;

const FILTERS: [&str; 5] = ["description", "group-id", "group-name", "owner-id", "vpc-id"];

pub async fn describe(
    call: Call,
    request: ec2::DescribeSecurityGroupsRequest,
) -> Result<ec2::DescribeSecurityGroupsResult, Fault> {
    let ec2::DescribeSecurityGroupsRequest {
        dry_run: dry,
        filters,
        group_ids,
        group_names,
        max_results,
        next_token,
    } = request;
    dry_run(dry)?;
    let filters = Filters::parse(filters, |name| FILTERS.contains(&name))?;
    let (ids, names) = (group_ids.unwrap_or_default(), group_names.unwrap_or_default());
    let view = call.context.view();
    let all = || view.security_groups.of(call.scope());
    if let Some(missing) = ids.iter().find(|id| !all().any(|group| group.id == **id)) {
        return Err(not_found(missing));
    }
    if let Some(missing) = names.iter().find(|name| !all().any(|group| group.name == **name)) {
        return Err(not_found(missing));
    }
    let wanted = |group: &SecurityGroup| {
        (ids.is_empty() || ids.contains(&group.id))
            && (names.is_empty() || names.contains(&group.name))
            && filters.pass(&group.tags, |name| values(group, name))
    };
    let found = all().filter(|group| wanted(group)).map(|group| render(group)).collect();
    let (groups, next_token) = page(found, max_results, next_token.as_deref())?;
    Ok(ec2::DescribeSecurityGroupsResult { security_groups: Some(groups), next_token })
}

fn not_found(group: &str) -> Fault {
    Fault::sender("InvalidGroup.NotFound", format!("The security group '{group}' does not exist"))
}

fn values(group: &SecurityGroup, filter: &str) -> Values {
    let value = match filter {
        "description" => group.description.clone(),
        "group-id" => group.id.clone(),
        "group-name" => group.name.clone(),
        "owner-id" => group.scope.account.to_string(),
        "vpc-id" => group.vpc.clone(),
        _ => return None,
    };
    Some(vec![value])
}

fn render(group: &SecurityGroup) -> ec2::SecurityGroup {
    let scope = &group.scope;
    ec2::SecurityGroup {
        description: Some(group.description.clone()),
        group_id: Some(group.id.clone()),
        group_name: Some(group.name.clone()),
        ip_permissions: Some(group.ingress.iter().map(|rule| permission(group, rule)).collect()),
        ip_permissions_egress: Some(group.egress.iter().map(|rule| permission(group, rule)).collect()),
        owner_id: Some(scope.account.to_string()),
        security_group_arn: Some(format!(
            "arn:aws:ec2:{}:{}:security-group/{}",
            scope.region, scope.account, group.id
        )),
        tags: tags(&group.tags),
        vpc_id: Some(group.vpc.clone()),
    }
}

fn permission(group: &SecurityGroup, rule: &Rule) -> ec2::IpPermission {
    let (ranges, groups) = match &rule.peer {
        Peer::Cidr(cidr) => {
            (vec![ec2::IpRange { cidr_ip: Some(cidr.to_string()), description: None }], Vec::new())
        }
        Peer::SecurityGroup(id) => (
            Vec::new(),
            vec![ec2::UserIdGroupPair {
                group_id: Some(id.clone()),
                user_id: Some(group.scope.account.to_string()),
                ..ec2::UserIdGroupPair::default()
            }],
        ),
    };
    ec2::IpPermission {
        from_port: rule.ports.map(|(from, _)| from.into()),
        ip_protocol: Some(rule.protocol.clone()),
        ip_ranges: Some(ranges),
        ipv6_ranges: Some(Vec::new()),
        prefix_list_ids: Some(Vec::new()),
        to_port: rule.ports.map(|(_, to)| to.into()),
        user_id_group_pairs: Some(groups),
    }
}
