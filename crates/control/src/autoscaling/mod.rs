//! EC2 Auto Scaling: groups of instances, which capacity providers of ECS take their capacity from.

mod activity;
mod delete;
mod group;
mod instance;
mod render;
mod settings;
mod tag;

use crate::api::Routes;
use crate::refuse::unsupported;
use longshore_autoscaling as asg;
use longshore_autoscaling::operations as op;
use longshore_engine::View;
use longshore_model::Scope;
use longshore_model::auto_scaling::AutoScalingGroup;
use longshore_wire::Fault;
use std::sync::Arc;

pub fn routes() -> Routes {
    Routes::new(&asg::SERVICE)
        .on::<op::CreateAutoScalingGroup, _, _, _>(group::create)
        .on::<op::UpdateAutoScalingGroup, _, _, _>(group::update)
        .on::<op::SetDesiredCapacity, _, _, _>(group::set_desired)
        .on::<op::DescribeAutoScalingGroups, _, _, _>(group::describe)
        .on::<op::DeleteAutoScalingGroup, _, _, _>(delete::delete)
        .on::<op::DescribeAutoScalingInstances, _, _, _>(instance::describe)
        .on::<op::SetInstanceProtection, _, _, _>(instance::set_protection)
        .on::<op::TerminateInstanceInAutoScalingGroup, _, _, _>(instance::terminate)
        .on::<op::DescribeScalingActivities, _, _, _>(activity::describe)
        .on::<op::CreateOrUpdateTags, _, _, _>(tag::put)
        .on::<op::DeleteTags, _, _, _>(tag::delete)
        .on::<op::DescribeTags, _, _, _>(tag::describe)
}

/// What the service answers to values that are wrong, and to names that name nothing.
fn invalid(message: impl Into<String>) -> Fault {
    Fault::sender("ValidationError", message.into())
}

/// Fields that have no effect yet.
fn refuse(fields: &[(&str, bool)]) -> Result<(), Fault> {
    unsupported(fields).map_err(invalid)
}

fn find<'a>(view: &'a View, scope: &Scope, name: &str) -> Result<&'a Arc<AutoScalingGroup>, Fault> {
    let missing =
        || invalid(format!("AutoScalingGroup name not found - AutoScalingGroup '{name}' not found"));
    view.auto_scaling_groups.get(&AutoScalingGroup::key_of(scope, name)).ok_or_else(missing)
}
