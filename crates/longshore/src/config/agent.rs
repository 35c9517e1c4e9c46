//! Settings of `longshore agent`: flags and the environment, then the configuration file, then `ecs.config`.

use super::{DATA_DIR, check_overcommit, read};
use crate::Outcome;
use crate::ecs_config;
use crate::remote::token::Token;
use clap::Args;
use longshore_model::Tags;
use longshore_model::task_definition::Protocol;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Default, Args)]
pub struct AgentArgs {
    /// A TOML file with these settings as keys.
    #[arg(long, env = "LONGSHORE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The file by which ECS users configure an agent; settings given here win [default: /etc/ecs/ecs.config].
    #[arg(long, env = "LONGSHORE_ECS_CONFIG", value_name = "FILE")]
    ecs_config: Option<PathBuf>,
    /// Where the agent keeps what it is, its images and its tasks' files [default: /var/lib/longshore].
    #[arg(long, env = "LONGSHORE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The control planes, tried in turn: https://HOST:PORT, separated by commas.
    #[arg(long, env = "LONGSHORE_JOIN", value_name = "URL", value_delimiter = ',')]
    join: Vec<String>,
    /// What `longshore token create` printed; needed once.
    #[arg(long, env = "LONGSHORE_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<Token>,
    /// The cluster to join; the token says it as well.
    #[arg(long, env = "LONGSHORE_CLUSTER", value_name = "NAME")]
    cluster: Option<String>,
    /// What people call the instance [default: its id].
    #[arg(long, env = "LONGSHORE_NAME", value_name = "NAME")]
    name: Option<String>,
    /// The availability zone that the machine is in [default: the first of the cluster's region].
    #[arg(long, env = "LONGSHORE_AVAILABILITY_ZONE", value_name = "ZONE")]
    availability_zone: Option<String>,
    /// Attributes of the instance: NAME=VALUE, separated by commas.
    #[arg(long, env = "LONGSHORE_ATTRIBUTES", value_name = "NAME=VALUE", value_delimiter = ',')]
    attributes: Vec<String>,
    /// Where the images of a registry come from: HOST=URL, as in docker.io=http://127.0.0.1:5000. May be repeated.
    #[arg(
        long = "registry-mirror",
        env = "LONGSHORE_REGISTRY_MIRROR",
        value_name = "HOST=URL",
        value_delimiter = ','
    )]
    registry_mirror: Vec<String>,
    /// The socket of a containerd to use instead of one of our own.
    #[arg(long, env = "LONGSHORE_CONTAINERD", value_name = "SOCKET")]
    containerd: Option<PathBuf>,
    /// How many times the machine's CPU may be promised to tasks, which keep their caps [default: 1].
    #[arg(long, env = "LONGSHORE_OVERCOMMIT_CPU", value_name = "FACTOR")]
    overcommit_cpu: Option<f64>,
    /// How many times the machine's memory may be promised to tasks, which keep their limits [default: 1].
    #[arg(long, env = "LONGSHORE_OVERCOMMIT_MEMORY", value_name = "FACTOR")]
    overcommit_memory: Option<f64>,
}

/// The settings of `longshore agent`.
#[derive(Debug)]
pub struct Agent {
    pub data_dir: PathBuf,
    pub join: Vec<String>,
    pub token: Option<Token>,
    pub cluster: Option<String>,
    pub name: Option<String>,
    pub availability_zone: Option<String>,
    pub attributes: BTreeMap<String, String>,
    pub tags: Tags,
    /// MiB.
    pub reserved_memory: u64,
    pub gpu_support: bool,
    /// For containers whose definitions name none.
    pub stop_timeout: Duration,
    pub reserved_ports: Vec<(Protocol, u16)>,
    /// Registry host → base URLs.
    pub mirrors: BTreeMap<String, Vec<String>>,
    pub containerd: Option<PathBuf>,
    pub overcommit_cpu: f64,
    pub overcommit_memory: f64,
}

impl AgentArgs {
    pub fn complete(self) -> Outcome<Agent> {
        let mut file = self.config.as_deref().map(read).transpose()?.unwrap_or_default();
        let path = self.ecs_config.or(file.ecs_config.take()).unwrap_or_else(|| ecs_config::PATH.into());
        let ecs = ecs_config::read(&path)?;
        if !ecs.unused.is_empty() {
            let (path, keys) = (path.display(), ecs.unused.join(", "));
            tracing::warn!("{path}: these keys have no effect here: {keys}");
        }
        let mirrors = file.mirrors(&self.registry_mirror)?;
        let mut attributes = ecs.attributes;
        attributes.extend(file.attributes.unwrap_or_default());
        for attribute in &self.attributes {
            let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
            attributes.insert(name.to_owned(), value.to_owned());
        }
        let join = Some(self.join).filter(|given| !given.is_empty()).or(file.join).unwrap_or_default();
        if join.is_empty() {
            return Err("say where a control plane is with --join https://HOST:PORT".into());
        }
        let agent = Agent {
            data_dir: self.data_dir.or(file.data_dir).unwrap_or_else(|| DATA_DIR.into()),
            join,
            token: self.token,
            cluster: self.cluster.or(file.cluster).or(ecs.cluster),
            name: self.name.or(file.name),
            availability_zone: self.availability_zone.or(file.availability_zone).or(ecs.availability_zone),
            attributes,
            tags: ecs.tags,
            reserved_memory: ecs.reserved_memory,
            gpu_support: ecs.gpu_support,
            stop_timeout: ecs.stop_timeout.unwrap_or(longshore_agent::agent::STOP_TIMEOUT),
            reserved_ports: ecs.reserved_ports,
            mirrors,
            containerd: self.containerd.or(file.containerd),
            overcommit_cpu: self.overcommit_cpu.or(file.overcommit_cpu).unwrap_or(1.0),
            overcommit_memory: self.overcommit_memory.or(file.overcommit_memory).unwrap_or(1.0),
        };
        check_overcommit("cpu", agent.overcommit_cpu)?;
        check_overcommit("memory", agent.overcommit_memory)?;
        Ok(agent)
    }
}
