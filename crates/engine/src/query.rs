//! The cluster query language, in which users say which container instances they mean.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/cluster-query-language.html>.
//!
//! Invariant: reading and asking cost at most what the length of the text allows; nothing in a text can make them fail
//! otherwise than by an [`Error`].

mod instant;
mod parse;

use crate::view::View;
use longshore_model::container_instance::ContainerInstance;
use longshore_model::task::{DesiredStatus, LastStatus};
use regex::Regex;
use std::cmp::Ordering;
use std::fmt;

/// The longest expression, in characters.
pub const LONGEST: usize = 2000;

/// A question that is true or false of a container instance.
#[derive(Clone, Debug)]
pub enum Expression {
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Not(Box<Expression>),
    Exists(Subject),
    Is(Subject, Relation, Value),
    In(Subject, Vec<Value>),
    Matches(Subject, Pattern),
}

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    AgentConnected,
    AgentVersion,
    Attribute(String),
    Ec2InstanceId,
    RegisteredAt,
    RunningTasksCount,
    TaskGroup,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// As it was written, without its quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value(pub String);

/// A regular expression that the whole value must match.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    compiled: Regex,
}

/// What is wrong with an expression, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} at character {position}")]
pub struct Error {
    /// Characters before it, plus one.
    pub position: usize,
    pub message: String,
}

impl Expression {
    /// # Errors
    /// Says what is not understood, and where.
    pub fn parse(text: &str) -> Result<Self, Error> {
        parse::expression(text)
    }

    pub fn is_true_of(&self, view: &View, instance: &ContainerInstance) -> bool {
        self.holds(Some(view), instance)
    }

    /// Whether it is true of an instance if that has no tasks.
    pub fn is_true_of_empty(&self, instance: &ContainerInstance) -> bool {
        self.holds(None, instance)
    }

    /// Whether it may be true at one time and not at another though the instance's record is the same.
    pub fn asks_of_tasks(&self) -> bool {
        match self {
            Self::And(left, right) | Self::Or(left, right) => left.asks_of_tasks() || right.asks_of_tasks(),
            Self::Not(inner) => inner.asks_of_tasks(),
            Self::Exists(subject)
            | Self::Is(subject, _, _)
            | Self::In(subject, _)
            | Self::Matches(subject, _) => subject.asks_of_tasks(),
        }
    }

    fn holds(&self, view: Option<&View>, instance: &ContainerInstance) -> bool {
        match self {
            Self::And(left, right) => left.holds(view, instance) && right.holds(view, instance),
            Self::Or(left, right) => left.holds(view, instance) || right.holds(view, instance),
            Self::Not(inner) => !inner.holds(view, instance),
            Self::Exists(subject) => subject.any(view, instance, |_| true),
            Self::Is(subject, relation, wanted) => {
                subject.any(view, instance, |value| relation.holds(subject.compare(value, &wanted.0)))
            }
            Self::In(subject, wanted) => subject.any(view, instance, |value| {
                wanted.iter().any(|wanted| subject.compare(value, &wanted.0) == Some(Ordering::Equal))
            }),
            Self::Matches(subject, pattern) => {
                subject.any(view, instance, |value| pattern.compiled.is_match(value))
            }
        }
    }
}

impl Subject {
    /// Whether one of the values that the instance has for it is as wanted. Only `task:group` can have several.
    fn any(&self, view: Option<&View>, instance: &ContainerInstance, wanted: impl Fn(&str) -> bool) -> bool {
        let of = |value: Option<&str>| value.is_some_and(&wanted);
        let mut tasks = view.into_iter().flat_map(|view| view.tasks_on(instance.id));
        match self {
            Self::AgentConnected => wanted(if instance.agent_connected { "true" } else { "false" }),
            Self::AgentVersion => wanted(&instance.agent.agent),
            Self::Attribute(name) => of(instance.attributes.get(name).map(String::as_str)),
            Self::Ec2InstanceId => {
                of(instance.membership().and_then(|member| member.ec2_instance_id.as_deref()))
            }
            Self::RegisteredAt => wanted(&instance.registered_at.millis().to_string()),
            Self::RunningTasksCount => {
                let running = tasks.filter(|task| task.last_status == LastStatus::Running);
                wanted(&running.count().to_string())
            }
            Self::TaskGroup => {
                tasks.any(|task| task.desired_status == DesiredStatus::Running && wanted(&task.group))
            }
        }
    }

    fn asks_of_tasks(&self) -> bool {
        match self {
            Self::RunningTasksCount | Self::TaskGroup => true,
            Self::AgentConnected
            | Self::AgentVersion
            | Self::Attribute(_)
            | Self::Ec2InstanceId
            | Self::RegisteredAt => false,
        }
    }

    /// How a value of the subject and one of an expression are ordered; `None` where they cannot be.
    fn compare(&self, value: &str, wanted: &str) -> Option<Ordering> {
        match self {
            Self::AgentVersion => Some(version(value).cmp(&version(wanted))),
            Self::RegisteredAt => Some(value.parse::<i64>().ok()?.cmp(&instant::millis(wanted)?)),
            Self::RunningTasksCount => Some(value.parse::<u64>().ok()?.cmp(&wanted.parse().ok()?)),
            Self::AgentConnected => Some(value.cmp(wanted.to_ascii_lowercase().as_str())),
            Self::Attribute(_) | Self::Ec2InstanceId | Self::TaskGroup => {
                let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
                match (number(value), number(wanted)) {
                    (Some(value), Some(wanted)) => value.partial_cmp(&wanted),
                    _ => Some(value.cmp(wanted)),
                }
            }
        }
    }
}

/// The numbers of a version: `v1.10.2` is after `1.9`.
fn version(text: &str) -> Vec<u64> {
    let numbers = text.trim_start_matches('v').split(['.', '-', '+']);
    let mut numbers: Vec<u64> = numbers.map_while(|number| number.parse().ok()).collect();
    while numbers.last() == Some(&0) {
        numbers.pop();
    }
    numbers
}

impl Relation {
    fn holds(self, ordering: Option<Ordering>) -> bool {
        let Some(ordering) = ordering else { return false };
        match self {
            Self::Equal => ordering.is_eq(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
        }
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

/// With all its parentheses; reading it again gives the same expression.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::And(left, right) => write!(f, "({left} and {right})"),
            Self::Or(left, right) => write!(f, "({left} or {right})"),
            Self::Not(inner) => write!(f, "not ({inner})"),
            Self::Exists(subject) => write!(f, "{subject} exists"),
            Self::Is(subject, relation, value) => write!(f, "{subject} {} {value}", relation.sign()),
            Self::In(subject, values) => {
                let values: Vec<String> = values.iter().map(ToString::to_string).collect();
                write!(f, "{subject} in [{}]", values.join(", "))
            }
            Self::Matches(subject, pattern) => write!(f, "{subject} =~ {}", Value(pattern.text.clone())),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AgentConnected => f.write_str("agentConnected"),
            Self::AgentVersion => f.write_str("agentVersion"),
            Self::Attribute(name) => write!(f, "attribute:{name}"),
            Self::Ec2InstanceId => f.write_str("ec2InstanceId"),
            Self::RegisteredAt => f.write_str("registeredAt"),
            Self::RunningTasksCount => f.write_str("runningTasksCount"),
            Self::TaskGroup => f.write_str("task:group"),
        }
    }
}

/// In the quotes that it does not contain.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('"') { '\'' } else { '"' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

#[cfg(test)]
mod tests;
