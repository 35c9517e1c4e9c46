//! Two ends on a loopback connection: who is let in, who is not, and that a cut link is made again.

use super::*;
use crate::remote::connector::{Identity, Messages};
use crate::remote::listener::Listener;
use crate::remote::token::Token;
use longshore_control::agents::admission;
use longshore_control::log_store::{LogStore, Options};
use longshore_control::metric_store::MetricStore;
use longshore_control::vault::Vault;
use longshore_control::{Config, Context, context};
use longshore_model::container_instance::{
    AgentVersion, Capacity, CpuArchitecture, Membership, Ports, Status,
};
use longshore_model::link::firewall::Firewall;
use longshore_model::link::{FromAgent, Hello, ToAgent};
use longshore_model::task::LaunchType;
use longshore_model::{Resources, Scope, Tags};
use longshore_store::{Store, memory::Memory};
use std::sync::Arc;
use tokio::net::TcpListener;

struct Machine {
    context: Arc<Context>,
    url: String,
    fingerprint: String,
    _logs: tempfile::TempDir,
}

async fn control() -> Machine {
    let logs = tempfile::tempdir().unwrap();
    let store = Store::open(Arc::new(Memory::default())).await.unwrap();
    let log_store = LogStore::open(logs.path(), Options::default()).unwrap();
    let config = Config {
        vpc_cidr: "10.7.0.0/16".parse().unwrap(),
        keep_stopped_tasks: 0,
        shared_store: false,
        instance_lost_after: Duration::MAX,
        task_healthy_after: Duration::ZERO,
        scale_in_after: Duration::ZERO,
        instances: None,
        lambda_endpoint: None,
    };
    let metric_store = MetricStore::open(&logs.path().join("metrics"), context::now()).unwrap();
    let vault = Vault::new(&Vault::make_key()).unwrap();
    let context = Arc::new(Context::new(Arc::new(store), log_store, metric_store, vault, config));
    let gate = Listener::new(Arc::clone(&context)).await.unwrap();
    let fingerprint = authority::fingerprint_of(gate.authority()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(gate.serve(listener));
    Machine { context, url, fingerprint, _logs: logs }
}

impl Machine {
    async fn token(&self, millis: i64) -> Token {
        let capacity = Capacity::Cluster(Membership {
            scope: Scope::new("123456789012", "us-east-1"),
            cluster: "fleet".to_owned(),
            launch_type: LaunchType::Ec2,
            ec2_instance_id: None,
            launched: false,
            capacity_provider: None,
            status: Status::Active,
        });
        let (id, secret) = admission::create_token(&self.context, capacity, millis).await.unwrap();
        Token { id, secret, fingerprint: self.fingerprint.clone() }
    }

    async fn join(&self, token: &Token, cluster: Option<&str>) -> Result<Identity, String> {
        let cluster = cluster.map(str::to_owned);
        let now = self.context.now().millis();
        let joined = connector::join(std::slice::from_ref(&self.url), token, cluster, now).await;
        joined.map_err(|error| crate::chain(&*error))
    }

    /// Links with an identity; what the agent says and hears.
    fn link(
        &self,
        identity: &Identity,
        says: ContainerInstanceId,
    ) -> (mpsc::Sender<FromAgent>, mpsc::Receiver<ToAgent>) {
        let (to_control, outgoing) = mpsc::channel(16);
        let (incoming, from_control) = mpsc::channel(16);
        let hello = hello(says);
        let messages = Messages { hello, outgoing, incoming };
        let (urls, identity) = (vec![self.url.clone()], identity.clone());
        tokio::spawn(connector::keep_linked(urls, identity, messages, |_| Ok(()), || 0));
        (to_control, from_control)
    }
}

fn hello(instance: ContainerInstanceId) -> Hello {
    Hello {
        instance,
        name: "test".to_owned(),
        resources: Resources { cpu: 1024, memory: 1024 },
        cpu_architecture: CpuArchitecture::X86_64,
        attributes: Default::default(),
        ports: Ports::default(),
        gpus: Vec::new(),
        agent: AgentVersion::default(),
        tags: Tags::default(),
    }
}

#[tokio::test]
async fn a_token_lets_an_agent_in_once_and_its_link_serves_its_instance() {
    let control = control().await;
    let token = control.token(60_000).await;
    assert_eq!(token.to_string().parse::<Token>().unwrap(), token);
    let identity = control.join(&token, Some("fleet")).await.unwrap();
    assert_eq!((identity.cluster.as_deref(), identity.region.as_deref()), (Some("fleet"), Some("us-east-1")));
    assert_eq!(identity.vpc_cidr.to_string(), "10.7.0.0/16");
    let (_to_control, mut from_control) = control.link(&identity, identity.instance);
    assert_eq!(from_control.recv().await, Some(ToAgent::Firewall(Firewall::default())));
    assert_eq!(from_control.recv().await, Some(ToAgent::Assigned(Vec::new())));
    let view = control.context.view();
    let instance = view.container_instance(identity.instance).unwrap();
    assert!(instance.agent_connected);
    assert_eq!(instance.membership().unwrap().cluster, "fleet");
    assert!(control.join(&token, None).await.err().unwrap().contains("used already"));
}

#[tokio::test]
async fn who_has_no_right_stays_out() {
    let control = control().await;
    let good = control.token(60_000).await;
    let wrong_secret = Token { secret: "0".repeat(32), ..good.clone() };
    assert!(control.join(&wrong_secret, None).await.err().unwrap().contains("the token is unknown"));
    let wrong_authority = Token { fingerprint: "0".repeat(64), ..good.clone() };
    assert!(control.join(&wrong_authority, None).await.err().unwrap().contains("not the control plane"));
    let expired = control.token(0).await;
    assert!(control.join(&expired, None).await.err().unwrap().contains("expired"));
    let other = control.join(&good, Some("other")).await.err().unwrap();
    assert!(other.contains("the token is for the cluster fleet"), "{other}");
    // None of this has used the token up.
    let mine = control.join(&good, None).await.unwrap();
    let theirs = control.join(&control.token(60_000).await, None).await.unwrap();
    let (to_control, mut from_control) = control.link(&mine, theirs.instance);
    let heard = tokio::time::timeout(Duration::from_millis(700), from_control.recv()).await;
    assert!(heard.is_err(), "an agent spoke for an instance that is not its own: {heard:?}");
    assert!(control.context.view().container_instance(theirs.instance).is_none());
    drop(to_control);
}

#[tokio::test]
async fn a_newer_link_takes_the_place_of_an_older_one() {
    let control = control().await;
    let identity = control.join(&control.token(60_000).await, None).await.unwrap();
    let (older, mut from_older) = control.link(&identity, identity.instance);
    assert!(from_older.recv().await.is_some());
    drop((older, from_older));
    let (_newer, mut from_newer) = control.link(&identity, identity.instance);
    assert!(from_newer.recv().await.is_some());
    // Whatever the end of the older one does, the instance is connected in the end.
    let mut changes = control.context.store.follow();
    while !control.context.view().container_instance(identity.instance).unwrap().agent_connected {
        changes.next().await.unwrap();
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_before_it_expires_and_serves_the_same_instance() {
    let control = control().await;
    let joined = control.join(&control.token(60_000).await, None).await.unwrap();
    let due = joined.signed_at + i64::try_from(authority::RENEW_AFTER.as_millis()).unwrap() + 1;
    let (renewed, mut kept) = mpsc::unbounded_channel();
    let keep = move |identity: &Identity| Ok(renewed.send(identity.clone())?);
    let (_to_control, outgoing) = mpsc::channel(16);
    let (incoming, mut from_control) = mpsc::channel(16);
    let messages = Messages { hello: hello(joined.instance), outgoing, incoming };
    let urls = vec![control.url.clone()];
    tokio::spawn(connector::keep_linked(urls, joined.clone(), messages, keep, move || due));
    assert_eq!(from_control.recv().await, Some(ToAgent::Firewall(Firewall::default())));
    assert_eq!(from_control.recv().await, Some(ToAgent::Assigned(Vec::new())), "it links with the new one");
    let kept = kept.recv().await.unwrap();
    assert_eq!((kept.instance, kept.signed_at), (joined.instance, due));
    assert!(kept.key != joined.key && kept.certificate != joined.certificate);
}

#[tokio::test]
async fn the_certificate_of_another_authority_is_worth_nothing() {
    let (control, foreign) = (control().await, control().await);
    let mut identity = foreign.join(&foreign.token(60_000).await, None).await.unwrap();
    // The agent would take this control plane; it is the control plane that does not take the agent.
    identity.authority = control.join(&control.token(60_000).await, None).await.unwrap().authority;
    let (_to_control, mut from_control) = control.link(&identity, identity.instance);
    let heard = tokio::time::timeout(Duration::from_millis(700), from_control.recv()).await;
    assert!(heard.is_err(), "a stranger was served: {heard:?}");
    assert!(control.context.view().container_instance(identity.instance).is_none());
}

#[tokio::test]
async fn who_is_too_long_winded_or_speaks_out_of_turn_is_sent_away() {
    let control = control().await;
    let token = control.token(60_000).await;
    let long = Token { secret: "0".repeat(LARGEST_OF_STRANGER), ..token.clone() };
    assert!(control.join(&long, None).await.is_err());
    // Whoever speaks no TLS, or no WebSocket, does not keep others from joining.
    for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff, 1], &[]] {
        use tokio::io::AsyncWriteExt;
        let address = control.url.strip_prefix("https://").unwrap();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(noise).await.unwrap();
    }
    control.join(&token, None).await.unwrap();
}

#[test]
fn what_is_no_token_is_refused() {
    for text in ["", "longshore", "longshore-1-2-3", "longshore-zz00000000000000-00-00"] {
        assert!(text.parse::<Token>().is_err(), "{text}");
    }
    let token = Token { id: "0".repeat(16), secret: "5".repeat(32), fingerprint: "a".repeat(64) };
    assert!(!format!("{token:?}").contains("555"), "a secret is not for logs");
}
