//! Following one container's file. Invariant: at most one batch is on its way, and it begins where control's
//! storage ends; so batches cannot overtake each other, and a batch that is lost is made again from the file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use longshore_model::Timestamp;
use longshore_model::link::{FromAgent, LogBatch, LogEvent};
use rustix::fs::{FallocateFlags, SeekFrom};
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use super::lines::{Cut, cut};
use super::watch::{Watch, Watcher};
use super::{Clock, Options, Source};

/// How often a file is looked at whose changes inotify tells, and one whose changes it does not.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(100);
/// So many bytes of empty lines alone are worth a batch without events, so that their disk can be freed.
const EMPTY_BYTES: usize = 64 << 10;
/// Holes in files begin and end at such multiples.
const DISK_BLOCK: u64 = 4096;

/// What a tail is told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Control {
    pub stored: u64,
    /// Counts new links: what was sent over an old one may be lost.
    pub links: u64,
    pub finishing: bool,
}

pub struct Tail {
    pub source: Source,
    pub to_control: mpsc::Sender<FromAgent>,
    pub clock: Clock,
    pub options: Options,
    pub watcher: Arc<Watcher>,
    pub reading: Arc<Semaphore>,
    pub control: watch::Receiver<Control>,
    pub changed: Arc<Notify>,
}

/// How far a tail is.
struct Progress {
    stored: u64,
    /// A batch is on its way that begins at `stored`.
    sent: bool,
    links: u64,
    /// The file has its last line.
    ended: bool,
    /// The length at which an ended container's file was last seen.
    length: Option<u64>,
    last: Timestamp,
    freed: Option<u64>,
}

/// Why a tail waits.
enum Wait {
    /// A batch is on its way.
    Acknowledgement,
    /// The file has nothing more.
    Growth,
    /// The container has ended and its file may still grow.
    Quiet,
    /// The file has just been found to have ended: its last line is to be read.
    Nothing,
}

impl Tail {
    /// Ends when the output is stored to its end after [`Control::finishing`], or nobody takes batches any more.
    pub async fn run(mut self, stored: u64) {
        let Some((file, watch)) = self.open().await else { return };
        let file = Arc::new(file);
        let mut progress = Progress {
            stored: first_data(&file, stored),
            sent: false,
            links: 0,
            ended: false,
            length: None,
            last: Timestamp(i64::MIN),
            freed: Some(0),
        };
        loop {
            let control = *self.control.borrow_and_update();
            self.learn(&mut progress, &control, &file);
            let wait = if progress.sent {
                Wait::Acknowledgement
            } else {
                match self.advance(&mut progress, &control, &file).await {
                    Some(wait) => wait,
                    None => return,
                }
            };
            if !self.wait(&mut progress, wait, watch.is_some()).await {
                return;
            }
        }
    }

