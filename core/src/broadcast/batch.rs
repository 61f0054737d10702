//! Entries of the log that are on a quorum, as the leader tells them to followers.
//!
//! A batch says after which place of the log it begins, and of every entry what the shards that it changed look like
//! afterwards, so whoever applies it notices at once when it did not have the same. Without entries it says where the
//! log stands. Protobuf with a version in front; a golden file pins it.

use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};

use crate::consensus::log::LogId;
use crate::consensus::operation::{DecodeError, Entry};
use crate::ports::Topic;

/// First byte of an encoded batch.
const VERSION: u8 = 1;
/// The longest batch that is read or sent: what gossip takes, less the envelope.
pub const MAX_BYTES: usize = Topic::Log.max_message() - 16;
/// The most entries in one batch: what the leader applies in one go.
pub const MAX_ENTRIES: usize = 4_096;
/// The most operations in one entry. The leader puts a sixteenth of this into one; in memory each takes a few hundred
/// bytes, however short it is on the wire.
const MAX_OPERATIONS: usize = 16_384;
/// What an entry takes beside its own bytes: place, digest, lengths.
const AROUND_ENTRY: usize = 128;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchEntry {
    /// Its place in the log.
    pub id: LogId,
    /// What it does; nothing when it only changed the membership or began a term.
    pub entry: Entry,
    /// The shards it changed, as it left them ([`touched`](crate::consensus::digest::touched)).
    pub digest: [u8; 32],
}

/// Some entries, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The place before the first entry.
    pub previous: Option<LogId>,
    /// The entries; none: the log ends at `previous`.
    pub entries: Vec<BatchEntry>,
}

impl Batch {
    /// The last place this batch tells of.
    pub fn last(&self) -> Option<LogId> {
        self.entries.last().map(|entry| entry.id).or(self.previous)
    }

    /// The encoded form, version included.
    pub fn encode(&self) -> Vec<u8> {
        let entries = self.entries.iter().map(|entry| Packed::new(entry.id, &entry.entry, entry.digest));
        encode(self.previous, entries)
    }

    /// Reads the encoded form. Nothing is read of what is longer than [`MAX_BYTES`]; entries follow each other without
    /// a gap.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_BYTES {
            return Err(fail(format_args!("{} bytes are more than {MAX_BYTES}", bytes.len())));
        }
        if bytes.first() != Some(&VERSION) {
            return Err(fail("unknown version; was it written by a newer release?"));
        }
        let body = bytes.slice(1..);
        count_fields(&body, 2, MAX_ENTRIES)?;
        let message = wire::Batch::decode(body).map_err(fail)?;
        let mut batch = Self { previous: message.previous.as_ref().map(read_place), entries: Vec::new() };
        for entry in message.entries {
            let id = entry.id.as_ref().map(read_place).ok_or_else(|| fail("an entry has no place"))?;
            let follows = batch.last().map_or(id.index() == 0, |last| {
                id.index().checked_sub(1) == Some(last.index())
                    && id.committed_leader_id() >= last.committed_leader_id()
            });
            if !follows {
                return Err(fail("its entries do not follow each other"));
            }
            // The version of the entry comes first.
            count_fields(entry.entry.get(1..).unwrap_or_default(), 2, MAX_OPERATIONS)?;
            let digest = entry.digest.as_ref().try_into().map_err(|_| fail("a digest has another size"))?;
            let content = if entry.entry.is_empty() { Entry::default() } else { Entry::decode(&entry.entry)? };
            batch.entries.push(BatchEntry { id, entry: content, digest });
        }
        Ok(batch)
    }
}

/// An entry in its encoded form.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    pub(super) id: LogId,
    entry: Bytes,
    digest: [u8; 32],
}

impl Packed {
    pub(super) fn new(id: LogId, entry: &Entry, digest: [u8; 32]) -> Self {
        // The time of an entry without operations says nothing.
        let entry = if entry.operations.is_empty() { Bytes::new() } else { entry.encode().into() };
        Self { id, entry, digest }
    }

    /// How much room it takes in a batch, or a little less.
    pub(super) fn size(&self) -> usize {
        self.entry.len() + AROUND_ENTRY
    }
}

/// The encoded form of the entries behind `previous`, version included.
pub(super) fn encode(previous: Option<LogId>, entries: impl IntoIterator<Item = Packed>) -> Vec<u8> {
    let entries = entries.into_iter().map(|packed| wire::Entry {
        id: Some(place(&packed.id)),
        entry: packed.entry,
        digest: Bytes::copy_from_slice(&packed.digest),
    });
    let message = wire::Batch { previous: previous.as_ref().map(place), entries: entries.collect() };
    let mut bytes = Vec::with_capacity(1 + message.encoded_len());
    bytes.push(VERSION);
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes
}

fn place(id: &LogId) -> wire::Place {
    wire::Place { term: **id.committed_leader_id(), index: id.index() }
}

fn read_place(place: &wire::Place) -> LogId {
    LogId::new(place.term.into(), place.index)
}

