//! The nouns of Longshore: identifiers, ARNs, the records that the store keeps, and the messages
//! between control and agent. Invariant: nothing here does I/O, reads a clock or draws a random number.

pub mod alarm;
pub mod arn;
pub mod auto_scaling;
pub mod capacity_provider;
pub mod certificate;
pub mod change;
pub mod cluster;
pub mod codedeploy;
pub mod container_instance;
pub mod control_plane;
pub mod discovery;
pub mod elb;
pub mod event;
pub mod id;
pub mod instance;
pub mod join;
pub mod link;
pub mod log_group;
pub mod placement;
pub mod record;
pub mod resources;
pub mod route;
pub mod scope;
pub mod secret;
pub mod service;
pub mod tag;
pub mod task;
pub mod task_definition;
pub mod time;
pub mod vpc;

pub use change::Version;
pub use id::{ContainerInstanceId, TaskId};
pub use record::{Record, Transaction};
pub use resources::Resources;
pub use scope::Scope;
pub use tag::Tags;
pub use time::Timestamp;
