//! `longshore control`: the control plane alone, for many machines.

use crate::admin::{self, Admin};
use crate::api::ServerApi;
use crate::config::{Control, ControlArgs};
use crate::data_dir::{DataDir, Running};
use crate::instance::Runtimes;
use crate::remote::authority::fingerprint_of;
use crate::remote::listener::Listener;
use crate::server::ControlPlane;
use crate::up::{front, until_told};
use crate::{Outcome, credentials, listen, server};
use longshore_control::Config;
use longshore_store::etcd::{self, Etcd};
use longshore_store::{Engine, Store};
use std::io::Write;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

pub async fn run(args: ControlArgs) -> Outcome {
    let settings = args.complete()?;
    let data_dir = DataDir::open(&settings.data_dir)?;
    let _lock = data_dir.lock()?;
    let listener = listen::on(settings.listen).await?;
    let agents = listen::on(settings.agents_listen).await?;
    let (listen, agents_listen) = (listener.local_addr()?, agents.local_addr()?);
    let store = Arc::new(open_store(&data_dir, &settings).await?);
    let config = Config {
        vpc_cidr: settings.vpc_cidr,
        keep_stopped_tasks: server::hours(settings.keep_stopped_tasks_hours),
        shared_store: !settings.etcd_endpoints.is_empty(),
        instance_lost_after: settings.instance_lost_after,
        task_healthy_after: settings.task_healthy_after,
        instances: None,
        scale_in_after: settings.scale_in_after,
        lambda_endpoint: settings.lambda_endpoint.clone(),
    };
    let control = ControlPlane::start(&data_dir, store, config).await?;
    let context = Arc::clone(&control.context);
    let credentials = if settings.etcd_endpoints.is_empty() {
        credentials::of(&data_dir)?
    } else {
        credentials::shared(&data_dir, &context).await?
    };
    let gate = Listener::new(Arc::clone(&context)).await?;
    let fingerprint = Some(fingerprint_of(gate.authority())?);
    let serving_agents = tokio::spawn(gate.serve(agents));
    let (stop, stopped) = mpsc::channel(1);
    let admin =
        Admin { context: Some(Arc::clone(&context)), runtimes: Runtimes::default(), stop, fingerprint };
    admin::serve(&data_dir.admin_socket(), admin).await?;

    let (shutdown, shutting_down) = watch::channel(false);
    let api = ServerApi::new(context, Vec::new(), credentials, settings.auth);
    let serving = tokio::spawn(front(settings.auth, api).serve(listener, shutting_down));
    data_dir.keep_running(&Running { listen })?;
    println!("ready http://{listen}");
    println!("agents https://{agents_listen}");
    std::io::stdout().flush()?;

    until_told(stopped).await?;
    tracing::info!(
        "stopping; agents go on, and link to another control plane or to the next start of this one"
    );
    shutdown.send_replace(true);
    let _ = serving.await;
    serving_agents.abort();
    control.stop();
    Ok(())
}

async fn open_store(data_dir: &DataDir, settings: &Control) -> Outcome<Store<longshore_engine::View>> {
    if settings.etcd_endpoints.is_empty() {
        return server::open_store(data_dir).await;
    }
    let mut config = etcd::Config::new(settings.etcd_endpoints.clone());
    config.prefix.clone_from(&settings.etcd_prefix);
    let engine: Arc<dyn Engine> = Arc::new(Etcd::connect(config).await?);
    Ok(Store::open(engine).await?)
}
