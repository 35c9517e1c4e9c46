//! TLS, HTTP/2 and gRPC: what clients and targets see of a load balancer, over real sockets.

use crate::common::{Edge, Server, group, listener, row, target};
use ::http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use longshore_model::certificate::{Certificate, Details};
use longshore_model::elb::{
    GroupProtocol, HealthCheckProtocol, HealthState, Listener, LoadBalancerType, Matcher, Protocol,
    ProtocolVersion, TargetGroup, TargetHealth,
};
use longshore_model::link::edge::TargetSeen;
use longshore_model::{Tags, Timestamp};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A key, and a certificate that it signed for names.
struct Signed {
    certificate: Certificate,
    der: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn signed(id: &str, names: &[&str]) -> Signed {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names.clone()).unwrap();
    let details = Details {
        domain_name: names[0].clone(),
        names,
        serial: String::new(),
        subject: String::new(),
        issuer: String::new(),
        key_algorithm: "EC_prime256v1".to_owned(),
        signature_algorithm: String::new(),
        key_usages: Vec::new(),
        extended_key_usages: Vec::new(),
        not_before: Timestamp(0),
        not_after: Timestamp(i64::MAX),
    };
    let certificate = Certificate {
        scope: crate::common::scope(),
        id: id.to_owned(),
        body: made.cert.pem(),
        chain: None,
        private_key: made.signing_key.serialize_pem(),
        details,
        tags: Tags::default(),
        created_at: Timestamp(1),
        imported_at: Timestamp(1),
    };
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    Signed { certificate, der: made.cert.der().clone(), key }
}

fn secure(protocol: Protocol, certificates: &[&Signed]) -> Listener {
    let certificates = certificates.iter().map(|signed| signed.certificate.arn()).collect();
    Listener { protocol, certificates, ..listener("web") }
}

/// Connects as a client that believes in one certificate only.
async fn connect(edge: &Edge, signed: &Signed, name: &str, alpn: &[u8]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(signed.der.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, edge.connect().await).await.unwrap()
}

type Http2 = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn http2(stream: TlsStream<TcpStream>) -> Http2 {
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn ask(sender: &mut Http2, path: &str) -> (StatusCode, HeaderMap, String, Option<HeaderMap>) {
    let request = Request::get(format!("https://web.example.com{path}")).body(Full::default()).unwrap();
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned();
    (head.status, head.headers, String::from_utf8(body.to_bytes().to_vec()).unwrap(), trailers)
}

/// Tries until there is what is wanted: what an edge is told takes effect soon, and not at once.
async fn until<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let trying = async {
        loop {
            if let Some(got) = attempt().await {
                return got;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), trying).await.expect("it comes to be as wanted")
}

async fn ask_until(sender: &mut Http2, path: &str) -> (StatusCode, HeaderMap, String, Option<HeaderMap>) {
    until(async || Some(ask(sender, path).await).filter(|answer| answer.0 == StatusCode::OK)).await
}

#[tokio::test]
async fn clients_see_the_certificate_of_the_name_that_they_ask_for() {
    let edge = Edge::bare();
    let (first, second) = (signed("1", &["web.example.com"]), signed("2", &["*.example.org"]));
    edge.everything(vec![
        row(&edge.balancer(&[])),
        row(&group("web", &[])),
        row(&first.certificate),
        row(&second.certificate),
        row(&secure(Protocol::Https, &[&first, &second])),
    ])
    .await;
    let server = Server::start("one").await;
    edge.register(&server.target("web", TargetHealth::healthy())).await;
    connect(&edge, &second, "any.example.org", b"http/1.1").await;
    let mut sender = http2(connect(&edge, &first, "web.example.com", b"h2").await).await;
    let (_, headers, body, _) = ask_until(&mut sender, "/a").await;
    assert_eq!(body, "one /a ");
    let told = headers["x-told"].to_str().unwrap();
    assert!(told.contains("host=web.example.com:8080;"), "{told}");
    assert!(told.contains("x-forwarded-port=8080;x-forwarded-proto=https;"), "{told}");
    // A slow answer keeps no other of the same connection back.
    let mut other = sender.clone();
    let slow = tokio::spawn(async move { ask(&mut other, "/slow").await.2 });
    while server.requests() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ask(&mut sender, "/quick").await.2, "one /quick ");
    server.let_go.notify_one();
    assert_eq!(slow.await.unwrap(), "one /slow ");
}

/// Accepts connections, with TLS where there is a configuration.
async fn serve<S>(
    tls: Option<&Signed>,
    alpn: &[u8],
    speak: impl Fn(TokioIo<Box<dyn Stream>>) -> S + Send + 'static,
) -> SocketAddr
where
    S: Future<Output = ()> + Send + 'static,
{
    let acceptor = tls.map(|signed| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_no_client_auth();
        let mut config = builder.with_single_cert(vec![signed.der.clone()], signed.key.clone_key()).unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let stream: Box<dyn Stream> = match &acceptor {
                None => Box::new(stream),
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => Box::new(stream),
                    Err(_) => continue,
                },
            };
            tokio::spawn(speak(TokioIo::new(stream)));
        }
    });
    address
}

trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Stream for T {}

/// An answer to a call: what was asked, and how it ended after that.
struct Told(Option<Bytes>, Option<HeaderMap>);

impl Body for Told {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = self.0.take().map(Frame::data);
        Poll::Ready(data.or_else(|| self.1.take().map(Frame::trailers)).map(Ok))
    }
}

/// Calls of `/ok` succeed, and others are of methods that the server does not have.
async fn call(request: Request<Incoming>) -> Result<Response<Told>, Infallible> {
    let status = if request.uri().path() == "/ok" { "0" } else { "12" };
    let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), status.parse().unwrap())]);
    let told = format!("{:?} {}", request.version(), request.uri());
    Ok(Response::new(Told(Some(told.into()), Some(trailers))))
}

async fn calls(stream: TokioIo<Box<dyn Stream>>) {
    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = serving.serve_connection(stream, service_fn(call)).await;
}

fn grpc(protocol: GroupProtocol, check: HealthCheckProtocol) -> TargetGroup {
    let mut group = group("web", &[]);
    (group.protocol, group.protocol_version) = (protocol, ProtocolVersion::Grpc);
    group.health_check.protocol = check;
    group.health_check.path = Some("/AWS.ALB/healthcheck".to_owned());
    group.health_check.matcher = Some(Matcher::Grpc("12".to_owned()));
    group
}

#[tokio::test]
async fn calls_reach_their_targets_and_end_as_they_say() {
    let certificate = signed("1", &["web.example.com"]);
    for (tls, protocol, check, scheme) in [
        (None, GroupProtocol::Http, HealthCheckProtocol::Http, "http"),
        (Some(&certificate), GroupProtocol::Https, HealthCheckProtocol::Https, "https"),
    ] {
        let mut edge = Edge::bare();
        edge.everything(vec![
            row(&edge.balancer(&[])),
            row(&grpc(protocol, check)),
            row(&certificate.certificate),
            row(&secure(Protocol::Https, &[&certificate])),
        ])
        .await;
        let address = serve(tls, b"h2", calls).await;
        edge.register(&target(address, "web", TargetHealth::initial())).await;
        let is_healthy = |seen: &TargetSeen| matches!(seen, TargetSeen::Health(health) if health.state == HealthState::Healthy);
        edge.report(|report| is_healthy(&report.seen)).await;
        let mut sender = http2(connect(&edge, &certificate, "web.example.com", b"h2").await).await;
        for (path, status) in [("/ok", "0"), ("/other", "12")] {
            let (_, _, body, trailers) = ask_until(&mut sender, path).await;
            assert_eq!(body, format!("HTTP/2.0 {scheme}://web.example.com:8080{path}"));
            assert_eq!(trailers.unwrap()["grpc-status"], status);
        }
    }
}

#[tokio::test]
async fn a_network_load_balancer_ends_tls_and_passes_the_bytes_on() {
    let edge = Edge::bare();
    let (public, own) = (signed("1", &["web.example.com"]), signed("2", &["target"]));
    let mut balancer = edge.balancer(&[]);
    balancer.kind = LoadBalancerType::Network;
    let mut listener = secure(Protocol::Tls, &[&public]);
    listener.load_balancer = balancer.path();
    for (tls, protocol, name) in
        [(None, GroupProtocol::Tcp, "plain:"), (Some(&own), GroupProtocol::Tls, "under:")]
    {
        let mut group = group("web", &[]);
        group.protocol = protocol;
        group.health_check.protocol = HealthCheckProtocol::Tcp;
        let address = serve(tls, b"http/1.1", move |stream| async move {
            let (mut read, mut write) = tokio::io::split(stream.into_inner());
            let _ = write.write_all(name.as_bytes()).await;
            let _ = tokio::io::copy(&mut read, &mut write).await;
        })
        .await;
        let target = target(address, "web", TargetHealth::healthy());
        let rows = vec![row(&balancer), row(&group), row(&public.certificate), row(&listener), row(&target)];
        edge.everything(rows).await;
        let echoed = async || {
            let mut stream = connect(&edge, &public, "web.example.com", b"http/1.1").await;
            stream.write_all(b"sent").await.ok()?;
            let mut back = [0; 10];
            stream.read_exact(&mut back).await.ok()?;
            Some(String::from_utf8_lossy(&back).into_owned())
        };
        let wanted = format!("{name}sent");
        until(async || (echoed().await.as_ref() == Some(&wanted)).then_some(())).await;
    }
}
