//! What containers write, brought to the control plane.
//!
//! Invariants: every line is sent until control says that it is stored, and control can tell a line that comes
//! twice by its place in the output; what is not stored yet is in the container's file, so nothing is lost with
//! this process; a file keeps its length and gives back the disk of what is stored.
//!
//! The container runtime appends a container's output to one file. That file is the buffer: a container never waits
//! for control (the `blocking` mode of `awslogs`). The `non-blocking` mode, which drops lines beyond
//! `max-buffer-size`, would be a jump forward in [`tail`].

mod lines;
mod tail;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use longshore_model::Timestamp;
use longshore_model::link::FromAgent;
use longshore_model::task::TaskRef;
use tokio::sync::{Notify, Semaphore, mpsc, watch as channel};

use self::lines::Limits;
use self::tail::{Control, Tail};
use self::watch::Watcher;

/// Batches that are being read at the same time, over all containers: each can be a mebibyte of memory.
const READING_AT_ONCE: usize = 32;

pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// One container's output.
#[derive(Clone, Debug)]
pub struct Source {
    pub task: TaskRef,
    /// As the task definition names it.
    pub container: String,
    /// Names the output for ever; the `source` of its batches.
    pub id: String,
    /// The file that the runtime appends to.
    pub file: PathBuf,
}

/// Waits and sizes.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub limits: Limits,
    /// How long a line may wait for others to share its batch.
    pub linger: Duration,
    /// A file of an ended container that did not grow for so long has its last line. Its container was deleted by then,
    /// for which containerd waits until all output is written.
    pub quiet: Duration,
    /// A batch that is not acknowledged after so long is sent again: it may have been lost with a link.
    pub resend: Duration,
    /// Stored bytes that are worth a call to give their disk back.
    pub free_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            linger: Duration::from_millis(50),
            quiet: Duration::from_millis(10),
            resend: Duration::from_secs(30),
            free_bytes: 256 << 10,
        }
    }
}

/// Follows the output of an instance's containers. Dropping it ends all following; nothing is lost by that.
pub struct Logs {
    to_control: mpsc::Sender<FromAgent>,
    clock: Clock,
    options: Options,
    watcher: Arc<Watcher>,
    reading: Arc<Semaphore>,
    followed: Mutex<HashMap<String, Followed>>,
}

struct Followed {
    control: channel::Sender<Control>,
    done: channel::Receiver<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Logs {
    /// Must be called inside a tokio runtime. Batches go to `to_control` as [`FromAgent::Logs`].
    pub fn new(to_control: mpsc::Sender<FromAgent>, clock: Clock) -> Self {
        Self::with_options(to_control, clock, Options::default())
    }

    pub fn with_options(to_control: mpsc::Sender<FromAgent>, clock: Clock, options: Options) -> Self {
        Self {
            to_control,
            clock,
            options,
            watcher: Arc::new(Watcher::new()),
            reading: Arc::new(Semaphore::new(READING_AT_ONCE)),
            followed: Mutex::new(HashMap::new()),
        }
    }

    /// Sends the container's output from `stored` on, as it grows. For one that is followed already, says that
    /// the link is new: what was not acknowledged is sent again.
    pub fn follow(&self, source: Source, stored: u64) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(followed) = followed.get(&source.id) {
            followed.control.send_modify(|control| {
                control.stored = control.stored.max(stored);
                control.links += 1;
            });
            return;
        }
        let (control, told) = channel::channel(Control { stored, ..Control::default() });
        let (finished, done) = channel::channel(false);
        let id = source.id.clone();
        let tail = Tail {
            source,
            to_control: self.to_control.clone(),
            clock: self.clock.clone(),
            options: self.options,
            watcher: self.watcher.clone(),
            reading: self.reading.clone(),
            control: told,
            changed: Arc::new(Notify::new()),
        };
        let task = tokio::spawn(async move {
            tail.run(stored).await;
            finished.send_replace(true);
        });
        followed.insert(id, Followed { control, done, task });
    }

    /// Control has stored the source's output up to `offset`. An offset that is not where the last batch ended
    /// says where to go on.
    pub fn stored(&self, id: &str, offset: u64) {
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(followed) = followed.get(id) {
            followed.control.send_if_modified(|control| {
                let further = offset > control.stored;
                control.stored = control.stored.max(offset);
                further
            });
        }
    }

    /// The container has ended: resolves when its output is stored to the end, and follows it no longer.
    /// For a source that is not followed it resolves at once. May be dropped and called again.
    pub async fn finish(&self, id: &str) {
        let mut done = {
            let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(followed) = followed.get(id) else { return };
            followed.control.send_modify(|control| control.finishing = true);
            followed.done.clone()
        };
        // The sender goes only with the tail itself, which is then done as well.
        let _ = done.wait_for(|done| *done).await;
        self.followed.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}
