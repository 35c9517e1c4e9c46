//! Serves the connections of a listener. Invariant: a request follows the rules as they are when it comes, whenever its
//! connection was made.

use super::answer;
use super::body::Payload;
use super::headers::{self, ForwardedFor, Origin};
use super::send::{self, Asking, Sent};
use super::{sticky, tunnel};
use crate::group::Group;
use crate::listening::Ends;
use crate::tls;
use arc_swap::ArcSwap;
use http::header::HOST;
use http::uri::{PathAndQuery, Uri};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use longshore_engine::elb::{choice, routing};
use longshore_model::Timestamp;
use longshore_model::elb::{Condition, FixedResponse, ForwardGroup, Redirect};
use rustls::ServerConfig;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// What one request's line and headers may take, as on AWS.
const HEAD: usize = 64 * 1024;
/// Requests at a time on one connection of HTTP/2, as on AWS.
const STREAMS: u32 = 128;

/// A listener as its connections meet it.
pub struct Door {
    pub routes: ArcSwap<Routes>,
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Which part of the weights the next request falls in.
    pub turn: AtomicU64,
}

/// What is done with requests.
pub struct Routes {
    pub port: u16,
    pub protocol: &'static str,
    /// `None` where clients speak without it.
    pub tls: Option<Arc<ServerConfig>>,
    /// How long a target may take to answer, and a client to ask.
    pub idle: Duration,
    /// How long a connection may last.
    pub keep_alive: Duration,
    pub forwarded_for: ForwardedFor,
    /// Whether headers go whose names are not letters, digits and hyphens.
    pub drop_invalid: bool,
    /// Whether targets see the host as the client wrote it.
    pub preserve_host: bool,
    /// The lowest number first.
    pub rules: Vec<Route>,
    pub default: Course,
}

pub struct Route {
    pub conditions: Vec<Condition>,
    pub course: Course,
}

pub enum Course {
    Forward {
        weights: Vec<ForwardGroup>,
        groups: Vec<Arc<Group>>,
        /// For how many seconds a client stays with the group that it was sent to.
        kept_for: Option<u32>,
    },
    Redirect(Redirect),
    Fixed(FixedResponse),
    /// The records say nothing that can be done.
    Nowhere,
}

impl Routes {
    fn course(&self, asked: &Asked<'_>) -> &Course {
        let rule = self.rules.iter().find(|rule| routing::meets(asked, &rule.conditions));
        rule.map_or(&self.default, |rule| &rule.course)
    }
}

/// Until the connection ends; when the listener does or it has lasted for long, after the answer that is under way.
pub async fn serve(door: Arc<Door>, stream: TcpStream, ends: Ends, mut stop: watch::Receiver<bool>) {
    let (idle, keep_alive) = {
        let routes = door.routes.load();
        (routes.idle, routes.keep_alive)
    };
    let told = async {
        // Where nobody can say so any more, it is so.
        let _ = tokio::time::timeout(keep_alive, stop.wait_for(|stop| *stop)).await;
    };
    let config = door.routes.load().tls.clone();
    let Some(config) = config else { return speak_http1(door, stream, ends, idle, told).await };
    let Some(stream) = tls::from_client(stream, &config, ends.client).await else { return };
    match stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        true => speak_http2(door, stream, ends, told).await,
        false => speak_http1(door, stream, ends, idle, told).await,
    }
}

