//! The manifest of a state: enough to see which shards differ and to check what was pulled, in about forty kilobytes.
//!
//! Of each shard it holds the number of pins and the first eight bytes of its set hash, and over all shards the root
//! digest, which leaves no doubt: eight bytes point at shards to compare, the root decides.

use bytes::Bytes;
use cluster_types::ErrorClass;

use super::codec::Format;
use crate::consensus::digest::{SHARDS, root};
use crate::consensus::operation::DecodeError;
use crate::ports::ShardSum;

/// Longest applied position: the position itself and the membership, a few hundred bytes for each member.
pub const MAX_APPLIED_BYTES: usize = 1024 * 1024;

const COUNT: usize = SHARDS as usize;
/// Of each shard eight bytes of hash, and a number of at most ten bytes.
const FORMAT: Format = Format { what: "manifest", version: 1, limit: 128 + MAX_APPLIED_BYTES + COUNT * (8 + 10) };

/// A state does not belong to a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not as many sums as there are shards.
    #[error("{sums} sums of shards were given, not {SHARDS}")]
    Length {
        /// How many were given.
        sums: usize,
    },
    /// Some shards are not those of the manifest.
    #[error("{count} shards differ, the first is {first}")]
    Shards {
        /// The first of them.
        first: u16,
        /// How many.
        count: usize,
    },
    /// Every shard looks right and the whole is not.
    #[error("the root digest differs")]
    Root,
}

impl ManifestError {
    /// What the caller may do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Length { .. } | Self::Shards { .. } | Self::Root => ErrorClass::Invalid,
        }
    }
}

/// What a shard is, in short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    pins: u64,
    hash: [u8; 8],
}

impl From<&ShardSum> for Mark {
    fn from(sum: &ShardSum) -> Self {
        let mut hash = [0; 8];
        hash.copy_from_slice(&sum.hash[..8]);
        Self { pins: sum.pins, hash }
    }
}

/// What a snapshot consists of, without its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    applied: Bytes,
    root: [u8; 32],
    marks: Vec<Mark>,
}

impl Manifest {
    /// The manifest of a state: its applied position, and the sums of all its shards in order.
    pub fn of(applied: Bytes, sums: &[ShardSum]) -> Result<Self, ManifestError> {
        complete(sums)?;
        Ok(Self { applied, root: root(sums), marks: sums.iter().map(Mark::from).collect() })
    }

    /// The applied position and membership, as the store keeps them.
    pub fn applied(&self) -> &Bytes {
        &self.applied
    }

    /// The digest of the whole pinset.
    pub fn root(&self) -> [u8; 32] {
        self.root
    }

    /// Number of pins in a shard.
    pub fn pins_in(&self, shard: u16) -> u64 {
        self.marks.get(usize::from(shard)).map_or(0, |mark| mark.pins)
    }

    /// Number of pins in all.
    pub fn pins(&self) -> u64 {
        self.marks.iter().fold(0, |sum, mark| sum.saturating_add(mark.pins))
    }

    /// The shards that are not as in the manifest.
    pub fn differing(&self, ours: &[ShardSum]) -> Result<Vec<u16>, ManifestError> {
        complete(ours)?;
        let pairs = self.marks.iter().zip(ours).zip(0_u16..);
        Ok(pairs.filter(|((mark, sum), _)| **mark != Mark::from(*sum)).map(|(_, shard)| shard).collect())
    }

    /// Whether one shard is as in the manifest, as far as eight bytes tell.
    pub fn matches(&self, shard: u16, sum: &ShardSum) -> bool {
        self.marks.get(usize::from(shard)) == Some(&Mark::from(sum))
    }

    /// Checks a whole state against the root.
    pub fn verify(&self, sums: &[ShardSum]) -> Result<(), ManifestError> {
        let differing = self.differing(sums)?;
        match differing.first() {
            Some(first) => Err(ManifestError::Shards { first: *first, count: differing.len() }),
            None if root(sums) == self.root => Ok(()),
            None => Err(ManifestError::Root),
        }
    }

    /// The encoded form.
    pub fn encode(&self) -> Vec<u8> {
        FORMAT.encode(&wire::Manifest {
            applied: self.applied.clone(),
            root: self.root.to_vec(),
            hashes: self.marks.iter().flat_map(|mark| mark.hash).collect(),
            pins: self.marks.iter().map(|mark| mark.pins).collect(),
        })
    }

    /// Reads the encoded form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message: wire::Manifest = FORMAT.decode(bytes)?;
        if message.applied.len() > MAX_APPLIED_BYTES {
            return Err(FORMAT.fail("the applied position is too long"));
        }
        let (hashes, rest) = message.hashes.as_chunks::<8>();
        if hashes.len() != COUNT || !rest.is_empty() || message.pins.len() != COUNT {
            return Err(FORMAT.fail("the number of shards is wrong"));
        }
        let marks = hashes.iter().zip(message.pins).map(|(hash, pins)| Mark { pins, hash: *hash });
        Ok(Self { applied: message.applied, root: FORMAT.array(&message.root)?, marks: marks.collect() })
    }
}

fn complete(sums: &[ShardSum]) -> Result<(), ManifestError> {
    if sums.len() == COUNT { Ok(()) } else { Err(ManifestError::Length { sums: sums.len() }) }
}

mod wire {
    //! The protobuf message.

    /// A manifest.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Manifest {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) applied: bytes::Bytes,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) root: Vec<u8>,
        /// Eight bytes a shard.
        #[prost(bytes = "vec", tag = "3")]
        pub(super) hashes: Vec<u8>,
        #[prost(uint64, repeated, tag = "4")]
        pub(super) pins: Vec<u64>,
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
