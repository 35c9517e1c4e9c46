//! The engine on this machine's disk.
//!
//! Invariant: one thread writes. It takes all commits that wait, decides them in order, makes them durable with one
//! sync, and only then answers and publishes. When a sync fails nothing more is accepted: what is on the disk is not
//! known until the store is opened again.

mod writer;

use crate::engine::{Changes, Engine, Error, Loaded, Outcome};
use crate::index::Index;
use async_trait::async_trait;
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use longshore_model::change::{Commit, Key, Version};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use writer::{Command, Writer};

/// The layout of what is on disk. It grows when an older version could no longer read it.
const FORMAT: u64 = 1;
/// Commits that may wait for the writer before committers do.
const QUEUE: usize = 4096;

pub struct Embedded {
    commands: Option<mpsc::Sender<Command>>,
    writer: Option<std::thread::JoinHandle<()>>,
}

/// What is on disk.
struct Disk {
    database: Database,
    /// Key → eight bytes of version, then the value.
    records: Keyspace,
    /// `format` and `version`, eight bytes each.
    meta: Keyspace,
    _lock: std::fs::File,
}

impl Embedded {
    /// Opens the store in `directory`, which is made if it is missing.
    pub async fn open(directory: &Path) -> Result<Self, Error> {
        let directory = directory.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            let disk = Disk::open(&directory)?;
            let index = disk.read_index()?;
            Ok::<_, Error>((disk, index))
        });
        let (disk, index) = opened.await.map_err(Error::backend("open the store"))??;
        let (commands, queue) = mpsc::channel(QUEUE);
        let writer = Writer::new(disk, index);
        let writer =
            std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || writer.run(queue));
        let writer = writer.map_err(Error::backend("start the store's writer"))?;
        Ok(Self { commands: Some(commands), writer: Some(writer) })
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Command,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let commands = self.commands.as_ref().ok_or(Error::Closed)?;
        commands.send(command(reply)).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing left to close.
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl Engine for Embedded {
    async fn load(&self, prefix: &str) -> Result<Loaded, Error> {
        let prefix = prefix.to_owned();
        self.ask(|reply| Command::Load { prefix, reply }).await
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome, Error> {
        self.ask(|reply| Command::Commit { commit, reply }).await
    }

    async fn changes(&self, since: Version) -> Result<Changes, Error> {
        self.ask(|reply| Command::Changes { since, reply }).await
    }

    async fn compact(&self, version: Version) -> Result<(), Error> {
        self.ask(|reply| Command::Compact { version, reply }).await
    }

    async fn reset(&self) -> Result<Version, Error> {
        self.ask(|reply| Command::Reset { reply }).await
    }
}

impl Disk {
    fn open(directory: &Path) -> Result<Self, Error> {
        make_private(directory)?;
        let lock = lock(directory)?;
        let attempt = Error::backend::<fjall::Error>;
        let database = match Database::builder(directory.join("records")).worker_threads(1).open() {
            Err(fjall::Error::Locked) => return Err(Error::InUse(directory.to_owned())),
            opened => opened.map_err(attempt("open the store's database"))?,
        };
        let keyspace = |name| {
            database
                .keyspace(name, KeyspaceCreateOptions::default)
                .map_err(Error::backend("open the store's tables"))
        };
        let disk = Self { records: keyspace("records")?, meta: keyspace("meta")?, database, _lock: lock };
        match disk.number("format")? {
            None => disk
                .meta
                .insert("format", FORMAT.to_be_bytes())
                .map_err(attempt("write the store's format"))?,
            Some(FORMAT) => {}
            Some(found) => return Err(Error::NewerFormat { path: directory.to_owned(), found }),
        }
        Ok(disk)
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Error> {
        let value = self.meta.get(name).map_err(Error::backend("read the store's state"))?;
        Ok(value.and_then(|bytes| bytes.as_ref().try_into().ok().map(u64::from_be_bytes)))
    }

    fn read_index(&self) -> Result<Index, Error> {
        let version = Version(self.number("version")?.unwrap_or(0));
        let mut written = Vec::new();
        self.each_record("", |key, at, _| written.push((key, at)))?;
        Ok(Index::restore(version, written))
    }

    fn each_record(&self, prefix: &str, mut each: impl FnMut(Key, Version, &[u8])) -> Result<(), Error> {
        for entry in self.records.prefix(prefix) {
            let (key, stored) = entry.into_inner().map_err(Error::backend("read the store's records"))?;
            let key = std::str::from_utf8(&key).map_err(Error::backend("read a record's key"))?;
            let Some((version, value)) = stored.split_first_chunk::<8>() else { continue };
            each(Key::new(key), Version(u64::from_be_bytes(*version)), value);
        }
        Ok(())
    }

    fn load(&self, prefix: &str, version: Version) -> Result<Loaded, Error> {
        let mut entries = Vec::new();
        self.each_record(prefix, |key, _, value| entries.push((key, Arc::from(value))))?;
        Ok(Loaded { version, entries })
    }
}

/// The directory alone keeps others out: the database gives its files the modes that it likes.
fn make_private(directory: &Path) -> Result<(), Error> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    let private =
        made.and_then(|()| std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700)));
    private.map_err(|source| Error::Io {
        attempted: format!("make the private directory {}", directory.display()),
        source,
    })
}

fn lock(directory: &Path) -> Result<std::fs::File, Error> {
    use std::os::unix::fs::OpenOptionsExt;
    let path: PathBuf = directory.join("lock");
    let io = |source| Error::Io { attempted: format!("open {}", path.display()), source };
    let mut options = std::fs::OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::InUse(directory.to_owned())),
        Err(std::fs::TryLockError::Error(source)) => Err(io(source)),
    }
}
