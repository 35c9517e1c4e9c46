//! Where a service's tasks are registered so that others find them.
//!
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ServiceRegistry.html>.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRegistry {
    /// The ARN of a service of Cloud Map.
    pub arn: String,
    /// The container whose port is told of, with that port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<(String, u16)>,
    /// The port that is told of, where no container is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}
