//! A service of two tasks behind a listener, and one deployment of it: `check` lets time go by and says what traffic the new tasks
//! have.

use super::*;
use crate::testing::{self, Count, apply, listener, scope, target_group as group};
use longshore_model::codedeploy::{Alarms, Revision, Rollback};
use longshore_model::service::Controller;
use longshore_model::task::LaunchType;
use longshore_model::{Tags, Version};

struct World {
    view: View,
    now: Timestamp,
    ids: Count,
    id: String,
}

impl World {
    fn new(change: impl FnOnce(&mut CodeDeployment)) -> Self {
        let mut service = Service {
            controller: Controller::CodeDeploy,
            desired_count: 2,
            deployments: Vec::new(),
            ..testing::service()
        };
        let balancer = ServiceLoadBalancer {
            target_group: group("blue").arn(),
            container: "app".to_owned(),
            port: 80,
            shift: None,
        };
        let first = new_deployment(
            &testing::definition(),
            None,
            None,
            Vec::new(),
            vec![balancer],
            Timestamp(1),
            &mut Count(3),
        );
        service.task_sets.push(TaskSet {
            deployment: first,
            launch_type: LaunchType::Fargate,
            status: TaskSetStatus::Primary,
            scale: TaskSet::FULL_SCALE,
            stable: true,
            stable_at: Timestamp(1),
            external_id: None,
            client_token: None,
            tags: Tags::default(),
        });
        let mut deployment = CodeDeployment {
            scope: scope(),
            id: "d-ONE".to_owned(),
            application: "app".to_owned(),
            group: "main".to_owned(),
            description: None,
            config: String::new(),
            routing: Routing::AllAtOnce,
            settings: Settings {
                config: String::new(),
                role: String::new(),
                cluster: "default".to_owned(),
                service: "web".to_owned(),
                target_groups: ["blue".to_owned(), "green".to_owned()],
                production: listener(80).arn(),
                test: Some(listener(8080).arn()),
                ready_wait: None,
                termination_wait: 0,
                rollback: Rollback { enabled: true, on_failure: true, on_alarm: true, on_request: true },
                alarms: Alarms::default(),
            },
            revision: Revision {
                content: String::new(),
                sha256: None,
                is_string: false,
                family: "web".to_owned(),
                revision: 1,
                container: "app".to_owned(),
                port: 80,
                platform_version: None,
                network: None,
                strategy: Vec::new(),
            },
            status: Status::Created,
            stage: Stage::Begin,
            error: None,
            takes_back: None,
            taken_back_by: None,
            blue: None,
            green: None,
            green_group: 0,
            percent: 0,
            proceeds: false,
            times: Times {
                created_at: Timestamp(1000),
                started_at: None,
                installed_at: None,
                tested_at: None,
                shifting_at: None,
                shifted_at: None,
                completed_at: None,
            },
        };
        change(&mut deployment);
        let id = deployment.id.clone();
        let mut world = Self { view: testing::view(&[]), now: Timestamp(1000), ids: Count(50), id };
        world.write(|transaction| {
            transaction.create(&group("blue"));
            transaction.create(&group("green"));
            transaction.create(&listener(80));
            transaction.create(&listener(8080));
            transaction.create(&service);
            transaction.create(&deployment);
        });
        world
    }

    fn write(&mut self, decide: impl FnOnce(&mut Transaction)) {
        let mut transaction = Transaction::at(Version(0));
        decide(&mut transaction);
        apply(&mut self.view, transaction);
    }

    fn deployment(&self, id: &str) -> CodeDeployment {
        (**self.view.code_deployments.get(&CodeDeployment::key_of(&scope(), id)).unwrap()).clone()
    }

    fn one(&self) -> CodeDeployment {
        self.deployment(&self.id)
    }

    fn service(&self) -> Service {
        (**self.view.service(&scope(), "default", "web").unwrap()).clone()
    }

    /// Steps until nothing moves; the tasks of sets are healthy at once and gone at once.
    fn settle(&mut self) {
        for _ in 0..40 {
            let all: Vec<_> = self.view.code_deployments.iter().cloned().collect();
            for one in all {
                let (view, now) = (self.view.clone(), self.now);
                let mut ids = Count(self.ids.0);
                self.write(|transaction| {
                    reconcile(&view, &one, now, &mut ids, transaction);
                });
                self.ids = ids;
            }
            let mut service = self.service();
            service.task_sets.retain(|set| set.status != TaskSetStatus::Draining);
            service.task_sets.iter_mut().for_each(|set| set.stable = true);
            self.write(|transaction| transaction.update(&service));
            let primary = service.primary_task_set();
            assert!(primary.is_some(), "there is always a set with production traffic");
        }
    }

    fn after(&mut self, minutes: i64) {
        self.now = self.now.plus_millis(minutes * MINUTE);
        self.settle();
    }

    /// What each listener gives the two groups.
    fn weights(&self, port: u16) -> Vec<(String, u32)> {
        let listener = self.view.listeners.iter().find(|found| found.port == port).unwrap();
        let Some(Action::Forward { groups, .. }) = listener.default_actions.first() else {
            panic!("it forwards")
        };
        groups.iter().map(|group| (group.target_group.clone(), group.weight)).collect()
    }
}

fn check(world: &World, status: Status, percent: u32) {
    let one = world.one();
    assert_eq!((one.status, one.percent), (status, percent), "{:?}", one.error);
    let green: u32 =
        world.weights(80).iter().filter(|(name, _)| name == "green").map(|(_, weight)| *weight).sum();
    let all: u32 = world.weights(80).iter().map(|(_, weight)| *weight).sum();
    assert_eq!(green * 100, percent * all, "the listener does as the deployment says");
}

