//! The connections of agents. Invariant: an agent is told what the records say, and what it reports is committed
//! before it is told to act on it; a connection holds no truth, so that losing one loses nothing. Of two connections of one
//! agent, wherever they are, the one that was recorded last counts, and the other ends.

pub mod admission;
mod log_intake;
mod observations;

use crate::context::{CommitError, Context};
use crate::liveness::disconnected;
use crate::secrets;
use log_intake::LogIntake;
use longshore_engine::{View, assignment, firewall, instance, registration};
use longshore_model::change::{Batch, Key};
use longshore_model::cluster::{self, Cluster, ContainerInsights};
use longshore_model::container_instance::{Capacity, ContainerInstance, Membership};
use longshore_model::link::firewall::Firewall;
use longshore_model::link::{Assignment, FromAgent, Hello, ToAgent};
use longshore_model::log_group::LogGroup;
use longshore_model::task::Task;
use longshore_model::{ContainerInstanceId, Record, Scope, Tags, TaskId, Transaction};
use longshore_store::Followed;
use observations::Observations;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// Control's end of an agent's link.
pub struct Link {
    pub to_agent: mpsc::Sender<ToAgent>,
    pub from_agent: mpsc::Receiver<FromAgent>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error("the agent's link closed")]
    Closed,
    #[error("the agent has a newer link")]
    Superseded,
    #[error("this control plane does not reach its store")]
    Isolated,
    #[error("the agent did not say who it is first")]
    NoHello,
    #[error("the instance was terminated")]
    Terminated,
    #[error("register the instance")]
    Register(#[from] CommitError),
}

/// The links of this process by their instances. Of two links of one instance the newer one counts: its agent has lost
/// the other.
#[derive(Default)]
pub struct Links(Mutex<Places>);

#[derive(Default)]
struct Places {
    taken: BTreeMap<ContainerInstanceId, (u64, oneshot::Sender<Ended>)>,
    last: u64,
    isolated: bool,
}

/// A link's place among the others, until it has to end.
struct Place {
    number: u64,
    ended: oneshot::Receiver<Ended>,
}

impl Links {
    /// Takes the place of an older link, which ends. There is no place while the store is out of reach.
    fn begin(&self, instance: ContainerInstanceId) -> Result<Place, Ended> {
        let mut places = self.lock();
        if places.isolated {
            return Err(Ended::Isolated);
        }
        let (end, ended) = oneshot::channel();
        places.last += 1;
        let number = places.last;
        if let Some((_, older)) = places.taken.insert(instance, (number, end)) {
            let _ = older.send(Ended::Superseded);
        }
        Ok(Place { number, ended })
    }

    pub fn has(&self, instance: ContainerInstanceId) -> bool {
        self.lock().taken.contains_key(&instance)
    }

    /// While we are isolated there are no links; says how many have ended for that now.
    pub fn isolate(&self, isolated: bool) -> usize {
        let mut places = self.lock();
        places.isolated = isolated;
        let ending = if isolated { std::mem::take(&mut places.taken) } else { BTreeMap::new() };
        let count = ending.len();
        ending.into_values().for_each(|(_, end)| drop(end.send(Ended::Isolated)));
        count
    }

