//! What calls say of groups. Creating and updating a group take the same settings; what is not said stays as it is.

use super::{invalid, refuse};
use crate::ec2::launch_template::{Named, version};
use crate::given_when_present;
use crate::refuse::Given;
use longshore_autoscaling as asg;
use longshore_engine::View;
use longshore_model::Scope;
use longshore_model::auto_scaling::{AutoScalingGroup, Size, TerminationPolicy};
use longshore_model::vpc::Subnet;
use longshore_wire::Fault;

given_when_present!(
    asg::MixedInstancesPolicy,
    asg::InstanceMaintenancePolicy,
    asg::AvailabilityZoneImpairmentPolicy,
    asg::CapacityReservationSpecification,
    asg::InstanceLifecyclePolicy,
    asg::LifecycleHookSpecification,
    asg::TrafficSourceIdentifier,
);

/// What a call said; `None` where it was silent.
#[derive(Default)]
pub struct Settings {
    pub template: Option<asg::LaunchTemplateSpecification>,
    pub min: Option<i32>,
    pub max: Option<i32>,
    pub desired: Option<i32>,
    pub default_cooldown: Option<i32>,
    pub availability_zones: Option<Vec<String>>,
    pub health_check_type: Option<String>,
    pub health_check_grace_period: Option<i32>,
    pub subnets: Option<String>,
    pub termination_policies: Option<Vec<String>>,
    pub new_instances_protected: Option<bool>,
    pub capacity_rebalance: Option<bool>,
    pub default_instance_warmup: Option<i32>,
}

pub fn of_create(
    request: asg::CreateAutoScalingGroupType,
) -> Result<(String, Settings, Vec<asg::Tag>), Fault> {
    let asg::CreateAutoScalingGroupType {
        auto_scaling_group_name: name,
        availability_zone_distribution,
        availability_zone_ids,
        availability_zone_impairment_policy,
        availability_zones,
        capacity_rebalance,
        capacity_reservation_specification,
        context,
        default_cooldown,
        default_instance_warmup,
        deletion_protection,
        desired_capacity,
        desired_capacity_type,
        health_check_grace_period,
        health_check_type,
        instance_id,
        instance_lifecycle_policy,
        instance_maintenance_policy,
        launch_configuration_name,
        launch_template,
        lifecycle_hook_specification_list,
        load_balancer_names,
        max_instance_lifetime,
        max_size,
        min_size,
        mixed_instances_policy,
        new_instances_protected_from_scale_in,
        placement_group,
        // Service-linked roles are taken for granted.
        service_linked_role_arn: _,
        skip_zonal_shift_validation: _,
        tags,
        target_group_ar_ns,
        termination_policies,
        traffic_sources,
        vpc_zone_identifier,
    } = request;
    refuse(&[
        ("AvailabilityZoneIds", availability_zone_ids.given()),
        ("InstanceId", instance_id.given()),
        ("LifecycleHookSpecificationList", lifecycle_hook_specification_list.given()),
        ("LoadBalancerNames", load_balancer_names.given()),
        ("TargetGroupARNs", target_group_ar_ns.given()),
        ("TrafficSources", traffic_sources.given()),
    ])?;
    Rest {
        availability_zone_distribution,
        availability_zone_impairment_policy,
        capacity_reservation_specification,
        context,
        deletion_protection,
        desired_capacity_type,
        instance_lifecycle_policy,
        instance_maintenance_policy,
        launch_configuration_name,
        max_instance_lifetime,
        mixed_instances_policy,
        placement_group,
    }
    .refuse()?;
    let settings = Settings {
        template: launch_template,
        min: Some(min_size),
        max: Some(max_size),
        desired: desired_capacity,
        default_cooldown,
        availability_zones,
        health_check_type,
        health_check_grace_period,
        subnets: vpc_zone_identifier,
        termination_policies,
        new_instances_protected: new_instances_protected_from_scale_in,
        capacity_rebalance,
        default_instance_warmup,
    };
    Ok((name, settings, tags.unwrap_or_default()))
}

