//! Deployments in stages: what is checked is what a user could see at any minute of them.

use super::*;
use crate::service::stages::{
    HookAnswer, NotPaused, continue_deployment, hook_answered, shift, traffic, write_hook,
};
use longshore_model::service::{
    Hook, HookAction, HookStatus, HookTarget, HookTimeout, ServiceDeployment, Stage, Steps, Strategy,
};

const FUNCTION: &str = "arn:aws:lambda:us-east-1:000000000000:function:agrees";

fn world(strategy: Strategy, bake_time: u32, hooks: Vec<Hook>) -> World {
    let mut world = World::new(3, 100, 200);
    world.settle();
    world.change(|service| {
        service.configuration.strategy = strategy;
        service.configuration.bake_time = Some(bake_time);
        service.configuration.hooks = hooks;
    });
    world.settle();
    world.now = world.now.plus_millis(1);
    world
}

fn hook(target: HookTarget, stage: Stage, timeout: Option<HookTimeout>) -> Hook {
    Hook { target, stages: vec![stage], role: None, details: Some("{\"a\":1}".to_owned()), timeout }
}

impl World {
    /// A minute in which everything goes well, but for what is to fail.
    fn minute(&mut self, fails: impl Fn(&Task) -> bool) -> Plan {
        let service = self.service();
        let plan = reconcile(&self.view, &service, self.settings, self.now, &mut Count(1 << 50));
        self.look();
        for task in self.tasks() {
            let up = task.desired_status == DesiredStatus::Running && task.last_status == LastStatus::Running;
            if !up || fails(&task) {
                self.advance(&task, !fails(&task));
            }
        }
        self.now = self.now.plus_millis(60_000);
        plan
    }

    fn stage(&self) -> Option<Stage> {
        shift(&self.view, &self.service()).map(|(_, progress)| progress.stage)
    }

    fn traffic(&self, revision: u32) -> (u32, u32) {
        let service = self.service();
        let of = |deployment: &&Deployment| deployment.revision == revision;
        let found = service.deployments.iter().find(of);
        found.map_or((0, 0), |deployment| traffic(&self.view, &service, deployment))
    }

    fn running(&self, revision: u32) -> usize {
        let up = |task: &&Task| {
            task.revision == revision
                && task.desired_status == DesiredStatus::Running
                && task.last_status == LastStatus::Running
        };
        self.tasks().iter().filter(up).count()
    }

    /// Goes on until the deployment is over or has waited for long; what it went through, each once.
    fn watch(&mut self) -> Vec<(Stage, u32, u32)> {
        let mut seen = Vec::new();
        for _ in 0..40 {
            self.minute(|_| false);
            let Some(stage) = self.stage() else { continue };
            let (production, test) = self.traffic(3);
            if seen.last() != Some(&(stage, production, test)) {
                seen.push((stage, production, test));
            }
            if stage < Stage::CleanUp {
                assert_eq!(self.running(2), 3, "{stage:?}: the revision before keeps its tasks");
                let (blue, test_of_blue) = self.traffic(2);
                assert_eq!((blue + production, test_of_blue + test), (1000, 1000), "{stage:?}");
            }
            if production > 0 {
                assert_eq!(self.running(3), 3, "{stage:?}: what gets traffic has all of its tasks");
            }
        }
        seen
    }

    fn hooks(&self) -> Vec<(String, HookStatus)> {
        let service = self.service();
        let runs = shift(&self.view, &service).map(|(_, progress)| progress.hooks.clone());
        runs.unwrap_or_default().into_iter().map(|run| (run.id, run.status)).collect()
    }

    fn settle_hook(
        &mut self,
        settle: impl Fn(&View, &Service) -> Result<ServiceDeployment, NotPaused>,
    ) -> Result<(), NotPaused> {
        let service = self.service();
        let next = settle(&self.view, &service)?;
        let mut transaction = Transaction::at(Version(0));
        write_hook(&service, &next, &mut transaction);
        apply(&mut self.view, transaction);
        Ok(())
    }

    fn finished(&self) -> (Vec<u32>, ServiceDeploymentStatus, usize) {
        (self.revisions(), *self.ended().last().unwrap(), self.service().deployments.len())
    }
}

