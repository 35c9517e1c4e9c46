//! An edge on loopback addresses of its own, told what a test says, and targets that answer with their names.

use ::http::{Request, Response, StatusCode, header};
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use longshore_edge::{Config, Link, Machine};
use longshore_model::elb::{
    Action, Forward, ForwardGroup, GroupProtocol, HealthCheck, HealthCheckProtocol, Listener, ListenerRule,
    LoadBalancer, LoadBalancerType, LoadBalancerZone, Protocol, ProtocolVersion, Scheme, Target, TargetGroup,
    TargetHealth, TargetType,
};
use longshore_model::link::edge::{FromEdge, Row, TargetReport, ToEdge};
use longshore_model::record::encode;
use longshore_model::{Record, Scope, Tags, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};

pub const PORT: u16 = 8080;
/// Longer than anything here takes; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn scope() -> Scope {
    Scope::new("123456789012", "us-east-1")
}

/// All of 127.0.0.0/8 is the machine's, so that each test can have addresses of its own.
pub fn address() -> Ipv4Addr {
    static LAST: AtomicU16 = AtomicU16::new(1);
    let [low, high] = LAST.fetch_add(1, Ordering::Relaxed).to_le_bytes();
    let process = std::process::id().to_le_bytes()[0] | 1;
    Ipv4Addr::new(127, process, high.max(1), low.max(1))
}

struct Anything;

#[async_trait]
impl Machine for Anything {
    async fn hold(&self, _: &BTreeSet<Ipv4Addr>) -> Vec<(Ipv4Addr, String)> {
        Vec::new()
    }

    async fn forward(&self, _: &[Forward]) -> Result<(), String> {
        Ok(())
    }
}

pub struct Edge {
    pub address: Ipv4Addr,
    to_edge: mpsc::Sender<ToEdge>,
    from_edge: mpsc::Receiver<FromEdge>,
    seen: Vec<TargetReport>,
    now: Arc<AtomicI64>,
}

pub fn row(record: &impl Record) -> Row {
    Row { key: record.key(), value: Some(String::from_utf8(encode(record)).unwrap()) }
}

impl Edge {
    /// With a load balancer whose listener sends to the group `web`.
    pub async fn start(attributes: &[(&str, &str)]) -> Self {
        let edge = Self::bare();
        let balancer = edge.balancer(attributes);
        edge.everything(vec![row(&balancer), row(&group("web", &[])), row(&listener("web"))]).await;
        edge
    }

    /// With nothing to do yet.
    pub fn bare() -> Self {
        let (to_edge, from_control) = mpsc::channel(16);
        let (to_control, from_edge) = mpsc::channel(16);
        let now = Arc::new(AtomicI64::new(1_700_000_000_000));
        let read = Arc::clone(&now);
        let clock = move || Timestamp(read.load(Ordering::Relaxed));
        let config = Config { machine: Arc::new(Anything), clock: Arc::new(clock) };
        tokio::spawn(longshore_edge::run(config, Link { from_control, to_control }));
        Self { address: address(), to_edge, from_edge, seen: Vec::new(), now }
    }

    pub async fn everything(&self, rows: Vec<Row>) {
        self.tell(ToEdge::Everything(rows)).await;
    }

    pub fn balancer(&self, attributes: &[(&str, &str)]) -> LoadBalancer {
        LoadBalancer {
            scope: scope(),
            name: "alb".to_owned(),
            id: "0000000000000001".to_owned(),
            kind: LoadBalancerType::Application,
            scheme: Scheme::Internal,
            vpc: "vpc-1".to_owned(),
            zones: vec![LoadBalancerZone {
                availability_zone: "us-east-1a".to_owned(),
                subnet: "subnet-1".to_owned(),
                address: self.address,
                chosen: false,
            }],
            security_groups: Vec::new(),
            attributes: of(attributes),
            tags: Tags::default(),
            created_at: Timestamp(1),
        }
    }

    /// Moves the edge's clock on.
    pub fn advance(&self, millis: i64) {
        self.now.fetch_add(millis, Ordering::Relaxed);
    }

    async fn tell(&self, message: ToEdge) {
        self.to_edge.send(message).await.unwrap();
    }

    pub async fn change(&self, rows: Vec<Row>) {
        self.tell(ToEdge::Changed(rows)).await;
    }

    pub async fn register(&self, target: &Target) {
        self.change(vec![row(target)]).await;
    }

    /// Waits for what the edge says of a target.
    pub async fn report(&mut self, is_wanted: impl Fn(&TargetReport) -> bool) -> TargetReport {
        loop {
            if let Some(place) = self.seen.iter().position(&is_wanted) {
                return self.seen.remove(place);
            }
            let message =
                tokio::time::timeout(PATIENCE, self.from_edge.recv()).await.expect("a report comes");
            let FromEdge::Targets(reports) = message.unwrap();
            self.seen.extend(reports);
        }
    }

