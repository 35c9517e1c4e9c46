//! A whole cluster on one thread: the store's index, the engine's decisions and modelled agents, with faults.
//!
//! Invariant: a seed decides everything. The same seed gives the same history, so a failure is a number.

mod agent;
mod cluster;
pub mod large;
mod properties;
mod random;
pub mod rivals;
mod scenario;

pub use scenario::{Report, Scenario, run};
