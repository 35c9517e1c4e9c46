//! When finished records are forgotten. Invariant: nothing that is still in use is forgotten.

use crate::view::View;
use longshore_model::Timestamp;
use longshore_model::change::Key;

/// The STOPPED tasks that ended more than `keep_millis` ago, at most `limit` of them, oldest first.
pub fn stopped_tasks_to_forget(view: &View, now: Timestamp, keep_millis: i64, limit: usize) -> Vec<Key> {
    view.stopped_before(now.plus_millis(-keep_millis)).take(limit).cloned().collect()
}
