//! Tails against real files, with a control plane that stores by the rules of the log store.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use longshore_model::link::{FromAgent, LogBatch};
use longshore_model::task::TaskRef;
use longshore_model::{Scope, TaskId, Timestamp};
use tokio::sync::mpsc;

use super::lines::Limits;
use super::{Clock, Logs, Options, Source};

const OPTIONS: Options = Options {
    limits: Limits { message: 8, events: 4, bytes: 400 },
    linger: Duration::from_millis(1),
    quiet: Duration::from_millis(5),
    resend: Duration::from_secs(60),
    free_bytes: 4096,
};

/// A container's file, and control's end of the channel.
struct Bench {
    _directory: tempfile::TempDir,
    file: PathBuf,
    logs: Logs,
    batches: mpsc::Receiver<FromAgent>,
    /// What control has stored.
    stored: u64,
    messages: Vec<String>,
    timestamps: Vec<i64>,
}

impl Bench {
    fn new(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("app.log");
        File::create(&file).unwrap();
        let (logs, batches) = agent(options);
        Self { _directory: directory, file, logs, batches, stored: 0, messages: vec![], timestamps: vec![] }
    }

    fn write(&self, bytes: impl AsRef<[u8]>) {
        OpenOptions::new().append(true).open(&self.file).unwrap().write_all(bytes.as_ref()).unwrap();
    }

    fn follow(&self) {
        self.logs.follow(source(&self.file), self.stored);
    }

    /// The agent is killed, and another one takes over.
    fn restart(&mut self, options: Options) {
        (self.logs, self.batches) = agent(options);
        self.follow();
    }

    async fn batch(&mut self) -> LogBatch {
        match self.batches.recv().await.unwrap() {
            FromAgent::Logs(batch) => batch,
            other => panic!("not a batch: {other:?}"),
        }
    }

    /// Stores the batch as the log store does; gives what control answers.
    fn store(&mut self, batch: &LogBatch) -> u64 {
        assert!(batch.start <= self.stored, "a gap before {batch:?}, stored {}", self.stored);
        if batch.start == self.stored && batch.end > self.stored {
            self.stored = batch.end;
            self.messages.extend(batch.events.iter().map(|event| event.message.clone()));
            self.timestamps.extend(batch.events.iter().map(|event| event.timestamp.millis()));
        }
        self.stored
    }

    async fn store_next(&mut self) {
        let batch = self.batch().await;
        let stored = self.store(&batch);
        self.logs.stored("id", stored);
    }

    async fn store_up_to(&mut self, offset: u64) {
        while self.stored < offset {
            self.store_next().await;
        }
    }

    /// Ends the container, and stores what comes until the tail is done.
    async fn finish(mut self) -> Vec<String> {
        let (mut taken, mut acknowledged) = (Vec::new(), self.stored);
        let Self { logs, batches, .. } = &mut self;
        {
            let finish = logs.finish("id");
            tokio::pin!(finish);
            loop {
                tokio::select! {
                    () = &mut finish => break,
                    batch = batches.recv() => {
                        let Some(FromAgent::Logs(batch)) = batch else { panic!("no batch") };
                        if batch.start == acknowledged {
                            acknowledged = batch.end;
                        }
                        logs.stored("id", acknowledged);
                        taken.push(batch);
                    }
                }
            }
        }
        for batch in taken {
            self.store(&batch);
        }
        self.messages
    }
}

fn agent(options: Options) -> (Logs, mpsc::Receiver<FromAgent>) {
    let (to_control, batches) = mpsc::channel(4);
    // A clock that goes backwards.
    let time = AtomicI64::new(1_000_000);
    let clock: Clock = Arc::new(move || Timestamp(time.fetch_sub(1, Ordering::Relaxed)));
    (Logs::with_options(to_control, clock, options), batches)
}

fn source(file: &Path) -> Source {
    let task =
        TaskRef { scope: Scope::new("123456789012", "eu-west-1"), cluster: "default".into(), id: TaskId(1) };
    Source { task, container: "app".into(), id: "id".into(), file: file.to_owned() }
}

/// A file's allocated bytes.
fn disk(file: &Path) -> u64 {
    std::fs::metadata(file).unwrap().blocks() * 512
}

#[tokio::test]
async fn lines_are_sent_as_they_come() {
    let mut bench = Bench::new(OPTIONS);
    bench.follow();
    bench.write("one\ntw");
    let first = bench.batch().await;
    assert_eq!(
        (first.start, first.end, first.source.as_str(), first.container.as_str()),
        (0, 4, "id", "app")
    );
    let stored = bench.store(&first);
    bench.write("o\n");
    bench.logs.stored("id", stored);
    bench.store_up_to(8).await;
    assert_eq!(bench.messages, ["one", "two"]);
    assert!(bench.timestamps.is_sorted(), "{:?}", bench.timestamps);
    bench.write("\n\nend");
    assert_eq!(bench.finish().await, ["one", "two", "end"]);
}

#[tokio::test]
async fn a_restart_at_any_byte_loses_and_doubles_nothing() {
    let output =
        "a\nbb\nmuch too long for one\n\nccc\n\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\nd\ne\nf\ng\nlast".as_bytes();
    for at in 0..=output.len() {
        let mut bench = Bench::new(OPTIONS);
        bench.write(&output[..at]);
        bench.follow();
        // The first agent is killed with its first batch stored, and the answer lost, where there was a batch.
        if output[..at].contains(&b'\n') {
            let batch = bench.batch().await;
            bench.store(&batch);
        }
        bench.restart(OPTIONS);
        bench.write(&output[at..]);
        let got = bench.finish().await.concat();
        assert_eq!(got, String::from_utf8_lossy(output).replace('\n', ""), "restarted at byte {at}");
    }
}

