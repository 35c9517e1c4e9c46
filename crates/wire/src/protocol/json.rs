//! JSON 1.0 and 1.1. Reading is led by the schema: one pass, no tree between the text and the values, and a
//! member that the model does not know is an error: what is not honoured is refused.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::schema::{Kind, Member};
use crate::{Fault, Map, OperationInfo, Schema, Timestamp, Value, schema};

pub(super) const MALFORMED: &str = "SerializationException";

pub(super) fn read(body: &[u8], schema: &'static Schema) -> Result<Value, Fault> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Map(Map::new()));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = Seed(schema).deserialize(&mut reader).map_err(|error| malformed(&error))?;
    reader.end().map_err(|error| malformed(&error))?;
    match value {
        Value::Null => Ok(Value::Map(Map::new())),
        value => Ok(value),
    }
}

/// Reads any JSON, without a schema.
pub fn parse_document(text: &[u8]) -> Result<Value, Fault> {
    read(text, &schema::DOCUMENT)
}

pub(super) fn output(operation: &OperationInfo, output: &Value) -> Vec<u8> {
    if operation.output.is_none() {
        return b"{}".to_vec();
    }
    let mut body = Vec::with_capacity(1024);
    write_json(&mut body, output);
    body
}

pub(super) fn error(fault: &Fault) -> Vec<u8> {
    let mut body = Vec::with_capacity(128);
    body.extend_from_slice(b"{\"__type\":");
    write_string(&mut body, &fault.code);
    body.extend_from_slice(b",\"message\":");
    write_string(&mut body, &fault.message);
    for (name, value) in fault.extra.iter() {
        body.push(b',');
        write_string(&mut body, name);
        body.push(b':');
        write_json(&mut body, value);
    }
    body.push(b'}');
    body
}

/// Appends a value as JSON: timestamps as seconds with a fraction, blobs as base64.
pub fn write_json(body: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => body.extend_from_slice(b"null"),
        Value::Bool(true) => body.extend_from_slice(b"true"),
        Value::Bool(false) => body.extend_from_slice(b"false"),
        // Writing to memory cannot fail.
        Value::Int(number) => drop(write!(body, "{number}")),
        Value::Float(number) => write_float(body, *number),
        Value::String(text) => write_string(body, text),
        Value::Blob(bytes) => write_string(body, &BASE64.encode(bytes)),
        Value::Timestamp(time) => write_seconds(body, *time),
        Value::List(values) => {
            body.push(b'[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    body.push(b',');
                }
                write_json(body, value);
            }
            body.push(b']');
        }
        Value::Map(map) => {
            body.push(b'{');
            for (at, (name, value)) in map.iter().enumerate() {
                if at > 0 {
                    body.push(b',');
                }
                write_string(body, name);
                body.push(b':');
                write_json(body, value);
            }
            body.push(b'}');
        }
    }
}

fn write_string(body: &mut Vec<u8>, text: &str) {
    if serde_json::to_writer(&mut *body, text).is_err() {
        body.extend_from_slice(b"\"\"");
    }
}

