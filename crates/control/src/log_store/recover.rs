//! Opening a directory: catalogs first, then the journals that they do not cover.
//! Invariant: what was answered is found again; a torn tail, which nobody was answered for, is cut off.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::OpenError;
use super::frame::{HEADER, Record, payload_length, read_frame};
use super::index::{Index, Journal};
use super::seal;

/// A process that was just forked holds its parent's lock until it executes its program, though the parent is gone.
const LOCK_ATTEMPTS: usize = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// A store as its directory has it.
pub struct Recovered {
    pub index: Index,
    /// In order, each with its whole length; the last one is written on, the others wait to be sealed.
    pub journals: Vec<(Arc<Journal>, u64)>,
}

/// Makes the directory and takes its lock, which is free again when the file is closed.
pub fn lock(directory: &Path) -> Result<File, OpenError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    seal::create_directory(&seal::groups_directory(directory)).map_err(at(directory))?;
    let path = directory.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(at(&path))?;
    for last in [false; LOCK_ATTEMPTS].into_iter().chain([true]) {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if last => break,
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(source)) => return Err(OpenError::Io { path, source }),
        }
    }
    Err(OpenError::InUse(directory.to_owned()))
}

pub fn recover(directory: &Path) -> Result<Recovered, OpenError> {
    let io = |source| OpenError::Io { path: directory.to_owned(), source };
    let mut index = load_catalogs(directory)?;
    // Deleted groups whose directory a crash left behind are found by what the journals say of them.
    let loaded: Vec<u64> = index.groups().map(|group| group.number).collect();
    let mut journals = open_journals(directory).map_err(io)?;
    let last = journals.len().saturating_sub(1);
    for (at, (journal, length)) in journals.iter_mut().enumerate() {
        *length = replay(&mut index, journal, at == last).map_err(io)?;
    }
    for number in loaded {
        if index.group_by_number(number).is_none() {
            seal::ignore_missing(fs::remove_dir_all(seal::group_directory(directory, number))).map_err(io)?;
        }
    }
    Ok(Recovered { index, journals })
}

fn load_catalogs(directory: &Path) -> Result<Index, OpenError> {
    let groups = seal::groups_directory(directory);
    let io = |source| OpenError::Io { path: groups.clone(), source };
    let mut index = Index::new();
    let mut paths = Vec::new();
    for entry in fs::read_dir(&groups).map_err(io)? {
        paths.push(entry.map_err(io)?.path());
    }
    // In the order of the groups' numbers, so that a later group of the same name takes an earlier one's place.
    paths.sort();
    for path in paths {
        load_catalog(directory, &path, &mut index)?;
    }
    Ok(index)
}

fn load_catalog(directory: &Path, group_directory: &Path, index: &mut Index) -> Result<(), OpenError> {
    let path = group_directory.join("catalog");
    let io = |source| OpenError::Io { path: path.clone(), source };
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A first sealing that did not come to its end: the journal still has it all.
            return fs::remove_dir_all(group_directory).map_err(io);
        }
        Err(error) => return Err(io(error)),
    };
    let catalog = seal::read_catalog(&bytes).ok_or_else(|| OpenError::DamagedCatalog(path.clone()))?;
    let mut group = catalog.group;
    let names: BTreeMap<u64, Arc<str>> = group.streams.values().map(|s| (s.number, s.name.clone())).collect();
    for segment in &catalog.segments {
        let blocks = match seal::read_segment_index(directory, group.number, *segment) {
            Ok(blocks) => blocks,
            Err(error) => {
                tracing::error!(%error, group = %group.id, segment, "a log segment cannot be read; its events are lost");
                continue;
            }
        };
        for (stream, block) in blocks {
            let stream = names.get(&stream).and_then(|name| group.streams.get_mut(name));
            if let Some(stream) = stream.filter(|_| block.max_timestamp >= group.retained_from) {
                stream.blocks.push(block);
            }
        }
    }
    let known: HashSet<u64> = catalog.segments.into_iter().collect();
    for (number, file) in seal::segment_files(group_directory).map_err(io)? {
        if !known.contains(&number) {
            seal::ignore_missing(fs::remove_file(file)).map_err(io)?;
        }
    }
    if let Some(older) = index.group(&group.id).map(|older| older.number) {
        let older = seal::group_directory(directory, older);
        seal::ignore_missing(fs::remove_dir_all(older)).map_err(io)?;
    }
    index.next_sequence = index.next_sequence.max(catalog.next_sequence);
    index.next_number = index.next_number.max(catalog.next_number);
    index.insert_group(group);
    Ok(())
}

fn open_journals(directory: &Path) -> io::Result<Vec<(Arc<Journal>, u64)>> {
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_prefix("journal-")).and_then(|n| n.parse().ok());
        if let Some(number) = number {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    let open = |(number, path): (u64, PathBuf)| {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok((Arc::new(Journal { number, file }), 0))
    };
    found.into_iter().map(open).collect()
}

/// Applies the journal's whole frames; gives their length.
fn replay(index: &mut Index, journal: &Arc<Journal>, last: bool) -> io::Result<u64> {
    let size = journal.file.metadata()?.len();
    let mut at = 0;
    while let Some((record, length)) = next_record(&journal.file, at, size)? {
        let covered = index
            .group_of(&record)
            .and_then(|group| index.group_by_number(group))
            .is_some_and(|group| group.covered >= journal.number);
        // A group's end is not in its catalog.
        if !covered || matches!(record, Record::DeleteGroup { .. }) {
            index.apply(record, journal, at, length);
        }
        at += length;
    }
    if at < size {
        if !last {
            tracing::error!(
                journal = journal.number,
                at,
                size,
                "a log journal is damaged; what follows is lost"
            );
        }
        journal.file.set_len(at)?;
    }
    // A killed process may have written what it had no time to sync; from here on it counts as durable.
    journal.file.sync_all()?;
    Ok(at)
}

fn next_record(file: &File, at: u64, size: u64) -> io::Result<Option<(Record, u64)>> {
    if size - at < HEADER as u64 {
        return Ok(None);
    }
    let mut head = [0u8; 8];
    file.read_exact_at(&mut head, at)?;
    let Some(length) = payload_length(&head).map(|payload| (payload + HEADER) as u64) else {
        return Ok(None);
    };
    if length > size - at {
        return Ok(None);
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, at)?;
    let record = read_frame(&bytes).and_then(|(kind, payload, _)| Record::read(kind, payload));
    Ok(record.map(|record| (record, length)))
}
