//! Log groups of CloudWatch Logs. Their streams and events are kept by the log store, not as records:
//! nothing that grows with traffic goes into the store.

use crate::change::Key;
use crate::record::Record;
use crate::scope::Scope;
use crate::tag::Tags;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogGroup {
    pub scope: Scope,
    pub name: String,
    /// Events older than this are deleted; `None` keeps them for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    pub created_at: Timestamp,
}

impl LogGroup {
    pub fn key_of(scope: &Scope, name: &str) -> Key {
        Key::new(format!("{}/{}/{name}", Self::TABLE, scope.path()))
    }

    /// The ARN as tag calls and `logGroupArn` give it; DescribeLogGroups' `arn` adds `:*`.
    pub fn arn(&self) -> String {
        format!("arn:aws:logs:{}:{}:log-group:{}", self.scope.region, self.scope.account, self.name)
    }
}

impl Record for LogGroup {
    const TABLE: &'static str = "log-group";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.name)
    }
}
