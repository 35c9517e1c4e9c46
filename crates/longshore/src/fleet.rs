//! The EC2 instances of this machine: each runs as long as its record says so.
//!
//! Invariant: an instance is TERMINATED once nothing of it is left on the machine, and not before. The records are the truth: a
//! new process finds the instances in them, and their containers on the machine.

use crate::ecs_config::{self, EcsConfig};
use crate::instance::{LINK, Machine, Opened};
use crate::{Outcome, machine};
use base64::Engine as _;
use longshore_agent::agent;
use longshore_agent::network::{self, Eni};
use longshore_control::Context;
use longshore_control::agents::{self, Link};
use longshore_control::context::CommitError;
use longshore_engine::{instance as engine, instance_type, lifecycle};
use longshore_model::change::Key;
use longshore_model::container_instance::{ADDRESS, AgentVersion, Capacity, Membership, Ports, Status, ZONE};
use longshore_model::instance::{Instance, Reason, State};
use longshore_model::link::Hello;
use longshore_model::task::LaunchType;
use longshore_model::vpc::{MacAddress, Subnet};
use longshore_model::{ContainerInstanceId, Record, Resources};
use longshore_store::Followed;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// The cluster of instances whose user data names none.
const DEFAULT_CLUSTER: &str = "default";
/// Tasks that one commit gives up.
const AT_ONCE: usize = 40;
/// Between two attempts to remove what is left of an instance.
const RETRY: Duration = Duration::from_secs(1);

/// Runs the instances of the records until the store closes or it is aborted; containers go on.
pub async fn run(context: Arc<Context>, machine: Machine) {
    let mut changes = context.store.follow();
    let mut lives: JoinSet<Key> = JoinSet::new();
    let mut ends: BTreeMap<Key, watch::Sender<bool>> = BTreeMap::new();
    loop {
        settle(&context, &machine, &mut lives, &mut ends);
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    None => return,
                    Some(Followed::Restarted) => break,
                    Some(Followed::Batch(batch)) => {
                        if batch.changes.iter().any(|change| change.key.table() == Instance::TABLE) {
                            break;
                        }
                    }
                },
                Some(ended) = lives.join_next() => {
                    if let Ok(key) = ended {
                        ends.remove(&key);
                    }
                    break;
                }
            }
        }
    }
}

/// Begins the instances that are not there yet, and tells those to end that are to.
fn settle(
    context: &Arc<Context>,
    machine: &Machine,
    lives: &mut JoinSet<Key>,
    ends: &mut BTreeMap<Key, watch::Sender<bool>>,
) {
    let view = context.view();
    for (key, end) in ends.iter() {
        let alive = view.instances.get(key).is_some_and(|instance| instance.state.is_alive());
        if !alive {
            end.send_replace(true);
        }
    }
    for instance in view.instances.iter().filter(|instance| instance.state != State::Terminated) {
        if let Entry::Vacant(place) = ends.entry(instance.key()) {
            let (end, ending) = watch::channel(!instance.state.is_alive());
            let (context, machine) = (Arc::clone(context), machine.clone());
            lives.spawn(Life { context, machine, instance: Arc::clone(instance) }.run(ending));
            place.insert(end);
        }
    }
}

/// One instance, from its begin to its end.
struct Life {
    context: Arc<Context>,
    machine: Machine,
    instance: Arc<Instance>,
}

impl Life {
    async fn run(self, mut ending: watch::Receiver<bool>) -> Key {
        let key = self.instance.key();
        let id = &self.instance.id;
        if let Some(opened) = self.open_at_last(&mut ending).await {
            let agent = Arc::clone(&opened.instance);
            tokio::select! {
                () = self.serve(opened) => {}
                _ = ending.wait_for(|ends| *ends) => {}
            }
            // Its link may have ended by itself; what it runs goes on until it is to end.
            let _ = ending.wait_for(|ends| *ends).await;
            self.remove(&agent).await;
        }
        self.machine.runtimes.remove(usize::from(self.instance.number));
        if let Err(error) = self.record_end().await {
            tracing::error!(
                instance = id,
                error = &error as &dyn std::error::Error,
                "an instance's end is not recorded"
            );
        }
        key
    }

    /// A new instance that does not open is given up. One that ran before is tried until it opens, or is to end: its containers
    /// are still there.
    async fn open_at_last(&self, ending: &mut watch::Receiver<bool>) -> Option<Opened> {
        loop {
            let error = match self.open().await {
                Ok(opened) => return Some(opened),
                Err(error) => error,
            };
            tracing::error!(instance = self.instance.id, error = &*error, "an instance does not start");
            if self.instance.state == State::Pending {
                return None;
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                _ = ending.wait_for(|ends| *ends), if self.instance.state == State::Running => return None,
            }
        }
    }

    async fn open(&self) -> Outcome<Opened> {
        let Instance { number, .. } = *self.instance;
        let config = self.config()?;
        let place = network::Instance::Namespaced(number);
        let opened = self.machine.open(usize::from(number), place, self.hello(&config)).await?;
        let view = self.context.view();
        let subnet = view.subnets.get(&Subnet::key_of(&self.instance.scope, &self.instance.subnet));
        if let Some(subnet) = subnet {
            let address = self.instance.address;
            let eni = Eni { address, subnet: subnet.cidr, mac: MacAddress::of(address) };
            opened.instance.network.hold(&eni).await?;
        }
        Ok(opened)
    }

