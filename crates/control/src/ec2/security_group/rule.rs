//! The rules of security groups, one by one.
//! Follows <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_SecurityGroupRule.html>.

use super::super::filter::{Filters, Values};
use super::super::{dry_run as check_dry_run, page, refuse, refused, tag, vpc};
use super::find;
use super::permission::{Named, find_in, ipv6, is_same, ports, protocol, words};
use crate::api::Call;
use crate::refuse::Given;
use longshore_ec2 as ec2;
use longshore_engine::View;
use longshore_model::Tags;
use longshore_model::vpc::{Peer, Rule, SecurityGroup};
use longshore_wire::Fault;

const FILTERS: [&str; 2] = ["group-id", "security-group-rule-id"];
/// The most rules of a group in a direction.
const MOST: usize = 60;

/// Takes a request apart that names rules: what names them, and what else it has.
macro_rules! take_apart {
    ($named:ident, $request:ident: $shape:ident { $($rest:ident),* $(,)? }) => {
        let ec2::$shape {
            cidr_ip,
            from_port,
            to_port,
            ip_protocol,
            source_security_group_name,
            source_security_group_owner_id,
            ip_permissions,
            $($rest),*
        } = $request;
        let $named = Named {
            cidr_ip,
            from_port,
            to_port,
            ip_protocol,
            source_security_group_name,
            source_security_group_owner_id,
            ip_permissions,
        };
    };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    fn of(self, group: &mut SecurityGroup) -> &mut Vec<Rule> {
        match self {
            Self::Ingress => &mut group.ingress,
            Self::Egress => &mut group.egress,
        }
    }
}

/// A group as requests name it.
struct Group {
    id: Option<String>,
    name: Option<String>,
}

