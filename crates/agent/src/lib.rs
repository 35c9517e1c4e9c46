//! (to come)

pub mod cgroup;
pub mod image;
pub mod logs;
pub mod network;
pub mod runtime;
