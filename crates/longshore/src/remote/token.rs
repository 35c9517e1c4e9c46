//! Join tokens as they are typed. Invariant: a token's text is printed once and kept nowhere.

use std::fmt;
use std::str::FromStr;

/// `longshore-ID-SECRET-FINGERPRINT`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub id: String,
    pub secret: String,
    /// Of the authority's certificate.
    pub fingerprint: String,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "longshore-{}-{}-{}", self.id, self.secret, self.fingerprint)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("id", &self.id).finish_non_exhaustive()
    }
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || "this is not a token: `longshore token create` on a control plane prints one".to_owned();
        let parts: Vec<&str> = text.trim().split('-').collect();
        let ["longshore", id, secret, fingerprint] = parts.as_slice() else { return Err(wrong()) };
        let is_hex = |part: &str, length| part.len() == length && part.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_hex(id, 16) || !is_hex(secret, 32) || !is_hex(fingerprint, 64) {
            return Err(wrong());
        }
        let [id, secret, fingerprint] = [id, secret, fingerprint].map(|part| (*part).to_owned());
        Ok(Self { id, secret, fingerprint })
    }
}
