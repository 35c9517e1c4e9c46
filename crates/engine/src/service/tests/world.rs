//! A service of four instances, and tasks that do what a test says.

use super::*;

/// A cluster of four instances in two zones, one service, and tasks that do what a test says.
pub(super) struct World {
    pub(super) view: View,
    pub(super) now: Timestamp,
    pub(super) ids: Count,
    pub(super) settings: Settings,
    pub(super) said: Vec<String>,
}

pub(super) fn member(number: u128, cpu: u64) -> ContainerInstance {
    let zone = if number.is_multiple_of(2) { "us-east-1a" } else { "us-east-1b" };
    ContainerInstance {
        capacity: Capacity::Cluster(Membership {
            scope: scope(),
            cluster: "default".to_owned(),
            launch_type: LaunchType::Ec2,
            ec2_instance_id: None,
            launched: false,
            capacity_provider: None,
            status: container_instance::Status::Active,
        }),
        attributes: [(ZONE.to_owned(), zone.to_owned())].into(),
        ..instance(number, cpu, 65536)
    }
}

pub(super) fn definition(revision: u32, is_checked: bool) -> TaskDefinition {
    let mut definition = testing::definition();
    definition.network_mode = Some(NetworkMode::Bridge);
    definition.revision = revision;
    let check = || HealthCheck {
        command: vec!["CMD".to_owned(), "true".to_owned()],
        interval: 5,
        timeout: 2,
        retries: 1,
        start_period: None,
    };
    definition.containers[0].health_check = is_checked.then(check);
    definition
}

impl World {
    pub(super) fn new(desired: u32, minimum: u32, maximum: u32) -> Self {
        let instances: Vec<_> = (1..=4).map(|number| member(number, 4096)).collect();
        let mut world = Self {
            view: testing::view(&instances),
            now: Timestamp(1000),
            ids: Count(1 << 40),
            settings: Settings { healthy_after: Duration::ZERO },
            said: Vec::new(),
        };
        let mut service = Service {
            desired_count: desired,
            configuration: DeploymentConfiguration {
                minimum_healthy_percent: minimum,
                maximum_percent: maximum,
                ..DeploymentConfiguration::of(SchedulingStrategy::Replica)
            },
            deployments: Vec::new(),
            ..testing::service()
        };
        world.put(&definition(2, false));
        world.deploy_as(&mut service, &definition(2, false));
        world.put(&service);
        world
    }

    pub(super) fn put(&mut self, record: &impl Record) {
        let mut transaction = Transaction::at(Version(0));
        transaction.update(record);
        apply(&mut self.view, transaction);
    }

    pub(super) fn service(&self) -> Service {
        (**self.view.service(&scope(), "default", "web").unwrap()).clone()
    }

    pub(super) fn change(&mut self, change: impl FnOnce(&mut Service)) {
        let mut service = self.service();
        change(&mut service);
        service.version += 1;
        self.put(&service);
    }

    pub(super) fn deploy(&mut self, revision: u32, is_checked: bool) {
        let definition = definition(revision, is_checked);
        self.put(&definition);
        let mut service = self.service();
        self.deploy_as(&mut service, &definition);
        service.version += 1;
        self.put(&service);
    }

    pub(super) fn deploy_as(&mut self, service: &mut Service, definition: &TaskDefinition) {
        let next = deployment(definition, None, None, Vec::new(), Vec::new(), self.now, &mut self.ids);
        let mut transaction = Transaction::at(Version(0));
        deploy(&self.view, service, next, &mut transaction, &mut self.ids);
        apply(&mut self.view, transaction);
    }

    /// How the service deployments ended, in the order in which they began.
    pub(super) fn ended(&self) -> Vec<ServiceDeploymentStatus> {
        let mut all: Vec<_> = self.view.service_deployments.iter().cloned().collect();
        all.sort_by_key(|deployment| deployment.created_at);
        all.iter().map(|deployment| deployment.status).collect()
    }

    pub(super) fn tasks(&self) -> Vec<Task> {
        self.view
            .tasks
            .iter()
            .map(|task| (**task).clone())
            .filter(|t| t.last_status != LastStatus::Stopped)
            .collect()
    }

    pub(super) fn healthy_of_parts(&self, service: &Service) -> Vec<usize> {
        let seen = |part| Seen::of(&self.view, service, part, self.settings, self.now);
        let healthy = |seen: Seen| seen.tasks.iter().filter(|one| one.standing == Standing::Healthy).count();
        part::parts(&self.view, service).iter().map(|part| healthy(seen(part))).collect()
    }

    /// The fewest healthy tasks and the most tasks of a part, and whose they are where they are not all.
    pub(super) fn bounds(&self, service: &Service, part: &Part<'_>) -> (usize, usize, Option<String>) {
        let of = &service.configuration;
        let deployment = (!part.replaces).then(|| part.deployment.id.clone());
        let maximum = of.maximum(part.desired).max(part.desired);
        (of.minimum(part.desired) as usize, maximum as usize, deployment)
    }

