//! The ids of containers that are being made. Invariant: an id is there from before the first call until after the last.

use super::CreateError;
use super::containerd::lock;
use std::collections::BTreeSet;
use std::sync::Mutex;

/// Marks an id as under way until it is dropped.
pub(super) struct Creating<'a> {
    all: &'a Mutex<BTreeSet<String>>,
    id: String,
}

impl<'a> Creating<'a> {
    pub(super) fn begin(all: &'a Mutex<BTreeSet<String>>, id: &str) -> Result<Self, CreateError> {
        // Ids become file names and snapshot keys.
        let fits = id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
            && id.len() <= 76
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !fits {
            return Err(CreateError::Invalid(format!("`{id}` cannot be the id of a container")));
        }
        if !lock(all).insert(id.to_owned()) {
            return Err(CreateError::Invalid(format!("`{id}` is being created already")));
        }
        Ok(Self { all, id: id.to_owned() })
    }
}

impl Drop for Creating<'_> {
    fn drop(&mut self) {
        lock(self.all).remove(&self.id);
    }
}