    /// A connection to the load balancer, once it listens.
    pub async fn connect(&self) -> TcpStream {
        let connecting = async {
            loop {
                match TcpStream::connect((self.address, PORT)).await {
                    Ok(stream) => return stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, connecting).await.expect("it listens")
    }

    pub async fn client(&self) -> Client {
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(self.connect().await)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        Client(sender)
    }

    /// One request on a connection of its own.
    pub async fn get(&self, path: &str) -> Answer {
        self.client().await.get(path).await
    }

    /// Asks until the answer is as wanted: what an edge is told takes effect soon, and not at once.
    pub async fn get_until(&self, path: &str, is_wanted: impl Fn(&Answer) -> bool) -> Answer {
        let asking = async {
            loop {
                let answer = self.get(path).await;
                if is_wanted(&answer) {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.expect("the answer becomes as wanted")
    }
}

pub struct Client(pub hyper::client::conn::http1::SendRequest<Full<Bytes>>);

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: ::http::HeaderMap,
    pub body: String,
}

impl Client {
    pub async fn get(&mut self, path: &str) -> Answer {
        let request = Request::get(path).header(header::HOST, "example.com").body(Full::default()).unwrap();
        self.send(request).await
    }

    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Answer {
        let response = tokio::time::timeout(PATIENCE, self.0.send_request(request)).await.unwrap().unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status, headers: head.headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }
}

fn of(attributes: &[(&str, &str)]) -> BTreeMap<String, String> {
    attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub fn group(name: &str, attributes: &[(&str, &str)]) -> TargetGroup {
    TargetGroup {
        scope: scope(),
        name: name.to_owned(),
        id: format!("id-of-{name}"),
        vpc: "vpc-1".to_owned(),
        target_type: TargetType::Ip,
        protocol: GroupProtocol::Http,
        protocol_version: ProtocolVersion::Http1,
        port: 80,
        health_check: HealthCheck {
            enabled: true,
            protocol: HealthCheckProtocol::Http,
            port: None,
            path: Some("/health".to_owned()),
            interval: 1,
            timeout: 1,
            healthy_threshold: 2,
            unhealthy_threshold: 2,
            matcher: None,
        },
        attributes: of(attributes),
        tags: Tags::default(),
        created_at: Timestamp(1),
    }
}

pub fn forward(groups: &[(&str, u32)]) -> Action {
    let group =
        |(name, weight): &(&str, u32)| ForwardGroup { target_group: (*name).to_owned(), weight: *weight };
    Action::Forward { groups: groups.iter().map(group).collect(), stickiness: None }
}

pub fn listener(group: &str) -> Listener {
    Listener {
        scope: scope(),
        load_balancer: "app/alb/0000000000000001".to_owned(),
        id: "0000000000000002".to_owned(),
        protocol: Protocol::Http,
        port: PORT,
        certificates: Vec::new(),
        ssl_policy: None,
        default_actions: vec![forward(&[(group, 1)])],
        action_orders: Vec::new(),
        attributes: BTreeMap::new(),
        tags: Tags::default(),
        created_at: Timestamp(1),
    }
}

pub fn rule(priority: u32, conditions: Vec<longshore_model::elb::Condition>, action: Action) -> ListenerRule {
    ListenerRule {
        scope: scope(),
        load_balancer: listener("web").load_balancer,
        listener: listener("web").id,
        id: format!("{priority:016x}"),
        priority,
        conditions,
        actions: vec![action],
        action_orders: Vec::new(),
        tags: Tags::default(),
        created_at: Timestamp(1),
    }
}

/// A server that answers with its name; `/slow` only once it is let go.
pub struct Server {
    pub address: SocketAddr,
    pub requests: Arc<AtomicUsize>,
    pub let_go: Arc<Notify>,
    /// The status of `/health`.
    pub health: Arc<AtomicU16>,
    accepting: tokio::task::AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Server {
    pub async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, let_go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let health = Arc::new(AtomicU16::new(200));
        let (counted, waits, checked) = (Arc::clone(&requests), Arc::clone(&let_go), Arc::clone(&health));
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (counted, waits, checked) =
                    (Arc::clone(&counted), Arc::clone(&waits), Arc::clone(&checked));
                let service = service_fn(move |request| {
                    let (counted, waits, checked) =
                        (Arc::clone(&counted), Arc::clone(&waits), Arc::clone(&checked));
                    async move { Ok::<_, Infallible>(answer(name, request, &counted, &waits, &checked).await) }
                });
                tokio::spawn(
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades(),
                );
            }
        });
        Self { address, requests, let_go, health, accepting: accepting.abort_handle() }
    }

    pub fn target(&self, group: &str, health: TargetHealth) -> Target {
        target(self.address, group, health)
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

pub fn target(address: SocketAddr, group: &str, health: TargetHealth) -> Target {
    Target {
        scope: scope(),
        target_group: format!("id-of-{group}"),
        id: address.ip().to_string(),
        port: address.port(),
        address: Ipv4Addr::LOCALHOST,
        availability_zone: None,
        task: None,
        health,
        registered_at: Timestamp(5),
        deregistered_at: None,
    }
}

async fn answer(
    name: &str,
    mut request: Request<Incoming>,
    requests: &AtomicUsize,
    let_go: &Notify,
    health: &AtomicU16,
) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    if path == "/health" {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::from_u16(health.load(Ordering::Relaxed)).unwrap();
        return response;
    }
    requests.fetch_add(1, Ordering::Relaxed);
    match path.as_str() {
        "/slow" => let_go.notified().await,
        "/echo" => return echo(&mut request),
        _ => {}
    }
    let shown = |name: &str| {
        let values = request.headers().get_all(name).iter().map(|value| value.to_str().unwrap());
        values.collect::<Vec<_>>().join("|")
    };
    let told = ["host", "x-forwarded-for", "x-forwarded-port", "x-forwarded-proto", "connection", "x-mine"];
    let told: Vec<String> = told.iter().map(|name| format!("{name}={}", shown(name))).collect();
    let (told, uri) = (told.join(";"), request.uri().to_string());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body = format!("{name} {uri} {}", String::from_utf8_lossy(&body));
    Response::builder().header("x-told", told).header("keep-alive", "timeout=9").body(body.into()).unwrap()
}

/// Speaks another protocol: what comes goes back.
fn echo(request: &mut Request<Incoming>) -> Response<Full<Bytes>> {
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded.await.unwrap()));
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "echo")
        .body(Full::default())
        .unwrap()
}
