//! Refuses what is not there yet. Invariant: a field of the API is honoured or refused, never ignored; handlers
//! take requests apart without `..`, so that a new field of the model does not compile until it is decided.

use std::collections::BTreeMap;

/// Whether a client gave a value. Clients send empty lists, empty text and `false` for what they leave out.
pub trait Given {
    fn given(&self) -> bool;
}

impl<T: Given> Given for Option<T> {
    fn given(&self) -> bool {
        self.as_ref().is_some_and(Given::given)
    }
}

impl<T> Given for Vec<T> {
    fn given(&self) -> bool {
        !self.is_empty()
    }
}

impl<T> Given for BTreeMap<String, T> {
    fn given(&self) -> bool {
        !self.is_empty()
    }
}

impl Given for String {
    fn given(&self) -> bool {
        !self.is_empty()
    }
}

impl Given for bool {
    fn given(&self) -> bool {
        *self
    }
}

impl Given for i32 {
    fn given(&self) -> bool {
        true
    }
}

/// Implements [`Given`] for shapes that are given whenever they are there.
#[macro_export]
macro_rules! given_when_present {
    ($($shape:ty),* $(,)?) => { $(impl $crate::refuse::Given for $shape {
        fn given(&self) -> bool { true }
    })* };
}

/// The first of the fields that was given, as the message of the error that refuses it.
pub fn unsupported(fields: &[(&str, bool)]) -> Result<(), String> {
    match fields.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((field, _)) => Err(format!(
            "{field} is not supported by Longshore yet. Leave it out; docs/coverage.md lists what is served."
        )),
    }
}
