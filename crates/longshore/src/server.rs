//! Puts the parts of one machine together: store, control, containerd and the agents.

use crate::config::Up;
use crate::credentials::{self, ACCOUNT};
use crate::data_dir::{DataDir, Identity};
use crate::fleet;
use crate::instance::{LINK, Machine, Opened, Runtimes};
use crate::{Outcome, machine, traffic};
use longshore_agent::agent;
use longshore_agent::network;
use longshore_agent::runtime::supervisor::Containerd;
use longshore_control::agents::{self, Link};
use longshore_control::log_store::{self, LogStore};
use longshore_control::metric_store::MetricStore;
use longshore_control::{
    Config, Context, RandomIds, alarms, codedeploy, context, housekeeping, liveness, reconcile, scaling,
};
use longshore_engine::View;
use longshore_model::container_instance::{AgentVersion, Capacity, Membership, Ports, Status};
use longshore_model::id::IdSource;
use longshore_model::link::Hello;
use longshore_model::task::LaunchType;
use longshore_model::{ContainerInstanceId, Resources, Scope, Tags};
use longshore_store::Store;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Where the numbers of container instances begin, so that they keep their places whatever `--instances` says.
const MEMBERS: usize = 64;
/// The region of the clusters that this machine's container instances join.
const REGION: &str = "us-east-1";

/// The APIs' state and what is done with it beside them.
pub struct ControlPlane {
    pub context: Arc<Context>,
    beside: Vec<JoinHandle<()>>,
}

impl ControlPlane {
    pub async fn start(data_dir: &DataDir, store: Arc<Store<View>>, config: Config) -> Outcome<Self> {
        let logs = data_dir.logs();
        let log_store =
            tokio::task::spawn_blocking(move || LogStore::open(&logs, log_store::Options::default()))
                .await??;
        let vault = credentials::vault(data_dir, &store.snapshot().view)?;
        let metrics = data_dir.metrics();
        let metric_store =
            tokio::task::spawn_blocking(move || MetricStore::open(&metrics, context::now())).await??;
        let context = Arc::new(Context::new(store, log_store, metric_store, vault, config));
        let beside = vec![
            tokio::spawn(alarms::run(Arc::clone(&context))),
            tokio::spawn(housekeeping::run(Arc::clone(&context))),
            tokio::spawn(liveness::run(Arc::clone(&context))),
            tokio::spawn(reconcile::run(Arc::clone(&context))),
            tokio::spawn(scaling::run(Arc::clone(&context))),
            tokio::spawn(codedeploy::drive::run(Arc::clone(&context))),
        ];
        Ok(Self { context, beside })
    }

    pub fn stop(self) {
        self.beside.iter().for_each(JoinHandle::abort);
    }
}

/// A control plane and the instances of its machine: everything but the APIs' front.
pub struct Server {
    pub control: ControlPlane,
    machine: Machine,
    pub runtimes: Runtimes,
    pub instances: Vec<ContainerInstanceId>,
    running: Vec<JoinHandle<()>>,
}

impl Server {
    /// Opens what the data directory holds, and connects the agents.
    pub async fn start(data_dir: &DataDir, up: &Up) -> Outcome<Self> {
        let store = Arc::new(open_store(data_dir).await?);
        let identity = identity(data_dir, up, &store.snapshot().view)?;
        let config = Config {
            vpc_cidr: identity.vpc_cidr,
            keep_stopped_tasks: hours(up.keep_stopped_tasks_hours),
            shared_store: false,
            instance_lost_after: up.instance_lost_after,
            task_healthy_after: up.task_healthy_after,
            instances: Some(machine::cpu_architecture()),
            scale_in_after: up.scale_in_after,
            lambda_endpoint: up.lambda_endpoint.clone(),
        };
        let control = ControlPlane::start(data_dir, store, config).await?;
        let containerd = match &up.containerd {
            Some(address) => Containerd::external(data_dir.path(), address).await?,
            None => Containerd::start(data_dir.path()).await?,
        };
        let runtimes = Runtimes::default();
        let timekeeper = Arc::clone(&control.context);
        let machine = Machine {
            data_dir: data_dir.clone(),
            containerd: Arc::new(containerd),
            runtimes: runtimes.clone(),
            vpc_cidr: control.context.config.vpc_cidr,
            mirrors: up.mirrors.clone(),
            clock: Arc::new(move || timekeeper.now()),
            stop_timeout: agent::STOP_TIMEOUT,
            has_edge: true,
        };
        let mut server = Self { control, machine, runtimes, instances: Vec::new(), running: Vec::new() };
        let parts = up.instances + up.container_instances;
        let resources = machine::share(parts, up.overcommit_cpu, up.overcommit_memory)?;
        for (index, id) in identity.instances.iter().enumerate() {
            let place = match (identity.instances.len(), u16::try_from(index)) {
                (1, _) | (_, Err(_)) => network::Instance::Host,
                (_, Ok(number)) => network::Instance::Namespaced(number),
            };
            let hello = hello(*id, format!("instance-{}", index + 1), resources, BTreeMap::new());
            server.start_instance(index, place, hello, Capacity::Fargate).await?;
        }
        for (number, id) in identity.container_instances.iter().enumerate() {
            let index = MEMBERS + number;
            let place = network::Instance::Namespaced(u16::try_from(index)?);
            let name = format!("container-instance-{}", number + 1);
            let hello = hello(*id, name, resources, machine::attributes(REGION, number));
            server.start_instance(index, place, hello, member_of(up, *id)).await?;
        }
        let fleet = fleet::run(Arc::clone(&server.control.context), server.machine.clone());
        server.running.push(tokio::spawn(fleet));
        server.running.extend(traffic::start(&server.control.context, data_dir.path()).await?);
        wait_for_agents(&server.control.context, &server.instances).await;
        Ok(server)
    }

