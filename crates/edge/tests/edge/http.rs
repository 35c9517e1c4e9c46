//! What clients of an application load balancer see, over real sockets.

use crate::common::{Edge, Server, forward, group, listener, row, rule, target};
use ::http::{Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::Full;
use longshore_model::Timestamp;
use longshore_model::elb::{Action, Condition, FixedResponse, HealthState, Redirect, Target, TargetHealth};
use longshore_model::link::edge::TargetSeen;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn unhealthy() -> TargetHealth {
    TargetHealth { state: HealthState::Unhealthy, ..TargetHealth::initial() }
}

#[tokio::test]
async fn a_request_reaches_a_target_and_says_where_it_came_from() {
    let edge = Edge::start(&[]).await;
    let server = Server::start("one").await;
    edge.register(&server.target("web", TargetHealth::healthy())).await;
    edge.get_until("/", |answer| answer.status == StatusCode::OK).await;
    let request = Request::post("/a/b?c=d")
        .header(header::HOST, "example.com:8080")
        .header(header::CONNECTION, "x-mine")
        .header("x-mine", "1")
        .header("x-forwarded-for", "9.9.9.9")
        .body(Full::from("sent"))
        .unwrap();
    let answer = edge.client().await.send(request).await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "one /a/b?c=d sent"));
    let told = "host=example.com:8080;x-forwarded-for=9.9.9.9, 127.0.0.1;x-forwarded-port=8080;\
                x-forwarded-proto=http;connection=;x-mine=";
    assert_eq!(answer.headers["x-told"], told);
    assert!(!answer.headers.contains_key("keep-alive"), "it concerns the target's connection");
}

#[tokio::test]
async fn rules_are_followed_by_their_priority() {
    let edge = Edge::start(&[]).await;
    let server = Server::start("web").await;
    let path = |pattern: &str| vec![Condition::PathPattern(vec![pattern.to_owned()])];
    let fixed = |status, body: &str| {
        Action::FixedResponse(FixedResponse {
            status,
            content_type: Some("text/plain".to_owned()),
            body: Some(body.to_owned()),
        })
    };
    let text = str::to_owned;
    let moved = Redirect {
        protocol: text("HTTPS"),
        host: text("#{host}"),
        port: text("443"),
        path: text("/#{path}"),
        query: text("#{query}"),
        status: 301,
    };
    edge.change(vec![
        row(&server.target("web", TargetHealth::healthy())),
        row(&rule(20, path("/api/*"), fixed(418, "late"))),
        row(&rule(10, path("/api/v1"), fixed(200, "first"))),
        row(&rule(30, path("/old"), Action::Redirect(moved))),
    ])
    .await;
    let first = edge.get_until("/api/v1", |answer| answer.body == "first").await;
    assert_eq!(first.headers[header::CONTENT_TYPE], "text/plain");
    assert_eq!(edge.get("/api/v2").await.status, StatusCode::IM_A_TEAPOT);
    let moved = edge.get("/old?q=1").await;
    assert_eq!(moved.status, StatusCode::MOVED_PERMANENTLY);
    assert_eq!(moved.headers[header::LOCATION], "https://example.com/old?q=1");
    assert!(edge.get("/else").await.body.starts_with("web /else"));
}

#[tokio::test]
async fn requests_are_spread_over_the_healthy_targets() {
    let edge = Edge::start(&[]).await;
    let servers = [Server::start("a").await, Server::start("b").await, Server::start("c").await];
    let health = [TargetHealth::healthy(), TargetHealth::healthy(), unhealthy()];
    let rows = servers.iter().zip(health).map(|(server, health)| row(&server.target("web", health)));
    edge.change(rows.collect()).await;
    edge.get_until("/", |answer| answer.body.starts_with("b ")).await;
    let before: Vec<usize> = servers.iter().map(Server::requests).collect();
    let mut client = edge.client().await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, StatusCode::OK);
    }
    let more: Vec<usize> =
        servers.iter().zip(before).map(|(server, before)| server.requests() - before).collect();
    assert_eq!(more, [10, 10, 0]);
}

