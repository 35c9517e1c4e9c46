//! Elastic Load Balancing: load balancers, what they listen to, and where they send it.
//!
//! Follows <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/Welcome.html>.

mod forward;
mod listener;
mod load_balancer;
mod target_group;

pub use forward::{Forward, Transport};
pub use listener::{
    Action, Condition, FixedResponse, ForwardGroup, Listener, ListenerRule, Pair, Protocol, Redirect,
    Stickiness,
};
pub use load_balancer::{LoadBalancer, LoadBalancerType, LoadBalancerZone, Scheme};
pub use target_group::{
    GroupProtocol, HealthCheck, HealthCheckProtocol, HealthState, Matcher, ProtocolVersion, Target,
    TargetGroup, TargetHealth, TargetType,
};

use crate::id::IdSource;
use crate::scope::Scope;
use std::collections::BTreeMap;

/// What a user set of a resource's attributes, by their names; what is not there has its default.
pub type Attributes = BTreeMap<String, String>;

/// The 16 hexadecimal digits that end the ARNs of Elastic Load Balancing.
pub fn new_id(ids: &mut dyn IdSource) -> String {
    format!("{:016x}", ids.next_u128() >> 64)
}

/// As ARNs name it.
const SERVICE: &str = "elasticloadbalancing";

fn arn(scope: &Scope, resource: std::fmt::Arguments<'_>) -> String {
    format!("arn:aws:{SERVICE}:{}:{}:{resource}", scope.region, scope.account)
}
