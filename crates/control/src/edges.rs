//! The connections of edges. Invariant: an edge is told what the records say, and what it sees of targets is committed
//! against the registration that it saw; a connection holds no truth.

use crate::context::{CommitError, Context};
use longshore_engine::View;
use longshore_engine::edge;
use longshore_engine::elb::targets;
use longshore_model::Transaction;
use longshore_model::elb::Target;
use longshore_model::link::edge::{FromEdge, TargetReport, TargetSeen, ToEdge};
use longshore_store::{Followed, Snapshot};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Records written by one commit: etcd takes 128 operations in a transaction.
const AT_ONCE: usize = 100;
/// How long reports wait that the store did not take.
const RETRY: Duration = Duration::from_secs(1);

/// Control's end of an edge's link.
pub struct Link {
    pub to_edge: mpsc::Sender<ToEdge>,
    pub from_edge: mpsc::Receiver<FromEdge>,
}

/// Serves one edge until its link or the store closes.
pub async fn serve(context: Arc<Context>, mut link: Link) {
    let mut changes = context.store.follow();
    let mut is_told = say(&link, ToEdge::Everything(edge::everything(&context.view()))).await;
    while is_told {
        is_told = tokio::select! {
            change = changes.next() => match change {
                None => false,
                Some(Followed::Restarted) => {
                    say(&link, ToEdge::Everything(edge::everything(&context.view()))).await
                }
                Some(Followed::Batch(batch)) => {
                    let view = context.view();
                    let rows: Vec<_> =
                        batch.changes.iter().filter_map(|change| edge::row(&view, &change.key)).collect();
                    rows.is_empty() || say(&link, ToEdge::Changed(rows)).await
                }
            },
            message = link.from_edge.recv() => match message {
                None => false,
                Some(FromEdge::Targets(reports)) => {
                    take(&context, &reports).await;
                    true
                }
            },
        };
    }
}

/// Whether the link still stands.
async fn say(link: &Link, message: ToEdge) -> bool {
    link.to_edge.send(message).await.is_ok()
}

/// Commits what the edge saw. It is seen once only, so that it is tried until the store takes it.
async fn take(context: &Context, reports: &[TargetReport]) {
    for some in reports.chunks(AT_ONCE) {
        loop {
            let commit = context.commit::<_, CommitError, _>(|snapshot, transaction| {
                some.iter().for_each(|report| write(snapshot, report, transaction));
                Ok(())
            });
            let Err(error) = commit.await else { break };
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the health of targets is not recorded yet"
            );
            tokio::time::sleep(RETRY).await;
        }
    }
}

fn write(snapshot: &Snapshot<View>, report: &TargetReport, transaction: &mut Transaction) {
    let present = snapshot.view.targets.get(&report.target);
    let Some(target) = present.filter(|target| target.registered_at == report.registered_at) else { return };
    match &report.seen {
        TargetSeen::Health(health) if target.health != *health && target.deregistered_at.is_none() => {
            transaction.update(&Target { health: health.clone(), ..(**target).clone() });
        }
        TargetSeen::Drained if target.deregistered_at.is_some() => {
            targets::remove(&snapshot.view, target, transaction);
        }
        TargetSeen::Health(_) | TargetSeen::Drained => {}
    }
}
