//! Passwords as the configuration has them: in plain text or as hashes.
//!
//! **Invariant:** a hash is computed outside the async threads, and at most [`AT_ONCE`] at a time: a flood of wrong
//! passwords does not take all cores.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params, PasswordHasher as _, PasswordVerifier as _};
use cluster_types::BoxError;
use hmac::Mac as _;
use parking_lot::Mutex;
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;

use super::{Fingerprint, fingerprint, mac};
use crate::credentials::TokenSecret;

/// Hashes computed at once; each keeps a core busy for some 20 to 300 ms.
const AT_ONCE: usize = 2;
/// How long a request waits for its turn. Pairs that were right once need none.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most memory that a hash may ask for, in KiB.
const MAX_MEMORY: u32 = 1024 * 1024;
/// The highest cost of bcrypt that is accepted: some ten seconds on one core.
const MAX_COST: u32 = 17;

/// How a password is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    Argon2,
    Bcrypt,
}

/// A password, or its hash, as the configuration has it.
#[derive(Clone)]
pub(super) struct Password {
    text: Arc<str>,
    digest: Fingerprint,
    form: Form,
    token_key: Arc<[u8]>,
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Password").field("form", &self.form).finish_non_exhaustive()
    }
}

impl Password {
    /// Reads a password; what begins like a hash must be one.
    pub(super) fn new(text: &str) -> Result<Self, BoxError> {
        let form = match text.split('$').nth(1).filter(|_| text.starts_with('$')) {
            Some("argon2id" | "argon2i" | "argon2d") => {
                let hash = PasswordHash::new(text)?;
                if hash.salt.is_none() || hash.hash.is_none() {
                    return Err("it is cut off".into());
                }
                if Params::try_from(&hash)?.m_cost() > MAX_MEMORY {
                    return Err(format!("it asks for more than {MAX_MEMORY} KiB of memory").into());
                }
                Form::Argon2
            }
            Some("2a" | "2b" | "2y") => {
                let parts: bcrypt::HashParts = text.parse().map_err(|error: bcrypt::BcryptError| error.to_string())?;
                if parts.get_cost() > MAX_COST {
                    return Err(format!("its cost is above {MAX_COST}").into());
                }
                Form::Bcrypt
            }
            Some(_) | None => Form::Plain,
        };
        Ok(Self { text: text.into(), digest: fingerprint(text.as_bytes()), form, token_key: text.as_bytes().into() })
    }

    /// Whether only a hash of the password is known.
    pub(super) fn is_hash(&self) -> bool {
        self.form != Form::Plain
    }

    /// Has the tokens of a user with a hash signed with `secret` and the hash together.
    pub(super) fn sign_with(&mut self, secret: &TokenSecret) {
        if self.is_hash() {
            self.token_key = mac(secret).chain_update(self.text.as_bytes()).finalize().into_bytes().as_slice().into();
        }
    }

    /// What the tokens of its user are signed with: the bytes of a password, as in the original.
    pub(super) fn token_key(&self) -> &[u8] {
        &self.token_key
    }

    /// The digest of a password in plain text; none of a hash, which is no password.
    pub(super) fn plain_digest(&self) -> Option<&Fingerprint> {
        (self.form == Form::Plain).then_some(&self.digest)
    }

    /// Whether `shown` is the password of this hash. Takes long.
    fn is_hash_of(&self, shown: &[u8]) -> bool {
        match self.form {
            Form::Plain => false,
            Form::Argon2 => {
                PasswordHash::new(&self.text).is_ok_and(|hash| Argon2::default().verify_password(shown, &hash).is_ok())
            }
            Form::Bcrypt => bcrypt::verify(shown, &self.text).unwrap_or(false),
        }
    }
}

/// Too many passwords are being checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Busy;

/// Compares passwords with hashes, and remembers what was right.
pub(super) struct Hashes {
    slots: Arc<Semaphore>,
    /// Known to this process only: what is remembered is of no use to anybody else.
    key: Fingerprint,
    /// The pair that was right last, by user.
    accepted: Mutex<BTreeMap<usize, Fingerprint>>,
}

