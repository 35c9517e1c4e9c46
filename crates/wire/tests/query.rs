//! Query and ec2 requests into values, and values into XML.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use longshore_wire::protocol::{Form, answer, read_form, refusal};
use longshore_wire::schema::{self as s, MapNames, Schema};
use longshore_wire::{Fault, Map, OperationInfo, Protocol, ServiceInfo, Timestamp, Value, Violations};

const ENTRY: MapNames = MapNames { key: "key", value: "value", flattened: false };
static NAMES: Schema = s::list(&s::STRING, "member", s::ANY);
static VALUES: Schema = s::list(&s::STRING, "item", s::ANY);
static FILTER: Schema =
    s::structure(&[s::optional("Name", &s::STRING), s::optional("Values", &VALUES).called("Value", "Value")]);
static FILTERS: Schema = s::list(&FILTER, "Filter", s::ANY);
static LABELS: Schema = s::map(&s::STRING, &s::STRING, ENTRY, s::ANY);
static FLAT: Schema = s::flat_list(&s::STRING, "member", s::ANY);
static STATE: Schema = s::one_of(&["on", "off"]);
static INPUT: Schema = s::structure(&[
    s::optional("Count", &s::INTEGER),
    s::optional("DryRun", &s::BOOLEAN).called("DryRun", "dryRun"),
    s::optional("Filters", &FILTERS).called("Filter", "filterSet"),
    s::optional("Flat", &FLAT),
    s::optional("Labels", &LABELS),
    s::optional("Names", &NAMES),
    s::optional("State", &STATE),
    s::optional("Text", &s::STRING),
    s::optional("Time", &s::TIMESTAMP),
]);
static OPERATION: OperationInfo =
    OperationInfo { name: "DoIt", input: &INPUT, output: Some(&INPUT), result_wrapper: "DoItResult" };
static SILENT: OperationInfo =
    OperationInfo { name: "DoIt", input: &INPUT, output: None, result_wrapper: "" };

fn service(protocol: Protocol) -> ServiceInfo {
    ServiceInfo {
        name: "test",
        full_name: "Test",
        signing_name: "test",
        protocol,
        json: None,
        api_version: "2020-01-01",
        target_prefix: "",
        xml_namespace: "http://test/doc",
        query_compatible: false,
        violations: Violations::Ec2,
        operations: &[],
        unserved: &[],
    }
}

fn read(protocol: Protocol, text: &str) -> Result<Value, Fault> {
    read_form(Form::parse(text.as_bytes()).unwrap(), &service(protocol), &INPUT)
}

