//! Processes beside a container's first one. Invariant: whatever becomes of the caller, of the container or of
//! containerd, an exec ends and is deleted: its FIFO names it on disk until it is gone, so that a next process of
//! ours finds what a killed one left.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_client::services::v1::{
    DeleteProcessRequest, ExecProcessRequest, GetContainerRequest, GetRequest, KillRequest, StartRequest,
    WaitRequest, snapshots::MountsRequest,
};
use containerd_client::tonic::{Code, Status as Answer};
use containerd_client::types::v1::Status as ProcessStatus;
use prost_types::Any;
use rustix::fs::{CWD, FileType, Mode};
use serde_json::{Value, json};
use tokio::net::unix::pipe;

use super::answer::is_about_the_command;
use super::client::{Client, failed, unless_missing};
use super::{Error, ExecEnd, ExecSpec, Signal, users};

/// How much of the output's end is kept.
const OUTPUT_KEPT: usize = 4 << 10;
/// How long a killed process may take to end before it is left to the janitor.
const DYING: Duration = Duration::from_secs(10);
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// What execs need of the runtime.
#[derive(Clone)]
pub(super) struct Execs {
    client: Client,
    snapshotter: String,
    /// A FIFO for each exec, named after it.
    directory: PathBuf,
}

impl Execs {
    /// Ends what an earlier process left, beside everything else.
    pub fn new(client: Client, snapshotter: String, state_dir: &Path) -> Result<Self, Error> {
        let directory = state_dir.join("exec");
        std::fs::create_dir_all(&directory).map_err(io_failed("make the directory of execs"))?;
        let execs = Self { client, snapshotter, directory };
        for left in execs.left() {
            tokio::spawn(execs.clone().end(left));
        }
        Ok(execs)
    }

    /// Runs on when the caller goes away, until its end or its timeout.
    pub async fn run(&self, id: &str, spec: ExecSpec, timeout: Duration) -> Result<ExecEnd, Error> {
        let (execs, id) = (self.clone(), id.to_owned());
        let running = tokio::spawn(async move { execs.run_here(&id, &spec, timeout).await });
        running.await.unwrap_or_else(|error| {
            Err(Error::Failed { attempted: "run a process in a container", message: error.to_string() })
        })
    }

    async fn run_here(&self, id: &str, spec: &ExecSpec, timeout: Duration) -> Result<ExecEnd, Error> {
        let process = self.process(id, spec).await?;
        let exec = Exec { container: id.to_owned(), id: format!("exec-{:016x}", random()) };
        let fifo = self.fifo(&exec);
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .map_err(|errno| io_failed("make a FIFO")(errno.into()))?;
        let ended = self.run_with_output(&exec, process, &fifo, timeout).await;
        match &ended {
            // It was deleted in order: only the name is left.
            Ok(_) => drop(std::fs::remove_file(&fifo)),
            Err(_) => drop(tokio::spawn(self.clone().end(exec))),
        }
        ended
    }

    async fn run_with_output(
        &self,
        exec: &Exec,
        process: Value,
        fifo: &Path,
        timeout: Duration,
    ) -> Result<ExecEnd, Error> {
        // With an end of ours to write, the FIFO never is at its end: the process' own end is what counts.
        let output = pipe::OpenOptions::new()
            .read_write(true)
            .open_receiver(fifo)
            .map_err(io_failed("open a FIFO"))?;
        let mut tail = Tail::default();
        let ended = tokio::select! {
            ended = self.run_to_its_end(exec, process, fifo, timeout) => ended,
            never = follow(&output, &mut tail) => match never {},
        };
        tail.read(&output);
        match ended {
            Ok((exit_code, timed_out)) => Ok(ExecEnd { exit_code, timed_out, output: tail.text() }),
            Err(NoEnd::Command(message)) => Ok(command_failed(message)),
            Err(NoEnd::Error(error)) => Err(error),
        }
    }

    /// The exit code, and whether it was killed for its time.
    async fn run_to_its_end(
        &self,
        exec: &Exec,
        process: Value,
        fifo: &Path,
        timeout: Duration,
    ) -> Result<(u32, bool), NoEnd> {
        let run = async {
            self.add(exec, process, fifo).await?;
            self.start(exec).await?;
            self.wait(exec).await
        };
        let (code, timed_out) = if let Ok(ended) = tokio::time::timeout(timeout, run).await {
            (ended?, false)
        } else {
            self.kill(exec).await?;
            let dying = tokio::time::timeout(DYING, self.wait(exec)).await;
            (dying.map_err(|_| stuck(exec))??, true)
        };
        // Waits for the last output.
        self.delete(exec).await?;
        if code != 0 && !timed_out && !self.is_running(&exec.container).await? {
            // Killed with its container: its code says nothing.
            return Err(NoEnd::Error(Error::NotFound(exec.container.clone())));
        }
        Ok((code, timed_out))
    }