#[test]
fn all_goes_over_at_once_and_the_others_go() {
    let mut world = World::new(|_| ());
    world.settle();
    check(&world, Status::Succeeded, 100);
    assert_eq!(world.weights(80), [("green".to_owned(), 100)]);
    assert_eq!(world.weights(8080), [("green".to_owned(), 100)]);
    let service = world.service();
    assert_eq!(service.task_sets.len(), 1);
    assert_eq!(service.task_sets[0].external_id.as_deref(), Some("d-ONE"));
    let before = world.view.clone();
    world.settle();
    assert!(before.code_deployments.iter().eq(world.view.code_deployments.iter()), "quiet once it is over");
}

#[test]
fn traffic_goes_over_in_steps() {
    let mut canary = World::new(|one| one.routing = Routing::Canary { percent: 10, interval: 5 });
    canary.settle();
    check(&canary, Status::InProgress, 10);
    canary.after(4);
    check(&canary, Status::InProgress, 10);
    canary.after(1);
    check(&canary, Status::Succeeded, 100);
    let mut linear = World::new(|one| one.routing = Routing::Linear { percent: 40, interval: 2 });
    for percent in [40, 80] {
        linear.settle();
        check(&linear, Status::InProgress, percent);
        linear.after(2);
    }
    check(&linear, Status::Succeeded, 100);
}

#[test]
fn steps_are_a_matter_of_time_alone() {
    let at = |minutes: i64| Timestamp(minutes * MINUTE);
    let linear = Routing::Linear { percent: 10, interval: 3 };
    assert_eq!(part(linear, at(0), at(0)), (10, Some(at(3))));
    assert_eq!(part(linear, at(0), at(26)), (90, Some(at(27))));
    assert_eq!(part(linear, at(0), at(27)), (100, None));
    let canary = Routing::Canary { percent: 10, interval: 15 };
    assert_eq!(part(canary, at(1), at(15)), (10, Some(at(16))));
    assert_eq!(part(canary, at(1), at(16)), (100, None));
    assert_eq!(part(Routing::AllAtOnce, at(1), at(1)), (100, None));
}

#[test]
fn it_waits_to_be_continued() {
    let waits = |one: &mut CodeDeployment| one.settings.ready_wait = Some(10);
    let mut world = World::new(waits);
    world.settle();
    check(&world, Status::Ready, 0);
    assert_eq!(world.weights(8080), [("green".to_owned(), 100)]);
    let going = CodeDeployment { proceeds: true, ..world.one() };
    world.write(|transaction| transaction.update(&going));
    world.settle();
    check(&world, Status::Succeeded, 100);
    let mut late = World::new(waits);
    late.settle();
    late.after(10);
    check(&late, Status::Stopped, 0);
    assert_eq!(late.service().task_sets.len(), 1, "and is taken back");
    assert_eq!(late.weights(8080), [("blue".to_owned(), 100)]);
}

#[test]
fn the_tasks_before_are_kept_for_a_while() {
    let mut world = World::new(|one| one.settings.termination_wait = 5);
    world.settle();
    check(&world, Status::InProgress, 100);
    assert_eq!(world.service().task_sets.len(), 2);
    world.after(5);
    check(&world, Status::Succeeded, 100);
    assert_eq!(world.service().task_sets.len(), 1);
}

#[test]
fn one_that_is_stopped_is_taken_back_from_wherever_it_was() {
    for (minutes, wait) in [(0, 0), (1, 0), (6, 9)] {
        let mut world = World::new(|one| {
            one.routing = Routing::Canary { percent: 10, interval: 5 };
            one.settings.termination_wait = wait;
        });
        world.settle();
        world.after(minutes);
        let (view, now, present) = (world.view.clone(), world.now, world.one());
        assert!(present.status.is_under_way());
        world.write(|transaction| stop(&view, &present, None, now, &mut Count(900), transaction));
        world.settle();
        let stopped = world.one();
        assert_eq!(stopped.status, Status::Stopped);
        let back = world.deployment(stopped.taken_back_by.as_deref().unwrap());
        assert_eq!((back.status, back.takes_back.as_deref()), (Status::Succeeded, Some("d-ONE")));
        assert_eq!(world.weights(80), [("blue".to_owned(), 100)]);
        let service = world.service();
        assert_eq!(service.task_sets.len(), 1);
        assert_eq!(service.task_sets[0].external_id, None, "the tasks before are the service's again");
    }
}

#[test]
fn what_an_earlier_one_has_left_goes_first() {
    let mut world = World::new(|one| one.settings.ready_wait = Some(10));
    world.settle();
    let (view, now, present) = (world.view.clone(), world.now, world.one());
    world.write(|transaction| stop(&view, &present, Some(false), now, &mut Count(900), transaction));
    assert_eq!(world.service().task_sets.len(), 2);
    let again = World::new(|one| one.id = "d-TWO".to_owned());
    let again = again.one();
    world.write(|transaction| transaction.create(&again));
    world.id = again.id;
    world.settle();
    check(&world, Status::Succeeded, 100);
    assert_eq!(world.service().task_sets.len(), 1);
}

#[test]
fn new_tasks_that_never_are_healthy_are_given_up() {
    let mut world = World::new(|_| ());
    let step = |world: &mut World| {
        let (view, now, one) = (world.view.clone(), world.now, world.one());
        world.write(|transaction| {
            reconcile(&view, &one, now, &mut Count(70), transaction);
        });
    };
    step(&mut world);
    step(&mut world);
    assert_eq!(world.one().stage, Stage::Install);
    world.now = world.now.plus_millis(INSTALL);
    step(&mut world);
    let failed = world.one();
    assert_eq!(
        (failed.status, failed.error.map(|(code, _)| code)),
        (Status::Failed, Some("TIMEOUT".to_owned()))
    );
    assert!(failed.taken_back_by.is_some());
}
