//! The sockets of a resolver. Invariant: a client that is slow, or that asks for much, holds up no other.

use super::{Names, Transport};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// The longest request that is read from UDP; longer ones are none that a resolver is asked.
const LONGEST: usize = 4096;
/// Requests by UDP that are worked on at the same time; those that come then are dropped, and asked again.
const AT_ONCE: usize = 4096;
/// Connections at the same time; further ones wait.
const CONNECTIONS: usize = 256;
const BACKLOG: u32 = 128;
/// How long a connection may be silent, and how long one may take to take an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a failure that is likely to come again.
const PAUSE: Duration = Duration::from_millis(50);

/// The sockets of one address, until this is dropped.
pub struct Open {
    tasks: [AbortHandle; 2],
}

impl Drop for Open {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Open {
    pub async fn at(address: Ipv4Addr, port: u16, names: &Arc<Names>) -> io::Result<Self> {
        let place = SocketAddr::from((address, port));
        let socket = UdpSocket::bind(place).await?;
        let listening = TcpSocket::new_v4()?;
        listening.set_reuseaddr(true)?;
        listening.bind(place)?;
        let listener = listening.listen(BACKLOG)?;
        let by_udp = tokio::spawn(udp(socket, address, Arc::clone(names)));
        let by_tcp = tokio::spawn(tcp(listener, address, Arc::clone(names)));
        Ok(Self { tasks: [by_udp.abort_handle(), by_tcp.abort_handle()] })
    }
}

pub async fn udp(socket: UdpSocket, own: Ipv4Addr, names: Arc<Names>) {
    let socket = Arc::new(socket);
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut buffer = vec![0; LONGEST];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // Such as for a client that was gone before its answer.
                tracing::debug!(error = &error as &dyn std::error::Error, "a request was not received");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (IpAddr::V4(address), Some(request)) = (client.ip(), buffer.get(..length)) else { continue };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (socket, names, request) = (Arc::clone(&socket), Arc::clone(&names), request.to_vec());
        tokio::spawn(async move {
            let _place = place;
            if let Some(response) = names.respond(&request, address, own, Transport::Udp).await {
                // Who does not get it asks again.
                let _ = socket.send_to(&response, client).await;
            }
        });
    }
}

pub async fn tcp(listener: TcpListener, own: Ipv4Addr, names: Arc<Names>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, client)) => {
                let IpAddr::V4(client) = client.ip() else { continue };
                let names = Arc::clone(&names);
                tokio::spawn(async move {
                    let _place = place;
                    // A connection that breaks is its client's to open again.
                    let _ = converse(stream, client, own, &names).await;
                });
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a connection was not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// One request after the other, each with its length before it.
async fn converse(mut stream: TcpStream, client: Ipv4Addr, own: Ipv4Addr, names: &Names) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let length = timeout(PATIENCE, stream.read_u16()).await??;
        let mut request = vec![0; usize::from(length)];
        timeout(PATIENCE, stream.read_exact(&mut request)).await??;
        let Some(response) = names.respond(&request, client, own, Transport::Tcp).await else {
            return Ok(());
        };
        timeout(PATIENCE, stream.write_all(&framed(&response)?)).await??;
    }
}

/// A message with its length before it.
pub fn framed(message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    Ok([length.to_be_bytes().as_slice(), message].concat())
}
