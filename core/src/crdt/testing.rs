//! What the tests of this room share.

use std::sync::OnceLock;

use bytes::Bytes;
use cluster_types::Cid;
use proptest::prelude::*;

use super::{Document, Records};
use crate::consensus::digest::SHARDS;

/// The shard the tests work in.
pub(super) const SHARD: u16 = 7;

/// CIDs of one shard, always the same ones.
pub(super) fn cids_of(shard: u16, count: usize) -> Vec<Cid> {
    let mut bytes = [0x5a_u8; 36];
    bytes[..4].copy_from_slice(&[0x01, 0x55, 0x12, 0x20]);
    let candidates = (0_u64..).filter_map(|number| {
        bytes[4..12].copy_from_slice(&number.to_le_bytes());
        let [high, low, ..] = *blake3::hash(&bytes).as_bytes();
        (u16::from_be_bytes([high, low]) % SHARDS == shard).then(|| Cid::from_bytes(&bytes).unwrap())
    });
    candidates.take(count).collect()
}

/// A small pool of CIDs of [`SHARD`].
pub(super) fn pool() -> &'static [Cid] {
    static POOL: OnceLock<Vec<Cid>> = OnceLock::new();
    POOL.get_or_init(|| cids_of(SHARD, 24))
}

/// A record that says which one it is.
pub(super) fn record(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// The first `count` CIDs of the pool, each with a record.
pub(super) fn records(count: usize) -> Records {
    pool().iter().take(count).enumerate().map(|(place, cid)| (*cid, record(&format!("base {place}")))).collect()
}

/// The canonical document of some records.
pub(super) fn document(records: &Records) -> Document {
    Document::canonical(SHARD, records.iter().map(|(cid, record)| (*cid, record))).unwrap()
}

/// Damaged forms of `bytes`: cut, changed, with something put in between.
pub(super) fn damaged(bytes: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let length = bytes.len();
    let spots = proptest::collection::vec((0..length, any::<u8>()), 0..4);
    (spots, 0..=length, 0..=length, proptest::collection::vec(any::<u8>(), 0..6), any::<bool>()).prop_map(
        move |(spots, cut, at, inserted, cuts)| {
            let mut bytes = bytes.clone();
            for (spot, value) in spots {
                bytes[spot] = value;
            }
            bytes.splice(at..at, inserted);
            if cuts {
                bytes.truncate(cut);
            }
            bytes
        },
    )
}

/// Bytes as text, for golden files.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
