//! The part of a snapshot that is about merging: what merges left of pins, and which writes were merged.
//!
//! It is part of the state, so it travels. What waits here and the event log are this peer's own and do not.

use cluster_core::consensus::digest::order_key;
use cluster_core::crdt::merge::VersionId;
use cluster_core::ports::StateError;
use rocksdb::WriteBatch;

use crate::codec;
use crate::engine::{Engine, Moment};
use crate::frames::{self, Encoder, invalid};
use crate::keys::{self, Family};
use crate::stream::Stop;

/// Bytes of the length in front of the key of a history.
const LENGTH_BYTES: usize = 2;

/// Adds histories and merged writes to a stream; `full` is called after every record and hands over what is ready.
pub(crate) fn send(
    moment: &Moment<'_>,
    encoder: &mut Encoder,
    mut full: impl FnMut(&mut Encoder) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let mut histories = moment.rows(Family::History, &[], None);
    while let Some((key, value)) = histories.next()? {
        let length = u16::try_from(key.len()).map_err(|_| codec::damaged("history", "its key is too long"))?;
        encoder.record(frames::HISTORY, &[&length.to_be_bytes(), &key, &value])?;
        full(encoder)?;
    }
    let mut merged = moment.rows(Family::Merged, &[], None);
    while let Some((key, value)) = merged.next()? {
        encoder.record(frames::MERGED, &[&key, &value])?;
        full(encoder)?;
    }
    Ok(())
}

/// Checks a history of a received snapshot; returns its key.
pub(crate) fn check_history(bytes: &[u8]) -> Result<Vec<u8>, StateError> {
    let (key, history) = split_history(bytes)?;
    let cid = keys::cid_of(key).map_err(|error| invalid(error.to_string()))?;
    codec::decode_history(history).map_err(|error| invalid(error.to_string()))?;
    if order_key(&cid) == key { Ok(key.to_vec()) } else { Err(invalid("a history is not where it belongs")) }
}

/// Checks a merged write of a received snapshot; returns its key.
pub(crate) fn check_merged(bytes: &[u8]) -> Result<Vec<u8>, StateError> {
    let (id, at) = split_merged(bytes)?;
    codec::decode_merged_at(at).map_err(|error| invalid(error.to_string()))?;
    Ok(id.to_vec())
}

fn split_history(bytes: &[u8]) -> Result<(&[u8], &[u8]), StateError> {
    let short = || invalid("a history is too short");
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>().ok_or_else(short)?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or_else(short)
}

fn split_merged(bytes: &[u8]) -> Result<(&[u8; keys::ID_BYTES], &[u8]), StateError> {
    bytes.split_first_chunk().ok_or_else(|| invalid("a merged write is too short"))
}

/// What an install has put in the place of the former histories and merged writes; may be repeated from the beginning.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Installed {
    /// Number of histories.
    pub(crate) histories: u64,
    /// Number of merged writes.
    pub(crate) merged: u64,
}

impl Installed {
    /// Takes the former ones away.
    pub(crate) fn begin(engine: &Engine, batch: &mut WriteBatch) -> Self {
        engine.delete_range(batch, Family::History, &[], &[u8::MAX; 2]);
        engine.delete_range(batch, Family::Merged, &[], &[u8::MAX; keys::ID_BYTES + 1]);
        engine.delete_range(batch, Family::MergedByIndex, &[], &[u8::MAX; keys::MERGED_BYTES + 1]);
        Self::default()
    }

    /// Adds a record of the snapshot, if it is one of these; it was checked when it came in.
    pub(crate) fn add(
        &mut self,
        engine: &Engine,
        batch: &mut WriteBatch,
        kind: u8,
        bytes: &[u8],
    ) -> Result<(), StateError> {
        match kind {
            frames::HISTORY => {
                let (key, history) = split_history(bytes)?;
                engine.put(batch, Family::History, key, history);
                self.histories += 1;
            }
            frames::MERGED => {
                let (id, value) = split_merged(bytes)?;
                let at = codec::decode_merged_at(value)?;
                let id = VersionId::from_bytes(*id);
                engine.put(batch, Family::Merged, id.as_bytes(), value);
                engine.put(batch, Family::MergedByIndex, keys::merged_by_index(at.index, &id), []);
                self.merged += 1;
            }
            _ => {}
        }
        Ok(())
    }
}
