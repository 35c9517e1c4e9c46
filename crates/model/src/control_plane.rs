//! The control planes of one store. Invariant: a control plane that lives writes its record again about every second.

use crate::change::Key;
use crate::record::Record;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One process of a control plane: a new one each time that it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ControlPlaneId(pub u64);

impl fmt::Display for ControlPlaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlPlane {
    pub id: ControlPlaneId,
    /// Counts how often it has said that it lives. Others watch it change; no clock is compared with another.
    pub beat: u64,
}

impl ControlPlane {
    pub fn key_of(id: ControlPlaneId) -> Key {
        Key::new(format!("{}/{id}", Self::TABLE))
    }
}

impl Record for ControlPlane {
    const TABLE: &'static str = "control-plane";
    fn key(&self) -> Key {
        Self::key_of(self.id)
    }
}
