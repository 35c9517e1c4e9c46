//! Writes the static tables that the protocols read requests and write XML by.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::model::{Kind, Member, Plan, Protocol, Shape};
use super::{names, pattern, render};

pub fn schemas(plan: &Plan<'_>) -> Result<String, String> {
    let patterns = patterns(plan);
    let mut text = render::header("The model's constraints and wire names.");
    text.push_str("use longshore_wire::{Schema, schema as s};\n\n");
    for (pattern, name) in &patterns {
        let source = pattern::translate(pattern)?;
        let _ = writeln!(text, "static {name}: s::Pattern = s::Pattern::new({pattern:?}, {source:?});");
    }
    for name in &plan.schemas {
        let shape = plan.model.shape(name)?;
        if shared(shape).is_some() {
            continue;
        }
        let secret = if shape.sensitive { ".secret()" } else { "" };
        let table = table(plan, shape, &patterns)?;
        let _ = writeln!(text, "pub(crate) static {}: Schema = {table}{secret};", names::static_name(name));
    }
    Ok(text)
}

/// The expression that names a shape's table, from inside `schemas.rs`.
fn reference(plan: &Plan<'_>, name: &str) -> Result<String, String> {
    Ok(match shared(plan.model.shape(name)?) {
        Some(shared) => format!("&s::{shared}"),
        None => format!("&{}", names::static_name(name)),
    })
}

/// The table in `longshore_wire` of a shape that has no constraint.
fn shared(shape: &Shape) -> Option<&'static str> {
    if shape.sensitive || shape.min.is_some() || shape.max.is_some() || shape.pattern.is_some() {
        return None;
    }
    match shape.kind {
        Kind::String => Some("STRING"),
        Kind::Integer => Some("INTEGER"),
        Kind::Long => Some("LONG"),
        Kind::Double => Some("DOUBLE"),
        Kind::Boolean => Some("BOOLEAN"),
        Kind::Blob => Some("BLOB"),
        Kind::Timestamp => Some("TIMESTAMP"),
        Kind::Document => Some("DOCUMENT"),
        Kind::Structure(_) | Kind::List { .. } | Kind::Map { .. } | Kind::Enumeration(_) => None,
    }
}

fn patterns<'a>(plan: &Plan<'a>) -> BTreeMap<&'a str, String> {
    let mut patterns = BTreeMap::new();
    for shape in plan.schemas.iter().filter_map(|name| plan.model.shapes.get(*name)) {
        if let (Kind::String, Some(pattern)) = (&shape.kind, &shape.pattern) {
            let number = patterns.len() + 1;
            patterns.entry(pattern.as_str()).or_insert_with(|| format!("PATTERN_{number}"));
        }
    }
    patterns
}

fn table(plan: &Plan<'_>, shape: &Shape, patterns: &BTreeMap<&str, String>) -> Result<String, String> {
    let bounds = bounds(shape);
    Ok(match &shape.kind {
        Kind::Structure(members) => structure(plan, members)?,
        Kind::List { of, element, flattened } => {
            let form = if *flattened { "flat_list" } else { "list" };
            let element = element.as_deref().unwrap_or("member");
            format!("s::{form}({}, {element:?}, {bounds})", reference(plan, of)?)
        }
        Kind::Map { key, of, key_name, value_name, flattened } => {
            let names =
                format!("s::MapNames {{ key: {key_name:?}, value: {value_name:?}, flattened: {flattened} }}");
            format!("s::map({}, {}, {names}, {bounds})", reference(plan, key)?, reference(plan, of)?)
        }
        Kind::String => {
            let pattern = shape.pattern.as_deref().and_then(|pattern| patterns.get(pattern));
            let pattern = pattern.map_or_else(|| "None".to_owned(), |name| format!("Some(&{name})"));
            format!("s::string({bounds}, {pattern})")
        }
        Kind::Enumeration(values) => format!("s::one_of(&{values:?})"),
        Kind::Integer => format!("s::integer({bounds})"),
        Kind::Long => format!("s::long({bounds})"),
        Kind::Double => format!("s::double({bounds})"),
        Kind::Blob => format!("s::blob({bounds})"),
        Kind::Boolean | Kind::Timestamp | Kind::Document => {
            return Err("a flag, a time or a document with constraints is not generated".into());
        }
    })
}

fn structure(plan: &Plan<'_>, members: &[Member]) -> Result<String, String> {
    let mut text = String::from("s::structure(&[\n");
    for member in members {
        let form = if member.required { "required" } else { "optional" };
        let (query, xml) = wire_names(plan.model.protocol, member);
        let called = match query == member.name && xml == member.name {
            true => String::new(),
            false => format!(".called({query:?}, {xml:?})"),
        };
        let _ =
            writeln!(text, "    s::{form}({:?}, {}){called},", member.name, reference(plan, &member.shape)?);
    }
    text.push_str("])");
    Ok(text)
}

/// The member's names in requests and in XML responses.
fn wire_names(protocol: Protocol, member: &Member) -> (String, String) {
    let xml = member.location.clone().unwrap_or_else(|| member.name.clone());
    let query = match protocol {
        Protocol::Ec2 => member.query_name.clone().unwrap_or_else(|| {
            let mut letters = xml.chars();
            letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
        }),
        Protocol::Query | Protocol::Json10 | Protocol::Json11 => xml.clone(),
    };
    (query, xml)
}

fn bounds(shape: &Shape) -> String {
    match (shape.min, shape.max) {
        (None, None) => "s::ANY".to_owned(),
        (Some(min), None) => format!("s::at_least({min:?})"),
        (None, Some(max)) => format!("s::at_most({max:?})"),
        (Some(min), Some(max)) => format!("s::within({min:?}, {max:?})"),
    }
}
