//! Forgets what is old: STOPPED tasks, deleted definitions that nothing uses, drained targets, log events past their
//! retention.

use crate::context::{CommitError, Context};
use longshore_engine::elb::{self, targets};
use longshore_engine::{View, events, retention};
use longshore_model::change::Key;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Between two rounds. What is forgotten was kept for hours, so a minute more does not matter.
const PERIOD: Duration = Duration::from_secs(60);
/// Between two looks at how many events there are, which are many more than other records.
const EVENTS_PERIOD: Duration = Duration::from_secs(5);
/// Between two looks at which deregistered targets have drained, whose delay is given in seconds.
const DRAINED_PERIOD: Duration = Duration::from_secs(1);
/// Records deleted by one commit: etcd takes 128 operations in a transaction.
const AT_ONCE: usize = 100;

pub async fn run(context: Arc<Context>) {
    let mut rounds = tokio::time::interval_at(Instant::now() + PERIOD, PERIOD);
    let mut surplus = tokio::time::interval(EVENTS_PERIOD);
    let mut drained = tokio::time::interval(DRAINED_PERIOD);
    loop {
        let leads = || context.leads.load(Ordering::Relaxed);
        let done = tokio::select! {
            _ = rounds.tick() => round(&context, leads()).await,
            _ = surplus.tick() => forget(&context, |view| if leads() { events::to_forget(view, AT_ONCE) } else { Vec::new() }).await,
            _ = drained.tick() => if leads() { remove_drained(&context).await } else { Ok(()) },
        };
        if let Err(error) = done {
            tracing::warn!(error = &error as &dyn std::error::Error, "housekeeping is put off");
        }
    }
}

/// Records are forgotten by the control plane that leads, log events by each that keeps some.
async fn round(context: &Context, leads: bool) -> Result<(), CommitError> {
    let now = context.now();
    let keep = context.config.keep_stopped_tasks;
    if leads {
        forget(context, |view| retention::to_forget(view, now, keep, AT_ONCE)).await?;
    }
    crate::logs::apply_retention(context, now).await;
    if let Err(error) = context.metric_store.apply_retention(now) {
        tracing::warn!(error = &error as &dyn std::error::Error, "old metrics are kept for longer");
    }
    Ok(())
}

/// Deletes what `which` names until it names nothing more.
async fn forget(context: &Context, which: impl Fn(&View) -> Vec<Key>) -> Result<(), CommitError> {
    loop {
        let forgotten = context
            .commit::<_, CommitError, _>(|snapshot, transaction| {
                let keys = which(&snapshot.view);
                let count = keys.len();
                keys.into_iter().for_each(|key| transaction.delete(key));
                Ok(count)
            })
            .await?;
        if forgotten < AT_ONCE {
            return Ok(());
        }
    }
}

/// Edges say when a target is done, as long as there is one that serves it; in the end its delay is over by the clock.
async fn remove_drained(context: &Context) -> Result<(), CommitError> {
    loop {
        let commit = context.commit::<_, CommitError, _>(|snapshot, transaction| {
            let view = &snapshot.view;
            let drained = elb::drained(view, context.now(), AT_ONCE / 2);
            drained.iter().for_each(|target| targets::remove(view, target, transaction));
            Ok(drained.len())
        });
        if commit.await? < AT_ONCE / 2 {
            return Ok(());
        }
    }
}
