//! What a service's tasks are targets of. Invariant: of two groups that a deployment shifts traffic between, the tasks of
//! one revision are in one.
//!
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_LoadBalancer.html>.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceLoadBalancer {
    /// The ARN of a target group.
    pub target_group: String,
    pub container: String,
    pub port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shift: Option<TrafficShift>,
}

/// What deployments in stages change so that the traffic goes over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficShift {
    /// The ARN of the group for every other revision.
    pub alternate_target_group: String,
    /// The ARN of a listener's rule, or of a listener.
    pub production_rule: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_rule: Option<String>,
    pub role: String,
}

impl ServiceLoadBalancer {
    /// The group of a revision's tasks.
    pub fn group(&self, alternate: bool) -> &str {
        match &self.shift {
            Some(shift) if alternate => &shift.alternate_target_group,
            Some(_) | None => &self.target_group,
        }
    }
}