    /// Whether the link was the instance's newest.
    fn end(&self, instance: ContainerInstanceId, number: u64) -> bool {
        let mut places = self.lock();
        let newest = places.taken.get(&instance).is_some_and(|(newest, _)| *newest == number);
        if newest {
            places.taken.remove(&instance);
        }
        newest
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // The map is whole at every instant.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves one agent until its link closes.
pub async fn serve(context: Arc<Context>, capacity: Capacity, mut link: Link) -> Ended {
    let hello = match link.from_agent.recv().await {
        Some(FromAgent::Hello(hello)) => hello,
        Some(FromAgent::Observed(_) | FromAgent::Logs(_)) => return Ended::NoHello,
        None => return Ended::Closed,
    };
    let instance = hello.instance;
    let Place { number, ended: told_to_end } = match context.links.begin(instance) {
        Ok(place) => place,
        Err(ended) => return ended,
    };
    let serving = async {
        register(&context, &hello, &capacity).await?;
        Connection {
            context: Arc::clone(&context),
            hello,
            capacity,
            told: BTreeSet::new(),
            firewall: Firewall::default(),
        }
        .run(link)
        .await
    };
    let ended = tokio::select! {
        served = serving => match served {
            Ok(never) => match never {},
            Err(ended) => ended,
        },
        told = told_to_end => told.unwrap_or(Ended::Superseded),
    };
    if context.links.end(instance, number)
        && let Err(error) = record_away(&context, instance).await
    {
        tracing::error!(error = &error as &dyn std::error::Error, "an agent's leaving was not recorded");
    }
    ended
}

/// Registers an instance, and makes its cluster where that is missing, as ECS's agent makes `default`.
async fn register(context: &Context, hello: &Hello, capacity: &Capacity) -> Result<(), Ended> {
    if let Capacity::Cluster(member) = capacity {
        context.open_region(&member.scope).await?;
    }
    context
        .commit(|snapshot, transaction| {
            if let Capacity::Cluster(member) = capacity {
                if member.launched && !instance::exists(&snapshot.view, member) {
                    return Err(Ended::Terminated);
                }
                make_cluster(context, &snapshot.view, member, transaction);
            }
            let present = snapshot.view.container_instances.get(&ContainerInstance::key_of(hello.instance));
            match present {
                Some(present) => {
                    let next = registration::again(present, hello, context.id);
                    if next != **present {
                        transaction.update(&next);
                    }
                }
                None => transaction.create(&registration::first(
                    hello,
                    capacity.clone(),
                    context.id,
                    context.now(),
                )),
            }
            Ok(())
        })
        .await
}

fn make_cluster(context: &Context, view: &View, member: &Membership, transaction: &mut Transaction) {
    let present = view.cluster(&member.scope, &member.cluster);
    if present.is_some_and(|cluster| cluster.status == cluster::Status::Active) {
        return;
    }
    let made = Cluster {
        scope: member.scope.clone(),
        name: member.cluster.clone(),
        status: cluster::Status::Active,
        container_insights: ContainerInsights::default(),
        capacity_providers: Vec::new(),
        default_strategy: Vec::new(),
        tags: Tags::default(),
        created_at: context.now(),
    };
    match present {
        Some(_) => transaction.update(&made),
        None => transaction.create(&made),
    }
}

/// Unless the agent has a link to another control plane by now.
async fn record_away(context: &Context, id: ContainerInstanceId) -> Result<(), CommitError> {
    context
        .commit(|snapshot, transaction| {
            let present = snapshot.view.container_instance(id);
            let ours = |instance: &&Arc<ContainerInstance>| {
                instance.agent_connected && instance.connected_to == Some(context.id)
            };
            if let Some(instance) = present.filter(ours) {
                transaction.update(&disconnected(instance));
            }
            Ok(())
        })
        .await
}

struct Connection {
    context: Arc<Context>,
    hello: Hello,
    capacity: Capacity,
    /// The tasks that the agent was told of and not yet told to forget.
    told: BTreeSet<TaskId>,
    /// What it was told to let pass.
    firewall: Firewall,
}

impl Connection {
    /// Until the link ends; there is no other end.
    async fn run(mut self, mut link: Link) -> Result<Infallible, Ended> {
        let mut changes = self.context.store.follow();
        let mut observations = Observations::new(Arc::clone(&self.context), self.hello.instance);
        let mut logs = LogIntake::new(Arc::clone(&self.context), self.hello.instance);
        self.stand().await?;
        self.tell_everything(&link.to_agent).await?;
        loop {
            tokio::select! {
                change = changes.next() => match change.ok_or(Ended::Closed)? {
                    Followed::Batch(batch) => self.tell_changes(&batch, &link.to_agent).await?,
                    Followed::Restarted => {
                        self.stand().await?;
                        self.tell_everything(&link.to_agent).await?;
                    }
                },
                message = link.from_agent.recv() => match message.ok_or(Ended::Closed)? {
                    FromAgent::Observed(observation) => observations.take(observation),
                    FromAgent::Logs(batch) => logs.take(batch).await,
                    FromAgent::Hello(_) => {}
                },
                () = observations.settle(), if observations.busy() => {}
                stored = logs.stored(), if logs.busy() => say(&link.to_agent, stored).await?,
            }
        }
    }

    async fn tell_everything(&mut self, to_agent: &mpsc::Sender<ToAgent>) -> Result<(), Ended> {
        let view = self.context.view();
        self.firewall = firewall::of_instance(&view, self.hello.instance);
        say(to_agent, ToAgent::Firewall(self.firewall.clone())).await?;
        let mut all = assignment::all_of(&view, self.hello.instance);
        for assignment in &mut all {
            prepare_logs(&self.context, &view, assignment).await;
            secrets::prepare(&self.context, &view, assignment);
        }
        self.told = all.iter().map(|assignment| assignment.task.id).collect();
        say(to_agent, ToAgent::Assigned(all)).await
    }

    /// Records the agent as connected where it is not recorded any more (others took us for dead, or everything was reset);
    /// the link ends where the agent has a newer one to another control plane.
    async fn stand(&self) -> Result<(), Ended> {
        let view = self.context.view();
        let present =
            view.container_instance(self.hello.instance).filter(|instance| instance.agent_connected);
        match present.map(|instance| instance.connected_to == Some(self.context.id)) {
            Some(true) => Ok(()),
            Some(false) => Err(Ended::Superseded),
            None => register(&self.context, &self.hello, &self.capacity).await,
        }
    }

    async fn tell_changes(&mut self, batch: &Batch, to_agent: &mpsc::Sender<ToAgent>) -> Result<(), Ended> {
        let own = ContainerInstance::key_of(self.hello.instance);
        if let Some(change) = batch.changes.iter().find(|change| change.key == own) {
            self.stand().await?;
            if change.value.is_none() {
                // Everything was reset, the instance's own record with it.
                return self.tell_everything(to_agent).await;
            }
        }
        let view = self.context.view();
        self.tell_firewall(&view, batch, to_agent).await?;
        let (mut assigned, mut ended) = (Vec::new(), Vec::new());
        for change in batch.changes.iter().filter(|change| change.key.table() == Task::TABLE) {
            let task = view.tasks.get(&change.key);
            match task.filter(|task| task.holds_resources()) {
                None => ended.extend(task_of(&change.key).filter(|task| self.told.remove(task))),
                Some(task) if task.container_instance != self.hello.instance => {}
                Some(task) => {
                    if let Some(mut assignment) = assignment::of(&view, task) {
                        if self.told.insert(task.id) {
                            prepare_logs(&self.context, &view, &mut assignment).await;
                        }
                        secrets::prepare(&self.context, &view, &mut assignment);
                        assigned.push(assignment);
                    }
                }
            }
        }
        if assigned.is_empty() && ended.is_empty() {
            return Ok(());
        }
        say(to_agent, ToAgent::Changed { assigned, ended }).await
    }
}

impl Connection {
    /// Says what is let pass where that changes, before the tasks that it is for.
    async fn tell_firewall(
        &mut self,
        view: &View,
        batch: &Batch,
        to_agent: &mpsc::Sender<ToAgent>,
    ) -> Result<(), Ended> {
        let instance = self.hello.instance;
        if !firewall::concerns(view, &self.firewall, instance, batch) {
            return Ok(());
        }
        let next = firewall::of_instance(view, instance);
        if next == self.firewall {
            return Ok(());
        }
        self.firewall = next.clone();
        say(to_agent, ToAgent::Firewall(next)).await
    }
}

async fn say(to_agent: &mpsc::Sender<ToAgent>, message: ToAgent) -> Result<(), Ended> {
    to_agent.send(message).await.map_err(|_| Ended::Closed)
}

/// The id in the key of a task's record, which ends in it.
fn task_of(key: &Key) -> Option<TaskId> {
    key.as_str().rsplit('/').next().and_then(|id| id.parse().ok())
}

/// Finds out how far each container's output is stored, and makes the groups that containers asked for.
async fn prepare_logs(context: &Arc<Context>, view: &View, assignment: &mut Assignment) {
    let Some(task) = view.tasks.get(&assignment.task.key()) else { return };
    let Some(definition) = view.task_definition(&task.scope, &task.family, task.revision) else { return };
    for container in &mut assignment.containers {
        let Some(target) = &mut container.log else { continue };
        let Some(destination) = log_intake::destination(task, definition, &container.name) else { continue };
        target.stored =
            context.log_store.source_offset(&destination.group, &destination.stream, &container.runtime_id);
        let missing = view
            .log_groups
            .get(&LogGroup::key_of(&destination.group.scope, &destination.group.name))
            .is_none();
        target.missing_group = missing
            && !(destination.create_group
                && create_group(context, &destination.group.scope, &destination.group.name).await.is_ok());
        if !target.missing_group && !context.log_store.has_stream(&destination.group, &destination.stream) {
            create_stream(context, destination);
        }
    }
}

/// Makes the stream that a user finds also while the container is silent. Nothing waits for it: the first
/// lines make it as well.
fn create_stream(context: &Arc<Context>, destination: log_intake::Destination) {
    let context = Arc::clone(context);
    tokio::spawn(async move {
        let created =
            context.log_store.create_stream(&destination.group, &destination.stream, context.now()).await;
        if let Err(error) = created {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                stream = destination.stream,
                "make a log stream"
            );
        }
    });
}

async fn create_group(context: &Context, scope: &Scope, name: &str) -> Result<(), CommitError> {
    let group = LogGroup {
        scope: scope.clone(),
        name: name.to_owned(),
        retention_days: None,
        tags: Tags::default(),
        created_at: context.now(),
    };
    context
        .commit(|snapshot, transaction| {
            if snapshot.view.log_groups.get(&group.key()).is_none() {
                transaction.create(&group);
            }
            Ok(())
        })
        .await
}
