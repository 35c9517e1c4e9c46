//! Blue/green, linear and canary deployments: the stages that they go through, with what has to agree before each is left.
//!
//! Invariant: until the last stage the revision before keeps all of its tasks, so that at any time before that the traffic
//! can go back to it.
//!
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/blue-green-deployment-how-it-works.html>.

use super::Plan;
use super::deployment::{Cause, current};
use super::seen::Seen;
use crate::view::View;
use longshore_model::id::IdSource;
use longshore_model::service::{
    ALL_TRAFFIC, Deployment, DeploymentConfiguration, HookAction, HookRun, HookStatus, HookTarget, Progress,
    Service, ServiceDeployment, ServiceDeploymentStatus, Stage, Status, hook_id,
};
use longshore_model::{Timestamp, Transaction};

const MINUTE: i64 = 60 * 1000;
/// How long after a call was due it is seen to again, in milliseconds.
const CALLED_AGAIN: i64 = 5000;

/// A function that is to be called for a hook now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookCall {
    pub hook: String,
    /// The function's ARN.
    pub function: String,
    pub stage: Stage,
    /// JSON: what the function wanted to be given, or else what the hook says.
    pub details: Option<String>,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookAnswer {
    Succeeded,
    Failed,
    /// It is to be called again after so many seconds.
    InProgress {
        delay: u32,
        details: Option<String>,
    },
}

/// Why a hook cannot be continued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotPaused {
    /// The deployment has no such hook now.
    NoSuchHook,
    /// It does not wait for a user.
    NotWaiting,
}

/// The deployment of the service that goes on in stages now, with how far it is.
pub fn shift<'a>(view: &'a View, service: &Service) -> Option<(&'a ServiceDeployment, &'a Progress)> {
    let present = under_way(view, service)?;
    let progress = present.progress.as_ref()?;
    (!present.configuration.strategy.is_rolling()).then_some((present, progress))
}

fn under_way<'a>(view: &'a View, service: &Service) -> Option<&'a ServiceDeployment> {
    current(view, service).filter(|present| {
        let target = service.primary().is_some_and(|primary| primary.service_revision == present.target);
        target && present.status == ServiceDeploymentStatus::InProgress
    })
}

/// The revision that has the traffic before.
pub fn source(service: &Service) -> Option<&Deployment> {
    let (_, others) = service.deployments.split_first()?;
    let completed = service.last_completed.as_ref().map(|last| &last.id);
    others.iter().find(|other| Some(&other.id) == completed).or(others.first())
}

/// The revision that keeps its tasks beside the new one for now.
pub(super) fn kept<'a>(view: &View, service: &'a Service) -> Option<&'a Deployment> {
    shift(view, service).filter(|(_, progress)| progress.stage < Stage::CleanUp)?;
    source(service)
}

/// What a deployment's revision gets of the production traffic and of the test traffic, in tenths of a percent.
pub fn traffic(view: &View, service: &Service, deployment: &Deployment) -> (u32, u32) {
    traffic_of(view, None, service, deployment)
}

/// The same with the progress that is about to be written.
pub(super) fn traffic_of(
    view: &View,
    about: Option<&Progress>,
    service: &Service,
    deployment: &Deployment,
) -> (u32, u32) {
    let is_primary = service.primary().is_some_and(|primary| primary.id == deployment.id);
    let all = |is_all: bool| if is_all { ALL_TRAFFIC } else { 0 };
    let Some(progress) = weights(view, service).map(|present| about.unwrap_or(present)) else {
        return (all(is_primary), all(is_primary));
    };
    let source = source(service);
    let left = |share: u32| if source.is_some() { share } else { ALL_TRAFFIC };
    if is_primary {
        return (left(progress.production), left(progress.test));
    }
    let is_source = source.is_some_and(|source| source.id == deployment.id);
    (all(is_source).saturating_sub(progress.production), all(is_source).saturating_sub(progress.test))
}

