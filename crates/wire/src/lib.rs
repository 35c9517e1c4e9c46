//! The AWS protocols, without any service: values, schemas, protocols, signatures and the error envelope.
//! Invariant: pure. Nothing here opens a socket, reads a clock or knows what an operation does, and no input panics it.

mod check;
mod fault;
mod map;
pub mod protocol;
pub mod schema;
mod service;
mod shape;
pub mod sigv4;
mod timestamp;
mod value;

pub use check::Violation;
pub use fault::Fault;
pub use map::Map;
pub use schema::Schema;
pub use service::{Operation, OperationInfo, Protocol, ServiceInfo, Violations, decode_input};
pub use shape::{Decode, Encode, Invalid, Members};
pub use timestamp::Timestamp;
pub use value::Value;
