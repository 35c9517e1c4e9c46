//! Certificates that users import, with their keys. Invariant: nothing that is shown or logged of one holds its key.
//!
//! Follows <https://docs.aws.amazon.com/acm/latest/APIReference/API_CertificateDetail.html>.

use crate::change::Key;
use crate::record::Record;
use crate::scope::Scope;
use crate::tag::Tags;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    pub scope: Scope,
    /// A UUID, the end of its ARN.
    pub id: String,
    /// One certificate, in PEM.
    pub body: String,
    /// Those that vouch for it, each one for the one before; in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<String>,
    /// In PEM; a secret.
    pub private_key: String,
    pub details: Details,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    pub created_at: Timestamp,
    /// Later than `created_at` where it was imported again.
    pub imported_at: Timestamp,
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    pub domain_name: String,
    /// Every name that it is for; `*` stands for one label.
    pub names: Vec<String>,
    /// Such as `07:71:71:f4:6b:e7:bf:63`.
    pub serial: String,
    pub subject: String,
    pub issuer: String,
    /// As ACM names it, such as `RSA_2048`.
    pub key_algorithm: String,
    pub signature_algorithm: String,
    /// As ACM names them, such as `DIGITAL_SIGNATURE`.
    pub key_usages: Vec<String>,
    /// The name of each as ACM has it, and its object identifier.
    pub extended_key_usages: Vec<(String, String)>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

impl Certificate {
    pub fn key_of(scope: &Scope, id: &str) -> Key {
        Key::new(format!("{}/{}/{id}", Self::TABLE, scope.path()))
    }

    pub fn arn(&self) -> String {
        let Scope { account, region } = &self.scope;
        format!("arn:aws:acm:{region}:{account}:certificate/{}", self.id)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("arn", &self.arn())
            .field("details", &self.details)
            .finish_non_exhaustive()
    }
}

impl Record for Certificate {
    const TABLE: &'static str = "certificate";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_does_not_show_its_key() {
        let details = Details {
            domain_name: "example.com".to_owned(),
            names: Vec::new(),
            serial: String::new(),
            subject: String::new(),
            issuer: String::new(),
            key_algorithm: String::new(),
            signature_algorithm: String::new(),
            key_usages: Vec::new(),
            extended_key_usages: Vec::new(),
            not_before: Timestamp(0),
            not_after: Timestamp(1),
        };
        let certificate = Certificate {
            scope: Scope::new("123456789012", "us-east-1"),
            id: "a".to_owned(),
            body: String::new(),
            chain: None,
            private_key: "secret".to_owned(),
            details,
            tags: Tags::default(),
            created_at: Timestamp(0),
            imported_at: Timestamp(0),
        };
        assert!(!format!("{certificate:?}").contains("secret"));
    }
}
