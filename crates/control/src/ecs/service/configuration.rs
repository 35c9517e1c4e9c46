//! The deployment configuration of a service, as requests say it and as describe calls show it.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentConfiguration.html>.

use super::super::invalid;
use crate::refuse::Given;
use longshore_ecs as ecs;
use longshore_model::service::{
    CircuitBreaker, DeploymentAlarms, DeploymentConfiguration, HOOK_TIMEOUT, Hook, HookAction, HookStatus,
    HookTarget, HookTimeout, ServiceDeployment, Stage, Steps, Strategy,
};
use longshore_wire::protocol::{parse_document, write_json};
use longshore_wire::{Timestamp, Value};

/// Minutes for which both revisions run after the traffic went over, where nothing is said.
const BAKE_TIME: u32 = 15;
/// The longest bake time and the longest pause between steps, in minutes.
const LONGEST: u32 = 1440;

pub fn parse(
    given: ecs::DeploymentConfiguration,
    present: DeploymentConfiguration,
) -> Result<DeploymentConfiguration, ecs::Error> {
    let ecs::DeploymentConfiguration {
        deployment_circuit_breaker,
        maximum_percent,
        minimum_healthy_percent,
        alarms,
        strategy,
        bake_time_in_minutes,
        lifecycle_hooks,
        linear_configuration,
        canary_configuration,
    } = given;
    let alarms = alarms.map(deployment_alarms).transpose()?;
    let minimum = percent("minimumHealthyPercent", minimum_healthy_percent, present.minimum_healthy_percent)?;
    let maximum = percent("maximumPercent", maximum_percent, present.maximum_percent)?;
    if minimum > 100 {
        return Err(invalid(format!("minimumHealthyPercent must be at most 100, and is {minimum}.")));
    }
    if maximum < 100 {
        return Err(invalid(format!("maximumPercent must be at least 100, and is {maximum}.")));
    }
    let strategy = strategy_of(strategy, linear_configuration, canary_configuration, present.strategy)?;
    let bake_time = bake_time_in_minutes.map(|given| minutes("bakeTimeInMinutes", given)).transpose()?;
    let hooks = lifecycle_hooks.map(|given| given.into_iter().map(hook).collect()).transpose()?;
    if strategy.is_rolling() && hooks.given() {
        return Err(invalid("Lifecycle hooks are not supported for the deployment strategy ROLLING."));
    }
    let kept = |hooks: Vec<Hook>| if strategy.is_rolling() { Vec::new() } else { hooks };
    Ok(DeploymentConfiguration {
        minimum_healthy_percent: minimum,
        maximum_percent: maximum,
        circuit_breaker: deployment_circuit_breaker
            .map(|given| CircuitBreaker { enable: given.enable, rollback: given.rollback })
            .or(present.circuit_breaker),
        strategy,
        bake_time: bake_time.or(present.bake_time).or((!strategy.is_rolling()).then_some(BAKE_TIME)),
        hooks: hooks.unwrap_or_else(|| kept(present.hooks)),
        alarms: alarms.or(present.alarms),
    })
}

fn deployment_alarms(given: ecs::DeploymentAlarms) -> Result<DeploymentAlarms, ecs::Error> {
    let ecs::DeploymentAlarms { alarm_names: names, enable, rollback } = given;
    if enable && names.is_empty() {
        return Err(invalid("alarmNames must name at least one alarm when alarms are enabled."));
    }
    Ok(DeploymentAlarms { names, enable, rollback })
}

fn percent(field: &str, given: Option<i32>, present: u32) -> Result<u32, ecs::Error> {
    given.map_or(Ok(present), |given| {
        u32::try_from(given).map_err(|_| invalid(format!("{field} must not be negative, and is {given}.")))
    })
}

fn minutes(field: &str, given: i32) -> Result<u32, ecs::Error> {
    let minutes = u32::try_from(given).ok().filter(|minutes| *minutes <= LONGEST);
    minutes.ok_or_else(|| invalid(format!("{field} must be between 0 and {LONGEST}, and is {given}.")))
}

/// What the configuration of linear or canary deployments says, in either's words.
struct StepsSaid {
    share: Option<f64>,
    pause: Option<i32>,
}

