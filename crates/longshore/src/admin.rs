//! The server's side door for the machine's owner: a socket in the data directory that only root can open.
//! One line of JSON asks, lines of JSON answer; the last says how it ended.

use crate::Outcome;
use crate::credentials::ACCOUNT;
use crate::instance::Runtimes;
use crate::remote::token::Token;
use clap::ValueEnum;
use longshore_agent::image::ImageRef;
use longshore_control::Context;
use longshore_control::agents::admission;
use longshore_control::ecs::event::render;
use longshore_control::ecs::spot;
use longshore_engine::why;
use longshore_model::container_instance::{Capacity, Membership, Status};
use longshore_model::event::Event;
use longshore_model::record::decode;
use longshore_model::task::LaunchType;
use longshore_model::{Record, Scope};
use longshore_store::Followed;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Import an archive on every instance.
    LoadImage { file: PathBuf, tag: Option<String> },
    /// Explain a task, or where a task of a definition could go.
    Why { arn: String, cluster: String },
    /// Stop a Spot task as AWS does when its capacity is wanted back.
    Interrupt { arn: String },
    /// Tell the events that are kept, then, if asked to, those that come.
    Events { follow: bool },
    /// Make a token that lets one agent in.
    CreateToken { cluster: String, launch_type: Purpose, region: String, millis: i64 },
    /// End the server; containers go on.
    Stop,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    Progress(String),
    Done(Vec<String>),
    Failed(String),
}

/// The longest question, in bytes: paths are at most 4,096 long.
const LONGEST: u64 = 16 * 1024;

pub struct Admin {
    /// None on a machine that runs an agent alone.
    pub context: Option<Arc<Context>>,
    pub runtimes: Runtimes,
    pub stop: mpsc::Sender<()>,
    /// Of the authority, where agents of other machines are let in.
    pub fingerprint: Option<String>,
}

/// For which tasks an agent is let in.
#[derive(Clone, Copy, Debug, Default, ValueEnum, Serialize, Deserialize)]
pub enum Purpose {
    /// Those of the cluster with the launch type EC2.
    #[default]
    Ec2,
    /// Those of the cluster with the launch type EXTERNAL.
    External,
    /// Those with the launch type FARGATE, of every cluster.
    Fargate,
}

impl Admin {
    fn why(&self, arn: &str, cluster: &str) -> Answer {
        let Some(context) = &self.context else { return not_here() };
        match why::explain(&context.view(), arn, cluster, context.now()) {
            Ok(causes) => Answer::Done(causes),
            Err(wrong) => Answer::Failed(wrong),
        }
    }

    async fn interrupt(&self, arn: &str) -> Answer {
        let Some(context) = &self.context else { return not_here() };
        match spot::interrupt(context, arn).await {
            Ok(()) => Answer::Done(Vec::new()),
            Err(error) => Answer::Failed(crate::chain(&error)),
        }
    }

    async fn create_token(&self, cluster: String, purpose: Purpose, region: &str, millis: i64) -> Answer {
        let (Some(context), Some(fingerprint)) = (&self.context, &self.fingerprint) else {
            return Answer::Failed(
                "no agents can join here: start `longshore control`, or `longshore up` with --agents-listen ADDR:PORT"
                    .to_owned(),
            );
        };
        let member = |launch_type| {
            Capacity::Cluster(Membership {
                scope: Scope::new(ACCOUNT, region),
                cluster: cluster.clone(),
                launch_type,
                ec2_instance_id: None,
                launched: false,
                capacity_provider: None,
                status: Status::Active,
            })
        };
        let capacity = match purpose {
            Purpose::Fargate => Capacity::Fargate,
            Purpose::Ec2 => member(LaunchType::Ec2),
            Purpose::External => member(LaunchType::External),
        };
        match admission::create_token(context, capacity, millis).await {
            Ok((id, secret)) => {
                Answer::Done(vec![Token { id, secret, fingerprint: fingerprint.clone() }.to_string()])
            }
            Err(error) => Answer::Failed(crate::chain(&error)),
        }
    }
}

fn not_here() -> Answer {
    Answer::Failed("an agent alone runs here: ask on a control plane".to_owned())
}

/// Serves until the process ends.
pub async fn serve(socket: &Path, admin: Admin) -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    // The store's lock says that we are the only server of the directory, so a socket that is there is a leftover.
    let _ = std::fs::remove_file(socket);
    let listener =
        UnixListener::bind(socket).map_err(|error| format!("listen on {}: {error}", socket.display()))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    let admin = Arc::new(admin);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let admin = Arc::clone(&admin);
            tokio::spawn(async move {
                if let Err(error) = converse(stream, &admin).await {
                    tracing::debug!(%error, "an admin connection ended early");
                }
            });
        }
    });
    Ok(())
}

