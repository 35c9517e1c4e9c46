//! A modelled agent and its machine. It decides as the real one does: it acts on what it was told and on what its
//! runtime says, creates a container once, and removes one only when it is told that its end is recorded.

use longshore_model::link::{
    Assignment, ContainerObservation, ContainerSpec, ContainerState, Goal, Observation, StartFailure,
    StartFailureKind, ToAgent,
};
use longshore_model::{ContainerInstanceId, TaskId, Timestamp};
use std::collections::BTreeMap;

/// What a container runtime holds; it outlives the agent, and a reboot takes its processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Process {
    Running,
    Exited(i32),
    /// The machine restarted: the record is there, the process and its exit code are not.
    Lost,
}

#[derive(Debug)]
pub struct Agent {
    pub instance: ContainerInstanceId,
    pub alive: bool,
    pub linked: bool,
    /// By runtime id, with the task it belongs to.
    pub runtime: BTreeMap<String, (TaskId, Process)>,
    tasks: BTreeMap<TaskId, Task>,
}

#[derive(Debug)]
struct Task {
    told: Assignment,
    containers: BTreeMap<String, ContainerState>,
    started_at: BTreeMap<String, Timestamp>,
    starting: bool,
    failure: Option<StartFailure>,
    released: bool,
    reported: Option<Observation>,
}

/// What the agent wants to happen.
#[derive(Clone, Debug)]
pub enum Wish {
    /// Pull and create, which takes time.
    Start {
        task: TaskId,
    },
    /// Send the stop signal; the process ends some time later.
    Signal {
        runtime_id: String,
    },
    Remove {
        runtime_id: String,
        task: TaskId,
    },
    Report(Observation),
}

impl Agent {
    pub fn new(instance: ContainerInstanceId) -> Self {
        Self { instance, alive: true, linked: false, runtime: BTreeMap::new(), tasks: BTreeMap::new() }
    }

    /// The agent is killed: what it knew is gone, what runs goes on.
    pub fn die(&mut self) {
        self.alive = false;
        self.linked = false;
        self.tasks.clear();
    }

    /// The machine restarts: every process is gone, the runtime's records are not.
    pub fn reboot(&mut self) {
        self.die();
        for (_, process) in self.runtime.values_mut() {
            if *process == Process::Running {
                *process = Process::Lost;
            }
        }
    }

    pub fn hear(&mut self, message: ToAgent) -> Vec<Wish> {
        match message {
            ToAgent::Assigned(all) => {
                let keep: Vec<TaskId> = all.iter().map(|assignment| assignment.task.id).collect();
                self.tasks.retain(|task, _| keep.contains(task));
                let strangers = self.runtime.iter().filter(|(_, (task, _))| !keep.contains(task));
                let removals =
                    strangers.map(|(id, (task, _))| Wish::Remove { runtime_id: id.clone(), task: *task });
                let mut wishes: Vec<Wish> = removals.collect();
                for assignment in all {
                    let task = assignment.task.id;
                    self.tell(assignment);
                    // A new link is told everything again.
                    if let Some(task) = self.tasks.get_mut(&task) {
                        task.reported = None;
                    }
                    wishes.extend(self.converge(task));
                }
                wishes
            }
            ToAgent::Changed { assigned, ended } => {
                let mut wishes = Vec::new();
                for assignment in assigned {
                    let task = assignment.task.id;
                    self.tell(assignment);
                    wishes.extend(self.converge(task));
                }
                for task in ended {
                    self.tasks.remove(&task);
                }
                wishes
            }
            ToAgent::LogsStored { .. } | ToAgent::Firewall(_) => Vec::new(),
        }
    }

    fn tell(&mut self, assignment: Assignment) {
        let id = assignment.task.id;
        if let Some(task) = self.tasks.get_mut(&id) {
            task.told = assignment;
            return;
        }
        let mut task = Task {
            containers: BTreeMap::new(),
            started_at: BTreeMap::new(),
            starting: false,
            failure: None,
            released: false,
            reported: None,
            told: assignment,
        };
        for spec in &task.told.containers {
            task.containers.insert(spec.name.clone(), adopted(spec, self.runtime.get(&spec.runtime_id)));
            if self.runtime.contains_key(&spec.runtime_id) {
                task.started_at.insert(spec.name.clone(), Timestamp(1));
            }
        }
        self.tasks.insert(id, task);
    }

