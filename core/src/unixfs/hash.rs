//! From a block to its CID, and back: does a block match the CID it came under?

use std::fmt;

use blake2::digest::{Update, VariableOutput};
use cluster_types::{Cid, Codec};
use multihash_codetable::{Code, MultihashDigest};
use sha1::Digest;

/// Shorter digests prove nothing; Kubo refuses them too.
const MIN_DIGEST: usize = 20;
/// Multihash code of blake2b with N bytes of digest: this plus N.
const BLAKE2B: u64 = 0xb200;
/// Multihash code of blake2s with N bytes of digest: this plus N.
const BLAKE2S: u64 = 0xb240;
/// Multihash code of sha1.
const SHA1: u64 = 0x11;
/// Multihash code of sha2-256 applied twice.
const DOUBLE_SHA2_256: u64 = 0x56;

/// Names and codes of hash functions, without the lengths of blake2.
const NAMES: [(&str, u64); 14] = [
    ("sha1", SHA1),
    ("sha2-256", Codec::SHA2_256),
    ("sha2-512", 0x13),
    ("sha3-512", 0x14),
    ("sha3-384", 0x15),
    ("sha3-256", 0x16),
    ("sha3-224", 0x17),
    ("sha3", 0x14),
    ("keccak-224", 0x1a),
    ("keccak-256", 0x1b),
    ("keccak-384", 0x1c),
    ("keccak-512", 0x1d),
    ("blake3", 0x1e),
    ("dbl-sha2-256", DOUBLE_SHA2_256),
];

/// A function that names blocks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashFunction(Algorithm);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Table(Code),
    /// Not in the table, since it is broken; old CIDs use it, and Kubo still takes it.
    Sha1,
    DoubleSha2,
    Blake2b(usize),
    Blake2s(usize),
}

impl HashFunction {
    /// `sha2-256`.
    pub const SHA2_256: Self = Self(Algorithm::Table(Code::Sha2_256));

    /// The function with a multihash name (`sha2-256`, `blake2b-256`, `blake3`, …), in lower case.
    pub fn by_name(name: &str) -> Option<Self> {
        let bits = |prefix: &str| {
            let bits: u64 = name.strip_prefix(prefix)?.parse().ok()?;
            (bits > 0 && bits.is_multiple_of(8) && bits <= 512).then_some(bits / 8)
        };
        if let Some(bytes) = bits("blake2b-") {
            return Self::by_code(BLAKE2B + bytes);
        }
        if let Some(bytes) = bits("blake2s-") {
            return if bytes <= 32 { Self::by_code(BLAKE2S + bytes) } else { None };
        }
        NAMES.iter().find(|(known, _)| *known == name).and_then(|(_, code)| Self::by_code(*code))
    }

    /// The function with a multihash code; `None` for those that are unknown here or too short to be safe.
    pub fn by_code(code: u64) -> Option<Self> {
        let algorithm = match code {
            DOUBLE_SHA2_256 => Algorithm::DoubleSha2,
            SHA1 => Algorithm::Sha1,
            // Codes start at one byte of digest, so 64 bytes of blake2b end where blake2s starts.
            0xb214..=0xb240 => Algorithm::Blake2b((code - BLAKE2B) as usize),
            0xb254..=0xb260 => Algorithm::Blake2s((code - BLAKE2S) as usize),
            _ if NAMES.iter().any(|(_, known)| *known == code) => Algorithm::Table(Code::try_from(code).ok()?),
            _ => return None,
        };
        Some(Self(algorithm))
    }

    /// The multihash code.
    pub fn code(self) -> u64 {
        match self.0 {
            Algorithm::Table(code) => code.into(),
            Algorithm::Sha1 => SHA1,
            Algorithm::DoubleSha2 => DOUBLE_SHA2_256,
            Algorithm::Blake2b(bytes) => BLAKE2B + bytes as u64,
            Algorithm::Blake2s(bytes) => BLAKE2S + bytes as u64,
        }
    }

    /// The multihash name.
    pub fn name(self) -> String {
        match self.0 {
            Algorithm::Blake2b(bytes) => format!("blake2b-{}", bytes * 8),
            Algorithm::Blake2s(bytes) => format!("blake2s-{}", bytes * 8),
            Algorithm::Table(_) | Algorithm::Sha1 | Algorithm::DoubleSha2 => {
                let code = self.code();
                let name = NAMES.iter().find(|(_, known)| *known == code).map(|(name, _)| *name);
                name.expect("by_code only takes table functions that have a name").to_owned()
            }
        }
    }