/// How far the traffic has gone over, of a deployment that is under way or was stopped in the middle.
fn weights<'a>(view: &'a View, service: &Service) -> Option<&'a Progress> {
    let present = current(view, service)?;
    let is_of_primary = service.primary().is_some_and(|primary| primary.service_revision == present.target);
    let is_open =
        matches!(present.status, ServiceDeploymentStatus::InProgress | ServiceDeploymentStatus::Stopped);
    let in_stages = !present.configuration.strategy.is_rolling();
    present.progress.as_ref().filter(|_| is_of_primary && is_open && in_stages)
}

/// How a deployment begins, of a service that has it already; none where it has no stages.
pub(super) fn begin(
    service: &Service,
    configuration: &DeploymentConfiguration,
    now: Timestamp,
    ids: &mut dyn IdSource,
) -> Option<Progress> {
    if configuration.strategy.is_rolling() {
        return None;
    }
    let stage = if is_reconciled(service) { Stage::PreScaleUp } else { Stage::ReconcileService };
    let hooks = hooks(configuration, stage, now, ids);
    Some(Progress { stage, since: now, production: 0, test: 0, hooks })
}

/// Whether only the revision before is left beside the new one.
fn is_reconciled(service: &Service) -> bool {
    let kept = source(service).map(|source| &source.id);
    service.deployments.iter().skip(1).all(|other| Some(&other.id) == kept)
}

fn hooks(
    configuration: &DeploymentConfiguration,
    stage: Stage,
    now: Timestamp,
    ids: &mut dyn IdSource,
) -> Vec<HookRun> {
    let of_stage = configuration.hooks.iter().enumerate().filter(|(_, hook)| hook.stages.contains(&stage));
    let run = |(place, hook): (usize, &longshore_model::service::Hook)| {
        let (kind, status) = match hook.target {
            HookTarget::Pause => ("pause", HookStatus::AwaitingAction),
            HookTarget::Lambda(_) => ("lambda", HookStatus::InProgress),
        };
        HookRun {
            id: hook_id(kind, ids),
            hook: place,
            status,
            call_at: now,
            expires_at: now.plus_millis(i64::from(hook.timeout().minutes) * MINUTE),
            details: None,
        }
    };
    of_stage.map(run).collect()
}

impl Plan {
    /// Takes the deployment one stage or step on where it may go on; gives it up where a hook says so.
    pub(super) fn advance(
        &mut self,
        view: &View,
        target: Option<&Seen>,
        now: Timestamp,
        ids: &mut dyn IdSource,
    ) {
        if self.next.status != Status::Active || self.ended.is_some() {
            return;
        }
        let Some((present, before)) = shift(view, &self.next) else { return };
        let mut progress = before.clone();
        let configuration = &present.configuration;
        run_out(configuration, &mut progress, now);
        if let Some(reason) = refusal(configuration, &progress) {
            self.progress = Some(progress);
            let back = self.next.last_completed.clone().map(|last| *last);
            let back = back.filter(|last| self.next.primary().is_none_or(|primary| primary.id != last.id));
            self.give_up(&Cause::Hook(reason), back, now);
            return;
        }
        let agreed = progress.hooks.iter().all(|run| !run.status.is_open());
        if agreed && is_done(&self.next, configuration, &progress, target, now) {
            go_on(&self.next, configuration, &mut progress, now, ids);
        }
        self.calls = calls(configuration, &progress, now);
        let next_time = next_time(&self.next, configuration, &progress, now);
        self.look_again_at(next_time);
        if progress != *before {
            self.progress = Some(progress);
        }
    }

