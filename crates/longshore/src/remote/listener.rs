//! Control's end: lets agents in by tokens, and serves those that have a certificate.
//! Invariant: an agent speaks for the instance that its certificate names, and for no other.

use super::{
    Frames, Greeting, HANDSHAKE, Joined, LARGEST_OF_AGENT, LARGEST_OF_STRANGER, Welcome, agent_name,
    authority, carry,
};
use super::{limits, receive, refuse, send};
use crate::Outcome;
use longshore_control::Context;
use longshore_control::agents::{self, Link, admission};
use longshore_model::container_instance::Capacity;
use longshore_model::join::Authority;
use longshore_model::link::FromAgent;
use longshore_model::{ContainerInstanceId, Timestamp};
use rustls::RootCertStore;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;

/// Messages that wait on a link in each direction.
const WAITING: usize = 256;
/// Links that are being made at the same time, and links altogether.
const HANDSHAKES: usize = 256;
const LINKS: usize = 20_000;

pub struct Listener {
    context: Arc<Context>,
    authority: Authority,
    /// With a certificate of this process, made again before it expires.
    acceptor: watch::Sender<TlsAcceptor>,
    links: Arc<Semaphore>,
    handshakes: Semaphore,
}

impl Listener {
    /// Makes the authority where the store has none.
    pub async fn new(context: Arc<Context>) -> Outcome<Self> {
        let now = context.now();
        let made = authority::make(now)?;
        let authority = admission::authority(&context, || made.clone()).await?;
        Ok(Self {
            context,
            acceptor: watch::Sender::new(acceptor(&authority, now)?),
            authority,
            links: Arc::new(Semaphore::new(LINKS)),
            handshakes: Semaphore::new(HANDSHAKES),
        })
    }

    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    pub async fn serve(self, listener: TcpListener) {
        let this = Arc::new(self);
        tokio::select! {
            () = this.renew_own() => {}
            () = Self::accept(&this, listener) => {}
        }
    }

    async fn renew_own(&self) {
        loop {
            tokio::time::sleep(authority::RENEW_AFTER).await;
            match acceptor(&self.authority, self.context.now()) {
                Ok(renewed) => drop(self.acceptor.send_replace(renewed)),
                Err(error) => {
                    tracing::error!(
                        reason = crate::chain(&*error),
                        "the control plane's certificate is not renewed"
                    )
                }
            }
        }
    }

    async fn accept(this: &Arc<Self>, listener: TcpListener) {
        loop {
            // A link more than there may be waits to be accepted.
            let Ok(place) = Arc::clone(&this.links).acquire_owned().await else { return };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept an agent's connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let this = Arc::clone(this);
            tokio::spawn(async move {
                match this.converse(stream).await {
                    Ok(()) => tracing::debug!(%peer, "an agent's connection ended"),
                    Err(error) => {
                        tracing::info!(%peer, reason = crate::chain(&*error), "an agent's connection ended")
                    }
                }
                drop(place);
            });
        }
    }

    async fn converse(&self, stream: TcpStream) -> Outcome {
        stream.set_nodelay(true)?;
        let handshake = async {
            let _turn = self.handshakes.acquire().await?;
            let acceptor = self.acceptor.borrow().clone();
            let stream = acceptor.accept(stream).await?;
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
            let largest = if certificate.is_some() { LARGEST_OF_AGENT } else { LARGEST_OF_STRANGER };
            let frames = tokio_tungstenite::accept_async_with_config(stream, Some(limits(largest))).await?;
            Outcome::Ok((frames, certificate))
        };
        let (mut frames, certificate) = tokio::time::timeout(HANDSHAKE, handshake).await??;
        match receive(&mut frames).await? {
            Greeting::Join { token, secret, cluster, public_key } => {
                let welcome = match self.join(&token, &secret, cluster.as_deref(), &public_key).await {
                    Ok(joined) => Welcome::Joined(joined),
                    Err(refused) => Welcome::Refused(crate::chain(&*refused)),
                };
                Ok(send(&mut frames, &welcome).await?)
            }
            Greeting::Renew { instance, public_key } => {
                let welcome = match self.renew(instance, certificate.as_ref(), &public_key) {
                    Ok(joined) => Welcome::Joined(joined),
                    Err(refused) => Welcome::Refused(crate::chain(&*refused)),
                };
                Ok(send(&mut frames, &welcome).await?)
            }
            Greeting::Link => {
                let linked = self.link(&mut frames, certificate.as_ref()).await;
                if let Err(refused) = &linked {
                    refuse(&mut frames, &crate::chain(&**refused)).await;
                }
                linked
            }
        }
    }

