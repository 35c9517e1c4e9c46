//! The machine's own resolvers, which know all other names. Invariant: they are never asked by way of ourselves.

use super::serve::framed;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// As many as a machine's `resolv.conf` can have.
const SERVERS: usize = 3;
/// How long one is waited for. Clients wait for five seconds and ask again then.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long the machine's file is taken to be as it was.
const FRESH: Duration = Duration::from_secs(2);
/// Requests that others are asked at a time: in all, and for one client.
const AT_ONCE: usize = 1024;
const OF_ONE: usize = 128;
/// The longest message.
const LONGEST: usize = 65_535;
/// The length of a message's header, at whose beginning its id is.
const HEADER: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

pub struct Upstream {
    servers: Box<dyn Fn() -> Vec<SocketAddr> + Send + Sync>,
    read: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
    /// The addresses of our own resolvers.
    own: Mutex<BTreeSet<Ipv4Addr>>,
    places: Semaphore,
    clients: Mutex<BTreeMap<Ipv4Addr, usize>>,
}

impl Upstream {
    pub fn of_this_machine() -> Self {
        Self::new(|| servers_in(&std::fs::read_to_string(Path::new("/etc/resolv.conf")).unwrap_or_default()))
    }

    pub fn new(servers: impl Fn() -> Vec<SocketAddr> + Send + Sync + 'static) -> Self {
        Self {
            servers: Box::new(servers),
            read: Mutex::default(),
            own: Mutex::default(),
            places: Semaphore::new(AT_ONCE),
            clients: Mutex::default(),
        }
    }

    /// The machine may have ours among its own.
    pub fn leave_out(&self, own: &BTreeSet<Ipv4Addr>) {
        lock(&self.own).clone_from(own);
    }

    /// The first response that one of them gives; `None` where none does, or too much is asked already.
    pub async fn ask(&self, request: &[u8], client: Ipv4Addr, transport: Transport) -> Option<Vec<u8>> {
        let _of_client = Turn::take(&self.clients, client)?;
        let _place = self.places.try_acquire().ok()?;
        for server in self.servers() {
            let asked = async {
                match transport {
                    Transport::Udp => by_udp(request, server).await,
                    Transport::Tcp => by_tcp(request, server).await,
                }
            };
            match timeout(PATIENCE, asked).await {
                Ok(Ok(response)) => return Some(response),
                Ok(Err(error)) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, %server, "a resolver was not asked");
                }
                Err(_) => tracing::debug!(%server, "a resolver does not answer"),
            }
        }
        None
    }

    /// Read anew now and then: a laptop's resolvers change with its network.
    fn servers(&self) -> Vec<SocketAddr> {
        let mut read = lock(&self.read);
        let servers = match &*read {
            Some((at, servers)) if at.elapsed() < FRESH => servers.clone(),
            _ => {
                let servers = (self.servers)();
                *read = Some((now(), servers.clone()));
                servers
            }
        };
        drop(read);
        let own = lock(&self.own);
        let is_own =
            |server: &SocketAddr| matches!(server.ip(), IpAddr::V4(address) if own.contains(&address));
        servers.into_iter().filter(|server| !is_own(server)).take(SERVERS).collect()
    }
}

#[allow(clippy::disallowed_methods, reason = "nothing is decided by it but when a file is read again")]
fn now() -> Instant {
    Instant::now()
}

/// One of a client's requests, as long as it is under way.
struct Turn<'a> {
    clients: &'a Mutex<BTreeMap<Ipv4Addr, usize>>,
    client: Ipv4Addr,
}

impl<'a> Turn<'a> {
    fn take(clients: &'a Mutex<BTreeMap<Ipv4Addr, usize>>, client: Ipv4Addr) -> Option<Self> {
        let mut counts = lock(clients);
        let count = counts.entry(client).or_default();
        if *count >= OF_ONE {
            return None;
        }
        *count += 1;
        Some(Self { clients, client })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut counts = lock(self.clients);
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in it is whole at every instant.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From a socket, and under an id, that nobody else can guess.
async fn by_udp(request: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any = match server {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let own = Exchange::of(request)?;
    socket.send(&own.request).await?;
    let mut buffer = vec![0; LONGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(response) = buffer.get(..length).and_then(|response| own.accept(response)) {
            return Ok(response);
        }
    }
}

async fn by_tcp(request: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let own = Exchange::of(request)?;
    stream.write_all(&framed(&own.request)?).await?;
    let mut response = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut response).await?;
    own.accept(&response).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// A request under an id of our own.
struct Exchange {
    request: Vec<u8>,
    id: [u8; 2],
    of_client: [u8; 2],
}

impl Exchange {
    fn of(request: &[u8]) -> io::Result<Self> {
        let mut id = [0; 2];
        getrandom::fill(&mut id).map_err(|error| io::Error::other(error.to_string()))?;
        let mut request = request.to_vec();
        let place = request.first_chunk_mut::<2>().ok_or(io::ErrorKind::InvalidInput)?;
        let of_client = std::mem::replace(place, id);
        Ok(Self { request, id, of_client })
    }

    /// The response under the client's id; `None` for what is none to this request.
    fn accept(&self, response: &[u8]) -> Option<Vec<u8>> {
        let is_response = response.get(2)? & 0x80 != 0;
        if response.len() < HEADER || response.first_chunk::<2>()? != &self.id || !is_response {
            return None;
        }
        let mut response = response.to_vec();
        *response.first_chunk_mut::<2>()? = self.of_client;
        Some(response)
    }
}

/// The name servers of a `resolv.conf`.
fn servers_in(file: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = (words.next() == Some("nameserver")).then(|| words.next())??;
        let address: IpAddr = address.parse().ok()?;
        Some(SocketAddr::from((address, super::PORT)))
    };
    file.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_from_the_machines_file() {
        let file = "# a comment\nsearch lan\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver ::1 x\noptions a\n";
        let expected: [SocketAddr; 2] = ["127.0.0.53:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        assert_eq!(servers_in(file), expected);
        assert_eq!(servers_in(""), []);
    }

    #[test]
    fn one_client_asks_for_so_much_and_no_more() {
        let clients = Mutex::default();
        let (one, other) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let turns: Vec<_> = (0..OF_ONE).map(|_| Turn::take(&clients, one)).collect();
        assert!(turns.iter().all(Option::is_some) && Turn::take(&clients, one).is_none());
        assert!(Turn::take(&clients, other).is_some());
        drop(turns);
        assert!(Turn::take(&clients, one).is_some());
        assert!(lock(&clients).is_empty());
    }
}
