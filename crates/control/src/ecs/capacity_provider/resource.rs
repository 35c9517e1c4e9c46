//! Capacity providers of one's own, whose capacity are the instances of Auto Scaling groups.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_CreateCapacityProvider.html>.

use super::super::{invalid, is_name, tag};
use super::{FARGATE, FARGATE_SPOT, name, unknown};
use crate::api::Call;
use crate::given_when_present;
use crate::refuse::{Given, unsupported};
use longshore_ecs as ecs;
use longshore_engine::View;
use longshore_model::auto_scaling::AutoScalingGroup;
use longshore_model::capacity_provider::{CapacityProvider, ManagedScaling, UpdateStatus};
use longshore_model::cluster::{Cluster, Status};
use longshore_model::{Record, Scope, Tags};
use std::sync::Arc;

given_when_present!(
    ecs::CreateManagedInstancesProviderConfiguration,
    ecs::UpdateManagedInstancesProviderConfiguration,
);

/// As ECS names them.
const LARGEST_STEP: i32 = 10_000;
const LONGEST_WARMUP: i32 = 10_000;

pub async fn create(
    call: Call,
    request: ecs::CreateCapacityProviderRequest,
) -> Result<ecs::CreateCapacityProviderResponse, ecs::Error> {
    let ecs::CreateCapacityProviderRequest {
        name,
        cluster,
        auto_scaling_group_provider,
        managed_instances_provider,
        tags,
    } = request;
    unsupported(&[
        ("managedInstancesProvider", managed_instances_provider.given()),
        ("cluster", cluster.given()),
    ])
    .map_err(invalid)?;
    check_name(&name)?;
    let ecs::AutoScalingGroupProvider {
        auto_scaling_group_arn,
        managed_draining,
        managed_scaling,
        managed_termination_protection,
    } = auto_scaling_group_provider.ok_or_else(|| {
        invalid("A capacity provider must have an autoScalingGroupProvider or a managedInstancesProvider.")
    })?;
    let mut new = CapacityProvider {
        scope: call.scope().clone(),
        name,
        group_arn: auto_scaling_group_arn,
        group: String::new(),
        managed_scaling: ManagedScaling::default(),
        managed_termination_protection: false,
        managed_draining: true,
        tags: tag::parse(tags)?,
        update_status: UpdateStatus::Created,
        surplus_since: None,
    };
    Changes { managed_scaling, managed_termination_protection, managed_draining }.apply(&mut new)?;
    let commit = call.context.commit::<_, ecs::Error, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        if view.capacity_providers.get(&new.key()).is_some() {
            return Err(ecs::Error::ClientException(
                "The specified capacity provider already exists. To change the configuration of an existing capacity \
                 provider, use the UpdateCapacityProvider API."
                    .to_owned(),
            ));
        }
        let group = group(view, call.scope(), &new.group_arn)?;
        if view.capacity_providers.of(call.scope()).any(|other| other.group_arn == new.group_arn) {
            return Err(ecs::Error::ClientException(
                "The specified Auto Scaling group ARN is already being used by another capacity provider. Specify a unique \
                 Auto Scaling group ARN and try again."
                    .to_owned(),
            ));
        }
        check_protection(&new, group)?;
        let made = CapacityProvider { group: group.name.clone(), ..new.clone() };
        transaction.create(&made);
        transaction.rely_on(group.key());
        Ok(made)
    });
    let made = commit.await?;
    Ok(ecs::CreateCapacityProviderResponse { capacity_provider: Some(render(&made, true)) })
}

fn check_name(name: &str) -> Result<(), ecs::Error> {
    let lower = name.to_ascii_lowercase();
    let reserved = ["aws", "ecs", "fargate"].iter().any(|prefix| lower.starts_with(prefix));
    if is_name(name) && !reserved {
        return Ok(());
    }
    Err(invalid(
        "The specified capacity provider name is invalid. Up to 255 characters are allowed, including letters (upper and \
         lowercase), numbers, underscores, and hyphens. The name can't be prefixed with \"aws\", \"ecs\", or \"fargate\". \
         Specify a valid name and try again.",
    ))
}

