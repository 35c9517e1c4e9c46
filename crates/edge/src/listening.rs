//! The sockets of listeners. Invariant: closing one ends its connections after the answers that are under way.

use crate::{http, stream};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;
/// After an accept that failed because of the process, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// The two ends of a load balancer's part of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub client: IpAddr,
    /// The load balancer's own.
    pub own: Ipv4Addr,
}

/// What the connections of a socket meet.
#[derive(Clone)]
pub enum Door {
    Http(Arc<http::Door>),
    Stream(Arc<stream::Door>),
}

impl Door {
    /// Connections that come from now on, and requests, meet what another door has. `false` where that is of another kind.
    fn become_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Http(own), Self::Http(other)) => own.routes.store(other.routes.load_full()),
            (Self::Stream(own), Self::Stream(other)) => own.route.store(other.route.load_full()),
            _ => return false,
        }
        true
    }

    async fn serve(self, stream: TcpStream, ends: Ends, stop: watch::Receiver<bool>) {
        match self {
            Self::Http(door) => http::serve(door, stream, ends, stop).await,
            Self::Stream(door) => stream::serve(door, stream, ends).await,
        }
    }
}

/// A socket that accepts connections until this is dropped.
pub struct Listening {
    door: Door,
    stop: watch::Sender<bool>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl Listening {
    /// Starts to accept connections for a door.
    pub fn open(address: Ipv4Addr, port: u16, door: Door) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddrV4::new(address, port).into())?;
        let listener = socket.listen(BACKLOG)?;
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(accept(listener, address, door.clone(), stopped));
        Ok(Self { door, stop })
    }

    /// `false` where it cannot be.
    pub fn change(&self, door: &Door) -> bool {
        self.door.become_like(door)
    }
}

async fn accept(listener: TcpListener, own: Ipv4Addr, door: Door, mut stopped: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        match accepted {
            Ok((stream, client)) => {
                // Small answers would wait for those before them to be acknowledged.
                let _ = stream.set_nodelay(true);
                let ends = Ends { client: SocketAddr::ip(&client), own };
                tokio::spawn(door.clone().serve(stream, ends, stopped.clone()));
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a connection was not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
