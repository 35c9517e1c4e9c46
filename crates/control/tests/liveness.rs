//! Two control planes on one store, one of which is cut off from it: who serves the agents, and who leads.

#![allow(clippy::unwrap_used, reason = "a test ends where its ground is missing")]

use async_trait::async_trait;
use longshore_control::agents::{self, Ended, Link};
use longshore_control::log_store::{LogStore, Options};
use longshore_control::metric_store::MetricStore;
use longshore_control::vault::Vault;
use longshore_control::{Config, Context, context, liveness};
use longshore_engine::View;
use longshore_model::change::{Commit, Version};
use longshore_model::container_instance::{
    AgentVersion, Capacity, ContainerInstance, CpuArchitecture, Ports,
};
use longshore_model::control_plane::ControlPlaneId;
use longshore_model::link::{FromAgent, Hello, ToAgent};
use longshore_model::{ContainerInstanceId, Resources, Tags, Transaction};
use longshore_store::memory::Memory;
use longshore_store::{Changes, Engine, Error, Followed, Follower, Loaded, Outcome, Store};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

const INSTANCE: ContainerInstanceId = ContainerInstanceId(1);

/// An engine behind a wire that can be cut: while it is, what is asked and what is told waits.
struct Wired {
    engine: Arc<Memory>,
    whole: watch::Receiver<bool>,
}

async fn passed(whole: &watch::Receiver<bool>) {
    whole.clone().wait_for(|whole| *whole).await.unwrap();
}

#[async_trait]
impl Engine for Wired {
    async fn load(&self, prefix: &str) -> Result<Loaded, Error> {
        passed(&self.whole).await;
        self.engine.load(prefix).await
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome, Error> {
        passed(&self.whole).await;
        self.engine.commit(commit).await
    }

    async fn changes(&self, since: Version) -> Result<Changes, Error> {
        let (whole, mut changes) = (self.whole.clone(), self.engine.changes(since).await?);
        let (told, heard) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(change) = changes.next().await {
                passed(&whole).await;
                if told.send(change).is_err() {
                    return;
                }
            }
        });
        Ok(Changes(heard))
    }

    async fn compact(&self, version: Version) -> Result<(), Error> {
        self.engine.compact(version).await
    }

    async fn reset(&self) -> Result<Version, Error> {
        self.engine.reset().await
    }
}

struct ControlPlane {
    context: Arc<Context>,
    wire: watch::Sender<bool>,
    _logs: tempfile::TempDir,
}

impl ControlPlane {
    async fn start(engine: &Arc<Memory>) -> Self {
        let (wire, whole) = watch::channel(true);
        let logs = tempfile::tempdir().unwrap();
        let store = Store::open(Arc::new(Wired { engine: Arc::clone(engine), whole })).await.unwrap();
        let log_store = LogStore::open(logs.path(), Options::default()).unwrap();
        let config = Config {
            vpc_cidr: "10.7.0.0/16".parse().unwrap(),
            keep_stopped_tasks: 0,
            shared_store: true,
            instance_lost_after: Duration::from_secs(3600),
            task_healthy_after: Duration::ZERO,
            scale_in_after: Duration::ZERO,
            instances: None,
            lambda_endpoint: None,
        };
        let metric_store = MetricStore::open(&logs.path().join("metrics"), context::now()).unwrap();
        let vault = Vault::new(&Vault::make_key()).unwrap();
        let context = Arc::new(Context::new(Arc::new(store), log_store, metric_store, vault, config));
        tokio::spawn(liveness::run(Arc::clone(&context)));
        Self { context, wire, _logs: logs }
    }

    fn leads(&self) -> bool {
        self.context.leads.load(Ordering::Relaxed)
    }

    fn link(&self) -> Agent {
        let (to_agent, hears) = mpsc::channel(16);
        let (says, from_agent) = mpsc::channel(16);
        let hello = Hello {
            instance: INSTANCE,
            name: "test".to_owned(),
            resources: Resources { cpu: 1024, memory: 1024 },
            cpu_architecture: CpuArchitecture::X86_64,
            attributes: Default::default(),
            ports: Ports::default(),
            gpus: Vec::new(),
            agent: AgentVersion::default(),
            tags: Tags::default(),
        };
        says.try_send(FromAgent::Hello(hello)).unwrap();
        let link = Link { to_agent, from_agent };
        let served = tokio::spawn(agents::serve(Arc::clone(&self.context), Capacity::Fargate, link));
        Agent { hears, _says: says, served }
    }

    /// Waits until the control plane's view is as wanted.
    async fn until(&self, wanted: impl Fn(&View) -> bool) {
        let mut changes = self.context.store.follow();
        while !wanted(&self.context.view()) {
            changes.next().await.unwrap();
        }
    }

