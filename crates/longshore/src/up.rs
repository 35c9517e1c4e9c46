//! `longshore up`: a whole cloud's ECS in one process.

use crate::admin::{self, Admin};
use crate::api::ServerApi;
use crate::config::{Auth, UpArgs};
use crate::data_dir::{DataDir, Running};
use crate::remote::authority::fingerprint_of;
use crate::remote::listener::Listener;
use crate::server::Server;
use crate::{Outcome, credentials, listen};
use longshore_control::front::{self, Front};
use std::io::Write;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

pub async fn run(args: UpArgs) -> Outcome {
    let up = args.complete()?;
    if !rustix::process::geteuid().is_root() {
        return Err("containers and networks are made by root: run `longshore up` with sudo".into());
    }
    let data_dir = DataDir::open(&up.data_dir)?;
    let listener = listen::on(up.listen).await?;
    let listen = listener.local_addr()?;
    let credentials = credentials::of(&data_dir)?;
    let server = Server::start(&data_dir, &up).await?;
    let context = Arc::clone(&server.control.context);
    let (fingerprint, agents) = match up.agents_listen {
        None => (None, None),
        Some(address) => {
            let listener = listen::on(address).await?;
            let address = listener.local_addr()?;
            let gate = Listener::new(Arc::clone(&context)).await?;
            let fingerprint = fingerprint_of(gate.authority())?;
            (Some(fingerprint), Some((address, tokio::spawn(gate.serve(listener)))))
        }
    };
    let (stop, stopped) = mpsc::channel(1);
    let runtimes = server.runtimes.clone();
    let admin = Admin { context: Some(Arc::clone(&context)), runtimes, stop, fingerprint };
    admin::serve(&data_dir.admin_socket(), admin).await?;

    let (shutdown, shutting_down) = watch::channel(false);
    let api = ServerApi::new(context, server.instances.clone(), credentials, up.auth);
    let serving = tokio::spawn(front(up.auth, api).serve(listener, shutting_down));
    data_dir.keep_running(&Running { listen })?;
    println!("ready http://{listen}");
    if let Some((address, _)) = &agents {
        println!("agents https://{address}");
    }
    std::io::stdout().flush()?;

    until_told(stopped).await?;
    tracing::info!("stopping; containers go on, and the next `longshore up` finds them");
    shutdown.send_replace(true);
    let _ = serving.await;
    if let Some((_, serving)) = agents {
        serving.abort();
    }
    server.stop().await
}

/// Until a signal or `longshore down` ends the process.
pub async fn until_told(mut stopped: mpsc::Receiver<()>) -> Outcome {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = stopped.recv() => {}
    }
    Ok(())
}

pub fn front(auth: Auth, api: ServerApi) -> Front {
    let auth = match auth {
        Auth::Strict => front::Auth::Strict,
        Auth::Any => front::Auth::Any,
    };
    Front::new(Arc::new(api), auth, front::Limits::default())
}
