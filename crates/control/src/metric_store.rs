//! What metrics measure, kept outside the record store because it grows with time.
//!
//! Invariants: samples that were answered are durable; what is read is what was written, summed up by the moments that
//! metrics are kept by.
//!
//! The directory has a file for each day in which samples arrived, of lines of JSON: a torn last line, which nobody was
//! answered for, is cut off. At the start the files are read into memory; those of long ago are deleted.

use longshore_engine::metrics::{Statistics, by_period};
use longshore_model::alarm::Metric;
use longshore_model::{Scope, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Seconds for which samples are kept.
pub const KEPT: i64 = 15 * DAY;
const DAY: i64 = 24 * 3600;
const MOST_METRICS: usize = 100_000;
const SUFFIX: &str = "jsonl";

/// What was measured at a moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub scope: Scope,
    pub metric: Metric,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Seconds since the epoch, rounded down to what the metric is kept by.
    pub at: i64,
    pub statistics: Statistics,
}

/// The samples of one unit, by their moments.
type Series = BTreeMap<i64, Statistics>;
type Units = BTreeMap<Option<String>, Series>;

#[derive(Default)]
struct Index {
    metrics: BTreeMap<(Scope, Metric), Units>,
}

/// Shared by all who write and read.
#[derive(Clone)]
pub struct MetricStore {
    directory: Arc<Path>,
    index: Arc<RwLock<Index>>,
    journal: Arc<Mutex<Option<Journal>>>,
}

struct Journal {
    day: i64,
    file: File,
    /// The bytes of the puts that were answered.
    length: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("write to {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("there are more than {MOST_METRICS} metrics")]
    TooMany,
    #[error("the writer has stopped")]
    Stopped,
}

impl MetricStore {
    /// Reads what the directory has; makes it if there is none.
    pub fn open(directory: &Path, now: Timestamp) -> Result<Self, Error> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(at(directory))?;
        let mut index = Index::default();
        for (day, path) in files(directory).map_err(at(directory))? {
            if day * DAY < seconds(now) - KEPT - DAY {
                fs::remove_file(&path).map_err(at(&path))?;
                continue;
            }
            replay(&path, &mut index).map_err(at(&path))?;
        }
        index.forget(seconds(now) - KEPT);
        let (index, journal) = (Arc::new(RwLock::new(index)), Arc::default());
        Ok(Self { directory: directory.into(), index, journal })
    }

    /// Keeps samples; they are durable when this returns.
    pub async fn put(&self, samples: Vec<Sample>, now: Timestamp) -> Result<(), Error> {
        let store = self.clone();
        let written = tokio::task::spawn_blocking(move || store.write(samples, now));
        written.await.map_err(|_| Error::Stopped)?
    }

    fn write(&self, samples: Vec<Sample>, now: Timestamp) -> Result<(), Error> {
        let mut lines = Vec::new();
        for sample in &samples {
            // Samples hold text and finite numbers, which always have a JSON form.
            lines.extend(serde_json::to_vec(sample).unwrap_or_default());
            lines.push(b'\n');
        }
        let day = seconds(now).div_euclid(DAY);
        let path = self.directory.join(format!("{day}.{SUFFIX}"));
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.index.read().unwrap_or_else(PoisonError::into_inner).has_room_for(&samples) {
            return Err(Error::TooMany);
        }
        let written = append(&mut journal, &path, day, &lines);
        if let Err(source) = written {
            return Err(Error::Io { path, source });
        }
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        samples.into_iter().for_each(|sample| index.add(sample));
        Ok(())
    }

