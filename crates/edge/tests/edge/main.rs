//! What the clients and the targets of load balancers see, over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod http;
mod tls;
