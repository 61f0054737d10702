//! The manifest of a state: enough to see which shards differ and to check what was pulled, in some seventy kilobytes.
//!
//! Of each shard it holds the number of pins, the first eight bytes of its set hash and its epochs, and over all shards
//! the root digest, which leaves no doubt: eight bytes point at shards to compare, the root decides.

pub mod excerpt;

use bytes::Bytes;
use cluster_types::ErrorClass;

use super::ShardMeta;
use super::codec::Format;
use crate::consensus::digest::{SHARDS, root};
use crate::consensus::operation::DecodeError;
use crate::ports::{ShardState, ShardSum};

/// Longest applied position: the position itself and the membership, a few hundred bytes for each member.
pub const MAX_APPLIED_BYTES: usize = 1024 * 1024;

const COUNT: usize = SHARDS as usize;
/// Of each shard eight bytes of hash, and five numbers of at most ten bytes.
const FORMAT: Format = Format { what: "manifest", version: 2, limit: MAX_MANIFEST_BYTES };
/// Longest encoded manifest.
pub const MAX_MANIFEST_BYTES: usize = 128 + MAX_APPLIED_BYTES + COUNT * (8 + 5 * 10);

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
    meta: ShardMeta,
}

impl Mark {
    fn of(state: &ShardState) -> Self {
        let mut hash = [0; 8];
        hash.copy_from_slice(&state.sum.hash[..8]);
        Self { pins: state.sum.pins, hash, meta: state.meta }
    }

    fn matches(&self, sum: &ShardSum) -> bool {
        self.pins == sum.pins && self.hash == sum.hash[..8]
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
    /// The manifest of a state: its applied position, and all its shards in order.
    pub fn of(applied: Bytes, shards: &[ShardState]) -> Result<Self, ManifestError> {
        complete(shards.len())?;
        let root = root(shards.iter().map(|state| &state.sum));
        Ok(Self { applied, root, marks: shards.iter().map(Mark::of).collect() })
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

    /// The epochs of a shard.
    pub fn meta(&self, shard: u16) -> ShardMeta {
        self.marks.get(usize::from(shard)).map(|mark| mark.meta).unwrap_or_default()
    }

    /// Number of pins in all.
    pub fn pins(&self) -> u64 {
        self.marks.iter().fold(0, |sum, mark| sum.saturating_add(mark.pins))
    }

    /// The shards whose records are not as in the manifest.
    pub fn differing(&self, ours: &[ShardSum]) -> Result<Vec<u16>, ManifestError> {
        complete(ours.len())?;
        let pairs = self.marks.iter().zip(ours).zip(0_u16..);
        Ok(pairs.filter(|((mark, sum), _)| !mark.matches(sum)).map(|(_, shard)| shard).collect())
    }

    /// The shards whose records are not as in another manifest.
    pub fn differing_from(&self, other: &Self) -> Vec<u16> {
        let pairs = self.marks.iter().zip(&other.marks).zip(0_u16..);
        pairs.filter(|((one, other), _)| (one.pins, one.hash) != (other.pins, other.hash)).map(|(_, at)| at).collect()
    }

    /// Whether the records of one shard are as in the manifest, as far as eight bytes tell.
    pub fn matches(&self, shard: u16, sum: &ShardSum) -> bool {
        self.marks.get(usize::from(shard)).is_some_and(|mark| mark.matches(sum))
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
        let numbers = |of: fn(&Mark) -> u64| self.marks.iter().map(of).collect();
        FORMAT.encode(&wire::Manifest {
            applied: self.applied.clone(),
            root: self.root.to_vec(),
            hashes: self.marks.iter().flat_map(|mark| mark.hash).collect(),
            pins: numbers(|mark| mark.pins),
            epochs: numbers(|mark| mark.meta.epoch),
            previous: numbers(|mark| mark.meta.previous),
            since_epochs: numbers(|mark| mark.meta.since_epoch),
            since_previous: numbers(|mark| mark.meta.since_previous),
        })
    }

    /// Reads the encoded form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message: wire::Manifest = FORMAT.decode(bytes)?;
        if message.applied.len() > MAX_APPLIED_BYTES {
            return Err(FORMAT.fail("the applied position is too long"));
        }
        let (hashes, rest) = message.hashes.as_chunks::<8>();
        let columns =
            [&message.pins, &message.epochs, &message.previous, &message.since_epochs, &message.since_previous];
        if hashes.len() != COUNT || !rest.is_empty() || columns.iter().any(|column| column.len() != COUNT) {
            return Err(FORMAT.fail("the number of shards is wrong"));
        }
        let mark = |(place, hash): (usize, &[u8; 8])| {
            let [pins, epoch, previous, since_epoch, since_previous] = columns.map(|column| column[place]);
            let meta = ShardMeta { epoch, previous, since_epoch, since_previous };
            meta.is_sound().then_some(Mark { pins, hash: *hash, meta })
        };
        let marks: Option<_> = hashes.iter().enumerate().map(mark).collect();
        let marks = marks.ok_or_else(|| FORMAT.fail("epochs are not in order"))?;
        Ok(Self { applied: message.applied, root: FORMAT.array(&message.root)?, marks })
    }
}

fn complete(shards: usize) -> Result<(), ManifestError> {
    if shards == COUNT { Ok(()) } else { Err(ManifestError::Length { sums: shards }) }
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
        #[prost(uint64, repeated, tag = "5")]
        pub(super) epochs: Vec<u64>,
        #[prost(uint64, repeated, tag = "6")]
        pub(super) previous: Vec<u64>,
        #[prost(uint64, repeated, tag = "7")]
        pub(super) since_epochs: Vec<u64>,
        #[prost(uint64, repeated, tag = "8")]
        pub(super) since_previous: Vec<u64>,
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
