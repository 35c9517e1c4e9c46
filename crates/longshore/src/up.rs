//! `longshore up`: a whole cloud's ECS in one process.

use crate::admin::{self, Admin};
use crate::api::ServerApi;
use crate::config::{Auth, Up, UpArgs};
use crate::data_dir::{DataDir, Running};
use crate::server::Server;
use crate::{Outcome, credentials};
use longshore_control::front::{self, Front};
use std::io::Write;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

pub async fn run(args: UpArgs) -> Outcome {
    let up = args.complete()?;
    if !rustix::process::geteuid().is_root() {
        return Err("containers and networks are made by root: run `longshore up` with sudo".into());
    }
    let data_dir = DataDir::open(&up.data_dir)?;
    let listener =
        TcpListener::bind(up.listen).await.map_err(|error| format!("listen on {}: {error}", up.listen))?;
    let listen = listener.local_addr()?;
    let credentials = credentials::of(&data_dir)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let server = Arc::new(Server::start(&data_dir, &up).await?);
    let (stop, mut stopped) = mpsc::channel(1);
    admin::serve(
        &data_dir.admin_socket(),
        Admin { context: Arc::clone(&server.context), runtimes: server.runtimes.clone(), stop },
    )
    .await?;

    let (shutdown, shutting_down) = watch::channel(false);
    let front = front(&up, Arc::clone(&server), credentials);
    let serving = tokio::spawn(front.serve(listener, shutting_down));
    data_dir.keep_running(&Running { listen })?;
    println!("ready http://{listen}");
    std::io::stdout().flush()?;

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = stopped.recv() => {}
    }
    tracing::info!("stopping; containers go on, and the next `longshore up` finds them");
    shutdown.send_replace(true);
    let _ = serving.await;
    match Arc::try_unwrap(server) {
        Ok(server) => server.stop().await,
        // A request that did not end in time still holds it; ending the process ends that too.
        Err(_) => Ok(()),
    }
}

fn front(up: &Up, server: Arc<Server>, credentials: credentials::Credentials) -> Front {
    let auth = match up.auth {
        Auth::Strict => front::Auth::Strict,
        Auth::Any => front::Auth::Any,
    };
    Front::new(Arc::new(ServerApi::new(server, credentials, up.auth)), auth, front::Limits::default())
}
