//! The control plane's shell: one module per AWS API, the connections of agents, and what is kept beside the
//! records. Invariant: truth is in the store alone, and an answer is given after its commit is durable.

pub mod acm;
pub mod agents;
pub mod alarms;
pub mod api;
pub mod autoscaling;
pub mod cloudwatch;
pub mod codedeploy;
pub mod context;
pub mod coverage;
pub mod ec2;
pub mod ecs;
pub mod edges;
pub mod elbv2;
pub mod front;
mod hooks;
pub mod housekeeping;
pub mod liveness;
pub mod log_store;
pub mod logs;
pub mod metric_store;
pub mod pages;
pub mod reconcile;
pub mod refuse;
pub mod scaling;
mod secrets;
pub mod secretsmanager;
pub mod servicediscovery;
pub mod ssm;
pub mod sts;
pub mod vault;
mod wake;

pub use context::{Config, Context, RandomIds};
