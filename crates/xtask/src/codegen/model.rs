//! botocore's `service-2.json`, and the part of it that a generated crate needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::names;

pub struct Model {
    pub api_version: String,
    pub signing_name: String,
    pub full_name: String,
    pub protocol: Protocol,
    /// Spoken besides.
    pub json: Option<Protocol>,
    pub target_prefix: String,
    pub xml_namespace: String,
    pub query_compatible: bool,
    pub operations: BTreeMap<String, Operation>,
    pub shapes: BTreeMap<String, Shape>,
}

/// Values that AWS sends and the models leave out, by shape. EC2 says `available` of the attachment of a gateway, and its
/// clients wait for it.
const LEFT_OUT: [(&str, &str); 1] = [("AttachmentStatus", "available")];

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Json10,
    Json11,
    Query,
    Ec2,
}

pub struct Operation {
    pub input: Option<String>,
    pub output: Option<String>,
    pub result_wrapper: String,
}

pub struct Shape {
    pub kind: Kind,
    pub sensitive: bool,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub pattern: Option<String>,
    pub error: Option<ErrorTraits>,
}

pub enum Kind {
    Structure(Vec<Member>),
    List { of: String, element: Option<String>, flattened: bool },
    Map { key: String, of: String, key_name: String, value_name: String, flattened: bool },
    String,
    Enumeration(Vec<String>),
    Integer,
    Long,
    Double,
    Boolean,
    Blob,
    Timestamp,
    Document,
}

pub struct Member {
    pub name: String,
    pub shape: String,
    pub required: bool,
    pub location: Option<String>,
    pub query_name: Option<String>,
}

pub struct ErrorTraits {
    pub code: Option<String>,
    pub status: u16,
    pub sender: bool,
}

/// What is generated: the served operations and the shapes that they reach.
pub struct Plan<'a> {
    pub model: &'a Model,
    pub operations: Vec<&'a str>,
    /// Shapes with a Rust type.
    pub types: BTreeSet<&'a str>,
    /// Shapes with a schema table.
    pub schemas: BTreeSet<&'a str>,
    pub errors: Vec<&'a str>,
}

impl Model {
    /// Loads the newest version of a service's model.
    pub fn load(models: &Path, service: &str) -> Result<Self, String> {
        let text = read_newest(&models.join(service))?;
        let root: Value = serde_json::from_str(&text).map_err(|error| format!("{service}: {error}"))?;
        let metadata = &root["metadata"];
        let endpoint_prefix = text_of(metadata, "endpointPrefix").unwrap_or_default();
        Ok(Self {
            api_version: text_of(metadata, "apiVersion").unwrap_or_default(),
            signing_name: text_of(metadata, "signingName").unwrap_or(endpoint_prefix),
            full_name: text_of(metadata, "serviceFullName").unwrap_or_default(),
            protocol: protocol(metadata)?,
            json: speaks_both(metadata).then_some(Protocol::Json10),
            target_prefix: text_of(metadata, "targetPrefix").unwrap_or_default(),
            xml_namespace: text_of(metadata, "xmlNamespace").unwrap_or_default(),
            query_compatible: metadata.get("awsQueryCompatible").is_some(),
            operations: entries(&root["operations"])
                .map(|(name, value)| (name.clone(), operation(value)))
                .collect(),
            shapes: entries(&root["shapes"])
                .map(|(name, value)| {
                    let mut shape = shape(value).map_err(|what| format!("{name}: {what}"))?;
                    if let Kind::Enumeration(values) = &mut shape.kind {
                        let left_out = LEFT_OUT.iter().filter(|(of, _)| of == name);
                        values.extend(left_out.map(|(_, value)| (*value).to_owned()));
                    }
                    Ok((name.clone(), shape))
                })
                .collect::<Result<_, String>>()?,
        })
    }

    pub fn shape(&self, name: &str) -> Result<&Shape, String> {
        self.shapes.get(name).ok_or_else(|| format!("the model has no shape {name}"))
    }

    pub fn plan<'a>(&'a self, operations: &[&'a str]) -> Result<Plan<'a>, String> {
        let xml = matches!(self.protocol, Protocol::Query | Protocol::Ec2);
        let mut plan = Plan {
            model: self,
            operations: operations.to_vec(),
            types: BTreeSet::new(),
            schemas: BTreeSet::new(),
            errors: self
                .shapes
                .iter()
                .filter(|(_, shape)| shape.error.is_some())
                .map(|(name, _)| name.as_str())
                .collect(),
        };
        for name in operations {
            let operation = self.operations.get(*name).ok_or("an operation went missing")?;
            for root in operation.input.iter().chain(&operation.output) {
                self.reach(root, &mut plan.types)?;
            }
            for root in operation.input.iter().chain(operation.output.iter().filter(|_| xml)) {
                self.reach(root, &mut plan.schemas)?;
            }
        }
        for error in plan.errors.clone() {
            for member in self.members(error).filter(|member| !member.is_message()) {
                self.reach(&member.shape, &mut plan.types)?;
            }
        }
        names::check_types(plan.types.iter().copied())?;
        Ok(plan)
    }

    pub fn members(&self, shape: &str) -> impl Iterator<Item = &Member> {
        let members = match self.shapes.get(shape).map(|shape| &shape.kind) {
            Some(Kind::Structure(members)) => members.as_slice(),
            _ => &[],
        };
        members.iter()
    }

    fn reach<'a>(&'a self, from: &'a str, reached: &mut BTreeSet<&'a str>) -> Result<(), String> {
        if !reached.insert(from) {
            return Ok(());
        }
        match &self.shape(from)?.kind {
            Kind::Structure(members) => {
                members.iter().try_for_each(|member| self.reach(&member.shape, reached))
            }
            Kind::List { of, .. } => self.reach(of, reached),
            Kind::Map { key, of, .. } => {
                self.reach(key, reached)?;
                self.reach(of, reached)
            }
            _ => Ok(()),
        }
    }
}

