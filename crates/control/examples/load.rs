//! A load generator for HTTP APIs: replays requests over connections that stay open, and counts.
//! Invariant: it runs on one thread, so that it takes one core at most from what it measures, and an answer that is no
//! success ends it: refusals are quick, and would pass for speed.
//!
//! `load ADDRESS:PORT CONNECTIONS WARM_UP_SECONDS SECONDS FILE`: FILE is a JSON array of
//! `{"headers": {…}, "body": "…"}`, each POSTed to `/` as it is. Prints the figures as JSON. `bench/run` calls it.

use std::{
    collections::BTreeMap,
    error::Error,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{net::TcpStream, task::LocalSet};

type Failed = Box<dyn Error + Send + Sync>;

#[derive(Deserialize)]
struct Recorded {
    headers: BTreeMap<String, String>,
    body: String,
}

/// When what is done counts.
#[derive(Clone, Copy)]
struct Window {
    start: Instant,
    end: Instant,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, connections, warm_up, seconds, file] = &arguments[..] else {
        return Err("usage: load ADDRESS:PORT CONNECTIONS WARM_UP_SECONDS SECONDS FILE".into());
    };
    let recorded: Vec<Recorded> = serde_json::from_slice(&std::fs::read(file)?)?;
    let requests: Rc<[Request<Full<Bytes>>]> = recorded.into_iter().map(request).collect::<Result<_, _>>()?;
    let (address, connections): (SocketAddr, usize) = (address.parse()?, connections.parse()?);
    let start = now() + Duration::from_secs_f64(warm_up.parse()?);
    let window = Window { start, end: start + Duration::from_secs_f64(seconds.parse()?) };
    let took = LocalSet::new().run_until(load(address, connections, &requests, window)).await?;
    print(took, window);
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "a benchmark's one reading of the clock")]
fn now() -> Instant {
    Instant::now()
}

fn request(recorded: Recorded) -> Result<Request<Full<Bytes>>, Failed> {
    let mut request = Request::post("/");
    for (name, value) in recorded.headers {
        request = request.header(name, value);
    }
    Ok(request.body(Full::new(recorded.body.into()))?)
}

/// How long each request took whose answer came within the window.
async fn load(
    address: SocketAddr,
    connections: usize,
    requests: &Rc<[Request<Full<Bytes>>]>,
    window: Window,
) -> Result<Vec<Duration>, Failed> {
    if requests.is_empty() {
        return Err("no request to replay".into());
    }
    let clients: Vec<_> = (0..connections)
        .map(|number| {
            // Each begins elsewhere, so that they do not ask for the same at the same time.
            let first = number * requests.len() / connections;
            tokio::task::spawn_local(client(address, Rc::clone(requests), first, window))
        })
        .collect();
    let mut took = Vec::new();
    for client in clients {
        took.extend(client.await??);
    }
    Ok(took)
}

async fn client(
    address: SocketAddr,
    requests: Rc<[Request<Full<Bytes>>]>,
    first: usize,
    window: Window,
) -> Result<Vec<Duration>, Failed> {
    let mut connection = connect(address).await?;
    let mut took = Vec::new();
    for request in requests.iter().cycle().skip(first) {
        let before = now();
        if before >= window.end {
            break;
        }
        // A server may close after any answer; to connect again is a part of what its clients wait for.
        if connection.ready().await.is_err() {
            connection = connect(address).await?;
        }
        exchange(&mut connection, request.clone()).await?;
        let after = now();
        if after >= window.start && after < window.end {
            took.push(after - before);
        }
    }
    Ok(took)
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, Failed> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // How it ends is seen by who sends over it.
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(sender)
}

async fn exchange(
    connection: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<(), Failed> {
    let answer = connection.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    if status.is_success() {
        return Ok(());
    }
    Err(format!("answered {status}: {}", String::from_utf8_lossy(&body)).into())
}

fn print(mut took: Vec<Duration>, window: Window) {
    took.sort_unstable();
    let at = |share: usize| took.get(took.len().saturating_sub(1) * share / 100).copied().unwrap_or_default();
    let seconds = (window.end - window.start).as_secs_f64();
    let figures = serde_json::json!({
        "requests": took.len(),
        "per_second": took.len() as f64 / seconds,
        "median_ms": at(50).as_secs_f64() * 1000.0,
        "p99_ms": at(99).as_secs_f64() * 1000.0,
    });
    println!("{figures}");
}
