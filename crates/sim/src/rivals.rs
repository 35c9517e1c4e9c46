//! Two control planes that decide on one service at once, each on a snapshot that may be old, while its tasks come and go
//! and its user changes it.
//!
//! Invariant: a plan that was made on an old snapshot is refused where another one was carried out since, so that nothing
//! is started twice and no plan makes more tasks than the maximum.

use crate::large::{CLUSTER, Failed, check, definition, empty_service, instance, name, scope};
use crate::random::Random;
use longshore_engine::View;
use longshore_engine::service::{self, Settings};
use longshore_model::change::{Commit, Version, View as _};
use longshore_model::id::IdSource;
use longshore_model::service::Service;
use longshore_model::task::{ContainerStatus, DesiredStatus, LastStatus, Stop, StopCode, Task};
use longshore_model::{ContainerInstanceId, Timestamp, Transaction};
use longshore_store::index::Index;
use std::time::Duration;

const SETTINGS: Settings = Settings { healthy_after: Duration::ZERO };
const INSTANCES: usize = 6;
const STEPS: usize = 400;

/// What two control planes did to one service.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    pub carried_out: usize,
    pub refused: usize,
}

pub fn run(seed: u64) -> Result<Report, Failed> {
    let mut world = World::new(seed)?;
    for _ in 0..STEPS {
        world.step()?;
    }
    world.settle()?;
    Ok(world.report)
}

struct World {
    index: Index,
    view: View,
    /// What each control plane has seen, and when.
    seen: [(Version, View); 2],
    now: Timestamp,
    random: Random,
    report: Report,
}

impl World {
    fn new(seed: u64) -> Result<Self, Failed> {
        let mut world = Self {
            index: Index::default(),
            view: View::default(),
            seen: [(Version(0), View::default()), (Version(0), View::default())],
            now: Timestamp(1_000_000),
            random: Random::new(seed),
            report: Report::default(),
        };
        let mut made = empty_service(0, 4);
        world.write(|transaction, view, random| {
            (1..=2).for_each(|revision| transaction.create(&definition(revision)));
            for number in 0..INSTANCES {
                transaction.create(&instance(number, ContainerInstanceId(random.next_u128())));
            }
            let first =
                service::deployment(&definition(1), None, None, Vec::new(), Vec::new(), Timestamp(1), random);
            service::deploy(view, &mut made, first, transaction, random);
            transaction.create(&made);
        })?;
        Ok(world)
    }

    fn step(&mut self) -> Result<(), Failed> {
        let rival = usize::from(self.random.percent(50));
        match self.random.between(0, 20) {
            0..8 => self.decide(rival),
            8..10 => {
                self.refresh(rival);
                Ok(())
            }
            10..17 => self.advance_one(),
            17 => {
                self.now = self.now.plus_millis(1000);
                Ok(())
            }
            18 => self.change_service(|service, random| {
                service.desired_count = u32::try_from(random.between(0, 9)).unwrap_or(0);
            }),
            _ => self.deploy(),
        }
    }

    fn service(view: &View) -> Result<Service, Failed> {
        let found = view.service(&scope(), CLUSTER, &name(0)).map(|service| (**service).clone());
        found.ok_or_else(|| "the service is gone".into())
    }

    fn refresh(&mut self, rival: usize) {
        let fresh = (self.index.version(), self.view.clone());
        self.seen.get_mut(rival).into_iter().for_each(|seen| *seen = fresh.clone());
    }

    /// One control plane decides on what it has seen; where another was faster it looks anew.
    fn decide(&mut self, rival: usize) -> Result<(), Failed> {
        let Some((version, view)) = self.seen.get(rival).cloned() else { return Ok(()) };
        let Ok(present) = Self::service(&view) else {
            self.refresh(rival);
            return Ok(());
        };
        let plan = service::reconcile(&view, &present, SETTINGS, self.now, &mut self.random);
        let mut transaction = Transaction::at(version);
        service::write(&view, &present, &plan, &mut transaction, self.now, &mut self.random);
        if transaction.is_empty() {
            self.refresh(rival);
            return Ok(());
        }
        if self.commit(transaction.into_commit())? {
            self.report.carried_out += 1;
            let maximum = present.configuration.maximum(plan.next.desired_count).max(plan.next.desired_count);
            let started = !plan.placement.tasks.is_empty();
            check(
                !started || self.present_tasks() <= maximum as usize,
                "no plan makes more tasks than the maximum",
            )
        } else {
            self.report.refused += 1;
            self.refresh(rival);
            Ok(())
        }
    }

