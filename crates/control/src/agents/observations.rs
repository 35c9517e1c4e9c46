//! Takes in what an agent sees of its tasks. Invariant: the reports of one task are committed in their order;
//! while one is being committed, only the newest of those that follow is kept, since each says everything.

use crate::context::{CommitError, Context};
use longshore_engine::lifecycle;
use longshore_model::link::Observation;
use longshore_model::{ContainerInstanceId, TaskId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long a report that could not be committed waits before it is tried again.
const RETRY: Duration = Duration::from_secs(1);

pub struct Observations {
    context: Arc<Context>,
    /// Whose agent reports: of tasks of others it has nothing to say.
    instance: ContainerInstanceId,
    committing: JoinSet<TaskId>,
    /// A task whose report is being committed, and the report that came meanwhile.
    waiting: BTreeMap<TaskId, Option<Observation>>,
}

impl Observations {
    pub fn new(context: Arc<Context>, instance: ContainerInstanceId) -> Self {
        Self { context, instance, committing: JoinSet::new(), waiting: BTreeMap::new() }
    }

    pub fn take(&mut self, observation: Observation) {
        match self.waiting.get_mut(&observation.task.id) {
            Some(newest) => *newest = Some(observation),
            None => self.begin(observation),
        }
    }

    pub fn busy(&self) -> bool {
        !self.committing.is_empty()
    }

    /// Waits for one commit to end and starts the next of its task.
    pub async fn settle(&mut self) {
        match self.committing.join_next().await {
            Some(Ok(task)) => {
                if let Some(Some(next)) = self.waiting.remove(&task) {
                    self.begin(next);
                }
            }
            // A commit that panicked: forget its turn, the agent reports again when something changes.
            Some(Err(_)) if self.committing.is_empty() => self.waiting.clear(),
            Some(Err(_)) | None => {}
        }
    }

    fn begin(&mut self, observation: Observation) {
        let task = observation.task.id;
        self.waiting.insert(task, None);
        let (context, instance) = (Arc::clone(&self.context), self.instance);
        self.committing.spawn(async move {
            // The agent says it once; until it is recorded, nothing moves the task on.
            while let Err(error) = commit(&context, instance, &observation).await {
                tracing::error!(%task, error = &error as &dyn std::error::Error, "a task's report is not recorded yet");
                tokio::time::sleep(RETRY).await;
            }
            task
        });
    }
}

async fn commit(
    context: &Context,
    instance: ContainerInstanceId,
    observation: &Observation,
) -> Result<(), CommitError> {
    context
        .commit(|snapshot, transaction| {
            let view = &snapshot.view;
            let task = view.tasks.get(&observation.task.key());
            let Some(task) = task.filter(|task| task.container_instance == instance) else { return Ok(()) };
            let Some(definition) = view.task_definition(&task.scope, &task.family, task.revision) else {
                return Ok(());
            };
            let Some(next) = lifecycle::observe(task, definition, observation, context.now()) else {
                return Ok(());
            };
            lifecycle::write(view, &next, transaction);
            Ok(())
        })
        .await
}
