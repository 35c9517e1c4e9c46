//! What calls say of deployment groups, and how it is shown. Creating and updating a group take the same; what an update does not
//! say stays as it is.

use super::{config, refuse};
use crate::given_when_present;
use crate::refuse::Given;
use longshore_codedeploy as cd;
use longshore_engine::View;
use longshore_model::Scope;
use longshore_model::codedeploy::{Alarms, Rollback, Settings};
use longshore_model::elb::TargetGroup;
use longshore_model::service::{Controller, Status};
use longshore_wire::Fault;

given_when_present!(
    cd::EC2TagFilter,
    cd::EC2TagSet,
    cd::TagFilter,
    cd::OnPremisesTagSet,
    cd::TriggerConfig,
    cd::ELBInfo,
    cd::TargetGroupInfo,
);

/// The largest wait, in minutes: two days.
const LONGEST: i32 = 2880;
const DEFAULT_CONFIG: &str = "CodeDeployDefault.ECSAllAtOnce";

/// What a call said; `None` where it was silent.
pub struct Said {
    pub config: Option<String>,
    pub role: Option<String>,
    pub services: Option<Vec<cd::ECSService>>,
    pub balancers: Option<cd::LoadBalancerInfo>,
    pub style: Option<cd::DeploymentStyle>,
    pub blue_green: Option<cd::BlueGreenDeploymentConfiguration>,
    pub rollback: Option<cd::AutoRollbackConfiguration>,
    pub alarms: Option<cd::AlarmConfiguration>,
}

/// Fields of groups of the other compute platforms.
pub struct OfServers {
    pub auto_scaling_groups: Option<Vec<String>>,
    pub ec2_tag_filters: Option<Vec<cd::EC2TagFilter>>,
    pub ec2_tag_set: Option<cd::EC2TagSet>,
    pub on_premises_instance_tag_filters: Option<Vec<cd::TagFilter>>,
    pub on_premises_tag_set: Option<cd::OnPremisesTagSet>,
    pub termination_hook_enabled: Option<bool>,
    pub trigger_configurations: Option<Vec<cd::TriggerConfig>>,
}

impl OfServers {
    pub fn refuse(&self) -> Result<(), Fault> {
        refuse(&[
            ("autoScalingGroups", self.auto_scaling_groups.given()),
            ("ec2TagFilters", self.ec2_tag_filters.given()),
            ("ec2TagSet", self.ec2_tag_set.given()),
            ("onPremisesInstanceTagFilters", self.on_premises_instance_tag_filters.given()),
            ("onPremisesTagSet", self.on_premises_tag_set.given()),
            ("terminationHookEnabled", self.termination_hook_enabled.given()),
            ("triggerConfigurations", self.trigger_configurations.given()),
        ])
    }
}

impl Said {
    /// The settings of a group after a call, checked against what is there.
    pub fn apply(&self, view: &View, scope: &Scope, present: Option<&Settings>) -> Result<Settings, Fault> {
        self.check_style(present.is_none())?;
        let config = self.config.clone().filter(|name| !name.is_empty());
        let config =
            config.or_else(|| present.map(|p| p.config.clone())).unwrap_or_else(|| DEFAULT_CONFIG.to_owned());
        config::routing(view, scope, &config)?;
        let role = self.role.clone().or_else(|| present.map(|p| p.role.clone())).unwrap_or_default();
        if !role.starts_with("arn:aws:iam::") {
            let message = format!("The service role ARN must be that of an IAM role, and is '{role}'.");
            return Err(cd::Error::InvalidRoleException(message).into());
        }
        let (cluster, service) = match (&self.services, present) {
            (Some(given), _) => service(view, scope, given)?,
            (None, Some(present)) => (present.cluster.clone(), present.service.clone()),
            (None, None) => return Err(no_service()),
        };
        let (target_groups, production, test) = match (&self.balancers, present) {
            (Some(given), _) => pair(view, scope, given.clone())?,
            (None, Some(p)) => (p.target_groups.clone(), p.production.clone(), p.test.clone()),
            (None, None) => return Err(no_pair("loadBalancerInfo is required.")),
        };
        let (ready_wait, termination_wait) = match (&self.blue_green, present) {
            (Some(given), _) => waits(given.clone())?,
            (None, Some(present)) => (present.ready_wait, present.termination_wait),
            (None, None) => {
                let message = "blueGreenDeploymentConfiguration is required for ECS.".to_owned();
                return Err(cd::Error::InvalidBlueGreenDeploymentConfigurationException(message).into());
            }
        };
        Ok(Settings {
            config,
            role,
            cluster,
            service,
            target_groups,
            production,
            test,
            ready_wait,
            termination_wait,
            rollback: match &self.rollback {
                Some(given) => rollback(given)?,
                None => present.map(|p| p.rollback.clone()).unwrap_or_default(),
            },
            alarms: match &self.alarms {
                Some(given) => alarms(given.clone()),
                None => present.map(|p| p.alarms.clone()).unwrap_or_default(),
            },
        })
    }

