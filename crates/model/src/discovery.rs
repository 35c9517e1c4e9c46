//! AWS Cloud Map: namespaces, their services, the instances of those, and what became of requests.
//! Invariant: an instance is of a service, and a service of a namespace, that exist.
//!
//! Follows <https://docs.aws.amazon.com/cloud-map/latest/api/API_Types.html>.

mod instance;
mod operation;
mod service;

pub use instance::{DiscoveryInstance, HealthStatus, attribute};
pub use operation::{Operation, OperationType};
pub use service::{DiscoveryService, DnsConfig, DnsRecord, RecordType, RoutingPolicy};

use crate::arn::Arn;
use crate::change::Key;
use crate::id::IdSource;
use crate::record::Record;
use crate::scope::Scope;
use crate::tag::Tags;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The service in ARNs.
pub const SERVICE: &str = "servicediscovery";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    pub scope: Scope,
    /// `ns-` and 16 letters and digits.
    pub id: String,
    pub name: String,
    /// What DiscoverInstances knows it by; unique in its scope.
    pub http_name: String,
    pub kind: NamespaceKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creator_request_id: Option<String>,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    pub created_at: Timestamp,
}

/// How its instances are found, besides by DiscoverInstances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceKind {
    Http,
    DnsPrivate {
        /// The id of the VPC in which its names are known.
        vpc: String,
        hosted_zone: String,
        /// Seconds for which a resolver may keep that a name does not exist.
        soa_ttl: u32,
    },
}

impl Namespace {
    pub fn key_of(scope: &Scope, id: &str) -> Key {
        Key::new(format!("{}{id}", Self::prefix_of(scope)))
    }

    /// What the keys of a scope's namespaces begin with.
    pub fn prefix_of(scope: &Scope) -> String {
        format!("{}/{}/", Self::TABLE, scope.path())
    }

    pub fn arn(&self) -> String {
        arn(&self.scope, format_args!("namespace/{}", self.id))
    }

    /// The VPC that its names are known in.
    pub fn vpc(&self) -> Option<&str> {
        match &self.kind {
            NamespaceKind::Http => None,
            NamespaceKind::DnsPrivate { vpc, .. } => Some(vpc),
        }
    }
}

impl Record for Namespace {
    const TABLE: &'static str = "namespace";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.id)
    }
}

fn arn(scope: &Scope, resource: fmt::Arguments<'_>) -> String {
    format!("arn:aws:{SERVICE}:{}:{}:{resource}", scope.region, scope.account)
}

/// The id in an ARN of the kind, `namespace` or `service`, in the scope; what is no ARN is an id already.
pub fn id_in<'a>(scope: &Scope, kind: &str, given: &'a str) -> Option<&'a str> {
    let Some(arn) = Arn::parse(given) else { return Some(given) };
    let id = arn.resource.strip_prefix(kind).and_then(|rest| rest.strip_prefix('/'));
    id.filter(|_| arn.service == SERVICE && arn.in_scope(scope))
}

/// The 16 letters and digits of a namespace's or service's id.
pub fn suffix(ids: &mut dyn IdSource) -> String {
    letters(ids.next_u128(), 16)
}

/// A Route 53 hosted zone's id: `Z` and 20 capital letters and digits.
pub fn hosted_zone(ids: &mut dyn IdSource) -> String {
    format!("Z{}", letters(ids.next_u128(), 20).to_ascii_uppercase())
}

fn letters(mut number: u128, count: usize) -> String {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut next = || {
        let letter = LETTERS.get((number % 36) as usize).copied().unwrap_or(b'a');
        number /= 36;
        char::from(letter)
    };
    (0..count).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_from_arns_of_their_kind_and_scope() {
        let scope = Scope::new("123456789012", "us-east-1");
        let arn = "arn:aws:servicediscovery:us-east-1:123456789012:service/srv-1";
        let check = |kind: &str, given: &str| id_in(&scope, kind, given).map(str::to_owned);
        let own = Some("srv-1".to_owned());
        assert_eq!(check("service", arn), own);
        assert_eq!(check("service", "srv-1"), own);
        assert_eq!(check("namespace", arn), None);
        let (elsewhere, other) =
            (arn.replace("us-east-1", "us-east-2"), arn.replace("servicediscovery", "ecs"));
        assert_eq!((check("service", &elsewhere), check("service", &other)), (None, None));
    }

    #[test]
    fn ids_have_the_form_that_aws_gives_them() {
        struct Fixed(u128);
        impl IdSource for Fixed {
            fn next_u128(&mut self) -> u128 {
                self.0
            }
        }
        for number in [0, 1, u128::MAX] {
            assert_eq!(suffix(&mut Fixed(number)).len(), 16);
            let zone = hosted_zone(&mut Fixed(number));
            assert!(zone.len() == 21 && zone.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()));
        }
    }
}