async fn converse(stream: UnixStream, admin: &Admin) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(LONGEST));
    read.read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line) {
        Err(error) => Answer::Failed(format!("this is not a question: {error}")),
        Ok(Ask::Stop) => {
            let _ = admin.stop.send(()).await;
            Answer::Done(Vec::new())
        }
        Ok(Ask::Why { arn, cluster }) => admin.why(&arn, &cluster),
        Ok(Ask::Interrupt { arn }) => admin.interrupt(&arn).await,
        Ok(Ask::CreateToken { cluster, launch_type, region, millis }) => {
            admin.create_token(cluster, launch_type, &region, millis).await
        }
        Ok(Ask::Events { follow }) => {
            let mut more = String::new();
            tokio::select! {
                told = tell_events(admin, follow, &mut write) => told?,
                // Nobody listens any more.
                _ = read.read_line(&mut more) => return Ok(()),
            }
        }
        Ok(Ask::LoadImage { file, tag }) => load(admin, &file, tag.as_deref(), &mut write).await,
    };
    say(&mut write, &answer).await
}

async fn tell_events(
    admin: &Admin,
    follow: bool,
    write: &mut tokio::net::unix::OwnedWriteHalf,
) -> std::io::Result<Answer> {
    let Some(context) = &admin.context else { return Ok(not_here()) };
    let store = &context.store;
    // Followed first: what is committed in between is in the snapshot and is told once.
    let mut follower = store.follow();
    let snapshot = store.snapshot();
    for event in snapshot.view.events.iter() {
        say(write, &Answer::Progress(render(&snapshot.view, event).to_string())).await?;
    }
    if !follow {
        return Ok(Answer::Done(Vec::new()));
    }
    while let Some(followed) = follower.next().await {
        let Followed::Batch(batch) = followed else {
            let missed = "some events came faster than they were read: ask again for those that are kept";
            return Ok(Answer::Failed(missed.to_owned()));
        };
        if batch.version > snapshot.version {
            let view = context.view();
            let written = batch.changes.iter().filter(|change| change.key.table() == Event::TABLE);
            for value in written.filter_map(|change| change.value.as_deref()) {
                let event: Event = decode(value)?;
                say(write, &Answer::Progress(render(&view, &event).to_string())).await?;
            }
        }
    }
    Ok(Answer::Done(Vec::new()))
}

async fn load(
    admin: &Admin,
    file: &Path,
    tag: Option<&str>,
    write: &mut tokio::net::unix::OwnedWriteHalf,
) -> Answer {
    let tag: Option<ImageRef> = match tag.map(str::parse).transpose() {
        Ok(tag) => tag,
        Err(error) => return Answer::Failed(format!("--tag: {}", crate::chain(&error))),
    };
    let mut names = Vec::new();
    let runtimes = admin.runtimes.all();
    for (index, runtime) in runtimes.iter().enumerate() {
        let progress = Answer::Progress(format!("importing on instance {} of {}", index + 1, runtimes.len()));
        if say(write, &progress).await.is_err() {
            return Answer::Failed("nobody waits for the import any more".to_owned());
        }
        match runtime.import(file, tag.as_ref()).await {
            Ok(imported) => names = imported.iter().map(ToString::to_string).collect(),
            Err(error) => return Answer::Failed(crate::chain(&error)),
        }
    }
    Answer::Done(names)
}

async fn say(write: &mut tokio::net::unix::OwnedWriteHalf, answer: &Answer) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    write.write_all(&line).await
}

/// Asks the server of a data directory; `None` when none runs.
pub async fn ask(socket: &Path, ask: &Ask, mut progress: impl FnMut(&str)) -> Outcome<Option<Vec<String>>> {
    let Ok(stream) = UnixStream::connect(socket).await else { return Ok(None) };
    let (read, mut write) = stream.into_split();
    let mut line = serde_json::to_vec(ask)?;
    line.push(b'\n');
    write.write_all(&line).await?;
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str(&line)? {
            Answer::Progress(said) => progress(&said),
            Answer::Done(names) => return Ok(Some(names)),
            Answer::Failed(why) => return Err(why.into()),
        }
    }
    Err("the server ended in the middle of its answer".into())
}
