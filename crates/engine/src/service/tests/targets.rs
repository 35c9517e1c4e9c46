//! Services behind load balancers: what is checked is what a load balancer would see.

use super::*;
use crate::elb::targets;
use longshore_model::elb::{Action, HealthState, Listener, Target, TargetGroup, TargetHealth};
use longshore_model::service::{NetworkConfiguration, ServiceLoadBalancer, TrafficShift};
use longshore_model::task_definition::NetworkMode;

fn group(name: &str) -> TargetGroup {
    testing::target_group(name)
}

fn listener() -> Listener {
    testing::listener(80)
}

fn balancer(shifts: bool) -> ServiceLoadBalancer {
    let shift = || TrafficShift {
        alternate_target_group: group("green").arn(),
        production_rule: listener().arn(),
        test_rule: None,
        role: "arn:aws:iam::123456789012:role/r".to_owned(),
    };
    ServiceLoadBalancer {
        target_group: group("blue").arn(),
        container: "app".to_owned(),
        port: 8080,
        shift: shifts.then(shift),
    }
}

impl World {
    fn behind(desired: u32, shifts: bool) -> Self {
        let mut world = Self::new(desired, 100, 200);
        for name in ["blue", "green"] {
            world.put(&group(name));
        }
        world.put(&listener());
        for revision in [2, 3] {
            world.put(&TaskDefinition {
                network_mode: Some(NetworkMode::Awsvpc),
                ..definition(revision, false)
            });
        }
        let network = world.network();
        world.change(|service| {
            let first = service.deployments.first_mut().unwrap();
            first.network = Some(network);
            first.load_balancers = vec![balancer(shifts)];
        });
        world
    }

    fn network(&self) -> NetworkConfiguration {
        NetworkConfiguration {
            subnets: self.view.subnets.iter().map(|subnet| subnet.id.clone()).collect(),
            security_groups: Vec::new(),
            assign_public_ip: false,
        }
    }

    fn targets(&self) -> Vec<Target> {
        self.view.targets.iter().map(|target| (**target).clone()).collect()
    }

    fn in_group(&self, name: &str) -> usize {
        let open = |target: &Target| target.deregistered_at.is_none();
        self.targets().iter().filter(|target| target.target_group == group(name).id && open(target)).count()
    }

    fn find(&mut self, state: HealthState) {
        for target in self.targets() {
            let health = TargetHealth { state, ..TargetHealth::healthy() };
            self.put(&Target { health, ..target });
        }
    }

    /// Load balancers find all targets healthy, and those that leave have no requests.
    fn serve(&mut self) {
        self.find(HealthState::Healthy);
        for target in self.targets().into_iter().filter(|target| target.deregistered_at.is_some()) {
            let mut transaction = Transaction::at(Version(0));
            targets::remove(&self.view, &target, &mut transaction);
            apply(&mut self.view, transaction);
        }
    }

    /// A minute in which all goes well.
    fn serve_a_minute(&mut self) {
        self.look();
        for task in self.tasks() {
            let is_draining = task.last_status == LastStatus::Deactivating;
            let is_up =
                task.last_status == LastStatus::Running && task.desired_status == DesiredStatus::Running;
            if !is_draining && !is_up {
                self.advance(&task, true);
            }
        }
        self.serve();
        self.now = self.now.plus_millis(60_000);
    }

    fn up(desired: u32, shifts: bool) -> Self {
        let mut world = Self::behind(desired, shifts);
        (0..5).for_each(|_| world.serve_a_minute());
        world
    }

    fn shares(&self) -> Vec<(String, u32)> {
        let listener = self.view.listeners.iter().next().unwrap();
        let Action::Forward { groups, .. } = listener.default_actions.last().unwrap() else { panic!() };
        groups.iter().map(|group| (group.target_group.clone(), group.weight)).collect()
    }
}

#[test]
fn a_running_task_is_registered_and_healthy_when_the_load_balancer_says_so() {
    let mut world = World::behind(2, false);
    for _ in 0..4 {
        world.look();
        for task in world.tasks().iter().filter(|task| task.last_status != LastStatus::Running) {
            world.advance(task, true);
        }
        world.now = world.now.plus_millis(60_000);
    }
    let targets = world.targets();
    assert_eq!(targets.len(), 2);
    assert!(targets.iter().all(|target| target.port == 8080 && target.health.state == HealthState::Initial));
    assert_eq!(world.service().primary().unwrap().rollout_state, RolloutState::InProgress);
    world.find(HealthState::Healthy);
    world.look();
    assert_eq!(world.service().primary().unwrap().rollout_state, RolloutState::Completed);
    let registered = format!("(service web) registered 2 targets in (target-group {})", group("blue").arn());
    assert!(world.said.contains(&registered), "{:?}", world.said);
    assert!(!world.look());
}