async fn speak_http1(
    door: Arc<Door>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ends: Ends,
    idle: Duration,
    told: impl Future<Output = ()>,
) {
    let service = service_fn(move |request| {
        let door = Arc::clone(&door);
        async move { Ok::<_, Infallible>(answer(&door, request, ends).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(HEAD);
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        broke(&error, ends);
    }
}

async fn speak_http2(
    door: Arc<Door>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ends: Ends,
    told: impl Future<Output = ()>,
) {
    let service = service_fn(move |request| {
        let door = Arc::clone(&door);
        async move { Ok::<_, Infallible>(answer(&door, request, ends).await) }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).max_header_list_size(HEAD as u32).max_concurrent_streams(STREAMS);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        broke(&error, ends);
    }
}

fn broke(error: &(dyn std::error::Error + 'static), ends: Ends) {
    tracing::debug!(error, client = %ends.client, "a connection broke");
}

async fn answer(door: &Door, request: Request<Incoming>, ends: Ends) -> Response<Payload> {
    let routes = door.routes.load_full();
    let Some(request) = normalized(request) else { return answer::failure(StatusCode::BAD_REQUEST) };
    let asked = Asked { request: &request, source: ends.client };
    match routes.course(&asked) {
        Course::Fixed(response) => answer::fixed(response),
        Course::Redirect(redirect) => {
            let came = routing::Came {
                protocol: routes.protocol,
                host: routing::Request::host(&asked),
                port: routes.port,
                path: request.uri().path(),
                query: request.uri().query().unwrap_or_default(),
            };
            answer::redirect(redirect.status, &routing::location(redirect, came))
        }
        Course::Forward { weights, groups, kept_for } => {
            let now = (door.clock)();
            let wish = kept_for.and_then(|_| sticky::wished_group(request.headers(), now));
            let wished = wish.and_then(|wish| groups.iter().find(|group| group.mark() == wish));
            let by_weight = || {
                let number = door.turn.fetch_add(1, Ordering::Relaxed);
                choice::group(weights, number).and_then(|place| groups.get(place))
            };
            let Some(group) = wished.or_else(by_weight) else { return answer::failure(answer::UNAVAILABLE) };
            let mut response = forward(&routes, group, request, ends, now).await;
            if let Some(seconds) = kept_for {
                sticky::keep_group(response.headers_mut(), group.mark(), *seconds, now);
            }
            response
        }
        Course::Nowhere => answer::failure(answer::UNAVAILABLE),
    }
}

async fn forward(
    routes: &Routes,
    group: &Group,
    mut request: Request<Incoming>,
    ends: Ends,
    now: Timestamp,
) -> Response<Payload> {
    let speech = group.speech();
    let upgrades = !speech.http2 && headers::is_upgrade(request.headers());
    let client = upgrades.then(|| hyper::upgrade::on(&mut request));
    let keeping = group.keeping();
    let wish = keeping.as_ref().and_then(|keeping| keeping.wish(request.headers(), now));
    let origin = Origin { client: ends.client, port: routes.port, protocol: routes.protocol };
    headers::strip(request.headers_mut(), upgrades);
    if !routes.preserve_host {
        headers::name_port(request.headers_mut(), routes.port);
    }
    if routes.drop_invalid {
        headers::drop_invalid(request.headers_mut());
    }
    headers::forward(request.headers_mut(), origin, routes.forwarded_for, now);
    speech.phrase(&mut request);
    let asking = Asking { own: ends.own, limit: routes.idle, wish, now };
    let Sent { response, sender, busy } = match send::send(group, request, asking).await {
        Ok(sent) => sent,
        Err(status) => return answer::failure(status),
    };
    let mark = busy.peer().mark;
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let mut response = match client {
        Some(client) if switches => tunnel::open(client, response, busy),
        _ if switches => return answer::failure(StatusCode::BAD_GATEWAY),
        _ => pass(response, sender, busy),
    };
    if let Some(keeping) = keeping {
        keeping.keep(response.headers_mut(), mark, now);
    }
    response
}

/// The target's answer as the client gets it.
fn pass(
    response: Response<Incoming>,
    sender: Option<crate::peer::Sender>,
    busy: crate::peer::Busy,
) -> Response<Payload> {
    let (mut head, body) = response.into_parts();
    headers::strip(&mut head.headers, false);
    head.version = Version::HTTP_11;
    Response::from_parts(head, Payload::Passed(super::body::Passed::new(body, sender, busy)))
}

/// The request as targets are asked: the path alone, and the host in its header. `None` for one without a host, and for one
/// that asks for a tunnel.
fn normalized(mut request: Request<Incoming>) -> Option<Request<Incoming>> {
    if request.method() == Method::CONNECT {
        return None;
    }
    if let Some(authority) = request.uri().authority() {
        let host = authority.as_str().parse().ok()?;
        request.headers_mut().insert(HOST, host);
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or(PathAndQuery::from_static("/")));
    }
    if request.version() == Version::HTTP_2 {
        headers::join_cookies(request.headers_mut());
    }
    *request.version_mut() = Version::HTTP_11;
    request.headers().contains_key(HOST).then_some(request)
}

/// A request as rules see it.
struct Asked<'a> {
    request: &'a Request<Incoming>,
    source: IpAddr,
}

impl routing::Request for Asked<'_> {
    fn host(&self) -> &str {
        let host = self.request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        }
    }

    fn path(&self) -> &str {
        self.request.uri().path()
    }

    fn query(&self) -> &str {
        self.request.uri().query().unwrap_or_default()
    }

    fn method(&self) -> &str {
        self.request.method().as_str()
    }

    fn source(&self) -> IpAddr {
        self.source
    }

    fn any_header(&self, name: &str, is_so: &dyn Fn(&str) -> bool) -> bool {
        self.request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok()).any(is_so)
    }
}
