//! What users say about where tasks go. Follows
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-placement.html>.

use serde::{Deserialize, Serialize};

/// A rule that an instance must meet to be given a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlacementConstraint {
    /// No other task of the same group is on it.
    DistinctInstance,
    /// An expression of the cluster query language is true of it.
    MemberOf(String),
}

/// Which of the instances that could take a task does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlacementStrategy {
    Random,
    /// The one whose value of the field has the fewest tasks of the group.
    Spread(SpreadField),
    /// The one with the least left of a resource.
    Binpack(BinpackField),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpreadField {
    /// `instanceId`, or `host`, which means the same.
    Instance,
    /// `attribute:NAME`, by its name.
    Attribute(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BinpackField {
    Cpu,
    Memory,
}
