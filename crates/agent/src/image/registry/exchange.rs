//! One question to one registry: connections, tokens, redirects, patience.

use std::{collections::HashMap, error::Error as StdError, path::Path, sync::Mutex, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, HeaderValue, LOCATION, USER_AGENT, WWW_AUTHENTICATE},
    uri::{Parts, Scheme},
};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::time::Instant;

use super::auth::{self, Challenge, Grant};
use crate::{
    image::{Credentials, PullError, reference::is_loopback},
    runtime::lock,
};

/// How long a connection may say nothing.
pub(super) const IDLE: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(10);

/// Where a repository is served.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// `https://host:port`, perhaps with a path.
    pub base: String,
    pub repository: String,
    pub credentials: Option<Credentials>,
}

impl Target {
    pub fn host(&self) -> &str {
        let after_scheme = self.base.split_once("://").map_or(self.base.as_str(), |(_, rest)| rest);
        after_scheme.split('/').next().unwrap_or_default()
    }
}

pub(super) struct Exchange {
    http: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    /// What opened a repository last, and until when it does.
    grants: Mutex<HashMap<GrantKey, (Grant, Instant)>>,
}

/// Base, repository and who asks; with the password, as a changed one must not live on an old token.
type GrantKey = (String, String, Option<Credentials>);

type Answer = Response<Incoming>;