#[test]
fn an_unhealthy_target_has_its_task_replaced_once_the_grace_period_is_over() {
    let mut world = World::up(1, false);
    world.change(|service| service.health_check_grace_period = Some(3600));
    let started = world.tasks()[0].times.started_at.unwrap();
    world.find(HealthState::Unhealthy);
    world.look();
    assert_eq!(world.tasks().len(), 1, "the grace period is not over");
    world.now = started.plus_millis(3_600_000);
    world.look();
    assert_eq!(world.tasks().len(), 2, "the replacement comes first");
    let unhealthy = world.tasks().iter().find(|task| task.last_status == LastStatus::Running).unwrap().id;
    // The new one is healthy, the other stays as it is.
    for _ in 0..4 {
        for task in world.tasks().iter().filter(|task| task.id != unhealthy) {
            world.advance(task, true);
        }
        let of_others = |target: &Target| target.task.as_ref().is_some_and(|task| task.id != unhealthy);
        for target in world.targets().into_iter().filter(of_others) {
            world.put(&Target { health: TargetHealth::healthy(), ..target });
        }
        world.look();
    }
    let stopped = world.tasks().into_iter().find(|task| task.id == unhealthy).unwrap();
    let reason = stopped.stop.unwrap().reason;
    assert_eq!(reason, format!("Task failed ELB health checks in (target-group {})", group("blue").arn()));
    assert!(world.said.iter().any(|said| said.contains("(port 8080) is unhealthy in (target-group")));
}

#[test]
fn a_task_that_is_stopped_waits_for_its_requests() {
    let mut world = World::up(2, false);
    world.change(|service| service.desired_count = 1);
    world.look();
    let draining: Vec<_> =
        world.tasks().into_iter().filter(|task| task.desired_status == DesiredStatus::Stopped).collect();
    assert_eq!(draining.iter().map(|task| task.last_status).collect::<Vec<_>>(), [LastStatus::Deactivating]);
    assert_eq!(lifecycle::goal(&draining[0]), longshore_model::link::Goal::Run);
    assert_eq!(world.in_group("blue"), 1);
    world.serve();
    let stopping = world.view.tasks.get(&draining[0].key()).unwrap();
    assert_eq!(stopping.last_status, LastStatus::Stopping);
    assert_eq!(lifecycle::goal(stopping), longshore_model::link::Goal::Stop);
    assert_eq!(world.targets().len(), 1);
    let words = words(&world);
    assert!(
        words.iter().any(|said| said.contains("has begun draining connections on 1 tasks.")),
        "{words:?}"
    );
    assert!(words.iter().any(|said| said.contains("deregistered 1 targets in (target-group")), "{words:?}");
}

#[test]
fn a_task_whose_targets_are_gone_otherwise_is_not_waited_for() {
    let mut world = World::up(1, false);
    world.change(|service| service.desired_count = 0);
    world.look();
    for target in world.targets() {
        let mut transaction = Transaction::at(Version(0));
        transaction.delete(target.key());
        apply(&mut world.view, transaction);
    }
    world.look();
    assert_eq!(world.tasks()[0].last_status, LastStatus::Stopping);
}

#[test]
fn blue_green_moves_the_traffic_between_the_groups_and_back_with_the_next() {
    let mut world = World::up(2, true);
    assert_eq!((world.in_group("blue"), world.in_group("green")), (2, 0));
    assert_eq!(world.shares(), [("blue".to_owned(), 1)]);
    world.change(|service| {
        service.configuration.strategy = Strategy::BlueGreen;
        service.configuration.bake_time = Some(5);
    });
    for (revision, from, to) in [(3, "blue", "green"), (2, "green", "blue")] {
        let definition = world.view.task_definition(&scope(), "web", revision).unwrap().clone();
        let mut service = world.service();
        let (network, balancers) = (world.network(), vec![balancer(true)]);
        let next = deployment(
            &definition,
            Some(network),
            None,
            Vec::new(),
            balancers,
            world.now,
            &mut Count(u128::from(revision) << 60),
        );
        let mut transaction = Transaction::at(Version(0));
        deploy(&world.view, &mut service, next, &mut transaction, &mut Count(u128::from(revision) << 61));
        apply(&mut world.view, transaction);
        service.version += 1;
        world.put(&service);
        let mut both = false;
        for _ in 0..30 {
            world.serve_a_minute();
            let shares = world.shares();
            let share = |name: &str| shares.iter().find(|(group, _)| group == name).map_or(0, |(_, w)| *w);
            if share(to) > 0 {
                assert_eq!(world.in_group(to), 2, "what gets traffic has its targets: {shares:?}");
                assert_eq!(share(from), 0);
            }
            both |= world.in_group(from) == 2 && world.in_group(to) == 2;
        }
        assert!(both, "both revisions run side by side");
        assert_eq!((world.in_group(from), world.in_group(to)), (0, 2));
        assert_eq!(world.service().primary().unwrap().rollout_state, RolloutState::Completed);
        let shares = world.shares();
        assert!(
            shares.contains(&(to.to_owned(), 100)) && shares.contains(&(from.to_owned(), 0)),
            "{shares:?}"
        );
    }
}
