//! Forgets what is old: STOPPED tasks, deleted definitions that nothing uses, log events past their retention.

use crate::context::{CommitError, Context};
use longshore_engine::retention;
use std::sync::Arc;
use std::time::Duration;

/// Between two rounds. What is forgotten was kept for hours, so a minute more does not matter.
const PERIOD: Duration = Duration::from_secs(60);
/// Records deleted by one commit: etcd takes 128 operations in a transaction.
const AT_ONCE: usize = 100;

pub async fn run(context: Arc<Context>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        if let Err(error) = round(&context).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "housekeeping is put off");
        }
    }
}

async fn round(context: &Context) -> Result<(), CommitError> {
    let now = context.now();
    let keep = context.config.keep_stopped_tasks;
    loop {
        let forgotten = context
            .commit::<_, CommitError, _>(|snapshot, transaction| {
                let keys = retention::to_forget(&snapshot.view, now, keep, AT_ONCE);
                let count = keys.len();
                keys.into_iter().for_each(|key| transaction.delete(key));
                Ok(count)
            })
            .await?;
        if forgotten < AT_ONCE {
            break;
        }
    }
    crate::logs::apply_retention(context, now).await;
    Ok(())
}