/// The group of an ARN; its name alone is taken too, as ECS does.
fn group<'a>(view: &'a View, scope: &Scope, arn: &str) -> Result<&'a Arc<AutoScalingGroup>, ecs::Error> {
    let mut groups = view.auto_scaling_groups.of(scope).filter(|group| !group.deleting);
    groups.find(|group| group.arn() == arn).ok_or_else(|| {
        invalid("The specified Auto Scaling group ARN is invalid or does not exist. Specify a valid ARN and try again.")
    })
}

fn check_protection(provider: &CapacityProvider, group: &AutoScalingGroup) -> Result<(), ecs::Error> {
    if !provider.managed_termination_protection {
        return Ok(());
    }
    if !provider.managed_scaling.enabled {
        return Err(invalid(
            "The managed termination protection setting for the capacity provider is invalid. To enable managed termination \
             protection for a capacity provider, managed scaling must be enabled.",
        ));
    }
    if !group.new_instances_protected {
        return Err(invalid(
            "The managed termination protection setting for the capacity provider is invalid. To enable managed termination \
             protection for a capacity provider, the Auto Scaling group must have instance protection from scale in enabled.",
        ));
    }
    Ok(())
}

/// What is said of a provider's management; what is not said stays.
struct Changes {
    managed_scaling: Option<ecs::ManagedScaling>,
    managed_termination_protection: Option<ecs::ManagedTerminationProtection>,
    managed_draining: Option<ecs::ManagedDraining>,
}

impl Changes {
    fn apply(&self, provider: &mut CapacityProvider) -> Result<(), ecs::Error> {
        if let Some(given) = &self.managed_scaling {
            provider.managed_scaling = scaling(given, provider.managed_scaling)?;
        }
        if let Some(given) = self.managed_termination_protection {
            provider.managed_termination_protection = given == ecs::ManagedTerminationProtection::Enabled;
        }
        if let Some(given) = self.managed_draining {
            provider.managed_draining = given == ecs::ManagedDraining::Enabled;
        }
        Ok(())
    }
}

fn scaling(given: &ecs::ManagedScaling, present: ManagedScaling) -> Result<ManagedScaling, ecs::Error> {
    let number = |field: &str, given: Option<i32>, least: i32, most: i32, present: u32| match given {
        None => Ok(present),
        Some(given) if (least..=most).contains(&given) => Ok(given.unsigned_abs()),
        Some(given) => Err(invalid(format!(
            "managedScaling.{field} must be between {least} and {most}, and is {given}."
        ))),
    };
    let next = ManagedScaling {
        enabled: given.status.map_or(present.enabled, |status| status == ecs::ManagedScalingStatus::Enabled),
        target_capacity: number("targetCapacity", given.target_capacity, 1, 100, present.target_capacity)?,
        minimum_step: number(
            "minimumScalingStepSize",
            given.minimum_scaling_step_size,
            1,
            LARGEST_STEP,
            present.minimum_step,
        )?,
        maximum_step: number(
            "maximumScalingStepSize",
            given.maximum_scaling_step_size,
            1,
            LARGEST_STEP,
            present.maximum_step,
        )?,
        instance_warmup: number(
            "instanceWarmupPeriod",
            given.instance_warmup_period,
            0,
            LONGEST_WARMUP,
            present.instance_warmup,
        )?,
    };
    if next.minimum_step > next.maximum_step {
        return Err(invalid(
            "managedScaling.minimumScalingStepSize must not be larger than maximumScalingStepSize.",
        ));
    }
    Ok(next)
}

/// The provider of one's own that is named.
fn find<'a>(view: &'a View, scope: &Scope, given: &str) -> Result<&'a Arc<CapacityProvider>, ecs::Error> {
    let name = name(given).ok_or_else(unknown)?;
    if [FARGATE, FARGATE_SPOT].contains(&name) {
        return Err(invalid(format!(
            "The capacity provider {name} is AWS's and can be neither changed nor deleted."
        )));
    }
    view.capacity_providers.get(&CapacityProvider::key_of(scope, name)).ok_or_else(unknown)
}

