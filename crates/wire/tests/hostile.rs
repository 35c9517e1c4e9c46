//! Whatever bytes come, reading them ends in a value or in a fault of the sender.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use http::{HeaderMap, HeaderValue};
use longshore_wire::protocol::{Form, answer, read_form, read_json, refusal};
use longshore_wire::schema::{self as s, MapNames, Schema};
use longshore_wire::sigv4::{self, Request};
use longshore_wire::{OperationInfo, Protocol, ServiceInfo, Timestamp, Violations};
use proptest::prelude::*;

const ENTRY: MapNames = MapNames { key: "key", value: "value", flattened: false };
static NODES: Schema = s::list(&NODE, "member", s::ANY);
static LABELS: Schema = s::map(&s::STRING, &NODE, ENTRY, s::ANY);
static NODE: Schema = s::structure(&[
    s::optional("a", &s::INTEGER),
    s::optional("b", &NODES),
    s::optional("c", &s::TIMESTAMP),
    s::optional("d", &s::BLOB),
    s::optional("e", &LABELS),
    s::optional("f", &s::DOCUMENT),
]);
static OPERATION: OperationInfo =
    OperationInfo { name: "Do", input: &NODE, output: Some(&NODE), result_wrapper: "DoResult" };

fn service(protocol: Protocol) -> ServiceInfo {
    ServiceInfo {
        name: "test",
        full_name: "Test",
        signing_name: "test",
        protocol,
        json: None,
        api_version: "2020-01-01",
        target_prefix: "",
        xml_namespace: "",
        query_compatible: false,
        violations: Violations::Listed("ValidationError"),
        operations: &[],
        unserved: &[],
    }
}

/// Text made of the pieces that mean something, so that it goes deep more often than random bytes do.
fn pieces(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(pieces), 0..40).prop_map(|parts| parts.concat())
}

const JSON: &[&str] = &[
    "{", "}", "[", "]", ":", ",", "\"a\"", "\"b\"", "\"c\"", "\"d\"", "\"e\"", "\"f\"", "1", "-1e309",
    "null", "\"", "é",
];
const FORM: &[&str] =
    &["a", "b", "e", ".", "1", "99999999999", "member", "entry", "key", "value", "=", "&", "%", "%e9", "+"];
const SIGNED: &[&str] = &[
    "AWS4-HMAC-SHA256",
    " ",
    "Credential=",
    "a/20260131/r/s/aws4_request",
    "/",
    ",",
    "SignedHeaders=",
    "host",
    ";",
    "Signature=",
    "0",
    "=",
    "x-amz-date",
];
const QUERY: &[&str] = &[
    "X-Amz-Algorithm=",
    "AWS4-HMAC-SHA256",
    "&",
    "X-Amz-Credential=",
    "a/20260131/r/s/aws4_request",
    "X-Amz-Date=",
    "20260131T120000Z",
    "X-Amz-Expires=",
    "9223372036854775807",
    "5",
    "X-Amz-SignedHeaders=",
    "host",
    "%0a",
    "X-Amz-Signature=",
    "é",
];

proptest! {
    #[test]
    fn json(text in pieces(JSON)) {
        let service = service(Protocol::Json11);
        match read_json(text.as_bytes(), &NODE) {
            Ok(value) => prop_assert_eq!(answer(&service, &OPERATION, &value, "id").status, 200),
            Err(fault) => prop_assert_eq!(refusal(&service, &fault, "id").status, 400),
        }
    }

    #[test]
    fn bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Err(fault) = read_json(&bytes, &NODE) {
            prop_assert!(fault.sender);
        }
        Form::parse(&bytes);
    }

    #[test]
    fn forms(text in pieces(FORM), ec2: bool) {
        let service = service(if ec2 { Protocol::Ec2 } else { Protocol::Query });
        if let Some(form) = Form::parse(text.as_bytes()) {
            match read_form(form, &service, &NODE) {
                Ok(value) => prop_assert_eq!(answer(&service, &OPERATION, &value, "id").status, 200),
                Err(fault) => prop_assert_eq!(refusal(&service, &fault, "id").status, 400),
            }
        }
    }

    #[test]
    fn signatures(authorization in pieces(SIGNED), query in pieces(QUERY), path in "[a-z./%]{0,20}", dated: bool) {
        let mut headers = HeaderMap::new();
        if !authorization.is_empty() {
            headers.insert("authorization", HeaderValue::from_str(&authorization).expect("a header"));
        }
        if dated {
            headers.insert("x-amz-date", HeaderValue::from_static("20260131T120000Z"));
        }
        let request = Request { method: "GET", path: &path, query: &query, headers: &headers, authority: None, body: b"" };
        if let Ok(Some(presented)) = sigv4::present(&request) {
            let now = Timestamp::parse_basic("20260131T120000Z").expect("a time");
            prop_assert!(sigv4::verify(&request, &presented, now, |_, _| Some("secret".to_owned())).is_err());
        }
    }

    #[test]
    fn times(text in ".{0,20}", seconds: f64, millis: i64) {
        Timestamp::parse_basic(&text);
        Timestamp::parse_iso(&text);
        Timestamp::from_seconds(seconds);
        prop_assert!(!Timestamp(millis).to_string().is_empty());
        prop_assert!(!Timestamp(millis).basic().is_empty());
    }
}
