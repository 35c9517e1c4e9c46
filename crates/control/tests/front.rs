//! The HTTP front by itself, over real sockets, before an API that answers what it was asked.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "front/support.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use longshore_control::front::{Auth, Limits};
use support::{Connection, Server, json, signed, target};

const LIST_CLUSTERS: &str = "AmazonEC2ContainerServiceV20141113.ListClusters";

#[tokio::test]
async fn a_signed_request_reaches_its_operation() {
    let server = Server::start(Auth::Strict, Limits::default()).await;
    let answer = server.send(&signed("json")).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-amz-json-1.1"));
    assert_eq!(answer.header("x-amzn-requestid").len(), 36);
    let body = answer.json();
    assert_eq!(body["service"], "ecs");
    assert_eq!(body["operation"], "ListClusters");
    assert_eq!(body["region"], "eu-west-1");
    assert_eq!(body["access_key"], "AKIDEXAMPLE");
    assert_eq!(body["input"]["maxResults"], 5);
    assert_eq!(body["request_id"], answer.header("x-amzn-requestid"));
}

#[tokio::test]
async fn session_tokens_reach_the_key_and_the_handler() {
    let server = Server::start(Auth::Strict, Limits::default()).await;
    let answer = server.send(&signed("token")).await;
    assert_eq!(answer.json()["session_token"], "FwoGZXIvYXdzEXAMPLE//+=");
}

