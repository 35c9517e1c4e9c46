//! The HTTP front: connections in, AWS requests out, answers back.
//! Invariant: no request reaches the API before its signature has been checked (in [`Auth::Strict`]), and whatever
//! a client sends, it gets an answer of its protocol that is never a 5xx for a fault of its own.

mod answer;
mod local;
mod request_id;
mod route;
mod serve;

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use flate2::read::GzDecoder;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Body;
use longshore_wire::sigv4::{self, Presented, Problem};
use longshore_wire::{Fault, OperationInfo, ServiceInfo, Timestamp, Value, protocol};

pub use local::{LocalAnswer, LocalRequest};
use route::Envelope;

/// What stands behind the front.
#[async_trait]
pub trait Api: Send + Sync + 'static {
    /// The services that are routed to, each with the operations that have shapes.
    fn services(&self) -> &[&'static ServiceInfo];

    fn now(&self) -> Timestamp;

    /// The secret of an access key, and of the session token that came with it.
    fn secret(&self, access_key: &str, session_token: Option<&str>) -> Option<String>;

    async fn call(
        &self,
        caller: Caller,
        service: &'static ServiceInfo,
        operation: &'static OperationInfo,
        input: Value,
    ) -> Result<Value, Fault>;

    /// Answers what is not AWS's, under `/_longshore/`; nothing where the path does not exist.
    async fn local(&self, _request: LocalRequest) -> Option<LocalAnswer> {
        None
    }
}

/// Who calls, as far as the request tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Nothing where the request is unsigned, which only [`Auth::Any`] lets through.
    pub access_key: Option<String>,
    pub session_token: Option<String>,
    pub region: String,
    pub request_id: String,
    pub peer: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Every request is signed with a known key.
    Strict,
    /// Signatures are read for their scope and not checked.
    Any,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections: usize,
    /// Bytes of a body, for every service but those that `body_of` names.
    pub body: usize,
    /// The time in which a body must have arrived.
    pub body_time: Duration,
    /// The time after which a connection without a request is closed.
    pub idle: Duration,
    /// The time that requests in flight are given when the server stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            body: 10 << 20,
            body_time: Duration::from_secs(60),
            idle: Duration::from_secs(75),
            drain: Duration::from_secs(20),
        }
    }
}

impl Limits {
    fn body_of(&self, service: Option<&ServiceInfo>) -> usize {
        match service.map(|service| service.name) {
            Some("ecs" | "sts" | "ec2") => self.body.min(1 << 20),
            _ => self.body,
        }
    }
}

pub struct Front {
    api: Arc<dyn Api>,
    auth: Auth,
    limits: Limits,
}

/// The region of requests that name none.
const REGION: &str = "us-east-1";

/// A request whose service is known as far as it can be, before its body is read.
struct Head {
    parts: Parts,
    presented: Option<Presented>,
    service: Option<&'static ServiceInfo>,
    envelope: Envelope,
    request_id: String,
    peer: SocketAddr,
}

impl Front {
    pub fn new(api: Arc<dyn Api>, auth: Auth, limits: Limits) -> Self {
        Self { api, auth, limits }
    }

