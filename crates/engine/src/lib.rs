//! Every decision of Longshore, as plain functions over a view.
//! Invariant: no I/O, no clock, no chance; the same input gives the same output, byte for byte.

pub mod admission;
pub mod alarms;
pub mod assignment;
pub mod auto_scaling;
pub mod capacity_provider;
pub mod codedeploy;
pub mod default_vpc;
pub mod discovery;
pub mod dns;
pub mod edge;
pub mod elb;
pub mod events;
pub mod firewall;
pub mod instance;
pub mod instance_type;
pub mod lifecycle;
pub mod managed_scaling;
pub mod membership;
pub mod metrics;
pub mod placement;
pub mod query;
pub mod registration;
pub mod retention;
pub mod service;
#[cfg(test)]
mod testing;
pub mod view;
pub mod why;

pub use view::View;
