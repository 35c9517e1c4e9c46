//! Drives the deployments that are under way.
//!
//! Invariant: a wake-up says only that something may have changed. Each step is decided on a snapshot and committed alone, and
//! whoever leads next goes on with it.

use crate::context::{CommitError, Context, RandomIds};
use crate::wake::{Heard, hear};
use longshore_engine::{View, codedeploy};
use longshore_model::alarm::Alarm;
use longshore_model::change::{Batch, Key};
use longshore_model::codedeploy::CodeDeployment;
use longshore_model::service::Service;
use longshore_model::task::Task;
use longshore_model::{Record, Timestamp};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two looks where nothing has changed; clocks may jump.
const LONGEST: Duration = Duration::from_secs(10);
/// Between two looks at whether this control plane is the one that drives.
const TURN: Duration = Duration::from_millis(200);

/// Until the store closes.
pub async fn run(context: Arc<Context>) {
    let mut changes = context.store.follow();
    loop {
        if !context.leads.load(Ordering::Relaxed) {
            tokio::time::sleep(TURN).await;
            changes = context.store.follow();
            continue;
        }
        let next = settle(&context).await;
        let pause =
            next.map(|at| at.since(context.now()).max(0)).and_then(|millis| u64::try_from(millis).ok());
        let pause = pause.map_or(LONGEST, Duration::from_millis).min(LONGEST);
        if hear(&context, &mut changes, pause, matters).await == Heard::Closed {
            return;
        }
    }
}

fn matters(view: &View, batch: &Batch) -> bool {
    let tables = [CodeDeployment::TABLE, Service::TABLE, Task::TABLE, Alarm::TABLE];
    let changed = batch.changes.iter().any(|change| tables.contains(&change.key.table()));
    changed && view.code_deployments.iter().any(|one| one.status.is_under_way())
}

/// A step of each; says when to look again though nothing has changed.
async fn settle(context: &Context) -> Option<Timestamp> {
    let view = context.view();
    let under_way = view.code_deployments.iter().filter(|one| one.status.is_under_way());
    let mut next: Option<Timestamp> = None;
    for key in under_way.map(|one| one.key()) {
        match step(context, &key).await {
            Ok(again_at) => next = [next, again_at].into_iter().flatten().min(),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(deployment = key.as_str(), error, "a deployment does not go on yet");
            }
        }
    }
    next
}

async fn step(context: &Context, key: &Key) -> Result<Option<Timestamp>, CommitError> {
    context
        .commit(|snapshot, transaction| {
            let view = &snapshot.view;
            let Some(present) = view.code_deployments.get(key) else { return Ok(None) };
            Ok(codedeploy::reconcile(view, present, context.now(), &mut RandomIds, transaction))
        })
        .await
}
