//! Over real sockets: what is known is answered, all else is passed on, and nothing that a client sends stops it.

use super::upstream::Upstream;
use super::*;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use longshore_engine::default_vpc;
use longshore_model::change::{Change, View as _};
use longshore_model::discovery::{
    DiscoveryInstance, DiscoveryService, DnsConfig, DnsRecord, Namespace, NamespaceKind, RecordType as Kind,
    RoutingPolicy,
};
use longshore_model::id::IdSource;
use longshore_model::record::encode;
use longshore_model::{Record, Scope, Tags, Timestamp};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Longer than anything here takes; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// The resolver of the VPC, though the sockets are elsewhere.
const OWN: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 2);

struct Count(u128);

impl IdSource for Count {
    fn next_u128(&mut self) -> u128 {
        self.0 += 1;
        self.0 << 64 | self.0
    }
}

fn put(view: &mut View, record: &impl Record) {
    view.apply(&Change { key: record.key(), value: Some(encode(record).into()) }).unwrap();
}

/// A VPC with `api.internal`, which has as many instances.
fn view(instances: u8) -> View {
    let scope = Scope::new("123456789012", "us-east-1");
    let made = default_vpc::make(&scope, "172.31.0.0/16".parse().unwrap(), &mut Count(1));
    let mut view = View::default();
    put(&mut view, &made.vpc);
    put(
        &mut view,
        &Namespace {
            scope: scope.clone(),
            id: "ns-1".to_owned(),
            name: "internal".to_owned(),
            http_name: "internal".to_owned(),
            kind: NamespaceKind::DnsPrivate { vpc: made.vpc.id, hosted_zone: String::new(), soa_ttl: 15 },
            description: None,
            creator_request_id: None,
            tags: Tags::default(),
            created_at: Timestamp(1),
        },
    );
    let weighted = DnsConfig {
        routing: RoutingPolicy::Weighted,
        records: vec![DnsRecord { kind: Kind::Cname, ttl: 60 }],
    };
    let many = DnsConfig {
        routing: RoutingPolicy::Multivalue,
        records: vec![DnsRecord { kind: Kind::A, ttl: 60 }, DnsRecord { kind: Kind::Srv, ttl: 60 }],
    };
    for (id, name, dns) in [("srv-1", "api", many), ("srv-2", "out", weighted)] {
        put(
            &mut view,
            &DiscoveryService {
                scope: scope.clone(),
                id: id.to_owned(),
                name: name.to_owned(),
                namespace: "ns-1".to_owned(),
                dns: Some(dns),
                custom_health: false,
                description: None,
                creator_request_id: None,
                tags: Tags::default(),
                created_at: Timestamp(1),
                revision: 1,
            },
        );
    }
    let instance = |service: &str, id: String, attributes: Vec<(&str, String)>| DiscoveryInstance {
        scope: scope.clone(),
        service: service.to_owned(),
        id,
        attributes: attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        health: None,
        task: None,
        creator_request_id: None,
        operation: None,
        registered_at: Timestamp(1),
    };
    for number in 1..=instances {
        let address = ("AWS_INSTANCE_IPV4", format!("172.31.0.{number}"));
        let port = ("AWS_INSTANCE_PORT", "80".to_owned());
        // Ids as long as those of tasks.
        put(&mut view, &instance("srv-1", format!("{number:032x}"), vec![address, port]));
    }
    put(
        &mut view,
        &instance("srv-2", "one".to_owned(), vec![("AWS_INSTANCE_CNAME", "example.com".to_owned())]),
    );
    view
}

struct Resolver {
    udp: SocketAddr,
    tcp: SocketAddr,
}

impl Resolver {
    async fn start(view: View, servers: Vec<SocketAddr>) -> Self {
        let upstream = Upstream::new(move || servers.clone());
        let names = Arc::new(Names { view: ArcSwap::from_pointee(view), upstream });
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (udp, tcp) = (socket.local_addr().unwrap(), listener.local_addr().unwrap());
        tokio::spawn(serve::udp(socket, OWN, Arc::clone(&names)));
        tokio::spawn(serve::tcp(listener, OWN, names));
        Self { udp, tcp }
    }

    async fn send(&self, request: &[u8]) -> Message {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(request, self.udp).await.unwrap();
        let mut buffer = vec![0; 65_535];
        let length = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
        Message::from_vec(&buffer[..length]).unwrap()
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        self.send(&query(name, kind).to_vec().unwrap()).await
    }
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

/// A resolver that knows one address for every name, and whose answers have more in them over TCP.
async fn others() -> SocketAddr {
    fn respond(request: &[u8], address: [u8; 4]) -> Vec<u8> {
        let request = Message::from_vec(request).unwrap();
        let mut response = request.clone().into_response();
        let name = request.queries[0].name().clone();
        let data = RData::A(Ipv4Addr::from(address).into());
        response.add_answer(hickory_proto::rr::Record::from_rdata(name, 1, data));
        response.to_vec().unwrap()
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            // What is no answer to the request is passed over.
            socket.send_to(b"nonsense", from).await.unwrap();
            socket.send_to(&respond(&buffer[..length], [192, 0, 2, 1]), from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut request).await.unwrap();
            let response = serve::framed(&respond(&request, [192, 0, 2, 2])).unwrap();
            stream.write_all(&response).await.unwrap();
        }
    });
    address
}