#[tokio::test]
async fn when_none_is_healthy_all_are_asked() {
    let edge = Edge::start(&[]).await;
    let server = Server::start("ill").await;
    server.health.store(500, Ordering::Relaxed);
    edge.register(&server.target("web", unhealthy())).await;
    edge.get_until("/", |answer| answer.body.starts_with("ill")).await;
}

#[tokio::test]
async fn what_cannot_be_answered_says_why() {
    let edge = Edge::start(&[("idle_timeout.timeout_seconds", "1")]).await;
    let nobody = edge.get("/").await;
    assert_eq!(nobody.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(nobody.body.contains("503 Service Temporarily Unavailable"), "{}", nobody.body);
    // Nobody listens there any more.
    let gone = Server::start("gone").await.address;
    edge.register(&target(gone, "web", TargetHealth::healthy())).await;
    edge.get_until("/", |answer| answer.status == StatusCode::BAD_GATEWAY).await;
    let slow = Server::start("slow").await;
    edge.register(&slow.target("web", TargetHealth::healthy())).await;
    edge.get_until("/", |answer| answer.status == StatusCode::OK).await;
    let late = edge.get("/slow").await;
    assert_eq!(late.status, StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn a_target_that_cannot_be_connected_to_costs_no_request() {
    let edge = Edge::start(&[]).await;
    let server = Server::start("up").await;
    let gone = Server::start("gone").await.address;
    let targets =
        [server.target("web", TargetHealth::healthy()), target(gone, "web", TargetHealth::healthy())];
    edge.change(targets.iter().map(row).collect()).await;
    edge.get_until("/", |answer| answer.status == StatusCode::OK).await;
    for _ in 0..10 {
        assert_eq!(edge.get("/").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn checks_change_the_health_and_say_why() {
    let mut edge = Edge::start(&[]).await;
    let server = Server::start("one").await;
    let new = server.target("web", TargetHealth::initial());
    edge.register(&new).await;
    let report = edge.report(|_| true).await;
    assert_eq!(report.seen, TargetSeen::Health(TargetHealth::healthy()));
    assert_eq!(report.registered_at, Timestamp(5));
    server.health.store(503, Ordering::Relaxed);
    let report = edge.report(|_| true).await;
    let TargetSeen::Health(health) = report.seen else { panic!("{report:?}") };
    assert_eq!(health.state, HealthState::Unhealthy);
    assert_eq!(health.description.as_deref(), Some("Health checks failed with these codes: [503]"));
    // Checks that go on are not disturbed by what is recorded of them.
    edge.register(&Target { health, ..new }).await;
    server.health.store(200, Ordering::Relaxed);
    assert_eq!(edge.report(|_| true).await.seen, TargetSeen::Health(TargetHealth::healthy()));
}

#[tokio::test]
async fn a_target_that_leaves_answers_what_it_has_and_gets_nothing_more() {
    let mut edge = Edge::start(&[]).await;
    let (old, new) = (Server::start("old").await, Server::start("new").await);
    let leaving = old.target("web", TargetHealth::healthy());
    edge.register(&leaving).await;
    edge.get_until("/", |answer| answer.body.starts_with("old")).await;
    let mut client = edge.client().await;
    let slow = tokio::spawn(async move { client.get("/slow").await });
    while old.requests() < 2 {
        tokio::task::yield_now().await;
    }
    let leaving = Target { deregistered_at: Some(Timestamp(9)), ..leaving };
    edge.change(vec![row(&leaving), row(&new.target("web", TargetHealth::healthy()))]).await;
    edge.get_until("/", |answer| answer.body.starts_with("new")).await;
    let before = old.requests();
    for _ in 0..10 {
        assert!(edge.get("/").await.body.starts_with("new"));
    }
    assert_eq!(old.requests(), before);
    old.let_go.notify_one();
    let answer = slow.await.unwrap();
    assert!(answer.status == StatusCode::OK && answer.body.starts_with("old"), "{answer:?}");
    let drained = edge.report(|report| report.seen == TargetSeen::Drained).await;
    assert_eq!(drained.registered_at, Timestamp(5));
}

#[tokio::test]
async fn no_request_is_lost_while_everything_changes() {
    let edge = Arc::new(Edge::start(&[]).await);
    let servers = [Server::start("a").await, Server::start("b").await];
    edge.register(&servers[0].target("web", TargetHealth::healthy())).await;
    edge.get_until("/", |answer| answer.status == StatusCode::OK).await;
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (edge, done) = (Arc::clone(&edge), Arc::clone(&done));
            tokio::spawn(async move {
                let mut client = edge.client().await;
                let mut answered = 0;
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(client.get("/").await.status, StatusCode::OK);
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    for round in 0..40 {
        let (comes, goes) = (&servers[round % 2], &servers[(round + 1) % 2]);
        let registered_at = Timestamp(100 + round as i64);
        let comes = Target { registered_at, ..comes.target("web", TargetHealth::healthy()) };
        edge.register(&comes).await;
        let leaves = goes.target("web", TargetHealth::healthy());
        edge.register(&Target { deregistered_at: Some(Timestamp(9)), ..leaves.clone() }).await;
        let other = if round % 3 == 0 { forward(&[("web", 1), ("none", 0)]) } else { forward(&[("web", 5)]) };
        let changed = longshore_model::elb::Listener { default_actions: vec![other], ..listener("web") };
        edge.change(vec![row(&changed), row(&group("none", &[]))]).await;
        tokio::task::yield_now().await;
        let mut gone = row(&leaves);
        gone.value = None;
        edge.change(vec![gone]).await;
    }
    // Whatever was sent before is answered before this one is.
    assert_eq!(edge.get("/").await.status, StatusCode::OK);
    done.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn a_connection_may_go_on_in_another_protocol() {
    let edge = Edge::start(&[]).await;
    let server = Server::start("one").await;
    edge.register(&server.target("web", TargetHealth::healthy())).await;
    edge.get_until("/", |answer| answer.status == StatusCode::OK).await;
    let mut stream = edge.connect().await;
    let request = "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: echo"), "{head}");
    stream.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"ping");
}

#[tokio::test]
async fn nonsense_is_refused_and_hurts_nobody() {
    let edge = Edge::start(&[]).await;
    for nonsense in ["GET / HTTP/1.1\r\n\r\n", "nonsense\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nx: "] {
        let mut stream = edge.connect().await;
        stream.write_all(nonsense.as_bytes()).await.unwrap();
        if nonsense.ends_with("x: ") {
            let long = vec![b'a'; 200 * 1024];
            // It may be closed before all is sent.
            let _ = stream.write_all(&long).await;
            let _ = stream.write_all(b"\r\n\r\n").await;
        }
        let mut answer = Vec::new();
        let _ = stream.read(&mut [0; 0]).await;
        let _ = tokio::time::timeout(std::time::Duration::from_secs(5), stream.read_buf(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{nonsense}: {answer}");
    }
    let request = Request::get("/").header(header::HOST, "a").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(edge.client().await.send(request).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

fn cookies(answer: &crate::common::Answer) -> String {
    let set = answer.headers.get_all(header::SET_COOKIE).iter();
    set.filter_map(|value| value.to_str().unwrap().split(';').next()).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn a_client_with_a_cookie_comes_back_to_its_target_while_that_is_there() {
    let edge = Edge::start(&[]).await;
    let servers = [Server::start("a").await, Server::start("b").await];
    let mut rows: Vec<_> =
        servers.iter().map(|server| row(&server.target("web", TargetHealth::healthy()))).collect();
    rows.push(row(&group("web", &[("stickiness.enabled", "true"), ("stickiness.type", "lb_cookie")])));
    edge.change(rows).await;
    let first = edge.get_until("/", |answer| answer.headers.contains_key(header::SET_COOKIE)).await;
    let (name, cookie) = (first.body.split(' ').next().unwrap().to_owned(), cookies(&first));
    let ask = || {
        Request::get("/")
            .header(header::HOST, "a")
            .header(header::COOKIE, &cookie)
            .body(Full::default())
            .unwrap()
    };
    let mut client = edge.client().await;
    for _ in 0..10 {
        assert!(client.send(ask()).await.body.starts_with(&name));
    }
    let mine = servers.iter().find(|server| !name.is_empty() && server.requests() > 2).unwrap();
    let leaving =
        Target { deregistered_at: Some(Timestamp(9)), ..mine.target("web", TargetHealth::healthy()) };
    edge.register(&leaving).await;
    edge.get_until("/", |answer| !answer.body.starts_with(&name)).await;
    assert!(!client.send(ask()).await.body.starts_with(&name));
}

#[tokio::test]
async fn weights_part_the_requests_and_a_client_may_be_kept_with_its_group() {
    let edge = Edge::start(&[]).await;
    let (blue, green) = (Server::start("blue").await, Server::start("green").await);
    let Action::Forward { groups, .. } = forward(&[("web", 3), ("green", 1)]) else { unreachable!() };
    let listener = |stickiness| longshore_model::elb::Listener {
        default_actions: vec![Action::Forward { groups: groups.clone(), stickiness }],
        ..listener("web")
    };
    edge.change(vec![
        row(&group("green", &[])),
        row(&blue.target("web", TargetHealth::healthy())),
        row(&green.target("green", TargetHealth::healthy())),
        row(&listener(None)),
    ])
    .await;
    edge.get_until("/", |answer| answer.body.starts_with("green")).await;
    let before = (blue.requests(), green.requests());
    let mut client = edge.client().await;
    for _ in 0..40 {
        client.get("/").await;
    }
    assert_eq!((blue.requests() - before.0, green.requests() - before.1), (30, 10));
    let kept = longshore_model::elb::Stickiness { enabled: true, seconds: Some(60) };
    edge.change(vec![row(&listener(Some(kept)))]).await;
    let kept =
        edge.get_until("/", |answer| answer.body.starts_with("green") && !cookies(answer).is_empty()).await;
    for _ in 0..10 {
        let request = Request::get("/").header(header::HOST, "a").header(header::COOKIE, cookies(&kept));
        assert!(client.send(request.body(Full::default()).unwrap()).await.body.starts_with("green"));
    }
}

#[tokio::test]
async fn a_target_that_is_new_gets_its_part_slowly() {
    let edge = Edge::start(&[]).await;
    let (old, new) = (Server::start("old").await, Server::start("new").await);
    edge.change(vec![
        row(&group("web", &[("slow_start.duration_seconds", "30")])),
        row(&old.target("web", TargetHealth::healthy())),
    ])
    .await;
    edge.get_until("/", |answer| answer.status == StatusCode::OK).await;
    edge.advance(30_000);
    edge.register(&new.target("web", TargetHealth::healthy())).await;
    // What is told later is known later.
    let fixed = FixedResponse { status: 418, content_type: None, body: None };
    let mark = vec![Condition::PathPattern(vec!["/mark".to_owned()])];
    edge.change(vec![row(&rule(1, mark, Action::FixedResponse(fixed)))]).await;
    edge.get_until("/mark", |answer| answer.status == StatusCode::IM_A_TEAPOT).await;
    edge.advance(15_000);
    let before = (old.requests(), new.requests());
    for _ in 0..200 {
        edge.get("/").await;
    }
    let (old, new) = (old.requests() - before.0, new.requests() - before.1);
    assert!((30..=70).contains(&new) && old + new == 200, "{old} {new}");
}
