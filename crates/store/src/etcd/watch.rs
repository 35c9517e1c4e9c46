//! Follows a prefix. Invariant: every revision of it arrives once, whole and in order, over any number of
//! connections; where etcd has forgotten some, the follower is told to start again and nothing follows.

use super::{Names, is_forgotten, revision, version};
use crate::engine::{Changes, Event};
use etcd_client::{EventType, GetOptions, KvClient, WatchClient, WatchOptions, WatchResponse};
use longshore_model::change::{Batch, Change, Version};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long to wait before the first new attempt, and at most.
const RETRY: Duration = Duration::from_millis(50);
const RETRY_AT_MOST: Duration = Duration::from_secs(2);

pub fn follow(kv: KvClient, watch: WatchClient, names: Names, since: Version) -> Changes {
    let (events, receiver) = mpsc::unbounded_channel();
    let follower = Follower { kv, watch, names, seen: since, events };
    tokio::spawn(follower.run());
    Changes(receiver)
}

struct Follower {
    kv: KvClient,
    watch: WatchClient,
    names: Names,
    /// Everything up to here was sent on.
    seen: Version,
    events: mpsc::UnboundedSender<Event>,
}

/// The follower needs nothing more: it left, or it was told to start again.
struct Done;

impl Follower {
    async fn run(mut self) {
        let mut pause = RETRY;
        loop {
            let before = self.seen;
            let gone = self.events.clone();
            let ended = tokio::select! {
                ended = self.watch_once() => ended,
                () = gone.closed() => return,
            };
            match ended {
                Ok(Done) => return,
                Err(error) => {
                    tracing::warn!(%error, since = %self.seen, "the watch of etcd broke off and is taken up again");
                }
            }
            if self.seen > before {
                pause = RETRY;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_AT_MOST);
        }
    }

    /// Sends on what one connection brings, until it ends.
    async fn watch_once(&mut self) -> Result<Done, etcd_client::Error> {
        if self.has_forgotten().await? {
            return Ok(self.restart());
        }
        let from = revision(self.seen).saturating_add(1);
        let options = WatchOptions::new().with_prefix().with_start_revision(from);
        let mut stream = self.watch.watch(self.names.all.as_bytes(), Some(options)).await?;
        while let Some(response) = stream.message().await? {
            if response.canceled() && response.compact_revision() > 0 {
                return Ok(self.restart());
            }
            if response.canceled() {
                return Err(etcd_client::Error::WatchError(response.cancel_reason().to_owned()));
            }
            if self.take(&response).is_break() {
                return Ok(Done);
            }
        }
        Err(etcd_client::Error::WatchError("the server ended it".to_owned()))
    }

    /// A watch of a revision that a restored backup never had would wait for it instead of saying so.
    async fn has_forgotten(&mut self) -> Result<bool, etcd_client::Error> {
        let at = GetOptions::new().with_revision(revision(self.seen).max(1)).with_keys_only();
        match self.kv.get(self.names.mark(), Some(at)).await {
            Ok(_) => Ok(false),
            Err(error) if is_forgotten(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn restart(&self) -> Done {
        let _ = self.events.send(Event::Restart);
        Done
    }

    /// etcd never splits a revision over two responses unless it is asked to.
    fn take(&mut self, response: &WatchResponse) -> ControlFlow<()> {
        for batch in batches(&self.names, response) {
            self.seen = batch.version;
            if self.events.send(Event::Batch(Arc::new(batch))).is_err() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
}

fn batches(names: &Names, response: &WatchResponse) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for event in response.events() {
        let Some(kv) = event.kv() else { continue };
        let at = version(kv.mod_revision());
        if batches.last().is_none_or(|batch| batch.version != at) {
            batches.push(Batch { version: at, changes: Vec::new() });
        }
        // The mark makes a batch where there is none, and is no change itself.
        if let (Some(key), Some(batch)) = (names.key(kv.key()), batches.last_mut()) {
            let value = match event.event_type() {
                EventType::Put => Some(kv.value().into()),
                EventType::Delete => None,
            };
            batch.changes.push(Change { key, value });
        }
    }
    batches
}
