//! A server with an API that echoes, and a client that writes requests by hand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use longshore_control::front::{Api, Auth, Caller, Front, Limits, LocalAnswer, LocalRequest};
use longshore_wire::{Fault, Map, OperationInfo, ServiceInfo, Timestamp, Value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

static SERVICES: [&ServiceInfo; 3] =
    [&longshore_ec2::SERVICE, &longshore_ecs::SERVICE, &longshore_sts::SERVICE];

#[derive(Default)]
struct State {
    calls: AtomicUsize,
}

struct Echo {
    state: Arc<State>,
    waiting: Arc<Semaphore>,
    released: Arc<Semaphore>,
    finished: Arc<Semaphore>,
}

#[async_trait]
impl Api for Echo {
    fn services(&self) -> &[&'static ServiceInfo] {
        &SERVICES
    }

    /// When the requests in `signed.json` were signed.
    fn now(&self) -> Timestamp {
        Timestamp::parse_basic("20260131T120000Z").expect("a time")
    }

    fn secret(&self, access_key: &str, session_token: Option<&str>) -> Option<String> {
        let known = access_key == "AKIDEXAMPLE"
            && session_token.is_none_or(|token| token == "FwoGZXIvYXdzEXAMPLE//+=");
        known.then(|| "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned())
    }

    async fn call(
        &self,
        caller: Caller,
        service: &'static ServiceInfo,
        operation: &'static OperationInfo,
        input: Value,
    ) -> Result<Value, Fault> {
        self.state.calls.fetch_add(1, Ordering::SeqCst);
        match operation.name {
            "ListServices" => panic!("a panic that the test asks for"),
            "DescribeTasks" => {
                self.waiting.add_permits(1);
                self.released.acquire().await.expect("a release").forget();
                self.finished.add_permits(1);
                Ok(Value::Map(Map::new()))
            }
            "GetCallerIdentity" => Ok(map([("Account", Value::from("123456789012"))])),
            "DescribeVpcs" => Ok(vpcs(&input)),
            _ => Ok(map([
                ("access_key", text(caller.access_key)),
                ("input", input),
                ("operation", Value::from(operation.name)),
                ("region", Value::from(caller.region)),
                ("request_id", Value::from(caller.request_id)),
                ("service", Value::from(service.name)),
                ("session_token", text(caller.session_token)),
            ])),
        }
    }

    async fn local(&self, request: LocalRequest) -> Option<LocalAnswer> {
        let said = format!("{} {} {}", request.method, request.path, request.query);
        (request.path == "/_longshore/echo").then(|| LocalAnswer::text(200, said))
    }
}

/// One VPC for each id that was asked for.
fn vpcs(input: &Value) -> Value {
    let Some(Value::List(ids)) = input.get("VpcIds") else {
        return map([("Vpcs", Value::List(vec![]))]);
    };
    map([("Vpcs", Value::List(ids.iter().map(|id| map([("VpcId", id.clone())])).collect()))])
}

fn map<const N: usize>(members: [(&'static str, Value); N]) -> Value {
    Value::from(Map::from_iter(members))
}

fn text(text: Option<String>) -> Value {
    text.map_or(Value::Null, Value::from)
}

pub struct Server {
    pub address: SocketAddr,
    state: Arc<State>,
    waiting: Arc<Semaphore>,
    released: Arc<Semaphore>,
    finished: Arc<Semaphore>,
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
}

impl Server {
    pub async fn start(auth: Auth, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let gate = || Arc::new(Semaphore::new(0));
        let (state, waiting, released, finished) = (Arc::new(State::default()), gate(), gate(), gate());
        let api = Echo {
            state: Arc::clone(&state),
            waiting: Arc::clone(&waiting),
            released: Arc::clone(&released),
            finished: Arc::clone(&finished),
        };
        let front = Front::new(Arc::new(api), auth, limits);
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(front.serve(listener, stopped));
        Self { address, state, waiting, released, finished, stop, running }
    }

    pub async fn connect(&self) -> Connection {
        Connection::try_open(self.address).await.expect("a connection")
    }

    pub async fn send(&self, request: &str) -> Answer {
        self.connect().await.send(request).await
    }

    /// How many requests reached the API.
    pub fn calls(&self) -> usize {
        self.state.calls.load(Ordering::SeqCst)
    }

    pub async fn until_waiting(&self) {
        self.waiting.acquire().await.expect("a waiting handler").forget();
    }

    pub fn release(&self) {
        self.released.add_permits(1);
    }

    pub async fn until_finished(&self) {
        self.finished.acquire().await.expect("a finished handler").forget();
    }

    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub async fn until_stopped(&mut self) {
        (&mut self.running).await.expect("a clean stop");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running.abort();
    }
}

pub struct Connection(TcpStream);

impl Connection {
    pub async fn try_open(address: SocketAddr) -> Option<Self> {
        TcpStream::connect(address).await.ok().map(Self)
    }

    pub async fn write(&mut self, request: &str) {
        self.0.write_all(request.as_bytes()).await.expect("a written request");
    }

    pub async fn send(&mut self, request: &str) -> Answer {
        self.write(request).await;
        let mut bytes = Vec::new();
        loop {
            if let Some(answer) = Answer::parse(&bytes) {
                return answer;
            }
            let read = self.0.read_buf(&mut bytes).await.expect("an answer");
            assert_ne!(read, 0, "closed after {:?}", String::from_utf8_lossy(&bytes));
        }
    }

    /// Waits until the server closes the connection.
    pub async fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0; 64]).await, Ok(0) | Err(_))
    }
}

pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).expect("a readable head");
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().expect("a status");
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let mut answer = Self { status, headers, body: Vec::new() };
        let length: usize = answer.header("content-length").parse().expect("a length");
        answer.body = bytes.get(end + 4..end + 4 + length)?.to_vec();
        Some(answer)
    }

    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("text")
    }

    pub fn json(&self) -> serde_json::Value {
        json(&self.body)
    }

    /// The error's code, in JSON or in XML.
    pub fn code(&self) -> String {
        let text = self.text();
        match text.split_once("<Code>") {
            Some((_, rest)) => rest.split('<').next().unwrap_or_default().to_owned(),
            None => self.json()["__type"].as_str().unwrap_or_default().to_owned(),
        }
    }
}

pub fn json(body: &[u8]) -> serde_json::Value {
    serde_json::from_slice(body).expect("JSON")
}

/// A request of the fixture that botocore signed, by its name.
pub fn signed(name: &str) -> String {
    let cases = json(include_bytes!("../../../wire/tests/data/signed.json"));
    let case =
        cases.as_array().and_then(|cases| cases.iter().find(|case| case["name"] == name)).expect("a case");
    let text = |name: &str| case[name].as_str().expect("text");
    let target = match text("query") {
        "" => text("path").to_owned(),
        query => format!("{}?{query}", text("path")),
    };
    let headers = case["headers"].as_object().expect("headers").iter();
    let headers: String =
        headers.map(|(name, value)| format!("{name}: {}\r\n", value.as_str().expect("text"))).collect();
    let body = text("body");
    format!("{} {target} HTTP/1.1\r\n{headers}Content-Length: {}\r\n\r\n{body}", text("method"), body.len())
}

pub fn target(target: &str, body: &str) -> String {
    post(&format!("Content-Type: application/x-amz-json-1.1\r\nX-Amz-Target: {target}"), body)
}

pub fn post(headers: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: x\r\n{headers}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
