//! Connections: HTTP/1.1 and HTTP/2 in clear text on one port, limited in number and in idle time.
//! Invariant: when the server stops, requests in flight are answered before their connections close.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::Front;

/// Enough for AWS's longest presigned URLs and session tokens.
const HEADERS: usize = 64 << 10;
const STREAMS: u32 = 128;

impl Front {
    /// Serves connections until `shutdown` says true or its sender is gone, then finishes the requests in flight.
    pub async fn serve(self, listener: TcpListener, mut shutdown: watch::Receiver<bool>) {
        let front = Arc::new(self);
        let places = Arc::new(Semaphore::new(front.limits.connections));
        let stopped = shutdown.clone();
        let mut connections = JoinSet::new();
        loop {
            let accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            };
            tokio::select! {
                () = told_to_stop(&mut shutdown) => break,
                Some(_) = connections.join_next() => {}
                (Ok(place), accepted) = accepted => match accepted {
                    Ok((stream, peer)) => {
                        let connection = Arc::clone(&front).connection(stream, peer, stopped.clone());
                        connections.spawn(async move {
                            connection.await;
                            drop(place);
                        });
                    }
                    Err(error) => {
                        // Out of descriptors, mostly: connections that end give some back.
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                else => break,
            }
        }
        drop(listener);
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(front.limits.drain, drained).await.is_err() {
            tracing::warn!(connections = connections.len(), "requests were cut off when the server stopped");
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        mut stopped: watch::Receiver<bool>,
    ) {
        // Answers are written whole; waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let activity = Arc::new(Activity::default());
        let idle = self.limits.idle;
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(HEADERS);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEADERS as u32);
        let service = service_fn(|request| {
            let (front, running) = (Arc::clone(&self), Running::start(&activity));
            async move {
                let response = front.answer(request, peer).await;
                drop(running);
                Ok::<_, Infallible>(response)
            }
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut stopping = false;
        loop {
            tokio::select! {
                outcome = connection.as_mut() => {
                    if let Err(error) = outcome {
                        tracing::debug!(%peer, error, "a connection ended early");
                    }
                    break;
                }
                () = activity.idle_for(idle) => break,
                () = told_to_stop(&mut stopped), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                    // Without a request there is nothing to finish, and a client that sent none yet would hold the stop up.
                    if activity.running.load(Ordering::Acquire) == 0 && activity.started.load(Ordering::Acquire) == 0 {
                        break;
                    }
                }
            }
        }
    }
}

async fn told_to_stop(shutdown: &mut watch::Receiver<bool>) {
    // Its sender gone, nobody could tell any more.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// What happens on a connection, for its idle timer.
#[derive(Default)]
struct Activity {
    started: AtomicUsize,
    running: AtomicUsize,
}

impl Activity {
    /// Resolves when no request ran or began for `limit`, at most one `limit` late.
    async fn idle_for(&self, limit: Duration) {
        loop {
            let started = self.started.load(Ordering::Acquire);
            tokio::time::sleep(limit).await;
            let quiet = self.running.load(Ordering::Acquire) == 0;
            if quiet && self.started.load(Ordering::Acquire) == started {
                return;
            }
        }
    }
}

struct Running(Arc<Activity>);

impl Running {
    fn start(activity: &Arc<Activity>) -> Self {
        activity.started.fetch_add(1, Ordering::AcqRel);
        activity.running.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(activity))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}