impl Exchange {
    /// Fails when TLS cannot be set up.
    pub fn new() -> Result<Self, rustls::Error> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT));
        http.set_nodelay(true);
        let provider = rustls::crypto::ring::default_provider();
        let tls = ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(trusted())
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        Ok(Self { http: Client::builder(TokioExecutor::new()).build(connector), grants: Mutex::default() })
    }

    /// The answer to `{base}/v2/{repository}/{path}`, after authorization and redirects, whatever its status.
    pub async fn send(
        &self,
        target: &Target,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Answer, PullError> {
        let uri = parse(&format!("{}/v2/{}/{path}", target.base, target.repository))?;
        let answer = self.follow(method, uri.clone(), headers, self.grant(target)).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let challenge = Challenge::strongest(answer.headers().get_all(WWW_AUTHENTICATE));
        let grant = match (challenge, &target.credentials) {
            (Some(Challenge::Bearer(bearer)), credentials) => {
                match self.token(&bearer.uri(&target.repository), credentials.as_ref()).await? {
                    Ok(grant) => grant,
                    Err(refusal) => return Ok(refusal),
                }
            }
            (Some(Challenge::Basic), Some(credentials)) if may_see_credentials(&uri) => {
                Grant::basic(credentials)
            }
            _ => return Ok(answer),
        };
        self.keep(target, &grant);
        self.follow(method, uri, headers, Some(grant)).await
    }

    /// Redirects are followed without the grant once they leave the host, and never from TLS to plain text.
    async fn follow(
        &self,
        method: &Method,
        mut uri: Uri,
        headers: &HeaderMap,
        mut grant: Option<Grant>,
    ) -> Result<Answer, PullError> {
        const REDIRECTS: usize = 6;
        for _ in 0..REDIRECTS {
            let answer = self.patiently(method, &uri, headers, grant.as_ref()).await?;
            let location = answer.headers().get(LOCATION).filter(|_| answer.status().is_redirection());
            let Some(location) = location.and_then(|value| value.to_str().ok()) else { return Ok(answer) };
            let next = resolve(&uri, location)?;
            if uri.scheme() == Some(&Scheme::HTTPS) && next.scheme() != Some(&Scheme::HTTPS) {
                return Err(registry_error(&uri, "it redirects from TLS to plain text"));
            }
            if next.authority() != uri.authority() {
                grant = None;
            }
            uri = next;
        }
        Err(registry_error(&uri, "it redirects without end"))
    }

    /// Asks again when the registry says that it is overloaded or broken for the moment.
    async fn patiently(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        grant: Option<&Grant>,
    ) -> Result<Answer, PullError> {
        for pause in [200, 800] {
            let answer = self.once(method, uri, headers, grant).await?;
            if answer.status() != StatusCode::TOO_MANY_REQUESTS && !answer.status().is_server_error() {
                return Ok(answer);
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        self.once(method, uri, headers, grant).await
    }

    async fn once(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        grant: Option<&Grant>,
    ) -> Result<Answer, PullError> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers.clone();
        let agent = HeaderValue::from_static(concat!("longshore/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, agent);
        if let Some(grant) = grant {
            request.headers_mut().insert(AUTHORIZATION, grant.header.clone());
        }
        let unreachable = |cause: String| PullError::Unreachable {
            host: host_of(uri),
            message: format!("{method} \"{uri}\": {cause}"),
        };
        match tokio::time::timeout(IDLE, self.http.request(request)).await {
            Ok(answer) => answer.map_err(|error| unreachable(root_cause(&error))),
            Err(_) => Err(unreachable("no answer in time".into())),
        }
    }

    /// The inner error is the token server's refusal.
    async fn token(
        &self,
        uri: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Result<Grant, Answer>, PullError> {
        let uri = parse(uri)?;
        let basic = credentials.filter(|_| may_see_credentials(&uri)).map(Grant::basic);
        let answer = self.follow(&Method::GET, uri.clone(), &HeaderMap::new(), basic).await?;
        if !answer.status().is_success() {
            return Ok(Err(answer));
        }
        let bytes = small_body(answer.into_body()).await.map_err(|message| registry_error(&uri, &message))?;
        match auth::read_token(&bytes) {
            Some(grant) => Ok(Ok(grant)),
            None => Err(registry_error(&uri, "its token cannot be read")),
        }
    }

    fn grant(&self, target: &Target) -> Option<Grant> {
        let mut grants = lock(&self.grants);
        grants.retain(|_, (_, until)| *until > Instant::now());
        grants.get(&key(target)).map(|(grant, _)| grant.clone())
    }

    fn keep(&self, target: &Target, grant: &Grant) {
        lock(&self.grants).insert(key(target), (grant.clone(), Instant::now() + grant.lifetime));
    }
}

/// The public authorities, and those that this machine trusts: a company's registry has its own.
fn trusted() -> RootCertStore {
    const BUNDLES: [&str; 3] =
        ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let given = std::env::var("SSL_CERT_FILE").ok();
    let bundle = given.as_deref().or_else(|| BUNDLES.into_iter().find(|path| Path::new(path).exists()));
    for certificate in
        bundle.and_then(|path| CertificateDer::pem_file_iter(path).ok()).into_iter().flatten().flatten()
    {
        // A bundle may have certificates that rustls cannot read; the others still count.
        let _ = roots.add(certificate);
    }
    roots
}

fn key(target: &Target) -> GrantKey {
    (target.base.clone(), target.repository.clone(), target.credentials.clone())
}

fn may_see_credentials(uri: &Uri) -> bool {
    uri.scheme() == Some(&Scheme::HTTPS) || uri.authority().is_some_and(|a| is_loopback(a.as_str()))
}

fn parse(text: &str) -> Result<Uri, PullError> {
    let uri: Result<Uri, _> = text.parse();
    match uri {
        Ok(uri) if uri.host().is_some() && uri.scheme().is_some() => Ok(uri),
        _ => {
            Err(PullError::Registry { host: text.into(), message: "that is no address of a registry".into() })
        }
    }
}

/// `location` may be a path.
fn resolve(base: &Uri, location: &str) -> Result<Uri, PullError> {
    let next: Uri =
        location.parse().map_err(|_| registry_error(base, "it redirects to what is no address"))?;
    let mut parts = Parts::default();
    parts.scheme = next.scheme().or(base.scheme()).cloned();
    parts.authority = next.authority().or(base.authority()).cloned();
    parts.path_and_query = next.path_and_query().or(base.path_and_query()).cloned();
    Uri::from_parts(parts).map_err(|_| registry_error(base, "it redirects to what is no address"))
}

fn registry_error(uri: &Uri, message: &str) -> PullError {
    PullError::Registry { host: host_of(uri), message: message.into() }
}

fn host_of(uri: &Uri) -> String {
    uri.authority().map(ToString::to_string).unwrap_or_default()
}

pub(super) async fn small_body(body: Incoming) -> Result<Bytes, String> {
    const LIMIT: usize = 1 << 20;
    match tokio::time::timeout(IDLE, Limited::new(body, LIMIT).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) => Err(root_cause(&*error)),
        Err(_) => Err("the connection is silent".into()),
    }
}

/// The innermost error says what a person can act on: "Connection refused", "failed to lookup address".
pub(super) fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_may_be_relative() {
        let base: Uri = "https://registry.example:5000/v2/a/blobs/x?y=1".parse().unwrap();
        let check = |location: &str, expected: &str| assert_eq!(resolve(&base, location).unwrap(), expected);
        check("/other?z=2", "https://registry.example:5000/other?z=2");
        check("https://cdn.example/b", "https://cdn.example/b");
    }

    #[test]
    fn credentials_are_for_tls_and_loopback() {
        let may = |uri: &str| may_see_credentials(&uri.parse().unwrap());
        assert!(
            may("https://a.example/token") && may("http://127.0.0.1:5000/token") && may("http://[::1]:5000/")
        );
        assert!(!may("http://a.example/token") && !may("http://10.0.0.1/"));
    }
}
