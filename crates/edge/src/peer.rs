//! A target as traffic meets it: its idle connections, and how many requests it has.
//!
//! Invariant: a request counts from before it is sent until the last byte of its answer was passed on.

use crate::target::{self, Speech};
use hyper::body::Incoming;
use longshore_model::Timestamp;
use longshore_model::change::Key;
use longshore_model::elb::{Target, TargetGroup};
use longshore_model::id::stable_hash;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

/// Connections to a target that are kept for later; those besides are closed when their answer ends.
const IDLE: usize = 256;

pub type Sender = target::Sender<Incoming>;

pub struct Peer {
    pub key: Key,
    pub registered_at: Timestamp,
    pub address: SocketAddrV4,
    pub speech: Speech,
    /// Names it in cookies.
    pub mark: u64,
    idle: Mutex<Vec<Sender>>,
    busy: AtomicUsize,
    quiet: Notify,
    gone: watch::Sender<bool>,
}

impl Peer {
    pub fn new(key: Key, group: &TargetGroup, target: &Target) -> Self {
        let registration = key.as_str().bytes().chain(target.registered_at.millis().to_le_bytes());
        Self {
            mark: stable_hash(registration),
            key,
            registered_at: target.registered_at,
            address: SocketAddrV4::new(target.address, target.port),
            speech: Speech::of(group),
            idle: Mutex::default(),
            busy: AtomicUsize::new(0),
            quiet: Notify::new(),
            gone: watch::Sender::new(false),
        }
    }

    pub fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    /// Counts a request until what is returned is dropped.
    pub fn begin(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::AcqRel);
        Busy(Arc::clone(self))
    }

    /// A connection that is open and free, the one that was used last first: those that are not needed grow old.
    pub async fn take_idle(&self) -> Option<Sender> {
        loop {
            let mut sender = self.next_idle()?;
            if sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    fn next_idle(&self) -> Option<Sender> {
        let mut idle = self.idle();
        let sender = idle.pop()?;
        idle.extend(sender.share().filter(|shared| !shared.is_closed()));
        Some(sender)
    }

    /// Lets others use a connection that was just opened, where it takes more than one request at a time.
    pub fn share(&self, sender: &Sender) {
        if let Some(shared) = sender.share() {
            self.put_back(shared);
        }
    }

    pub fn put_back(&self, sender: Sender) {
        let mut idle = self.idle();
        if idle.len() < IDLE && !sender.is_closed() && !*self.gone.borrow() {
            idle.push(sender);
        }
    }

    /// Until it has no request. More may come after that, unless it is chosen no more.
    pub async fn until_quiet(&self) {
        while self.busy.load(Ordering::Acquire) > 0 {
            self.quiet.notified().await;
        }
    }

    /// Closes what is open to it: it is no target any more.
    pub fn leave(&self) {
        self.gone.send_replace(true);
        self.idle().clear();
    }

    /// Until it is no target any more.
    pub async fn until_gone(&self) {
        let mut gone = self.gone.subscribe();
        // The sender lives as long as `self`.
        let _ = gone.wait_for(|gone| *gone).await;
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Sender>> {
        // The list is whole at every instant.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request that a target has.
pub struct Busy(Arc<Peer>);

impl Busy {
    pub fn peer(&self) -> &Arc<Peer> {
        &self.0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.busy.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Kept for who comes to wait just now.
            self.0.quiet.notify_one();
        }
    }
}