    /// Looks once; what a decision may never do is checked here, whatever the test is about.
    pub(super) fn look(&mut self) -> bool {
        let service = self.service();
        let before = self.healthy_of_parts(&service);
        let plan = reconcile(&self.view, &service, self.settings, self.now, &mut self.ids);
        let mut transaction = Transaction::at(Version(0));
        write(&self.view, &service, &plan, &mut transaction, self.now, &mut self.ids);
        assert_eq!(plan.changes(&service), !transaction.is_empty());
        // Bounds are of what was counted together when the plan was made; a DAEMON service has learned its count then.
        let counted = Service { desired_count: plan.next.desired_count, ..service.clone() };
        let parts = part::parts(&self.view, &counted);
        let bounds: Vec<_> = parts.iter().map(|part| self.bounds(&counted, part)).collect();
        apply(&mut self.view, transaction);
        let after = self.healthy_of_parts(&service);
        for (((minimum, _, _), before), after) in bounds.iter().zip(before).zip(after) {
            assert!(
                service.status != Status::Active || after >= before || after >= *minimum,
                "{after} healthy are left, {minimum} is the minimum: {plan:?}"
            );
        }
        for (_, maximum, deployment) in bounds {
            let of = |task: &&Task| deployment.is_none() || task.started_by == deployment;
            let is_placed = plan.placement.tasks.iter().any(|(task, _)| of(&task));
            let present = self
                .tasks()
                .iter()
                .filter(of)
                .filter(|task| task.last_status < LastStatus::Deprovisioning)
                .count();
            assert!(!is_placed || present <= maximum, "{present} tasks, {maximum} is the maximum: {plan:?}");
        }
        for stop in &plan.stops {
            let why = stop.stop.as_ref().unwrap();
            assert_eq!(why.code, StopCode::ServiceSchedulerInitiated);
            assert!(!why.reason.is_empty() && !plan.said.is_empty());
        }
        assert_eq!(
            plan.placement.tasks.is_empty(),
            !plan.said.iter().any(|said| said.contains("has started"))
        );
        self.said.extend(plan.said.clone());
        plan.changes(&service)
    }

    /// Moves a task one step on; a good one comes up, another ends by itself.
    pub(super) fn advance(&mut self, task: &Task, good: bool) {
        let mut next = task.clone();
        next.version += 1;
        let ends = |next: &mut Task| {
            next.containers.iter_mut().for_each(|c| c.last_status = ContainerStatus::Stopped);
            next.desired_status = DesiredStatus::Stopped;
            next.last_status = LastStatus::Deprovisioning;
        };
        match (task.desired_status, task.last_status) {
            (_, LastStatus::Stopped) => return,
            (_, LastStatus::Deprovisioning) => {
                next.last_status = LastStatus::Stopped;
                next.times.stopped_at = Some(self.now);
            }
            (DesiredStatus::Stopped, _) => ends(&mut next),
            (DesiredStatus::Running, LastStatus::Running) if good => {
                let unknown = next.containers.iter_mut().filter(|c| c.health == Health::Unknown);
                unknown.for_each(|c| c.health = Health::Healthy);
            }
            (DesiredStatus::Running, _) if good => {
                next.last_status = LastStatus::Running;
                next.times.started_at = Some(self.now);
            }
            (DesiredStatus::Running, status) => {
                let code = match status {
                    LastStatus::Running => StopCode::EssentialContainerExited,
                    _ => StopCode::TaskFailedToStart,
                };
                next.stop = Some(Stop { code, reason: "it ended".to_owned() });
                ends(&mut next);
            }
        }
        self.put(&next);
    }

    /// Everything goes well until nothing is left to do.
    pub(super) fn settle(&mut self) {
        for _ in 0..2000 {
            let changed = self.look();
            let before = self.view.tasks.iter().map(|task| task.version).sum::<u64>();
            let moving = |task: &Task| {
                task.desired_status == DesiredStatus::Stopped || task.last_status != LastStatus::Running || {
                    task.containers.iter().any(|c| c.health == Health::Unknown)
                }
            };
            for task in self.tasks().into_iter().filter(moving) {
                self.advance(&task, true);
            }
            self.now = self.now.plus_millis(60_000);
            let mut deployments = self.view.service_deployments.iter();
            let shifts =
                deployments.any(|d| d.status == ServiceDeploymentStatus::InProgress && d.progress.is_some());
            let same = before == self.view.tasks.iter().map(|task| task.version).sum::<u64>();
            if !changed && same && !shifts {
                return;
            }
        }
        panic!(
            "it does not settle: {:?} {:?}",
            self.service(),
            self.said.iter().rev().take(20).collect::<Vec<_>>()
        );
    }

    pub(super) fn revisions(&self) -> Vec<u32> {
        self.tasks().iter().map(|task| task.revision).collect()
    }

    pub(super) fn drain(&mut self, id: u128, status: container_instance::Status) {
        let present = self.view.container_instance(ContainerInstanceId(id)).unwrap();
        let mut next = (**present).clone();
        if let Capacity::Cluster(member) = &mut next.capacity {
            member.status = status;
        }
        self.put(&next);
    }
}

/// What was said, without ids.
pub(super) fn words(world: &World) -> Vec<String> {
    let of = |said: &String| {
        let mut plain = String::new();
        for word in said.split_inclusive(|c: char| !c.is_ascii_hexdigit()) {
            let id = word.trim_end_matches(|c: char| !c.is_ascii_hexdigit());
            let rest = word.strip_prefix(id).unwrap();
            plain.push_str(if id.len() >= 19 { "ID" } else { id });
            plain.push_str(rest);
        }
        plain
    };
    world.said.iter().map(of).collect()
}
