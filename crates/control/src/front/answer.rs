//! Answers as HTTP responses.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use http::{Response, StatusCode};
use http_body_util::Full;
use longshore_wire::protocol::{self, Answer};
use longshore_wire::{Fault, OperationInfo, ServiceInfo, Value};

use super::route::Envelope;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const QUERY_ERROR: HeaderName = HeaderName::from_static("x-amzn-query-error");
/// Where clients of the REST protocols look for an error's code.
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

pub(super) fn output(
    service: &ServiceInfo,
    operation: &OperationInfo,
    output: &Value,
    request_id: &str,
) -> Response<Full<Bytes>> {
    response(protocol::answer(service, operation, output, request_id), request_id)
}

pub(super) fn refused(
    service: Option<&ServiceInfo>,
    envelope: Envelope,
    fault: &Fault,
    request_id: &str,
) -> Response<Full<Bytes>> {
    let Some(service) = service else {
        let answer = protocol::refusal_in(envelope.protocol(), "", fault, request_id);
        let mut response = response(answer, request_id);
        insert(&mut response, ERROR_TYPE, &fault.code);
        return response;
    };
    response(protocol::refusal(service, fault, request_id), request_id)
}

/// Whether a browser sent the request from a page of this server, or no browser sent it at all. A page from
/// elsewhere could otherwise drive a server that listens on its visitor's machine.
pub(super) fn same_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else {
        return true;
    };
    let authority =
        origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    authority.is_some() && authority == headers.get(HOST).and_then(|host| host.to_str().ok())
}

pub(super) fn cross_origin(request_id: &str) -> Response<Full<Bytes>> {
    let fault = Fault::sender("AccessDeniedException", "Requests from pages of another origin are refused.");
    refused(None, Envelope::Json, &fault.with_status(403), request_id)
}

pub(super) fn plain(
    status: u16,
    content_type: &'static str,
    body: Bytes,
    request_id: &str,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    insert(&mut response, REQUEST_ID, request_id);
    response
}

pub(super) fn log(service: &ServiceInfo, operation: &OperationInfo, fault: &Fault, request_id: &str) {
    if fault.sender {
        tracing::debug!(service = service.name, operation = operation.name, %fault, request_id, "refused");
    } else {
        tracing::error!(service = service.name, operation = operation.name, %fault, request_id, "failed");
    }
}

fn response(answer: Answer, request_id: &str) -> Response<Full<Bytes>> {
    let mut response = plain(answer.status, answer.content_type, answer.body.into(), request_id);
    if let Some(query_error) = answer.query_error {
        insert(&mut response, QUERY_ERROR, &query_error);
    }
    response
}

fn insert(response: &mut Response<Full<Bytes>>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