    fn check_style(&self, required: bool) -> Result<(), Fault> {
        let wanted = (Some(cd::DeploymentType::BlueGreen), Some(cd::DeploymentOption::WithTrafficControl));
        let fits = self
            .style
            .as_ref()
            .map_or(!required, |style| (style.deployment_type, style.deployment_option) == wanted);
        if fits {
            return Ok(());
        }
        let message = "ECS needs the deploymentStyle BLUE_GREEN with WITH_TRAFFIC_CONTROL.".to_owned();
        Err(cd::Error::InvalidDeploymentStyleException(message).into())
    }
}

fn no_service() -> Fault {
    cd::Error::InvalidECSServiceException("Exactly one ECS service must be given.".to_owned()).into()
}

fn service(view: &View, scope: &Scope, given: &[cd::ECSService]) -> Result<(String, String), Fault> {
    let [cd::ECSService { cluster_name, service_name }] = given else { return Err(no_service()) };
    let cluster =
        cluster_name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned());
    let name = service_name.clone().ok_or_else(no_service)?;
    let found = view.service(scope, &cluster, &name).filter(|found| found.status != Status::Inactive);
    let wrong = |message: String| Fault::from(cd::Error::InvalidECSServiceException(message));
    let found = found
        .ok_or_else(|| wrong(format!("The ECS service {name} was not found in the cluster {cluster}.")))?;
    if found.controller != Controller::CodeDeploy {
        return Err(wrong(format!(
            "Deployment group's ECS service must be configured for a CODE_DEPLOY deployment controller: {name} is not."
        )));
    }
    Ok((cluster, name))
}

fn no_pair(message: &str) -> Fault {
    cd::Error::InvalidTargetGroupPairException(message.to_owned()).into()
}

type Pair = ([String; 2], String, Option<String>);

fn pair(view: &View, scope: &Scope, given: cd::LoadBalancerInfo) -> Result<Pair, Fault> {
    let cd::LoadBalancerInfo { elb_info_list, target_group_info_list, target_group_pair_info_list } = given;
    refuse(&[
        ("loadBalancerInfo.elbInfoList", elb_info_list.given()),
        ("loadBalancerInfo.targetGroupInfoList", target_group_info_list.given()),
    ])?;
    let mut pairs = target_group_pair_info_list.unwrap_or_default();
    let (Some(pair), true) = (pairs.pop(), pairs.is_empty()) else {
        return Err(no_pair("Exactly one target group pair must be given."));
    };
    let cd::TargetGroupPairInfo { prod_traffic_route, target_groups, test_traffic_route } = pair;
    let names: Vec<String> =
        target_groups.unwrap_or_default().into_iter().filter_map(|group| group.name).collect();
    let names: [String; 2] =
        names.try_into().map_err(|_| no_pair("A target group pair must have two target groups."))?;
    for name in &names {
        if view.target_groups.get(&TargetGroup::key_of(scope, name)).is_none() {
            return Err(no_pair(&format!("The target group {name} does not exist.")));
        }
    }
    let [first, second] = &names;
    if first == second {
        return Err(no_pair("The two target groups must differ."));
    }
    let listener = |route: Option<cd::TrafficRoute>| -> Result<Option<String>, Fault> {
        let mut arns = route.and_then(|route| route.listener_arns).unwrap_or_default();
        let arn = arns.pop();
        if !arns.is_empty() {
            return Err(no_pair("A traffic route must have one listener."));
        }
        match arn {
            Some(arn) if !view.listeners.of(scope).any(|listener| listener.arn() == arn) => {
                Err(no_pair(&format!("The listener {arn} does not exist.")))
            }
            other => Ok(other),
        }
    };
    let production = listener(prod_traffic_route)?;
    let production = production.ok_or_else(|| no_pair("A target group pair needs a prodTrafficRoute."))?;
    Ok((names, production, listener(test_traffic_route)?))
}

