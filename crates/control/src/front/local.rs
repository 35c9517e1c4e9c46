//! What is Longshore's own rather than AWS's: `/_longshore/…`.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response};
use http_body_util::Full;

use super::{Api, answer};

pub(super) const PREFIX: &str = "/_longshore/";
const HEALTH: &str = "/_longshore/health";

#[derive(Clone, Debug)]
pub struct LocalRequest {
    pub method: Method,
    /// Whole: `/_longshore/reset`.
    pub path: String,
    pub query: String,
    pub body: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalAnswer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Bytes,
}

impl LocalAnswer {
    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, content_type: "application/json", body: body.into() }
    }

    pub fn text(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }
}

pub(super) async fn answer(
    api: &Arc<dyn Api>,
    parts: Parts,
    body: Bytes,
    request_id: &str,
) -> Response<Full<Bytes>> {
    let answer = if parts.uri.path() == HEALTH && parts.method == Method::GET {
        LocalAnswer::json(200, "{\"status\":\"ok\"}")
    } else {
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let path = parts.uri.path().to_owned();
        let request = LocalRequest { method: parts.method, path, query, body };
        let api = Arc::clone(api);
        match tokio::spawn(async move { api.local(request).await }).await {
            Ok(Some(answer)) => answer,
            Ok(None) => LocalAnswer::json(404, "{\"message\":\"There is nothing here.\"}"),
            Err(error) => {
                tracing::error!(%error, "a handler panicked");
                LocalAnswer::json(500, "{\"message\":\"The request failed.\"}")
            }
        }
    };
    answer::plain(answer.status, answer.content_type, answer.body, request_id)
}
