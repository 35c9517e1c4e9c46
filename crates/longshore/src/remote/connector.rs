//! The agent's end: joins once, and then keeps a link to one of the control planes.
//! Invariant: while there is no link nothing waits for one. What tasks report meanwhile is dropped, because it is said
//! again when the next link has told everything.

use super::token::Token;
use super::{
    Broken, CONNECT, CONTROL_NAME, Frames, Greeting, HANDSHAKE, Joined, LARGEST, Welcome, authority, carry,
};
use super::{limits, receive, send};
use crate::Outcome;
use longshore_model::ContainerInstanceId;
use longshore_model::link::{FromAgent, Hello, ToAgent};
use rcgen::{KeyPair, PublicKeyData};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

/// How long an agent waits between two attempts: from the one to the other, doubled each time.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// What an agent shows of itself, as it is kept in its data directory.
#[derive(Clone, Serialize, Deserialize)]
pub struct Identity {
    pub instance: ContainerInstanceId,
    pub region: Option<String>,
    pub cluster: Option<String>,
    pub vpc_cidr: longshore_model::vpc::Cidr,
    /// PEM texts; the key is a secret.
    pub certificate: String,
    pub key: String,
    pub authority: String,
    /// Milliseconds since the epoch.
    pub signed_at: i64,
}

/// Joins by a token.
pub async fn join(urls: &[String], token: &Token, cluster: Option<String>, now: i64) -> Outcome<Identity> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Pinned { fingerprint: token.fingerprint.clone(), provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let key = KeyPair::generate()?;
    let (id, secret) = (token.id.clone(), token.secret.clone());
    let greeting = Greeting::Join { token: id, secret, cluster, public_key: key.der_bytes().to_vec() };
    signed(&mut connect_any(urls, &Arc::new(config)).await?, &greeting, &key, now).await
}

/// A new certificate for a new key.
async fn renew(urls: &[String], identity: &Identity, now: i64) -> Outcome<Identity> {
    let key = KeyPair::generate()?;
    let greeting = Greeting::Renew { instance: identity.instance, public_key: key.der_bytes().to_vec() };
    signed(&mut connect_any(urls, &Arc::new(config(identity)?)).await?, &greeting, &key, now).await
}

async fn signed(frames: &mut impl Frames, greeting: &Greeting, key: &KeyPair, now: i64) -> Outcome<Identity> {
    send(frames, greeting).await?;
    match receive(frames).await? {
        Welcome::Refused(why) => Err(why.into()),
        Welcome::Joined(Joined { instance, region, cluster, vpc_cidr, certificate, authority }) => {
            Ok(Identity {
                instance,
                region,
                cluster,
                vpc_cidr,
                certificate,
                key: key.serialize_pem(),
                authority,
                signed_at: now,
            })
        }
    }
}

/// An agent's messages, whatever link carries them.
pub struct Messages {
    pub hello: Hello,
    pub outgoing: mpsc::Receiver<FromAgent>,
    pub incoming: mpsc::Sender<ToAgent>,
}

/// Keeps a link until the agent ends, to whichever control plane answers.
pub async fn keep_linked(
    urls: Vec<String>,
    mut identity: Identity,
    mut messages: Messages,
    keep: impl Fn(&Identity) -> Outcome,
    now: impl Fn() -> i64,
) {
    let mut wait = SHORTEST_WAIT;
    let mut first = 0;
    loop {
        if now() - identity.signed_at > i64::try_from(authority::RENEW_AFTER.as_millis()).unwrap_or(i64::MAX)
        {
            match renew(&urls, &identity, now()).await.and_then(|renewed| keep(&renewed).map(|()| renewed)) {
                Ok(renewed) => identity = renewed,
                Err(error) => {
                    tracing::warn!(reason = crate::chain(&*error), "the certificate is not renewed yet")
                }
            }
        }
        let began = tokio::time::Instant::now();
        let url = urls.get(first % urls.len().max(1)).cloned().unwrap_or_default();
        let ended = tokio::select! {
            ended = link(&url, &identity, &mut messages) => ended,
            () = tokio::time::sleep(authority::RENEW_AFTER) => Ok(Broken::Closed),
        };
        if messages.incoming.is_closed() {
            return;
        }
        match ended {
            Ok(broken) => {
                tracing::info!(url, reason = crate::chain(&broken), "the link to the control plane ended")
            }
            Err(error) => tracing::warn!(url, reason = crate::chain(&*error), "no link to the control plane"),
        }
        if began.elapsed() > LONGEST_WAIT {
            wait = SHORTEST_WAIT;
        }
        first += 1;
        drop_for(wait, &mut messages.outgoing).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

async fn link(url: &str, identity: &Identity, messages: &mut Messages) -> Outcome<Broken> {
    let connecting = async {
        let mut frames = connect(url, &Arc::new(config(identity)?)).await?;
        send(&mut frames, &Greeting::Link).await?;
        send(&mut frames, &FromAgent::Hello(messages.hello.clone())).await?;
        Outcome::Ok(frames)
    };
    let mut frames = tokio::select! {
        connected = connecting => connected?,
        () = drop_all(&mut messages.outgoing) => return Ok(Broken::Closed),
    };
    tracing::info!(url, "linked to the control plane");
    Ok(carry(&mut frames, &mut messages.outgoing, &messages.incoming).await)
}

/// Takes what is reported while nobody hears it. Ends when the agent does.
async fn drop_all(outgoing: &mut mpsc::Receiver<FromAgent>) {
    while outgoing.recv().await.is_some() {}
}

async fn drop_for(wait: Duration, outgoing: &mut mpsc::Receiver<FromAgent>) {
    let _ = tokio::time::timeout(wait, drop_all(outgoing)).await;
}

fn config(identity: &Identity) -> Outcome<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(identity.authority.as_bytes())?)?;
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
    Ok(ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)?)
}

async fn connect_any(urls: &[String], config: &Arc<ClientConfig>) -> Outcome<impl Frames + use<>> {
    let mut last = "there is no URL of a control plane: say it with --join https://HOST:PORT".into();
    for url in urls {
        match connect(url, config).await {
            Ok(frames) => return Ok(frames),
            Err(error) => last = format!("{url}: {}", crate::chain(&*error)).into(),
        }
    }
    Err(last)
}

async fn connect(url: &str, config: &Arc<ClientConfig>) -> Outcome<impl Frames + use<>> {
    let address = url.strip_prefix("https://").map(|rest| rest.trim_end_matches('/'));
    let address = address.ok_or_else(|| format!("{url} is not https://HOST:PORT"))?;
    let connecting = async {
        let stream = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(CONTROL_NAME)?;
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
        let request = format!("wss://{CONTROL_NAME}/v1/link");
        let (frames, _) =
            tokio_tungstenite::client_async_with_config(request, stream, Some(limits(LARGEST))).await?;
        Outcome::Ok(frames)
    };
    tokio::time::timeout(HANDSHAKE, connecting).await.map_err(|_| format!("{address} does not answer"))?
}

/// Trusts the authority that has the fingerprint, whoever it is.
#[derive(Debug)]
struct Pinned {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates.iter().find(|shown| authority::fingerprint(shown) == self.fingerprint);
        let authority = authority.ok_or_else(|| {
            rustls::Error::General("this is not the control plane that made the token".to_owned())
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider)).build();
        let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
