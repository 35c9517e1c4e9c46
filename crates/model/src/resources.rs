//! CPU and memory as ECS counts them. Invariant: arithmetic never wraps.

use serde::{Deserialize, Serialize};

/// What a task asks for, or what an instance has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// CPU units: 1024 are one vCPU.
    pub cpu: u64,
    /// MiB.
    pub memory: u64,
}

impl Resources {
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { cpu: self.cpu.saturating_add(other.cpu), memory: self.memory.saturating_add(other.memory) }
    }

    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(other.cpu), memory: self.memory.saturating_sub(other.memory) }
    }

    /// The first resource that `self` has too little of for `wanted`.
    pub fn lacks(self, wanted: Self) -> Option<Kind> {
        if self.cpu < wanted.cpu {
            Some(Kind::Cpu)
        } else if self.memory < wanted.memory {
            Some(Kind::Memory)
        } else {
            None
        }
    }
}

/// A resource that a placement can run out of; shown as the `reason` of a RunTask failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Cpu,
    Memory,
}
