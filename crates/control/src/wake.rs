//! Waiting for a change that matters to a loop that drives something.

use crate::context::Context;
use longshore_engine::View;
use longshore_model::change::Batch;
use longshore_store::{Followed, Follower};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Something may be different, or the time is over.
    Look,
    /// The store closed.
    Closed,
}

/// Waits until something has changed that matters, for so long at the most.
pub async fn hear(
    context: &Context,
    changes: &mut Follower,
    longest: Duration,
    matters: impl Fn(&View, &Batch) -> bool,
) -> Heard {
    let pause = tokio::time::sleep(longest);
    tokio::pin!(pause);
    loop {
        tokio::select! {
            () = &mut pause => return Heard::Look,
            heard = changes.next() => match heard {
                None => return Heard::Closed,
                Some(Followed::Restarted) => return Heard::Look,
                Some(Followed::Batch(batch)) => if matters(&context.view(), &batch) { return Heard::Look },
            },
        }
    }
}