#[test]
fn each_strategy_shifts_the_traffic_in_its_steps_and_keeps_the_revision_before_until_the_end() {
    let steps = |share| Steps { share, pause: 2 };
    let cases = [
        (Strategy::BlueGreen, vec![1000]),
        (Strategy::Linear(steps(300)), vec![300, 600, 900, 1000]),
        (Strategy::Canary(steps(50)), vec![50, 1000]),
    ];
    for (strategy, shares) in cases {
        let mut world = world(strategy, 3, Vec::new());
        world.deploy(3, false);
        let mut expected = vec![
            (Stage::PreScaleUp, 0, 0),
            (Stage::ScaleUp, 0, 0),
            (Stage::PostScaleUp, 0, 0),
            (Stage::TestTrafficShift, 0, 1000),
            (Stage::PostTestTrafficShift, 0, 1000),
            (Stage::PreProductionTrafficShift, 0, 1000),
        ];
        expected.extend(shares.iter().map(|share| (Stage::ProductionTrafficShift, *share, 1000)));
        let last = [Stage::PostProductionTrafficShift, Stage::BakeTime, Stage::CleanUp];
        expected.extend(last.map(|stage| (stage, 1000, 1000)));
        let mut seen = world.watch();
        if seen.first().is_some_and(|(stage, ..)| *stage != Stage::PreScaleUp) {
            seen.insert(0, (Stage::PreScaleUp, 0, 0));
        }
        assert_eq!(seen, expected, "{strategy:?}");
        assert_eq!(world.finished(), (vec![3; 3], ServiceDeploymentStatus::Successful, 1), "{strategy:?}");
        assert!(!world.look());
    }
}

#[test]
fn a_first_revision_has_all_of_the_traffic_and_nothing_to_bake_beside() {
    let mut world = World::new(2, 100, 200);
    world.change(|service| {
        service.configuration.strategy = Strategy::Canary(Steps { share: 50, pause: 1000 });
        service.configuration.bake_time = Some(1000);
        service.deployments.clear();
    });
    world.now = world.now.plus_millis(1);
    world.deploy(3, false);
    for _ in 0..30 {
        world.minute(|_| false);
    }
    assert_eq!(world.finished(), (vec![3; 2], ServiceDeploymentStatus::Successful, 1));
    assert_eq!(world.traffic(3), (1000, 1000));
}

#[test]
fn a_pause_is_left_by_a_user_or_by_its_time() {
    let timeout = |action| Some(HookTimeout { minutes: 5, action });
    let cases = [
        (Some(HookAction::Continue), timeout(HookAction::Rollback), 3),
        (Some(HookAction::Rollback), timeout(HookAction::Continue), 2),
        (None, timeout(HookAction::Rollback), 2),
        (None, timeout(HookAction::Continue), 3),
    ];
    for (action, timeout, revision) in cases {
        let pause = hook(HookTarget::Pause, Stage::PostProductionTrafficShift, timeout);
        let mut world = world(Strategy::BlueGreen, 0, vec![pause]);
        world.deploy(3, false);
        let waits = |world: &World| world.stage() == Some(Stage::PostProductionTrafficShift);
        for _ in 0..20 {
            if !waits(&world) {
                world.minute(|_| false);
            }
        }
        assert_eq!(world.traffic(3), (1000, 1000));
        world.minute(|_| false);
        assert!(waits(&world), "it waits");
        let (id, status) = world.hooks()[0].clone();
        assert_eq!((id.starts_with("ecs-pause-"), status), (true, HookStatus::AwaitingAction));
        if let Some(action) = action {
            let unknown =
                world.settle_hook(|view, s| continue_deployment(view, s, "ecs-pause-other", action));
            assert_eq!(unknown, Err(NotPaused::NoSuchHook));
            assert_eq!(world.settle_hook(|view, s| continue_deployment(view, s, &id, action)), Ok(()));
            let again = world.settle_hook(|view, s| continue_deployment(view, s, &id, action));
            assert_eq!(again, Err(NotPaused::NotWaiting));
        }
        for minute in 0..15 {
            world.minute(|_| false);
            if minute == 0 && action == Some(HookAction::Rollback) {
                assert_eq!((world.traffic(2), world.traffic(3)), ((1000, 1000), (0, 0)), "at once");
            }
        }
        let ended = if revision == 3 {
            ServiceDeploymentStatus::Successful
        } else {
            ServiceDeploymentStatus::RollbackSuccessful
        };
        assert_eq!(world.finished(), (vec![revision; 3], ended, 1), "{action:?} {timeout:?}");
    }
}

