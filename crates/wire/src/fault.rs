//! The neutral API error that every service's errors become before a protocol writes them.

use crate::Map;

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Fault {
    pub code: String,
    pub message: String,
    /// The HTTP status.
    pub status: u16,
    /// Whether the request was wrong, rather than the server.
    pub sender: bool,
    /// Further members of the error's shape.
    pub extra: Map,
}

impl Fault {
    /// A fault of the sender, with status 400.
    pub fn sender(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), status: 400, sender: true, extra: Map::new() }
    }

    /// A fault of the server, with status 500. The message is all that a client learns of it.
    pub fn server(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), status: 500, sender: false, extra: Map::new() }
    }

    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    #[must_use]
    pub fn with(mut self, name: &'static str, value: crate::Value) -> Self {
        self.extra.insert(name, value);
        self
    }
}