fn addresses(message: &Message) -> Vec<Ipv4Addr> {
    let address = |record: &hickory_proto::rr::Record| match &record.data {
        RData::A(address) => Some(address.0),
        _ => None,
    };
    message.answers.iter().filter_map(address).collect()
}

#[tokio::test]
async fn what_is_known_is_answered_and_all_else_is_asked_of_others() {
    let resolver = Resolver::start(view(2), vec![others().await]).await;
    let known = resolver.ask("api.internal.", RecordType::A).await;
    assert_eq!((known.metadata.id, known.metadata.response_code), (4711, ResponseCode::NoError));
    assert!(known.metadata.recursion_available);
    let mut found = addresses(&known);
    found.sort();
    assert_eq!(found, [Ipv4Addr::new(172, 31, 0, 1), Ipv4Addr::new(172, 31, 0, 2)]);
    let absent = resolver.ask("no.internal.", RecordType::A).await;
    assert_eq!(absent.metadata.response_code, ResponseCode::NXDomain);
    assert!(matches!(absent.authorities[0].data, RData::SOA(_)));
    let elsewhere = resolver.ask("example.com.", RecordType::A).await;
    assert_eq!(elsewhere.metadata.id, 4711);
    assert_eq!(addresses(&elsewhere), [Ipv4Addr::new(192, 0, 2, 1)]);
    let led = resolver.ask("out.internal.", RecordType::A).await;
    assert!(matches!(led.answers[0].data, RData::CNAME(_)));
    assert_eq!(addresses(&led), [Ipv4Addr::new(192, 0, 2, 2)]);
}

#[tokio::test]
async fn without_others_their_names_fail_at_once() {
    let resolver = Resolver::start(view(1), Vec::new()).await;
    let response = resolver.ask("example.com.", RecordType::A).await;
    assert_eq!(response.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(addresses(&resolver.ask("api.internal.", RecordType::A).await).len(), 1);
}

#[tokio::test]
async fn long_answers_are_cut_by_udp_and_whole_by_tcp() {
    let resolver = Resolver::start(view(8), Vec::new()).await;
    let small = resolver.ask("api.internal.", RecordType::SRV).await;
    assert!(small.metadata.truncation && small.answers.is_empty());
    let mut large = query("api.internal.", RecordType::SRV);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    large.set_edns(edns);
    let large = resolver.send(&large.to_vec().unwrap()).await;
    assert!(!large.metadata.truncation && large.edns.is_some());
    assert_eq!(large.answers.len(), 8);
    let mut stream = TcpStream::connect(resolver.tcp).await.unwrap();
    // Two on one connection, the first one in pieces.
    for pieces in [true, false] {
        let request = serve::framed(&query("api.internal.", RecordType::SRV).to_vec().unwrap()).unwrap();
        let (first, rest) = request.split_at(if pieces { 3 } else { 0 });
        stream.write_all(first).await.unwrap();
        tokio::task::yield_now().await;
        stream.write_all(rest).await.unwrap();
        let mut response = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut response).await.unwrap();
        let response = Message::from_vec(&response).unwrap();
        assert_eq!((response.answers.len(), response.additionals.len()), (8, 8));
    }
}

#[tokio::test]
async fn nonsense_is_refused_and_stops_nothing() {
    let resolver = Resolver::start(view(1), Vec::new()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let request = query("api.internal.", RecordType::A).to_vec().unwrap();
    let response = query("api.internal.", RecordType::A).into_response().to_vec().unwrap();
    for nonsense in [&[][..], &[0], &[0xff; 3000], &request[..11], &response] {
        socket.send_to(nonsense, resolver.udp).await.unwrap();
    }
    // A name that points at itself.
    let mut looping = request[..12].to_vec();
    looping.extend([0xc0, 12, 0, 1, 0, 1]);
    assert_eq!(resolver.send(&looping).await.metadata.response_code, ResponseCode::FormErr);
    let mut two = query("api.internal.", RecordType::A);
    two.add_query(two.queries[0].clone());
    assert_eq!(resolver.send(&two.to_vec().unwrap()).await.metadata.response_code, ResponseCode::FormErr);
    let mut update = query("api.internal.", RecordType::A);
    update.metadata.op_code = OpCode::Update;
    assert_eq!(resolver.send(&update.to_vec().unwrap()).await.metadata.response_code, ResponseCode::NotImp);
    assert_eq!(addresses(&resolver.ask("api.internal.", RecordType::A).await).len(), 1);
}

#[tokio::test]
async fn who_is_in_no_vpc_with_dns_is_refused() {
    let resolver = Resolver::start(View::default(), vec![others().await]).await;
    let response = resolver.ask("example.com.", RecordType::A).await;
    assert_eq!(response.metadata.response_code, ResponseCode::Refused);
}
