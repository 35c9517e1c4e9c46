//! The query and ec2 request forms: `Tags.member.1.Key=name` and `Filter.1.Value.1=x`.
//!
//! Parameters become a tree by their dots first; the schema then says what each branch is. A query service
//! ignores parameters that the model does not know, EC2 refuses them.

use std::collections::BTreeMap;

use base64::Engine as _;

use super::Form;
use crate::schema::{Kind, MapNames};
use crate::{Fault, Map, Protocol, Schema, Timestamp, Value};

pub(super) const MALFORMED: &str = "MalformedInput";
pub(super) const EC2_MALFORMED: &str = "InvalidParameterValue";

/// More dots than any parameter of a model has.
const DEEPEST: usize = 32;

/// Parameters of the protocols themselves and of presigned requests.
const COMMON: &[&str] =
    &["Action", "Version", "AWSAccessKeyId", "SignatureMethod", "SignatureVersion", "Timestamp"];

pub(super) fn read(form: Form, protocol: Protocol, schema: &'static Schema) -> Result<Value, Fault> {
    let mut root = Node::default();
    for (name, value) in form {
        if COMMON.contains(&name.as_str()) || name.starts_with("X-Amz-") {
            continue;
        }
        root.put(&name, value)?;
    }
    let reader = Reader { protocol };
    reader.structure("", root, schema)
}

#[derive(Default)]
struct Node {
    value: Option<String>,
    children: BTreeMap<String, Node>,
}

impl Node {
    fn put(&mut self, name: &str, value: String) -> Result<(), Fault> {
        let mut node = self;
        for (depth, part) in name.split('.').enumerate() {
            if depth == DEEPEST {
                return Err(Fault::sender(MALFORMED, "The name of a parameter has too many parts."));
            }
            node = node.children.entry(part.to_owned()).or_default();
        }
        node.value = Some(value);
        Ok(())
    }

    /// The children with numbers for names, by number.
    fn numbered(self, path: &str, reader: &Reader) -> Result<Vec<(u32, Node)>, Fault> {
        let mut elements = Vec::with_capacity(self.children.len());
        for (name, node) in self.children {
            match name.parse::<u32>() {
                Ok(number) => elements.push((number, node)),
                Err(_) => return Err(reader.unknown(&join(path, &name))),
            }
        }
        elements.sort_by_key(|(number, _)| *number);
        Ok(elements)
    }
}

struct Reader {
    protocol: Protocol,
}

impl Reader {
    /// Nothing where the parameter is to be treated as absent.
    fn value(&self, path: &str, node: Node, schema: &'static Schema) -> Result<Option<Value>, Fault> {
        match &schema.kind {
            Kind::Structure(_) => self.structure(path, node, schema).map(Some),
            Kind::List { of, element, flattened, .. } => {
                self.list(path, node, of, element, *flattened).map(Some)
            }
            Kind::Map { of, entry, .. } => self.map(path, node, of, *entry).map(Some),
            _ => self.scalar(path, node, schema),
        }
    }

    fn structure(&self, path: &str, node: Node, schema: &'static Schema) -> Result<Value, Fault> {
        let mut map = Map::with_capacity(node.children.len());
        for (name, child) in node.children {
            let path = join(path, &name);
            match schema.members().iter().find(|member| member.query == name) {
                Some(member) => {
                    if let Some(value) = self.value(&path, child, member.schema)? {
                        map.insert(member.name, value);
                    }
                }
                None if self.protocol == Protocol::Ec2 => return Err(self.unknown(&path)),
                None => {}
            }
        }
        Ok(Value::Map(map))
    }

    fn list(
        &self,
        path: &str,
        mut node: Node,
        of: &'static Schema,
        element: &str,
        flattened: bool,
    ) -> Result<Value, Fault> {
        if !flattened && self.protocol != Protocol::Ec2 {
            // Older clients write `member` where the model gives the elements a name of their own.
            node = match node.children.remove(element).or_else(|| node.children.remove("member")) {
                Some(inner) => inner,
                None => return Ok(Value::List(Vec::new())),
            };
        }
        let mut values = Vec::new();
        for (number, child) in node.numbered(path, self)? {
            let path = join(path, &number.to_string());
            values.push(self.value(&path, child, of)?.unwrap_or(Value::Null));
        }
        Ok(Value::List(values))
    }

    fn map(&self, path: &str, mut node: Node, of: &'static Schema, entry: MapNames) -> Result<Value, Fault> {
        if !entry.flattened && self.protocol != Protocol::Ec2 {
            node = node.children.remove("entry").unwrap_or_default();
        }
        let mut map = Map::new();
        for (number, mut child) in node.numbered(path, self)? {
            let path = join(path, &number.to_string());
            let key = child.children.remove(entry.key).and_then(|key| key.value);
            let value = child.children.remove(entry.value).unwrap_or_default();
            let key = key.ok_or_else(|| self.malformed(&path, "", "a map's entry with a key"))?;
            map.push(key, self.value(&path, value, of)?.unwrap_or(Value::Null));
        }
        Ok(Value::Map(map))
    }

    fn scalar(&self, path: &str, node: Node, schema: &'static Schema) -> Result<Option<Value>, Fault> {
        if let Some(name) = node.children.into_keys().next()
            && self.protocol == Protocol::Ec2
        {
            return Err(self.unknown(&join(path, &name)));
        }
        let Some(text) = node.value else {
            return Ok(None);
        };
        let value = match &schema.kind {
            Kind::String { values, .. } if text.is_empty() && !values.is_empty() => return Ok(None),
            Kind::String { .. } => return Ok(Some(Value::from(text))),
            _ if text.is_empty() => return Ok(None),
            Kind::Integer(_) => text.parse::<i32>().ok().map(|number| Value::Int(number.into())),
            Kind::Long(_) => text.parse().ok().map(Value::Int),
            Kind::Double(_) => text.parse().ok().map(Value::Float),
            Kind::Boolean => boolean(&text).map(Value::Bool),
            Kind::Timestamp => timestamp(&text).map(Value::Timestamp),
            Kind::Blob(_) => base64::engine::general_purpose::STANDARD.decode(&text).ok().map(Value::Blob),
            Kind::Document | Kind::Structure(_) | Kind::List { .. } | Kind::Map { .. } => None,
        };
        value.map(Some).ok_or_else(|| self.malformed(path, &text, wanted(schema)))
    }

    fn unknown(&self, path: &str) -> Fault {
        match self.protocol {
            Protocol::Ec2 => {
                Fault::sender("UnknownParameter", format!("The parameter {path} is not recognized"))
            }
            _ => Fault::sender(MALFORMED, format!("Unexpected list element in {path}")),
        }
    }

    fn malformed(&self, path: &str, text: &str, wanted: &str) -> Fault {
        match self.protocol {
            Protocol::Ec2 => {
                Fault::sender(EC2_MALFORMED, format!("Invalid value '{text}' for {path}. Must be {wanted}."))
            }
            _ => Fault::sender(MALFORMED, format!("Invalid value '{text}' for {path}: must be {wanted}")),
        }
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn timestamp(text: &str) -> Option<Timestamp> {
    Timestamp::parse_iso(text).or_else(|| text.parse().ok().and_then(Timestamp::from_seconds))
}

fn wanted(schema: &Schema) -> &'static str {
    match schema.kind {
        Kind::Integer(_) | Kind::Long(_) => "an integer",
        Kind::Double(_) => "a number",
        Kind::Boolean => "true or false",
        Kind::Timestamp => "an ISO 8601 date",
        Kind::Blob(_) => "base64",
        _ => "a value of another kind",
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
