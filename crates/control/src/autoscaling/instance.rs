//! The instances of groups.
//! Follows <https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_SetInstanceProtection.html>.

use super::{find, invalid, render};
use crate::api::Call;
use crate::pages::page;
use longshore_autoscaling as asg;
use longshore_engine::View;
use longshore_engine::instance::terminate as end;
use longshore_model::Scope;
use longshore_model::auto_scaling::{AutoScalingGroup, Size};
use longshore_model::instance::{Instance, Membership, Reason, State};
use longshore_wire::Fault;
use std::sync::Arc;

pub async fn describe(
    call: Call,
    request: asg::DescribeAutoScalingInstancesType,
) -> Result<asg::AutoScalingInstancesType, Fault> {
    let asg::DescribeAutoScalingInstancesType { instance_ids, max_records, next_token } = request;
    let ids = instance_ids.unwrap_or_default();
    let view = call.context.view();
    let wanted = |instance: &&Arc<Instance>| {
        instance.group.is_some()
            && instance.state != State::Terminated
            && (ids.is_empty() || ids.contains(&instance.id))
    };
    let instances = view.instances.of(call.scope()).filter(wanted);
    let shown = instances.map(|instance| (instance.id.clone(), render::details(&view, instance)));
    let (found, next_token) = page(shown, next_token.as_deref(), max_records.or(Some(50)));
    Ok(asg::AutoScalingInstancesType { auto_scaling_instances: Some(found), next_token })
}

fn member<'a>(view: &'a View, scope: &Scope, id: &str) -> Result<(&'a Arc<Instance>, &'a Membership), Fault> {
    let found =
        view.instances.get(&Instance::key_of(scope, id)).filter(|found| found.state != State::Terminated);
    let member = found.and_then(|found| found.group.as_ref().map(|group| (found, group)));
    member.ok_or_else(|| {
        invalid(format!("Instance Id not found - No managed instance found for instance ID {id}"))
    })
}

pub async fn set_protection(
    call: Call,
    request: asg::SetInstanceProtectionQuery,
) -> Result<asg::SetInstanceProtectionAnswer, Fault> {
    let asg::SetInstanceProtectionQuery {
        auto_scaling_group_name: name,
        instance_ids,
        protected_from_scale_in,
    } = request;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        find(view, call.scope(), &name)?;
        for id in &instance_ids {
            let (instance, group) = member(view, call.scope(), id)?;
            if group.name != name {
                return Err(invalid(format!("The instance {id} is not part of Auto Scaling group {name}.")));
            }
            let group = Some(Membership { protected: protected_from_scale_in, ..group.clone() });
            transaction.update(&Instance { group, ..(**instance).clone() });
        }
        Ok(())
    });
    commit.await?;
    Ok(asg::SetInstanceProtectionAnswer {})
}

/// Ends an instance, protected or not; the group launches another unless it is to have one fewer.
pub async fn terminate(
    call: Call,
    request: asg::TerminateInstanceInAutoScalingGroupType,
) -> Result<asg::ActivityType, Fault> {
    let asg::TerminateInstanceInAutoScalingGroupType {
        instance_id,
        should_decrement_desired_capacity: fewer,
    } = request;
    let now = call.context.now();
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let (instance, membership) = member(view, call.scope(), &instance_id)?;
        let group = find(view, call.scope(), &membership.name)?;
        if fewer {
            let size = Size { desired: group.size.desired.saturating_sub(1), ..group.size };
            let size = super::settings::checked(size)?;
            transaction.update(&AutoScalingGroup { size, ..(**group).clone() });
        }
        let activity =
            longshore_engine::auto_scaling::user_ended(group, instance, fewer, now, &mut crate::RandomIds);
        transaction.create(&activity);
        let why = Reason {
            code: "Client.UserInitiatedShutdown".to_owned(),
            message: "Client.UserInitiatedShutdown: User initiated shutdown".to_owned(),
        };
        end(view, instance, why, now, transaction);
        Ok((Arc::clone(group), activity))
    });
    let (group, activity) = commit.await?;
    Ok(asg::ActivityType { activity: Some(render::activity(&group, &activity)) })
}
