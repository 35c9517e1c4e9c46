//! What load balancers decide: which rule a request follows, where it goes, and how well a target is.

pub mod choice;
pub mod health;
pub mod routing;
pub mod targets;
