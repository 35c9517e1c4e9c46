//! Sockets that are listened on. Invariant: an address that somebody else has is an error that names it.

use crate::Outcome;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;

/// How often an address in use is tried, and how long it waits in between: for about a second.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// A server that was killed while it started containerd leaves its sockets, for an instant, to the process that is
/// about to become containerd: who starts at once must not fail for it.
pub async fn on(address: SocketAddr) -> Outcome<TcpListener> {
    let mut tried = 0;
    loop {
        tried += 1;
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse && tried < TRIES => {
                tokio::time::sleep(PAUSE).await;
            }
            bound => return Ok(bound.map_err(|error| format!("listen on {address}: {error}"))?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_gets_free_is_waited_for_and_another_s_is_named() {
        let before = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = before.local_addr().unwrap();
        let (listening, ()) = tokio::join!(on(address), async {
            tokio::time::sleep(PAUSE * 3).await;
            drop(before);
        });
        let listener = listening.unwrap();
        let refused = on(listener.local_addr().unwrap()).await.unwrap_err().to_string();
        assert!(refused.starts_with(&format!("listen on {address}: ")), "{refused}");
    }
}
