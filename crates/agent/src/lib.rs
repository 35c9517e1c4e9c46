//! The shell on an instance: containers, networks, images and the shipping of logs.
//! Invariant: the agent holds no truth; what should run comes from control, what does run from the machine.

pub mod agent;
pub mod cgroup;
pub mod image;
pub mod logs;
pub mod network;
pub mod runtime;
mod supervise;
