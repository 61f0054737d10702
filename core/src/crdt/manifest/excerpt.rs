//! What a manifest says of the shards that changed since a log index: all that a reader lacks whose state is of that index.
//!
//! A manifest of a million pins has some ninety kilobytes, nearly all of them hashes and log indexes, which cannot be
//! compressed. A peer that was away for a moment has most of the shards as they are.
//!
//! **Invariant:** what an excerpt is completed to counts only when it is the manifest that the excerpt was made of, byte by
//! byte. Whoever stands elsewhere, or has other shards than it should, needs all of it.

use bytes::Bytes;

use super::{COUNT, MAX_APPLIED_BYTES, MAX_MANIFEST_BYTES, Manifest, Mark};
use crate::consensus::digest::SHARDS;
use crate::consensus::operation::DecodeError;
use crate::crdt::ShardMeta;
use crate::crdt::codec::Format;
use crate::ports::ShardState;

const FORMAT: Format = Format { what: "excerpt of a manifest", version: 1, limit: MAX_MANIFEST_BYTES };

/// What a manifest says of some shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    applied: Bytes,
    root: [u8; 32],
    /// Hash of the encoded manifest.
    whole: [u8; 32],
    marks: Vec<(u16, Mark)>,
}

impl Excerpt {
    /// What `manifest` says of `shards`, which are in ascending order.
    pub fn of(manifest: &Manifest, shards: &[u16]) -> Self {
        let mark = |shard: &u16| manifest.marks.get(usize::from(*shard)).map(|mark| (*shard, *mark));
        Self {
            applied: manifest.applied.clone(),
            root: manifest.root,
            whole: blake3::hash(&manifest.encode()).into(),
            marks: shards.iter().filter_map(mark).collect(),
        }
    }

    /// The manifest it is of, the other shards being as `own`; `None` if they are not.
    pub fn complete(&self, own: &[ShardState]) -> Option<Manifest> {
        let mut marks: Vec<Mark> = own.iter().map(Mark::of).collect();
        for (shard, mark) in &self.marks {
            *marks.get_mut(usize::from(*shard))? = *mark;
        }
        let manifest = Manifest { applied: self.applied.clone(), root: self.root, marks };
        (manifest.marks.len() == COUNT && blake3::hash(&manifest.encode()) == self.whole).then_some(manifest)
    }

    /// The encoded form.
    pub fn encode(&self) -> Vec<u8> {
        let numbers = |of: fn(&Mark) -> u64| self.marks.iter().map(|(_, mark)| of(mark)).collect();
        // Steps from one shard to the next are small numbers.
        let before = std::iter::once(0).chain(self.marks.iter().map(|(shard, _)| *shard));
        let steps = self.marks.iter().zip(before).map(|((shard, _), before)| u32::from(shard - before)).collect();
        FORMAT.encode(&wire::Excerpt {
            applied: self.applied.clone(),
            root: self.root.to_vec(),
            whole: self.whole.to_vec(),
            steps,
            hashes: self.marks.iter().flat_map(|(_, mark)| mark.hash).collect(),
            pins: numbers(|mark| mark.pins),
            epochs: numbers(|mark| mark.meta.epoch),
            previous: numbers(|mark| mark.meta.previous),
            since_epochs: numbers(|mark| mark.meta.since_epoch),
            since_previous: numbers(|mark| mark.meta.since_previous),
        })
    }

    /// Reads the encoded form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message: wire::Excerpt = FORMAT.decode(bytes)?;
        if message.applied.len() > MAX_APPLIED_BYTES {
            return Err(FORMAT.fail("the applied position is too long"));
        }
        let (hashes, rest) = message.hashes.as_chunks::<8>();
        let count = message.steps.len();
        let columns =
            [&message.pins, &message.epochs, &message.previous, &message.since_epochs, &message.since_previous];
        if count > COUNT
            || hashes.len() != count
            || !rest.is_empty()
            || columns.iter().any(|column| column.len() != count)
        {
            return Err(FORMAT.fail("the number of shards is wrong"));
        }
        let (mut marks, mut last) = (Vec::with_capacity(count), 0_u32);
        for (place, (hash, step)) in hashes.iter().zip(&message.steps).enumerate() {
            last = last.saturating_add(*step);
            let shard = u16::try_from(last).ok().filter(|shard| *shard < SHARDS && (place == 0 || *step > 0));
            let shard = shard.ok_or_else(|| FORMAT.fail("the shards are not in order"))?;
            let [pins, epoch, previous, since_epoch, since_previous] = columns.map(|column| column[place]);
            let meta = ShardMeta { epoch, previous, since_epoch, since_previous };
            if !meta.is_sound() {
                return Err(FORMAT.fail("epochs are not in order"));
            }
            marks.push((shard, Mark { pins, hash: *hash, meta }));
        }
        let (root, whole) = (FORMAT.array(&message.root)?, FORMAT.array(&message.whole)?);
        Ok(Self { applied: message.applied, root, whole, marks })
    }
}

mod wire {
    //! The protobuf message.

    /// An excerpt.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Excerpt {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) applied: bytes::Bytes,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) root: Vec<u8>,
        #[prost(bytes = "vec", tag = "3")]
        pub(super) whole: Vec<u8>,
        /// The first shard, then the steps to the others.
        #[prost(uint32, repeated, tag = "4")]
        pub(super) steps: Vec<u32>,
        /// Eight bytes a shard.
        #[prost(bytes = "vec", tag = "5")]
        pub(super) hashes: Vec<u8>,
        #[prost(uint64, repeated, tag = "6")]
        pub(super) pins: Vec<u64>,
        #[prost(uint64, repeated, tag = "7")]
        pub(super) epochs: Vec<u64>,
        #[prost(uint64, repeated, tag = "8")]
        pub(super) previous: Vec<u64>,
        #[prost(uint64, repeated, tag = "9")]
        pub(super) since_epochs: Vec<u64>,
        #[prost(uint64, repeated, tag = "10")]
        pub(super) since_previous: Vec<u64>,
    }
}

#[cfg(test)]
#[path = "excerpt_tests.rs"]
mod tests;
