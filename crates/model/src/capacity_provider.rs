//! Capacity providers: what users say about whose capacity tasks take.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/cluster-capacity-providers.html>.

use serde::{Deserialize, Serialize};

/// The capacity providers that exist in every account, and take Fargate capacity.
pub const FARGATE: &str = "FARGATE";
pub const FARGATE_SPOT: &str = "FARGATE_SPOT";

/// One provider's part of a strategy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrategyItem {
    pub capacity_provider: String,
    /// How many tasks it gets before others get any.
    pub base: u32,
    /// Its part of the tasks beyond all bases.
    pub weight: u32,
}
