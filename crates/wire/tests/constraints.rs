//! The model's constraints, the words that AWS uses for them, and typed shapes.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use longshore_wire::protocol::read_json;
use longshore_wire::schema::{self as s, Schema};
use longshore_wire::{Decode, Encode, Protocol, ServiceInfo, Violations, decode_input};

longshore_wire::enumeration! {
    Mode {
        Fast = "FAST",
        Slow = "slow",
    }
}

longshore_wire::structure! {
    #[derive(Clone, Debug, Default, PartialEq)]
    Tag {
        key: String = "Key",
        value: Option<String> = "value",
    }
}

longshore_wire::structure! {
    #[derive(Clone, Default, PartialEq)]
    DoItRequest {
        count: Option<i32> = "count",
        mode: Option<Mode> = "mode",
        name: String = "name",
        secret: Option<String> = "secret",
        tags: Option<Vec<Tag>> = "tags",
    }
}
longshore_wire::redacted! { DoItRequest { count, mode, name, tags, } hides { secret, } }

static PATTERN: s::Pattern = s::Pattern::new("[a-z-]+", "[a-z-]+");
static COUNT: Schema = s::integer(s::within(1.0, 10.0));
static MODE: Schema = s::one_of(&["FAST", "slow"]);
static NAME: Schema = s::string(s::at_most(5.0), Some(&PATTERN));
static SECRET: Schema = s::string(s::at_least(8.0), None).secret();
static TAG: Schema =
    s::structure(&[s::required("Key", &s::STRING).called("TagKey", "TagKey"), s::optional("value", &NAME)]);
static TAGS: Schema = s::list(&TAG, "member", s::at_most(2.0));
static REQUEST: Schema = s::structure(&[
    s::optional("count", &COUNT).called("Count", "count"),
    s::optional("mode", &MODE).called("Mode", "mode"),
    s::required("name", &NAME).called("Name", "name"),
    s::optional("secret", &SECRET).called("Secret", "secret"),
    s::optional("tags", &TAGS).called("Tag", "tagSet"),
]);

const fn service(violations: Violations) -> ServiceInfo {
    ServiceInfo {
        name: "test",
        full_name: "Test",
        signing_name: "test",
        protocol: Protocol::Json11,
        json: None,
        api_version: "2020-01-01",
        target_prefix: "",
        xml_namespace: "",
        query_compatible: false,
        violations,
        operations: &[],
        unserved: &[],
    }
}
static LISTED: ServiceInfo = service(Violations::Listed("InvalidParameterException"));
static EC2: ServiceInfo = service(Violations::Ec2);

mod listed {
    longshore_wire::operations! { super::LISTED; DoIt(super::DoItRequest) -> (), super::REQUEST; }
}
mod ec2 {
    longshore_wire::operations! { super::EC2; DoIt(super::DoItRequest) -> (), super::REQUEST; }
}

fn check(text: &str, message: &str) {
    let value = read_json(text.as_bytes(), &REQUEST).unwrap();
    let fault = decode_input::<listed::DoIt>(value).unwrap_err();
    assert_eq!((fault.code.as_str(), fault.message.as_str()), ("InvalidParameterException", message));
}

#[test]
fn each_constraint_has_its_words() {
    check(
        r#"{"name":"a","count":11}"#,
        "1 validation error detected: Value '11' at 'count' failed to satisfy constraint: Member must have value less than or equal to 10",
    );
    check(
        r#"{}"#,
        "1 validation error detected: Value null at 'name' failed to satisfy constraint: Member must not be null",
    );
    check(
        r#"{"name":"a","mode":"fast"}"#,
        "1 validation error detected: Value 'fast' at 'mode' failed to satisfy constraint: Member must satisfy enum value set: [FAST, slow]",
    );
    check(
        r#"{"name":"A"}"#,
        "1 validation error detected: Value 'A' at 'name' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-z-]+",
    );
}

#[test]
fn several_are_joined_and_carry_list_indexes() {
    check(
        r#"{"name":"abcdef","tags":[{"Key":"k"},{"value":"B"},null]}"#,
        "5 validation errors detected: \
         Value 'abcdef' at 'name' failed to satisfy constraint: Member must have length less than or equal to 5; \
         Value '[map, map, null]' at 'tags' failed to satisfy constraint: Member must have length less than or equal to 2; \
         Value null at 'tags.2.member.key' failed to satisfy constraint: Member must not be null; \
         Value 'B' at 'tags.2.member.value' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-z-]+; \
         Value null at 'tags.3.member' failed to satisfy constraint: Member must not be null",
    );
}

#[test]
fn secrets_are_not_repeated() {
    check(
        r#"{"name":"a","secret":"hunter2"}"#,
        "1 validation error detected: Value at 'secret' failed to satisfy constraint: Member must have length greater than or equal to 8",
    );
    let request = DoItRequest { secret: Some("hunter2".into()), ..Default::default() };
    let shown = format!("{request:?}");
    assert!(shown.contains("***") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn ec2_names_its_own_parameters() {
    let check = |text: &str, code: &str, message: &str| {
        let value = read_json(text.as_bytes(), &REQUEST).unwrap();
        let fault = decode_input::<ec2::DoIt>(value).unwrap_err();
        assert_eq!((fault.code.as_str(), fault.message.as_str()), (code, message));
    };
    check("{}", "MissingParameter", "The request must contain the parameter Name");
    check(
        r#"{"name":"a","tags":[{}]}"#,
        "MissingParameter",
        "The request must contain the parameter Tag.1.TagKey",
    );
    check(
        r#"{"name":"a","mode":"x"}"#,
        "InvalidParameterValue",
        "Value (x) for parameter Mode is invalid. Member must satisfy enum value set: [FAST, slow]",
    );
}

#[test]
fn shapes_read_back_as_they_were() {
    let request = DoItRequest {
        count: Some(3),
        mode: Some(Mode::Slow),
        name: "abc".into(),
        secret: None,
        tags: Some(vec![Tag { key: "k".into(), value: None }]),
    };
    let value = request.clone().encode();
    assert_eq!(value.get("secret"), None);
    assert!(decode_input::<listed::DoIt>(value.clone()).unwrap() == request);
    assert!(DoItRequest::decode(value).unwrap() == request);
}

#[test]
fn what_does_not_fit_says_where() {
    let value = read_json(br#"{"name":"a","tags":[{"Key":"k"},{}]}"#, &REQUEST).unwrap();
    assert_eq!(DoItRequest::decode(value).unwrap_err().to_string(), "tags.2.Key: missing");
    let value = read_json(br#"{"name":"a","mode":"x"}"#, &REQUEST).unwrap();
    assert_eq!(DoItRequest::decode(value).unwrap_err().to_string(), "mode: unknown value `x`");
}

#[test]
fn enumerations_know_their_values() {
    assert_eq!(Mode::VALUES, ["FAST", "slow"]);
    for mode in Mode::ALL {
        assert_eq!(mode.as_str().parse(), Ok(*mode));
    }
    assert!(Mode::try_from("Fast").is_err());
}