#[tokio::test]
async fn forms_and_presigned_urls_are_answered_in_xml() {
    let server = Server::start(Auth::Strict, Limits::default()).await;
    let answer = server.send(&signed("form")).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/xml"));
    assert!(
        answer.text().contains("<GetCallerIdentityResult><Account>123456789012</Account>"),
        "{}",
        answer.text()
    );
    let answer = server.send(&signed("presigned")).await;
    assert_eq!(answer.status, 200);
    assert!(
        answer.text().contains("<vpcSet><item><vpcId>vpc 1</vpcId></item></vpcSet>"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn strict_refuses_what_is_not_signed_or_signed_otherwise() {
    let server = Server::start(Auth::Strict, Limits::default()).await;
    let check = async |request: String, status: u16, code: &str| {
        let answer = server.send(&request).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{request}");
    };
    check(target(LIST_CLUSTERS, "{}"), 400, "MissingAuthenticationTokenException").await;
    check(signed("json").replace("maxResults\": 5", "maxResults\": 6"), 400, "InvalidSignatureException")
        .await;
    check(signed("json").replace("AKIDEXAMPLE", "AKIDUNKNOWN"), 400, "UnrecognizedClientException").await;
    check(signed("json").replace(", Signature=", ", Sign="), 400, "IncompleteSignatureException").await;
    check(signed("form").replace("AKIDEXAMPLE", "AKIDUNKNOWN"), 403, "InvalidClientTokenId").await;
    check(signed("form").replace("2011-06-15", "2011-06-16"), 403, "SignatureDoesNotMatch").await;
    check(signed("presigned").replace("vpc%201", "vpc%202"), 401, "AuthFailure").await;
    assert_eq!(server.calls(), 0);
}

#[tokio::test]
async fn a_body_is_unpacked_only_for_those_who_signed_it() {
    let server = Server::start(Auth::Strict, Limits::default()).await;
    let check = async |request: String, code: &str| {
        let request = request.replacen("\r\n", "\r\nContent-Encoding: gzip\r\n", 1);
        let answer = server.send(&request).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{request}");
    };
    check(signed("json"), "SerializationException").await;
    check(signed("json").replace("maxResults\": 5", "maxResults\": 6"), "InvalidSignatureException").await;
    check(target(LIST_CLUSTERS, "{}"), "MissingAuthenticationTokenException").await;
    assert_eq!(server.calls(), 0);
}

#[tokio::test]
async fn any_routes_unsigned_requests_by_what_they_say() {
    let server = Server::start(Auth::Any, Limits::default()).await;
    let answer = server.send(&target(LIST_CLUSTERS, "{}")).await;
    assert_eq!(
        (answer.json()["service"].as_str(), answer.json()["region"].as_str()),
        (Some("ecs"), Some("us-east-1"))
    );
    let form = "Action=GetCallerIdentity&Version=2011-06-15";
    let head = "Content-Type: application/x-www-form-urlencoded; charset=utf-8";
    let answer = server.send(&support::post(head, form)).await;
    assert!(answer.text().contains("<GetCallerIdentityResponse"), "{}", answer.text());
    let answer =
        server.send("GET /?Action=DescribeVpcs&Version=2016-11-15 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.text().contains("<DescribeVpcsResponse"), "{}", answer.text());
    let answer = server.send(&signed("json").replace("maxResults\": 5", "maxResults\": 6")).await;
    assert_eq!(answer.json()["input"]["maxResults"], 6);
}

#[tokio::test]
async fn what_is_not_served_is_said_in_a_400() {
    let server = Server::start(Auth::Any, Limits::default()).await;
    let check = async |request: String, status: u16, code: &str, words: &str| {
        let answer = server.send(&request).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{request}");
        assert!(answer.text().contains(words), "{}", answer.text());
    };
    let form = |body: &str| support::post("Content-Type: application/x-www-form-urlencoded", body);
    check(
        target("AmazonEC2ContainerServiceV20141113.Paint", "{}"),
        400,
        "UnknownOperationException",
        "Paint",
    )
    .await;
    check(form("Action=GetSessionToken&Version=2011-06-15"), 400, "InvalidAction", "docs/coverage.md").await;
    check(
        signed("form").replace("GetCallerIdentity", "GetCallerIdentitx"),
        400,
        "InvalidAction",
        "not valid",
    )
    .await;
    check(signed("form").replace("Action", "Actiom"), 400, "MissingAction", "Action").await;
    check(signed("json").replace("/ecs/", "/sqs/"), 400, "UnknownOperationException", "`sqs`").await;
    check(
        signed("json").replace("AmazonEC2C", "AmazonEC3C"),
        400,
        "UnknownOperationException",
        "X-Amz-Target",
    )
    .await;
    check(
        "PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".into(),
        404,
        "UnknownOperationException",
        "",
    )
    .await;
    check(target(LIST_CLUSTERS, "{"), 400, "SerializationException", "JSON").await;
    check(form("Action=DescribeVpcs&Version=2016-11-15&Bogus=1"), 400, "UnknownParameter", "Bogus").await;
    assert_eq!(server.calls(), 0);
}

#[tokio::test]
async fn a_panic_is_one_requests_failure() {
    let server = Server::start(Auth::Any, Limits::default()).await;
    let mut connection = server.connect().await;
    let answer = connection.send(&target("AmazonEC2ContainerServiceV20141113.ListServices", "{}")).await;
    assert_eq!((answer.status, answer.code().as_str()), (500, "InternalFailure"));
    assert_eq!(connection.send(&target(LIST_CLUSTERS, "{}")).await.status, 200);
}

#[tokio::test]
async fn bodies_are_limited_in_size_and_time() {
    let limits = Limits { body: 1000, body_time: Duration::from_millis(50), ..Limits::default() };
    let server = Server::start(Auth::Any, limits).await;
    let large = server.send(&target(LIST_CLUSTERS, &" ".repeat(1001))).await;
    assert_eq!((large.status, large.code().as_str()), (413, "RequestEntityTooLarge"));
    let chunk = format!("3e9\r\n{}\r\n0\r\n\r\n", " ".repeat(1001));
    let head = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: {LIST_CLUSTERS}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    assert_eq!(server.send(&format!("{head}{chunk}")).await.status, 413);
    let late =
        server.send(&target(LIST_CLUSTERS, "{}").replace("Content-Length: 2", "Content-Length: 3")).await;
    assert_eq!((late.status, late.code().as_str()), (408, "RequestTimeout"));
    assert_eq!(server.send(&target(LIST_CLUSTERS, &" ".repeat(1000))).await.status, 200);
}

#[tokio::test]
async fn silent_connections_are_closed_and_their_places_used() {
    let limits = Limits { connections: 1, idle: Duration::from_millis(50), ..Limits::default() };
    let server = Server::start(Auth::Any, limits).await;
    let mut silent = server.connect().await;
    let mut waiting = server.connect().await;
    assert_eq!(waiting.send(&target(LIST_CLUSTERS, "{}")).await.status, 200);
    assert!(silent.is_closed().await);
}

#[tokio::test]
async fn stopping_finishes_what_is_in_flight() {
    let mut server = Server::start(Auth::Any, Limits::default()).await;
    let mut idle = server.connect().await;
    assert_eq!(idle.send(&target(LIST_CLUSTERS, "{}")).await.status, 200);
    let mut silent = server.connect().await;
    let mut busy = server.connect().await;
    let request = target("AmazonEC2ContainerServiceV20141113.DescribeTasks", r#"{"tasks":["x"]}"#);
    let busy = tokio::spawn(async move { busy.send(&request).await });
    server.until_waiting().await;

    server.stop();
    assert!(idle.is_closed().await);
    assert!(silent.is_closed().await);
    server.release();
    assert_eq!(busy.await.expect("an answer").status, 200);
    server.until_stopped().await;
    assert!(Connection::try_open(server.address).await.is_none());
}

#[tokio::test]
async fn a_handler_runs_to_its_end_without_its_client() {
    let server = Server::start(Auth::Any, Limits::default()).await;
    let mut connection = server.connect().await;
    let request = target("AmazonEC2ContainerServiceV20141113.DescribeTasks", r#"{"tasks":["x"]}"#);
    connection.write(&request).await;
    server.until_waiting().await;
    drop(connection);
    assert_eq!(server.send(&target(LIST_CLUSTERS, "{}")).await.status, 200);
    server.release();
    server.until_finished().await;
}

#[tokio::test]
async fn local_paths_are_longshores_own() {
    let server = Server::start(Auth::Strict, Limits::default()).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = server.send(&get("/_longshore/health")).await;
    assert_eq!((answer.status, json(&answer.body)["status"].as_str()), (200, Some("ok")));
    assert_eq!(server.send(&get("/_longshore/echo?a=b")).await.text(), "GET /_longshore/echo a=b");
    assert_eq!(server.send(&get("/_longshore/nothing")).await.status, 404);
}

#[tokio::test]
async fn pages_of_other_origins_are_refused() {
    let server = Server::start(Auth::Any, Limits::default()).await;
    let from = |origin: &str| {
        target(LIST_CLUSTERS, "{}").replace("Host: x", &format!("Host: x\r\nOrigin: {origin}"))
    };
    assert_eq!(server.send(&from("http://evil.example")).await.status, 403);
    assert_eq!(server.send(&from("null")).await.status, 403);
    assert_eq!(server.calls(), 0);
    assert_eq!(server.send(&from("http://x")).await.status, 200);
}

#[tokio::test]
async fn http2_works_without_tls() {
    let server = Server::start(Auth::Any, Limits::default()).await;
    let stream = tokio::net::TcpStream::connect(server.address).await.expect("a connection");
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.expect("a handshake");
    tokio::spawn(connection);
    let body = http_body_util::Full::new(bytes::Bytes::from_static(b"{}"));
    let request = http::Request::post(format!("http://{}/", server.address))
        .header("x-amz-target", LIST_CLUSTERS)
        .body(body)
        .expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_at_once_get_their_own_answers() {
    let server = Arc::new(Server::start(Auth::Any, Limits::default()).await);
    let clients = (0..20).map(|client| {
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let mut connection = server.connect().await;
            for number in 0..50 {
                let wanted = client * 100 + number;
                let body = format!("{{\"maxResults\":{wanted}}}");
                let answer = connection.send(&target(LIST_CLUSTERS, &body)).await;
                assert_eq!(answer.json()["input"]["maxResults"], wanted);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("a client");
    }
    assert_eq!(server.calls(), 1000);
}
