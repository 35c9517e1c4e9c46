//! A service's tasks, part by part, as decisions count them.

use super::failures::{self, Pause};
use super::part::Part;
use super::{Settings, daemon};
use crate::elb::targets;
use crate::lifecycle;
use crate::view::View;
use longshore_model::container_instance;
use longshore_model::service::{Deployment, SchedulingStrategy, Service, Status};
use longshore_model::task::{Health, LastStatus, Task};
use longshore_model::task_definition::TaskDefinition;
use longshore_model::{ContainerInstanceId, Record, Timestamp};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How far a task that is to run has come; those that come first are stopped first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    Starting,
    Unhealthy,
    /// RUNNING, and not for long enough or not checked yet.
    Unproven,
    Healthy,
}

#[derive(Clone, Debug)]
pub struct One {
    pub task: Arc<Task>,
    pub standing: Standing,
    /// Of the part's deployment and on an instance that the service is to stay on.
    pub stays: bool,
}

/// The tasks of a part.
pub struct Seen {
    /// Whether protected tasks are to be kept: a service that is deleted keeps none.
    pub keeps_protected: bool,
    /// Whether its tasks are being spread anew over zones.
    pub rebalances: bool,
    /// The fewest healthy tasks while some are replaced.
    pub minimum: u32,
    pub tasks: Vec<One>,
    pub desired: u32,
    /// Tasks that are to be started.
    pub missing: usize,
    /// How many more tasks there may be.
    pub room: usize,
    /// Tasks that stay and are healthy.
    pub good_healthy: u32,
    /// Tasks that count towards the healthy minimum.
    pub healthy: u32,
    pub stopping: usize,
    pub pause: Option<Pause>,
    pub again_at: Option<Timestamp>,
    /// Of a DAEMON service: those that are to be given a task, and have none of the service.
    pub free_instances: Vec<ContainerInstanceId>,
}

impl Seen {
    pub fn of(view: &View, service: &Service, part: &Part<'_>, settings: Settings, now: Timestamp) -> Self {
        let daemon = service.scheduling_strategy == SchedulingStrategy::Daemon;
        let instances = daemon.then(|| daemon::instances(view, service, part));
        let mut look =
            Look { view, service, part, settings, now, instances, again_at: None, definition: None };
        let (tasks, stopping) = look.tasks();
        let (instances, again_at) = (look.instances, look.again_at);
        let desired = match (service.status, &instances) {
            (Status::Draining | Status::Inactive, _) => 0,
            (Status::Active, Some(instances)) => u32::try_from(instances.len()).unwrap_or(u32::MAX),
            (Status::Active, None) => part.desired,
        };
        let count = |wanted: &dyn Fn(&One) -> bool| tasks.iter().filter(|one| wanted(one)).count();
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let staying = count(&|one| one.stays && one.standing != Standing::Unhealthy);
        let (missing, free_instances) = match &instances {
            None => ((desired as usize).saturating_sub(staying), Vec::new()),
            Some(instances) => daemon::missing(instances, &tasks),
        };
        let present = tasks.len() + stopping;
        let maximum = service.configuration.maximum(desired).max(desired);
        Self {
            keeps_protected: service.status == Status::Active,
            rebalances: service.rebalancing,
            minimum: service.configuration.minimum(desired).min(desired),
            desired,
            missing,
            room: (maximum as usize).saturating_sub(present),
            good_healthy: number(count(&|one| one.stays && one.standing == Standing::Healthy)),
            healthy: number(count(&|one| one.standing == Standing::Healthy)),
            stopping,
            pause: failures::pause(view, service, part),
            again_at,
            free_instances,
            tasks,
        }
    }

    /// Nothing is to be started or stopped, and all that is to run is healthy.
    pub fn is_as_wanted(&self) -> bool {
        self.missing == 0
            && self.stopping == 0
            && self.good_healthy >= self.desired
            && self.tasks.iter().all(|one| one.stays && one.standing == Standing::Healthy)
    }

    /// Tasks are to be replaced, and neither may one more be started nor one be stopped.
    pub fn is_deadlocked(&self) -> bool {
        let under_way = self.stopping > 0
            || self.tasks.iter().any(|one| matches!(one.standing, Standing::Starting | Standing::Unproven));
        self.missing > 0 && self.room == 0 && !under_way && self.tasks.iter().any(|one| !one.stays)
    }
}