#[test]
fn a_function_is_called_until_it_answers_and_is_given_what_it_wants() {
    for answer in [HookAnswer::Succeeded, HookAnswer::Failed] {
        let function = hook(HookTarget::Lambda(FUNCTION.to_owned()), Stage::PreScaleUp, None);
        let mut world = world(Strategy::BlueGreen, 0, vec![function]);
        world.deploy(3, false);
        let calls = world.minute(|_| false).calls;
        assert_eq!((calls.len(), calls[0].function.as_str()), (1, FUNCTION));
        assert_eq!((calls[0].stage, calls[0].details.as_deref()), (Stage::PreScaleUp, Some("{\"a\":1}")));
        let id = calls[0].hook.clone();
        let wait = HookAnswer::InProgress { delay: 180, details: Some("[2]".to_owned()) };
        let now = world.now;
        world.settle_hook(|view, s| hook_answered(view, s, &id, &wait, now)).unwrap();
        assert!(world.minute(|_| false).calls.is_empty(), "not before its time");
        (0..2).for_each(|_| drop(world.minute(|_| false)));
        let again = world.minute(|_| false).calls;
        assert_eq!((again.len(), again[0].details.as_deref()), (1, Some("[2]")));
        assert_eq!(world.running(3), 0, "nothing is started before it agrees");
        let now = world.now;
        world.settle_hook(|view, s| hook_answered(view, s, &id, &answer, now)).unwrap();
        world.watch();
        let (revision, ended) = match answer {
            HookAnswer::Succeeded => (3, ServiceDeploymentStatus::Successful),
            _ => (2, ServiceDeploymentStatus::RollbackSuccessful),
        };
        assert_eq!(world.finished(), (vec![revision; 3], ended, 1));
        let refused = world.said.iter().any(|said| said.contains("a lifecycle hook did not succeed"));
        assert_eq!(refused, answer == HookAnswer::Failed);
    }
}

#[test]
fn a_deployment_in_the_middle_of_another_clears_it_away_first() {
    let mut world = world(Strategy::BlueGreen, 10, Vec::new());
    world.deploy(3, false);
    for _ in 0..20 {
        if world.stage() != Some(Stage::BakeTime) {
            world.minute(|_| false);
        }
    }
    world.deploy(4, false);
    assert_eq!(world.stage(), Some(Stage::ReconcileService));
    assert_eq!((world.traffic(2), world.traffic(3), world.traffic(4)), ((1000, 1000), (0, 0), (0, 0)));
    for _ in 0..40 {
        world.minute(|_| false);
        if world.stage().is_some_and(|stage| (Stage::PreScaleUp..Stage::CleanUp).contains(&stage)) {
            assert_eq!((world.running(2), world.running(3)), (3, 0));
        }
    }
    assert_eq!(world.finished(), (vec![4; 3], ServiceDeploymentStatus::Successful, 1));
}

#[test]
fn both_revisions_are_kept_whole_while_both_run() {
    let mut world = world(Strategy::BlueGreen, 30, Vec::new());
    world.deploy(3, false);
    for _ in 0..20 {
        world.minute(|_| false);
    }
    assert_eq!((world.stage(), world.running(2), world.running(3)), (Some(Stage::BakeTime), 3, 3));
    let first_of =
        |world: &World, revision| world.tasks().into_iter().find(|t| t.revision == revision).unwrap();
    for revision in [2, 3] {
        let gone = first_of(&world, revision);
        world.minute(|task| task.id == gone.id);
    }
    world.change(|service| service.desired_count = 4);
    (0..5).for_each(|_| drop(world.minute(|_| false)));
    assert_eq!((world.stage(), world.running(2), world.running(3)), (Some(Stage::BakeTime), 4, 4));
}

#[test]
fn a_rolling_deployment_with_a_bake_time_is_over_after_it() {
    let mut world = world(Strategy::Rolling, 10, Vec::new());
    world.deploy(3, false);
    (0..5).for_each(|_| drop(world.minute(|_| false)));
    assert_eq!(world.revisions(), [3; 3]);
    assert_eq!(world.service().primary().unwrap().rollout_state, RolloutState::InProgress);
    (0..15).for_each(|_| drop(world.minute(|_| false)));
    assert_eq!(world.service().primary().unwrap().rollout_state, RolloutState::Completed);
}

#[test]
fn the_traffic_of_a_deployment_that_is_stopped_stays_where_it_is() {
    let mut world = world(Strategy::BlueGreen, 0, vec![hook(HookTarget::Pause, Stage::PreScaleUp, None)]);
    world.deploy(3, false);
    world.minute(|_| false);
    let service = world.service();
    let plan = stop_deployment(&service, Stopped::Aborted, world.now).unwrap();
    let mut transaction = Transaction::at(Version(0));
    write(&world.view, &service, &plan, &mut transaction, world.now, &mut world.ids);
    apply(&mut world.view, transaction);
    (0..5).for_each(|_| drop(world.minute(|_| false)));
    assert_eq!((world.running(2), world.running(3)), (3, 0));
    assert_eq!((world.traffic(2), world.traffic(3)), ((1000, 1000), (0, 0)));
}
