//! Drives the services: looks at those that something has changed for, and commits what the engine decides.
//!
//! Invariant: a wake-up says only where to look. What is decided is decided on a snapshot, and of two control planes that
//! decide on one state only the first one's plan is committed.

use crate::context::{CommitError, Context, RandomIds};
use crate::hooks::Hooks;
use longshore_engine::service::{self, Agenda, Settings};
use longshore_model::change::Key;
use longshore_store::{Followed, Follower};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two looks at whether this control plane is the one that drives.
const TURN: Duration = Duration::from_millis(200);
/// The same where there are no others; clocks may jump, so that nothing is waited for longer.
const LONGEST: Duration = Duration::from_secs(10);
/// How long a service waits whose plan could not be committed.
const RETRY: i64 = 1000;

/// Until the store closes.
pub async fn run(context: Arc<Context>) {
    let mut changes = context.store.follow();
    let hooks = Hooks::new(Arc::clone(&context));
    let mut agenda: Option<Agenda> = None;
    loop {
        if !context.leads.load(Ordering::Relaxed) {
            agenda = None;
            tokio::time::sleep(TURN).await;
            changes = context.store.follow();
            continue;
        }
        let agenda = agenda.get_or_insert_with(|| Agenda::of_everything(&context.view()));
        if !hear(agenda, &context, &mut changes).await {
            return;
        }
        agenda.wake(context.now());
        if let Some(service) = agenda.pop() {
            reconcile(agenda, &context, &hooks, service).await;
        }
    }
}

/// Takes in what has changed; waits for it when there is nothing else to do. `false` when the store closed.
async fn hear(agenda: &mut Agenda, context: &Context, changes: &mut Follower) -> bool {
    let mut idle = agenda.is_empty();
    loop {
        let pause = pause(agenda, context);
        let heard = tokio::select! {
            biased;
            heard = changes.next() => heard,
            () = std::future::ready(()), if !idle => return true,
            () = tokio::time::sleep(pause) => return true,
        };
        match heard {
            None => return false,
            Some(Followed::Restarted) => *agenda = Agenda::of_everything(&context.view()),
            Some(Followed::Batch(batch)) => agenda.take(&context.view(), &batch),
        }
        idle = idle && agenda.is_empty();
    }
}

fn pause(agenda: &Agenda, context: &Context) -> Duration {
    let longest = if context.config.shared_store { TURN } else { LONGEST };
    let next = agenda.next_time().map(|at| at.since(context.now()).max(0));
    next.and_then(|millis| u64::try_from(millis).ok()).map_or(longest, Duration::from_millis).min(longest)
}

async fn reconcile(agenda: &mut Agenda, context: &Context, hooks: &Arc<Hooks>, key: Key) {
    let settings = Settings { healthy_after: context.config.task_healthy_after };
    let done = context
        .commit::<_, CommitError, _>(|snapshot, transaction| {
            let view = &snapshot.view;
            let Some(present) = view.services.get(&key) else { return Ok(None) };
            let now = context.now();
            let plan = service::reconcile(view, present, settings, now, &mut RandomIds);
            service::write(view, present, &plan, transaction, now, &mut RandomIds);
            Ok(Some(plan))
        })
        .await;
    match done {
        Ok(Some(plan)) => {
            hooks.call(&key, &plan.calls);
            agenda.planned(key, &plan);
        }
        Ok(None) => agenda.look_again(key, None),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(service = key.as_str(), error, "a service is not as it should be yet");
            agenda.look_again(key, Some(context.now().plus_millis(RETRY)));
        }
    }
}
