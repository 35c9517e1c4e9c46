//! Rules of listeners. Invariant: a listener has each priority once; its default rule is a part of its own record.
//! Follows <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateRule.html>.

use super::reference::Rule;
use super::{action, condition, invalid, misfit, reference, refuse, tag};
use crate::api::Call;
use crate::context::RandomIds;
use crate::pages::page;
use crate::refuse::Given;
use longshore_elbv2 as elb;
use longshore_engine::{View, elb as engine};
use longshore_model::elb::{Listener, ListenerRule, LoadBalancer, LoadBalancerType, new_id};
use longshore_model::{Record, Scope, Transaction};
use longshore_wire::Fault;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Of one load balancer, its default rules not among them.
const MOST: usize = 100;
/// As the default rule's priority is shown.
const DEFAULT: &str = "default";

pub async fn create(call: Call, request: elb::CreateRuleInput) -> Result<elb::CreateRuleOutput, Fault> {
    let elb::CreateRuleInput { actions, conditions, listener_arn, priority, tags, transforms } = request;
    refuse(&[("Transforms", transforms.given())])?;
    let actions = action::parse(actions)?;
    let conditions = condition::parse(conditions)?;
    let priority = parse_priority(priority)?;
    let tags = tag::of_new(tags)?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let (load_balancer, listener) = reference::listener(view, call.scope(), &listener_arn)?;
        check_room(view, load_balancer)?;
        if engine::rules_of(view, listener).any(|rule| rule.priority == priority) {
            return Err(in_use(priority));
        }
        let resolved = action::resolve(view, load_balancer, listener.protocol, &actions)?;
        let made = ListenerRule {
            scope: call.scope().clone(),
            load_balancer: listener.load_balancer.clone(),
            listener: listener.id.clone(),
            id: new_id(&mut RandomIds),
            priority,
            conditions: conditions.clone(),
            actions: resolved.actions,
            action_orders: resolved.orders,
            tags: tags.clone(),
            created_at: call.context.now(),
        };
        transaction.create(&made);
        // So that of two with one priority the second is refused, and nothing it needs is deleted meanwhile.
        transaction.update(&**listener);
        resolved.groups.iter().for_each(|group| transaction.update(&***group));
        Ok(render(&made, &action::arns(view, call.scope())))
    });
    Ok(elb::CreateRuleOutput { rules: Some(vec![commit.await?]) })
}

fn parse_priority(given: i32) -> Result<u32, Fault> {
    let priority = u32::try_from(given).ok().filter(|priority| (1..=50_000).contains(priority));
    priority.ok_or_else(|| invalid(format!("Priority '{given}' must be between '1-50000' inclusive")))
}

fn in_use(priority: u32) -> Fault {
    elb::Error::PriorityInUseException(format!("Priority '{priority}' is currently in use")).into()
}

fn check_room(view: &View, load_balancer: &LoadBalancer) -> Result<(), Fault> {
    if load_balancer.kind == LoadBalancerType::Network {
        return Err(misfit("Rules can only be created for listeners of application load balancers"));
    }
    if engine::rules_of_all(view, load_balancer).nth(MOST - 1).is_some() {
        let message = format!("You have reached the maximum number of rules per load balancer: '{MOST}'");
        return Err(elb::Error::TooManyRulesException(message).into());
    }
    Ok(())
}

