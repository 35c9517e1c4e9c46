//! Security groups. Follows <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSecurityGroups.html>.

mod permission;
mod rule;

pub use rule::{
    authorize_egress, authorize_ingress, describe as describe_rules, describe_egress_anew,
    describe_ingress_anew, modify as modify_rules, revoke_egress, revoke_ingress,
};

use super::filter::{Filters, Values};
use super::{dry_run, page, refused, tag, vpc};
use crate::api::Call;
use crate::context::RandomIds;
use longshore_ec2 as ec2;
use longshore_engine::{View, default_vpc};
use longshore_model::id::IdSource;
use longshore_model::vpc::{Cidr, Peer, Rule, SecurityGroup};
use longshore_model::{Record, Scope};
use longshore_wire::Fault;

const FILTERS: [&str; 5] = ["description", "group-id", "group-name", "owner-id", "vpc-id"];

const DEFAULT: &str = "default";
/// Of a name and of a description, in characters.
const LONGEST: usize = 255;

pub async fn create(
    call: Call,
    request: ec2::CreateSecurityGroupRequest,
) -> Result<ec2::CreateSecurityGroupResult, Fault> {
    let ec2::CreateSecurityGroupRequest { description, group_name, vpc_id, tag_specifications, dry_run: dry } =
        request;
    dry_run(dry)?;
    check_text("GroupDescription", &description)?;
    check_text("GroupName", &group_name)?;
    if group_name.starts_with("sg-") {
        let message = "invalid value for parameter groupName. Group names may not be in the format sg-*.";
        return Err(refused("InvalidParameterValue", message));
    }
    let tags = tag::of_new(tag_specifications, ec2::ResourceType::SecurityGroup)?;
    let made = call
        .context
        .commit::<_, Fault, _>(|snapshot, transaction| {
            let view = &snapshot.view;
            let mut all = view.vpcs.of(call.scope());
            let vpc = match vpc_id.as_ref().filter(|id| !id.is_empty()) {
                Some(id) => vpc::find(view, call.scope(), id)?,
                None => all.find(|vpc| vpc.is_default).ok_or_else(|| {
                    refused(
                        "VPCIdNotSpecified",
                        "No default VPC for this user. GroupName is only supported for it.",
                    )
                })?,
            };
            let mut others = view.security_groups.of(call.scope());
            if others.any(|other| other.vpc == vpc.id && other.name == group_name) {
                let message =
                    format!("The security group '{group_name}' already exists for VPC '{}'", vpc.id);
                return Err(refused("InvalidGroup.Duplicate", message));
            }
            let made = SecurityGroup {
                scope: call.scope().clone(),
                id: RandomIds.ec2("sg"),
                vpc: vpc.id.clone(),
                name: group_name.clone(),
                description: description.clone(),
                ingress: Vec::new(),
                egress: vec![default_vpc::all_of(Peer::Cidr(Cidr::ANY), &mut RandomIds)],
                tags: tags.clone(),
            };
            transaction.create(&made);
            // So that of two of one name the second is refused, and the VPC is not deleted meanwhile.
            transaction.update(&**vpc);
            Ok(made)
        })
        .await?;
    Ok(ec2::CreateSecurityGroupResult {
        group_id: Some(made.id.clone()),
        security_group_arn: Some(arn(&made)),
        tags: tag::render(&made.tags),
    })
}

fn check_text(field: &str, text: &str) -> Result<(), Fault> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || " ._-:/()#,@[]+=&;{}!$*".contains(c);
    if (1..=LONGEST).contains(&text.len()) && text.chars().all(is_allowed) {
        return Ok(());
    }
    Err(refused(
        "InvalidParameterValue",
        format!(
            "Value ({text}) for parameter {field} is invalid. Character sets beyond ASCII are not supported, and it must have \
             1 to {LONGEST} characters."
        ),
    ))
}

pub fn find<'a>(view: &'a View, scope: &Scope, id: &str) -> Result<&'a SecurityGroup, Fault> {
    permission::find_in(view, scope, None, Some(id), None)
}

