//! `longshore agent`: this machine as a container instance of a control plane elsewhere.

use crate::Outcome;
use crate::admin::{self, Admin};
use crate::config::{Agent, AgentArgs};
use crate::data_dir::DataDir;
use crate::instance::{LINK, Machine, Opened, Runtimes};
use crate::machine;
use crate::remote::connector::{self, Identity, Messages};
use crate::up::until_told;
use longshore_agent::agent;
use longshore_agent::network;
use longshore_agent::runtime::supervisor::Containerd;
use longshore_model::Timestamp;
use longshore_model::container_instance::{AgentVersion, Ports, ZONE};
use longshore_model::link::Hello;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;

pub async fn run(args: AgentArgs) -> Outcome {
    let settings = args.complete()?;
    if !rustix::process::geteuid().is_root() {
        return Err("containers and networks are made by root: run `longshore agent` with sudo".into());
    }
    let data_dir = DataDir::open(&settings.data_dir)?;
    let _lock = data_dir.lock()?;
    let identity = identity(&data_dir, &settings).await?;
    let containerd = match &settings.containerd {
        Some(address) => Containerd::external(data_dir.path(), address).await?,
        None => Containerd::start(data_dir.path()).await?,
    };
    let containerd = Arc::new(containerd);
    let machine = Machine {
        data_dir: data_dir.clone(),
        containerd: Arc::clone(&containerd),
        runtimes: Runtimes::default(),
        vpc_cidr: identity.vpc_cidr,
        mirrors: settings.mirrors.clone(),
        clock: Arc::new(now),
        stop_timeout: settings.stop_timeout,
        // The names of tasks are answered where the control plane is, and not yet here.
        has_edge: false,
    };
    let hello = hello(&identity, &settings)?;
    let Opened { instance, from_agent } = machine.open(0, network::Instance::Host, hello.clone()).await?;
    let runtimes = machine.runtimes.clone();
    let (incoming, from_control) = mpsc::channel(LINK);
    let running = tokio::spawn(agent::run(instance, from_control));
    let (stop, stopped) = mpsc::channel(1);
    let admin = Admin { context: None, runtimes, stop, fingerprint: None };
    admin::serve(&data_dir.admin_socket(), admin).await?;
    let kept = DataDir::open(data_dir.path())?;
    let linking = tokio::spawn(connector::keep_linked(
        settings.join,
        identity,
        Messages { hello: hello.clone(), outgoing: from_agent, incoming },
        move |renewed| kept.keep_agent(renewed),
        || now().millis(),
    ));
    println!("ready {}", hello.instance);
    std::io::stdout().flush()?;

    until_told(stopped).await?;
    tracing::info!("stopping; containers go on, and the next `longshore agent` finds them");
    linking.abort();
    running.abort();
    Ok(containerd.stop().await?)
}

/// Who this agent is: as it joined before, or by joining now.
async fn identity(data_dir: &DataDir, settings: &Agent) -> Outcome<Identity> {
    if let Some(present) = data_dir.agent()? {
        let identity: Identity = present;
        if settings.cluster.is_some() && identity.cluster.is_some() && settings.cluster != identity.cluster {
            return Err(format!(
                "{} is that of an agent of the cluster {}: leave --cluster out, or use another data directory",
                data_dir.path().display(),
                identity.cluster.as_deref().unwrap_or_default()
            )
            .into());
        }
        return Ok(identity);
    }
    let token = settings.token.as_ref().ok_or(
        "this agent was never let in: run `longshore token create --cluster NAME` on a control plane, and give what it \
         prints with --token",
    )?;
    let identity = connector::join(&settings.join, token, settings.cluster.clone(), now().millis()).await?;
    data_dir.keep_agent(&identity)?;
    Ok(identity)
}

fn hello(identity: &Identity, settings: &Agent) -> Outcome<Hello> {
    let mut resources = machine::share(1, settings.overcommit_cpu, settings.overcommit_memory)?;
    resources.memory = resources.memory.saturating_sub(settings.reserved_memory);
    let mut attributes = match &identity.region {
        Some(region) => machine::attributes(region, 0),
        None => Default::default(),
    };
    if let (Some(region), Some(zone)) = (&identity.region, &settings.availability_zone) {
        if !zone.starts_with(region.as_str()) {
            return Err(format!(
                "--availability-zone must be one of {region}, such as {region}a, and is {zone}"
            )
            .into());
        }
        attributes.insert(ZONE.to_owned(), zone.clone());
    }
    attributes.extend(settings.attributes.clone());
    let name = settings.name.clone().unwrap_or_else(|| identity.instance.to_string());
    Ok(Hello {
        instance: identity.instance,
        name,
        resources,
        cpu_architecture: machine::cpu_architecture(),
        attributes,
        ports: Ports { reserved: settings.reserved_ports.clone(), ..Ports::default() },
        gpus: if settings.gpu_support { machine::gpus(Path::new(machine::GPUS))? } else { Vec::new() },
        agent: AgentVersion { agent: env!("CARGO_PKG_VERSION").to_owned(), runtime: "containerd".to_owned() },
        tags: settings.tags.clone(),
    })
}

#[allow(clippy::disallowed_methods, reason = "the agent's one reading of the clock")]
fn now() -> Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
