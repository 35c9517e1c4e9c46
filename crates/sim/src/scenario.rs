//! One history: users run and stop tasks and drain instances, containers end, agents die and return, links are cut,
//! machines restart, some for good as far as their tasks go, clocks jump, decisions race.

use crate::agent::{Agent, Process, Wish};
use crate::cluster::{Cluster, Kind, Operation, task_of};
use crate::properties::{Properties, Violation};
use crate::random::Random;
use longshore_engine::assignment;
use longshore_model::change::{Batch, Commit};
use longshore_model::id::{IdSource, stable_hash};
use longshore_model::link::ToAgent;
use longshore_model::task::DesiredStatus;
use longshore_model::{ContainerInstanceId, Resources, TaskId, Timestamp};
use std::collections::BTreeMap;

/// How large a history is, and how hostile.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub instances: usize,
    /// Calls of users.
    pub calls: usize,
    /// Agents that die, links that are cut, machines that restart, instances that drain and clocks that jump.
    pub faults: usize,
}

/// What happened, for comparing two runs of one seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub tasks: usize,
    pub commits: u64,
    pub conflicts: u64,
    pub steps: u64,
    /// A hash of everything that happened, in its order.
    pub trace: u64,
}

/// Runs a history. The error names the property that does not hold, with the last events.
pub fn run(seed: u64, scenario: Scenario) -> Result<Report, String> {
    let mut world = World::new(seed, scenario);
    let outcome = world.play(scenario);
    outcome.map_err(|Violation(what)| {
        let last: Vec<&str> = world.recent.iter().map(String::as_str).collect();
        format!("seed {seed}: {what}\nthe last events:\n{}", last.join("\n"))
    })
}

#[derive(Clone, Debug)]
enum Event {
    Call,
    Fault,
    /// A control plane reads a snapshot and decides.
    Decide(Operation),
    /// What it decided arrives at the store.
    Commit(Box<Commit>, Operation),
    /// A message arrives over a link of this generation.
    Deliver {
        to: usize,
        link: u64,
        message: ToAgent,
    },
    /// An image was pulled.
    Pulled {
        by: usize,
        life: u64,
        task: TaskId,
    },
    /// A process ends by itself, or because it was told to.
    Exit {
        on: usize,
        id: String,
        code: i32,
    },
    Return {
        agent: usize,
    },
}

struct World {
    random: Random,
    /// Milliseconds since the beginning, by which things happen.
    now: u64,
    /// How far the clock that everybody reads is off.
    skew: i64,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    cluster: Cluster,
    agents: Vec<Agent>,
    by_instance: BTreeMap<ContainerInstanceId, usize>,
    /// Counts each agent's lives; what an earlier life began is forgotten with it.
    lives: Vec<u64>,
    /// Counts each agent's links; what was sent over an earlier one is lost with it.
    links: Vec<u64>,
    /// When the last message to each agent arrives: a link keeps their order.
    arrivals: Vec<u64>,
    properties: Properties,
    report: Report,
    recent: std::collections::VecDeque<String>,
}

const DAY: u64 = 24 * 3600 * 1000;

/// The time of day at the beginning.
const BEGINNING: i64 = 1_800_000_000_000;

/// Events that a failure shows.
const SHOWN: usize = 40;

impl World {
    fn new(seed: u64, scenario: Scenario) -> Self {
        let mut random = Random::new(seed);
        let ids: Vec<ContainerInstanceId> =
            (0..scenario.instances).map(|_| random.container_instance()).collect();
        let size = Resources { cpu: 256 * 8, memory: 512 * 6 };
        let cluster = Cluster::new(&ids, size, &mut random);
        Self {
            now: 1_000,
            skew: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            cluster,
            agents: ids.iter().map(|id| Agent::new(*id)).collect(),
            by_instance: ids.iter().enumerate().map(|(number, id)| (*id, number)).collect(),
            lives: vec![0; ids.len()],
            links: vec![0; ids.len()],
            arrivals: vec![0; ids.len()],
            properties: Properties::default(),
            report: Report { tasks: 0, commits: 0, conflicts: 0, steps: 0, trace: 0 },
            recent: std::collections::VecDeque::new(),
            random,
        }
    }

    fn play(&mut self, scenario: Scenario) -> Result<Report, Violation> {
        for agent in 0..self.agents.len() {
            self.after(0, 50, Event::Return { agent });
        }
        for _ in 0..scenario.calls {
            self.after(100, 60_000, Event::Call);
        }
        for _ in 0..scenario.faults {
            self.after(1_000, 60_000, Event::Fault);
        }
        self.drain()?;
        self.everybody_returns()?;
        self.properties.converged(&self.cluster.view)?;
        self.stays_quiet()?;
        self.report.tasks = self.cluster.view.tasks.len();
        self.report.commits = self.cluster.version().0;
        Ok(self.report.clone())
    }

