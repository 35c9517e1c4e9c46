//! Clusters. Follows <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Cluster.html>.

use crate::arn;
use crate::capacity_provider::StrategyItem;
use crate::change::Key;
use crate::record::Record;
use crate::scope::Scope;
use crate::tag::Tags;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub scope: Scope,
    pub name: String,
    pub status: Status,
    pub container_insights: ContainerInsights,
    /// The names of those that its tasks may be given to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capacity_providers: Vec<String>,
    /// For tasks and services that name neither a strategy nor a launch type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub default_strategy: Vec<StrategyItem>,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    pub created_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    Active,
    /// Deleted; still described for a while, and made ACTIVE again by CreateCluster.
    Inactive,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Inactive => "INACTIVE",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerInsights {
    #[default]
    Disabled,
    Enabled,
    Enhanced,
}

impl ContainerInsights {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Enabled => "enabled",
            Self::Enhanced => "enhanced",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Disabled, Self::Enabled, Self::Enhanced].into_iter().find(|value| value.as_str() == text)
    }
}

impl Cluster {
    pub fn key_of(scope: &Scope, name: &str) -> Key {
        Key::new(format!("{}/{}/{name}", Self::TABLE, scope.path()))
    }

    pub fn arn(&self) -> String {
        arn_of(&self.scope, &self.name)
    }
}

impl Record for Cluster {
    const TABLE: &'static str = "cluster";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.name)
    }
}

pub fn arn_of(scope: &Scope, name: &str) -> String {
    arn::ecs(scope, format_args!("cluster/{name}"))
}