pub fn of_update(request: asg::UpdateAutoScalingGroupType) -> Result<(String, Settings), Fault> {
    let asg::UpdateAutoScalingGroupType {
        auto_scaling_group_name: name,
        availability_zone_distribution,
        availability_zone_ids,
        availability_zone_impairment_policy,
        availability_zones,
        capacity_rebalance,
        capacity_reservation_specification,
        context,
        default_cooldown,
        default_instance_warmup,
        deletion_protection,
        desired_capacity,
        desired_capacity_type,
        health_check_grace_period,
        health_check_type,
        instance_lifecycle_policy,
        instance_maintenance_policy,
        launch_configuration_name,
        launch_template,
        max_instance_lifetime,
        max_size,
        min_size,
        mixed_instances_policy,
        new_instances_protected_from_scale_in,
        placement_group,
        service_linked_role_arn: _,
        skip_zonal_shift_validation: _,
        termination_policies,
        vpc_zone_identifier,
    } = request;
    refuse(&[("AvailabilityZoneIds", availability_zone_ids.given())])?;
    Rest {
        availability_zone_distribution,
        availability_zone_impairment_policy,
        capacity_reservation_specification,
        context,
        deletion_protection,
        desired_capacity_type,
        instance_lifecycle_policy,
        instance_maintenance_policy,
        launch_configuration_name,
        max_instance_lifetime,
        mixed_instances_policy,
        placement_group,
    }
    .refuse()?;
    let settings = Settings {
        template: launch_template,
        min: min_size,
        max: max_size,
        desired: desired_capacity,
        default_cooldown,
        availability_zones,
        health_check_type,
        health_check_grace_period,
        subnets: vpc_zone_identifier,
        termination_policies,
        new_instances_protected: new_instances_protected_from_scale_in,
        capacity_rebalance,
        default_instance_warmup,
    };
    Ok((name, settings))
}

/// What both calls can say and neither does here.
struct Rest {
    availability_zone_distribution: Option<asg::AvailabilityZoneDistribution>,
    availability_zone_impairment_policy: Option<asg::AvailabilityZoneImpairmentPolicy>,
    capacity_reservation_specification: Option<asg::CapacityReservationSpecification>,
    context: Option<String>,
    deletion_protection: Option<asg::DeletionProtection>,
    desired_capacity_type: Option<String>,
    instance_lifecycle_policy: Option<asg::InstanceLifecyclePolicy>,
    instance_maintenance_policy: Option<asg::InstanceMaintenancePolicy>,
    launch_configuration_name: Option<String>,
    max_instance_lifetime: Option<i32>,
    mixed_instances_policy: Option<asg::MixedInstancesPolicy>,
    placement_group: Option<String>,
}

impl Rest {
    fn refuse(self) -> Result<(), Fault> {
        let strategy =
            self.availability_zone_distribution.and_then(|given| given.capacity_distribution_strategy);
        let best_effort = asg::CapacityDistributionStrategy::BalancedBestEffort;
        refuse(&[
            ("AvailabilityZoneDistribution", strategy.is_some_and(|strategy| strategy != best_effort)),
            ("AvailabilityZoneImpairmentPolicy", self.availability_zone_impairment_policy.given()),
            ("CapacityReservationSpecification", self.capacity_reservation_specification.given()),
            ("Context", self.context.given()),
            (
                "DeletionProtection",
                self.deletion_protection.is_some_and(|given| given != asg::DeletionProtection::None),
            ),
            (
                "DesiredCapacityType",
                self.desired_capacity_type.is_some_and(|kind| !["", "units"].contains(&kind.as_str())),
            ),
            ("InstanceLifecyclePolicy", self.instance_lifecycle_policy.given()),
            ("InstanceMaintenancePolicy", self.instance_maintenance_policy.given()),
            ("LaunchConfigurationName", self.launch_configuration_name.given()),
            ("MaxInstanceLifetime", self.max_instance_lifetime.is_some_and(|seconds| seconds != 0)),
            ("MixedInstancesPolicy", self.mixed_instances_policy.given()),
            ("PlacementGroup", self.placement_group.given()),
        ])
    }
}