impl Hashes {
    pub(super) fn new() -> Self {
        Self { slots: Arc::new(Semaphore::new(AT_ONCE)), key: rand::random(), accepted: Mutex::default() }
    }

    /// Whether `shown` was found to be the password of a user, given by number.
    pub(super) fn knows(&self, user: usize, shown: &[u8]) -> bool {
        let tag = self.tag(user, shown);
        self.accepted.lock().get(&user).is_some_and(|known| known.ct_eq(&tag).into())
    }

    /// Remembers that `shown` is the password of a user.
    pub(super) fn remember(&self, user: usize, shown: &[u8]) {
        let tag = self.tag(user, shown);
        self.accepted.lock().insert(user, tag);
    }

    /// Whether `shown` is the password of `hash`.
    pub(super) async fn verify(&self, hash: &Password, shown: &[u8]) -> Result<bool, Busy> {
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.slots).acquire_owned()).await;
        let slot = turn.map_err(|_| Busy)?.map_err(|_| Busy)?;
        let (hash, shown) = (hash.clone(), shown.to_vec());
        let judged = tokio::task::spawn_blocking(move || {
            let right = hash.is_hash_of(&shown);
            // The slot is taken until the work is done, even if nobody waits for it any more.
            drop(slot);
            right
        });
        judged.await.map_err(|_| Busy)
    }

    fn tag(&self, user: usize, shown: &[u8]) -> Fingerprint {
        mac(&self.key).chain_update(user.to_le_bytes()).chain_update(shown).finalize().into_bytes().into()
    }
}

/// The argon2id hash of a password, with a salt of its own, as `basic_auth_credentials` takes it.
pub fn hash_password(password: &[u8]) -> Result<String, BoxError> {
    Ok(Argon2::default().hash_password(password)?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `swordfish`, by crypt(3).
    const BCRYPT: &str = "$2y$04$uTqFi5MSAxCMWKFTk8z4X.xubf0BVe0j7pZX/p9tLwLwf9mtdIIO2";

    #[test]
    fn hashes_are_told_from_passwords() {
        for plain in ["swordfish", "", "$", "$1$abc", "$2$x", "2a$", "argon2id$x", "$argon2idx$"] {
            assert_eq!(Password::new(plain).unwrap().form, Form::Plain, "{plain}");
        }
        assert_eq!(Password::new(BCRYPT).unwrap().form, Form::Bcrypt);
        let hash = hash_password(b"swordfish").unwrap();
        assert_eq!(Password::new(&hash).unwrap().form, Form::Argon2);
        for broken in [
            "$argon2id$",
            "$argon2id$v=19$m=19456,t=2,p=1",
            "$argon2id$v=19$m=99999999,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g",
            "$2b$",
            "$2y$31$uTqFi5MSAxCMWKFTk8z4X.xubf0BVe0j7pZX/p9tLwLwf9mtdIIO2",
        ] {
            assert!(Password::new(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_hash_is_that_of_its_password_only() {
        let own = hash_password(b"swordfish").unwrap();
        assert!(own.starts_with("$argon2id$v=19$"), "{own}");
        for hash in [own.as_str(), BCRYPT] {
            let hash = Password::new(hash).unwrap();
            assert!(hash.is_hash_of(b"swordfish"));
            assert!(!hash.is_hash_of(b"Swordfish") && !hash.is_hash_of(b"") && !hash.is_hash_of(hash.text.as_bytes()));
        }
    }

    #[test]
    fn what_is_remembered_is_one_pair() {
        let hashes = Hashes::new();
        hashes.remember(1, b"right");
        assert!(hashes.knows(1, b"right"));
        assert!(!hashes.knows(1, b"wrong") && !hashes.knows(2, b"right"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_told_so() {
        let hashes = Hashes::new();
        let _all = hashes.slots.acquire_many(2).await.unwrap();
        assert_eq!(hashes.verify(&Password::new(BCRYPT).unwrap(), b"x").await, Err(Busy));
    }
}
