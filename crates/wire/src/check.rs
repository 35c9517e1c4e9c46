//! Checks a request against the model's constraints, in AWS's words.
//! Invariant: every violation names the path of its value, list indexes included, and shows no sensitive value.

use std::fmt::Write as _;

use crate::schema::{Bounds, Kind};
use crate::{Fault, Schema, ServiceInfo, Value, Violations};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The names of members and the numbers of elements, from the outside in.
    pub path: Vec<Step>,
    /// As a message shows it; nothing where it is sensitive.
    pub value: Option<String>,
    pub missing: bool,
    /// `Member must not be null`
    pub constraint: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The model's name and the name in a query request.
    Member(&'static str, &'static str),
    /// Counted from one.
    Element(usize),
    Key(String),
}

/// The longest list of violations that a message carries.
const MOST: usize = 20;

pub(crate) fn check(value: &Value, schema: &'static Schema) -> Vec<Violation> {
    let mut checker = Checker { path: Vec::new(), found: Vec::new() };
    checker.value(value, schema);
    checker.found
}

pub(crate) fn fault(service: &ServiceInfo, violations: &[Violation]) -> Fault {
    match service.violations {
        Violations::Listed(code) => Fault::sender(code, listed(violations)),
        Violations::Ec2 => match violations.first() {
            Some(first) if first.missing => Fault::sender(
                "MissingParameter",
                format!("The request must contain the parameter {}", query_path(first)),
            ),
            Some(first) => {
                let value = first.value.as_deref().unwrap_or("***");
                let message = format!(
                    "Value ({value}) for parameter {} is invalid. {}",
                    query_path(first),
                    first.constraint
                );
                Fault::sender("InvalidParameterValue", message)
            }
            None => Fault::sender("InvalidParameterValue", "The request is invalid."),
        },
    }
}

fn listed(violations: &[Violation]) -> String {
    let plural = if violations.len() == 1 { "" } else { "s" };
    let mut text = format!("{} validation error{plural} detected: ", violations.len());
    for (at, violation) in violations.iter().enumerate() {
        if at > 0 {
            text.push_str("; ");
        }
        text.push_str("Value ");
        match (&violation.value, violation.missing) {
            (_, true) => text.push_str("null "),
            (Some(value), false) => {
                let _ = write!(text, "'{value}' ");
            }
            (None, false) => {}
        }
        let _ = write!(
            text,
            "at '{}' failed to satisfy constraint: {}",
            model_path(violation),
            violation.constraint
        );
    }
    text
}

/// `tags.1.member.value`, as AWS's JSON and query services write it.
fn model_path(violation: &Violation) -> String {
    let mut text = String::new();
    for step in &violation.path {
        if !text.is_empty() {
            text.push('.');
        }
        match step {
            Step::Member(name, _) => {
                let mut letters = name.chars();
                text.extend(letters.next().map(|first| first.to_ascii_lowercase()));
                text.push_str(letters.as_str());
            }
            Step::Element(number) => {
                let _ = write!(text, "{number}.member");
            }
            Step::Key(key) => {
                let _ = write!(text, "{key}.member");
            }
        }
    }
    text
}

/// `Filter.1.Name`, as a client of EC2 sent it.
fn query_path(violation: &Violation) -> String {
    let mut text = String::new();
    for step in &violation.path {
        if !text.is_empty() {
            text.push('.');
        }
        match step {
            Step::Member(_, query) => text.push_str(query),
            Step::Element(number) => {
                let _ = write!(text, "{number}");
            }
            Step::Key(key) => text.push_str(key),
        }
    }
    text
}

struct Checker {
    path: Vec<Step>,
    found: Vec<Violation>,
}

impl Checker {
    fn value(&mut self, value: &Value, schema: &'static Schema) {
        match (&schema.kind, value) {
            (_, Value::Null) => self.missing(),
            (Kind::Structure(_), Value::Map(map)) => self.structure(map, schema),
            (Kind::List { of, length, .. }, Value::List(values)) => {
                self.length(values.len(), *length, value, schema);
                for (at, element) in values.iter().enumerate() {
                    self.step(Step::Element(at + 1), element, of);
                }
            }
            (Kind::Map { of, key, length, .. }, Value::Map(map)) => {
                self.length(map.len(), *length, value, schema);
                for (name, member) in map.iter() {
                    self.key(name, key);
                    self.step(Step::Key(name.to_owned()), member, of);
                }
            }
            (Kind::String { .. }, Value::String(text)) => self.string(text, value, schema),
            (Kind::Integer(range) | Kind::Long(range) | Kind::Double(range), Value::Int(number)) => {
                self.range(*number as f64, *range, value, schema);
            }
            (Kind::Double(range), Value::Float(number)) => self.range(*number, *range, value, schema),
            (Kind::Blob(length), Value::Blob(bytes)) => self.length(bytes.len(), *length, value, schema),
            _ => {}
        }
    }

