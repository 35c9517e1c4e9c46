//! Connections to targets, in what their group speaks. Invariant: one that its target closed is not used again.

use crate::tls;
use http::header::HOST;
use http::uri::{Authority, Parts, PathAndQuery, Scheme, Uri};
use http::{Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use longshore_model::elb::{GroupProtocol, ProtocolVersion, TargetGroup};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};

/// What the head of an answer may take.
const HEAD: usize = 64 * 1024;
/// A shared connection that is silent for so long is asked whether it lives, for it would take all requests with it.
const SILENCE: Duration = Duration::from_secs(10);
const LIFE_SIGN: Duration = Duration::from_secs(5);

/// What the targets of a group speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speech {
    pub tls: bool,
    pub http2: bool,
}

impl Speech {
    pub fn of(group: &TargetGroup) -> Self {
        Self {
            tls: matches!(group.protocol, GroupProtocol::Https | GroupProtocol::Tls),
            http2: group.protocol.is_application() && group.protocol_version != ProtocolVersion::Http1,
        }
    }

    /// The request as it is written: HTTP/2 has the host in its target.
    pub fn phrase<B>(self, request: &mut Request<B>) {
        if !self.http2 {
            return;
        }
        let host = request.headers_mut().remove(HOST);
        let mut parts = Parts::default();
        parts.scheme = Some(if self.tls { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let path = request.uri().path_and_query().cloned();
        parts.path_and_query = Some(path.unwrap_or(PathAndQuery::from_static("/")));
        // Without a host that is one the request stays as it is, and is refused when it is sent.
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        *request.version_mut() = Version::HTTP_2;
    }
}

/// A connection that requests are sent on.
pub enum Sender<B> {
    Http1(http1::SendRequest<B>),
    /// Many requests at a time.
    Http2(http2::SendRequest<B>),
}

impl<B: Body + Unpin + Send + 'static> Sender<B>
where
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Begins to speak on a connection; it ends with its last sender.
    pub async fn begin(stream: TcpStream, speech: Speech) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        match speech.tls {
            true => Self::speak(tls::to_target(stream, speech).await?, speech).await,
            false => Self::speak(stream, speech).await,
        }
    }

    async fn speak(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        speech: Speech,
    ) -> io::Result<Self> {
        let stream = TokioIo::new(stream);
        let mut sender = if speech.http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_header_list_size(HEAD as u32)
                .keep_alive_interval(SILENCE)
                .keep_alive_timeout(LIFE_SIGN)
                .adaptive_window(true);
            let (sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
            tokio::spawn(async move { broke(connection.await) });
            Self::Http2(sender)
        } else {
            let mut builder = http1::Builder::new();
            builder.max_buf_size(HEAD);
            let (sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
            tokio::spawn(async move { broke(connection.with_upgrades().await) });
            Self::Http1(sender)
        };
        sender.ready().await.map_err(io::Error::other)?;
        Ok(sender)
    }

    pub async fn ready(&mut self) -> hyper::Result<()> {
        match self {
            Self::Http1(sender) => sender.ready().await,
            Self::Http2(sender) => sender.ready().await,
        }
    }

    pub fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }

    /// A second sender of the same connection, where it takes more than one request at a time.
    pub fn share(&self) -> Option<Self> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(sender) => Some(Self::Http2(sender.clone())),
        }
    }

    /// Gives the request back where nothing of it was sent.
    pub async fn send(
        &mut self,
        request: Request<B>,
    ) -> Result<Response<Incoming>, TrySendError<Request<B>>> {
        match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(sender) => sender.try_send_request(request).await,
        }
    }
}

fn broke(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection to a target broke");
    }
}

/// From one of the load balancer's addresses, which is what the security groups of targets know.
pub async fn connect(own: Ipv4Addr, target: SocketAddrV4) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddrV4::new(own, 0).into())?;
    socket.connect(target.into()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http2_has_the_host_in_its_target() {
        let mut request = Request::get("/a?b").header(HOST, "example.com:81").body(()).unwrap();
        Speech { tls: false, http2: true }.phrase(&mut request);
        assert_eq!(request.uri(), "http://example.com:81/a?b");
        assert!(!request.headers().contains_key(HOST));
        let mut request = Request::get("/a").header(HOST, "example.com").body(()).unwrap();
        Speech::default().phrase(&mut request);
        assert_eq!((request.uri().to_string().as_str(), request.headers().len()), ("/a", 1));
    }
}
