//! The versioned key-value store that holds all of Longshore's truth.
//!
//! Invariant: a commit takes effect whole and durably, or not at all; everyone who follows sees the same commits in
//! the same order.

pub mod embedded;
mod engine;
pub mod etcd;
pub mod index;
pub mod memory;
mod store;

pub use engine::{Changes, Engine, Error, Event, Loaded, Outcome};
pub use store::{Followed, Follower, Snapshot, Store};