    async fn write(&self, change: impl Fn(&ContainerInstance) -> ContainerInstance) {
        let written = self.context.commit(|snapshot, transaction: &mut Transaction| {
            transaction.update(&change(snapshot.view.container_instance(INSTANCE).unwrap()));
            Ok::<_, context::CommitError>(())
        });
        written.await.unwrap();
    }
}

struct Agent {
    hears: mpsc::Receiver<ToAgent>,
    _says: mpsc::Sender<FromAgent>,
    served: JoinHandle<Ended>,
}

impl Agent {
    async fn until_cut(&mut self) {
        while self.hears.recv().await.is_some() {}
    }
}

/// Where the instance is connected, as a view says.
fn place(view: &View) -> Option<ControlPlaneId> {
    view.container_instance(INSTANCE).filter(|instance| instance.agent_connected)?.connected_to
}

/// Where it was, each place once for each time that it came there.
fn places(changes: &mut Recorded) -> Vec<Option<ControlPlaneId>> {
    let mut places = changes.0.lock().unwrap().clone();
    places.dedup();
    places
}

struct Recorded(Arc<std::sync::Mutex<Vec<Option<ControlPlaneId>>>>);

fn record(mut changes: Follower) -> Recorded {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let recorded = Recorded(Arc::clone(&seen));
    tokio::spawn(async move {
        while let Some(Followed::Batch(batch)) = changes.next().await {
            for change in
                batch.changes.iter().filter(|change| change.key == ContainerInstance::key_of(INSTANCE))
            {
                let mut view = View::default();
                longshore_model::change::View::apply(&mut view, change).unwrap();
                seen.lock().unwrap().push(place(&view));
            }
        }
    });
    recorded
}

async fn until(wanted: impl Fn() -> bool) {
    while !wanted() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn who_is_cut_off_from_the_store_gives_its_agents_and_its_lead_to_the_others() {
    let engine = Arc::new(Memory::default());
    let (one, other) = (ControlPlane::start(&engine).await, ControlPlane::start(&engine).await);
    until(|| one.leads() != other.leads()).await;
    // The case with more to do: who leads is cut off.
    let (cut, stays) = if one.leads() { (one, other) } else { (other, one) };
    let mut seen = record(stays.context.store.follow());
    let mut agent = cut.link();
    stays.until(|view| place(view) == Some(cut.context.id)).await;

    cut.wire.send_replace(false);
    agent.until_cut().await;
    stays.until(|view| place(view).is_none()).await;
    until(|| stays.leads() && !cut.leads()).await;
    assert!(matches!(cut.link().served.await.unwrap(), Ended::Isolated), "it takes no agent meanwhile");
    let mut linked = stays.link();
    stays.until(|view| place(view) == Some(stays.context.id)).await;
    assert!(matches!(linked.hears.recv().await, Some(ToAgent::Firewall(_))));
    assert!(matches!(linked.hears.recv().await, Some(ToAgent::Assigned(_))));

    cut.wire.send_replace(true);
    until(|| cut.leads() && !stays.leads()).await;
    let ended = agent.served.await.unwrap();
    assert!(matches!(ended, Ended::Isolated), "{ended}");
    let (cut_off, stayed) = (Some(cut.context.id), Some(stays.context.id));
    assert_eq!(place(&cut.context.view()), stayed);
    assert_eq!(places(&mut seen), [cut_off, None, stayed], "each is done once, and nothing undone");
}

#[tokio::test]
async fn a_link_that_lives_is_recorded_again_and_a_newer_one_elsewhere_ends_it() {
    let control = ControlPlane::start(&Arc::new(Memory::default())).await;
    let mut agent = control.link();
    assert!(matches!(agent.hears.recv().await, Some(ToAgent::Firewall(_))));
    assert!(matches!(agent.hears.recv().await, Some(ToAgent::Assigned(_))));
    let own = control.context.id;
    control.until(|view| place(view) == Some(own)).await;
    // As somebody does who took this control plane for dead.
    let away = |instance: &ContainerInstance| ContainerInstance {
        agent_connected: false,
        connected_to: None,
        ..instance.clone()
    };
    control.write(away).await;
    control.until(|view| place(view) == Some(own)).await;
    let elsewhere = ControlPlaneId(own.0 ^ 1);
    control.write(|instance| ContainerInstance { connected_to: Some(elsewhere), ..instance.clone() }).await;
    let ended = agent.served.await.unwrap();
    assert!(matches!(ended, Ended::Superseded), "{ended}");
}
