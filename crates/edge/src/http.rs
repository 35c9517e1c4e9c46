//! Application load balancers: HTTP in, a rule, HTTP out to a target.

mod answer;
mod body;
mod headers;
mod send;
mod serve;
mod sticky;
mod tunnel;

pub use headers::ForwardedFor;
pub use serve::{Course, Door, Route, Routes, serve};
pub use sticky::Keeping;
