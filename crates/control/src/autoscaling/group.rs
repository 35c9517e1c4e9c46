//! Groups. Follows <https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_CreateAutoScalingGroup.html>.

use super::settings::{self, checked};
use super::{find, invalid, render, tag};
use crate::api::Call;
use crate::context::RandomIds;
use crate::pages::page;
use longshore_autoscaling as asg;
use longshore_model::Record;
use longshore_model::auto_scaling::{AutoScalingGroup, Size, TerminationPolicy};
use longshore_model::id::IdSource;
use longshore_wire::Fault;
use std::collections::BTreeMap;
use std::sync::Arc;

pub async fn create(call: Call, request: asg::CreateAutoScalingGroupType) -> Result<(), Fault> {
    let (name, settings, tags) = settings::of_create(request)?;
    if name.contains(':') {
        return Err(invalid("Member must not include: ':'"));
    }
    let new = AutoScalingGroup {
        scope: call.scope().clone(),
        name,
        uuid: RandomIds.uuid(),
        size: Size { min: 0, max: 0, desired: 0 },
        template: String::new(),
        template_version: String::new(),
        subnets: Vec::new(),
        default_cooldown: 300,
        health_check_type: "EC2".to_owned(),
        health_check_grace_period: 0,
        default_instance_warmup: None,
        termination_policies: vec![TerminationPolicy::Default],
        new_instances_protected: false,
        capacity_rebalance: false,
        tags: tag::with(&BTreeMap::new(), tags)?,
        created_at: call.context.now(),
        deleting: false,
        launches_after: None,
    };
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let mut group = new.clone();
        if snapshot.view.auto_scaling_groups.get(&group.key()).is_some() {
            return Err(asg::Error::AlreadyExistsFault(
                "AutoScalingGroup by this name already exists - A group with the name ".to_owned()
                    + &group.name
                    + " already exists",
            )
            .into());
        }
        settings.apply(&snapshot.view, call.scope(), &mut group)?;
        transaction.create(&group);
        Ok(())
    });
    commit.await
}

pub async fn update(call: Call, request: asg::UpdateAutoScalingGroupType) -> Result<(), Fault> {
    let (name, settings) = settings::of_update(request)?;
    change(&call, &name, |view, group| settings.apply(view, call.scope(), group)).await
}

pub async fn set_desired(call: Call, request: asg::SetDesiredCapacityType) -> Result<(), Fault> {
    let asg::SetDesiredCapacityType { auto_scaling_group_name: name, desired_capacity, honor_cooldown: _ } =
        request;
    let desired = u32::try_from(desired_capacity)
        .map_err(|_| invalid(format!("DesiredCapacity must not be negative, and is {desired_capacity}.")))?;
    change(&call, &name, |_, group| {
        group.size = checked(Size { desired, ..group.size })?;
        Ok(())
    })
    .await
}

/// Changes a group that is not being deleted. What kept it from launching is tried again.
async fn change(
    call: &Call,
    name: &str,
    change: impl Fn(&longshore_engine::View, &mut AutoScalingGroup) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let present = find(&snapshot.view, call.scope(), name)?;
        if present.deleting {
            let message = format!("You cannot update the AutoScalingGroup {name}: it is being deleted.");
            return Err(asg::Error::ResourceInUseFault(message).into());
        }
        let mut next = AutoScalingGroup { launches_after: None, ..(**present).clone() };
        change(&snapshot.view, &mut next)?;
        if next != **present {
            transaction.update(&next);
        }
        Ok(())
    });
    commit.await
}

pub async fn describe(
    call: Call,
    request: asg::AutoScalingGroupNamesType,
) -> Result<asg::AutoScalingGroupsType, Fault> {
    let asg::AutoScalingGroupNamesType {
        auto_scaling_group_names,
        filters,
        include_instances,
        max_records,
        next_token,
    } = request;
    let names = auto_scaling_group_names.unwrap_or_default();
    let filters = tag::Filters::parse(filters, &["tag-key", "tag-value"])?;
    let with_instances = include_instances.unwrap_or(true);
    let view = call.context.view();
    let wanted = |group: &&Arc<AutoScalingGroup>| {
        (names.is_empty() || names.contains(&group.name)) && filters.pass_any(group)
    };
    let groups = view.auto_scaling_groups.of(call.scope()).filter(wanted);
    let shown = groups.map(|group| (group.name.clone(), render::group(&view, group, with_instances)));
    let (auto_scaling_groups, next_token) = page(shown, next_token.as_deref(), max_records.or(Some(50)));
    Ok(asg::AutoScalingGroupsType { auto_scaling_groups, next_token })
}