struct Look<'a> {
    view: &'a View,
    service: &'a Service,
    part: &'a Part<'a>,
    settings: Settings,
    now: Timestamp,
    instances: Option<BTreeSet<ContainerInstanceId>>,
    again_at: Option<Timestamp>,
    /// That of the task before, which most often is that of the next one.
    definition: Option<Arc<TaskDefinition>>,
}

impl Look<'_> {
    fn tasks(&mut self) -> (Vec<One>, usize) {
        let (view, service, key) = (self.view, self.service, self.service.key());
        let own = self.part.deployment.id.as_str();
        let (mut tasks, mut stopping) = (Vec::new(), 0);
        for (deployment, of) in view.service_tasks().deployments(&key) {
            let current = own == &**deployment;
            if !current && !self.part.replaces {
                continue;
            }
            stopping += of.stopping.len();
            let deployment = super::targets::deployments(service).find(|known| *known.id == **deployment);
            tasks.extend(of.active().map(|task| self.one(task, deployment, current)));
        }
        (tasks, stopping)
    }

    fn one(&mut self, task: &Arc<Task>, deployment: Option<&Deployment>, current: bool) -> One {
        let stays = current && self.may_stay_on(task.container_instance);
        One { task: Arc::clone(task), standing: self.standing(task, deployment), stays }
    }

    fn may_stay_on(&self, id: ContainerInstanceId) -> bool {
        let member = self.view.container_instance(id).and_then(|instance| instance.membership());
        let kept = member.is_none_or(|member| member.status == container_instance::Status::Active);
        kept && self.instances.as_ref().is_none_or(|instances| instances.contains(&id))
    }

    fn standing(&mut self, task: &Task, deployment: Option<&Deployment>) -> Standing {
        if task.last_status != LastStatus::Running {
            return Standing::Starting;
        }
        let behind = deployment.and_then(|deployment| targets::standing(self.view, task, deployment));
        match behind {
            None => self.by_containers(task, true),
            Some(targets::Standing::Healthy) => self.by_containers(task, false),
            Some(targets::Standing::Unhealthy { .. }) => self.unhealthy_target(task),
            Some(targets::Standing::Unknown) => self.by_containers(task, false).min(Standing::Unproven),
        }
    }

    /// What load balancers find counts when the time for the start is over.
    fn unhealthy_target(&mut self, task: &Task) -> Standing {
        let grace = i64::from(self.service.health_check_grace_period.unwrap_or(0)) * 1000;
        let until = task.times.started_at.unwrap_or(task.times.created_at).plus_millis(grace);
        if until <= self.now {
            return Standing::Unhealthy;
        }
        self.again_at = self.again_at.into_iter().chain([until]).min();
        self.by_containers(task, false).min(Standing::Unproven)
    }

    /// By the health checks of containers; where there are none and `by_time`, a task has to run for a while.
    fn by_containers(&mut self, task: &Task, by_time: bool) -> Standing {
        let definition = self.definition(task);
        let is_checked = definition
            .as_ref()
            .is_some_and(|d| d.containers.iter().any(|c| c.essential && c.health_check.is_some()));
        match definition.map_or(Health::Unknown, |definition| lifecycle::health(task, &definition)) {
            Health::Unhealthy => Standing::Unhealthy,
            Health::Healthy => Standing::Healthy,
            Health::Unknown if is_checked => Standing::Unproven,
            Health::Unknown if by_time => self.by_time(task),
            Health::Unknown => Standing::Healthy,
        }
    }

    fn definition(&mut self, task: &Task) -> Option<Arc<TaskDefinition>> {
        let same =
            |known: &&Arc<TaskDefinition>| known.revision == task.revision && known.family == task.family;
        if self.definition.as_ref().filter(same).is_none() {
            self.definition = self.view.task_definition(&task.scope, &task.family, task.revision).cloned();
        }
        self.definition.clone()
    }

    /// What is checked by nothing has to run for a while.
    fn by_time(&mut self, task: &Task) -> Standing {
        let wait = i64::try_from(self.settings.healthy_after.as_millis()).unwrap_or(i64::MAX);
        let since = task.times.started_at.unwrap_or(task.times.created_at);
        let at = since.plus_millis(wait);
        if at <= self.now {
            return Standing::Healthy;
        }
        self.again_at = self.again_at.into_iter().chain([at]).min();
        Standing::Unproven
    }
}