fn waits(given: cd::BlueGreenDeploymentConfiguration) -> Result<(Option<u32>, u32), Fault> {
    let cd::BlueGreenDeploymentConfiguration {
        deployment_ready_option,
        // Of instances.
        green_fleet_provisioning_option: _,
        terminate_blue_instances_on_deployment_success: terminate,
    } = given;
    let wrong = |message: &str| {
        Fault::from(cd::Error::InvalidBlueGreenDeploymentConfigurationException(message.to_owned()))
    };
    let minutes = |given: Option<i32>| match given.unwrap_or(0) {
        minutes if (0..=LONGEST).contains(&minutes) => Ok(minutes.unsigned_abs()),
        _ => Err(wrong("A wait time must be 0 to 2880 minutes.")),
    };
    let ready = deployment_ready_option.unwrap_or_default();
    let wait = minutes(ready.wait_time_in_minutes)?;
    let ready_wait = match ready.action_on_timeout {
        Some(cd::DeploymentReadyAction::StopDeployment) => Some(wait),
        Some(cd::DeploymentReadyAction::ContinueDeployment) | None if wait == 0 => None,
        _ => return Err(wrong("A wait time must not be given with CONTINUE_DEPLOYMENT.")),
    };
    let cd::BlueInstanceTerminationOption { action, termination_wait_time_in_minutes } =
        terminate.unwrap_or_default();
    if action == Some(cd::InstanceAction::KeepAlive) {
        return Err(wrong(
            "The original task set of an ECS deployment is terminated: action must be TERMINATE.",
        ));
    }
    Ok((ready_wait, minutes(termination_wait_time_in_minutes)?))
}

pub fn rollback(given: &cd::AutoRollbackConfiguration) -> Result<Rollback, Fault> {
    let events = given.events.clone().unwrap_or_default();
    let enabled = given.enabled.unwrap_or(false);
    if enabled && events.is_empty() {
        let message = "An automatic rollback needs at least one event.".to_owned();
        return Err(cd::Error::InvalidAutoRollbackConfigException(message).into());
    }
    Ok(Rollback {
        enabled,
        on_failure: events.contains(&cd::AutoRollbackEvent::DeploymentFailure),
        on_alarm: events.contains(&cd::AutoRollbackEvent::DeploymentStopOnAlarm),
        on_request: events.contains(&cd::AutoRollbackEvent::DeploymentStopOnRequest),
    })
}

pub fn alarms(given: cd::AlarmConfiguration) -> Alarms {
    let cd::AlarmConfiguration { alarms, enabled, ignore_poll_alarm_failure } = given;
    Alarms {
        enabled: enabled.unwrap_or(false),
        ignore_poll_failure: ignore_poll_alarm_failure.unwrap_or(false),
        names: alarms.unwrap_or_default().into_iter().filter_map(|alarm| alarm.name).collect(),
    }
}

pub fn render_rollback(given: &Rollback) -> cd::AutoRollbackConfiguration {
    let events = [
        (given.on_failure, cd::AutoRollbackEvent::DeploymentFailure),
        (given.on_alarm, cd::AutoRollbackEvent::DeploymentStopOnAlarm),
        (given.on_request, cd::AutoRollbackEvent::DeploymentStopOnRequest),
    ];
    cd::AutoRollbackConfiguration {
        enabled: Some(given.enabled),
        events: Some(events.into_iter().filter_map(|(set, event)| set.then_some(event)).collect()),
    }
}

pub fn render_alarms(given: &Alarms) -> cd::AlarmConfiguration {
    cd::AlarmConfiguration {
        alarms: Some(given.names.iter().map(|name| cd::Alarm { name: Some(name.clone()) }).collect()),
        enabled: Some(given.enabled),
        ignore_poll_alarm_failure: Some(given.ignore_poll_failure),
    }
}

pub fn render_style() -> cd::DeploymentStyle {
    cd::DeploymentStyle {
        deployment_option: Some(cd::DeploymentOption::WithTrafficControl),
        deployment_type: Some(cd::DeploymentType::BlueGreen),
    }
}

pub fn render_balancers(settings: &Settings) -> cd::LoadBalancerInfo {
    let route = |arn: &String| cd::TrafficRoute { listener_arns: Some(vec![arn.clone()]) };
    let group = |name: &String| cd::TargetGroupInfo { name: Some(name.clone()) };
    cd::LoadBalancerInfo {
        elb_info_list: None,
        target_group_info_list: None,
        target_group_pair_info_list: Some(vec![cd::TargetGroupPairInfo {
            prod_traffic_route: Some(route(&settings.production)),
            target_groups: Some(settings.target_groups.iter().map(group).collect()),
            test_traffic_route: settings.test.as_ref().map(route),
        }]),
    }
}

pub fn render_waits(settings: &Settings) -> cd::BlueGreenDeploymentConfiguration {
    let minutes = |given: u32| i32::try_from(given).ok();
    cd::BlueGreenDeploymentConfiguration {
        deployment_ready_option: Some(cd::DeploymentReadyOption {
            action_on_timeout: Some(match settings.ready_wait {
                Some(_) => cd::DeploymentReadyAction::StopDeployment,
                None => cd::DeploymentReadyAction::ContinueDeployment,
            }),
            wait_time_in_minutes: minutes(settings.ready_wait.unwrap_or(0)),
        }),
        green_fleet_provisioning_option: None,
        terminate_blue_instances_on_deployment_success: Some(cd::BlueInstanceTerminationOption {
            action: Some(cd::InstanceAction::Terminate),
            termination_wait_time_in_minutes: minutes(settings.termination_wait),
        }),
    }
}
