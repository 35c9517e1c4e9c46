//! Registries over HTTP. Invariant: credentials go to the host that they are for and to the token server that it names, over
//! TLS or loopback only; never to a mirror, never along a redirect to another host.

mod auth;
mod exchange;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::{
    HeaderMap, Method, StatusCode,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RANGE},
};
use http_body_util::BodyStream;
use hyper::body::Incoming;

use self::exchange::{Exchange, IDLE, Target};
use super::{
    Credentials, ImageRef, PullError,
    manifest::{ACCEPTED, DOCUMENT_LIMIT, Descriptor},
    reference::is_digest,
    store::{ByteStream, Source, collect, verified},
};

/// Connections and tokens, shared by all pulls.
pub(super) struct Registries {
    exchange: Exchange,
    mirrors: BTreeMap<String, Vec<String>>,
}

/// One repository, as one user.
#[derive(Clone)]
pub(super) struct Repository {
    registries: Arc<Registries>,
    reference: ImageRef,
    targets: Vec<Target>,
}

const DIGEST_HEADER: HeaderName = HeaderName::from_static("docker-content-digest");

impl Registries {
    pub fn new(mirrors: BTreeMap<String, Vec<String>>) -> Result<Self, rustls::Error> {
        Ok(Self { exchange: Exchange::new()?, mirrors })
    }

    pub fn repository(
        self: &Arc<Self>,
        reference: &ImageRef,
        credentials: Option<&Credentials>,
    ) -> Repository {
        let repository = &reference.repository;
        let mirrors = self.mirrors.get(&reference.host).into_iter().flatten().map(|base| Target {
            base: base.trim_end_matches('/').to_owned(),
            repository: repository.clone(),
            credentials: None,
        });
        let origin = Target {
            base: origin(reference),
            repository: repository.clone(),
            credentials: credentials.cloned(),
        };
        let targets = mirrors.chain([origin]).collect();
        Repository { registries: Arc::clone(self), reference: reference.clone(), targets }
    }
}

/// Docker Hub's API is not where its name points.
fn origin(reference: &ImageRef) -> String {
    match reference.host.as_str() {
        "docker.io" => "https://registry-1.docker.io".into(),
        host if reference.is_loopback() => format!("http://{host}"),
        host => format!("https://{host}"),
    }
}

impl Repository {
    /// What the reference names now; its content too when the registry would not say the digest alone.
    pub async fn resolve(&self) -> Result<(Descriptor, Option<Bytes>), PullError> {
        let path = format!("manifests/{}", self.reference.version());
        let answer = match self.ask(&Method::HEAD, &path, &accept()).await {
            // Not every registry knows HEAD.
            Err(PullError::Registry { .. }) => return self.resolve_by_content(&path).await,
            other => other?,
        };
        let header = |name| answer.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let digest = self.reference.digest.as_deref().or(header(DIGEST_HEADER)).filter(|d| is_digest(d));
        let size = header(CONTENT_LENGTH).and_then(|length| length.parse().ok()).filter(|size| *size > 0);
        if let (Some(digest), Some(size)) = (digest, size) {
            let media_type = header(CONTENT_TYPE).unwrap_or_default().to_owned();
            return Ok((
                Descriptor { media_type, digest: digest.into(), size, ..Descriptor::default() },
                None,
            ));
        }
        self.resolve_by_content(&path).await
    }

    async fn resolve_by_content(&self, path: &str) -> Result<(Descriptor, Option<Bytes>), PullError> {
        let bytes = self.document(path).await?;
        let root = Descriptor::of(&bytes);
        match &self.reference.digest {
            Some(wanted) => verified(&Descriptor { digest: wanted.clone(), ..root.clone() }, bytes.clone())?,
            None => bytes.clone(),
        };
        Ok((root, Some(bytes)))
    }

    async fn document(&self, path: &str) -> Result<Bytes, PullError> {
        let answer = self.ask(&Method::GET, path, &accept()).await?;
        collect(self.body(answer.into_body(), 0), DOCUMENT_LIMIT).await
    }

    /// The first of the mirrors and the origin that has it. An answer counts more than a silence, so that with a mirror
    /// that works, "not found" is not hidden by an origin out of reach.
    async fn ask(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<Answer, PullError> {
        let mut failure: Option<PullError> = None;
        for target in &self.targets {
            match self.ask_one(target, method, path, headers).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    tracing::debug!(base = target.base, path, %error, "a registry did not serve");
                    let keep = matches!(error, PullError::Unreachable { .. }) && failure.is_some();
                    failure = if keep { failure } else { Some(error) };
                }
            }
        }
        Err(failure.unwrap_or_else(|| PullError::NotFound { reference: self.reference.clone() }))
    }

    async fn ask_one(
        &self,
        target: &Target,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Answer, PullError> {
        let answer = self.registries.exchange.send(target, method, path, headers).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let host = target.host().to_owned();
        let message = error_message(answer.into_body()).await;
        let reference = self.reference.clone();
        Err(match status {
            StatusCode::NOT_FOUND => PullError::NotFound { reference },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                PullError::Denied { reference, message: message.unwrap_or_else(|| status.to_string()) }
            }
            _ => PullError::Registry { host, message: message.unwrap_or_else(|| status.to_string()) },
        })
    }

    /// The body without its first `skip` bytes; a silent connection is an error.
    fn body(&self, body: Incoming, skip: u64) -> ByteStream {
        let host = self.reference.host.clone();
        let error = move |message: String| PullError::Unreachable { host: host.clone(), message };
        let frames = stream::unfold((BodyStream::new(body), false), |(mut body, failed)| async move {
            if failed {
                return None;
            }
            let next = match tokio::time::timeout(IDLE, body.next()).await {
                Ok(next) => next?.map_err(|e| exchange::root_cause(&e)),
                Err(_) => Err("the connection is silent".to_owned()),
            };
            let failed = next.is_err();
            Some((next, (body, failed)))
        });
        let bytes = frames.map_err(error).try_filter_map(|frame| async move { Ok(frame.into_data().ok()) });
        let mut left = skip;
        bytes
            .map_ok(move |mut bytes| {
                let cut = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                left -= cut as u64;
                bytes.split_off(cut)
            })
            .boxed()
    }
}

#[async_trait::async_trait]
impl Source for Repository {
    async fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes, PullError> {
        self.document(&format!("manifests/{}", descriptor.digest)).await
    }

    async fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<ByteStream, PullError> {
        let mut headers = HeaderMap::new();
        if offset > 0
            && let Ok(range) = format!("bytes={offset}-").parse()
        {
            headers.insert(RANGE, range);
        }
        let answer = self.ask(&Method::GET, &format!("blobs/{}", descriptor.digest), &headers).await?;
        // A registry may ignore the range and send all.
        let skip = if answer.status() == StatusCode::PARTIAL_CONTENT { 0 } else { offset };
        Ok(self.body(answer.into_body(), skip))
    }
}

type Answer = http::Response<Incoming>;

fn accept() -> HeaderMap {
    [(ACCEPT, HeaderValue::from_static(ACCEPTED))].into_iter().collect()
}

/// `{"errors":[{"code":…,"message":…}]}`
async fn error_message(body: Incoming) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Body {
        errors: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let bytes = exchange::small_body(body).await.ok()?;
    let first = serde_json::from_slice::<Body>(&bytes).ok()?.errors.into_iter().next()?;
    Some(format!("{}: {}", first.code.to_lowercase(), first.message))
}
