//! What was done to groups.
//! Follows <https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_DescribeScalingActivities.html>.

use super::{find, refuse, render};
use crate::api::Call;
use crate::given_when_present;
use crate::pages::page;
use crate::refuse::Given;
use longshore_autoscaling as asg;
use longshore_model::Record;
use longshore_model::auto_scaling::{AutoScalingGroup, ScalingActivity};
use longshore_wire::Fault;
use std::sync::Arc;

given_when_present!(asg::Filter);

pub async fn describe(
    call: Call,
    request: asg::DescribeScalingActivitiesType,
) -> Result<asg::ActivitiesType, Fault> {
    let asg::DescribeScalingActivitiesType {
        activity_ids,
        auto_scaling_group_name: name,
        filters,
        // Activities go with their groups.
        include_deleted_groups: _,
        max_records,
        next_token,
    } = request;
    refuse(&[("Filters", filters.given())])?;
    let ids = activity_ids.unwrap_or_default();
    let view = call.context.view();
    if let Some(name) = &name {
        find(&view, call.scope(), name)?;
    }
    let wanted = |activity: &&Arc<ScalingActivity>| {
        name.as_ref().is_none_or(|name| activity.group == *name)
            && (ids.is_empty() || ids.contains(&activity.id.to_string()))
    };
    let shown = view.scaling_activities.of(call.scope()).rev().filter(wanted).filter_map(|activity| {
        let group = view.auto_scaling_groups.get(&AutoScalingGroup::key_of(call.scope(), &activity.group))?;
        Some((newest_first(activity), render::activity(group, activity)))
    });
    let mut shown: Vec<_> = shown.collect();
    shown.sort_by(|(left, _), (right, _)| left.cmp(right));
    let (activities, next_token) = page(shown.into_iter(), next_token.as_deref(), max_records.or(Some(100)));
    Ok(asg::ActivitiesType { activities, next_token })
}

/// A key in whose order later activities come first.
fn newest_first(activity: &ScalingActivity) -> String {
    let until_the_end = i64::MAX - activity.started_at.millis();
    format!("{until_the_end:020}/{}", activity.key())
}
