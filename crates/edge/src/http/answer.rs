//! What the load balancer answers by itself.
//!
//! Follows <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-troubleshooting.html>.

use super::body::Payload;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, LOCATION, SERVER};
use http::{Response, StatusCode};
use longshore_model::elb::FixedResponse;

/// What load balancers call themselves.
const NAME: HeaderValue = HeaderValue::from_static("awselb/2.0");

/// No target could be asked.
pub const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

/// The page of an error.
pub fn failure(status: StatusCode) -> Response<Payload> {
    // AWS words this one as web servers do, and not as HTTP does.
    let reason = match status {
        UNAVAILABLE => "Service Temporarily Unavailable",
        StatusCode::GATEWAY_TIMEOUT => "Gateway Time-out",
        other => other.canonical_reason().unwrap_or_default(),
    };
    let title = format!("{} {reason}", status.as_u16());
    let page = format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n</body>\r\n</html>\r\n"
    );
    own(status, Some("text/html"), page.into())
}

pub fn fixed(response: &FixedResponse) -> Response<Payload> {
    let status = StatusCode::from_u16(response.status).unwrap_or(UNAVAILABLE);
    let body = response.body.clone().unwrap_or_default();
    own(status, response.content_type.as_deref(), body.into())
}

/// A location that cannot be written into a header was asked for by a request that makes no sense.
pub fn redirect(status: u16, location: &str) -> Response<Payload> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FOUND);
    match HeaderValue::from_str(location) {
        Ok(location) => {
            let mut response = failure(status);
            response.headers_mut().insert(LOCATION, location);
            response
        }
        Err(_) => failure(StatusCode::BAD_REQUEST),
    }
}

fn own(status: StatusCode, content_type: Option<&str>, body: Bytes) -> Response<Payload> {
    let body = if body.is_empty() { None } else { Some(body) };
    let mut response = Response::new(Payload::Own(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(SERVER, NAME);
    if let Some(content_type) = content_type.and_then(|value| HeaderValue::from_str(value).ok()) {
        headers.insert(CONTENT_TYPE, content_type);
    }
    response
}
