//! Secrets and parameters. Invariant: what is secret is in the store only as it was sealed, with a key that is not there.
//!
//! Follows <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_DescribeSecret.html> and
//! <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_Parameter.html>.

use crate::change::Key;
use crate::record::Record;
use crate::scope::Scope;
use crate::tag::Tags;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// What only the key opens.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(pub String);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Tells which key seals the store's secrets, without telling the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealingKey {
    pub fingerprint: String,
}

impl SealingKey {
    pub fn the_key() -> Key {
        Key::new(format!("{}/key", Self::TABLE))
    }
}

impl Record for SealingKey {
    const TABLE: &'static str = "sealing-key";
    fn key(&self) -> Key {
        Self::the_key()
    }
}

/// A secret of Secrets Manager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    pub scope: Scope,
    pub name: String,
    /// Six characters that end its ARN, so that one of the same name is another.
    pub suffix: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// Oldest first.
    pub versions: Vec<SecretVersion>,
    /// JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    pub created_at: Timestamp,
    pub changed_at: Timestamp,
    /// When it was marked for deletion, and when it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<Deletion>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    pub marked_at: Timestamp,
    pub goes_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretVersion {
    pub id: String,
    pub value: Sealed,
    /// Whether it is bytes, and not text.
    pub is_binary: bool,
    /// Such as AWSCURRENT. One without any is deprecated.
    pub stages: BTreeSet<String>,
    pub created_at: Timestamp,
}

impl Secret {
    pub fn key_of(scope: &Scope, name: &str) -> Key {
        Key::new(format!("{}/{}/{name}", Self::TABLE, scope.path()))
    }

    pub fn arn(&self) -> String {
        let Scope { account, region } = &self.scope;
        format!("arn:aws:secretsmanager:{region}:{account}:secret:{}-{}", self.name, self.suffix)
    }
}

impl Record for Secret {
    const TABLE: &'static str = "secret";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.name)
    }
}

/// A parameter of Systems Manager's Parameter Store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    pub scope: Scope,
    pub name: String,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// Oldest first; never empty.
    pub versions: Vec<ParameterVersion>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterVersion {
    pub number: u64,
    pub value: ParameterValue,
    /// As AWS names it, such as Standard.
    pub tier: String,
    pub data_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_pattern: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub labels: BTreeSet<String>,
    pub modified_at: Timestamp,
    /// An ARN.
    pub modified_by: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ParameterValue {
    String(String),
    StringList(String),
    SecureString { value: Sealed, key_id: String },
}

impl ParameterValue {
    /// As AWS names it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "String",
            Self::StringList(_) => "StringList",
            Self::SecureString { .. } => "SecureString",
        }
    }
}

impl Parameter {
    pub fn key_of(scope: &Scope, name: &str) -> Key {
        Key::new(format!("{}/{}/{name}", Self::TABLE, scope.path()))
    }

    /// A name that begins with a slash has no second one before it.
    pub fn arn(&self) -> String {
        let Scope { account, region } = &self.scope;
        format!("arn:aws:ssm:{region}:{account}:parameter/{}", self.name.trim_start_matches('/'))
    }

    pub fn latest(&self) -> Option<&ParameterVersion> {
        self.versions.last()
    }
}

impl Record for Parameter {
    const TABLE: &'static str = "parameter";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.name)
    }
}
