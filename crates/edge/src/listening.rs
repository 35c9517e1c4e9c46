//! The sockets of listeners. Invariant: closing one ends its connections after the answers that are under way.

use crate::http::{self, Door, Ends};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;
/// After an accept that failed because of the process, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// A socket that accepts connections until this is dropped.
pub struct Listening {
    stop: watch::Sender<bool>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl Listening {
    /// Starts to accept connections for a door.
    pub fn open(address: Ipv4Addr, port: u16, door: Arc<Door>) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddrV4::new(address, port).into())?;
        let listener = socket.listen(BACKLOG)?;
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(accept(listener, address, door, stopped));
        Ok(Self { stop })
    }
}

async fn accept(listener: TcpListener, own: Ipv4Addr, door: Arc<Door>, mut stopped: watch::Receiver<bool>) {
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
                tokio::spawn(http::serve(Arc::clone(&door), stream, ends, stopped.clone()));
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a connection was not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
