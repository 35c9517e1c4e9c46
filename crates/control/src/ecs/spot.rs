//! Spot interruptions, which here an operator makes. Their warning is the task's state change, and SIGTERM; the stop follows
//! when the containers' `stopTimeout` is over, which on Fargate is two minutes at the most.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-capacity-providers.html>.

use crate::context::{CommitError, Context};
use longshore_engine::{View, lifecycle};
use longshore_model::Scope;
use longshore_model::arn::Arn;
use longshore_model::capacity_provider::FARGATE_SPOT;
use longshore_model::task::{Stop, StopCode, Task};
use std::sync::Arc;

const REASON: &str = "Your Spot Task was interrupted.";

/// Why a task is not interrupted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no task has the ARN {0}: describe-tasks prints it as taskArn")]
    NoTask(String),
    #[error("the task {0} is not on FARGATE_SPOT: only such tasks are interrupted")]
    NotSpot(String),
    #[error("the interruption was not recorded")]
    Commit(#[from] CommitError),
}

/// Tells a task to stop. One that is stopping already goes on with it.
pub async fn interrupt(context: &Context, arn: &str) -> Result<(), Error> {
    context
        .commit(|snapshot, transaction| {
            let task = find(&snapshot.view, arn).ok_or_else(|| Error::NoTask(arn.to_owned()))?;
            if task.capacity_provider.as_deref() != Some(FARGATE_SPOT) {
                return Err(Error::NotSpot(arn.to_owned()));
            }
            let why = Stop { code: StopCode::SpotInterruption, reason: REASON.to_owned() };
            if let Some(next) = lifecycle::stop(task, why, context.now()) {
                lifecycle::write(&snapshot.view, &next, transaction);
            }
            Ok(())
        })
        .await
}

fn find<'a>(view: &'a View, arn: &str) -> Option<&'a Arc<Task>> {
    let parsed = Arn::parse(arn).filter(|parsed| parsed.service == "ecs")?;
    let (cluster, id) = parsed.resource.strip_prefix("task/")?.split_once('/')?;
    view.task(&Scope::new(parsed.account, parsed.region), cluster, id.parse().ok()?)
}