    /// The samples of a metric by periods of so many seconds, of each unit or of the one that is named. The times are seconds
    /// since the epoch; periods begin at the start of the range.
    pub fn statistics(
        &self,
        scope: &Scope,
        metric: &Metric,
        unit: Option<&str>,
        range: Range<i64>,
        period: i64,
    ) -> BTreeMap<Option<String>, BTreeMap<i64, Statistics>> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let units = index.metrics.get(&(scope.clone(), metric.clone()));
        let wanted = |(of, _): &(&Option<String>, &Series)| unit.is_none() || of.as_deref() == unit;
        let sum = |(unit, series): (&Option<String>, &Series)| {
            let samples = if range.is_empty() { range.start..range.start } else { range.clone() };
            let samples = series.range(samples).map(|(at, sample)| (*at, sample));
            (unit.clone(), by_period(samples, range.start, period))
        };
        units.into_iter().flatten().filter(wanted).map(sum).filter(|(_, found)| !found.is_empty()).collect()
    }

    /// The metrics of an account's region, with when each was last measured.
    pub fn metrics(&self, scope: &Scope) -> Vec<(Metric, i64)> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let last =
            |units: &Units| units.values().filter_map(|series| series.keys().next_back()).max().copied();
        let of_scope = index.metrics.iter().filter(|((of, _), _)| of == scope);
        of_scope.filter_map(|((_, metric), units)| Some((metric.clone(), last(units)?))).collect()
    }

    /// Forgets what is old.
    pub fn apply_retention(&self, now: Timestamp) -> Result<(), Error> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        index.forget(seconds(now) - KEPT);
        drop(index);
        for (day, path) in files(&self.directory).map_err(io(&self.directory))? {
            if day * DAY < seconds(now) - KEPT - DAY {
                fs::remove_file(&path).map_err(io(&path))?;
            }
        }
        Ok(())
    }

    /// Forgets everything.
    pub fn reset(&self) -> Result<(), Error> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        *journal = None;
        let found = files(&self.directory);
        let found = found.map_err(|source| Error::Io { path: self.directory.to_path_buf(), source })?;
        for (_, path) in found {
            fs::remove_file(&path).map_err(|source| Error::Io { path, source })?;
        }
        self.index.write().unwrap_or_else(PoisonError::into_inner).metrics.clear();
        Ok(())
    }
}

impl Index {
    fn has_room_for(&self, samples: &[Sample]) -> bool {
        let is_new =
            |sample: &&Sample| !self.metrics.contains_key(&(sample.scope.clone(), sample.metric.clone()));
        self.metrics.len() + samples.iter().filter(is_new).count() <= MOST_METRICS
    }

    fn add(&mut self, sample: Sample) {
        let Sample { scope, metric, unit, at, statistics } = sample;
        let series = self.metrics.entry((scope, metric)).or_default().entry(unit).or_default();
        match series.get_mut(&at) {
            Some(sum) => sum.add(&statistics),
            None => {
                series.insert(at, statistics);
            }
        }
    }

    fn forget(&mut self, before: i64) {
        self.metrics.retain(|_, units| {
            units.retain(|_, series| {
                *series = series.split_off(&before);
                !series.is_empty()
            });
            !units.is_empty()
        });
    }
}

fn append(journal: &mut Option<Journal>, path: &Path, day: i64, lines: &[u8]) -> io::Result<()> {
    let journal = match journal {
        Some(open) if open.day == day => open,
        stale => stale.insert(Journal::open(path, day)?),
    };
    journal.append(lines).inspect_err(|_| {
        // Most likely this works though the lines did not fit; if not, the next put begins with it.
        if let Err(error) = journal.cut() {
            tracing::warn!(path = %path.display(), %error, "lines of metrics that nobody was answered for stay for now");
        }
    })
}

impl Journal {
    /// Opens a day's file for more lines, after the last whole one.
    fn open(path: &Path, day: i64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)?;
        if let Some(directory) = path.parent() {
            // Without it a power cut can take the name of a new file, and all of its lines with it.
            File::open(directory)?.sync_all()?;
        }
        let text = fs::read(path)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let journal = Self { day, file, length: whole as u64 };
        journal.cut()?;
        Ok(journal)
    }

    /// Adds lines, all of them or none.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.cut()?;
        self.file.write_all(lines)?;
        self.file.sync_data()?;
        self.length += lines.len() as u64;
        Ok(())
    }

    /// Cuts off what a put that failed has left: its lines would be counted at the next start.
    fn cut(&self) -> io::Result<()> {
        if self.file.metadata()?.len() == self.length {
            return Ok(());
        }
        self.file.set_len(self.length)?;
        self.file.sync_all()
    }
}

fn replay(path: &Path, index: &mut Index) -> io::Result<()> {
    let text = fs::read(path)?;
    let lines = text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let mut lost = 0;
    for line in lines {
        match serde_json::from_slice(line) {
            Ok(sample) => index.add(sample),
            Err(_) => lost += 1,
        }
    }
    if lost > 0 {
        tracing::warn!(path = %path.display(), lost, "lines of metrics cannot be read");
    }
    Ok(())
}