impl Settings {
    /// Puts what was said into a group, and checks what comes of it.
    pub fn apply(&self, view: &View, scope: &Scope, group: &mut AutoScalingGroup) -> Result<(), Fault> {
        if let Some(asg::LaunchTemplateSpecification {
            launch_template_id,
            launch_template_name,
            version: given,
        }) = self.template.clone()
        {
            let named = Named::new(launch_template_id, launch_template_name).map_err(of_ec2)?;
            let template = named.find(view, scope).map_err(of_ec2)?;
            let given = given.filter(|given| !given.is_empty()).unwrap_or_else(|| "$Default".to_owned());
            version(template, &given).map_err(of_ec2)?;
            group.template.clone_from(&template.id);
            group.template_version = given;
        }
        if group.template.is_empty() {
            return Err(invalid(
                "Valid requests must contain either LaunchTemplate, LaunchConfigurationName, InstanceId or \
                 MixedInstancesPolicy parameter.",
            ));
        }
        self.apply_size(group)?;
        self.apply_subnets(view, scope, group)?;
        if let Some(kind) = &self.health_check_type {
            refuse(&[("HealthCheckType", kind != "EC2")])?;
            group.health_check_type.clone_from(kind);
        }
        if let Some(given) = self.termination_policies.as_ref().filter(|given| !given.is_empty()) {
            let policy = |name: &String| {
                let found = TerminationPolicy::ALL.into_iter().find(|policy| policy.as_str() == name);
                found.ok_or_else(|| {
                    invalid(format!("Termination policy {name} is not one of those that are served."))
                })
            };
            group.termination_policies = given.iter().map(policy).collect::<Result<_, _>>()?;
        }
        let seconds = |field: &str, given: i32| {
            u32::try_from(given)
                .map_err(|_| invalid(format!("{field} must not be negative, and is {given}.")))
        };
        if let Some(given) = self.default_cooldown {
            group.default_cooldown = seconds("DefaultCooldown", given)?;
        }
        if let Some(given) = self.health_check_grace_period {
            group.health_check_grace_period = seconds("HealthCheckGracePeriod", given)?;
        }
        if let Some(given) = self.default_instance_warmup {
            // -1 takes a value back.
            group.default_instance_warmup = Some(given).filter(|given| *given >= 0);
        }
        group.new_instances_protected = self.new_instances_protected.unwrap_or(group.new_instances_protected);
        group.capacity_rebalance = self.capacity_rebalance.unwrap_or(group.capacity_rebalance);
        Ok(())
    }

    fn apply_size(&self, group: &mut AutoScalingGroup) -> Result<(), Fault> {
        let number = |field: &str, given: Option<i32>, present: u32| match given {
            None => Ok(present),
            Some(given) => u32::try_from(given)
                .map_err(|_| invalid(format!("{field} must not be negative, and is {given}."))),
        };
        let min = number("MinSize", self.min, group.size.min)?;
        let max = number("MaxSize", self.max, group.size.max)?;
        if min > max {
            return Err(invalid(format!(
                "Max bound, {max}, must be greater than or equal to min bound, {min}"
            )));
        }
        // Where nothing is said of it, the desired size follows the bounds.
        let desired = match self.desired {
            Some(given) => number("DesiredCapacity", Some(given), 0)?,
            None => group.size.desired.clamp(min, max),
        };
        group.size = checked(Size { min, max, desired })?;
        Ok(())
    }

    fn apply_subnets(&self, view: &View, scope: &Scope, group: &mut AutoScalingGroup) -> Result<(), Fault> {
        let named =
            self.subnets.as_deref().unwrap_or_default().split(',').map(str::trim).filter(|id| !id.is_empty());
        let named: Vec<String> = named.map(str::to_owned).collect();
        let zones = self.availability_zones.clone().unwrap_or_default();
        if !named.is_empty() {
            let mut vpcs = Vec::new();
            for id in &named {
                let missing = || invalid(format!("The subnet ID '{id}' does not exist"));
                let subnet = view.subnets.get(&Subnet::key_of(scope, id)).ok_or_else(missing)?;
                vpcs.push(subnet.vpc.clone());
            }
            vpcs.dedup();
            if vpcs.len() > 1 {
                return Err(invalid("The subnets of VPCZoneIdentifier must be of one VPC."));
            }
            group.subnets = named;
        } else if !zones.is_empty() {
            let of_zone = |zone: &String| {
                let mut defaults = view.subnets.of(scope).filter(|subnet| subnet.is_default);
                let found = defaults.find(|subnet| subnet.availability_zone == *zone);
                found
                    .map(|subnet| subnet.id.clone())
                    .ok_or_else(|| invalid(format!("No default subnet for availability zone: '{zone}'.")))
            };
            group.subnets = zones.iter().map(of_zone).collect::<Result<_, _>>()?;
        }
        if group.subnets.is_empty() {
            return Err(invalid("At least one Availability Zone or VPC Subnet is required."));
        }
        Ok(())
    }
}

/// A size whose bounds hold.
pub fn checked(size: Size) -> Result<Size, Fault> {
    let Size { min, max, desired } = size;
    if desired < min {
        return Err(invalid(format!("Desired capacity:{desired} must be above or equal to min size:{min}")));
    }
    if desired > max {
        return Err(invalid(format!("Desired capacity:{desired} must be below or equal to max size:{max}")));
    }
    Ok(size)
}

/// What EC2 says of a template, as Auto Scaling answers it.
fn of_ec2(fault: Fault) -> Fault {
    invalid(fault.message)
}
