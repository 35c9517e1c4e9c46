//! Puts what containers write into the log store. Invariant: an agent is told that lines are stored when they are
//! durable, and a batch that comes twice is stored once.

use crate::context::Context;
use crate::log_store::{AppendError, Appended, Batch, GroupId, SourceRange};
use longshore_model::link::{LogBatch, ToAgent};
use longshore_model::log_group::LogGroup;
use longshore_model::task::Task;
use longshore_model::task_definition::TaskDefinition;
use longshore_model::{ContainerInstanceId, Scope, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Batches of one agent that are being stored at the same time; further ones wait in the link.
const AT_ONCE: usize = 64;
/// How long a batch that the disk refused waits before it is tried again.
const RETRY: Duration = Duration::from_secs(1);

pub struct LogIntake {
    context: Arc<Context>,
    /// Whose agent sends: what it says of tasks of others is stored nowhere.
    instance: ContainerInstanceId,
    storing: JoinSet<ToAgent>,
    /// Answers that [`LogIntake::take`] had to collect to make room.
    done: Vec<ToAgent>,
}

impl LogIntake {
    pub fn new(context: Arc<Context>, instance: ContainerInstanceId) -> Self {
        Self { context, instance, storing: JoinSet::new(), done: Vec::new() }
    }

    pub async fn take(&mut self, batch: LogBatch) {
        if self.storing.len() >= AT_ONCE
            && let Some(Ok(stored)) = self.storing.join_next().await
        {
            self.done.push(stored);
        }
        let (context, instance) = (Arc::clone(&self.context), self.instance);
        self.storing.spawn(async move { store(&context, instance, batch).await });
    }

    pub fn busy(&self) -> bool {
        !self.storing.is_empty() || !self.done.is_empty()
    }

    /// The next batch that is durable, as the message that says so.
    pub async fn stored(&mut self) -> ToAgent {
        loop {
            if let Some(done) = self.done.pop() {
                return done;
            }
            match self.storing.join_next().await {
                Some(Ok(stored)) => return stored,
                Some(Err(_)) => {}
                // Callers ask only while something is being stored.
                None => std::future::pending().await,
            }
        }
    }
}

/// Where a container's output goes.
pub struct Destination {
    pub group: GroupId,
    pub stream: String,
    pub create_group: bool,
}

/// `None` for a container without the `awslogs` driver.
pub fn destination(task: &Task, definition: &TaskDefinition, container: &str) -> Option<Destination> {
    let log = definition.containers.iter().find(|c| c.name == container)?.log.as_ref()?;
    let stream = match &log.stream_prefix {
        Some(prefix) => format!("{prefix}/{container}/{}", task.id),
        None => format!("{container}/{}", task.id),
    };
    let scope = Scope { account: task.scope.account.clone(), region: log.region.as_str().into() };
    Some(Destination {
        group: GroupId::new(scope, log.group.clone()),
        stream,
        create_group: log.create_group,
    })
}

/// Stores a batch, however long the disk takes. A batch that no stream waits for any more counts as stored:
/// the container must not wait for a log group that its owner deleted.
async fn store(context: &Context, instance: ContainerInstanceId, batch: LogBatch) -> ToAgent {
    loop {
        let view = context.view();
        let task = view.tasks.get(&batch.task.key()).filter(|task| task.container_instance == instance);
        let definition = task.and_then(|task| view.task_definition(&task.scope, &task.family, task.revision));
        let wanted = task
            .zip(definition)
            .and_then(|(task, definition)| destination(task, definition, &batch.container));
        let wanted = wanted.filter(|wanted| {
            view.log_groups.get(&LogGroup::key_of(&wanted.group.scope, &wanted.group.name)).is_some()
        });
        let Some(wanted) = wanted else { return answer(&batch, batch.end) };
        match append(context, wanted, &batch, context.now()).await {
            Ok(Appended::Stored) => return answer(&batch, batch.end),
            Ok(Appended::Duplicate { stored }) | Err(AppendError::OutOfSequence { stored }) => {
                return answer(&batch, stored);
            }
            Err(AppendError::Refused(why)) => {
                tracing::warn!(source = batch.source, why, "log events were refused");
                return answer(&batch, batch.end);
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "log events wait for the disk");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn append(
    context: &Context,
    wanted: Destination,
    batch: &LogBatch,
    now: Timestamp,
) -> Result<Appended, AppendError> {
    let source = SourceRange { source: batch.source.clone(), start: batch.start, end: batch.end };
    let events = batch.events.clone();
    let batch = Batch {
        group: wanted.group,
        stream: wanted.stream,
        create_stream: true,
        source: Some(source),
        events,
    };
    context.log_store.append(batch, now).await
}

fn answer(batch: &LogBatch, offset: u64) -> ToAgent {
    ToAgent::LogsStored { source: batch.source.clone(), offset }
}
