//! Tags. Invariant: a tag set has each key once and at most [`LIMIT`] tags.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The most tags that a resource may have.
pub const LIMIT: usize = 50;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tags(pub BTreeMap<String, String>);

impl Tags {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These tags with `more` put over them.
    pub fn with(&self, more: Self) -> Result<Self, Error> {
        let mut all = self.clone();
        all.0.extend(more.0);
        if all.0.len() > LIMIT { Err(Error::TooMany) } else { Ok(all) }
    }

    #[must_use]
    pub fn without(&self, keys: &[String]) -> Self {
        Self(
            self.0
                .iter()
                .filter(|(key, _)| !keys.contains(key))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
        )
    }
}

impl FromIterator<(String, String)> for Tags {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(tags: I) -> Self {
        Self(tags.into_iter().collect())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("The maximum number of tags on a resource is {LIMIT}.")]
    TooMany,
}