    /// The digest of `data`, without the multihash head.
    pub fn digest(self, data: &[u8]) -> Vec<u8> {
        match self.0 {
            Algorithm::Table(code) => code.digest(data).digest().to_vec(),
            Algorithm::Sha1 => sha1::Sha1::digest(data).to_vec(),
            Algorithm::DoubleSha2 => Code::Sha2_256.digest(Code::Sha2_256.digest(data).digest()).digest().to_vec(),
            Algorithm::Blake2b(bytes) => {
                let hasher = blake2::Blake2bVar::new(bytes).expect("by_code takes at most 64 bytes");
                finish(hasher, data, bytes)
            }
            Algorithm::Blake2s(bytes) => {
                let hasher = blake2::Blake2sVar::new(bytes).expect("by_code takes at most 32 bytes");
                finish(hasher, data, bytes)
            }
        }
    }
}

fn finish<H: Update + VariableOutput>(mut hasher: H, data: &[u8], bytes: usize) -> Vec<u8> {
    hasher.update(data);
    let mut digest = vec![0; bytes];
    hasher.finalize_variable(&mut digest).expect("the buffer is as long as the digest");
    digest
}

impl fmt::Debug for HashFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// No CIDs can be made as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HashError {
    /// The name is not that of a hash function.
    #[error("hash function name not known")]
    UnknownName,
    /// CIDs have version 0 or 1.
    #[error("CID version {version} does not exist: use 0 or 1")]
    UnknownVersion {
        /// What was asked for.
        version: u32,
    },
    /// CIDv0 names sha2-256 only.
    #[error("CIDs of version 0 need sha2-256, not {name}: use cid-version 1")]
    NeedsVersionOne {
        /// What was asked for.
        name: String,
    },
}

/// Gives blocks their CIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CidBuilder {
    version_one: bool,
    hash: HashFunction,
}

impl CidBuilder {
    /// CIDs of a version (0 or 1) with a hash function, named in any case.
    pub fn new(version: u32, hash: &str) -> Result<Self, HashError> {
        let hash = HashFunction::by_name(&hash.to_ascii_lowercase()).ok_or(HashError::UnknownName)?;
        match version {
            0 if hash == HashFunction::SHA2_256 => Ok(Self { version_one: false, hash }),
            0 => Err(HashError::NeedsVersionOne { name: hash.name() }),
            1 => Ok(Self { version_one: true, hash }),
            version => Err(HashError::UnknownVersion { version }),
        }
    }

    /// The CID of a block. Only dag-pb has CIDs of version 0; anything else gets version 1 as Kubo gives it.
    pub fn cid(&self, codec: u64, data: &[u8]) -> Cid {
        let digest = self.hash.digest(data);
        let mut bytes = Vec::with_capacity(digest.len() + 16);
        if self.version_one || codec != Codec::DAG_PB {
            bytes.push(1);
            super::dagpb::put_varint(&mut bytes, codec);
        }
        super::dagpb::put_varint(&mut bytes, self.hash.code());
        super::dagpb::put_varint(&mut bytes, digest.len() as u64);
        bytes.extend_from_slice(&digest);
        Cid::from_bytes(&bytes).expect("version, codec, code and digest make a CID")
    }
}

/// A block does not match its CID, or it cannot be known whether it does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The bytes are others.
    #[error("the bytes do not match {cid}")]
    Mismatch {
        /// The CID.
        cid: Cid,
    },
    /// The CID names an unknown hash function.
    #[error("{cid} uses hash function 0x{code:x}, which is not known here")]
    UnknownFunction {
        /// The CID.
        cid: Cid,
        /// The function's multihash code.
        code: u64,
    },
    /// The digest is too short to prove anything.
    #[error("{cid} has a digest of {length} bytes only")]
    ShortDigest {
        /// The CID.
        cid: Cid,
        /// The digest's length.
        length: usize,
    },
}

/// Checks that `data` is the block that `cid` names. Digests may be cut down to 20 bytes, as multihash allows.
pub fn verify(cid: &Cid, data: &[u8]) -> Result<(), VerifyError> {
    let digest = cid.hash().digest();
    if let Some(held) = identity_data(cid) {
        return if held == data { Ok(()) } else { Err(VerifyError::Mismatch { cid: *cid }) };
    }
    let code = cid.hash().code();
    let function = HashFunction::by_code(code).ok_or(VerifyError::UnknownFunction { cid: *cid, code })?;
    if digest.len() < MIN_DIGEST {
        return Err(VerifyError::ShortDigest { cid: *cid, length: digest.len() });
    }
    if function.digest(data).starts_with(digest) { Ok(()) } else { Err(VerifyError::Mismatch { cid: *cid }) }
}