/// AWS writes the numbers that JSON lacks as strings.
fn write_float(body: &mut Vec<u8>, number: f64) {
    if number.is_nan() {
        body.extend_from_slice(b"\"NaN\"");
    } else if number.is_infinite() {
        body.extend_from_slice(if number > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
    } else {
        let _ = write!(body, "{number:?}");
    }
}

fn write_seconds(body: &mut Vec<u8>, time: Timestamp) {
    let (seconds, millis) = (time.0 / 1000, (time.0 % 1000).abs());
    let sign = if time.0 < 0 && seconds == 0 { "-" } else { "" };
    let _ = if millis == 0 {
        write!(body, "{sign}{seconds}")
    } else {
        write!(body, "{sign}{seconds}.{millis:03}")
    };
}

fn malformed(error: &serde_json::Error) -> Fault {
    let text = error.to_string();
    // What a visitor of ours says is in AWS's words; serde_json appends where it was.
    let said = text.rfind(" at line ").map_or(text.as_str(), |at| &text[..at]);
    let message =
        if error.is_data() { said.to_owned() } else { format!("The request body is not valid JSON: {text}") };
    Fault::sender(MALFORMED, message)
}

struct Seed(&'static Schema);

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(wanted(self.0))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Value, E> {
        match self.0.kind {
            Kind::Boolean | Kind::Document => Ok(Value::Bool(flag)),
            _ => Err(mismatch(self.0, if flag { "TRUE_VALUE" } else { "FALSE_VALUE" })),
        }
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Value, E> {
        match self.0.kind {
            Kind::Integer(_) if i32::try_from(number).is_err() => Err(mismatch(self.0, "NUMBER_VALUE")),
            Kind::Integer(_) | Kind::Long(_) | Kind::Document => Ok(Value::Int(number)),
            Kind::Double(_) => Ok(Value::Float(number as f64)),
            Kind::Timestamp => seconds(self.0, number as f64),
            _ => Err(mismatch(self.0, "NUMBER_VALUE")),
        }
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value, E> {
        match i64::try_from(number) {
            Ok(number) => self.visit_i64(number),
            Err(_) => self.visit_f64(number as f64),
        }
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Value, E> {
        match self.0.kind {
            // Some clients write whole numbers with a fraction of zero.
            Kind::Integer(_) | Kind::Long(_) if number.fract() == 0.0 && number.abs() < 9e15 => {
                self.visit_i64(number as i64)
            }
            Kind::Double(_) | Kind::Document => Ok(Value::Float(number)),
            Kind::Timestamp => seconds(self.0, number),
            _ => Err(mismatch(self.0, "NUMBER_VALUE")),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        match self.0.kind {
            Kind::String { .. } | Kind::Document => Ok(Value::String(Cow::Owned(text.to_owned()))),
            Kind::Blob(_) => BASE64
                .decode(text)
                .map(Value::Blob)
                .map_err(|_| E::custom("Expected a base64 encoded string for a blob")),
            Kind::Double(_) => match text {
                "NaN" => Ok(Value::Float(f64::NAN)),
                "Infinity" => Ok(Value::Float(f64::INFINITY)),
                "-Infinity" => Ok(Value::Float(f64::NEG_INFINITY)),
                _ => Err(mismatch(self.0, "STRING_VALUE")),
            },
            _ => Err(mismatch(self.0, "STRING_VALUE")),
        }
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Value, E> {
        match self.0.kind {
            Kind::String { .. } | Kind::Document => Ok(Value::from(text)),
            _ => self.visit_str(&text),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let of = match self.0.kind {
            Kind::List { of, .. } => of,
            Kind::Document => self.0,
            _ => return Err(de::Error::custom("Start of list found where not expected")),
        };
        let mut values = Vec::new();
        while let Some(value) = elements.next_element_seed(Seed(of))? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Value, A::Error> {
        match self.0.kind {
            Kind::Structure(members) => structure(members, entries),
            Kind::Map { of, .. } => map(of, entries),
            Kind::Document => map(self.0, entries),
            _ => Err(de::Error::custom("Start of structure or map found where not expected.")),
        }
    }
}

fn structure<'de, A: MapAccess<'de>>(members: &'static [Member], mut entries: A) -> Result<Value, A::Error> {
    let mut map = Map::with_capacity(members.len().min(8));
    while let Some(member) = entries.next_key_seed(Name(members))? {
        match entries.next_value_seed(Seed(member.schema))? {
            Value::Null => {}
            value => map.insert(member.name, value),
        }
    }
    Ok(Value::Map(map))
}

fn map<'de, A: MapAccess<'de>>(of: &'static Schema, mut entries: A) -> Result<Value, A::Error> {
    let mut map = Map::new();
    while let Some(key) = entries.next_key::<String>()? {
        map.push(key, entries.next_value_seed(Seed(of))?);
    }
    Ok(Value::Map(map))
}

/// Finds a member by its name without keeping the name.
struct Name(&'static [Member]);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = &'static Member;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name {
    type Value = &'static Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        let member = self.0.iter().find(|member| member.name == name);
        member.ok_or_else(|| {
            E::custom(format!("Unknown field '{name}': this version of the API does not have it."))
        })
    }
}

fn seconds<E: de::Error>(schema: &Schema, number: f64) -> Result<Value, E> {
    Timestamp::from_seconds(number).map(Value::Timestamp).ok_or_else(|| mismatch(schema, "NUMBER_VALUE"))
}

fn mismatch<E: de::Error>(schema: &Schema, found: &str) -> E {
    match schema.kind {
        Kind::Structure(_) => E::custom("Unexpected field type"),
        _ => E::custom(format!("{found} can not be converted to {}", wanted(schema))),
    }
}

fn wanted(schema: &Schema) -> &'static str {
    match schema.kind {
        Kind::Structure(_) => "a Structure",
        Kind::List { .. } => "a List",
        Kind::Map { .. } => "a Map",
        Kind::String { .. } => "a String",
        Kind::Integer(_) => "an Integer",
        Kind::Long(_) => "a Long",
        Kind::Double(_) => "a Double",
        Kind::Boolean => "a Boolean",
        Kind::Blob(_) => "a Blob",
        Kind::Timestamp => "a Date",
        Kind::Document => "a Document",
    }
}
