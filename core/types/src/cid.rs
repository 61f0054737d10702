//! Content identifiers, written as users write them: v0 in base58, v1 in base32.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest CID accepted, in bytes: version, codec and multihash head plus a digest of at most 128 bytes.
const MAX_CID_BYTES: usize = 160;
/// The longest CID string accepted; longer than any base of [`MAX_CID_BYTES`] but base2.
const MAX_CID_CHARS: usize = 512;

/// Multicodec numbers this project knows by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Codec;

impl Codec {
    /// `raw`: plain bytes.
    pub const RAW: u64 = 0x55;
    /// `dag-pb`: UnixFS nodes.
    pub const DAG_PB: u64 = 0x70;
    /// `dag-cbor`.
    pub const DAG_CBOR: u64 = 0x71;
    /// `sha2-256`, the multihash of CIDv0.
    pub const SHA2_256: u64 = 0x12;
    /// `identity`: the digest is the data.
    pub const IDENTITY: u64 = 0x00;
}

/// A content identifier.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cid(cid::Cid);

/// A text or bytes are not a content identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid CID: {reason}")]
pub struct CidError {
    reason: String,
}

impl Cid {
    /// A CIDv0: dag-pb, sha2-256.
    pub fn new_v0(hash: multihash::Multihash<64>) -> Result<Self, CidError> {
        cid::Cid::new_v0(hash).map(Self).map_err(CidError::from_display)
    }

    /// A CIDv1.
    pub fn new_v1(codec: u64, hash: multihash::Multihash<64>) -> Self {
        Self(cid::Cid::new_v1(codec, hash))
    }

    /// Reads the binary form; trailing bytes are an error.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CidError> {
        if bytes.len() > MAX_CID_BYTES {
            return Err(CidError { reason: format!("{} bytes are too many", bytes.len()) });
        }
        let cid = cid::Cid::try_from(bytes).map_err(CidError::from_display)?;
        if cid.encoded_len() == bytes.len() {
            Ok(Self(cid))
        } else {
            Err(CidError { reason: "bytes follow the end".to_owned() })
        }
    }

    /// Reads a CID from the start of `bytes` and says how many bytes it took.
    pub fn read_prefix(bytes: &[u8]) -> Result<(Self, usize), CidError> {
        let head = &bytes[..bytes.len().min(MAX_CID_BYTES)];
        let mut rest = head;
        let cid = cid::Cid::read_bytes(&mut rest).map_err(CidError::from_display)?;
        Ok((Self(cid), head.len() - rest.len()))
    }

    /// The binary form.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }

    /// The multihash.
    pub fn hash(&self) -> &multihash::Multihash<64> {
        self.0.hash()
    }

    /// The multihash in its binary form: what a block store is keyed by.
    pub fn hash_bytes(&self) -> Vec<u8> {
        self.0.hash().to_bytes()
    }

    /// The multicodec number.
    pub fn codec(&self) -> u64 {
        self.0.codec()
    }

    /// 0 or 1.
    pub fn version(&self) -> u64 {
        u64::from(self.0.version())
    }

    /// The wrapped CID of the `cid` crate.
    pub fn inner(&self) -> &cid::Cid {
        &self.0
    }
}

impl CidError {
    fn from_display(error: impl fmt::Display) -> Self {
        Self { reason: error.to_string() }
    }
}

impl From<cid::Cid> for Cid {
    fn from(cid: cid::Cid) -> Self {
        Self(cid)
    }
}

impl FromStr for Cid {
    type Err = CidError;

    fn from_str(text: &str) -> Result<Self, CidError> {
        if text.len() > MAX_CID_CHARS {
            return Err(CidError { reason: format!("{} characters are too many", text.len()) });
        }
        if text.contains('/') {
            return Err(CidError { reason: "it contains a slash".to_owned() });
        }
        cid::Cid::from_str(text).map(Self).map_err(CidError::from_display)
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cid({})", self.0)
    }
}

impl Serialize for Cid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Cid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V0: &str = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";
    const V1: &str = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";

    #[test]
    fn text_and_bytes_round_trip() {
        for text in [V0, V1] {
            let cid: Cid = text.parse().unwrap();
            assert_eq!(cid.to_string(), text);
            assert_eq!(Cid::from_bytes(&cid.to_bytes()).unwrap(), cid);
            assert_eq!(serde_json::to_string(&cid).unwrap(), format!("\"{text}\""));
        }
    }

    #[test]
    fn hostile_input_is_an_error() {
        let mut long = V1.parse::<Cid>().unwrap().to_bytes();
        long.push(0);
        assert!(Cid::from_bytes(&long).is_err());
        assert!(Cid::from_bytes(&[0x12; 4000]).is_err());
        assert!(Cid::from_bytes(&[]).is_err());
        assert!("/ipfs/QmX".parse::<Cid>().is_err());
        assert!("z".repeat(100_000).parse::<Cid>().is_err());
        assert!("".parse::<Cid>().is_err());
    }

    #[test]
    fn a_prefix_says_how_long_it_is() {
        let cid: Cid = V0.parse().unwrap();
        let mut bytes = cid.to_bytes();
        let length = bytes.len();
        bytes.extend_from_slice(b"block data");
        assert_eq!(Cid::read_prefix(&bytes).unwrap(), (cid, length));
    }
}
