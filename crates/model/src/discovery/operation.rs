//! What became of requests to Cloud Map. On AWS they take a while; here they are done when they are answered.

use super::letters;
use crate::change::Key;
use crate::id::IdSource;
use crate::record::Record;
use crate::scope::Scope;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// One that succeeded: what cannot be done is refused, and makes none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    pub scope: Scope,
    /// 32 letters and digits, `-`, and 8 that say when it was.
    pub id: String,
    pub kind: OperationType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    pub at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OperationType {
    CreateNamespace,
    DeleteNamespace,
    UpdateNamespace,
    UpdateService,
    RegisterInstance,
    DeregisterInstance,
}

impl Operation {
    pub fn new(scope: &Scope, kind: OperationType, at: Timestamp, ids: &mut dyn IdSource) -> Self {
        // One number has the chance of 24 letters.
        let (first, second) = (letters(ids.next_u128(), 16), letters(ids.next_u128(), 16));
        let id = format!("{first}{second}-{}", time_of(at));
        Self { scope: scope.clone(), id, kind, namespace: None, service: None, instance: None, at }
    }

    pub fn key_of(scope: &Scope, id: &str) -> Key {
        Key::new(format!("{}/{}/{id}", Self::TABLE, scope.path()))
    }
}

impl Record for Operation {
    const TABLE: &'static str = "discovery-operation";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.id)
    }
}

/// Milliseconds to the base of 36, which have eight digits from 1972 to 2059.
fn time_of(at: Timestamp) -> String {
    let mut millis = u64::try_from(at.millis()).unwrap_or_default();
    let mut digits = Vec::new();
    while millis > 0 || digits.len() < 8 {
        digits.extend(char::from_digit((millis % 36) as u32, 36));
        millis /= 36;
    }
    digits.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_id_says_when_the_operation_was() {
        assert_eq!(time_of(Timestamp(0)), "00000000");
        assert_eq!(time_of(Timestamp(35)), "0000000z");
        assert_eq!(time_of(Timestamp(1_571_156_421_073)), "k1s1ytap");
    }
}
