//! The messages between control and an edge. Invariant: each says how things are, as those of agents do.

use crate::change::{Change, Key};
use crate::elb::TargetHealth;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// From control to an edge. It is sent the records of the tables that traffic depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToEdge {
    /// All of them; what the edge has besides is gone. Sent first on each link.
    Everything(Vec<Row>),
    /// Those that changed, as they are now.
    Changed(Vec<Row>),
}

/// From an edge to control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromEdge {
    /// What became of targets.
    Targets(Vec<TargetReport>),
}

/// A record as the store has it, or that it has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub key: Key,
    /// JSON.
    pub value: Option<String>,
}

impl From<Row> for Change {
    fn from(row: Row) -> Self {
        Self { key: row.key, value: row.value.map(|value| value.into_bytes().into()) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetReport {
    /// The target's record, as it was registered then: one of the same name that came later is another.
    pub target: Key,
    pub registered_at: Timestamp,
    pub seen: TargetSeen,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TargetSeen {
    Health(TargetHealth),
    /// It was deregistered, and its last connection has ended.
    Drained,
}
