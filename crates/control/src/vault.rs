//! Seals what is secret before it goes into the store. Invariant: what is sealed opens only with the same key, and only as
//! what it was sealed as.

use crate::context::RandomIds;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use longshore_engine::View;
use longshore_model::Transaction;
use longshore_model::id::IdSource as _;
use longshore_model::secret::{Sealed, SealingKey};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest as _, Sha256};
use std::fmt;

pub const KEY_BYTES: usize = 32;

/// Holds the key.
pub struct Vault {
    key: LessSafeKey,
    fingerprint: String,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the key is not of {KEY_BYTES} bytes")]
    NotAKey,
    #[error("the secrets of this store are sealed with another key than this control plane has")]
    OtherKey,
    #[error("what is sealed is damaged")]
    Damaged,
    #[error("it could not be sealed")]
    NotSealed,
}

impl Vault {
    pub fn new(key: &[u8]) -> Result<Self, Error> {
        let digest = Sha256::new().chain_update(b"longshore sealing key").chain_update(key).finalize();
        let fingerprint = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).map_err(|_| Error::NotAKey)?;
        Ok(Self { key: LessSafeKey::new(key), fingerprint })
    }

    /// A new key.
    pub fn make_key() -> Vec<u8> {
        let mut ids = RandomIds;
        [ids.next_u128(), ids.next_u128()].iter().flat_map(|number| number.to_ne_bytes()).collect()
    }

    /// Whether the store's secrets, if there are any, are sealed with this key.
    pub fn fits(&self, view: &View) -> bool {
        let present = view.sealing_keys.get(&SealingKey::the_key());
        present.is_none_or(|present| present.fingerprint == self.fingerprint)
    }

    /// Writes down which key seals the store's secrets, with the first of them.
    pub fn claim(&self, view: &View, transaction: &mut Transaction) -> Result<(), Error> {
        if !self.fits(view) {
            return Err(Error::OtherKey);
        }
        if view.sealing_keys.get(&SealingKey::the_key()).is_none() {
            transaction.create(&SealingKey { fingerprint: self.fingerprint.clone() });
        }
        Ok(())
    }

    /// `name` says what it is, and has to be given again to open it.
    pub fn seal(&self, name: &str, plain: &[u8]) -> Result<Sealed, Error> {
        // Of 96 random bits none is drawn twice in the life of a key.
        let random = RandomIds.next_u128().to_ne_bytes();
        let nonce: [u8; NONCE_LEN] =
            random.get(..NONCE_LEN).and_then(|nonce| nonce.try_into().ok()).ok_or(Error::NotSealed)?;
        let mut text = plain.to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(name), &mut text)
            .map_err(|_| Error::NotSealed)?;
        Ok(Sealed(BASE64.encode([nonce.as_slice(), &text].concat())))
    }

    pub fn open(&self, name: &str, sealed: &Sealed) -> Result<Vec<u8>, Error> {
        let bytes = BASE64.decode(&sealed.0).map_err(|_| Error::Damaged)?;
        let (nonce, text) = bytes.split_at_checked(NONCE_LEN).ok_or(Error::Damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Error::Damaged)?;
        let mut text = text.to_vec();
        let plain = self.key.open_in_place(nonce, Aad::from(name), &mut text);
        // A wrong key looks the same as a changed text.
        Ok(plain.map_err(|_| Error::Damaged)?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_as_what_it_was() {
        let vault = Vault::new(&[7; KEY_BYTES]).unwrap();
        let sealed = vault.seal("secret/a", b"hunter2").unwrap();
        assert_eq!(vault.open("secret/a", &sealed).unwrap(), b"hunter2");
        assert_eq!(vault.open("secret/b", &sealed), Err(Error::Damaged));
        let other = Vault::new(&[8; KEY_BYTES]).unwrap();
        assert_eq!(other.open("secret/a", &sealed), Err(Error::Damaged));
        for damaged in ["", "AAAA", "…", "AAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(vault.open("secret/a", &Sealed(damaged.to_owned())), Err(Error::Damaged));
        }
        assert_ne!(vault.seal("secret/a", b"hunter2").unwrap(), sealed);
        assert_eq!(Vault::new(b"short").err(), Some(Error::NotAKey));
        assert!(!format!("{sealed:?} {vault:?}").contains(&sealed.0));
    }

    #[test]
    fn a_store_has_one_key() {
        use longshore_model::change::View as _;
        let (one, other) = (Vault::new(&[7; KEY_BYTES]).unwrap(), Vault::new(&[8; KEY_BYTES]).unwrap());
        let mut view = View::default();
        assert!(one.fits(&view) && other.fits(&view));
        let mut transaction = Transaction::at(longshore_model::Version(0));
        one.claim(&view, &mut transaction).unwrap();
        let commit = transaction.into_commit();
        assert_eq!(commit.writes.len(), 1);
        for write in commit.writes {
            if let longshore_model::change::Write::Create { key, value } = write {
                let change = longshore_model::change::Change { key, value: Some(value.into()) };
                view.apply(&change).unwrap();
            }
        }
        assert!(one.fits(&view) && !other.fits(&view));
        let mut transaction = Transaction::at(longshore_model::Version(0));
        assert_eq!(other.claim(&view, &mut transaction), Err(Error::OtherKey));
        one.claim(&view, &mut transaction).unwrap();
        assert!(transaction.is_empty());
    }
}