    async fn start_instance(
        &mut self,
        index: usize,
        place: network::Instance,
        hello: Hello,
        capacity: Capacity,
    ) -> Outcome {
        let context = Arc::clone(&self.control.context);
        self.instances.push(hello.instance);
        let Opened { instance, from_agent } = self.machine.open(index, place, hello).await?;
        let (to_agent, from_control) = mpsc::channel(LINK);
        self.running.push(tokio::spawn(async move {
            let ended = agents::serve(context, capacity, Link { to_agent, from_agent }).await;
            tracing::info!(reason = %ended, "an agent's connection ended");
        }));
        self.running.push(tokio::spawn(agent::run(instance, from_control)));
        Ok(())
    }

    /// Ends everything but the containers.
    pub async fn stop(self) -> Outcome {
        self.running.iter().for_each(JoinHandle::abort);
        self.control.stop();
        Ok(self.machine.containerd.stop().await?)
    }
}

/// Waits until every one of the instances takes tasks.
pub async fn wait_for_agents(context: &Context, instances: &[ContainerInstanceId]) {
    let mut changes = context.store.follow();
    let connected = |view: &View| {
        let is_connected = |id| view.container_instance(id).is_some_and(|instance| instance.agent_connected);
        instances.iter().all(|id| is_connected(*id))
    };
    while !connected(&context.view()) {
        if changes.next().await.is_none() {
            return;
        }
    }
}

/// In milliseconds.
pub fn hours(number: u32) -> i64 {
    i64::from(number) * 3_600_000
}

pub async fn open_store(data_dir: &DataDir) -> Outcome<Store<View>> {
    let engine = longshore_store::embedded::Embedded::open(&data_dir.store()).await?;
    Ok(Store::open(Arc::new(engine)).await?)
}

/// What an agent of this machine says of it.
fn hello(
    instance: ContainerInstanceId,
    name: String,
    resources: Resources,
    attributes: BTreeMap<String, String>,
) -> Hello {
    Hello {
        instance,
        name,
        resources,
        cpu_architecture: machine::cpu_architecture(),
        attributes,
        ports: Ports::default(),
        gpus: Vec::new(),
        agent: AgentVersion { agent: env!("CARGO_PKG_VERSION").to_owned(), runtime: "containerd".to_owned() },
        tags: Tags::default(),
    }
}

/// The cluster that a container instance of this machine belongs to, under an EC2 instance's id of its own.
fn member_of(up: &Up, id: ContainerInstanceId) -> Capacity {
    Capacity::Cluster(Membership {
        scope: Scope::new(ACCOUNT, REGION),
        cluster: up.cluster.clone(),
        launch_type: LaunchType::Ec2,
        ec2_instance_id: Some(format!("i-0{}", &id.to_string()[..16])),
        launched: false,
        capacity_provider: None,
        status: Status::Active,
    })
}

/// The instances of this start: as many as asked for, and those besides that still hold tasks.
fn identity(data_dir: &DataDir, up: &Up, view: &View) -> Outcome<Identity> {
    let mut identity = match data_dir.identity()? {
        Some(identity) => identity,
        None => Identity { vpc_cidr: up.vpc_cidr, instances: Vec::new(), container_instances: Vec::new() },
    };
    if identity.vpc_cidr != up.vpc_cidr && !view.vpcs.is_empty() {
        return Err(format!(
            "{} was made with --vpc-cidr {}, and its tasks have addresses there: start it with that block, or use \
             another data directory for {}",
            data_dir.path().display(),
            identity.vpc_cidr,
            up.vpc_cidr
        )
        .into());
    }
    identity.vpc_cidr = up.vpc_cidr;
    let holding = |id: &ContainerInstanceId| view.task_count_on(*id) > 0;
    while identity.instances.len() > usize::from(up.instances)
        && !identity.instances.last().is_some_and(holding)
    {
        identity.instances.pop();
    }
    while identity.instances.len() < usize::from(up.instances) {
        identity.instances.push(RandomIds.container_instance());
    }
    let members = usize::from(up.container_instances);
    while identity.container_instances.len() > members
        && !identity.container_instances.last().is_some_and(holding)
    {
        identity.container_instances.pop();
    }
    while identity.container_instances.len() < members {
        identity.container_instances.push(RandomIds.container_instance());
    }
    data_dir.keep_identity(&identity)?;
    Ok(identity)
}