pub async fn delete(
    call: Call,
    request: ec2::DeleteSecurityGroupRequest,
) -> Result<ec2::DeleteSecurityGroupResult, Fault> {
    let ec2::DeleteSecurityGroupRequest { group_id, group_name, dry_run: dry } = request;
    dry_run(dry)?;
    let scope = call.scope();
    let id = call
        .context
        .commit::<_, Fault, _>(|snapshot, transaction| {
            let view = &snapshot.view;
            let present = permission::find_in(view, scope, None, group_id.as_deref(), group_name.as_deref())?;
            let id = &present.id;
            if present.name == DEFAULT {
                let message =
                    format!("the specified group: \"{id}\" name: \"{DEFAULT}\" cannot be deleted by a user");
                return Err(refused("CannotDelete", message));
            }
            let names = |rule: &Rule| matches!(&rule.peer, Peer::SecurityGroup(other) if other == id);
            let mut others = view.security_groups.of(scope).filter(|other| other.id != *id);
            let is_named = others.any(|other| other.ingress.iter().chain(&other.egress).any(names));
            let mut interfaces = view.network_interfaces.iter();
            if is_named || interfaces.any(|interface| interface.security_groups.contains(id)) {
                return Err(refused("DependencyViolation", format!("resource {id} has a dependent object")));
            }
            transaction.delete(present.key());
            Ok(id.clone())
        })
        .await?;
    Ok(ec2::DeleteSecurityGroupResult { r#return: Some(true), group_id: Some(id) })
}

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

fn arn(group: &SecurityGroup) -> String {
    let scope = &group.scope;
    format!("arn:aws:ec2:{}:{}:security-group/{}", scope.region, scope.account, group.id)
}

fn render(group: &SecurityGroup) -> ec2::SecurityGroup {
    ec2::SecurityGroup {
        description: Some(group.description.clone()),
        group_id: Some(group.id.clone()),
        group_name: Some(group.name.clone()),
        ip_permissions: Some(permissions(group, &group.ingress)),
        ip_permissions_egress: Some(permissions(group, &group.egress)),
        owner_id: Some(group.scope.account.to_string()),
        security_group_arn: Some(arn(group)),
        tags: tag::render(&group.tags),
        vpc_id: Some(group.vpc.clone()),
    }
}

/// Rules of one protocol and the same ports are one permission.
fn permissions(group: &SecurityGroup, rules: &[Rule]) -> Vec<ec2::IpPermission> {
    let mut permissions: Vec<ec2::IpPermission> = Vec::new();
    for rule in rules {
        let (from, to) = (rule.ports.map(|(from, _)| from), rule.ports.map(|(_, to)| to));
        let same = |p: &&mut ec2::IpPermission| {
            p.ip_protocol.as_ref() == Some(&rule.protocol) && (p.from_port, p.to_port) == (from, to)
        };
        match permissions.iter_mut().find(same) {
            Some(permission) => add_peer(permission, group, rule),
            None => {
                let mut permission = ec2::IpPermission {
                    from_port: from,
                    ip_protocol: Some(rule.protocol.clone()),
                    ip_ranges: Some(Vec::new()),
                    ipv6_ranges: Some(Vec::new()),
                    prefix_list_ids: Some(Vec::new()),
                    to_port: to,
                    user_id_group_pairs: Some(Vec::new()),
                };
                add_peer(&mut permission, group, rule);
                permissions.push(permission);
            }
        }
    }
    permissions
}

fn add_peer(permission: &mut ec2::IpPermission, group: &SecurityGroup, rule: &Rule) {
    let description = rule.description.clone();
    match &rule.peer {
        Peer::Cidr(cidr) => {
            let range = ec2::IpRange { cidr_ip: Some(cidr.to_string()), description };
            permission.ip_ranges.get_or_insert_default().push(range);
        }
        Peer::Cidr6(cidr) => {
            let range = ec2::Ipv6Range { cidr_ipv6: Some(cidr.clone()), description };
            permission.ipv6_ranges.get_or_insert_default().push(range);
        }
        Peer::SecurityGroup(id) => {
            permission.user_id_group_pairs.get_or_insert_default().push(ec2::UserIdGroupPair {
                description,
                group_id: Some(id.clone()),
                user_id: Some(group.scope.account.to_string()),
                ..ec2::UserIdGroupPair::default()
            });
        }
    }
}
