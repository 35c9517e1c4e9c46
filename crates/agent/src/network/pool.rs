//! Task namespaces made ahead of time, so that a task only waits for what its own address decides.
//! Invariant: nothing in the pool is pinned to a file; when the process ends, the kernel removes all of it.

use super::error::{Attempt, Error};
use super::instance::find;
use super::names::ServerId;
use super::namespace::{self, Namespace};
use super::netlink::Netlink;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};

/// The task's interface, as containers know it.
pub const TASK_INTERFACE: &str = "eth0";

/// The namespace that the tasks' links come from.
pub struct Near {
    pub netlink: Netlink,
    /// Whether that is the process's own namespace, where each interface needs its settings.
    pub is_machine: bool,
    pub server: ServerId,
}

/// A namespace that lacks only what belongs to one task.
pub struct Prepared {
    pub namespace: Namespace,
    /// Its `eth0`, up.
    pub interface: u32,
    /// The other end, up, in the near namespace.
    pub veth: u32,
}

pub struct Pool {
    near: Arc<Near>,
    ready: Mutex<VecDeque<Prepared>>,
    size: usize,
    taken: Notify,
    at_once: Semaphore,
    next: AtomicU32,
}

impl Pool {
    pub fn new(near: Arc<Near>, size: usize) -> Result<Self, Error> {
        let mut start = [0; 4];
        let random = getrandom::fill(&mut start).map_err(|_| std::io::Error::other("no randomness"));
        random.attempt(|| "choose interface names".to_owned())?;
        Ok(Self {
            near,
            ready: Mutex::default(),
            size,
            taken: Notify::new(),
            // The kernel makes namespaces one after the other: more threads would only wait.
            at_once: Semaphore::new(4),
            next: AtomicU32::new(u32::from_ne_bytes(start)),
        })
    }

    /// How many are ready now.
    pub fn ready(&self) -> usize {
        self.lock().len()
    }

    pub async fn take(&self) -> Result<Prepared, Error> {
        let ready = self.lock().pop_front();
        self.taken.notify_one();
        match ready {
            Some(ready) => Ok(ready),
            None => self.prepare().await,
        }
    }

    /// Keeps the pool full for as long as it is polled.
    pub async fn refill(&self) {
        loop {
            while self.ready() < self.size {
                match self.prepare().await {
                    Ok(prepared) => self.lock().push_back(prepared),
                    Err(error) => {
                        tracing::warn!(%error, cause = ?std::error::Error::source(&error), "prepare a task namespace");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            }
            self.taken.notified().await;
        }
    }

    async fn prepare(&self) -> Result<Prepared, Error> {
        let closed = |_| std::io::Error::other("the pool is closed");
        let _turn = self.at_once.acquire().await.map_err(closed).attempt(|| "wait for a turn".to_owned())?;
        let namespace = namespace::create_for_task().await?;
        let near = &self.near.netlink;
        let name = self.add_pair(&namespace).await?;
        let veth = find(near, &name).await?;
        if self.near.is_machine {
            // Strict: a task sends from its own address or not at all. An instance's namespace has it as its default.
            namespace::sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "1")?;
            near.without_ipv6(veth).await?;
        }
        let interface = find(&namespace.netlink, TASK_INTERFACE).await?;
        namespace.netlink.set_up(interface).await?;
        near.set_up(veth).await?;
        Ok(Prepared { namespace, interface, veth })
    }

    async fn add_pair(&self, namespace: &Namespace) -> Result<String, Error> {
        loop {
            let (near, name) = (&self.near, self.near.server.veth(self.next.fetch_add(1, Ordering::Relaxed)));
            let group = near.server.link_group();
            let pair = near.netlink.add_pair(&name, group, TASK_INTERFACE, &namespace.file).await;
            match pair {
                Ok(()) => return Ok(name),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).attempt(|| format!("make interface {name}")),
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Prepared>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