/// Counts how often a field stands in a message, without keeping anything: a few bytes on the wire can be a few hundred
/// in memory.
fn count_fields(mut message: &[u8], field: u32, limit: usize) -> Result<(), DecodeError> {
    let mut count = 0;
    while message.has_remaining() {
        let (tag, kind) = decode_key(&mut message).map_err(fail)?;
        skip_field(kind, tag, &mut message, DecodeContext::default()).map_err(fail)?;
        count += usize::from(tag == field);
        if count > limit {
            return Err(fail(format_args!("it holds more than {limit} of a kind")));
        }
    }
    Ok(())
}

fn fail(reason: impl std::fmt::Display) -> DecodeError {
    DecodeError::new("batch of log entries", reason)
}

mod wire {
    //! The protobuf messages.

    use bytes::Bytes;

    /// A batch.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Batch {
        #[prost(message, optional, tag = "1")]
        pub(super) previous: Option<Place>,
        #[prost(message, repeated, tag = "2")]
        pub(super) entries: Vec<Entry>,
    }

    /// A place in the log.
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct Place {
        #[prost(uint64, tag = "1")]
        pub(super) term: u64,
        #[prost(uint64, tag = "2")]
        pub(super) index: u64,
    }

    /// An entry.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Entry {
        #[prost(message, optional, tag = "1")]
        pub(super) id: Option<Place>,
        /// Its encoding in the log, version included; empty when it has no operations.
        #[prost(bytes = "bytes", tag = "2")]
        pub(super) entry: Bytes,
        #[prost(bytes = "bytes", tag = "3")]
        pub(super) digest: Bytes,
    }
}

#[cfg(test)]
mod tests {
    use cluster_types::{Cid, Timestamp};

    use super::*;
    use crate::consensus::operation::{Operation, Proposed};

    fn at(term: u64, index: u64) -> LogId {
        LogId::new(term.into(), index)
    }

    fn sample() -> Batch {
        let cid: Cid = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH".parse().unwrap();
        let operations = vec![Proposed { id: [7; 16], operation: Operation::Remove { cid } }];
        let entry = Entry { time: Timestamp::from_unix_nanos(1_800_000_000_123_456_789), operations };
        Batch {
            previous: Some(at(2, 40)),
            entries: vec![
                BatchEntry { id: at(2, 41), entry, digest: [9; 32] },
                BatchEntry { id: at(3, 42), entry: Entry::default(), digest: [8; 32] },
            ],
        }
    }

    fn encoded(batch: &Batch) -> Bytes {
        batch.encode().into()
    }

    #[test]
    fn the_format_of_batches_is_pinned() {
        let hex: String = sample().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, include_str!("golden/batch-v1.hex").trim());
    }

    #[test]
    fn batches_round_trip_and_foreign_bytes_are_errors() {
        let standing = Batch { previous: Some(at(5, 9)), entries: Vec::new() };
        let empty = Batch { previous: None, entries: Vec::new() };
        for batch in [sample(), standing, empty] {
            assert_eq!(Batch::decode(&encoded(&batch)).unwrap(), batch);
        }
        let bytes = encoded(&sample());
        for length in 0..bytes.len() {
            // A cut between two fields leaves a shorter batch; nothing else is one.
            if let Ok(batch) = Batch::decode(&bytes.slice(..length)) {
                assert!(batch.entries.len() < 2, "{length}");
            }
        }
        assert!(Batch::decode(&Bytes::from(vec![VERSION; MAX_BYTES + 1])).is_err());
        assert!(Batch::decode(&Bytes::from_static(&[2])).unwrap_err().to_string().contains("newer release"));
    }

    #[test]
    fn entries_follow_each_other() {
        for (place, id) in [(1, at(3, 43)), (1, at(3, 41)), (1, at(1, 42)), (0, at(2, 40)), (0, at(2, u64::MAX))] {
            let mut batch = sample();
            batch.entries[place].id = id;
            assert!(Batch::decode(&encoded(&batch)).is_err(), "{place}: {id}");
        }
        let mut first = sample();
        first.previous = None;
        assert!(Batch::decode(&encoded(&first)).is_err(), "nobody says what came before");
    }

    #[test]
    fn a_flood_of_tiny_parts_is_refused_before_it_is_in_memory() {
        let mut operations = vec![1_u8];
        operations.extend([0x12, 0x00].repeat(MAX_OPERATIONS + 1));
        let entry = wire::Entry { id: Some(place(&at(1, 0))), entry: operations.into(), digest: vec![0; 32].into() };
        let message = wire::Batch { previous: None, entries: vec![entry] };
        let mut bytes = vec![VERSION];
        bytes.extend(message.encode_to_vec());
        assert!(Batch::decode(&bytes.into()).unwrap_err().to_string().contains("more than"));
        let mut entries = vec![VERSION];
        entries.extend([0x12, 0x00].repeat(MAX_ENTRIES + 1));
        assert!(Batch::decode(&entries.into()).unwrap_err().to_string().contains("more than"));
    }
}