fn strings<const N: usize>(values: [&'static str; N]) -> Value {
    Value::List(values.map(Value::from).into())
}

#[test]
fn query_parameters_become_a_tree() {
    let value = read(
        Protocol::Query,
        "Action=DoIt&Version=2020-01-01&Count=5&DryRun=true&Names.member.2=b&Names.member.10=c&Names.member.1=a%20+%26\
         &Labels.entry.1.key=k&Labels.entry.1.value=v&Flat.1=x&Time=2026-01-31T12%3A00%3A00Z&Unknown.1=x",
    )
    .unwrap();
    assert_eq!(value.get("Count"), Some(&Value::Int(5)));
    assert_eq!(value.get("DryRun"), Some(&Value::Bool(true)));
    assert_eq!(value.get("Names"), Some(&strings(["a  &", "b", "c"])));
    assert_eq!(value.get("Flat"), Some(&strings(["x"])));
    assert_eq!(value.get("Labels").and_then(|labels| labels.get("k")), Some(&Value::from("v")));
    assert_eq!(value.get("Time"), Some(&Value::Timestamp(Timestamp(1_769_860_800_000))));
    assert_eq!(value.as_map().map(Map::len), Some(6));
}

#[test]
fn ec2_lists_have_no_member_level() {
    let value =
        read(Protocol::Ec2, "Filter.1.Name=vpc-id&Filter.1.Value.1=a&Filter.1.Value.2=b&Filter.2.Name=x")
            .unwrap();
    let Some(Value::List(filters)) = value.get("Filters") else { panic!("no filters: {value:?}") };
    assert_eq!(filters.len(), 2);
    assert_eq!(filters[0].get("Values"), Some(&strings(["a", "b"])));
}

#[test]
fn empty_parameters_are_absent_where_they_cannot_be_values() {
    let value = read(Protocol::Query, "Count=&State=&Text=&Names=&DryRun=").unwrap();
    assert_eq!(
        value,
        Value::from(Map::from_iter([("Names", Value::List(vec![])), ("Text", Value::from(""))]))
    );
}

#[test]
fn bad_parameters_are_refused() {
    let check = |protocol, text: &str, code: &str, message: &str| {
        let fault = read(protocol, text).unwrap_err();
        assert_eq!(
            (fault.code.as_str(), fault.message.as_str(), fault.status),
            (code, message, 400),
            "{text}"
        );
    };
    check(Protocol::Ec2, "Bogus=1", "UnknownParameter", "The parameter Bogus is not recognized");
    check(
        Protocol::Ec2,
        "Filter.1.Bogus=1",
        "UnknownParameter",
        "The parameter Filter.1.Bogus is not recognized",
    );
    check(Protocol::Ec2, "Filter.x=1", "UnknownParameter", "The parameter Filter.x is not recognized");
    check(Protocol::Ec2, "Text.1=1", "UnknownParameter", "The parameter Text.1 is not recognized");
    check(
        Protocol::Ec2,
        "Count=many",
        "InvalidParameterValue",
        "Invalid value 'many' for Count. Must be an integer.",
    );
    check(
        Protocol::Query,
        "Count=many",
        "MalformedInput",
        "Invalid value 'many' for Count: must be an integer",
    );
    let deep = format!("Names{}=1", ".1".repeat(1000));
    check(Protocol::Query, &deep, "MalformedInput", "The name of a parameter has too many parts.");
}

#[test]
fn forms_are_decoded() {
    assert_eq!(Form::parse(b"a=%zz&b=%&c").unwrap().get("a"), Some("%zz"));
    assert_eq!(Form::parse(b"a=%ff"), None);
    assert_eq!(Form::parse("a=é%C3%A9".as_bytes()).unwrap().get("a"), Some("éé"));
}

fn output() -> Value {
    Value::from(Map::from_iter([
        ("Count", Value::Int(2)),
        ("DryRun", Value::Bool(false)),
        (
            "Filters",
            Value::List(vec![Value::from(Map::from_iter([("Values", strings(["<a>", "b&\u{1}"]))]))]),
        ),
        ("Flat", strings(["x", "y"])),
        ("Labels", Value::from(Map::from_iter([("k", Value::from("v"))]))),
        ("Names", Value::List(vec![])),
        ("Time", Value::Timestamp(Timestamp(1_769_860_800_000))),
    ]))
}

fn body(sent: longshore_wire::protocol::Answer) -> String {
    String::from_utf8(sent.body).unwrap()
}

#[test]
fn query_answers_are_wrapped() {
    let service = service(Protocol::Query);
    assert_eq!(
        body(answer(&service, &OPERATION, &output(), "id")),
        "<DoItResponse xmlns=\"http://test/doc\"><DoItResult><Count>2</Count><dryRun>false</dryRun>\
         <filterSet><Filter><Value><item>&lt;a&gt;</item><item>b&amp;\u{fffd}</item></Value></Filter></filterSet>\
         <Flat>x</Flat><Flat>y</Flat><Labels><entry><key>k</key><value>v</value></entry></Labels><Names></Names>\
         <Time>2026-01-31T12:00:00Z</Time></DoItResult>\
         <ResponseMetadata><RequestId>id</RequestId></ResponseMetadata></DoItResponse>"
    );
    assert_eq!(
        body(answer(&service, &SILENT, &Value::Map(Map::new()), "id")),
        "<DoItResponse xmlns=\"http://test/doc\"><ResponseMetadata><RequestId>id</RequestId></ResponseMetadata></DoItResponse>"
    );
}

#[test]
fn ec2_answers_are_bare() {
    let service = service(Protocol::Ec2);
    let output = Value::from(Map::from_iter([("Count", Value::Int(2))]));
    let declaration = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
    assert_eq!(
        body(answer(&service, &OPERATION, &output, "id")),
        format!(
            "{declaration}<DoItResponse xmlns=\"http://test/doc/\"><requestId>id</requestId><Count>2</Count></DoItResponse>"
        )
    );
    assert_eq!(
        body(answer(&service, &SILENT, &output, "id")),
        format!(
            "{declaration}<DoItResponse xmlns=\"http://test/doc/\"><requestId>id</requestId><return>true</return></DoItResponse>"
        )
    );
}

#[test]
fn errors_have_their_envelopes() {
    let fault = Fault::sender("InvalidVpcID.NotFound", "The vpc ID '<x>' does not exist");
    let sent = refusal(&service(Protocol::Query), &fault, "id");
    assert_eq!((sent.status, sent.content_type), (400, "text/xml"));
    assert_eq!(
        body(sent),
        "<ErrorResponse xmlns=\"http://test/doc\"><Error><Type>Sender</Type><Code>InvalidVpcID.NotFound</Code>\
         <Message>The vpc ID '&lt;x&gt;' does not exist</Message></Error><RequestId>id</RequestId></ErrorResponse>"
    );
    assert_eq!(
        body(refusal(&service(Protocol::Ec2), &fault, "id")),
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>InvalidVpcID.NotFound</Code>\
         <Message>The vpc ID '&lt;x&gt;' does not exist</Message></Error></Errors><RequestID>id</RequestID></Response>"
    );
}
