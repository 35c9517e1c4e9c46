//! Opens one container instance of this machine.

use crate::Outcome;
use crate::data_dir::DataDir;
use longshore_agent::agent::Instance;
use longshore_agent::cgroup::Cgroups;
use longshore_agent::logs::{Clock, Logs};
use longshore_agent::network::{self, Network};
use longshore_agent::runtime::{ContainerdRuntime, Runtime, supervisor::Containerd};
use longshore_model::container_instance::ADDRESS;
use longshore_model::link::{FromAgent, Hello};
use longshore_model::vpc::Cidr;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// Messages that wait on a link in each direction.
pub const LINK: usize = 256;

/// The runtimes of the instances that are open, by their numbers.
#[derive(Clone, Default)]
pub struct Runtimes(Arc<Mutex<BTreeMap<usize, Arc<dyn Runtime>>>>);

impl Runtimes {
    pub fn add(&self, index: usize, runtime: Arc<dyn Runtime>) {
        self.lock().insert(index, runtime);
    }

    pub fn remove(&self, index: usize) {
        self.lock().remove(&index);
    }

    pub fn all(&self) -> Vec<Arc<dyn Runtime>> {
        self.lock().values().cloned().collect()
    }

    /// The number of one of the others.
    fn another(&self, index: usize) -> Option<usize> {
        self.lock().keys().copied().find(|other| *other != index)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Arc<dyn Runtime>>> {
        // The map is whole at every instant.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the instances of a machine share.
#[derive(Clone)]
pub struct Machine {
    pub data_dir: DataDir,
    pub containerd: Arc<Containerd>,
    pub runtimes: Runtimes,
    pub vpc_cidr: Cidr,
    /// Registry host → base URLs.
    pub mirrors: BTreeMap<String, Vec<String>>,
    pub clock: Clock,
    /// For containers whose definitions name none.
    pub stop_timeout: Duration,
    pub has_edge: bool,
}

/// An instance, and what its agent says.
pub struct Opened {
    pub instance: Arc<Instance>,
    pub from_agent: mpsc::Receiver<FromAgent>,
}

impl Machine {
    pub async fn open(&self, index: usize, place: network::Instance, mut hello: Hello) -> Outcome<Opened> {
        let network = network::Config::new(self.data_dir.path(), self.vpc_cidr, place);
        let network = Network::open(network).await?;
        if let Some(address) = network.instance_address().filter(|_| !hello.attributes.is_empty()) {
            hello.attributes.entry(ADDRESS.to_owned()).or_insert_with(|| address.to_string());
        }
        let runtime = ContainerdRuntime::connect(self.containerd.config(index, self.mirrors.clone())).await?;
        if let Some(other) = self.runtimes.another(index)
            && let Err(error) = runtime.share_images(&self.containerd.namespace(other)).await
        {
            // They are pulled, or loaded, when they are missed.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "an instance begins without some images"
            );
        }
        let runtime: Arc<dyn Runtime> = Arc::new(runtime);
        self.runtimes.add(index, Arc::clone(&runtime));
        let (to_control, from_agent) = mpsc::channel(LINK);
        let instance = Instance {
            hello,
            runtime,
            network: Arc::new(network),
            cgroups: Arc::new(Cgroups::detect(&format!("/longshore-{}/{index}", self.containerd.hash()))?),
            logs: Arc::new(Logs::new(to_control.clone(), Arc::clone(&self.clock))),
            tasks_dir: self.data_dir.tasks(index),
            stop_timeout: self.stop_timeout,
            has_edge: self.has_edge,
            to_control,
        };
        std::fs::create_dir_all(&instance.tasks_dir)?;
        Ok(Opened { instance: Arc::new(instance), from_agent })
    }
}