    /// The container's own process with another command.
    async fn process(&self, id: &str, spec: &ExecSpec) -> Result<Value, Error> {
        let attempted = "read a container's specification";
        let answer = self.client.containers().get(GetContainerRequest { id: id.into() }).await;
        let container = match answer {
            Ok(answer) => answer.into_inner().container.unwrap_or_default(),
            Err(answer) if answer.code() == Code::NotFound => return Err(Error::NotFound(id.into())),
            Err(answer) => return Err(failed(attempted)(answer)),
        };
        let stored = container.spec.map(|spec| spec.value).unwrap_or_default();
        let whole: Value = serde_json::from_slice(&stored)
            .map_err(|error| Error::Failed { attempted, message: error.to_string() })?;
        let mut process = whole.get("process").cloned().unwrap_or_else(|| json!({}));
        process["args"] = json!(spec.args);
        process["terminal"] = json!(false);
        process["env"] = json!(environment(&process["env"], &spec.env));
        if let Some(cwd) = &spec.cwd {
            process["cwd"] = json!(cwd);
        }
        if let Some(user) = &spec.user {
            process["user"] = self.user(id, user).await?;
        }
        Ok(process)
    }

    async fn user(&self, id: &str, wanted: &str) -> Result<Value, Error> {
        let attempted = "find a user in a container";
        let request = MountsRequest { snapshotter: self.snapshotter.clone(), key: id.into() };
        let answer = self.client.snapshots().mounts(request).await.map_err(failed(attempted))?;
        let user = users::resolve(wanted, &answer.into_inner().mounts).map_err(|unknown| Error::Failed {
            attempted,
            message: format!("unable to find user {}: no matching entries in passwd file", unknown.0),
        })?;
        Ok(json!({ "uid": user.uid, "gid": user.gid, "additionalGids": user.additional_gids }))
    }

    async fn add(&self, exec: &Exec, process: Value, fifo: &Path) -> Result<(), NoEnd> {
        let output = fifo.to_string_lossy().into_owned();
        let request = ExecProcessRequest {
            container_id: exec.container.clone(),
            exec_id: exec.id.clone(),
            stdout: output.clone(),
            stderr: output,
            spec: Some(Any { type_url: PROCESS_TYPE.into(), value: process.to_string().into_bytes() }),
            ..ExecProcessRequest::default()
        };
        match self.client.tasks().exec(request).await {
            Ok(_) => Ok(()),
            Err(answer) => Err(self.refused(exec, &answer).await),
        }
    }

    async fn start(&self, exec: &Exec) -> Result<(), NoEnd> {
        let request = StartRequest { container_id: exec.container.clone(), exec_id: exec.id.clone() };
        match self.client.tasks().start(request).await {
            Ok(_) => Ok(()),
            Err(answer) => {
                let no_end = self.refused(exec, &answer).await;
                if matches!(no_end, NoEnd::Command(_)) {
                    self.delete(exec).await?;
                }
                Err(no_end)
            }
        }
    }

    /// What a refusal is about: the container may have ended meanwhile.
    async fn refused(&self, exec: &Exec, answer: &Answer) -> NoEnd {
        match self.is_running(&exec.container).await {
            Ok(false) => Error::NotFound(exec.container.clone()).into(),
            Ok(true) if is_about_the_command(answer.message()) => NoEnd::Command(answer.message().to_owned()),
            Ok(true) => failed("run a process in a container")(answer.clone()).into(),
            Err(error) => error.into(),
        }
    }

    async fn wait(&self, exec: &Exec) -> Result<u32, NoEnd> {
        let request = WaitRequest { container_id: exec.container.clone(), exec_id: exec.id.clone() };
        match self.client.tasks().wait(request).await {
            Ok(answer) => Ok(answer.into_inner().exit_status),
            Err(answer) => Err(self.refused(exec, &answer).await),
        }
    }

    /// Kills the process and what it started, which its own death would leave running in the container.
    async fn kill(&self, exec: &Exec) -> Result<(), Error> {
        let request = GetRequest { container_id: exec.container.clone(), exec_id: exec.id.clone() };
        let found =
            self.client.tasks().get(request).await.ok().and_then(|answer| answer.into_inner().process);
        let family = descendants(found.map_or(0, |process| process.pid));
        let killed = self.kill_first(exec).await;
        // After the process itself, which otherwise would see their death and go on.
        family.into_iter().for_each(kill_process);
        killed
    }

    async fn kill_first(&self, exec: &Exec) -> Result<(), Error> {
        let request = KillRequest {
            container_id: exec.container.clone(),
            exec_id: exec.id.clone(),
            signal: Signal::KILL.0,
            all: false,
        };
        match self.client.tasks().kill(request).await {
            Ok(_) => Ok(()),
            Err(answer) if super::answer::has_ended(&answer) => Ok(()),
            Err(answer) => Err(failed("kill a process in a container")(answer)),
        }
    }

    async fn delete(&self, exec: &Exec) -> Result<(), Error> {
        let request = DeleteProcessRequest { container_id: exec.container.clone(), exec_id: exec.id.clone() };
        unless_missing(self.client.tasks().delete_process(request).await, "delete a process in a container")
    }