fn strategy_of(
    given: Option<ecs::DeploymentStrategy>,
    linear: Option<ecs::LinearConfiguration>,
    canary: Option<ecs::CanaryConfiguration>,
    present: Strategy,
) -> Result<Strategy, ecs::Error> {
    let strategy = given.unwrap_or_else(|| render_strategy(present));
    if linear.is_some() && strategy != ecs::DeploymentStrategy::Linear {
        return Err(invalid("linearConfiguration is only valid for the deployment strategy LINEAR."));
    }
    if canary.is_some() && strategy != ecs::DeploymentStrategy::Canary {
        return Err(invalid("canaryConfiguration is only valid for the deployment strategy CANARY."));
    }
    Ok(match strategy {
        ecs::DeploymentStrategy::Rolling => Strategy::Rolling,
        ecs::DeploymentStrategy::BlueGreen => Strategy::BlueGreen,
        ecs::DeploymentStrategy::Linear => {
            let present =
                if let Strategy::Linear(steps) = present { steps } else { Steps { share: 100, pause: 6 } };
            let said =
                linear.map(|l| StepsSaid { share: l.step_percent, pause: l.step_bake_time_in_minutes });
            Strategy::Linear(steps(["stepPercent", "stepBakeTimeInMinutes"], 30, said, present)?)
        }
        ecs::DeploymentStrategy::Canary => {
            let present =
                if let Strategy::Canary(steps) = present { steps } else { Steps { share: 50, pause: 10 } };
            let said =
                canary.map(|c| StepsSaid { share: c.canary_percent, pause: c.canary_bake_time_in_minutes });
            Strategy::Canary(steps(["canaryPercent", "canaryBakeTimeInMinutes"], 1, said, present)?)
        }
    })
}

/// `least` is the smallest share, in tenths of a percent.
fn steps(
    [share_field, pause_field]: [&str; 2],
    least: u32,
    said: Option<StepsSaid>,
    present: Steps,
) -> Result<Steps, ecs::Error> {
    let Some(said) = said else { return Ok(present) };
    let share = said.share.map_or(Ok(present.share), |given| {
        let wrong = || {
            let least = f64::from(least) / 10.0;
            invalid(format!(
                "{share_field} must be a multiple of 0.1 from {least:.1} to 100.0, and is {given}."
            ))
        };
        tenths(given).filter(|tenths| (least..=1000).contains(tenths)).ok_or_else(wrong)
    })?;
    let pause = said.pause.map_or(Ok(present.pause), |given| minutes(pause_field, given))?;
    Ok(Steps { share, pause })
}

/// A percentage as tenths of a percent, where it is a whole number of them.
fn tenths(percent: f64) -> Option<u32> {
    (0..=1000).find(|tenths| (f64::from(*tenths) / 10.0 - percent).abs() < 1e-6)
}

fn hook(given: ecs::DeploymentLifecycleHook) -> Result<Hook, ecs::Error> {
    let ecs::DeploymentLifecycleHook {
        target_type,
        hook_target_arn,
        role_arn,
        lifecycle_stages,
        hook_details,
        timeout_configuration,
    } = given;
    let target = match (target_type, hook_target_arn.filter(|arn| !arn.is_empty())) {
        (Some(ecs::DeploymentLifecycleHookTargetType::Pause), None) => HookTarget::Pause,
        (Some(ecs::DeploymentLifecycleHookTargetType::Pause), Some(_)) => {
            return Err(invalid("hookTargetArn is not valid for lifecycle hooks of the type PAUSE."));
        }
        (_, Some(function)) if is_function(&function) => HookTarget::Lambda(function),
        (_, given) => {
            let given = given.unwrap_or_default();
            return Err(invalid(format!(
                "hookTargetArn must be the ARN of a Lambda function, and is '{given}'."
            )));
        }
    };
    let stages: Vec<Stage> = lifecycle_stages.unwrap_or_default().into_iter().map(stage).collect();
    if stages.is_empty() {
        return Err(invalid("lifecycleStages must name at least one stage for each lifecycle hook."));
    }
    if hook_details.as_ref().is_some_and(|details| details.as_map().is_none()) {
        return Err(invalid("hookDetails must be a JSON object."));
    }
    let timeout = timeout_configuration.map(|given| HookTimeout {
        minutes: given.timeout_in_minutes.and_then(|m| u32::try_from(m).ok()).unwrap_or(HOOK_TIMEOUT.minutes),
        action: given.action.map_or(HOOK_TIMEOUT.action, action),
    });
    Ok(Hook { target, stages, role: role_arn, details: hook_details.as_ref().map(to_json), timeout })
}

