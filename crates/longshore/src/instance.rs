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
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Messages that wait on a link in each direction.
pub const LINK: usize = 256;

/// What the instances of a machine share.
pub struct Machine<'a> {
    pub data_dir: &'a DataDir,
    pub containerd: &'a Containerd,
    pub vpc_cidr: Cidr,
    /// Registry host → base URLs.
    pub mirrors: &'a BTreeMap<String, Vec<String>>,
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

impl Machine<'_> {
    pub async fn open(&self, index: usize, place: network::Instance, mut hello: Hello) -> Outcome<Opened> {
        let network = network::Config::new(self.data_dir.path(), self.vpc_cidr, place);
        let network = Network::open(network).await?;
        if let Some(address) = network.instance_address().filter(|_| !hello.attributes.is_empty()) {
            hello.attributes.insert(ADDRESS.to_owned(), address.to_string());
        }
        let runtime = ContainerdRuntime::connect(self.containerd.config(index, self.mirrors.clone())).await?;
        let runtime: Arc<dyn Runtime> = Arc::new(runtime);
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