    /// Whether nothing of the deployment's stages or of its bake time is left, for one that is otherwise done.
    pub(super) fn is_baked(&mut self, view: &View, now: Timestamp) -> bool {
        let Some(present) = under_way(view, &self.next) else { return true };
        if !present.configuration.strategy.is_rolling() {
            let stage = self.progress.as_ref().or(present.progress.as_ref()).map(|progress| progress.stage);
            return stage.is_none_or(|stage| stage == Stage::CleanUp);
        }
        let bake = i64::from(present.configuration.bake_time.unwrap_or(0)) * MINUTE;
        if bake == 0 {
            return true;
        }
        let since = present.progress.as_ref().map(|progress| progress.since);
        let since = since.unwrap_or_else(|| {
            let production = ALL_TRAFFIC;
            let (test, hooks) = (0, Vec::new());
            self.progress = Some(Progress { stage: Stage::BakeTime, since: now, production, test, hooks });
            now
        });
        let until = since.plus_millis(bake);
        self.look_again_at((until > now).then_some(until));
        until <= now
    }
}

/// Hooks that were not done in their time.
fn run_out(configuration: &DeploymentConfiguration, progress: &mut Progress, now: Timestamp) {
    for run in progress.hooks.iter_mut().filter(|run| run.status.is_open() && run.expires_at <= now) {
        let action = configuration.hooks.get(run.hook).map(|hook| hook.timeout().action);
        // One that has run out and is to go on anyway holds nothing up.
        run.status = match action {
            Some(HookAction::Continue) => HookStatus::TimedOut,
            Some(HookAction::Rollback) | None => HookStatus::Failed,
        };
    }
}

/// Why a hook ends the deployment.
fn refusal(configuration: &DeploymentConfiguration, progress: &Progress) -> Option<String> {
    let failed = progress.hooks.iter().find(|run| run.status == HookStatus::Failed)?;
    let stage = progress.stage.as_str();
    Some(match configuration.hooks.get(failed.hook).map(|hook| &hook.target) {
        Some(HookTarget::Lambda(function)) => {
            format!("The lifecycle hook {function} did not succeed at stage {stage}.")
        }
        Some(HookTarget::Pause) | None => {
            format!("The lifecycle hook {} was not continued at stage {stage}.", failed.id)
        }
    })
}

fn is_done(
    service: &Service,
    configuration: &DeploymentConfiguration,
    progress: &Progress,
    target: Option<&Seen>,
    now: Timestamp,
) -> bool {
    match progress.stage {
        Stage::ReconcileService => is_reconciled(service),
        Stage::ScaleUp => target.is_some_and(|seen| seen.missing == 0 && seen.good_healthy >= seen.desired),
        Stage::ProductionTrafficShift | Stage::BakeTime => {
            pause_ends(service, configuration, progress).is_none_or(|until| until <= now)
        }
        Stage::PreScaleUp
        | Stage::PostScaleUp
        | Stage::TestTrafficShift
        | Stage::PostTestTrafficShift
        | Stage::PreProductionTrafficShift
        | Stage::PostProductionTrafficShift => true,
        Stage::CleanUp => false,
    }
}

/// Until when the deployment waits between two steps, or bakes.
fn pause_ends(
    service: &Service,
    configuration: &DeploymentConfiguration,
    progress: &Progress,
) -> Option<Timestamp> {
    let minutes = match progress.stage {
        Stage::ProductionTrafficShift if progress.production < ALL_TRAFFIC => configuration.strategy.pause(),
        // Without a revision before there is nothing to go back to.
        Stage::BakeTime if source(service).is_some() => configuration.bake_time.unwrap_or(0),
        _ => return None,
    };
    Some(progress.since.plus_millis(i64::from(minutes) * MINUTE))
}

