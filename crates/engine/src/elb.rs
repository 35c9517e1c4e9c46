//! What load balancers decide: which rule a request follows, where it goes, and how well a target is.

pub mod choice;
pub mod health;
mod members;
pub mod routing;
pub mod ssl_policy;
pub mod targets;

pub use members::{
    drained, groups_of, groups_used_by, listeners_of, load_balancers_by_group, orphans, rules_of,
    rules_of_all, targets_of,
};