    /// What the user data says of the agent.
    fn config(&self) -> Outcome<EcsConfig> {
        let Some(encoded) = &self.instance.settings.user_data else { return Ok(EcsConfig::default()) };
        let encoded: String = encoded.split_ascii_whitespace().collect();
        let bytes = base64::engine::general_purpose::STANDARD.decode(encoded);
        let text = bytes.map_err(|error| format!("the user data is not base64: {error}"))?;
        Ok(ecs_config::of_user_data(&String::from_utf8_lossy(&text))?)
    }

    fn hello(&self, config: &EcsConfig) -> Hello {
        let Instance { settings, .. } = &*self.instance;
        let size =
            instance_type::of(&settings.instance_type).map(|found| found.resources()).unwrap_or_default();
        let mut attributes = machine::attributes_in(&self.instance.availability_zone);
        let own = [
            ("ecs.ami-id", &settings.image),
            ("ecs.instance-type", &settings.instance_type),
            ("ecs.subnet-id", &self.instance.subnet),
            ("ecs.vpc-id", &self.instance.vpc),
        ];
        attributes.extend(own.map(|(name, value)| (name.to_owned(), value.clone())));
        attributes.insert(ADDRESS.to_owned(), self.instance.address.to_string());
        attributes.extend(config.attributes.clone());
        attributes.insert(ZONE.to_owned(), self.instance.availability_zone.clone());
        Hello {
            instance: self.instance.container_instance,
            name: self.instance.id.clone(),
            resources: Resources { memory: size.memory.saturating_sub(config.reserved_memory), ..size },
            cpu_architecture: machine::cpu_architecture(),
            attributes,
            ports: Ports { reserved: config.reserved_ports.clone(), ..Ports::default() },
            gpus: Vec::new(),
            agent: AgentVersion {
                agent: env!("CARGO_PKG_VERSION").to_owned(),
                runtime: "containerd".to_owned(),
            },
            tags: config.tags.clone(),
        }
    }

    /// Until the link ends.
    async fn serve(&self, opened: Opened) {
        let Opened { instance, from_agent } = opened;
        let cluster = self.config().ok().and_then(|config| config.cluster);
        let cluster = cluster.unwrap_or_else(|| DEFAULT_CLUSTER.to_owned());
        let capacity = Capacity::Cluster(Membership {
            scope: self.instance.scope.clone(),
            capacity_provider: engine::provider_of(&self.context.view(), &self.instance, &cluster),
            cluster,
            launch_type: LaunchType::Ec2,
            ec2_instance_id: Some(self.instance.id.clone()),
            launched: true,
            status: Status::Active,
        });
        let (to_agent, from_control) = mpsc::channel(LINK);
        let serving = agents::serve(Arc::clone(&self.context), capacity, Link { to_agent, from_agent });
        let agent = agent::run(instance, from_control);
        let registering = async {
            if let Err(error) = self.record_running().await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "an instance is not recorded as running"
                );
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = serving => tracing::info!(instance = self.instance.id, reason = %ended, "an agent's connection ended"),
            () = agent => {}
            () = registering => {}
        }
    }

    /// Records that the instance runs, once its agent is registered.
    async fn record_running(&self) -> Result<(), CommitError> {
        let mut changes = self.context.store.follow();
        let registered = |id: ContainerInstanceId| {
            self.context.view().container_instance(id).is_some_and(|instance| instance.agent_connected)
        };
        while !registered(self.instance.container_instance) {
            if changes.next().await.is_none() {
                return Ok(());
            }
        }
        self.context
            .commit(|snapshot, transaction| {
                let present = snapshot.view.instances.get(&self.instance.key());
                if let Some(present) = present.filter(|present| present.state == State::Pending) {
                    transaction.update(&Instance { state: State::Running, ..(**present).clone() });
                }
                Ok(())
            })
            .await
    }

    /// Removes all that the instance ran and was, however often that takes.
    async fn remove(&self, agent: &agent::Instance) {
        while let Err(error) = self.clear(agent).await {
            tracing::warn!(instance = self.instance.id, error = &*error, "an instance is not removed yet");
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn clear(&self, agent: &agent::Instance) -> Outcome {
        agent.runtime.clear().await?;
        agent.network.end().await?;
        // One that was just being made when its agent ended.
        agent.runtime.clear().await?;
        for task in agent.cgroups.tasks() {
            agent.cgroups.remove_task(&task).await?;
        }
        match std::fs::remove_dir_all(&agent.tasks_dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Its tasks have ended, and so has it. Of one that was forgotten with everything else nothing is recorded.
    async fn record_end(&self) -> Result<(), CommitError> {
        let key = self.instance.key();
        loop {
            let given_up = self
                .context
                .commit::<_, CommitError, _>(|snapshot, transaction| {
                    let (view, now) = (&snapshot.view, self.context.now());
                    let Some(present) = view.instances.get(&key) else { return Ok(0) };
                    if present.state.is_alive() {
                        let message = "Server.InternalError: Internal error on launch".to_owned();
                        let why = Reason { code: "Server.InternalError".to_owned(), message };
                        engine::terminate(view, present, why, now, transaction);
                        return Ok(AT_ONCE);
                    }
                    let lost = engine::lost_tasks(view, present, now, AT_ONCE);
                    for task in &lost {
                        lifecycle::write(view, task, transaction);
                    }
                    if lost.is_empty() && present.state != State::Terminated {
                        engine::terminated(view, present, now, transaction);
                    }
                    Ok(lost.len())
                })
                .await?;
            if given_up == 0 {
                return Ok(());
            }
        }
    }
}
