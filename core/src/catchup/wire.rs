//! What a peer that catches up asks, and what donors answer.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::consensus::digest::SHARDS;
use crate::consensus::operation::DecodeError;
use crate::crdt::manifest::excerpt::Excerpt;
use crate::crdt::manifest::{MAX_MANIFEST_BYTES, Manifest};
use crate::crdt::packed::{deflate, inflate};

/// Shards that may be compared in one question.
pub(super) const MAX_COMPARED: usize = 128;

/// A question about shards, all as of one log index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The log index.
    pub index: u64,
    /// The answer may be closed after so many records: what is lost when it is.
    pub enough: u32,
    /// What is wanted of which shards.
    pub what: Wanted,
}

/// What is wanted. Shards are in ascending order, each once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    /// The records that changed since another log index, as they are at the index asked about.
    Since {
        /// The other index.
        base: u64,
        /// The shards.
        shards: Vec<u16>,
    },
    /// All records.
    Whole {
        /// The shards.
        shards: Vec<u16>,
        /// Leave out so many of the first shard: those of an earlier answer.
        skip: u32,
    },
    /// The record hashes of the ranges that differ from these ([`crate::crdt::ranges`]).
    Compare {
        /// The shards and the encoded sums of ranges.
        shards: Vec<(u16, Bytes)>,
    },
    /// Records by their hashes.
    Records {
        /// The shards and the hashes.
        shards: Vec<(u16, Vec<u64>)>,
    },
}

/// A donor's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// Records of shards. Those that are missing were not reached: they may be asked for again.
    Shards {
        /// What is said of each shard.
        parts: Vec<Part>,
        /// The records of all parts, one part after the other ([`crate::crdt::packed`]).
        packed: Bytes,
    },
    /// Record hashes of shards: to [`Wanted::Compare`].
    Listings {
        /// What is said of each shard; the encoded listing where the kind is [`PartKind::Complete`].
        listings: Vec<(u16, PartKind, Bytes)>,
    },
    /// This peer has not applied the index yet.
    Behind,
    /// Too many questions of the same peer are waiting.
    Busy,
}

/// What is said of a shard: its number, what kind of answer, and how many records belong to it.
pub type Part = (u16, PartKind, u32);

/// What an answer about a shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum PartKind {
    /// All that was asked for.
    Complete,
    /// The beginning; ask for the rest.
    More,
    /// This donor's tail does not reach back to the base: compare, or take all.
    BaseGone,
    /// This donor cannot derive the shard as of the index: ask another one.
    IndexGone,
    /// So much differs that all of it is cheaper.
    TooMuch,
}

impl From<PartKind> for u8 {
    fn from(kind: PartKind) -> Self {
        match kind {
            PartKind::Complete => 0,
            PartKind::More => 1,
            PartKind::BaseGone => 2,
            PartKind::IndexGone => 3,
            PartKind::TooMuch => 4,
        }
    }
}

impl TryFrom<u8> for PartKind {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<Self, &'static str> {
        let all = [Self::Complete, Self::More, Self::BaseGone, Self::IndexGone, Self::TooMuch];
        all.into_iter().find(|kind| u8::from(*kind) == number).ok_or("unknown kind of an answer")
    }
}

impl Ask {
    /// The shards asked about, if they are shards, in order, each once.
    pub(super) fn shards(&self) -> Option<Vec<u16>> {
        let shards: Vec<u16> = match &self.what {
            Wanted::Since { shards, .. } | Wanted::Whole { shards, .. } => shards.clone(),
            Wanted::Compare { shards } => shards.iter().map(|(shard, _)| *shard).collect(),
            Wanted::Records { shards } => shards.iter().map(|(shard, _)| *shard).collect(),
        };
        let sound = shards.is_sorted_by(|left, right| left < right) && shards.last().is_some_and(|last| *last < SHARDS);
        // These are read whole, however short the answer is.
        let read_whole = matches!(self.what, Wanted::Compare { .. } | Wanted::Records { .. });
        (sound && !(read_whole && shards.len() > MAX_COMPARED)).then_some(shards)
    }
}

/// A manifest as it travels: compressed.
pub fn encode_manifest(manifest: &Manifest) -> Bytes {
    fold(&manifest.encode())
}

/// Reads a manifest as it travels.
pub fn decode_manifest(bytes: &[u8]) -> Result<Manifest, DecodeError> {
    Manifest::decode(&unfold(bytes)?)
}

/// An excerpt of a manifest as it travels: compressed.
pub(crate) fn encode_excerpt(excerpt: &Excerpt) -> Bytes {
    fold(&excerpt.encode())
}

/// Reads an excerpt as it travels.
pub(crate) fn decode_excerpt(bytes: &[u8]) -> Result<Excerpt, DecodeError> {
    Excerpt::decode(&unfold(bytes)?)
}

fn fold(plain: &[u8]) -> Bytes {
    let length = u32::try_from(plain.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &deflate(plain)].concat().into()
}

fn unfold(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let fail = |reason: &str| DecodeError::new("manifest", reason);
    let (length, packed) = bytes.split_first_chunk().ok_or_else(|| fail("it is cut off"))?;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > MAX_MANIFEST_BYTES {
        return Err(fail("it is too long"));
    }
    inflate(packed, length).ok_or_else(|| fail("it cannot be unfolded"))
}
