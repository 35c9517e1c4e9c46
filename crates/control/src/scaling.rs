//! Drives what gives and takes capacity: Auto Scaling groups, managed scaling, and the tasks that wait for capacity.
//!
//! Invariant: a wake-up says only that something may have changed. Each step is decided on a snapshot and committed alone.

use crate::context::{CommitError, Context, RandomIds};
use longshore_engine::View;
use longshore_engine::auto_scaling;
use longshore_model::auto_scaling::{AutoScalingGroup, ScalingActivity};
use longshore_model::capacity_provider::CapacityProvider;
use longshore_model::change::{Batch, Key};
use longshore_model::cluster::Cluster;
use longshore_model::container_instance::ContainerInstance;
use longshore_model::instance::{Instance, LaunchTemplate};
use longshore_model::task::Task;
use longshore_model::{Record, Timestamp};
use longshore_store::{Followed, Follower};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two looks where nothing has changed: what waits for time is due by then.
const LONGEST: Duration = Duration::from_secs(5);
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
        if let Err(error) = settle(&context).await {
            tracing::error!(error = &error as &dyn std::error::Error, "capacity is not as it should be yet");
        }
        if !hear(&context, &mut changes).await {
            return;
        }
    }
}

/// Waits until something has changed that capacity depends on; `false` when the store closed.
async fn hear(context: &Context, changes: &mut Follower) -> bool {
    let pause = tokio::time::sleep(LONGEST);
    tokio::pin!(pause);
    loop {
        tokio::select! {
            () = &mut pause => return true,
            heard = changes.next() => match heard {
                None => return false,
                Some(Followed::Restarted) => return true,
                Some(Followed::Batch(batch)) => if matters(&context.view(), &batch) { return true },
            },
        }
    }
}

fn matters(view: &View, batch: &Batch) -> bool {
    if view.auto_scaling_groups.is_empty() && view.capacity_providers.is_empty() {
        return false;
    }
    let tables = [
        AutoScalingGroup::TABLE,
        CapacityProvider::TABLE,
        Cluster::TABLE,
        ContainerInstance::TABLE,
        Instance::TABLE,
        LaunchTemplate::TABLE,
        ScalingActivity::TABLE,
        Task::TABLE,
    ];
    batch.changes.iter().any(|change| tables.contains(&change.key.table()))
}

async fn settle(context: &Context) -> Result<(), CommitError> {
    let groups: Vec<Key> = context.view().auto_scaling_groups.iter().map(|group| group.key()).collect();
    for key in groups {
        settle_group(context, &key).await?;
    }
    Ok(())
}

async fn settle_group(context: &Context, key: &Key) -> Result<Option<Timestamp>, CommitError> {
    context
        .commit(|snapshot, transaction| {
            let view = &snapshot.view;
            let Some(group) = view.auto_scaling_groups.get(key) else { return Ok(None) };
            Ok(auto_scaling::reconcile(view, group, context.now(), &mut RandomIds, transaction))
        })
        .await
}