    /// The file, when the runtime has made it. `None` where the container ended without one.
    async fn open(&mut self) -> Option<(File, Option<Watch>)> {
        loop {
            let finishing = self.control.borrow_and_update().finishing;
            let path = &self.source.file;
            // Watched first: what is written after the watch wakes, and what was before is read.
            let watch = self.watcher.watch(path, &self.changed);
            match open(path) {
                Ok(file) => return Some((file, watch)),
                Err(error) if error.kind() == io::ErrorKind::NotFound && finishing => return None,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(%error, file = %path.display(), "open a container's output"),
            }
            tokio::select! {
                changed = self.control.changed() => changed.ok()?,
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    fn learn(&self, progress: &mut Progress, control: &Control, file: &File) {
        if control.stored > progress.stored {
            progress.stored = control.stored;
            progress.sent = false;
            self.free(progress, file);
        }
        if control.links > progress.links {
            progress.links = control.links;
            progress.sent = false;
        }
    }

    /// Sends the next batch, where there is one. `None` when all is done.
    async fn advance(&self, progress: &mut Progress, control: &Control, file: &Arc<File>) -> Option<Wait> {
        // Never closed.
        let _turn = self.reading.acquire().await.ok()?;
        let (bytes_left, cut) = match self.read(progress, file).await {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(%error, file = %self.source.file.display(), "read a container's output");
                return Some(Wait::Growth);
            }
        };
        if !cut.messages.is_empty() || cut.length >= EMPTY_BYTES {
            progress.length = None;
            let batch = self.batch(progress, cut);
            self.to_control.send(FromAgent::Logs(batch)).await.ok()?;
            progress.sent = true;
            return Some(Wait::Acknowledgement);
        }
        if !control.finishing {
            return Some(Wait::Growth);
        }
        if progress.ended {
            return None;
        }
        // Ended when two looks, a while apart, find the same length.
        let length = progress.stored + bytes_left;
        progress.ended = progress.length.replace(length) == Some(length);
        Some(if progress.ended { Wait::Nothing } else { Wait::Quiet })
    }

    /// How many bytes follow what is stored, and the first messages of them.
    async fn read(&self, progress: &Progress, file: &Arc<File>) -> io::Result<(u64, Cut)> {
        let left = file.metadata()?.len().saturating_sub(progress.stored);
        if left == 0 {
            return Ok((0, Cut::default()));
        }
        let (file, limits) = (file.clone(), self.options.limits);
        let (at, ended) = (progress.stored, progress.ended);
        let read = move || -> io::Result<Cut> {
            let mut bytes = vec![0; left.min(limits.bytes.max(limits.message + 1) as u64) as usize];
            let length = read_at(&file, &mut bytes, at)?;
            // Only a read that reached the end of the file shows the last line.
            let last = ended && length as u64 == left;
            Ok(cut(&bytes[..length], last, &limits))
        };
        let cut = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
        Ok((left, cut))
    }

    fn batch(&self, progress: &mut Progress, cut: Cut) -> LogBatch {
        // A clock that is set back must not change the order of lines.
        let now = (self.clock)().max(progress.last);
        progress.last = now;
        LogBatch {
            task: self.source.task.clone(),
            container: self.source.container.clone(),
            source: self.source.id.clone(),
            start: progress.stored,
            end: progress.stored + cut.length as u64,
            events: cut.messages.into_iter().map(|message| LogEvent { timestamp: now, message }).collect(),
        }
    }

    /// `false` when this tail is not wanted any more.
    async fn wait(&mut self, progress: &mut Progress, wait: Wait, watched: bool) -> bool {
        let changed = self.changed.clone();
        match wait {
            Wait::Acknowledgement => tokio::select! {
                told = self.control.changed() => told.is_ok(),
                () = tokio::time::sleep(self.options.resend) => {
                    progress.sent = false;
                    true
                }
            },
            Wait::Growth => {
                let period = if watched { LOOK_AGAIN } else { POLL };
                tokio::select! {
                    told = self.control.changed() => return told.is_ok(),
                    () = changed.notified() => {}
                    () = tokio::time::sleep(period) => {}
                }
                tokio::time::sleep(self.options.linger).await;
                true
            }
            Wait::Nothing => true,
            Wait::Quiet => {
                tokio::time::sleep(self.options.quiet).await;
                true
            }
        }
    }

    /// Gives the disk of what is stored back; the file keeps its length.
    fn free(&self, progress: &mut Progress, file: &File) {
        let Some(freed) = progress.freed else { return };
        let end = progress.stored - progress.stored % DISK_BLOCK;
        if end < freed.saturating_add(self.options.free_bytes) {
            return;
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        progress.freed = match rustix::fs::fallocate(file, flags, freed, end - freed) {
            Ok(()) => Some(end),
            Err(error) => {
                tracing::warn!(%error, file = %self.source.file.display(), "stored output keeps its disk");
                None
            }
        };
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Writing is for giving disk back.
    OpenOptions::new().read(true).write(true).open(path)
}

/// Where to begin when the disk of what `stored` says is missing was given back already: control had it once,
/// and its log stream was deleted since.
fn first_data(file: &File, stored: u64) -> u64 {
    match rustix::fs::seek(file, SeekFrom::Data(stored)) {
        Ok(data) => data.max(stored),
        // No data from there on: at the end, or in a last hole.
        Err(rustix::io::Errno::NXIO) => file.metadata().map_or(stored, |metadata| metadata.len().max(stored)),
        Err(_) => stored,
    }
}

fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], at + length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