fn is_function(arn: &str) -> bool {
    let parsed = longshore_model::arn::Arn::parse(arn);
    parsed.is_some_and(|arn| arn.service == "lambda" && arn.resource.starts_with("function:"))
}

pub fn action(given: ecs::DeploymentLifecycleHookAction) -> HookAction {
    match given {
        ecs::DeploymentLifecycleHookAction::Rollback => HookAction::Rollback,
        ecs::DeploymentLifecycleHookAction::Continue => HookAction::Continue,
    }
}

fn stage(given: ecs::DeploymentLifecycleHookStage) -> Stage {
    use ecs::DeploymentLifecycleHookStage as Said;
    match given {
        Said::ReconcileService => Stage::ReconcileService,
        Said::PreScaleUp => Stage::PreScaleUp,
        Said::PostScaleUp => Stage::PostScaleUp,
        Said::TestTrafficShift => Stage::TestTrafficShift,
        Said::PostTestTrafficShift => Stage::PostTestTrafficShift,
        Said::PreProductionTrafficShift => Stage::PreProductionTrafficShift,
        Said::ProductionTrafficShift => Stage::ProductionTrafficShift,
        Said::PostProductionTrafficShift => Stage::PostProductionTrafficShift,
    }
}

/// JSON as text; a document that was parsed can always be written.
fn to_json(value: &Value) -> String {
    let mut text = Vec::new();
    write_json(&mut text, value);
    String::from_utf8_lossy(&text).into_owned()
}

pub fn render(c: &DeploymentConfiguration) -> ecs::DeploymentConfiguration {
    let breaker = c.circuit_breaker;
    let percent = |tenths: u32| Some(f64::from(tenths) / 10.0);
    let linear = |steps: Steps| ecs::LinearConfiguration {
        step_percent: percent(steps.share),
        step_bake_time_in_minutes: i32::try_from(steps.pause).ok(),
    };
    let canary = |steps: Steps| ecs::CanaryConfiguration {
        canary_percent: percent(steps.share),
        canary_bake_time_in_minutes: i32::try_from(steps.pause).ok(),
    };
    let (linear_configuration, canary_configuration) = match c.strategy {
        Strategy::Rolling | Strategy::BlueGreen => (None, None),
        Strategy::Linear(steps) => (Some(linear(steps)), None),
        Strategy::Canary(steps) => (None, Some(canary(steps))),
    };
    ecs::DeploymentConfiguration {
        deployment_circuit_breaker: Some(ecs::DeploymentCircuitBreaker {
            enable: breaker.is_some_and(|breaker| breaker.enable),
            rollback: breaker.is_some_and(|breaker| breaker.rollback),
        }),
        maximum_percent: i32::try_from(c.maximum_percent).ok(),
        minimum_healthy_percent: i32::try_from(c.minimum_healthy_percent).ok(),
        alarms: c.alarms.as_ref().map(|alarms| ecs::DeploymentAlarms {
            alarm_names: alarms.names.clone(),
            enable: alarms.enable,
            rollback: alarms.rollback,
        }),
        strategy: Some(render_strategy(c.strategy)),
        bake_time_in_minutes: i32::try_from(c.bake_time.unwrap_or(0)).ok(),
        lifecycle_hooks: (!c.hooks.is_empty()).then(|| c.hooks.iter().map(render_hook).collect()),
        linear_configuration,
        canary_configuration,
    }
}

fn render_strategy(strategy: Strategy) -> ecs::DeploymentStrategy {
    match strategy {
        Strategy::Rolling => ecs::DeploymentStrategy::Rolling,
        Strategy::BlueGreen => ecs::DeploymentStrategy::BlueGreen,
        Strategy::Linear(_) => ecs::DeploymentStrategy::Linear,
        Strategy::Canary(_) => ecs::DeploymentStrategy::Canary,
    }
}

fn render_hook(hook: &Hook) -> ecs::DeploymentLifecycleHook {
    let (target_type, hook_target_arn) = render_target(&hook.target);
    ecs::DeploymentLifecycleHook {
        target_type: Some(target_type),
        hook_target_arn,
        role_arn: hook.role.clone(),
        lifecycle_stages: Some(hook.stages.iter().filter_map(|stage| render_hook_stage(*stage)).collect()),
        hook_details: hook.details.as_ref().and_then(|text| parse_document(text.as_bytes()).ok()),
        timeout_configuration: hook.timeout.map(|timeout| ecs::DeploymentLifecycleHookTimeoutConfiguration {
            timeout_in_minutes: i32::try_from(timeout.minutes).ok(),
            action: Some(render_action(timeout.action)),
        }),
    }
}