impl Member {
    pub fn is_message(&self) -> bool {
        self.name.eq_ignore_ascii_case("message")
    }
}

fn read_newest(service: &Path) -> Result<String, String> {
    let versions = fs::read_dir(service).map_err(|error| format!("read {}: {error}", service.display()))?;
    let newest =
        versions.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(|path| path.is_dir()).max();
    let newest = newest.ok_or_else(|| format!("{} holds no version", service.display()))?;
    let (plain, packed): (PathBuf, PathBuf) =
        (newest.join("service-2.json"), newest.join("service-2.json.gz"));
    if let Ok(text) = fs::read_to_string(plain) {
        return Ok(text);
    }
    let bytes = fs::read(&packed).map_err(|error| format!("read {}: {error}", packed.display()))?;
    let mut text = String::new();
    flate2::read::GzDecoder::new(bytes.as_slice())
        .read_to_string(&mut text)
        .map_err(|error| format!("unpack {}: {error}", packed.display()))?;
    Ok(text)
}

fn protocol(metadata: &Value) -> Result<Protocol, String> {
    match (metadata["protocol"].as_str(), metadata["jsonVersion"].as_str()) {
        (Some("json"), Some("1.0")) => Ok(Protocol::Json10),
        (Some("json"), _) => Ok(Protocol::Json11),
        (Some("query"), _) => Ok(Protocol::Query),
        (Some("ec2"), _) => Ok(Protocol::Ec2),
        _ if speaks_both(metadata) => Ok(Protocol::Query),
        (other, _) => Err(format!("protocol {other:?} is not generated yet")),
    }
}

/// Whether some clients of the service send forms, and others JSON 1.0.
fn speaks_both(metadata: &Value) -> bool {
    let protocols = metadata["protocols"].as_array().map(Vec::as_slice).unwrap_or_default();
    let speaks = |name: &str| protocols.iter().any(|protocol| protocol == name);
    speaks("query") && speaks("json") && metadata["jsonVersion"] == "1.0"
}

fn operation(value: &Value) -> Operation {
    Operation {
        input: text_of(&value["input"], "shape"),
        output: text_of(&value["output"], "shape"),
        result_wrapper: text_of(&value["output"], "resultWrapper").unwrap_or_default(),
    }
}

fn shape(value: &Value) -> Result<Shape, String> {
    let error = (value["exception"] == true || value.get("error").is_some()).then(|| {
        let traits = &value["error"];
        let server = value["fault"] == true || traits["fault"] == true;
        let default = if server { 500 } else { 400 };
        let status = traits["httpStatusCode"].as_u64().and_then(|status| u16::try_from(status).ok());
        ErrorTraits { code: text_of(traits, "code"), status: status.unwrap_or(default), sender: !server }
    });
    Ok(Shape {
        kind: kind(value)?,
        sensitive: value["sensitive"] == true,
        min: value["min"].as_f64(),
        max: value["max"].as_f64(),
        pattern: text_of(value, "pattern"),
        error,
    })
}

fn kind(value: &Value) -> Result<Kind, String> {
    let target = |of: &str| text_of(&value[of], "shape").ok_or_else(|| format!("no {of} shape"));
    Ok(match value["type"].as_str() {
        Some("structure") if value["document"] == true => Kind::Document,
        Some("structure") => Kind::Structure(members(value)?),
        Some("list") => Kind::List {
            of: target("member")?,
            element: text_of(&value["member"], "locationName"),
            flattened: value["flattened"] == true,
        },
        Some("map") => Kind::Map {
            key: target("key")?,
            of: target("value")?,
            key_name: text_of(&value["key"], "locationName").unwrap_or_else(|| "key".into()),
            value_name: text_of(&value["value"], "locationName").unwrap_or_else(|| "value".into()),
            flattened: value["flattened"] == true,
        },
        Some("string" | "character") => match value["enum"].as_array() {
            Some(values) => {
                Kind::Enumeration(values.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            }
            None => Kind::String,
        },
        Some("integer") => Kind::Integer,
        Some("long") => Kind::Long,
        Some("double" | "float") => Kind::Double,
        Some("boolean") => Kind::Boolean,
        Some("blob") => Kind::Blob,
        Some("timestamp") => Kind::Timestamp,
        other => return Err(format!("type {other:?} is unknown")),
    })
}

fn members(value: &Value) -> Result<Vec<Member>, String> {
    let required: BTreeSet<&str> =
        value["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut members: Vec<Member> = entries(&value["members"])
        .map(|(name, member)| {
            Ok(Member {
                name: name.clone(),
                shape: text_of(member, "shape").ok_or_else(|| format!("{name} has no shape"))?,
                required: required.contains(name.as_str()),
                location: text_of(member, "locationName"),
                query_name: text_of(member, "queryName"),
            })
        })
        .collect::<Result<_, String>>()?;
    members.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(members)
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn text_of(value: &Value, name: &str) -> Option<String> {
    value[name].as_str().map(str::to_owned)
}
