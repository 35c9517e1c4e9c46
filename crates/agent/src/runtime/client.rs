//! The connection to containerd. Invariant: every call of one instance goes over one HTTP/2 channel, carries its
//! namespace, and survives a restart of containerd: the channel connects again at the next call.

use std::path::{Path, PathBuf};

use containerd_client::services::v1::{
    containers_client::ContainersClient, content_client::ContentClient, diff_client::DiffClient,
    events_client::EventsClient, images_client::ImagesClient, introspection_client::IntrospectionClient,
    leases_client::LeasesClient, namespaces_client::NamespacesClient,
    snapshots::snapshots_client::SnapshotsClient, tasks_client::TasksClient, version_client::VersionClient,
};
use containerd_client::tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint, Uri},
};
use hyper_util::rt::TokioIo;

use super::Error;

/// What gRPC servers take in one message; containerd's own limit.
const MESSAGE_LIMIT: usize = 16 << 20;

#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    scope: Scope,
}

/// Puts the namespace, and the lease that new objects belong to, on every call.
#[derive(Clone)]
pub(crate) struct Scope {
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Scope {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        if let Some(lease) = &self.lease {
            request.metadata_mut().insert("containerd-lease", lease.clone());
        }
        Ok(request)
    }
}

pub(crate) type Scoped = InterceptedService<Channel, Scope>;

impl Client {
    /// Does not connect yet: the first call does.
    pub fn new(address: &Path, namespace: &str) -> Result<Self, Error> {
        let namespace = ascii(namespace)?;
        Ok(Self { channel: channel(address.to_owned()), scope: Scope { namespace, lease: None } })
    }

    /// The same connection; what it creates belongs to `lease`.
    pub fn leased(&self, lease: &str) -> Result<Self, Error> {
        let scope = Scope { namespace: self.scope.namespace.clone(), lease: Some(ascii(lease)?) };
        Ok(Self { channel: self.channel.clone(), scope })
    }

    pub fn tasks(&self) -> TasksClient<Scoped> {
        TasksClient::with_interceptor(self.channel.clone(), self.scope.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
    }

    pub fn containers(&self) -> ContainersClient<Scoped> {
        ContainersClient::with_interceptor(self.channel.clone(), self.scope.clone())
    }

    pub fn snapshots(&self) -> SnapshotsClient<Scoped> {
        SnapshotsClient::with_interceptor(self.channel.clone(), self.scope.clone())
    }

    pub fn content(&self) -> ContentClient<Scoped> {
        ContentClient::with_interceptor(self.channel.clone(), self.scope.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
    }

    pub fn diff(&self) -> DiffClient<Scoped> {
        DiffClient::with_interceptor(self.channel.clone(), self.scope.clone())
    }

    pub fn images(&self) -> ImagesClient<Scoped> {
        ImagesClient::with_interceptor(self.channel.clone(), self.scope.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
    }

    pub fn leases(&self) -> LeasesClient<Scoped> {
        LeasesClient::with_interceptor(self.channel.clone(), self.scope.clone())
    }

    pub fn events(&self) -> EventsClient<Scoped> {
        EventsClient::with_interceptor(self.channel.clone(), self.scope.clone())
    }

    pub fn namespaces(&self) -> NamespacesClient<Scoped> {
        NamespacesClient::with_interceptor(self.channel.clone(), self.scope.clone())
    }

    pub fn introspection(&self) -> IntrospectionClient<Scoped> {
        IntrospectionClient::with_interceptor(self.channel.clone(), self.scope.clone())
    }

    pub fn version(&self) -> VersionClient<Scoped> {
        VersionClient::with_interceptor(self.channel.clone(), self.scope.clone())
    }
}

/// Says what was attempted when a call fails.
pub(crate) fn failed(attempted: &'static str) -> impl Fn(Status) -> Error {
    move |status| {
        let message = status.message().to_owned();
        if is_unavailable(&status) {
            Error::Unavailable { attempted, message }
        } else {
            Error::Failed { attempted, message }
        }
    }
}

/// Success too when there was nothing to do it to.
pub(crate) fn unless_missing<T>(result: Result<T, Status>, attempted: &'static str) -> Result<(), Error> {
    match result {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(failed(attempted)(status)),
    }
}

/// Success too when it was there already.
pub(crate) fn unless_present<T>(result: Result<T, Status>, attempted: &'static str) -> Result<(), Error> {
    match result {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::AlreadyExists => Ok(()),
        Err(status) => Err(failed(attempted)(status)),
    }
}

pub(crate) fn is_disk_full(message: &str) -> bool {
    message.contains("no space left on device")
}

/// A status that containerd sent has no source; one that tonic made for a broken connection has.
fn is_unavailable(status: &Status) -> bool {
    status.code() == Code::Unavailable || std::error::Error::source(status).is_some()
}

fn channel(address: PathBuf) -> Channel {
    let connector = tower_service_fn(address);
    Endpoint::from_static("http://containerd.invalid").connect_with_connector_lazy(connector)
}

/// The URI above is never looked up: every connection goes to the socket.
fn tower_service_fn(
    address: PathBuf,
) -> impl tower::Service<
    Uri,
    Response = TokioIo<tokio::net::UnixStream>,
    Error = std::io::Error,
    Future: Send + 'static,
> + Send
+ 'static {
    tower::service_fn(move |_: Uri| {
        let address = address.clone();
        async move { tokio::net::UnixStream::connect(address).await.map(TokioIo::new) }
    })
}

fn ascii(text: &str) -> Result<MetadataValue<Ascii>, Error> {
    text.parse().map_err(|_| Error::Failed {
        attempted: "address a namespace of containerd",
        message: format!("`{text}` cannot be sent in a header"),
    })
}
