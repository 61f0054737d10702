//! How the records of eventual writes and of merges look on disk.

use cluster_core::crdt::merge::{Conflict, Eventual, History};
use cluster_core::ports::{ConflictEvent, MergedAt, StateError, Waiting};
use cluster_types::Timestamp;

use super::{damaged, read_versioned, versioned};

/// What is counted of eventual writes and of merges, so that asking costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MergeCounts {
    /// Writes that wait and that this peer accepted.
    pub(crate) own: u64,
    /// Writes that wait.
    pub(crate) waiting: u64,
    /// The number of the last write that this peer accepted; 0: none.
    pub(crate) last_own: u64,
    /// The number of the last write that came in; 0: none.
    pub(crate) last_number: u64,
    /// Pins that are shown otherwise than the log has them.
    pub(crate) committed: u64,
    /// Pins with a history.
    pub(crate) histories: u64,
    /// Merged writes that are remembered.
    pub(crate) merged: u64,
    /// Rows of the event log.
    pub(crate) conflicts: u64,
}

/// Encodes what is counted.
pub(crate) fn encode_merge_counts(counts: &MergeCounts) -> Vec<u8> {
    let MergeCounts { own, waiting, last_own, last_number, committed, histories, merged, conflicts } = *counts;
    versioned(&wire::MergeCounts { own, waiting, last_own, last_number, committed, histories, merged, conflicts })
}

/// Reads what is counted.
pub(crate) fn decode_merge_counts(bytes: &[u8]) -> Result<MergeCounts, StateError> {
    let message: wire::MergeCounts = read_versioned("merge counts", bytes)?;
    let wire::MergeCounts { own, waiting, last_own, last_number, committed, histories, merged, conflicts } = message;
    Ok(MergeCounts { own, waiting, last_own, last_number, committed, histories, merged, conflicts })
}

/// Encodes a pin as the log has it, given as [`super::encode_pin`] does; `None`: not pinned.
pub(crate) fn encode_committed(pin: Option<Vec<u8>>) -> Vec<u8> {
    versioned(&wire::Committed { pin })
}

/// Reads the bytes of a pin as the log has it.
pub(crate) fn decode_committed(bytes: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
    let message: wire::Committed = read_versioned("committed pin", bytes)?;
    Ok(message.pin)
}

/// Encodes a write that waits.
pub(crate) fn encode_waiting(number: u64, own: bool, write: &Eventual) -> Vec<u8> {
    versioned(&wire::Waiting { number, own, write: write.encode() })
}

/// Reads a write that waits.
pub(crate) fn decode_waiting(bytes: &[u8]) -> Result<Waiting, StateError> {
    let message: wire::Waiting = read_versioned("waiting write", bytes)?;
    let write = Eventual::decode(&message.write).map_err(|error| damaged("waiting write", error))?;
    Ok(Waiting { number: message.number, own: message.own, write })
}

/// Reads the number of a write that waits, and whether this peer accepted it.
pub(crate) fn decode_waiting_number(bytes: &[u8]) -> Result<(u64, bool), StateError> {
    let message: wire::Waiting = read_versioned("waiting write", bytes)?;
    Ok((message.number, message.own))
}

/// Encodes where the write of a number is.
pub(crate) fn encode_turn(key: &[u8], own: bool) -> Vec<u8> {
    versioned(&wire::Turn { key: key.to_vec(), own })
}

/// Reads where the write of a number is: its key, and whether this peer accepted it.
pub(crate) fn decode_turn(bytes: &[u8]) -> Result<(Vec<u8>, bool), StateError> {
    let message: wire::Turn = read_versioned("turn of a waiting write", bytes)?;
    Ok((message.key, message.own))
}

/// Reads a history, whose own encoding is that of the core.
pub(crate) fn decode_history(bytes: &[u8]) -> Result<History, StateError> {
    History::decode(bytes).map_err(|error| damaged("history", error))
}

/// Encodes when a write was merged.
pub(crate) fn encode_merged_at(at: &MergedAt) -> Vec<u8> {
    versioned(&wire::MergedAt { index: at.index, time: write_time(at.time) })
}

/// Reads when a write was merged.
pub(crate) fn decode_merged_at(bytes: &[u8]) -> Result<MergedAt, StateError> {
    let message: wire::MergedAt = read_versioned("merged write", bytes)?;
    Ok(MergedAt { index: message.index, time: read_time(message.time) })
}

/// Encodes a conflict; its place is in the key.
pub(crate) fn encode_conflict(event: &ConflictEvent) -> Vec<u8> {
    versioned(&wire::ConflictEvent { time: write_time(event.time), conflict: event.conflict.encode() })
}

/// Reads the conflict at an index and place.
pub(crate) fn decode_conflict((index, place): (u64, u32), bytes: &[u8]) -> Result<ConflictEvent, StateError> {
    let message: wire::ConflictEvent = read_versioned("conflict", bytes)?;
    let conflict = Conflict::decode(&message.conflict).map_err(|error| damaged("conflict", error))?;
    Ok(ConflictEvent { index, place, time: read_time(message.time), conflict })
}

/// "No time" is outside of what nanoseconds in an `i64` reach.
fn write_time(time: Timestamp) -> Option<i64> {
    (!time.is_zero()).then(|| time.unix_nanos())
}

fn read_time(nanos: Option<i64>) -> Timestamp {
    nanos.map_or(Timestamp::ZERO, |nanos| Timestamp::from_unix_nanos(i128::from(nanos)))
}

mod wire {
    //! The protobuf messages.

    /// What is counted.
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct MergeCounts {
        #[prost(uint64, tag = "1")]
        pub(super) own: u64,
        #[prost(uint64, tag = "2")]
        pub(super) waiting: u64,
        #[prost(uint64, tag = "3")]
        pub(super) last_own: u64,
        #[prost(uint64, tag = "4")]
        pub(super) last_number: u64,
        #[prost(uint64, tag = "5")]
        pub(super) committed: u64,
        #[prost(uint64, tag = "6")]
        pub(super) histories: u64,
        #[prost(uint64, tag = "7")]
        pub(super) merged: u64,
        #[prost(uint64, tag = "8")]
        pub(super) conflicts: u64,
    }

    /// A pin as the log has it; its CID is in the key.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Committed {
        #[prost(bytes = "vec", optional, tag = "1")]
        pub(super) pin: Option<Vec<u8>>,
    }

    /// A write that waits, in the core's encoding.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Waiting {
        #[prost(uint64, tag = "1")]
        pub(super) number: u64,
        #[prost(bool, tag = "2")]
        pub(super) own: bool,
        #[prost(bytes = "vec", tag = "3")]
        pub(super) write: Vec<u8>,
    }

    /// Where the write of a number is.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Turn {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) key: Vec<u8>,
        #[prost(bool, tag = "2")]
        pub(super) own: bool,
    }

    /// When a write was merged; its name is in the key.
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct MergedAt {
        #[prost(uint64, tag = "1")]
        pub(super) index: u64,
        #[prost(sint64, optional, tag = "2")]
        pub(super) time: Option<i64>,
    }

    /// A conflict in the core's encoding; its place is in the key.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ConflictEvent {
        #[prost(sint64, optional, tag = "1")]
        pub(super) time: Option<i64>,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) conflict: Vec<u8>,
    }
}
