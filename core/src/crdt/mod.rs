//! The shards of the pinset as CRDT documents, and how two peers find what differs between them.
//!
//! A shard's **canonical document** ([`document`]) is derived from its records when it is needed and dropped again: the
//! same records give the same bytes and head on every peer. What a shard was at an earlier log index comes from undoing
//! its tail ([`epoch`], [`shard`]). Peers that were apart compare shards by [`manifest`], then key ranges within a shard by
//! [`ranges`], and move records in chunks ([`packing`]). How writes made apart come together is in [`merge`]: they are
//! decided CID by CID, by what their authors say they had seen, and not as changes on a document. ARCHITECTURE.md says
//! why.
//!
//! Pure: records and bytes in, records and bytes out. But for [`merge`], a record is opaque here: the canonical form of a
//! pin ([`encode_pin`](crate::consensus::operation::encode_pin)).
//!
//! **Invariant:** bytes from outside never reach a decoder of Automerge.
//! **Invariant:** every result depends on the content of the records and the set of writes alone, not on an order.

mod codec;
pub mod document;
pub mod epoch;
pub mod manifest;
pub mod merge;
pub mod packed;
pub mod packing;
pub mod ranges;
pub mod shard;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;

use bytes::Bytes;
use cluster_types::Cid;

pub(crate) use codec::Format;
pub use document::{Document, DocumentError, Head};
pub use epoch::{ShardMeta, TailEntry, changed_since, undo};

/// The records of one shard: CID and canonical form.
pub type Records = BTreeMap<Cid, Bytes>;

/// The first eight bytes of the BLAKE3 hash of a CID and its record; never 0, which stands for "no record".
///
/// Enough to find differences between peers that trust each other; what was repaired is checked against the shard's
/// whole sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordHash(u64);

impl RecordHash {
    /// The hash of a record under its CID.
    pub fn of(cid: &Cid, record: &[u8]) -> Self {
        let cid = cid.to_bytes();
        let mut hasher = blake3::Hasher::new();
        // The length keeps a CID's end and a record's beginning apart.
        hasher.update(&(cid.len() as u64).to_le_bytes());
        hasher.update(&cid);
        hasher.update(record);
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        Self(u64::from_le_bytes(first).max(1))
    }

    /// Its number: what goes over the wire.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Reads its number; 0 is none.
    pub fn from_number(number: u64) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }
}
