//! Evaluates alarms. Invariant: an alarm's state is written when it changes and not when it is looked at.

use crate::context::{CommitError, Context};
use crate::metric_store::seconds;
use longshore_engine::alarms::{evaluate, range};
use longshore_model::alarm::Alarm;
use longshore_model::{Record as _, Timestamp};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two rounds: the shortest period of an alarm is 10 seconds.
const PERIOD: Duration = Duration::from_secs(5);
/// Seconds that a sample may take to come before its period counts as over.
const GRACE: i64 = 2;

/// Evaluates every alarm again and again, in the control plane that leads.
pub async fn run(context: Arc<Context>) {
    let mut rounds = tokio::time::interval(PERIOD);
    loop {
        rounds.tick().await;
        if !context.leads.load(Ordering::Relaxed) {
            continue;
        }
        let alarms: Vec<Arc<Alarm>> = context.view().alarms.iter().cloned().collect();
        for alarm in alarms {
            if let Err(error) = look(&context, &alarm).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(alarm = alarm.name, error, "an alarm is not evaluated");
            }
        }
    }
}

async fn look(context: &Context, alarm: &Alarm) -> Result<(), CommitError> {
    let now = context.now();
    let datapoints = datapoints(context, alarm, now);
    let (state, _) = evaluate(alarm, &datapoints);
    if state == alarm.state {
        return Ok(());
    }
    context
        .commit(|snapshot, transaction| {
            let Some(present) = snapshot.view.alarms.get(&alarm.key()) else { return Ok(()) };
            let (state, reason) = evaluate(present, &datapoints);
            // One that was changed meanwhile is evaluated in the next round.
            if present.configured_at == alarm.configured_at && state != present.state {
                transaction.update(&Alarm {
                    state,
                    state_reason: reason,
                    state_reason_data: None,
                    state_updated_at: now,
                    state_transitioned_at: now,
                    ..Alarm::clone(present)
                });
            }
            Ok(())
        })
        .await
}

/// Of the last periods that are over, oldest first.
fn datapoints(context: &Context, alarm: &Alarm, now: Timestamp) -> Vec<Option<f64>> {
    let period = i64::from(alarm.period.max(1));
    let end = (seconds(now) - GRACE).div_euclid(period) * period;
    let start = end - period * i64::from(range(alarm));
    let unit = alarm.unit.as_deref().filter(|unit| *unit != "None");
    let found = context.metric_store.statistics(&alarm.scope, &alarm.metric, unit, start..end, period);
    let mut sums = std::collections::BTreeMap::<i64, longshore_engine::metrics::Statistics>::new();
    for (at, sum) in found.into_values().flatten() {
        sums.entry(at).and_modify(|all| all.add(&sum)).or_insert(sum);
    }
    let begins = (0..i64::from(range(alarm))).map(|number| start + number * period);
    begins.map(|at| sums.get(&at)?.get(alarm.statistic)).collect()
}
