//! TLS of listeners. Invariant: the certificate that a client is shown is for the name that it asks for, where the listener
//! has one, and else the listener's default.

use crate::target::Speech;
use longshore_engine::elb::ssl_policy::{DEFAULT, SslPolicy};
use longshore_model::certificate::Certificate;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// How long the other end may take to agree on TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the listener has no certificate")]
    NoCertificate,
    #[error("read the certificate or the key")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("use the certificate and its key")]
    Tls(#[from] rustls::Error),
}

/// What a listener speaks: the first of the certificates is its default.
pub fn config(
    certificates: &[Arc<Certificate>],
    policy: Option<&str>,
    http2: bool,
) -> Result<Arc<ServerConfig>, Error> {
    let keys: Result<Vec<Named>, Error> = certificates.iter().map(|found| Named::of(found)).collect();
    let keys = keys?;
    if keys.is_empty() {
        return Err(Error::NoCertificate);
    }
    let spoken = SslPolicy::find(policy.unwrap_or(DEFAULT)).map(|policy| policy.protocols);
    let is_spoken = |name: &str| spoken.is_none_or(|spoken| spoken.contains(&name));
    // What is older is spoken by nobody here, whatever the policy says.
    let mut versions = vec![&rustls::version::TLS12];
    if is_spoken("TLSv1.3") {
        versions.push(&rustls::version::TLS13);
    }
    versions.retain(|version| version.version != rustls::ProtocolVersion::TLSv1_2 || is_spoken("TLSv1.2"));
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let mut config = builder
        .with_protocol_versions(&versions)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByName(keys)));
    let protocols: &[&[u8]] = if http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// A client's connection once it and the listener agree; `None` where they do not.
pub async fn from_client(
    stream: TcpStream,
    config: &Arc<ServerConfig>,
    client: IpAddr,
) -> Option<server::TlsStream<TcpStream>> {
    let accepting = TlsAcceptor::from(Arc::clone(config)).accept(stream);
    match timeout(HANDSHAKE, accepting).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(error = &error as &dyn std::error::Error, %client, "a client agreed on no TLS");
        }
        Err(_) => tracing::debug!(%client, "a client did not end its handshake"),
    }
    None
}

/// A connection to a target once both agree. Whoever answers at a target's address is it, as on AWS: its certificate is not
/// looked at, and the VPC is what protects the way to it.
pub async fn to_target(stream: TcpStream, speech: Speech) -> io::Result<client::TlsStream<TcpStream>> {
    static CONFIGS: OnceLock<[Arc<ClientConfig>; 2]> = OnceLock::new();
    let [http1, http2] = CONFIGS.get_or_init(|| [b"http/1.1".as_slice(), b"h2"].map(client_config));
    let config = if speech.http2 { http2 } else { http1 };
    let name = ServerName::from(stream.peer_addr()?.ip());
    match timeout(HANDSHAKE, TlsConnector::from(Arc::clone(config)).connect(name, stream)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn client_config(protocol: &[u8]) -> Arc<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    // The provider has ciphers for both versions.
    #[allow(clippy::expect_used)]
    let builder = builder.with_safe_default_protocol_versions().expect("ring speaks TLS 1.2 and 1.3");
    let verifier = Arc::new(Anybody(provider));
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

/// Believes every certificate.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[derive(Debug)]
struct Named {
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

impl Named {
    fn of(certificate: &Certificate) -> Result<Self, Error> {
        let text = format!("{}\n{}", certificate.body, certificate.chain.as_deref().unwrap_or_default());
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(certificate.private_key.as_bytes())?;
        let key = ring::sign::any_supported_type(&key)?;
        Ok(Self { names: certificate.details.names.clone(), key: Arc::new(CertifiedKey::new(chain?, key)) })
    }
}

/// Never empty.
#[derive(Debug)]
struct ByName(Vec<Named>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name();
        let is_for =
            |named: &&Named| asked.is_some_and(|asked| named.names.iter().any(|name| matches(name, asked)));
        let found = self.0.iter().find(is_for).or(self.0.first());
        found.map(|named| Arc::clone(&named.key))
    }
}

/// `*.example.com` is for one label more.
fn matches(name: &str, asked: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(rest) => asked.split_once('.').is_some_and(|(_, parent)| parent.eq_ignore_ascii_case(rest)),
        None => name.eq_ignore_ascii_case(asked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_for_one_label() {
        for (name, asked, expected) in [
            ("example.com", "EXAMPLE.com", true),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com", false),
            ("*.example.com", "example.com", false),
        ] {
            assert_eq!(matches(name, asked), expected, "{name} {asked}");
        }
    }

    #[test]
    fn a_listener_without_a_certificate_speaks_no_tls() {
        assert!(matches!(config(&[], None, true), Err(Error::NoCertificate)));
    }
}
