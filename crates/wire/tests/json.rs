//! JSON requests into values, and values into answers.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use longshore_wire::protocol::{answer, read_json, refusal, write_json};
use longshore_wire::schema::{self as s, DOCUMENT, MapNames, Schema};
use longshore_wire::{Fault, Map, OperationInfo, Protocol, ServiceInfo, Timestamp, Value, Violations};

static NAMES: Schema = s::list(&s::STRING, "member", s::ANY);
static TAGS: Schema = s::map(&s::STRING, &s::INTEGER, ENTRY, s::ANY);
static ITEMS: Schema = s::list(&ITEM, "member", s::ANY);
static ITEM: Schema = s::structure(&[
    s::optional("count", &s::INTEGER),
    s::optional("data", &s::BLOB),
    s::optional("document", &DOCUMENT),
    s::optional("flag", &s::BOOLEAN),
    s::optional("items", &ITEMS),
    s::optional("name", &s::STRING),
    s::optional("names", &NAMES),
    s::optional("rate", &s::DOUBLE),
    s::optional("tags", &TAGS),
    s::optional("time", &s::TIMESTAMP),
]);
const ENTRY: MapNames = MapNames { key: "key", value: "value", flattened: false };

static OPERATION: OperationInfo =
    OperationInfo { name: "Do", input: &ITEM, output: Some(&DOCUMENT), result_wrapper: "" };
static SERVICE: ServiceInfo = ServiceInfo {
    name: "test",
    full_name: "Test",
    signing_name: "test",
    protocol: Protocol::Json11,
    json: None,
    api_version: "2020-01-01",
    target_prefix: "Test",
    xml_namespace: "",
    query_compatible: true,
    violations: Violations::Listed("InvalidParameterException"),
    operations: &[],
    unserved: &[],
};

fn read(text: &str) -> Result<Value, Fault> {
    read_json(text.as_bytes(), &ITEM)
}

fn written(value: &Value) -> String {
    let mut text = Vec::new();
    write_json(&mut text, value);
    String::from_utf8(text).unwrap()
}

#[test]
fn every_kind_is_read_and_written_back() {
    let text = r#"{"count":-3,"data":"aGk=","document":{"a":[1,null,"x"]},"flag":true,"items":[{"name":"é\n"}],"names":["a"],"rate":0.5,"tags":{"k":1},"time":1769860800.25}"#;
    let value = read(text).unwrap();
    assert_eq!(value.get("time"), Some(&Value::Timestamp(Timestamp(1_769_860_800_250))));
    assert_eq!(value.get("data"), Some(&Value::Blob(b"hi".to_vec())));
    assert_eq!(written(&value), text.replace("1769860800.25", "1769860800.250"));
}

#[test]
fn absent_and_null_are_absent() {
    let empty = Value::Map(Map::new());
    for text in ["", "  \n", "{}", "null", r#"{"name":null}"#] {
        assert_eq!(read(text).unwrap(), empty, "{text}");
    }
    assert_eq!(read(r#"{"names":[]}"#).unwrap().get("names"), Some(&Value::List(vec![])));
}

#[test]
fn a_member_that_the_model_does_not_know_is_refused_by_name() {
    let fault = read(r#"{"new":{"deep":[1]},"name":null}"#).unwrap_err();
    assert_eq!((fault.code.as_str(), fault.status), ("SerializationException", 400));
    assert_eq!(fault.message, "Unknown field 'new': this version of the API does not have it.");
}

#[test]
fn the_last_of_two_equal_members_counts() {
    assert_eq!(read(r#"{"count":1,"count":2}"#).unwrap().get("count"), Some(&Value::Int(2)));
}

#[test]
fn wrong_types_are_named() {
    let check = |text: &str, message: &str| {
        let fault = read(text).unwrap_err();
        assert_eq!((fault.code.as_str(), fault.status), ("SerializationException", 400), "{text}");
        assert_eq!(fault.message, message, "{text}");
    };
    check(r#"{"name":5}"#, "NUMBER_VALUE can not be converted to a String");
    check(r#"{"count":"5"}"#, "STRING_VALUE can not be converted to an Integer");
    check(r#"{"count":3000000000}"#, "NUMBER_VALUE can not be converted to an Integer");
    check(r#"{"count":1.5}"#, "NUMBER_VALUE can not be converted to an Integer");
    check(r#"{"flag":"true"}"#, "STRING_VALUE can not be converted to a Boolean");
    check(r#"{"time":"2026-01-01"}"#, "STRING_VALUE can not be converted to a Date");
    check(r#"{"names":"a"}"#, "STRING_VALUE can not be converted to a List");
    check(r#"{"name":[]}"#, "Start of list found where not expected");
    check(r#"{"name":{}}"#, "Start of structure or map found where not expected.");
    check(r#"{"items":["a"]}"#, "Unexpected field type");
    check(r#"{"data":"*"}"#, "Expected a base64 encoded string for a blob");
    check("[]", "Start of list found where not expected");
}

#[test]
fn what_is_no_json_is_refused_without_harm() {
    let deep = format!("{{\"document\":{}", "[".repeat(100_000));
    for text in ["{", "{} x", "{\"name\":\"\\ud800\"}", "\u{0}", &deep] {
        let fault = read(text).unwrap_err();
        assert_eq!(fault.code, "SerializationException");
        assert!(fault.message.starts_with("The request body is not valid JSON"), "{}", fault.message);
    }
    assert!(read_json(&[b'{', b'"', 0xff, b'"', b':', b'1', b'}'], &ITEM).is_err());
}

#[test]
fn numbers_are_written_as_clients_read_them() {
    let check = |value: Value, text: &str| assert_eq!(written(&value), text);
    check(Value::Timestamp(Timestamp(1_769_860_800_000)), "1769860800");
    check(Value::Timestamp(Timestamp(1_769_860_800_007)), "1769860800.007");
    check(Value::Timestamp(Timestamp(-250)), "-0.250");
    check(Value::Float(3.0), "3.0");
    check(Value::Float(f64::NAN), "\"NaN\"");
    check(Value::Int(i64::MIN), "-9223372036854775808");
}

#[test]
fn answers_and_errors_have_their_envelopes() {
    let output = Value::from(Map::from_iter([("name", Value::from("x"))]));
    let sent = answer(&SERVICE, &OPERATION, &output, "id");
    assert_eq!((sent.status, sent.content_type), (200, "application/x-amz-json-1.1"));
    assert_eq!(sent.body, br#"{"name":"x"}"#);

    let ids = Value::List(vec![Value::from("a")]);
    let fault = Fault::sender("ConflictException", "say \"no\"").with("resourceIds", ids);
    let sent = refusal(&SERVICE, &fault, "id");
    assert_eq!(sent.status, 400);
    assert_eq!(
        String::from_utf8(sent.body).unwrap(),
        r#"{"__type":"ConflictException","message":"say \"no\"","resourceIds":["a"]}"#
    );
    assert_eq!(sent.query_error.as_deref(), Some("ConflictException;Sender"));
}
