//! Epochs and tails: what a shard was at an earlier log index.
//!
//! A shard keeps its present records and a **tail**: for each change of a record, the log index and what was there
//! before. Undoing the tail's entries after an index gives the records of that index, so nothing else of the past is
//! kept. An **epoch** is a log index up to which the tail may be cut; the present one and the one before it are kept, and
//! the tail reaches back to the latter.
//!
//! **Invariant:** epochs are a rule on the log: every peer that applied the same entries has the same epochs, and the same
//! tail as far as it was there. For that, a tail entry is written for each changed record of each *log entry*, however
//! entries are gathered into batches. A peer that received a shard from others has the tail since then only
//! ([`ShardState::tail_from`](crate::ports::ShardState::tail_from)): epochs say how far back a tail should reach, not
//! how far this one does.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cluster_types::Cid;

use super::Records;
use super::codec::Format;
use crate::consensus::operation::DecodeError;

/// A tail may always grow this long, whatever the size of its shard: below, a new epoch saves next to nothing.
pub const SHORT_TAIL: u64 = 64;
/// Longest encoded tail entry: a record, which came in a log entry, and its name.
pub const MAX_TAIL_ENTRY_BYTES: usize = 1024 * 1024;

const META: Format = Format { what: "shard epochs", version: 1, limit: 64 };
const ENTRY: Format = Format { what: "tail entry", version: 1, limit: MAX_TAIL_ENTRY_BYTES };

/// The epochs of a shard: how far back its tail reaches on peers that applied the log all along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardMeta {
    /// Log index of the present epoch: the records after that entry.
    pub epoch: u64,
    /// Log index of the epoch before it; the tail holds all changes after it.
    pub previous: u64,
    /// Number of tail entries after the present epoch.
    pub since_epoch: u64,
    /// Number of tail entries after the previous epoch, those after the present one included.
    pub since_previous: u64,
}

impl ShardMeta {
    /// After the log entry `index` changed `changes` of the shard's records; `pins` is their number before it. When the
    /// tail since the epoch had outgrown half of the shard, the entry starts a new epoch: tail entries that are not
    /// after the new `previous` may be dropped.
    pub fn after(self, index: u64, changes: u64, pins: u64) -> Self {
        if changes == 0 {
            return self;
        }
        if self.since_epoch > SHORT_TAIL.max(pins / 2) {
            let since_previous = self.since_epoch + changes;
            return Self { epoch: index, previous: self.epoch, since_epoch: 0, since_previous };
        }
        Self { since_epoch: self.since_epoch + changes, since_previous: self.since_previous + changes, ..self }
    }

    /// Whether the records of an index can be derived from a tail that was never cut short.
    pub fn covers(&self, index: u64) -> bool {
        index >= self.previous
    }

    /// The encoded form.
    pub fn encode(&self) -> Vec<u8> {
        META.encode(&wire::Meta {
            epoch: self.epoch,
            previous: self.previous,
            since_epoch: self.since_epoch,
            since_previous: self.since_previous,
        })
    }

    /// Reads the encoded form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let wire::Meta { epoch, previous, since_epoch, since_previous } = META.decode(bytes)?;
        let meta = Self { epoch, previous, since_epoch, since_previous };
        if meta.is_sound() { Ok(meta) } else { Err(META.fail("they are not in order")) }
    }

    /// Whether it can be: what is newer is not before what is older.
    pub(super) fn is_sound(&self) -> bool {
        self.previous <= self.epoch && self.since_epoch <= self.since_previous
    }
}

/// One change of one record, as it is undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailEntry {
    /// Index of the log entry that changed it.
    pub index: u64,
    /// The pin.
    pub cid: Cid,
    /// The record before that entry; `None` if there was none.
    pub before: Option<Bytes>,
}

impl TailEntry {
    /// The encoded form.
    pub fn encode(&self) -> Vec<u8> {
        ENTRY.encode(&wire::Entry { index: self.index, cid: self.cid.to_bytes(), before: self.before.clone() })
    }

    /// Reads the encoded form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message: wire::Entry = ENTRY.decode(bytes)?;
        Ok(Self { index: message.index, cid: ENTRY.cid(&message.cid)?, before: message.before })
    }
}

/// Turns the present records of a shard into those of log index `to`. `tail` has to hold at least the entries after it,
/// in any order.
pub fn undo<'a>(records: &mut Records, tail: impl IntoIterator<Item = &'a TailEntry>, to: u64) {
    let mut first: BTreeMap<Cid, &TailEntry> = BTreeMap::new();
    for entry in tail.into_iter().filter(|entry| entry.index > to) {
        let slot = first.entry(entry.cid).or_insert(entry);
        if entry.index < slot.index {
            *slot = entry;
        }
    }
    for (cid, entry) in first {
        match &entry.before {
            Some(record) => records.insert(cid, record.clone()),
            None => records.remove(&cid),
        };
    }
}

/// The records that changed after a log index. A peer that has the shard as of then needs these, as they are now.
pub fn changed_since<'a>(tail: impl IntoIterator<Item = &'a TailEntry>, index: u64) -> BTreeSet<Cid> {
    tail.into_iter().filter(|entry| entry.index > index).map(|entry| entry.cid).collect()
}

mod wire {
    //! The protobuf messages.

    /// How far back a tail reaches.
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct Meta {
        #[prost(uint64, tag = "1")]
        pub(super) epoch: u64,
        #[prost(uint64, tag = "2")]
        pub(super) previous: u64,
        #[prost(uint64, tag = "3")]
        pub(super) since_epoch: u64,
        #[prost(uint64, tag = "4")]
        pub(super) since_previous: u64,
    }

    /// A tail entry.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Entry {
        #[prost(uint64, tag = "1")]
        pub(super) index: u64,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) cid: Vec<u8>,
        #[prost(bytes = "bytes", optional, tag = "3")]
        pub(super) before: Option<bytes::Bytes>,
    }
}

#[cfg(test)]
#[path = "epoch_tests.rs"]
mod tests;
