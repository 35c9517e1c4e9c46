//! Groups, their instances and activities as the API shows them.

use super::tag;
use longshore_autoscaling as asg;
use longshore_engine::View;
use longshore_engine::auto_scaling::members;
use longshore_model::Scope;
use longshore_model::auto_scaling::{
    ActivityKind, ActivityStatus, AutoScalingGroup, ScalingActivity, TerminationPolicy,
};
use longshore_model::instance::{Instance, LaunchTemplate, State};
use longshore_model::vpc::Subnet;
use longshore_wire::{Encode, Timestamp};

pub fn group(view: &View, group: &AutoScalingGroup, with_instances: bool) -> asg::AutoScalingGroup {
    let subnets = group.subnets.iter().filter_map(|id| view.subnets.get(&Subnet::key_of(&group.scope, id)));
    let mut zones: Vec<String> = subnets.map(|subnet| subnet.availability_zone.clone()).collect();
    zones.sort();
    zones.dedup();
    let size = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let Scope { account, .. } = &group.scope;
    asg::AutoScalingGroup {
        auto_scaling_group_arn: Some(group.arn()),
        auto_scaling_group_name: group.name.clone(),
        availability_zone_distribution: Some(asg::AvailabilityZoneDistribution {
            capacity_distribution_strategy: Some(asg::CapacityDistributionStrategy::BalancedBestEffort),
        }),
        availability_zone_ids: None,
        availability_zone_impairment_policy: None,
        availability_zones: zones,
        capacity_rebalance: Some(group.capacity_rebalance),
        capacity_reservation_specification: None,
        context: None,
        created_time: Timestamp(group.created_at.millis()),
        default_cooldown: size(group.default_cooldown),
        default_instance_warmup: group.default_instance_warmup,
        deletion_protection: None,
        desired_capacity: size(group.size.desired),
        desired_capacity_type: None,
        enabled_metrics: Some(Vec::new()),
        health_check_grace_period: Some(size(group.health_check_grace_period)),
        health_check_type: group.health_check_type.clone(),
        instance_lifecycle_policy: None,
        instance_maintenance_policy: None,
        instances: Some(match with_instances {
            true => members(view, &group.scope, &group.name)
                .into_iter()
                .map(|there| instance(view, there))
                .collect(),
            false => Vec::new(),
        }),
        launch_configuration_name: None,
        launch_template: Some(template(view, group)),
        load_balancer_names: Some(Vec::new()),
        max_instance_lifetime: None,
        max_size: size(group.size.max),
        min_size: size(group.size.min),
        mixed_instances_policy: None,
        new_instances_protected_from_scale_in: Some(group.new_instances_protected),
        placement_group: None,
        predicted_capacity: None,
        service_linked_role_arn: Some(format!(
            "arn:aws:iam::{account}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"
        )),
        status: group.deleting.then(|| "Delete in progress".to_owned()),
        suspended_processes: Some(Vec::new()),
        tags: Some(tag::render(group)),
        target_group_ar_ns: Some(Vec::new()),
        termination_policies: Some(
            group
                .termination_policies
                .iter()
                .copied()
                .map(TerminationPolicy::as_str)
                .map(str::to_owned)
                .collect(),
        ),
        traffic_sources: Some(Vec::new()),
        vpc_zone_identifier: Some(group.subnets.join(",")),
        warm_pool_configuration: None,
        warm_pool_size: None,
    }
}

fn template(view: &View, group: &AutoScalingGroup) -> asg::LaunchTemplateSpecification {
    let found = view.launch_templates.get(&LaunchTemplate::key_of(&group.scope, &group.template));
    asg::LaunchTemplateSpecification {
        launch_template_id: Some(group.template.clone()),
        launch_template_name: found.map(|template| template.name.clone()),
        version: Some(group.template_version.clone()),
    }
}

