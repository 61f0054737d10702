//! Values that only a configuration speaks of: secrets that do not print themselves, and sizes in bytes.

use std::fmt;
use std::str::FromStr;

/// What stands in place of a secret wherever one would be printed.
pub(super) const HIDDEN: &str = "XXX_hidden_XXX";

/// A text that must not be printed: a password or a private key.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text out of sight.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for whoever has to check it or use it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// The key of the private network: 32 bytes, written as 64 hex digits.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret([u8; 32]);

/// A text is not a cluster secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It has characters other than hex digits, or an odd number of them.
    #[error("a cluster secret is written in hex digits (64 of them)")]
    NotHex,
    /// It has another length.
    #[error("input secret is {bytes} bytes, cluster secret should be 32")]
    Length {
        /// How many bytes there were.
        bytes: usize,
    },
}

impl ClusterSecret {
    /// A new one, from the system's source of chance.
    pub fn generate() -> Self {
        Self(rand::random())
    }

    /// The key itself.
    pub fn reveal(&self) -> &[u8; 32] {
        &self.0
    }

    /// As the configuration file writes it.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl FromStr for ClusterSecret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let bytes = hex::decode(text.trim()).map_err(|_| SecretError::NotHex)?;
        let length = bytes.len();
        bytes.try_into().map(Self).map_err(|_| SecretError::Length { bytes: length })
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// A number of bytes, written like `10GB`, `512MiB` or `1048576`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a size like 10GB, 512MiB or 1048576")]
pub struct ByteSizeError;

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| ByteSizeError)?;
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" => 1_000,
            "m" | "mb" => 1_000_000,
            "g" | "gb" => 1_000_000_000,
            "t" | "tb" => 1_000_000_000_000,
            "ki" | "kib" => 1 << 10,
            "mi" | "mib" => 1 << 20,
            "gi" | "gib" => 1 << 30,
            "ti" | "tib" => 1 << 40,
            _ => return Err(ByteSizeError),
        };
        number.checked_mul(factor).map(Self).ok_or(ByteSizeError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_print_themselves() {
        let secret = ClusterSecret::generate();
        assert_eq!(format!("{secret:?}"), HIDDEN);
        assert_eq!(format!("{:?}", Secret::new("hush")), HIDDEN);
        assert_eq!(secret.to_hex().parse::<ClusterSecret>().unwrap(), secret);
    }

    #[test]
    fn a_secret_of_another_length_says_how_long_it_is() {
        let error = "abcd".parse::<ClusterSecret>().unwrap_err();
        assert_eq!(error.to_string(), "input secret is 2 bytes, cluster secret should be 32");
        assert_eq!("xyz".parse::<ClusterSecret>(), Err(SecretError::NotHex));
    }

    #[test]
    fn sizes_are_read_with_decimal_and_binary_units() {
        for (text, bytes) in [("10GB", 10_000_000_000), ("1KiB", 1024), ("7", 7), ("3 mb", 3_000_000)] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "GB", "-1", "1.5GB", "1XB", "99999999999TB"] {
            assert_eq!(bad.parse::<ByteSize>(), Err(ByteSizeError), "{bad}");
        }
    }
}