    async fn is_running(&self, id: &str) -> Result<bool, Error> {
        let request = GetRequest { container_id: id.into(), exec_id: String::new() };
        match self.client.tasks().get(request).await {
            Ok(answer) => {
                let status = answer.into_inner().process.map(|process| process.status());
                Ok(!matches!(status, None | Some(ProcessStatus::Stopped | ProcessStatus::Created)))
            }
            Err(answer) if answer.code() == Code::NotFound => Ok(false),
            Err(answer) => Err(failed("get a task")(answer)),
        }
    }

    /// Kills and deletes what may be left of an exec once containerd answers. What it gives up is left to the
    /// next process.
    async fn end(self, exec: Exec) {
        const PAUSE: Duration = Duration::from_millis(500);
        const ATTEMPTS: u32 = 600;
        for _ in 0..ATTEMPTS {
            match self.try_end(&exec).await {
                Ok(()) => return drop(std::fs::remove_file(self.fifo(&exec))),
                Err(error) => {
                    tracing::debug!(container = exec.container, exec = exec.id, %error, "an exec is left over");
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        tracing::warn!(container = exec.container, exec = exec.id, "an exec could not be ended");
    }

    async fn try_end(&self, exec: &Exec) -> Result<(), Error> {
        // One that was never started cannot be killed, only deleted; one in a container that is gone is gone.
        let killed = self.kill(exec).await;
        let deleted = self.delete(exec).await;
        match deleted {
            Ok(()) => Ok(()),
            Err(_) if !self.is_running(&exec.container).await? => Ok(()),
            Err(error) => killed.and(Err(error)),
        }
    }

    fn fifo(&self, exec: &Exec) -> PathBuf {
        self.directory.join(format!("{}~{}", exec.container, exec.id))
    }

    fn left(&self) -> Vec<Exec> {
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return Vec::new() };
        let named = |entry: std::fs::DirEntry| {
            let name = entry.file_name();
            let (container, id) = name.to_str()?.split_once('~')?;
            Some(Exec { container: container.to_owned(), id: id.to_owned() })
        };
        entries.flatten().filter_map(named).collect()
    }
}

struct Exec {
    container: String,
    id: String,
}

/// Why a process did not come to an end of its own.
enum NoEnd {
    /// The command cannot be run: its user's mistake, with runc's words.
    Command(String),
    Error(Error),
}

impl From<Error> for NoEnd {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

fn stuck(exec: &Exec) -> NoEnd {
    let message = format!("`{}` of `{}` does not die", exec.id, exec.container);
    NoEnd::Error(Error::Failed { attempted: "kill a process in a container", message })
}

/// As a shell says it: 127 for what is not there, 126 for what cannot be run.
fn command_failed(message: String) -> ExecEnd {
    let missing = message.contains("not found") || message.contains("no such file");
    ExecEnd { exit_code: if missing { 127 } else { 126 }, timed_out: false, output: message }
}

/// The container's variables with those of `added` over them.
fn environment(present: &Value, added: &[String]) -> Vec<String> {
    let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
    let replaced: Vec<String> = added.iter().map(|pair| name(pair)).collect();
    let present = present.as_array().into_iter().flatten().filter_map(Value::as_str);
    let kept = present.filter(|pair| !replaced.contains(&name(pair))).map(str::to_owned);
    kept.chain(added.iter().cloned()).collect()
}

fn descendants(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(pid) = family.get(next).copied().filter(|pid| *pid > 1) {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        family.extend(children.unwrap_or_default().split_whitespace().filter_map(|c| c.parse::<u32>().ok()));
        next += 1;
    }
    family.split_off(1)
}

fn kill_process(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        // One that has ended meanwhile is as good as killed.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// The end of an output.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    /// Takes what is there now.
    fn read(&mut self, output: &pipe::Receiver) {
        let mut buffer = [0; OUTPUT_KEPT];
        while let Ok(read @ 1..) = output.try_read(&mut buffer) {
            self.0.extend(buffer.iter().take(read));
            let excess = self.0.len().saturating_sub(OUTPUT_KEPT);
            self.0.drain(..excess);
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

/// Reads on, so that the process never waits for a reader.
async fn follow(output: &pipe::Receiver, tail: &mut Tail) -> Infallible {
    while output.readable().await.is_ok() {
        tail.read(output);
        // An output without end must not keep the rest of the task from its turn.
        tokio::task::yield_now().await;
    }
    std::future::pending().await
}

fn random() -> u64 {
    getrandom::u64().unwrap_or_default()
}

fn io_failed(attempted: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::Failed { attempted, message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_variables_win() {
        let present = json!(["PATH=/bin", "A=1"]);
        assert_eq!(environment(&present, &["A=2".into(), "B=3".into()]), ["PATH=/bin", "A=2", "B=3"]);
        assert_eq!(environment(&Value::Null, &[]), Vec::<String>::new());
    }

    #[test]
    fn a_command_that_cannot_run_ends_as_in_a_shell() {
        let code = |message: &str| command_failed(message.to_owned()).exit_code;
        assert_eq!(code("exec: \"x\": executable file not found in $PATH"), 127);
        assert_eq!(code("exec: \"/x\": stat /x: no such file or directory"), 127);
        assert_eq!(code("exec /x: permission denied"), 126);
    }
}
