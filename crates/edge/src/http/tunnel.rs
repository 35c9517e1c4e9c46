//! Connections that speak another protocol after their first answer, such as WebSocket.

use super::body::Payload;
use super::headers;
use crate::peer::Busy;
use http::Response;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

/// Passes the answer on, and after it whatever comes from either end until one closes or the target leaves.
pub fn open(client: OnUpgrade, mut response: Response<Incoming>, busy: Busy) -> Response<Payload> {
    let target = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        match tokio::try_join!(client, target) {
            Ok((client, target)) => pass(client, target, busy).await,
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "an upgrade did not come about");
            }
        }
    });
    let (mut head, _) = response.into_parts();
    headers::strip(&mut head.headers, true);
    Response::from_parts(head, Payload::Own(None))
}

async fn pass(client: Upgraded, target: Upgraded, busy: Busy) {
    let (mut client, mut target) = (TokioIo::new(client), TokioIo::new(target));
    tokio::select! {
        // How it ended, the ends know themselves.
        _ = tokio::io::copy_bidirectional(&mut client, &mut target) => {}
        () = busy.peer().until_gone() => {}
    }
}