pub async fn modify(call: Call, request: elb::ModifyRuleInput) -> Result<elb::ModifyRuleOutput, Fault> {
    // There are no transforms that could be reset.
    let elb::ModifyRuleInput { actions, conditions, reset_transforms: _, rule_arn, transforms } = request;
    refuse(&[("Transforms", transforms.given())])?;
    let actions = actions.filter(|actions| !actions.is_empty()).map(action::parse).transpose()?;
    let conditions =
        conditions.filter(|conditions| !conditions.is_empty()).map(condition::parse).transpose()?;
    if actions.is_none() && conditions.is_none() {
        return Err(invalid("Either conditions or actions must be specified"));
    }
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let (listener, present) = own(view, call.scope(), &rule_arn, "modified")?;
        let mut next = (**present).clone();
        if let Some(conditions) = &conditions {
            next.conditions = conditions.clone();
        }
        if let Some(actions) = &actions {
            let load_balancer = balancer_of(view, listener)?;
            let resolved = action::resolve(view, load_balancer, listener.protocol, actions)?;
            next.actions = resolved.actions;
            next.action_orders = resolved.orders;
            resolved.groups.iter().for_each(|group| transaction.update(&***group));
            transaction.rely_on(listener.key());
        }
        transaction.update(&next);
        Ok(render(&next, &action::arns(view, call.scope())))
    });
    Ok(elb::ModifyRuleOutput { rules: Some(vec![commit.await?]) })
}

fn balancer_of<'a>(view: &'a View, listener: &Listener) -> Result<&'a Arc<LoadBalancer>, Fault> {
    let key = listener.load_balancer_key();
    key.and_then(|key| view.load_balancers.get(&key)).ok_or_else(reference::no_rules)
}

/// A rule other than a default one, which cannot be `done` to.
fn own<'a>(
    view: &'a View,
    scope: &Scope,
    arn: &str,
    done: &str,
) -> Result<(&'a Arc<Listener>, &'a Arc<ListenerRule>), Fault> {
    match reference::rule(view, scope, arn)? {
        (listener, Rule::Own(rule)) => Ok((listener, rule)),
        (_, Rule::Default) => {
            let message = format!("Default rule '{arn}' cannot be {done}");
            Err(elb::Error::OperationNotPermittedException(message).into())
        }
    }
}

pub async fn delete(call: Call, request: elb::DeleteRuleInput) -> Result<elb::DeleteRuleOutput, Fault> {
    let elb::DeleteRuleInput { rule_arn } = request;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let (_, present) = own(&snapshot.view, call.scope(), &rule_arn, "deleted")?;
        transaction.delete(present.key());
        Ok(())
    });
    commit.await?;
    Ok(elb::DeleteRuleOutput {})
}

pub async fn set_priorities(
    call: Call,
    request: elb::SetRulePrioritiesInput,
) -> Result<elb::SetRulePrioritiesOutput, Fault> {
    let elb::SetRulePrioritiesInput { rule_priorities } = request;
    let mut wanted: BTreeMap<String, u32> = BTreeMap::new();
    let mut seen: BTreeSet<u32> = BTreeSet::new();
    for elb::RulePriorityPair { priority, rule_arn } in rule_priorities {
        let arn = rule_arn.filter(|arn| !arn.is_empty());
        let arn = arn.ok_or_else(|| invalid("A rule ARN must be specified"))?;
        let priority = priority.ok_or_else(|| invalid("A priority must be specified"))?;
        let priority = parse_priority(priority)?;
        if !seen.insert(priority) {
            return Err(invalid(format!("Priority '{priority}' was provided multiple times")));
        }
        if wanted.insert(arn.clone(), priority).is_some() {
            return Err(invalid(format!("Rule '{arn}' was provided multiple times")));
        }
    }
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let rules = renumber(&snapshot.view, call.scope(), &wanted, transaction)?;
        let arns = action::arns(&snapshot.view, call.scope());
        Ok(rules.iter().map(|rule| render(rule, &arns)).collect())
    });
    Ok(elb::SetRulePrioritiesOutput { rules: Some(commit.await?) })
}