/// The files with the days that they are of, in their order.
fn files(directory: &Path) -> io::Result<BTreeMap<i64, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let is_ours = path.extension().is_some_and(|suffix| suffix == SUFFIX);
        let day = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let Some(day) = day.filter(|_| is_ours) {
            found.insert(day, path);
        }
    }
    Ok(found)
}

pub fn seconds(at: Timestamp) -> i64 {
    at.millis().div_euclid(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn sample(name: &str, at: i64, value: f64) -> Sample {
        let metric =
            Metric { namespace: "shop".to_owned(), name: name.to_owned(), dimensions: BTreeMap::new() };
        let scope = Scope::new("123456789012", "us-east-1");
        Sample { scope, metric, unit: None, at, statistics: Statistics::of(value, 1.0) }
    }

    fn sums(store: &MetricStore, name: &str) -> Vec<(i64, f64)> {
        let Sample { scope, metric, .. } = sample(name, 0, 0.0);
        let found = store.statistics(&scope, &metric, None, 0..i64::MAX, 60);
        found.into_values().flatten().map(|(at, sum)| (at, sum.sum)).collect()
    }

    #[test]
    fn what_was_written_is_there_again_without_what_is_torn() {
        let directory = tempfile::tempdir().unwrap();
        let now = seconds(NOW);
        let at = now - now % 60;
        let open = || MetricStore::open(directory.path(), NOW).unwrap();
        open().write(vec![sample("a", at, 1.0), sample("a", at, 2.0), sample("b", at, 4.0)], NOW).unwrap();
        let path = directory.path().join(format!("{}.{SUFFIX}", now / DAY));
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"scope\":").unwrap();
        let store = open();
        store.write(vec![sample("a", at, 8.0)], NOW).unwrap();
        for store in [store, open()] {
            assert_eq!(sums(&store, "a"), [(at, 11.0)]);
            assert_eq!(sums(&store, "b"), [(at, 4.0)]);
            assert_eq!(store.metrics(&sample("a", 0, 0.0).scope).len(), 2);
        }
    }

    #[test]
    fn what_a_put_that_failed_has_left_is_not_read_later() {
        let directory = tempfile::tempdir().unwrap();
        let store = MetricStore::open(directory.path(), NOW).unwrap();
        let at = seconds(NOW) - 60;
        store.write(vec![sample("a", at, 1.0)], NOW).unwrap();
        let path = directory.path().join(format!("{}.{SUFFIX}", seconds(NOW) / DAY));
        let left = fs::read(&path).unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(&left).unwrap();
        store.write(vec![sample("a", at, 2.0)], NOW).unwrap();
        let again = MetricStore::open(directory.path(), NOW).unwrap();
        assert_eq!((sums(&store, "a"), sums(&again, "a")), (vec![(at, 3.0)], vec![(at, 3.0)]));

        // A file that takes nothing fails the put, and what comes after it is kept.
        let read_only = File::open(&path).unwrap();
        let mut journal = store.journal.lock().unwrap();
        let writable = std::mem::replace(&mut journal.as_mut().unwrap().file, read_only);
        drop(journal);
        store.write(vec![sample("a", at, 4.0)], NOW).unwrap_err();
        store.journal.lock().unwrap().as_mut().unwrap().file = writable;
        store.write(vec![sample("a", at, 8.0)], NOW).unwrap();
        let again = MetricStore::open(directory.path(), NOW).unwrap();
        assert_eq!((sums(&store, "a"), sums(&again, "a")), (vec![(at, 11.0)], vec![(at, 11.0)]));
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let store = MetricStore::open(directory.path(), NOW).unwrap();
        let at = seconds(NOW);
        store.write(vec![sample("a", at, 1.0), sample("b", at - KEPT + 60, 1.0)], NOW).unwrap();
        store.apply_retention(NOW.plus_millis(120_000)).unwrap();
        assert_eq!((sums(&store, "a").len(), sums(&store, "b").len()), (1, 0));
        store.apply_retention(NOW.plus_millis((KEPT + 2 * DAY) * 1000)).unwrap();
        assert_eq!(files(directory.path()).unwrap(), BTreeMap::new());
        assert_eq!(sums(&store, "a"), []);
    }
}