fn template_of(instance: &Instance) -> Option<asg::LaunchTemplateSpecification> {
    instance.settings.template.as_ref().map(|template| asg::LaunchTemplateSpecification {
        launch_template_id: Some(template.id.clone()),
        launch_template_name: Some(template.name.clone()),
        version: Some(template.version.to_string()),
    })
}

fn lifecycle(instance: &Instance) -> asg::LifecycleState {
    match instance.state {
        State::Pending => asg::LifecycleState::Pending,
        State::Running if instance.is_draining() => asg::LifecycleState::TerminatingWait,
        State::Running => asg::LifecycleState::InService,
        State::ShuttingDown => asg::LifecycleState::Terminating,
        State::Terminated => asg::LifecycleState::Terminated,
    }
}

fn health(instance: &Instance) -> String {
    if instance.state.is_alive() { "Healthy" } else { "Unhealthy" }.to_owned()
}

fn zone_id(view: &View, instance: &Instance) -> Option<String> {
    let subnet = view.subnets.get(&Subnet::key_of(&instance.scope, &instance.subnet));
    subnet.map(|subnet| subnet.availability_zone_id.clone())
}

fn instance(view: &View, instance: &Instance) -> asg::Instance {
    asg::Instance {
        availability_zone: instance.availability_zone.clone(),
        availability_zone_id: zone_id(view, instance),
        health_status: health(instance),
        image_id: Some(instance.settings.image.clone()),
        instance_id: instance.id.clone(),
        instance_type: Some(instance.settings.instance_type.clone()),
        launch_configuration_name: None,
        launch_template: template_of(instance),
        lifecycle_state: lifecycle(instance),
        protected_from_scale_in: instance.group.as_ref().is_some_and(|group| group.protected),
        weighted_capacity: None,
    }
}

pub fn details(view: &View, instance: &Instance) -> asg::AutoScalingInstanceDetails {
    asg::AutoScalingInstanceDetails {
        auto_scaling_group_name: instance.group.as_ref().map(|group| group.name.clone()).unwrap_or_default(),
        availability_zone: instance.availability_zone.clone(),
        availability_zone_id: zone_id(view, instance),
        health_status: health(instance).to_ascii_uppercase(),
        image_id: Some(instance.settings.image.clone()),
        instance_id: instance.id.clone(),
        instance_type: Some(instance.settings.instance_type.clone()),
        launch_configuration_name: None,
        launch_template: template_of(instance),
        lifecycle_state: lifecycle(instance).encode().as_str().unwrap_or_default().to_owned(),
        protected_from_scale_in: instance.group.as_ref().is_some_and(|group| group.protected),
        weighted_capacity: None,
    }
}

pub fn activity(group: &AutoScalingGroup, activity: &ScalingActivity) -> asg::Activity {
    let time = |at: longshore_model::Timestamp| Timestamp(at.millis());
    let description = match (activity.kind, &activity.instance) {
        (ActivityKind::Launch, Some(id)) => format!("Launching a new EC2 instance: {id}"),
        (ActivityKind::Launch, None) => "Launching a new EC2 instance".to_owned(),
        (ActivityKind::Terminate, id) => {
            format!("Terminating EC2 instance: {}", id.as_deref().unwrap_or_default())
        }
    };
    let (status_code, progress) = match activity.status {
        ActivityStatus::InProgress => (asg::ScalingActivityStatusCode::InProgress, 50),
        ActivityStatus::Successful => (asg::ScalingActivityStatusCode::Successful, 100),
        ActivityStatus::Failed => (asg::ScalingActivityStatusCode::Failed, 100),
    };
    asg::Activity {
        activity_id: activity.id.to_string(),
        auto_scaling_group_arn: Some(group.arn()),
        auto_scaling_group_name: activity.group.clone(),
        auto_scaling_group_state: None,
        cause: format!("At {} {}", time(activity.started_at), activity.cause),
        description: Some(description),
        details: None,
        end_time: activity.ended_at.map(time),
        progress: Some(progress),
        start_time: time(activity.started_at),
        status_code,
        status_message: activity.message.clone(),
    }
}
