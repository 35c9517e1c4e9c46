//! Requests from bytes to the neutral tree, answers and errors from the tree to bytes, for every protocol.
//! Invariant: whatever the bytes, reading ends in a value or in a fault of the sender.

mod form;
mod json;
mod query;
mod xml;

pub use form::{Form, percent_decode};
pub use json::{parse_document, write_json};

use crate::{Fault, OperationInfo, Protocol, Schema, ServiceInfo, Value};

/// An HTTP answer without its request id header, which the front adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    /// The value of `x-amzn-query-error`, where the service has one.
    pub query_error: Option<String>,
    pub body: Vec<u8>,
}

/// Reads a JSON body into the tree of `schema`.
pub fn read_json(body: &[u8], schema: &'static Schema) -> Result<Value, Fault> {
    json::read(body, schema)
}

/// Reads the parameters of a query or ec2 request into the tree of `schema`.
pub fn read_form(form: Form, service: &ServiceInfo, schema: &'static Schema) -> Result<Value, Fault> {
    query::read(form, service.protocol, schema)
}

/// Writes what an operation returned.
pub fn answer(service: &ServiceInfo, operation: &OperationInfo, output: &Value, request_id: &str) -> Answer {
    let body = match service.protocol {
        Protocol::Json10 | Protocol::Json11 => json::output(operation, output),
        Protocol::Query => xml::query_output(service, operation, output, request_id),
        Protocol::Ec2 => xml::ec2_output(service, operation, output, request_id),
    };
    Answer { status: 200, content_type: content_type(service.protocol), query_error: None, body }
}

/// Writes an error in the protocol's envelope.
pub fn refusal(service: &ServiceInfo, fault: &Fault, request_id: &str) -> Answer {
    let query_error = service.query_compatible.then(|| {
        let side = if fault.sender { "Sender" } else { "Receiver" };
        format!("{};{side}", fault.code)
    });
    let mut answer = refusal_in(service.protocol, service.xml_namespace, fault, request_id);
    answer.query_error = query_error;
    answer
}

/// Writes an error where no service is known, in the envelope that the request's own form suggests.
pub fn refusal_in(protocol: Protocol, namespace: &str, fault: &Fault, request_id: &str) -> Answer {
    let body = match protocol {
        Protocol::Json10 | Protocol::Json11 => json::error(fault),
        Protocol::Query => xml::query_error(namespace, fault, request_id),
        Protocol::Ec2 => xml::ec2_error(fault, request_id),
    };
    Answer { status: fault.status, content_type: content_type(protocol), query_error: None, body }
}

/// The code for a body that cannot be read at all.
pub(crate) fn malformed_code(service: &ServiceInfo) -> &'static str {
    match service.protocol {
        Protocol::Json10 | Protocol::Json11 => json::MALFORMED,
        Protocol::Query => query::MALFORMED,
        Protocol::Ec2 => query::EC2_MALFORMED,
    }
}

fn content_type(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Json10 => "application/x-amz-json-1.0",
        Protocol::Json11 => "application/x-amz-json-1.1",
        Protocol::Query => "text/xml",
        Protocol::Ec2 => "text/xml;charset=UTF-8",
    }
}
