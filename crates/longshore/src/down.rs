//! `longshore down`: nothing is left on the machine but the data directory.

use crate::Outcome;
use crate::admin::{self, Ask};
use crate::config::{DownArgs, Up, UpArgs};
use crate::data_dir::DataDir;
use crate::remote::connector::Identity;
use crate::server::{self, Server};
use longshore_agent::network;
use longshore_agent::runtime::supervisor::Containerd;
use longshore_control::Context;
use longshore_control::context::CommitError;
use longshore_engine::lifecycle;
use longshore_model::Record;
use longshore_model::change::Key;
use longshore_model::task::{DesiredStatus, LastStatus, Stop, StopCode, Task};
use longshore_model::vpc::Cidr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub async fn run(args: DownArgs) -> Outcome {
    let data_dir = DataDir::existing(&args.data_dir)?;
    if admin::ask(&data_dir.admin_socket(), &Ask::Stop, |_| {}).await?.is_some() {
        eprintln!("stopping the server");
    }
    if let Some(agent) = data_dir.agent::<Identity>()? {
        // Its control plane hears of its tasks' end when the instance is deregistered or found to be gone.
        let _lock = when_free(async || data_dir.lock()).await?;
        return remove(&data_dir, agent.vpc_cidr).await;
    }
    let Some(identity) = data_dir.identity()? else {
        eprintln!("no container instance was started on {} yet", data_dir.path().display());
        return Ok(());
    };
    if holds_tasks(&data_dir).await? {
        let up = Up {
            vpc_cidr: identity.vpc_cidr,
            instances: u16::try_from(identity.instances.len()).unwrap_or(u16::MAX).max(1),
            ..UpArgs::default().complete()?
        };
        let server = when_free(async || Server::start(&data_dir, &up).await).await?;
        stop_all_tasks(&server).await?;
        server.stop().await?;
    }
    remove(&data_dir, identity.vpc_cidr).await
}

/// Whether tasks have to be stopped: only then is the server needed once more.
async fn holds_tasks(data_dir: &DataDir) -> Outcome<bool> {
    let store = when_free(async || server::open_store(data_dir).await).await?;
    Ok(store.snapshot().view.tasks.iter().any(|task| task.holds_resources()))
}

/// Tries again while a server that was told to stop answers its last requests: it holds the store until then.
async fn when_free<T>(attempt: impl AsyncFn() -> Outcome<T>) -> Outcome<T> {
    const TRIES: u32 = 300;
    let mut tried = 0;
    loop {
        match attempt().await {
            Err(error) if tried < TRIES && crate::chain(&*error).contains("another process") => {
                tried += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            done => return done,
        }
    }
}

async fn stop_all_tasks(server: &Server) -> Outcome {
    let context = &server.control.context;
    let mut changes = context.store.follow();
    let why = Stop { code: StopCode::UserInitiated, reason: "Task stopped by longshore down".to_owned() };
    // Services start no tasks in the place of those that are stopped; one may be about to.
    context.leads.store(false, Ordering::Relaxed);
    let count = context.view().tasks.iter().filter(|task| task.holds_resources()).count();
    if count > 0 {
        eprintln!("stopping {count} tasks");
    }
    loop {
        let to_run = |task: &&Arc<Task>| task.desired_status == DesiredStatus::Running;
        let tasks: Vec<Key> = context.view().tasks.iter().filter(to_run).map(|task| task.key()).collect();
        for key in tasks {
            stop_task(context, &key, &why).await?;
        }
        if context.view().tasks.iter().all(|task| task.last_status == LastStatus::Stopped) {
            return Ok(());
        }
        if changes.next().await.is_none() {
            return Err("the store closed while tasks were being stopped".into());
        }
    }
}

async fn stop_task(context: &Context, key: &Key, why: &Stop) -> Result<(), CommitError> {
    let commit = context.commit::<_, CommitError, _>(|snapshot, transaction| {
        let present = snapshot.view.tasks.get(key);
        if let Some(next) = present.and_then(|task| lifecycle::stop(task, why.clone(), context.now())) {
            lifecycle::write(&snapshot.view, &next, transaction);
        }
        Ok(())
    });
    commit.await
}

async fn remove(data_dir: &DataDir, vpc_cidr: Cidr) -> Outcome {
    Containerd::down_dir(data_dir.path()).await?;
    // Removing finds what is there by the server's id, whatever instance it belongs to.
    network::down(&network::Config::new(data_dir.path(), vpc_cidr, network::Instance::Host)).await?;
    let _ = std::fs::remove_file(data_dir.admin_socket());
    eprintln!("down; {} keeps the records", data_dir.path().display());
    Ok(())
}
