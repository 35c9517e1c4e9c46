//! Attributes. Invariant: a record keeps what differs from the defaults, and nothing that has no effect.

mod listener;
mod load_balancer;
mod target_group;

pub use listener::{describe as describe_of_listener, modify as modify_of_listener};
pub use load_balancer::{describe as describe_of_load_balancer, modify as modify_of_load_balancer};
pub use target_group::{describe as describe_of_target_group, modify as modify_of_target_group};

use super::{invalid, misfit, refuse};
use longshore_model::elb::Attributes;
use longshore_wire::Fault;

/// An attribute that a resource has.
struct Attribute {
    name: &'static str,
    default: &'static str,
    values: Values,
    effect: Effect,
}

/// Which values an attribute may have.
#[derive(Clone, Copy)]
enum Values {
    /// `true` or `false`.
    Switch,
    OneOf(&'static [&'static str]),
    /// From the first to the last.
    Number(u32, u32),
    /// A number, or this text in place of one.
    NumberOr(&'static str, u32, u32),
    Text,
}

/// Which of its values have their effect.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Every,
    /// The default, and these.
    Only(&'static [&'static str]),
}

const NONE: Effect = Effect::Only(&[]);

impl Attribute {
    const fn new(name: &'static str, default: &'static str, values: Values, effect: Effect) -> Self {
        Self { name, default, values, effect }
    }

    fn check(&self, value: &str) -> Result<(), Fault> {
        let name = self.name;
        let one_of = |allowed: &[&str]| match allowed.contains(&value) {
            true => Ok(()),
            false => {
                Err(invalid(format!("'{name}' value '{value}' must be one of [{}]", allowed.join(", "))))
            }
        };
        let between =
            |least: u32, most: u32| match value.parse().is_ok_and(|n: u32| (least..=most).contains(&n)) {
                true => Ok(()),
                false => Err(invalid(format!(
                    "'{name}' value '{value}' must be between '{least}-{most}' inclusive"
                ))),
            };
        match self.values {
            Values::Switch => one_of(&["true", "false"]),
            Values::OneOf(allowed) => one_of(allowed),
            Values::Number(least, most) => between(least, most),
            Values::NumberOr(other, ..) if value == other => Ok(()),
            Values::NumberOr(_, least, most) => between(least, most),
            Values::Text => Ok(()),
        }
    }

    fn check_effect(&self, value: &str) -> Result<(), Fault> {
        let has_effect = match self.effect {
            Effect::Every => true,
            Effect::Only(values) => value == self.default || values.contains(&value),
        };
        refuse(&[(&format!("{}={value}", self.name), !has_effect)])
    }
}

/// All attributes, each with its value.
fn all(attributes: &[Attribute], set: &Attributes) -> impl Iterator<Item = (String, String)> {
    attributes.iter().map(|attribute| {
        let value = set.get(attribute.name).map_or(attribute.default, String::as_str);
        (attribute.name.to_owned(), value.to_owned())
    })
}

/// What is set when these keys are given these values.
fn changed(
    what: &str,
    attributes: &[Attribute],
    set: &Attributes,
    given: impl IntoIterator<Item = (Option<String>, Option<String>)>,
) -> Result<Attributes, Fault> {
    let mut next = set.clone();
    let mut seen: Vec<&str> = Vec::new();
    for (key, value) in given {
        let key = key.filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| invalid(format!("{what} attribute key must be specified")))?;
        let attribute = attributes.iter().find(|attribute| attribute.name == key);
        let attribute =
            attribute.ok_or_else(|| invalid(format!("{what} attribute key '{key}' is not recognized")))?;
        if seen.contains(&attribute.name) {
            return Err(misfit(format!("{what} attribute key '{key}' was specified more than once")));
        }
        seen.push(attribute.name);
        let mut value = value.unwrap_or_default();
        if matches!(attribute.values, Values::Switch) {
            value.make_ascii_lowercase();
        }
        attribute.check(&value)?;
        attribute.check_effect(&value)?;
        match value == attribute.default {
            true => next.remove(attribute.name),
            false => next.insert(attribute.name.to_owned(), value),
        };
    }
    Ok(next)
}