fn renumber(
    view: &View,
    scope: &Scope,
    wanted: &BTreeMap<String, u32>,
    transaction: &mut Transaction,
) -> Result<Vec<ListenerRule>, Fault> {
    let mut found = Vec::new();
    for (arn, priority) in wanted {
        found.push((own(view, scope, arn, "given a priority")?, *priority));
    }
    let Some(((listener, _), _)) = found.first().copied() else { return Ok(Vec::new()) };
    if found.iter().any(|((other, _), _)| other.arn() != listener.arn()) {
        return Err(invalid("All rules must belong to the same listener"));
    }
    let moved: BTreeSet<&str> = found.iter().map(|((_, rule), _)| rule.id.as_str()).collect();
    let stay = engine::rules_of(view, listener).filter(|rule| !moved.contains(rule.id.as_str()));
    let taken: BTreeSet<u32> = stay.map(|rule| rule.priority).collect();
    if let Some((_, priority)) = found.iter().find(|(_, priority)| taken.contains(priority)) {
        return Err(in_use(*priority));
    }
    // So that of two that give one priority the second is refused.
    transaction.update(&**listener);
    let next = found.into_iter().map(|((_, rule), priority)| ListenerRule { priority, ..(**rule).clone() });
    let mut next: Vec<ListenerRule> = next.collect();
    next.iter().for_each(|rule| transaction.update(rule));
    next.sort_by_key(|rule| rule.priority);
    Ok(next)
}

pub async fn describe(
    call: Call,
    request: elb::DescribeRulesInput,
) -> Result<elb::DescribeRulesOutput, Fault> {
    let elb::DescribeRulesInput { listener_arn, marker, page_size, rule_arns } = request;
    let named = rule_arns.unwrap_or_default();
    let (view, scope) = (call.context.view(), call.scope());
    let arns = action::arns(&view, scope);
    let rules = match listener_arn.filter(|arn| !arn.is_empty()) {
        Some(_) if !named.is_empty() => {
            return Err(invalid(
                "Listener rule ARNs and a listener ARN cannot be specified at the same time",
            ));
        }
        None if named.is_empty() => {
            return Err(invalid("You must specify either listener rule ARNs or a listener ARN"));
        }
        Some(arn) => {
            let (_, listener) = reference::listener(&view, scope, &arn)?;
            let own = engine::rules_of(&view, listener).map(|rule| keyed(rule, &arns));
            own.chain([keyed_default(listener, &arns)]).collect()
        }
        None => {
            let find = |arn: &String| match reference::rule(&view, scope, arn)? {
                (_, Rule::Own(rule)) => Ok(keyed(rule, &arns)),
                (listener, Rule::Default) => Ok(keyed_default(listener, &arns)),
            };
            named.iter().map(find).collect::<Result<BTreeMap<_, _>, Fault>>()?
        }
    };
    let (rules, next_marker) = page(rules.into_iter(), marker.as_deref(), page_size);
    Ok(elb::DescribeRulesOutput { next_marker, rules: Some(rules) })
}

/// A rule with what it is sorted by: listeners one after the other, each in the order in which its rules are tried.
fn keyed(rule: &ListenerRule, arns: &action::Arns) -> (String, elb::Rule) {
    (format!("{}/{}/{:05}", rule.load_balancer, rule.listener, rule.priority), render(rule, arns))
}

/// The default rule comes last, as letters come after digits.
fn keyed_default(listener: &Listener, arns: &action::Arns) -> (String, elb::Rule) {
    let rule = elb::Rule {
        actions: Some(action::render(&listener.default_actions, &listener.action_orders, arns)),
        conditions: Some(Vec::new()),
        is_default: Some(true),
        priority: Some(DEFAULT.to_owned()),
        rule_arn: Some(listener.default_rule_arn()),
        transforms: None,
    };
    (format!("{}/{}/{DEFAULT}", listener.load_balancer, listener.id), rule)
}

fn render(rule: &ListenerRule, arns: &action::Arns) -> elb::Rule {
    elb::Rule {
        actions: Some(action::render(&rule.actions, &rule.action_orders, arns)),
        conditions: Some(rule.conditions.iter().map(condition::render).collect()),
        is_default: Some(false),
        priority: Some(rule.priority.to_string()),
        rule_arn: Some(rule.arn()),
        transforms: None,
    }
}