    async fn join(
        &self,
        token: &str,
        secret: &str,
        cluster: Option<&str>,
        public_key: &[u8],
    ) -> Outcome<Joined> {
        self.check_cluster(token, cluster)?;
        let admission = admission::admit(&self.context, token, secret).await?;
        self.joined(admission.instance, &admission.capacity, public_key)
    }

    /// An agent that was told another cluster than its token's is not let in where nobody expects it.
    fn check_cluster(&self, token: &str, wanted: Option<&str>) -> Outcome {
        let view = self.context.view();
        let token = view.join_tokens.get(&longshore_model::join::JoinToken::key_of(token));
        if let (Some(wanted), Some(Capacity::Cluster(member))) = (wanted, token.map(|token| &token.capacity))
            && member.cluster != wanted
        {
            return Err(format!(
                "the token is for the cluster {}, and the agent was told to join {wanted}: make a token with \
                 `longshore token create --cluster {wanted}`, or start the agent with --cluster {}",
                member.cluster, member.cluster
            )
            .into());
        }
        Ok(())
    }

    fn renew(
        &self,
        instance: ContainerInstanceId,
        certificate: Option<&CertificateDer<'_>>,
        public_key: &[u8],
    ) -> Outcome<Joined> {
        check_name(certificate, instance)?;
        let capacity = admission::capacity_of(&self.context, instance)?;
        self.joined(instance, &capacity, public_key)
    }

    fn joined(
        &self,
        instance: ContainerInstanceId,
        capacity: &Capacity,
        public_key: &[u8],
    ) -> Outcome<Joined> {
        let member = match capacity {
            Capacity::Cluster(member) => Some(member),
            Capacity::Fargate => None,
        };
        Ok(Joined {
            instance,
            region: member.map(|member| member.scope.region.to_string()),
            cluster: member.map(|member| member.cluster.clone()),
            vpc_cidr: self.context.config.vpc_cidr,
            certificate: authority::of_agent(&self.authority, instance, public_key, self.context.now())?,
            authority: self.authority.certificate.clone(),
        })
    }

    async fn link(&self, frames: &mut impl Frames, certificate: Option<&CertificateDer<'_>>) -> Outcome {
        let first: FromAgent = receive(frames).await?;
        let FromAgent::Hello(hello) = &first else {
            return Err("the agent did not say who it is first".into());
        };
        let instance = hello.instance;
        check_name(certificate, instance)?;
        let capacity = admission::capacity_of(&self.context, instance)?;
        let (to_agent, mut outgoing) = mpsc::channel(WAITING);
        let (incoming, from_agent) = mpsc::channel(WAITING);
        incoming.send(first).await?;
        let serving = agents::serve(Arc::clone(&self.context), capacity, Link { to_agent, from_agent });
        tokio::pin!(serving);
        let ended = tokio::select! {
            ended = &mut serving => ended.to_string(),
            broken = carry(frames, &mut outgoing, &incoming) => {
                // The end of the messages is the end of the service, which records that the agent is away.
                drop((incoming, outgoing));
                serving.await;
                crate::chain(&broken)
            }
        };
        tracing::info!(%instance, reason = ended, "the link to an agent ended");
        Ok(())
    }
}

fn acceptor(authority: &Authority, now: Timestamp) -> Outcome<TlsAcceptor> {
    let (chain, key) = authority::of_control(authority, now)?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn check_name(certificate: Option<&CertificateDer<'_>>, instance: ContainerInstanceId) -> Outcome {
    let certificate = certificate.ok_or("the agent has shown no certificate")?;
    let parsed = ParsedCertificate::try_from(certificate)?;
    let name = ServerName::try_from(agent_name(instance))?;
    verify_server_name(&parsed, &name).map_err(|_| {
        format!("the agent's certificate is not that of the container instance {instance}").into()
    })
}
