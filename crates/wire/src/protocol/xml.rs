//! Answers and errors of the query and ec2 protocols.
//! Invariant: what is written is well-formed whatever the values hold.

use std::fmt::Write as _;

use base64::Engine as _;

use crate::schema::Kind;
use crate::{Fault, OperationInfo, Schema, ServiceInfo, Value};

pub(super) fn query_output(
    service: &ServiceInfo,
    operation: &OperationInfo,
    output: &Value,
    request_id: &str,
) -> Vec<u8> {
    let mut xml = String::with_capacity(512);
    let _ = write!(xml, "<{}Response xmlns=\"{}\">", operation.name, service.xml_namespace);
    if let Some(schema) = operation.output {
        match operation.result_wrapper {
            "" => members(&mut xml, output, schema),
            wrapper => element(&mut xml, wrapper, |xml| members(xml, output, schema)),
        }
    }
    element(&mut xml, "ResponseMetadata", |xml| text(xml, "RequestId", request_id));
    let _ = write!(xml, "</{}Response>", operation.name);
    xml.into_bytes()
}

pub(super) fn ec2_output(
    service: &ServiceInfo,
    operation: &OperationInfo,
    output: &Value,
    request_id: &str,
) -> Vec<u8> {
    let mut xml = String::with_capacity(1024);
    xml.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = write!(xml, "<{}Response xmlns=\"{}/\">", operation.name, service.xml_namespace);
    text(&mut xml, "requestId", request_id);
    match operation.output {
        Some(schema) => members(&mut xml, output, schema),
        None => text(&mut xml, "return", "true"),
    }
    let _ = write!(xml, "</{}Response>", operation.name);
    xml.into_bytes()
}

pub(super) fn query_error(namespace: &str, fault: &Fault, request_id: &str) -> Vec<u8> {
    let mut xml = String::with_capacity(256);
    match namespace {
        "" => xml.push_str("<ErrorResponse>"),
        namespace => drop(write!(xml, "<ErrorResponse xmlns=\"{namespace}\">")),
    }
    element(&mut xml, "Error", |xml| {
        text(xml, "Type", if fault.sender { "Sender" } else { "Receiver" });
        text(xml, "Code", &fault.code);
        text(xml, "Message", &fault.message);
        for (name, value) in fault.extra.iter() {
            bare(xml, name, value);
        }
    });
    text(&mut xml, "RequestId", request_id);
    xml.push_str("</ErrorResponse>");
    xml.into_bytes()
}

pub(super) fn ec2_error(fault: &Fault, request_id: &str) -> Vec<u8> {
    let mut xml = String::with_capacity(256);
    xml.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    element(&mut xml, "Response", |xml| {
        element(xml, "Errors", |xml| {
            element(xml, "Error", |xml| {
                text(xml, "Code", &fault.code);
                text(xml, "Message", &fault.message);
            });
        });
        text(xml, "RequestID", request_id);
    });
    xml.into_bytes()
}

fn members(xml: &mut String, value: &Value, schema: &'static Schema) {
    for member in schema.members() {
        if let Some(value) = value.get(member.name) {
            named(xml, member.xml, value, member.schema);
        }
    }
}

fn named(xml: &mut String, name: &str, value: &Value, schema: &'static Schema) {
    match (&schema.kind, value) {
        (_, Value::Null) => {}
        (Kind::Structure(_), Value::Map(_)) => element(xml, name, |xml| members(xml, value, schema)),
        (Kind::List { of, flattened: true, .. }, Value::List(values)) => {
            for value in values {
                named(xml, name, value, of);
            }
        }
        (Kind::List { of, element: each, .. }, Value::List(values)) => element(xml, name, |xml| {
            for value in values {
                named(xml, each, value, of);
            }
        }),
        (Kind::Map { of, entry, .. }, Value::Map(map)) => {
            let entries = |xml: &mut String, each: &str| {
                for (key, value) in map.iter() {
                    element(xml, each, |xml| {
                        text(xml, entry.key, key);
                        named(xml, entry.value, value, of);
                    });
                }
            };
            match entry.flattened {
                true => entries(xml, name),
                false => element(xml, name, |xml| entries(xml, "entry")),
            }
        }
        (_, value) => bare(xml, name, value),
    }
}

/// A scalar, or what no schema describes.
fn bare(xml: &mut String, name: &str, value: &Value) {
    match value {
        Value::Null => {}
        Value::Bool(flag) => text(xml, name, if *flag { "true" } else { "false" }),
        Value::Int(number) => text(xml, name, &number.to_string()),
        Value::Float(number) => text(xml, name, &number.to_string()),
        Value::String(value) => text(xml, name, value),
        Value::Blob(bytes) => text(xml, name, &base64::engine::general_purpose::STANDARD.encode(bytes)),
        Value::Timestamp(time) => text(xml, name, &time.to_string()),
        Value::List(values) => element(xml, name, |xml| {
            for value in values {
                bare(xml, "member", value);
            }
        }),
        Value::Map(map) => element(xml, name, |xml| {
            for (name, value) in map.iter() {
                bare(xml, name, value);
            }
        }),
    }
}

fn element(xml: &mut String, name: &str, inner: impl FnOnce(&mut String)) {
    let _ = write!(xml, "<{name}>");
    inner(xml);
    let _ = write!(xml, "</{name}>");
}

fn text(xml: &mut String, name: &str, value: &str) {
    element(xml, name, |xml| escape(xml, value));
}

fn escape(xml: &mut String, value: &str) {
    for letter in value.chars() {
        match letter {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' => xml.push_str("&quot;"),
            // A bare carriage return would be read back as a line feed.
            '\r' => xml.push_str("&#13;"),
            '\t' | '\n' => xml.push(letter),
            // XML 1.0 has no way to write these.
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => xml.push('\u{fffd}'),
            _ => xml.push(letter),
        }
    }
}
