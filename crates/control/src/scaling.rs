//! Drives what gives and takes capacity: Auto Scaling groups, managed scaling, and the tasks that wait for capacity.
//!
//! Invariant: a wake-up says only that something may have changed. Each step is decided on a snapshot and committed alone.

use crate::context::{CommitError, Context, RandomIds};
use crate::metric_store::Sample;
use crate::wake::{Heard, hear};
use longshore_engine::instance::provider_of;
use longshore_engine::metrics::Statistics;
use longshore_engine::{View, auto_scaling, managed_scaling, placement};
use longshore_model::alarm::Metric;
use longshore_model::auto_scaling::{AutoScalingGroup, ScalingActivity};
use longshore_model::capacity_provider::CapacityProvider;
use longshore_model::change::{Batch, Key};
use longshore_model::cluster::Cluster;
use longshore_model::container_instance::{Capacity, ContainerInstance, Membership};
use longshore_model::instance::{Instance, LaunchTemplate};
use longshore_model::task::{DesiredStatus, Task};
use longshore_model::{Record, Timestamp};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks where nothing has changed: what waits for time is due by then.
const LONGEST: Duration = Duration::from_secs(5);
/// Steps of one group before the next one is looked at.
const STEPS: usize = 64;
/// Between two measurements.
const MINUTE: Duration = Duration::from_secs(60);
/// Between two looks at whether this control plane is the one that drives.
const TURN: Duration = Duration::from_millis(200);

/// Until the store closes.
pub async fn run(context: Arc<Context>) {
    let mut changes = context.store.follow();
    let mut measured: Option<Instant> = None;
    loop {
        if !context.leads.load(Ordering::Relaxed) {
            tokio::time::sleep(TURN).await;
            changes = context.store.follow();
            continue;
        }
        settle(&context).await;
        if measured.is_none_or(|at| at.elapsed() >= MINUTE) && measure(&context).await {
            measured = Some(Instant::now());
        }
        if hear(&context, &mut changes, LONGEST, matters).await == Heard::Closed {
            return;
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

/// Gives the tasks that wait a place, and brings every group nearer to what it is to be. What fails keeps nothing else from
/// being done, and is tried again.
async fn settle(context: &Context) {
    tell(follow_providers(context).await);
    let view = context.view();
    for key in placement::waiting(&view).iter().map(|task| task.key()) {
        tell(place(context, &key).await);
    }
    for key in view.capacity_providers.iter().map(|provider| provider.key()) {
        tell(scale(context, &key).await);
    }
    for key in view.auto_scaling_groups.iter().map(|group| group.key()) {
        tell(settle_group(context, &key).await);
    }
}

fn tell(done: Result<(), CommitError>) {
    if let Err(error) = done {
        tracing::error!(error = &error as &dyn std::error::Error, "capacity is not as it should be yet");
    }
}

/// Instances are capacity of the provider of their group, in clusters that have it.
async fn follow_providers(context: &Context) -> Result<(), CommitError> {
    context
        .commit(|snapshot, transaction| {
            let view = &snapshot.view;
            for instance in view.instances.iter().filter(|instance| instance.state.is_alive()) {
                let Some(present) = view.container_instance(instance.container_instance) else { continue };
                let Capacity::Cluster(member) = &present.capacity else { continue };
                let capacity_provider = provider_of(view, instance, &member.cluster);
                if capacity_provider != member.capacity_provider {
                    let member = Membership { capacity_provider, ..member.clone() };
                    transaction.update(&ContainerInstance {
                        capacity: Capacity::Cluster(member),
                        version: present.version + 1,
                        ..(**present).clone()
                    });
                }
            }
            Ok(())
        })
        .await
}

/// Gives a task that waits its place, if there is one.
async fn place(context: &Context, key: &Key) -> Result<(), CommitError> {
    context
        .commit(|snapshot, transaction| {
            let view = &snapshot.view;
            let waits =
                |task: &&Arc<Task>| task.desired_status == DesiredStatus::Running && task.waiting.is_some();
            if let Some(task) = view.tasks.get(key).filter(waits) {
                placement::settle(view, task, &mut RandomIds, transaction);
            }
            Ok(())
        })
        .await
}

async fn scale(context: &Context, key: &Key) -> Result<(), CommitError> {
    let after = i64::try_from(context.config.scale_in_after.as_millis()).unwrap_or(i64::MAX);
    context
        .commit(|snapshot, transaction| {
            let view = &snapshot.view;
            if let Some(provider) = view.capacity_providers.get(key) {
                managed_scaling::reconcile(view, provider, after, context.now(), transaction);
            }
            Ok(())
        })
        .await
}

/// Until the group is as it is to be, a step at a time.
async fn settle_group(context: &Context, key: &Key) -> Result<(), CommitError> {
    for _ in 0..STEPS {
        let moved = context
            .commit::<_, CommitError, _>(|snapshot, transaction| {
                let view = &snapshot.view;
                if let Some(group) = view.auto_scaling_groups.get(key) {
                    auto_scaling::reconcile(view, group, context.now(), &mut RandomIds, transaction);
                }
                Ok(!transaction.is_empty())
            })
            .await?;
        if !moved {
            return Ok(());
        }
    }
    Ok(())
}

/// Every minute, as ECS does, `CapacityProviderReservation` of each provider in each of its clusters; `false` when there are
/// none.
async fn measure(context: &Context) -> bool {
    let (view, now) = (context.view(), context.now());
    let mut samples = Vec::new();
    for provider in view.capacity_providers.iter().filter(|provider| provider.managed_scaling.enabled) {
        let percent = managed_scaling::reservation(&view, provider).percent();
        let of_provider = |cluster: &&Arc<Cluster>| cluster.capacity_providers.contains(&provider.name);
        for cluster in view.clusters.of(&provider.scope).filter(of_provider) {
            samples.push(sample(provider, &cluster.name, percent, now));
        }
    }
    if samples.is_empty() {
        return false;
    }
    if let Err(error) = context.metric_store.put(samples, now).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "a metric of capacity providers is not kept"
        );
    }
    true
}

fn sample(provider: &CapacityProvider, cluster: &str, percent: f64, now: Timestamp) -> Sample {
    let dimensions = [("ClusterName", cluster), ("CapacityProviderName", provider.name.as_str())];
    Sample {
        scope: provider.scope.clone(),
        metric: Metric {
            namespace: "AWS/ECS/ManagedScaling".to_owned(),
            name: "CapacityProviderReservation".to_owned(),
            dimensions: dimensions.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        },
        unit: Some("Percent".to_owned()),
        at: now.millis().div_euclid(60_000) * 60,
        statistics: Statistics::of(percent, 1.0),
    }
}