    /// Those whose containers may run.
    fn present_tasks(&self) -> usize {
        self.view.tasks.iter().filter(|task| task.last_status < LastStatus::Deprovisioning).count()
    }

    fn advance_one(&mut self) -> Result<(), Failed> {
        let tasks: Vec<Task> = self.unfinished();
        let well = self.random.percent(85);
        match self.random.pick(&tasks).cloned() {
            Some(task) => self.advance(&task, well),
            None => Ok(()),
        }
    }

    fn unfinished(&self) -> Vec<Task> {
        let tasks = self.view.tasks.iter().filter(|task| task.last_status != LastStatus::Stopped);
        tasks.map(|task| (**task).clone()).collect()
    }

    /// A task comes up or, unless all is well with it, ends by itself.
    fn advance(&mut self, task: &Task, well: bool) -> Result<(), Failed> {
        let mut next = task.clone();
        next.version += 1;
        match (task.desired_status, task.last_status) {
            (DesiredStatus::Running, LastStatus::Running) if well => return Ok(()),
            (DesiredStatus::Running, _) if well => {
                next.last_status = LastStatus::Running;
                next.times.started_at = Some(self.now);
                next.containers.iter_mut().for_each(|each| each.last_status = ContainerStatus::Running);
            }
            (_, LastStatus::Deprovisioning) => {
                next.last_status = LastStatus::Stopped;
                next.times.stopped_at = Some(self.now);
            }
            (desired, _) => {
                if desired == DesiredStatus::Running {
                    let reason = "Essential container in task exited".to_owned();
                    next.stop = Some(Stop { code: StopCode::EssentialContainerExited, reason });
                }
                next.desired_status = DesiredStatus::Stopped;
                next.last_status = LastStatus::Deprovisioning;
                next.containers.iter_mut().for_each(|each| each.last_status = ContainerStatus::Stopped);
            }
        }
        self.write(|transaction, _, _| transaction.update(&next))
    }

    fn change_service(&mut self, change: impl FnOnce(&mut Service, &mut Random)) -> Result<(), Failed> {
        let mut next = Self::service(&self.view)?;
        change(&mut next, &mut self.random);
        next.version += 1;
        self.write(|transaction, _, _| transaction.update(&next))
    }

    fn deploy(&mut self) -> Result<(), Failed> {
        let mut next = Self::service(&self.view)?;
        let revision = u32::try_from(self.random.between(1, 3)).unwrap_or(1);
        let now = self.now;
        self.write(|transaction, view, random| {
            let made =
                service::deployment(&definition(revision), None, None, Vec::new(), Vec::new(), now, random);
            service::deploy(view, &mut next, made, transaction, random);
            next.version += 1;
            transaction.update(&next);
        })
    }

    /// With nothing but good news both come to rest, and the service is as it is wanted.
    fn settle(&mut self) -> Result<(), Failed> {
        // The narrow bounds of few tasks may leave a deployment nothing that it could do.
        self.change_service(|service, _| {
            service.configuration.minimum_healthy_percent = 50;
            service.configuration.maximum_percent = 200;
        })?;
        for round in 0..600 {
            let before = self.index.version();
            self.refresh(round % 2);
            self.decide(round % 2)?;
            for task in self.unfinished() {
                self.advance(&task, true)?;
            }
            self.now = self.now.plus_millis(60_000);
            let service = Self::service(&self.view)?;
            if before == self.index.version() && service.steady {
                let right = self.present_tasks() == service.desired_count as usize;
                return check(right && service.deployments.len() == 1, "as many tasks run as are wanted");
            }
        }
        Err("it does not come to rest".into())
    }

    /// Of somebody who sees the newest state.
    fn write(&mut self, change: impl FnOnce(&mut Transaction, &View, &mut Random)) -> Result<(), Failed> {
        let mut transaction = Transaction::at(self.index.version());
        change(&mut transaction, &self.view, &mut self.random);
        let committed = self.commit(transaction.into_commit())?;
        check(committed, "a commit on the newest state is taken")
    }

    /// `false` on a conflict.
    fn commit(&mut self, commit: Commit) -> Result<bool, Failed> {
        let Ok(batch) = self.index.commit(commit)? else { return Ok(false) };
        for change in &batch.changes {
            self.view.apply(change)?;
        }
        Ok(true)
    }
}