    fn structure(&mut self, map: &crate::Map, schema: &'static Schema) {
        for member in schema.members() {
            match map.get(member.name) {
                Some(value) => self.step(Step::Member(member.name, member.query), value, member.schema),
                None if member.required => {
                    self.path.push(Step::Member(member.name, member.query));
                    self.missing();
                    self.path.pop();
                }
                None => {}
            }
        }
    }

    fn step(&mut self, step: Step, value: &Value, schema: &'static Schema) {
        self.path.push(step);
        self.value(value, schema);
        self.path.pop();
    }

    fn key(&mut self, name: &str, schema: &'static Schema) {
        if matches!(schema.kind, Kind::String { .. }) {
            self.string(name, &Value::from(name.to_owned()), schema);
        }
    }

    fn string(&mut self, text: &str, value: &Value, schema: &'static Schema) {
        let Kind::String { length, pattern, values } = &schema.kind else {
            return;
        };
        if length.min.is_some() || length.max.is_some() {
            self.length(text.chars().count(), *length, value, schema);
        }
        if let Some(pattern) = pattern
            && !pattern.matches(text)
        {
            let constraint = format!("Member must satisfy regular expression pattern: {}", pattern.text);
            self.violated(value, schema, constraint);
        }
        if !values.is_empty() && !values.contains(&text) {
            let constraint = format!("Member must satisfy enum value set: [{}]", values.join(", "));
            self.violated(value, schema, constraint);
        }
    }

    fn length(&mut self, length: usize, bounds: Bounds, value: &Value, schema: &'static Schema) {
        self.bounds(length as f64, bounds, "length", value, schema);
    }

    fn range(&mut self, number: f64, bounds: Bounds, value: &Value, schema: &'static Schema) {
        self.bounds(number, bounds, "value", value, schema);
    }

    fn bounds(&mut self, number: f64, bounds: Bounds, what: &str, value: &Value, schema: &'static Schema) {
        if let Some(min) = bounds.min
            && number < min
        {
            self.violated(value, schema, format!("Member must have {what} greater than or equal to {min}"));
        }
        if let Some(max) = bounds.max
            && number > max
        {
            self.violated(value, schema, format!("Member must have {what} less than or equal to {max}"));
        }
    }

    fn violated(&mut self, value: &Value, schema: &Schema, constraint: String) {
        let value = (!schema.sensitive).then(|| shown(value, schema));
        self.push(Violation { path: self.path.clone(), value, missing: false, constraint });
    }

    fn missing(&mut self) {
        let constraint = "Member must not be null".to_owned();
        self.push(Violation { path: self.path.clone(), value: None, missing: true, constraint });
    }

    fn push(&mut self, violation: Violation) {
        if self.found.len() < MOST {
            self.found.push(violation);
        }
    }
}

/// A value as messages show it, cut where it is long, without what is sensitive in it.
fn shown(value: &Value, schema: &Schema) -> String {
    const LONGEST: usize = 1024;
    const MOST_ELEMENTS: usize = 20;
    if schema.sensitive {
        return "***".to_owned();
    }
    let mut text = match (value, &schema.kind) {
        (Value::String(text), _) => text.to_string(),
        (Value::Int(number), _) => number.to_string(),
        (Value::Float(number), _) => number.to_string(),
        (Value::Bool(flag), _) => flag.to_string(),
        (Value::List(values), Kind::List { of, .. }) => {
            let shown: Vec<_> = values.iter().take(MOST_ELEMENTS).map(|value| shown(value, of)).collect();
            format!("[{}]", shown.join(", "))
        }
        (Value::Map(map), Kind::Map { of, .. }) => {
            let entry = |(key, value)| format!("{key}={}", shown(value, of));
            let shown: Vec<_> = map.iter().take(MOST_ELEMENTS).map(entry).collect();
            format!("{{{}}}", shown.join(", "))
        }
        (other, _) => other.kind().to_owned(),
    };
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
}