fn render_target(target: &HookTarget) -> (ecs::DeploymentLifecycleHookTargetType, Option<String>) {
    match target {
        HookTarget::Pause => (ecs::DeploymentLifecycleHookTargetType::Pause, None),
        HookTarget::Lambda(function) => {
            (ecs::DeploymentLifecycleHookTargetType::AwsLambda, Some(function.clone()))
        }
    }
}

fn render_action(action: HookAction) -> ecs::DeploymentLifecycleHookAction {
    match action {
        HookAction::Rollback => ecs::DeploymentLifecycleHookAction::Rollback,
        HookAction::Continue => ecs::DeploymentLifecycleHookAction::Continue,
    }
}

/// `None` for stages that take no hooks.
fn render_hook_stage(stage: Stage) -> Option<ecs::DeploymentLifecycleHookStage> {
    use ecs::DeploymentLifecycleHookStage as Shown;
    Some(match stage {
        Stage::ReconcileService => Shown::ReconcileService,
        Stage::PreScaleUp => Shown::PreScaleUp,
        Stage::PostScaleUp => Shown::PostScaleUp,
        Stage::TestTrafficShift => Shown::TestTrafficShift,
        Stage::PostTestTrafficShift => Shown::PostTestTrafficShift,
        Stage::PreProductionTrafficShift => Shown::PreProductionTrafficShift,
        Stage::ProductionTrafficShift => Shown::ProductionTrafficShift,
        Stage::PostProductionTrafficShift => Shown::PostProductionTrafficShift,
        Stage::ScaleUp | Stage::BakeTime | Stage::CleanUp => return None,
    })
}

pub fn render_stage(stage: Stage) -> ecs::ServiceDeploymentLifecycleStage {
    use ecs::ServiceDeploymentLifecycleStage as Shown;
    match stage {
        Stage::ReconcileService => Shown::ReconcileService,
        Stage::PreScaleUp => Shown::PreScaleUp,
        Stage::ScaleUp => Shown::ScaleUp,
        Stage::PostScaleUp => Shown::PostScaleUp,
        Stage::TestTrafficShift => Shown::TestTrafficShift,
        // The API shows hooks before the shift as part of the stage before it.
        Stage::PostTestTrafficShift | Stage::PreProductionTrafficShift => Shown::PostTestTrafficShift,
        Stage::ProductionTrafficShift => Shown::ProductionTrafficShift,
        Stage::PostProductionTrafficShift => Shown::PostProductionTrafficShift,
        Stage::BakeTime => Shown::BakeTime,
        Stage::CleanUp => Shown::CleanUp,
    }
}

/// The hooks of the stage that a deployment is in.
pub fn render_hook_details(d: &ServiceDeployment) -> Option<Vec<ecs::DeploymentLifecycleHookDetail>> {
    let runs = &d.progress.as_ref()?.hooks;
    let details = runs.iter().filter_map(|run| {
        let hook = d.configuration.hooks.get(run.hook)?;
        let (target_type, target_arn) = render_target(&hook.target);
        Some(ecs::DeploymentLifecycleHookDetail {
            hook_id: Some(run.id.clone()),
            target_type: Some(target_type),
            target_arn,
            status: Some(match run.status {
                HookStatus::AwaitingAction => ecs::DeploymentLifecycleHookStatus::AwaitingAction,
                HookStatus::InProgress => ecs::DeploymentLifecycleHookStatus::InProgress,
                HookStatus::Succeeded => ecs::DeploymentLifecycleHookStatus::Succeeded,
                HookStatus::Failed => ecs::DeploymentLifecycleHookStatus::Failed,
                HookStatus::TimedOut => ecs::DeploymentLifecycleHookStatus::TimedOut,
            }),
            expires_at: Some(Timestamp(run.expires_at.millis())),
            timeout_action: Some(render_action(hook.timeout().action)),
        })
    });
    Some(details.collect::<Vec<_>>()).filter(|details| !details.is_empty())
}
