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

    /// These tags with those put over them that a user gives.
    pub fn with_given(&self, more: impl IntoIterator<Item = (String, String)>) -> Result<Self, GivenError> {
        let mut given = Self::default();
        for (key, value) in more {
            if key.is_empty() || key.to_ascii_lowercase().starts_with("aws:") {
                return Err(GivenError::Reserved(key));
            }
            given.0.insert(key, value);
        }
        self.with(given).map_err(|Error::TooMany| GivenError::TooMany)
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

/// Why a user's tags are not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GivenError {
    #[error("Tag key {0:?} cannot be empty or begin with aws:, which is reserved.")]
    Reserved(String),
    #[error("The maximum number of tags on a resource is {LIMIT}.")]
    TooMany,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_give_tags_of_their_own_alone() {
        let pair = |key: &str| (key.to_owned(), "x".to_owned());
        let tags = Tags::default().with_given([pair("team")]).unwrap();
        assert_eq!(tags.with_given([pair("team"), pair("env")]).unwrap().0.len(), 2);
        for reserved in ["", "aws:own", "AWS:own"] {
            assert_eq!(tags.with_given([pair(reserved)]), Err(GivenError::Reserved(reserved.to_owned())));
        }
        let many = (0..LIMIT).map(|number| pair(&number.to_string()));
        assert_eq!(tags.with_given(many), Err(GivenError::TooMany));
    }
}
