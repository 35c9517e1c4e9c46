//! What the API models say about a shape, as static tables that the generated crates fill.
//! Invariant: a table holds facts of the model alone; how a protocol writes them is in `protocol`.

use std::sync::OnceLock;

use regex::Regex;

#[derive(Debug)]
pub struct Schema {
    pub kind: Kind,
    /// Left out of messages and of `Debug`.
    pub sensitive: bool,
}

#[derive(Debug)]
pub enum Kind {
    Structure(&'static [Member]),
    List {
        of: &'static Schema,
        element: &'static str,
        flattened: bool,
        length: Bounds,
    },
    Map {
        of: &'static Schema,
        key: &'static Schema,
        entry: MapNames,
        length: Bounds,
    },
    String {
        length: Bounds,
        pattern: Option<&'static Pattern>,
        values: &'static [&'static str],
    },
    Integer(Bounds),
    Long(Bounds),
    Double(Bounds),
    Boolean,
    Blob(Bounds),
    Timestamp,
    /// Any JSON.
    Document,
}

#[derive(Debug)]
pub struct Member {
    /// The model's name, also the JSON name and the key in a `Value`.
    pub name: &'static str,
    /// The name in a query or ec2 request.
    pub query: &'static str,
    /// The element's name in an XML response.
    pub xml: &'static str,
    pub required: bool,
    pub schema: &'static Schema,
}

#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub min: Option<f64>,
    pub max: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
pub struct MapNames {
    pub key: &'static str,
    pub value: &'static str,
    pub flattened: bool,
}

/// A pattern of the model, which a value must match as a whole.
#[derive(Debug)]
pub struct Pattern {
    /// As the model writes it, for messages.
    pub text: &'static str,
    /// As `regex` reads it; the generator has compiled it once.
    source: &'static str,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    pub const fn new(text: &'static str, source: &'static str) -> Self {
        Self { text, source, compiled: OnceLock::new() }
    }

    pub fn matches(&self, text: &str) -> bool {
        let compiled = self.compiled.get_or_init(|| Regex::new(&format!("^(?:{})$", self.source)).ok());
        compiled.as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

pub const ANY: Bounds = Bounds { min: None, max: None };

pub const fn at_least(min: f64) -> Bounds {
    Bounds { min: Some(min), max: None }
}

pub const fn at_most(max: f64) -> Bounds {
    Bounds { min: None, max: Some(max) }
}

pub const fn within(min: f64, max: f64) -> Bounds {
    Bounds { min: Some(min), max: Some(max) }
}

pub static STRING: Schema = string(ANY, None);
pub static INTEGER: Schema = integer(ANY);
pub static LONG: Schema = long(ANY);
pub static DOUBLE: Schema = double(ANY);
pub static BOOLEAN: Schema = plain(Kind::Boolean);
pub static BLOB: Schema = plain(Kind::Blob(ANY));
pub static TIMESTAMP: Schema = plain(Kind::Timestamp);
pub static DOCUMENT: Schema = plain(Kind::Document);
pub static EMPTY: Schema = structure(&[]);

pub const fn structure(members: &'static [Member]) -> Schema {
    plain(Kind::Structure(members))
}

/// A list whose elements are called `element` in XML and in query requests.
pub const fn list(of: &'static Schema, element: &'static str, length: Bounds) -> Schema {
    plain(Kind::List { of, element, flattened: false, length })
}

pub const fn flat_list(of: &'static Schema, element: &'static str, length: Bounds) -> Schema {
    plain(Kind::List { of, element, flattened: true, length })
}

pub const fn map(key: &'static Schema, of: &'static Schema, entry: MapNames, length: Bounds) -> Schema {
    plain(Kind::Map { of, key, entry, length })
}

pub const fn string(length: Bounds, pattern: Option<&'static Pattern>) -> Schema {
    plain(Kind::String { length, pattern, values: &[] })
}

pub const fn one_of(values: &'static [&'static str]) -> Schema {
    plain(Kind::String { length: ANY, pattern: None, values })
}

pub const fn integer(range: Bounds) -> Schema {
    plain(Kind::Integer(range))
}

pub const fn long(range: Bounds) -> Schema {
    plain(Kind::Long(range))
}

pub const fn double(range: Bounds) -> Schema {
    plain(Kind::Double(range))
}

pub const fn blob(length: Bounds) -> Schema {
    plain(Kind::Blob(length))
}

const fn plain(kind: Kind) -> Schema {
    Schema { kind, sensitive: false }
}

impl Schema {
    #[must_use]
    pub const fn secret(self) -> Self {
        Self { kind: self.kind, sensitive: true }
    }

    pub fn members(&self) -> &'static [Member] {
        match self.kind {
            Kind::Structure(members) => members,
            _ => &[],
        }
    }
}

/// A member that may be left out, under the same name everywhere.
pub const fn optional(name: &'static str, schema: &'static Schema) -> Member {
    Member { name, query: name, xml: name, required: false, schema }
}

pub const fn required(name: &'static str, schema: &'static Schema) -> Member {
    Member { name, query: name, xml: name, required: true, schema }
}

impl Member {
    /// Gives the names in requests and in XML responses where they differ from the model's.
    #[must_use]
    pub const fn called(self, query: &'static str, xml: &'static str) -> Self {
        Self { query, xml, ..self }
    }
}
