//! Says that this control plane lives, and acts on those that do not. Invariant: what several control planes find out is
//! done once, because each change is committed against what was read. A control plane that the others take for dead serves
//! no agent, so that its agents go to those that can record what they say.

use crate::context::{CommitError, Context};
use longshore_engine::membership::{self, Findings, Observer, Watch};
use longshore_engine::{View, lifecycle};
use longshore_model::ContainerInstanceId;
use longshore_model::container_instance::ContainerInstance;
use longshore_model::control_plane::{ControlPlane, ControlPlaneId};
use longshore_model::task::Task;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Between two beats, and between two looks at the others.
const BEAT: Duration = Duration::from_millis(900);
const LOOK: Duration = Duration::from_millis(300);
/// Alone there is nobody to watch but instances, for which a second matters less.
const LOOK_ALONE: Duration = Duration::from_secs(2);
/// Tasks that one commit gives up: etcd takes 128 operations in a transaction.
const AT_ONCE: usize = 40;

pub async fn run(context: Arc<Context>) {
    let shared = context.config.shared_store;
    if shared {
        tokio::spawn(beat(Arc::clone(&context)));
    }
    let began = Instant::now();
    let mut watch = Watch::default();
    let mut looks = tokio::time::interval(if shared { LOOK } else { LOOK_ALONE });
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let findings = look(&context, &mut watch, began.elapsed());
        // A store that does not answer must not keep us from noticing that; what is not done is found again.
        match tokio::time::timeout(membership::DEAD_AFTER, act(&context, findings)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn Error, "what was found of others is not recorded yet");
            }
            Err(_) => tracing::warn!("what was found of others is not recorded yet"),
        }
    }
}

async fn beat(context: Arc<Context>) {
    let mut beats = tokio::time::interval(BEAT);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut heard = true;
    loop {
        beats.tick().await;
        let id = context.id;
        let said = context.commit::<_, CommitError, _>(|snapshot, transaction| {
            match snapshot.view.control_planes.get(&ControlPlane::key_of(id)) {
                Some(present) => transaction.update(&ControlPlane { id, beat: present.beat + 1 }),
                None => transaction.create(&ControlPlane { id, beat: 1 }),
            }
            Ok(())
        });
        let failure = match tokio::time::timeout(membership::DEAD_AFTER, said).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.source().map_or_else(|| error.to_string(), ToString::to_string)),
            Err(_) => Some("it does not answer".to_owned()),
        };
        match (&failure, heard) {
            (Some(why), true) => tracing::warn!(why, "the store does not hear that we live"),
            (None, false) => tracing::info!("the store hears again that we live"),
            (Some(_), false) | (None, true) => {}
        }
        heard = failure.is_none();
    }
}

fn look(context: &Context, watch: &mut Watch, at: Duration) -> Findings {
    let observer = Observer {
        own: context.id,
        shared: context.config.shared_store,
        lost_after: context.config.instance_lost_after,
    };
    let findings = watch.look(&context.view(), observer, |id| context.links.has(id), at);
    context.leads.store(findings.leads, Ordering::Relaxed);
    let cut = context.links.isolate(findings.isolated);
    if cut > 0 {
        tracing::warn!(
            agents = cut,
            "this control plane does not reach its store: its agents are to look for another"
        );
    }
    findings
}

async fn act(context: &Context, findings: Findings) -> Result<(), CommitError> {
    for id in findings.disconnected {
        disconnect(context, id).await?;
    }
    for id in findings.lost {
        lose(context, id).await?;
    }
    for id in findings.forgotten {
        forget(context, id).await?;
    }
    Ok(())
}

/// Unless the instance has connected elsewhere meanwhile.
async fn disconnect(context: &Context, id: ContainerInstanceId) -> Result<(), CommitError> {
    let seen = context.view().container_instance(id).and_then(|instance| instance.connected_to);
    let done = context.commit::<_, CommitError, _>(|snapshot, transaction| {
        let present = snapshot.view.container_instance(id);
        let still = present.filter(|instance| instance.agent_connected && instance.connected_to == seen);
        if let Some(instance) = still.filter(|_| seen != Some(context.id) || !context.links.has(id)) {
            transaction.update(&disconnected(instance));
        }
        Ok(still.is_some())
    });
    if done.await? {
        tracing::info!(instance = %id, "the control plane of an agent is gone, and the agent with it until it links again");
    }
    Ok(())
}

pub(crate) fn disconnected(instance: &ContainerInstance) -> ContainerInstance {
    ContainerInstance {
        agent_connected: false,
        connected_to: None,
        version: instance.version + 1,
        ..instance.clone()
    }
}

/// Gives up the tasks of an instance that is still away.
async fn lose(context: &Context, id: ContainerInstanceId) -> Result<(), CommitError> {
    let now = context.now();
    loop {
        let lost = context
            .commit::<_, CommitError, _>(|snapshot, transaction| {
                let view = &snapshot.view;
                let away = view.container_instance(id).filter(|instance| !instance.agent_connected);
                let Some(instance) = away else { return Ok(0) };
                transaction.rely_on(ContainerInstance::key_of(id));
                let why = membership::why_lost(instance);
                let next: Vec<Task> = view
                    .tasks_on(id)
                    .filter_map(|task| lifecycle::lose(task, why.clone(), now))
                    .take(AT_ONCE)
                    .collect();
                for task in &next {
                    lifecycle::write(view, task, transaction);
                }
                Ok(next.len())
            })
            .await?;
        if lost > 0 {
            tracing::warn!(instance = %id, tasks = lost, "gave up the tasks of an instance that is away for too long");
        }
        if lost < AT_ONCE {
            return Ok(());
        }
    }
}

async fn forget(context: &Context, id: ControlPlaneId) -> Result<(), CommitError> {
    let is_known = |view: &View| view.control_planes.get(&ControlPlane::key_of(id)).is_some();
    context
        .commit(|snapshot, transaction| {
            if is_known(&snapshot.view) {
                transaction.delete(ControlPlane::key_of(id));
            }
            Ok(())
        })
        .await
}
