//! The cluster secret: 32 bytes that every peer of a cluster knows.
//!
//! **Invariant:** no Debug or Display of this file, and no error of it, contains the secret or a part of it.

use std::fmt;

use cluster_types::ErrorClass;
use libp2p::pnet::PreSharedKey;
use zeroize::Zeroizing;

/// How many bytes a secret has.
const SECRET_BYTES: usize = 32;

/// The key of the private network.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret {
    bytes: Zeroizing<[u8; SECRET_BYTES]>,
}

/// A text is not a cluster secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// It is not hexadecimal.
    #[error("the cluster secret is not hexadecimal: it must be 64 digits from 0-9 and a-f")]
    NotHex,
    /// It has another length.
    #[error("input secret is {bytes} bytes, cluster secret should be 32")]
    Length {
        /// How many bytes it has.
        bytes: usize,
    },
}

impl SecretError {
    /// What the caller may do about it.
    pub fn class(&self) -> ErrorClass {
        ErrorClass::Invalid
    }
}

impl ClusterSecret {
    /// Reads the secret of a configuration. An empty text means an open network: no secret.
    pub fn from_config(text: &str) -> Result<Option<Self>, SecretError> {
        if text.is_empty() { Ok(None) } else { Self::from_hex(text).map(Some) }
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, SecretError> {
        let decoded = Zeroizing::new(hex::decode(text).map_err(|_| SecretError::NotHex)?);
        let bytes = <[u8; SECRET_BYTES]>::try_from(decoded.as_slice())
            .map_err(|_| SecretError::Length { bytes: decoded.len() })?;
        Ok(Self { bytes: Zeroizing::new(bytes) })
    }

    /// A new one.
    pub fn generate() -> Self {
        Self { bytes: Zeroizing::new(rand::random()) }
    }

    /// The 64 digits, for the configuration file only.
    pub fn reveal_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.bytes.as_slice()))
    }

    pub(crate) fn pre_shared_key(&self) -> PreSharedKey {
        PreSharedKey::new(*self.bytes)
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_of_another_length_is_refused_with_the_words_operators_know() {
        let error = ClusterSecret::from_hex("00ff").unwrap_err();
        assert_eq!(error.to_string(), "input secret is 2 bytes, cluster secret should be 32");
        assert_eq!(ClusterSecret::from_hex("xy").unwrap_err(), SecretError::NotHex);
        assert_eq!(ClusterSecret::from_config("").unwrap(), None);
    }

    #[test]
    fn a_secret_is_never_printed() {
        let digits = "5a".repeat(SECRET_BYTES);
        let secret = ClusterSecret::from_hex(&digits).unwrap();
        assert!(!format!("{secret:?}").contains("5a5a"));
        assert_eq!(secret.reveal_hex().as_str(), digits);
    }
}