#[tokio::test]
async fn a_batch_lost_with_its_link_is_sent_again() {
    let mut bench = Bench::new(OPTIONS);
    bench.write("one\n");
    bench.follow();
    let lost = bench.batch().await;
    bench.follow();
    let again = bench.batch().await;
    assert_eq!(
        (lost.start, lost.end, &lost.events[0].message),
        (again.start, again.end, &again.events[0].message)
    );
    let stored = bench.store(&again);
    bench.logs.stored("id", stored);
    assert_eq!(bench.finish().await, ["one"]);
}

#[tokio::test]
async fn an_unanswered_batch_is_sent_again() {
    let mut bench = Bench::new(Options { resend: Duration::from_millis(5), ..OPTIONS });
    bench.write("one\n");
    bench.follow();
    assert_eq!(bench.batch().await.end, 4);
    bench.store_next().await;
    assert_eq!(bench.messages, ["one"]);
}

#[tokio::test]
async fn an_answer_inside_a_batch_says_where_to_go_on() {
    let mut bench = Bench::new(OPTIONS);
    bench.write("one\ntwo\n");
    bench.follow();
    assert_eq!(bench.batch().await.end, 8);
    // Control had the first line already.
    (bench.stored, bench.messages) = (4, vec!["one".into()]);
    bench.logs.stored("id", 4);
    bench.logs.stored("id", 2);
    assert_eq!(bench.finish().await, ["one", "two"]);
}

#[tokio::test]
async fn finish_reads_what_comes_after_the_exit() {
    let mut bench = Bench::new(Options { quiet: Duration::from_millis(300), ..OPTIONS });
    bench.follow();
    let file = bench.file.clone();
    bench.write("one\n");
    bench.store_up_to(4).await;
    let late = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        OpenOptions::new().append(true).open(file).unwrap().write_all(b"two\nthree").unwrap();
    });
    let got = bench.finish().await;
    late.await.unwrap();
    assert_eq!(got, ["one", "two", "three"]);
}

#[tokio::test]
async fn finish_without_a_file_or_a_tail() {
    let bench = Bench::new(OPTIONS);
    bench.logs.finish("unknown").await;
    std::fs::remove_file(&bench.file).unwrap();
    bench.follow();
    assert_eq!(bench.finish().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_file_that_is_made_later_is_followed() {
    let bench = Bench::new(OPTIONS);
    std::fs::remove_file(&bench.file).unwrap();
    bench.follow();
    tokio::task::yield_now().await;
    std::fs::write(&bench.file, "one\n").unwrap();
    assert_eq!(bench.finish().await, ["one"]);
}

#[tokio::test]
async fn the_disk_of_stored_output_is_freed_and_offsets_stay() {
    let options = Options { limits: Limits { message: 1000, events: 1000, bytes: 16 << 10 }, ..OPTIONS };
    let mut bench = Bench::new(options);
    let line = |n: usize| format!("{n:0>99}\n");
    let output: String = (0..1000).map(line).collect();
    bench.write(&output);
    File::open(&bench.file).unwrap().sync_all().unwrap();
    let before = disk(&bench.file);
    bench.follow();
    bench.store_up_to(output.len() as u64).await;
    // The next line is sent after the last answer was heeded.
    bench.write(line(1000));
    bench.store_up_to(output.len() as u64 + 100).await;
    let metadata = std::fs::metadata(&bench.file).unwrap();
    assert_eq!(metadata.len(), output.len() as u64 + 100);
    assert!(disk(&bench.file) < before / 4, "{} of {before} bytes are left", disk(&bench.file));

    // A stream that was deleted has its source at 0 again: the hole is not taken for output.
    let whole: Vec<String> = (0..1001).map(|n| line(n).trim().to_owned()).collect();
    assert_eq!(bench.messages, whole);
    (bench.stored, bench.messages) = (0, vec![]);
    (bench.logs, bench.batches) = agent(options);
    bench.follow();
    let first = bench.batch().await;
    assert!(first.start > 90_000 && first.start <= output.len() as u64, "{first:?}");
    assert!(first.events.iter().all(|event| !event.message.contains('\0')), "{first:?}");
}

#[tokio::test]
async fn many_containers_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (logs, mut batches) = agent(Options { limits: Limits::default(), ..OPTIONS });
    let ids: Vec<String> = (0..100).map(|n| format!("c{n}")).collect();
    for id in &ids {
        let file = directory.path().join(id);
        File::create(&file).unwrap();
        logs.follow(Source { id: id.clone(), ..source(&file) }, 0);
    }
    for id in &ids {
        let mut file = OpenOptions::new().append(true).open(directory.path().join(id)).unwrap();
        file.write_all(format!("{id} says hello\n").as_bytes()).unwrap();
    }
    let mut got = Vec::new();
    while got.len() < ids.len() {
        let Some(FromAgent::Logs(batch)) = batches.recv().await else { panic!("no batch") };
        logs.stored(&batch.source, batch.end);
        got.extend(batch.events.into_iter().map(|event| event.message));
    }
    got.sort();
    let mut wanted: Vec<String> = ids.iter().map(|id| format!("{id} says hello")).collect();
    wanted.sort();
    assert_eq!(got, wanted);
}