/// To the next step of the stage, or to the next stage.
fn go_on(
    service: &Service,
    configuration: &DeploymentConfiguration,
    progress: &mut Progress,
    now: Timestamp,
    ids: &mut dyn IdSource,
) {
    let in_steps = progress.stage == Stage::ProductionTrafficShift && progress.production < ALL_TRAFFIC;
    if !in_steps {
        progress.stage = progress.stage.next();
    }
    progress.since = now;
    progress.hooks = hooks(configuration, progress.stage, now, ids);
    match progress.stage {
        Stage::TestTrafficShift => progress.test = ALL_TRAFFIC,
        // Nobody else could have the traffic of a service's first revision.
        Stage::ProductionTrafficShift if source(service).is_none() => progress.production = ALL_TRAFFIC,
        Stage::ProductionTrafficShift => {
            progress.production = configuration.strategy.next_share(progress.production);
        }
        _ => {}
    }
}

fn calls(configuration: &DeploymentConfiguration, progress: &Progress, now: Timestamp) -> Vec<HookCall> {
    let due = progress.hooks.iter().filter(|run| run.status == HookStatus::InProgress && run.call_at <= now);
    let call = |run: &HookRun| {
        let hook = configuration.hooks.get(run.hook)?;
        let HookTarget::Lambda(function) = &hook.target else { return None };
        Some(HookCall {
            hook: run.id.clone(),
            function: function.clone(),
            stage: progress.stage,
            details: run.details.clone().or_else(|| hook.details.clone()),
        })
    };
    due.filter_map(call).collect()
}

/// When the deployment could go on although nothing has changed.
fn next_time(
    service: &Service,
    configuration: &DeploymentConfiguration,
    progress: &Progress,
    now: Timestamp,
) -> Option<Timestamp> {
    let open = progress.hooks.iter().filter(|run| run.status.is_open());
    let of_hooks = open.flat_map(|run| {
        // A call that is due is most likely under way; one that could not be made then is made later.
        let call_at = if run.call_at > now { run.call_at } else { now.plus_millis(CALLED_AGAIN) };
        [Some(run.expires_at), (run.status == HookStatus::InProgress).then_some(call_at)]
    });
    of_hooks.flatten().chain(pause_ends(service, configuration, progress).filter(|at| *at > now)).min()
}

/// Goes on with a deployment that waits for a user, or gives it up.
pub fn continue_deployment(
    view: &View,
    service: &Service,
    hook: &str,
    action: HookAction,
) -> Result<ServiceDeployment, NotPaused> {
    let status = match action {
        HookAction::Continue => HookStatus::Succeeded,
        HookAction::Rollback => HookStatus::Failed,
    };
    settle(view, service, hook, HookStatus::AwaitingAction, |run| run.status = status)
}

/// Takes in what a function has answered.
pub fn hook_answered(
    view: &View,
    service: &Service,
    hook: &str,
    answer: &HookAnswer,
    now: Timestamp,
) -> Result<ServiceDeployment, NotPaused> {
    settle(view, service, hook, HookStatus::InProgress, |run| match answer {
        HookAnswer::Succeeded => run.status = HookStatus::Succeeded,
        HookAnswer::Failed => run.status = HookStatus::Failed,
        HookAnswer::InProgress { delay, details } => {
            run.call_at = now.plus_millis(i64::from(*delay) * 1000);
            run.details = details.clone().or_else(|| run.details.clone());
        }
    })
}

fn settle(
    view: &View,
    service: &Service,
    hook: &str,
    from: HookStatus,
    change: impl FnOnce(&mut HookRun),
) -> Result<ServiceDeployment, NotPaused> {
    let (present, _) = shift(view, service).ok_or(NotPaused::NoSuchHook)?;
    let mut next = present.clone();
    let runs = next.progress.iter_mut().flat_map(|progress| &mut progress.hooks);
    let run = runs.into_iter().find(|run| run.id == hook).ok_or(NotPaused::NoSuchHook)?;
    if run.status != from {
        return Err(NotPaused::NotWaiting);
    }
    change(run);
    Ok(next)
}

/// Writes what has become of a hook, so that its service is looked at.
pub fn write_hook(service: &Service, deployment: &ServiceDeployment, transaction: &mut Transaction) {
    transaction.update(deployment);
    transaction.update(&Service { version: service.version + 1, ..service.clone() });
}