    /// Answers one request.
    pub async fn answer<B>(&self, request: Request<B>, peer: SocketAddr) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let request_id = request_id::new();
        let (parts, body) = request.into_parts();
        if !answer::same_origin(&parts.headers) {
            return answer::cross_origin(&request_id);
        }
        if parts.uri.path().starts_with(local::PREFIX) {
            let body = match self.read(&parts, body, self.limits.body).await {
                Ok(body) => body,
                Err(fault) => return answer::refused(None, Envelope::Json, &fault, &request_id),
            };
            return local::answer(&self.api, parts, body, &request_id).await;
        }
        let envelope = route::envelope(&parts);
        let head = match self.head(parts, envelope, request_id.clone(), peer) {
            Ok(head) => head,
            Err(fault) => return answer::refused(None, envelope, &fault, &request_id),
        };
        let limit = self.limits.body_of(head.service);
        let body = match self.read(&head.parts, body, limit).await {
            Ok(body) => body,
            Err(fault) => return answer::refused(head.service, head.envelope, &fault, &request_id),
        };
        self.aws(head, body).await
    }

    fn head(
        &self,
        parts: Parts,
        envelope: Envelope,
        request_id: String,
        peer: SocketAddr,
    ) -> Result<Head, Fault> {
        let services = self.api.services();
        let presented = sigv4::present(&signed_part(&parts, &[]));
        let scope = presented.as_ref().ok().and_then(Option::as_ref).map(|presented| &presented.scope);
        let service = route::service(services, scope, &parts);
        let envelope = route::envelope_of(envelope, scope);
        let problem = |problem: Problem| match service {
            Some(service) => problem.fault(service.protocol),
            None => problem.fault(envelope.protocol()),
        };
        let presented = presented.map_err(problem)?;
        Ok(Head { parts, presented, service, envelope, request_id, peer })
    }

    async fn aws(&self, head: Head, body: Bytes) -> Response<Full<Bytes>> {
        let allowed = self.authenticate(&head, &body);
        // Nothing is unpacked for somebody who may not ask.
        let unpacked = match allowed {
            Ok(()) => unpack(&head.parts, body, self.limits.body_of(head.service)),
            Err(_) => Ok(body),
        };
        let body = match unpacked {
            Ok(body) => body,
            Err(fault) => return answer::refused(head.service, head.envelope, &fault, &head.request_id),
        };
        let form = route::form(&head.parts, head.service, head.envelope, &body);
        // An unsigned form names its service only by the version inside its body.
        let service =
            head.service.or_else(|| route::service_of_form(self.api.services(), &head, form.as_ref()));
        let refuse = |fault: &Fault| answer::refused(service, head.envelope, fault, &head.request_id);
        if let Err(problem) = allowed {
            let protocol = service.map_or(head.envelope.protocol(), |service| service.protocol);
            return refuse(&problem.fault(protocol));
        }
        let Some(service) = service else {
            let scope = head.presented.as_ref().map(|presented| presented.scope.service.as_str());
            return refuse(&route::unknown_service(scope));
        };
        let read = || {
            let operation = route::operation(service, &head.parts, form.as_ref())?;
            let input = match form {
                Some(form) => protocol::read_form(form, service, operation.input)?,
                None => protocol::read_json(&body, operation.input)?,
            };
            Ok((operation, input))
        };
        let (operation, input) = match read() {
            Ok(read) => read,
            Err(fault) => return refuse(&fault),
        };
        let caller = self.caller(&head);
        match self.call(caller, service, operation, input).await {
            Ok(output) => answer::output(service, operation, &output, &head.request_id),
            Err(fault) => {
                answer::log(service, operation, &fault, &head.request_id);
                refuse(&fault)
            }
        }
    }

    fn authenticate(&self, head: &Head, body: &[u8]) -> Result<(), Problem> {
        match (self.auth, &head.presented) {
            (Auth::Any, _) => Ok(()),
            (Auth::Strict, None) => Err(Problem::Missing),
            (Auth::Strict, Some(presented)) => {
                let secret = |key: &str, token: Option<&str>| self.api.secret(key, token);
                sigv4::verify(&signed_part(&head.parts, body), presented, self.api.now(), secret)
            }
        }
    }

    fn caller(&self, head: &Head) -> Caller {
        let presented = head.presented.as_ref();
        Caller {
            access_key: presented.map(|presented| presented.scope.access_key.clone()),
            session_token: presented.and_then(|presented| presented.session_token.clone()),
            region: presented.map_or(REGION, |presented| &presented.scope.region).to_owned(),
            request_id: head.request_id.clone(),
            peer: head.peer,
        }
    }

    /// Runs a handler to its end even when its client goes away, and survives its panics.
    async fn call(
        &self,
        caller: Caller,
        service: &'static ServiceInfo,
        operation: &'static OperationInfo,
        input: Value,
    ) -> Result<Value, Fault> {
        let api = Arc::clone(&self.api);
        let handler = tokio::spawn(async move { api.call(caller, service, operation, input).await });
        handler.await.unwrap_or_else(|error| {
            tracing::error!(service = service.name, operation = operation.name, %error, "a handler panicked");
            Err(Fault::server(
                "InternalFailure",
                "The request processing has failed because of an unknown error.",
            ))
        })
    }

    async fn read<B>(&self, parts: &Parts, body: B, limit: usize) -> Result<Bytes, Fault>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let announced = parts.headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        if announced.and_then(|length| length.parse::<u64>().ok()).is_some_and(|length| length > limit as u64)
        {
            return Err(too_large(limit));
        }
        match tokio::time::timeout(self.limits.body_time, Limited::new(body, limit).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(limit)),
            Ok(Err(_)) => Err(Fault::sender("IncompleteBody", "The request body ended before its length.")),
            Err(_) => {
                Err(Fault::sender("RequestTimeout", "The request body did not arrive in time.")
                    .with_status(408))
            }
        }
    }
}

fn too_large(limit: usize) -> Fault {
    let message = format!("The request body is larger than {limit} bytes.");
    Fault::sender("RequestEntityTooLarge", message).with_status(413)
}

/// The body as it was before its sender compressed it, which SDKs do with large ones of some operations.
fn unpack(parts: &Parts, body: Bytes, limit: usize) -> Result<Bytes, Fault> {
    let encoding = parts.headers.get(http::header::CONTENT_ENCODING).map(|value| value.as_bytes());
    match encoding {
        None | Some(b"" | b"identity") => Ok(body),
        Some(b"gzip") => {
            let mut plain = Vec::new();
            let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
            let read = GzDecoder::new(body.as_ref()).take(most).read_to_end(&mut plain);
            match read {
                Ok(length) if length > limit => Err(too_large(limit)),
                Ok(_) => Ok(plain.into()),
                Err(_) => Err(Fault::sender("SerializationException", "The request body is not valid gzip.")),
            }
        }
        Some(_) => {
            let message = "The Content-Encoding of the request is not supported: send it plain or as gzip.";
            Err(Fault::sender("SerializationException", message).with_status(415))
        }
    }
}

fn signed_part<'a>(parts: &'a Parts, body: &'a [u8]) -> sigv4::Request<'a> {
    sigv4::Request {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        headers: &parts.headers,
        authority: parts.uri.authority().map(http::uri::Authority::as_str),
        body,
    }
}