/// The block a CID holds itself, if its hash function is `identity`.
pub fn identity_data(cid: &Cid) -> Option<&[u8]> {
    (cid.hash().code() == Codec::IDENTITY).then(|| cid.hash().digest())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_agree() {
        for (name, code) in
            NAMES.into_iter().chain([("blake2b-256", 0xb220), ("blake2b-512", 0xb240), ("blake2s-256", 0xb260)])
        {
            let function = HashFunction::by_name(name).unwrap();
            assert_eq!(function.code(), code, "{name}");
            assert_eq!(HashFunction::by_name(&function.name()), Some(function), "{name}");
        }
        for unknown in [
            "",
            "identity",
            "md5",
            "blake2b-",
            "blake2b-12",
            "blake2b-8",
            "blake2b-520",
            "blake2s-0",
            "blake2s-512",
            "SHA1",
        ] {
            assert_eq!(HashFunction::by_name(unknown), None, "{unknown}");
        }
        assert_eq!(HashFunction::by_code(Codec::IDENTITY), None);
    }

    #[test]
    fn digests_are_those_of_the_functions() {
        let hex = |name: &str| {
            let digest = HashFunction::by_name(name).unwrap().digest(b"abc");
            digest[..4].iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        assert_eq!(hex("sha1"), "a9993e36");
        assert_eq!(hex("sha2-256"), "ba7816bf");
        assert_eq!(hex("sha2-512"), "ddaf35a1");
        assert_eq!(hex("sha3-256"), "3a985da7");
        assert_eq!(hex("keccak-256"), "4e03657a");
        assert_eq!(hex("blake2b-256"), "bddd813c");
        assert_eq!(hex("blake2b-512"), "ba80a53f");
        assert_eq!(hex("blake2s-256"), "508c5e8c");
        assert_eq!(hex("blake3"), "6437b3ac");
        assert_eq!(hex("dbl-sha2-256"), "4f8b42c2");
        assert_eq!(HashFunction::by_name("blake2b-160").unwrap().digest(b"").len(), 20);
    }

    #[test]
    fn a_cid_of_version_zero_is_for_sha2_and_dag_pb() {
        let zero = CidBuilder::new(0, "SHA2-256").unwrap();
        assert_eq!(
            zero.cid(Codec::DAG_PB, &[0x0a, 2, 8, 1]).to_string(),
            "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"
        );
        let raw = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";
        assert_eq!(zero.cid(Codec::RAW, b"").to_string(), raw);
        assert!(matches!(CidBuilder::new(0, "blake3"), Err(HashError::NeedsVersionOne { .. })));
        assert_eq!(CidBuilder::new(1, "sha4").unwrap_err().to_string(), "hash function name not known");
        assert!(CidBuilder::new(2, "sha2-256").is_err());
    }

    #[test]
    fn a_block_is_checked_against_its_cid() {
        for name in ["sha2-256", "sha1", "blake2b-256", "blake3", "dbl-sha2-256", "sha2-512"] {
            let cid = CidBuilder::new(1, name).unwrap().cid(Codec::RAW, b"block");
            assert_eq!(verify(&cid, b"block"), Ok(()), "{name}");
            assert_eq!(verify(&cid, b"blocK"), Err(VerifyError::Mismatch { cid }), "{name}");
        }
    }

    #[test]
    fn cut_digests_count_down_to_twenty_bytes() {
        let digest = HashFunction::SHA2_256.digest(b"block");
        let cut = |length: u8| {
            let bytes = [&[1, 0x55, 0x12, length], &digest[..usize::from(length)]].concat();
            Cid::from_bytes(&bytes).unwrap()
        };
        assert_eq!(verify(&cut(20), b"block"), Ok(()));
        assert!(matches!(verify(&cut(20), b"other"), Err(VerifyError::Mismatch { .. })));
        assert!(matches!(verify(&cut(19), b"block"), Err(VerifyError::ShortDigest { .. })));
        assert!(matches!(verify(&cut(0), b"block"), Err(VerifyError::ShortDigest { .. })));
        let unknown = Cid::from_bytes(&[1, 0x55, 0x22, 1, 0]).unwrap();
        assert!(matches!(verify(&unknown, b"block"), Err(VerifyError::UnknownFunction { code: 0x22, .. })));
        let held = Cid::from_bytes(&[1, 0x55, 0, 2, b'h', b'i']).unwrap();
        assert_eq!(verify(&held, b"hi"), Ok(()));
        assert!(verify(&held, b"ho").is_err());
    }
}
