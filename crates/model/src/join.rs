//! How agents of other machines are let in. Invariant: no record holds what lets somebody in but the authority's key,
//! which never leaves the control planes.

use crate::change::Key;
use crate::container_instance::Capacity;
use crate::id::ContainerInstanceId;
use crate::record::Record;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Who signs the certificates of control planes and agents; one for all control planes of a store.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// PEM.
    pub certificate: String,
    /// PEM; a secret.
    pub key: String,
    pub made_at: Timestamp,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("made_at", &self.made_at).finish_non_exhaustive()
    }
}

/// The administrator's access key, where several control planes share it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Administrator {
    pub access_key_id: String,
    /// A secret.
    pub secret_access_key: String,
    pub account: String,
}

impl fmt::Debug for Administrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Administrator").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// Lets one agent in, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    pub id: String,
    /// SHA-256 of the secret, in hexadecimal digits.
    pub secret_hash: String,
    /// What the instance is to be for.
    pub capacity: Capacity,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub used_by: Option<ContainerInstanceId>,
}

/// An agent that was let in: its certificate names the instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    pub instance: ContainerInstanceId,
    pub capacity: Capacity,
    pub admitted_at: Timestamp,
}

impl Authority {
    pub fn key_of() -> Key {
        Key::new(format!("{}/agents", Self::TABLE))
    }
}

impl Record for Authority {
    const TABLE: &'static str = "authority";
    fn key(&self) -> Key {
        Self::key_of()
    }
}

impl Administrator {
    pub fn key_of() -> Key {
        Key::new(format!("{}/root", Self::TABLE))
    }
}

impl Record for Administrator {
    const TABLE: &'static str = "administrator";
    fn key(&self) -> Key {
        Self::key_of()
    }
}

impl JoinToken {
    pub fn key_of(id: &str) -> Key {
        Key::new(format!("{}/{id}", Self::TABLE))
    }
}

impl Record for JoinToken {
    const TABLE: &'static str = "join-token";
    fn key(&self) -> Key {
        Self::key_of(&self.id)
    }
}

impl Admission {
    pub fn key_of(instance: ContainerInstanceId) -> Key {
        Key::new(format!("{}/{instance}", Self::TABLE))
    }
}

impl Record for Admission {
    const TABLE: &'static str = "admission";
    fn key(&self) -> Key {
        Self::key_of(self.instance)
    }
}
