//! The administrator's access key, made at the first start. Invariant: its secret is in one file of mode 0600, and
//! in no log.

use crate::Outcome;
use crate::data_dir::{self, DataDir};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use longshore_control::agents::admission;
use longshore_control::vault::Vault;
use longshore_control::{Context, RandomIds};
use longshore_engine::View;
use longshore_model::id::IdSource;
use longshore_model::join::Administrator;
use serde::{Deserialize, Serialize};
use std::fmt;

pub const ACCOUNT: &str = "123456789012";

#[derive(Clone, Serialize, Deserialize)]
pub struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub account: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// The key of the data directory, made now if there is none.
pub fn of(data_dir: &DataDir) -> Outcome<Credentials> {
    let path = data_dir.credentials();
    if let Some(present) = data_dir::read(&path)? {
        return Ok(present);
    }
    let made = Credentials {
        access_key_id: format!("AKIA{}", symbols(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16)),
        secret_access_key: symbols(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", 40),
        account: ACCOUNT.to_owned(),
    };
    data_dir::write(&path, &made)?;
    Ok(made)
}

/// The key that the control planes of one store share, kept in the data directory for `longshore env` as well.
pub async fn shared(data_dir: &DataDir, context: &Context) -> Outcome<Credentials> {
    let own = of(data_dir)?;
    let made = || Administrator {
        access_key_id: own.access_key_id.clone(),
        secret_access_key: own.secret_access_key.clone(),
        account: own.account.clone(),
    };
    let Administrator { access_key_id, secret_access_key, account } =
        admission::administrator(context, made).await?;
    let shared = Credentials { access_key_id, secret_access_key, account };
    data_dir::write(&data_dir.credentials(), &shared)?;
    Ok(shared)
}

/// What seals the store's secrets, with the key of the data directory, which is made now if there is none and nothing was
/// sealed yet.
pub fn vault(data_dir: &DataDir, view: &View) -> Outcome<Vault> {
    let path = data_dir.sealing_key();
    let present: Option<SealingKeyFile> = data_dir::read(&path)?;
    let is_used = view.sealing_keys.iter().next().is_some();
    let file = match present {
        Some(present) => present,
        None if is_used => {
            return Err(format!(
                "the store has secrets, and {0} is not there to open them: copy it from the data directory of the control \
                 plane that sealed them, or from a backup, to {0}",
                path.display()
            )
            .into());
        }
        None => {
            let made = SealingKeyFile { key: BASE64.encode(Vault::make_key()) };
            data_dir::write(&path, &made)?;
            made
        }
    };
    let damaged = |error: String| format!("{} is damaged: {error}", path.display());
    let key = BASE64.decode(&file.key).map_err(|error| damaged(error.to_string()))?;
    let vault = Vault::new(&key).map_err(|error| damaged(error.to_string()))?;
    if !vault.fits(view) {
        return Err(format!(
            "{0} is not the key that sealed the secrets of this store: copy that key from the data directory of the control \
             plane that sealed them to {0}",
            path.display()
        )
        .into());
    }
    Ok(vault)
}

#[derive(Serialize, Deserialize)]
struct SealingKeyFile {
    /// In base64.
    key: String,
}

/// Symbols at random; the alphabet's length divides 256, so each is as likely as the others.
fn symbols(alphabet: &[u8], count: usize) -> String {
    let mut ids = RandomIds;
    let bytes = std::iter::repeat_with(move || ids.next_u128().to_ne_bytes()).flatten();
    bytes
        .filter_map(|byte| alphabet.get(usize::from(byte) % alphabet.len()))
        .take(count)
        .map(|b| char::from(*b))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_kept_private() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(directory.path()).unwrap();
        let first = of(&data_dir).unwrap();
        assert_eq!((first.access_key_id.len(), first.secret_access_key.len()), (20, 40));
        assert_eq!(of(&data_dir).unwrap().secret_access_key, first.secret_access_key);
        let mode = std::fs::metadata(data_dir.credentials()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{first:?}").contains(&first.secret_access_key));
    }
}