    /// What is to be done for a task now.
    pub fn converge(&mut self, id: TaskId) -> Vec<Wish> {
        let Some(task) = self.tasks.get_mut(&id) else { return Vec::new() };
        let mut wishes = Vec::new();
        match task.told.goal {
            Goal::Run if task.must_stop() => wishes.extend(task.signals()),
            Goal::Run if task.any_waiting() && !task.starting => {
                task.starting = true;
                wishes.push(Wish::Start { task: id });
            }
            Goal::Run => {}
            Goal::Stop => {
                task.forget_unstarted();
                wishes.extend(task.signals());
            }
            Goal::Release if !task.released => {
                task.forget_unstarted();
                task.released = true;
                let specs = task.told.containers.iter();
                wishes
                    .extend(specs.map(|spec| Wish::Remove { runtime_id: spec.runtime_id.clone(), task: id }));
            }
            Goal::Release => {}
        }
        let observation = task.observation();
        if task.reported.as_ref() != Some(&observation) {
            task.reported = Some(observation.clone());
            wishes.push(Wish::Report(observation));
        }
        wishes
    }

    /// The pull is over. Creates the containers that wait, or fails; gives the ids of those created.
    pub fn start(&mut self, id: TaskId, fails: bool, now: Timestamp) -> Vec<String> {
        let Some(task) = self.tasks.get_mut(&id) else { return Vec::new() };
        task.starting = false;
        if task.told.goal != Goal::Run || task.must_stop() {
            return Vec::new();
        }
        if fails {
            task.failure = Some(StartFailure {
                kind: StartFailureKind::CannotPullContainer,
                container: task.told.containers.first().map(|spec| spec.name.clone()),
                message: "the simulated registry is away".to_owned(),
                at: now,
            });
            task.forget_unstarted();
            return Vec::new();
        }
        let mut created = Vec::new();
        for spec in &task.told.containers {
            if task.containers.get(&spec.name) == Some(&ContainerState::Waiting) {
                self.runtime.insert(spec.runtime_id.clone(), (id, Process::Running));
                task.containers.insert(spec.name.clone(), ContainerState::Running);
                task.started_at.insert(spec.name.clone(), now);
                created.push(spec.runtime_id.clone());
            }
        }
        created
    }

    /// The runtime says how a container is; the agent takes it in if it runs.
    pub fn look(&mut self, runtime_id: &str, now: Timestamp) -> Option<TaskId> {
        let (id, process) = self.runtime.get(runtime_id)?.clone();
        let task = self.tasks.get_mut(&id)?;
        let spec = task.told.containers.iter().find(|spec| spec.runtime_id == runtime_id)?;
        if let Process::Exited(code) = process {
            let state = ContainerState::Exited { code, at: now, out_of_memory: false };
            task.containers.insert(spec.name.clone(), state);
        }
        Some(id)
    }
}

/// How an agent that finds a task takes up its container.
fn adopted(spec: &ContainerSpec, found: Option<&(TaskId, Process)>) -> ContainerState {
    let gone = || ContainerState::Gone { reason: Some("the container is gone".to_owned()) };
    match found.map(|(_, process)| process) {
        Some(Process::Running) => ContainerState::Running,
        Some(Process::Exited(code)) => {
            ContainerState::Exited { code: *code, at: Timestamp(1), out_of_memory: false }
        }
        Some(Process::Lost) | None if spec.was_running => gone(),
        Some(Process::Lost) | None => ContainerState::Waiting,
    }
}

impl Task {
    fn must_stop(&self) -> bool {
        let ended = |spec: &ContainerSpec| {
            matches!(
                self.containers.get(&spec.name),
                Some(ContainerState::Exited { .. } | ContainerState::Gone { .. })
            )
        };
        self.failure.is_some() || self.told.containers.iter().any(|spec| spec.essential && ended(spec))
    }

    fn any_waiting(&self) -> bool {
        self.containers.values().any(|state| *state == ContainerState::Waiting)
    }

    fn forget_unstarted(&mut self) {
        for state in self.containers.values_mut().filter(|state| **state == ContainerState::Waiting) {
            *state = ContainerState::Gone { reason: None };
        }
    }

    fn signals(&self) -> Vec<Wish> {
        let running =
            |spec: &&ContainerSpec| self.containers.get(&spec.name) == Some(&ContainerState::Running);
        let ids = self.told.containers.iter().filter(running).map(|spec| spec.runtime_id.clone());
        ids.map(|runtime_id| Wish::Signal { runtime_id }).collect()
    }

    fn observation(&self) -> Observation {
        let containers = self.containers.iter().map(|(name, state)| ContainerObservation {
            name: name.clone(),
            state: state.clone(),
            started_at: self.started_at.get(name).copied(),
            image_digest: None,
            health: longshore_model::task::Health::Unknown,
            restarts: 0,
        });
        Observation {
            task: self.told.task.clone(),
            pull_started_at: None,
            pull_stopped_at: None,
            connected_at: None,
            containers: containers.collect(),
            failure: self.failure.clone(),
            released: self.released,
        }
    }
}