pub async fn update(
    call: Call,
    request: ecs::UpdateCapacityProviderRequest,
) -> Result<ecs::UpdateCapacityProviderResponse, ecs::Error> {
    let ecs::UpdateCapacityProviderRequest {
        name,
        cluster,
        auto_scaling_group_provider,
        managed_instances_provider,
    } = request;
    unsupported(&[
        ("managedInstancesProvider", managed_instances_provider.given()),
        ("cluster", cluster.given()),
    ])
    .map_err(invalid)?;
    let ecs::AutoScalingGroupProviderUpdate {
        managed_draining,
        managed_scaling,
        managed_termination_protection,
    } = auto_scaling_group_provider.unwrap_or_default();
    let changes = Changes { managed_scaling, managed_termination_protection, managed_draining };
    let commit = call.context.commit::<_, ecs::Error, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let mut next = (**find(view, call.scope(), &name)?).clone();
        changes.apply(&mut next)?;
        check_protection(&next, group(view, call.scope(), &next.group_arn)?)?;
        next.update_status = UpdateStatus::Updated;
        transaction.update(&next);
        Ok(next)
    });
    let next = commit.await?;
    Ok(ecs::UpdateCapacityProviderResponse { capacity_provider: Some(render(&next, true)) })
}

pub async fn delete(
    call: Call,
    request: ecs::DeleteCapacityProviderRequest,
) -> Result<ecs::DeleteCapacityProviderResponse, ecs::Error> {
    let ecs::DeleteCapacityProviderRequest { capacity_provider, cluster } = request;
    unsupported(&[("cluster", cluster.given())]).map_err(invalid)?;
    let commit = call.context.commit::<_, ecs::Error, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let present = find(view, call.scope(), &capacity_provider)?;
        let has = |cluster: &&Arc<Cluster>| {
            cluster.status == Status::Active && cluster.capacity_providers.contains(&present.name)
        };
        if let Some(cluster) = view.clusters.of(call.scope()).find(has) {
            return Err(invalid(format!(
                "The capacity provider cannot be deleted because it is associated with cluster: {}. Remove the capacity \
                 provider from the cluster and try again.",
                cluster.name
            )));
        }
        transaction.delete(present.key());
        // It is not associated meanwhile.
        transaction.rely_on_nothing_new_under(format!("{}/{}/", Cluster::TABLE, call.scope().path()));
        Ok((**present).clone())
    });
    let mut gone = render(&commit.await?, true);
    gone.status = Some(ecs::CapacityProviderStatus::Inactive);
    gone.update_status = Some(ecs::CapacityProviderUpdateStatus::DeleteComplete);
    Ok(ecs::DeleteCapacityProviderResponse { capacity_provider: Some(gone) })
}

pub fn render(provider: &CapacityProvider, with_tags: bool) -> ecs::CapacityProvider {
    let scaling = provider.managed_scaling;
    let number = |value: u32| i32::try_from(value).ok();
    let all = scaling.enabled || scaling != ManagedScaling::default();
    let managed_scaling = ecs::ManagedScaling {
        status: Some(match scaling.enabled {
            true => ecs::ManagedScalingStatus::Enabled,
            false => ecs::ManagedScalingStatus::Disabled,
        }),
        target_capacity: number(scaling.target_capacity).filter(|_| all),
        minimum_scaling_step_size: number(scaling.minimum_step).filter(|_| all),
        maximum_scaling_step_size: number(scaling.maximum_step).filter(|_| all),
        instance_warmup_period: number(scaling.instance_warmup).filter(|_| all),
    };
    let tags = if with_tags { provider.tags.clone() } else { Tags::default() };
    ecs::CapacityProvider {
        capacity_provider_arn: Some(provider.arn()),
        name: Some(provider.name.clone()),
        cluster: None,
        status: Some(ecs::CapacityProviderStatus::Active),
        auto_scaling_group_provider: Some(ecs::AutoScalingGroupProvider {
            auto_scaling_group_arn: provider.group_arn.clone(),
            managed_scaling: Some(managed_scaling),
            managed_termination_protection: Some(match provider.managed_termination_protection {
                true => ecs::ManagedTerminationProtection::Enabled,
                false => ecs::ManagedTerminationProtection::Disabled,
            }),
            managed_draining: Some(match provider.managed_draining {
                true => ecs::ManagedDraining::Enabled,
                false => ecs::ManagedDraining::Disabled,
            }),
        }),
        managed_instances_provider: None,
        update_status: Some(match provider.update_status {
            UpdateStatus::Created => ecs::CapacityProviderUpdateStatus::CreateComplete,
            UpdateStatus::Updated => ecs::CapacityProviderUpdateStatus::UpdateComplete,
        }),
        update_status_reason: None,
        tags: Some(tag::render(&tags)),
        r#type: Some(ecs::CapacityProviderType::Ec2Autoscaling),
    }
}