pub async fn authorize_ingress(
    call: Call,
    request: ec2::AuthorizeSecurityGroupIngressRequest,
) -> Result<ec2::AuthorizeSecurityGroupIngressResult, Fault> {
    take_apart!(named, request: AuthorizeSecurityGroupIngressRequest { group_id, group_name, tag_specifications, dry_run });
    check_dry_run(dry_run)?;
    let tags = tag::of_new(tag_specifications, ec2::ResourceType::SecurityGroupRule)?;
    let group = Group { id: group_id, name: group_name };
    let rules = authorize(&call, group, named, tags, Direction::Ingress).await?;
    Ok(ec2::AuthorizeSecurityGroupIngressResult { r#return: Some(true), security_group_rules: Some(rules) })
}

pub async fn authorize_egress(
    call: Call,
    request: ec2::AuthorizeSecurityGroupEgressRequest,
) -> Result<ec2::AuthorizeSecurityGroupEgressResult, Fault> {
    take_apart!(named, request: AuthorizeSecurityGroupEgressRequest { tag_specifications, dry_run, group_id });
    check_dry_run(dry_run)?;
    let tags = tag::of_new(tag_specifications, ec2::ResourceType::SecurityGroupRule)?;
    let group = Group { id: Some(group_id), name: None };
    let rules = authorize(&call, group, named, tags, Direction::Egress).await?;
    Ok(ec2::AuthorizeSecurityGroupEgressResult { r#return: Some(true), security_group_rules: Some(rules) })
}

async fn authorize(
    call: &Call,
    group: Group,
    named: Named,
    tags: Tags,
    direction: Direction,
) -> Result<Vec<ec2::SecurityGroupRule>, Fault> {
    let (changed, added) = call
        .context
        .commit::<_, Fault, _>(|snapshot, transaction| {
            let view = &snapshot.view;
            let present = find_in(view, call.scope(), None, group.id.as_deref(), group.name.as_deref())?;
            let mut added = named.rules(view, present)?;
            added.iter_mut().for_each(|rule| rule.tags.clone_from(&tags));
            if added.is_empty() {
                return Err(refused(
                    "MissingParameter",
                    "The request must contain the parameter ipPermissions",
                ));
            }
            let mut next = present.clone();
            let rules = direction.of(&mut next);
            for rule in &added {
                if rules.iter().any(|known| is_same(known, rule)) {
                    let message = format!("the specified rule \"{}\" already exists", words(rule));
                    return Err(refused("InvalidPermission.Duplicate", message));
                }
                rules.push(rule.clone());
            }
            if rules.len() > MOST {
                let message = "The maximum number of rules per security group has been reached.";
                return Err(refused("RulesPerSecurityGroupLimitExceeded", message));
            }
            transaction.update(&next);
            Ok((next, added))
        })
        .await?;
    Ok(added.iter().map(|rule| render(&changed, rule, direction)).collect())
}

pub async fn revoke_ingress(
    call: Call,
    request: ec2::RevokeSecurityGroupIngressRequest,
) -> Result<ec2::RevokeSecurityGroupIngressResult, Fault> {
    take_apart!(named, request: RevokeSecurityGroupIngressRequest { group_id, group_name, security_group_rule_ids, dry_run });
    check_dry_run(dry_run)?;
    let group = Group { id: group_id, name: group_name };
    let ids = security_group_rule_ids.unwrap_or_default();
    let revoked = revoke(&call, group, named, &ids, Direction::Ingress).await?;
    Ok(ec2::RevokeSecurityGroupIngressResult {
        r#return: Some(true),
        unknown_ip_permissions: None,
        revoked_security_group_rules: Some(revoked),
    })
}

pub async fn revoke_egress(
    call: Call,
    request: ec2::RevokeSecurityGroupEgressRequest,
) -> Result<ec2::RevokeSecurityGroupEgressResult, Fault> {
    take_apart!(named, request: RevokeSecurityGroupEgressRequest { security_group_rule_ids, dry_run, group_id });
    check_dry_run(dry_run)?;
    let group = Group { id: Some(group_id), name: None };
    let ids = security_group_rule_ids.unwrap_or_default();
    let revoked = revoke(&call, group, named, &ids, Direction::Egress).await?;
    Ok(ec2::RevokeSecurityGroupEgressResult {
        r#return: Some(true),
        unknown_ip_permissions: None,
        revoked_security_group_rules: Some(revoked),
    })
}

async fn revoke(
    call: &Call,
    group: Group,
    named: Named,
    ids: &[String],
    direction: Direction,
) -> Result<Vec<ec2::RevokedSecurityGroupRule>, Fault> {
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let present = find_in(view, call.scope(), None, group.id.as_deref(), group.name.as_deref())?;
        let mut next = present.clone();
        let rules = direction.of(&mut next);
        let mut revoked = Vec::new();
        for id in ids {
            let place = rules.iter().position(|rule| rule.id == *id).ok_or_else(|| no_rule(id))?;
            revoked.push(rules.remove(place));
        }
        for rule in named.rules(view, present)? {
            let place = rules.iter().position(|known| is_same(known, &rule)).ok_or_else(|| {
                let message = "The specified rule does not exist in this security group.";
                refused("InvalidPermission.NotFound", message)
            })?;
            revoked.push(rules.remove(place));
        }
        transaction.update(&next);
        Ok(revoked.iter().map(|rule| render_revoked(&next, rule, direction)).collect())
    });
    commit.await
}

fn no_rule(id: &str) -> Fault {
    let message = format!("The security group rule ID '{id}' does not exist");
    refused("InvalidSecurityGroupRuleId.NotFound", message)
}

pub async fn modify(
    call: Call,
    request: ec2::ModifySecurityGroupRulesRequest,
) -> Result<ec2::ModifySecurityGroupRulesResult, Fault> {
    let ec2::ModifySecurityGroupRulesRequest { group_id, security_group_rules, dry_run: dry } = request;
    check_dry_run(dry)?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let mut next = find(view, call.scope(), &group_id)?.clone();
        for update in &security_group_rules {
            let id = &update.security_group_rule_id;
            let wanted = update.security_group_rule.clone().unwrap_or_default();
            let changed = as_wanted(view, &next, wanted)?;
            let mut rules = next.ingress.iter_mut().chain(&mut next.egress);
            let rule = rules.find(|rule| rule.id == *id).ok_or_else(|| no_rule(id))?;
            *rule = Rule { id: rule.id.clone(), tags: rule.tags.clone(), ..changed };
        }
        transaction.update(&next);
        Ok(())
    });
    commit.await?;
    Ok(ec2::ModifySecurityGroupRulesResult { r#return: Some(true) })
}

/// A rule as a request describes it whole.
fn as_wanted(
    view: &View,
    group: &SecurityGroup,
    wanted: ec2::SecurityGroupRuleRequest,
) -> Result<Rule, Fault> {
    let ec2::SecurityGroupRuleRequest {
        ip_protocol,
        from_port,
        to_port,
        cidr_ipv4,
        cidr_ipv6,
        prefix_list_id,
        referenced_group_id,
        description,
    } = wanted;
    refuse(&[("PrefixListId", prefix_list_id.given())])?;
    let protocol = protocol(ip_protocol)?;
    let peer = match (cidr_ipv4, cidr_ipv6, referenced_group_id) {
        (Some(cidr), None, None) => Peer::Cidr(vpc::parse_cidr("CidrIpv4", &cidr)?),
        (None, Some(cidr), None) => ipv6(&cidr)?,
        (None, None, Some(id)) => Peer::SecurityGroup(find(view, &group.scope, &id)?.id.clone()),
        _ => {
            return Err(refused(
                "InvalidParameterCombination",
                "A rule must name exactly one of CidrIpv4, CidrIpv6 and ReferencedGroupId.",
            ));
        }
    };
    let ports = ports(&protocol, from_port, to_port)?;
    Ok(Rule { id: String::new(), description, tags: Tags::default(), protocol, ports, peer })
}

pub async fn describe_ingress_anew(
    call: Call,
    request: ec2::UpdateSecurityGroupRuleDescriptionsIngressRequest,
) -> Result<ec2::UpdateSecurityGroupRuleDescriptionsIngressResult, Fault> {
    let ec2::UpdateSecurityGroupRuleDescriptionsIngressRequest {
        dry_run: dry,
        group_id,
        group_name,
        ip_permissions,
        security_group_rule_descriptions,
    } = request;
    check_dry_run(dry)?;
    let group = Group { id: group_id, name: group_name };
    let descriptions = security_group_rule_descriptions.unwrap_or_default();
    describe_anew(&call, group, ip_permissions, &descriptions, Direction::Ingress).await?;
    Ok(ec2::UpdateSecurityGroupRuleDescriptionsIngressResult { r#return: Some(true) })
}

pub async fn describe_egress_anew(
    call: Call,
    request: ec2::UpdateSecurityGroupRuleDescriptionsEgressRequest,
) -> Result<ec2::UpdateSecurityGroupRuleDescriptionsEgressResult, Fault> {
    let ec2::UpdateSecurityGroupRuleDescriptionsEgressRequest {
        dry_run: dry,
        group_id,
        group_name,
        ip_permissions,
        security_group_rule_descriptions,
    } = request;
    check_dry_run(dry)?;
    let group = Group { id: group_id, name: group_name };
    let descriptions = security_group_rule_descriptions.unwrap_or_default();
    describe_anew(&call, group, ip_permissions, &descriptions, Direction::Egress).await?;
    Ok(ec2::UpdateSecurityGroupRuleDescriptionsEgressResult { r#return: Some(true) })
}

async fn describe_anew(
    call: &Call,
    group: Group,
    ip_permissions: Option<Vec<ec2::IpPermission>>,
    descriptions: &[ec2::SecurityGroupRuleDescription],
    direction: Direction,
) -> Result<(), Fault> {
    let named = Named::of_permissions(ip_permissions);
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let present = find_in(view, call.scope(), None, group.id.as_deref(), group.name.as_deref())?;
        let mut next = present.clone();
        let rules = direction.of(&mut next);
        for given in descriptions {
            let id = given.security_group_rule_id.as_deref().unwrap_or_default();
            let rule = rules.iter_mut().find(|rule| rule.id == id).ok_or_else(|| no_rule(id))?;
            rule.description.clone_from(&given.description);
        }
        for given in named.rules(view, present)? {
            let rule = rules.iter_mut().find(|known| is_same(known, &given)).ok_or_else(|| {
                let message = "The specified rule does not exist in this security group.";
                refused("InvalidPermission.NotFound", message)
            })?;
            rule.description = given.description;
        }
        transaction.update(&next);
        Ok(())
    });
    commit.await
}

pub async fn describe(
    call: Call,
    request: ec2::DescribeSecurityGroupRulesRequest,
) -> Result<ec2::DescribeSecurityGroupRulesResult, Fault> {
    let ec2::DescribeSecurityGroupRulesRequest {
        filters,
        security_group_rule_ids,
        dry_run: dry,
        next_token,
        max_results,
    } = request;
    check_dry_run(dry)?;
    let filters = Filters::parse(filters, |name| FILTERS.contains(&name))?;
    let ids = security_group_rule_ids.unwrap_or_default();
    let view = call.context.view();
    let of_group = |group: &SecurityGroup| {
        let ingress = group.ingress.iter().map(|rule| (rule.clone(), Direction::Ingress));
        let egress = group.egress.iter().map(|rule| (rule.clone(), Direction::Egress));
        ingress.chain(egress).collect::<Vec<_>>()
    };
    let groups = view.security_groups.of(call.scope());
    let all: Vec<_> =
        groups.flat_map(|group| of_group(group).into_iter().map(|rule| (group.clone(), rule))).collect();
    if let Some(missing) = ids.iter().find(|id| !all.iter().any(|(_, (rule, _))| rule.id == **id)) {
        return Err(no_rule(missing));
    }
    let wanted = |group: &SecurityGroup, rule: &Rule| {
        (ids.is_empty() || ids.contains(&rule.id))
            && filters.pass(&rule.tags, |name| values(group, rule, name))
    };
    let found = all.iter().filter(|(group, (rule, _))| wanted(group, rule));
    let shown = found.map(|(group, (rule, direction))| render(group, rule, *direction)).collect();
    let (rules, next_token) = page(shown, max_results, next_token.as_deref())?;
    Ok(ec2::DescribeSecurityGroupRulesResult { security_group_rules: Some(rules), next_token })
}

fn values(group: &SecurityGroup, rule: &Rule, filter: &str) -> Values {
    Some(vec![match filter {
        "group-id" => group.id.clone(),
        "security-group-rule-id" => rule.id.clone(),
        _ => return None,
    }])
}

/// The ports as rules show them: -1 where they are all.
fn shown_ports(rule: &Rule) -> (Option<i32>, Option<i32>) {
    rule.ports.map_or((Some(-1), Some(-1)), |(from, to)| (Some(from), Some(to)))
}

fn render(group: &SecurityGroup, rule: &Rule, direction: Direction) -> ec2::SecurityGroupRule {
    let scope = &group.scope;
    let ((cidr_ipv4, cidr_ipv6, referenced), (from_port, to_port)) = (peer(rule), shown_ports(rule));
    let (region, account) = (&scope.region, &scope.account);
    ec2::SecurityGroupRule {
        cidr_ipv4,
        cidr_ipv6,
        description: rule.description.clone(),
        from_port,
        group_id: Some(group.id.clone()),
        group_owner_id: Some(account.to_string()),
        ip_protocol: Some(rule.protocol.clone()),
        is_egress: Some(direction == Direction::Egress),
        prefix_list_id: None,
        referenced_group_info: referenced.map(|id| ec2::ReferencedSecurityGroup {
            group_id: Some(id),
            user_id: Some(account.to_string()),
            ..ec2::ReferencedSecurityGroup::default()
        }),
        security_group_rule_arn: Some(format!(
            "arn:aws:ec2:{region}:{account}:security-group-rule/{}",
            rule.id
        )),
        security_group_rule_id: Some(rule.id.clone()),
        tags: tag::render(&rule.tags),
        to_port,
    }
}

fn render_revoked(group: &SecurityGroup, rule: &Rule, direction: Direction) -> ec2::RevokedSecurityGroupRule {
    let ((cidr_ipv4, cidr_ipv6, referenced_group_id), (from_port, to_port)) = (peer(rule), shown_ports(rule));
    ec2::RevokedSecurityGroupRule {
        security_group_rule_id: Some(rule.id.clone()),
        group_id: Some(group.id.clone()),
        is_egress: Some(direction == Direction::Egress),
        ip_protocol: Some(rule.protocol.clone()),
        from_port,
        to_port,
        cidr_ipv4,
        cidr_ipv6,
        prefix_list_id: None,
        referenced_group_id,
        description: rule.description.clone(),
    }
}

/// Of the kinds of peers, the one that a rule has: a block, a block of IPv6, a group.
fn peer(rule: &Rule) -> (Option<String>, Option<String>, Option<String>) {
    match &rule.peer {
        Peer::Cidr(cidr) => (Some(cidr.to_string()), None, None),
        Peer::Cidr6(cidr) => (None, Some(cidr.clone()), None),
        Peer::SecurityGroup(id) => (None, None, Some(id.clone())),
    }
}
