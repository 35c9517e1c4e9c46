//! Work that many want at once and that is done once.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, Weak},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};

use crate::runtime::lock;

/// Invariant: of callers with one key at one time, one does the work and all get its result. The work stops when no
/// caller waits for it any more.
pub(super) struct Flights<K, T: Clone> {
    flying: Mutex<HashMap<K, WeakShared<BoxFuture<'static, T>>>>,
}

impl<K, T: Clone> Default for Flights<K, T> {
    fn default() -> Self {
        Self { flying: Mutex::default() }
    }
}

impl<K: Eq + Hash, T: Clone + Send + Sync + 'static> Flights<K, T> {
    pub async fn join(&self, key: K, work: impl FnOnce() -> BoxFuture<'static, T>) -> T {
        self.board(key, work).await
    }

    fn board(&self, key: K, work: impl FnOnce() -> BoxFuture<'static, T>) -> Shared<BoxFuture<'static, T>> {
        let mut flying = lock(&self.flying);
        flying.retain(|_, flight| flight.upgrade().is_some_and(|f| f.peek().is_none()));
        if let Some(flight) = flying.get(&key).and_then(WeakShared::upgrade) {
            return flight;
        }
        let flight = work().shared();
        if let Some(weak) = flight.downgrade() {
            flying.insert(key, weak);
        }
        flight
    }
}

/// Locks by name. Those who come later find the work done.
#[derive(Default)]
pub(super) struct Gates {
    gates: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Gates {
    pub async fn enter(&self, name: &str) -> tokio::sync::OwnedMutexGuard<()> {
        self.gate(name).lock_owned().await
    }

    fn gate(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut gates = lock(&self.gates);
        gates.retain(|_, gate| gate.strong_count() > 0);
        if let Some(gate) = gates.get(name).and_then(Weak::upgrade) {
            return gate;
        }
        let gate = Arc::default();
        gates.insert(name.to_owned(), Arc::downgrade(&gate));
        gate
    }
}
