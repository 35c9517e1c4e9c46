//! One inotify instance for all files. Invariant: a wake-up says only that a file may have grown; where inotify
//! cannot be had, or loses events, whoever waits looks at the file now and then by itself.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// A busy container makes an event with each write: they are taken together.
const PAUSE: Duration = Duration::from_millis(10);

pub struct Watcher {
    watching: Option<(Arc<Watching>, tokio::task::JoinHandle<()>)>,
}

struct Watching {
    inotify: AsyncFd<OwnedFd>,
    waiting: Mutex<HashMap<i32, Arc<Notify>>>,
}

/// Ends the watch when dropped.
pub struct Watch {
    watching: Arc<Watching>,
    descriptor: i32,
}

impl Watcher {
    pub fn new() -> Self {
        let inotify =
            inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(std::io::Error::from);
        #[allow(
            deprecated,
            reason = "an OwnedFd that nobody can take out upholds what `register` asks for unsafely"
        )]
        match inotify.and_then(AsyncFd::new) {
            Ok(inotify) => {
                let watching = Arc::new(Watching { inotify, waiting: Mutex::new(HashMap::new()) });
                let events = tokio::spawn(wake(watching.clone()));
                Self { watching: Some((watching, events)) }
            }
            Err(error) => {
                tracing::warn!(%error, "log files are polled, since inotify cannot be had");
                Self { watching: None }
            }
        }
    }

    /// Wakes `notify` when the file changes; `None` where it cannot be watched.
    pub fn watch(&self, file: &Path, notify: &Arc<Notify>) -> Option<Watch> {
        let (watching, _) = self.watching.as_ref()?;
        let mut waiting = watching.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let flags = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE;
        match inotify::add_watch(&watching.inotify, file, flags) {
            Ok(descriptor) => {
                waiting.insert(descriptor, notify.clone());
                Some(Watch { watching: watching.clone(), descriptor })
            }
            Err(error) => {
                tracing::debug!(%error, file = %file.display(), "a log file is polled, since it cannot be watched");
                None
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some((_, events)) = &self.watching {
            events.abort();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watching.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.descriptor);
        // Fails when the file is gone, and the watch with it.
        let _ = inotify::remove_watch(&self.watching.inotify, self.descriptor);
    }
}

async fn wake(watching: Arc<Watching>) {
    loop {
        let Ok(mut ready) = watching.inotify.readable().await else { return };
        match watching.take_events() {
            Ok(()) => ready.clear_ready(),
            Err(error) => {
                tracing::warn!(%error, "inotify failed; log files are looked at now and then");
                return;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Watching {
    /// Wakes whoever waits for the files that changed, until there are no more events.
    fn take_events(&self) -> Result<(), Errno> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            match events.next() {
                Ok(event) => self.wake(event.wd(), event.events()),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn wake(&self, descriptor: i32, events: ReadFlags) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            waiting.values().for_each(|notify| notify.notify_one());
        } else if let Some(notify) = waiting.get(&descriptor) {
            notify.notify_one();
        }
    }
}