    fn drain(&mut self) -> Result<(), Violation> {
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = self.now.max(at);
            self.note(&event);
            self.step(event)?;
        }
        Ok(())
    }

    fn everybody_returns(&mut self) -> Result<(), Violation> {
        for agent in 0..self.agents.len() {
            self.after(0, 50, Event::Return { agent });
        }
        self.drain()
    }

    /// Quiet once converged: telling everybody everything again changes nothing.
    fn stays_quiet(&mut self) -> Result<(), Violation> {
        let before = self.cluster.version();
        for agent in 0..self.agents.len() {
            self.tell_everything(agent);
        }
        self.drain()?;
        if self.cluster.version() == before {
            return Ok(());
        }
        Err(Violation(format!(
            "something is done when nothing changes: {before} became {}",
            self.cluster.version()
        )))
    }

    fn step(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Call => self.call(),
            Event::Fault => self.fault(),
            Event::Decide(operation) => {
                let now = self.clock();
                if let Some(commit) = self.cluster.decide(&operation, now, &mut self.random) {
                    self.after(0, 30, Event::Commit(Box::new(commit), operation));
                }
            }
            Event::Commit(commit, operation) => return self.commit(*commit, operation),
            Event::Deliver { to, link, message } => {
                let heard =
                    self.agents.get_mut(to).filter(|agent| agent.linked && self.links.get(to) == Some(&link));
                let wishes = heard.map(|agent| agent.hear(message)).unwrap_or_default();
                return self.grant(to, wishes);
            }
            Event::Pulled { by, life, task } => return self.pulled(by, life, task),
            Event::Exit { on, id, code } => return self.exit(on, &id, code),
            Event::Return { agent } => self.connect(agent),
        }
        Ok(())
    }

    fn call(&mut self) {
        let running: Vec<TaskId> = self
            .cluster
            .view
            .tasks
            .iter()
            .filter(|task| task.desired_status == DesiredStatus::Running)
            .map(|task| task.id)
            .collect();
        let stop = self.random.percent(40);
        let operation = match self.random.pick(&running) {
            Some(task) if stop => Operation::Stop { task: *task },
            Some(_) | None => {
                let kind = self.random.pick(&Kind::ALL).copied().unwrap_or(Kind::Fargate);
                Operation::Run { kind, count: self.random.between(1, 11) as u32 }
            }
        };
        self.after(0, 5, Event::Decide(operation));
    }

    fn fault(&mut self) {
        if self.random.percent(20) {
            // To any time of the day before or after: back beyond what records already say.
            self.skew = self.random.between(0, 2 * DAY) as i64 - DAY as i64;
            return;
        }
        let agent = self.random.between(0, self.agents.len() as u64) as usize;
        if self.random.percent(20) {
            self.drain_for_a_while(agent);
            return;
        }
        let fate = self.random.between(0, 10);
        let Some(victim) = self.agents.get_mut(agent).filter(|victim| victim.alive && victim.linked) else {
            return;
        };
        let instance = victim.instance;
        match fate {
            0..3 => {
                victim.reboot();
                let ids: Vec<String> = victim.runtime.keys().cloned().collect();
                ids.iter().for_each(|id| self.properties.ended(id));
            }
            3..6 => victim.linked = false,
            _ => victim.die(),
        }
        self.after(10, 3_000, Event::Decide(Operation::Disconnected { instance }));
        // Some are given up before they return.
        let away = if self.random.percent(30) { 40_000 } else { 20_000 };
        self.after(20_000, 30_000, Event::Decide(Operation::Lose { instance }));
        self.after(100, away, Event::Return { agent });
    }

    fn drain_for_a_while(&mut self, agent: usize) {
        let Some(instance) = self.agents.get(agent).map(|agent| agent.instance) else { return };
        self.after(0, 5, Event::Decide(Operation::Drain { instance, draining: true }));
        self.after(100, 20_000, Event::Decide(Operation::Drain { instance, draining: false }));
    }

    fn connect(&mut self, agent: usize) {
        let Some(returning) = self.agents.get_mut(agent) else { return };
        let instance = returning.instance;
        if !returning.alive
            && let Some(life) = self.lives.get_mut(agent)
        {
            *life += 1;
        }
        if !returning.linked
            && let Some(link) = self.links.get_mut(agent)
        {
            *link += 1;
        }
        returning.alive = true;
        returning.linked = true;
        self.after(0, 5, Event::Decide(Operation::Register { instance }));
        self.tell_everything(agent);
    }

    fn tell_everything(&mut self, agent: usize) {
        let Some(instance) = self.agents.get(agent).map(|agent| agent.instance) else { return };
        let all = assignment::all_of(&self.cluster.view, instance);
        self.send(agent, ToAgent::Assigned(all));
    }

    /// Messages of one link arrive in their order.
    fn send(&mut self, to: usize, message: ToAgent) {
        let link = self.links.get(to).copied().unwrap_or_default();
        let delay = self.random.between(1, 40);
        let at = self.arrivals.get(to).copied().unwrap_or_default().max(self.now + delay);
        if let Some(arrival) = self.arrivals.get_mut(to) {
            *arrival = at;
        }
        self.at(at, Event::Deliver { to, link, message });
    }

    fn commit(&mut self, commit: Commit, operation: Operation) -> Result<(), Violation> {
        let Some(batch) = self.cluster.commit(commit) else {
            self.report.conflicts += 1;
            self.after(0, 5, Event::Decide(operation));
            return Ok(());
        };
        self.properties.committed(&self.cluster.view, &batch)?;
        if matches!(operation, Operation::Run { .. }) {
            let tasks = batch.changes.iter().filter_map(|change| task_of(change.key.as_str()));
            tasks.for_each(|task| self.properties.acknowledge(task));
        }
        self.tell_changes(&batch);
        Ok(())
    }

    fn tell_changes(&mut self, batch: &Batch) {
        for change in &batch.changes {
            let Some(task) = self.cluster.view.tasks.get(&change.key).cloned() else { continue };
            let Some(agent) = self.by_instance.get(&task.container_instance).copied() else { continue };
            let message = match assignment::of(&self.cluster.view, &task).filter(|_| task.holds_resources()) {
                Some(assignment) => ToAgent::Changed { assigned: vec![assignment], ended: Vec::new() },
                None => ToAgent::Changed { assigned: Vec::new(), ended: vec![task.id] },
            };
            self.send(agent, message);
        }
    }

    fn grant(&mut self, by: usize, wishes: Vec<Wish>) -> Result<(), Violation> {
        let life = self.lives.get(by).copied().unwrap_or_default();
        for wish in wishes {
            match wish {
                Wish::Start { task } => self.after(10, 2_000, Event::Pulled { by, life, task }),
                Wish::Signal { runtime_id } => {
                    self.after(1, 500, Event::Exit { on: by, id: runtime_id, code: 143 });
                }
                Wish::Remove { runtime_id, task } => {
                    let removed = self.agents.get_mut(by).and_then(|agent| agent.runtime.remove(&runtime_id));
                    if removed.is_some() {
                        self.properties.removed(&self.cluster.view, task, &runtime_id)?;
                    }
                }
                // A report of a broken link is lost with it; of a whole one it takes its time.
                Wish::Report(observation) if self.agents.get(by).is_some_and(|agent| agent.linked) => {
                    self.after(1, 30, Event::Decide(Operation::Observe(Box::new(observation))));
                }
                Wish::Report(_) => {}
            }
        }
        Ok(())
    }

    fn pulled(&mut self, by: usize, life: u64, task: TaskId) -> Result<(), Violation> {
        if self.lives.get(by) != Some(&life) {
            return Ok(());
        }
        let (fails, now) = (self.random.percent(5), self.clock());
        let Some(agent) = self.agents.get_mut(by).filter(|agent| agent.alive) else { return Ok(()) };
        let instance = agent.instance;
        let created = agent.start(task, fails, now);
        for id in created {
            self.properties.created(&self.cluster.view, instance, task, &id)?;
            if self.random.percent(60) {
                let code = if self.random.percent(50) { 0 } else { 1 };
                self.after(100, 40_000, Event::Exit { on: by, id, code });
            }
        }
        let wishes = self.agents.get_mut(by).map(|agent| agent.converge(task)).unwrap_or_default();
        self.grant(by, wishes)
    }

    fn exit(&mut self, on: usize, id: &str, code: i32) -> Result<(), Violation> {
        let now = self.clock();
        let Some(agent) = self.agents.get_mut(on) else { return Ok(()) };
        match agent.runtime.get_mut(id) {
            Some((_, process)) if *process == Process::Running => *process = Process::Exited(code),
            Some(_) | None => return Ok(()),
        }
        self.properties.ended(id);
        if !agent.alive {
            return Ok(());
        }
        let wishes = agent.look(id, now).map(|task| agent.converge(task)).unwrap_or_default();
        self.grant(on, wishes)
    }

    fn clock(&self) -> Timestamp {
        Timestamp(BEGINNING + self.now as i64 + self.skew)
    }

    fn after(&mut self, low: u64, high: u64, event: Event) {
        let at = self.now + self.random.between(low, high);
        self.at(at, event);
    }

    fn at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), event);
    }

    fn note(&mut self, event: &Event) {
        self.report.steps += 1;
        let line = format!("{} {event:?}", self.now);
        self.report.trace = stable_hash(self.report.trace.to_be_bytes().into_iter().chain(line.bytes()));
        if self.recent.len() == SHOWN {
            self.recent.pop_front();
        }
        self.recent.push_back(line);
    }
}
