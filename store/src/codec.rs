//! How records look on disk: a version byte, then protobuf.
//!
//! Fields are added, never renumbered; an unknown version is damage. Golden files pin every record. Allocations are
//! numbers of the peer dictionary, which makes a pin with two copies some 70 bytes long.

use std::collections::BTreeMap;

use bytes::Bytes;
use cluster_core::crdt::{ShardMeta, TailEntry};
use cluster_core::ports::{AnnexRow, Root, ShardState, ShardSum, StagedHead, StateError, TrackerCounts, TrackerRecord};
use cluster_types::{
    Cid, Multiaddr, PeerId, Pin, PinDepth, PinOptions, PinType, PinningRequest, RequestNumber, Timestamp, TrackerStatus,
};
use prost::Message;

pub(crate) use self::merging::{
    MergeCounts, decode_committed, decode_conflict, decode_history, decode_merge_counts, decode_merged_at, decode_turn,
    decode_waiting, decode_waiting_number, encode_committed, encode_conflict, encode_merge_counts, encode_merged_at,
    encode_turn, encode_waiting,
};

mod merging;

/// Version of every record but opaque bytes and log entries.
const VERSION: u8 = 1;

/// Encodes a pin; `number` gives the number of a peer.
pub(crate) fn encode_pin(pin: &Pin, mut number: impl FnMut(&PeerId) -> u32) -> Vec<u8> {
    let options = &pin.options;
    let message = wire::Pin {
        kind: match pin.kind {
            PinType::Data => 1,
            PinType::Meta => 2,
            PinType::ClusterDag => 3,
            PinType::Shard => 4,
        },
        allocations: pin.allocations.iter().map(&mut number).collect(),
        max_depth: pin.max_depth.0,
        reference: pin.reference.map(|cid| cid.to_bytes()).unwrap_or_default(),
        timestamp: pin.timestamp.unix_seconds(),
        replication_min: options.replication_factor_min,
        replication_max: options.replication_factor_max,
        name: options.name.clone(),
        shard_size: options.shard_size,
        user_allocations: options.user_allocations.iter().map(&mut number).collect(),
        expire_at: (!options.expire_at.is_zero()).then(|| options.expire_at.unix_seconds()),
        metadata: options.metadata.clone(),
        pin_update: options.pin_update.map(|cid| cid.to_bytes()).unwrap_or_default(),
        origins: options.origins.iter().map(Multiaddr::to_vec).collect(),
        requests: pin.requests.iter().map(wire::Request::from).collect(),
        only_requested: pin.only_requested,
    };
    versioned(&message)
}

/// Reads a pin; `peer` gives the peer of a number.
pub(crate) fn decode_pin(
    cid: Cid,
    bytes: &[u8],
    peer: impl Fn(u32) -> Result<PeerId, StateError>,
) -> Result<Pin, StateError> {
    let message: wire::Pin = read_versioned("pin", bytes)?;
    let max_depth = PinDepth(message.max_depth);
    let peers = |numbers: Vec<u32>| numbers.into_iter().map(&peer).collect::<Result<Vec<_>, _>>();
    Ok(Pin {
        options: PinOptions {
            replication_factor_min: message.replication_min,
            replication_factor_max: message.replication_max,
            name: message.name,
            mode: max_depth.mode(),
            shard_size: message.shard_size,
            user_allocations: peers(message.user_allocations)?,
            expire_at: message.expire_at.map_or(Timestamp::ZERO, Timestamp::from_unix_seconds),
            metadata: message.metadata,
            pin_update: optional_cid(&message.pin_update)?,
            origins: origins(message.origins)?,
        },
        cid,
        kind: match message.kind {
            1 => PinType::Data,
            2 => PinType::Meta,
            3 => PinType::ClusterDag,
            4 => PinType::Shard,
            other => return Err(damaged("pin", format_args!("unknown kind {other}"))),
        },
        allocations: peers(message.allocations)?,
        max_depth,
        reference: optional_cid(&message.reference)?,
        timestamp: Timestamp::from_unix_seconds(message.timestamp),
        requests: message.requests.into_iter().map(PinningRequest::try_from).collect::<Result<_, _>>()?,
        only_requested: message.only_requested,
    })
}

impl From<&PinningRequest> for wire::Request {
    fn from(request: &PinningRequest) -> Self {
        Self {
            id: request.id.0.to_vec(),
            user: request.user.clone(),
            name: request.name.clone(),
            meta: request.meta.clone(),
            origins: request.origins.iter().map(Multiaddr::to_vec).collect(),
            created: request.created.unix_millis(),
        }
    }
}

impl TryFrom<wire::Request> for PinningRequest {
    type Error = StateError;

    fn try_from(message: wire::Request) -> Result<Self, StateError> {
        let id = message.id.try_into().map_err(|_| damaged("pin", "the number of a request is not 16 bytes long"))?;
        Ok(Self {
            id: RequestNumber(id),
            user: message.user,
            name: message.name,
            meta: message.meta,
            origins: origins(message.origins)?,
            created: Timestamp::from_unix_millis(message.created),
        })
    }
}

fn origins(list: Vec<Vec<u8>>) -> Result<Vec<Multiaddr>, StateError> {
    list.into_iter().map(|bytes| Multiaddr::try_from(bytes).map_err(|error| damaged("pin", error))).collect()
}

/// Encodes a tracker record.
pub(crate) fn encode_tracker(record: &TrackerRecord) -> Vec<u8> {
    versioned(&wire::Tracker {
        generation: record.generation,
        status: u32::from(record.status.bit()),
        attempts: record.attempts,
        error: record.error.clone(),
        changed: record.changed.unix_nanos(),
        due: record.due.map(Timestamp::unix_nanos),
        priority: record.priority,
        never_changed: record.changed.is_zero(),
    })
}

/// Reads a tracker record.
pub(crate) fn decode_tracker(bytes: &[u8]) -> Result<TrackerRecord, StateError> {
    let message: wire::Tracker = read_versioned("tracker record", bytes)?;
    let status = TrackerStatus::ALL.into_iter().find(|status| u32::from(status.bit()) == message.status);
    let status = status.or((message.status == 0).then_some(TrackerStatus::Undefined));
    let time = |nanos: i64| Timestamp::from_unix_nanos(i128::from(nanos));
    Ok(TrackerRecord {
        generation: message.generation,
        status: status.ok_or_else(|| damaged("tracker record", format_args!("unknown status {}", message.status)))?,
        attempts: message.attempts,
        error: message.error,
        changed: if message.never_changed { Timestamp::ZERO } else { time(message.changed) },
        due: message.due.map(time),
        priority: message.priority,
    })
}

/// Encodes a shard's sum and epochs.
pub(crate) fn encode_shard(state: &ShardState) -> Vec<u8> {
    let ShardState { sum, meta, tail_from } = state;
    let meta = if *meta == ShardMeta::default() { Vec::new() } else { meta.encode() };
    versioned(&wire::Shard { pins: sum.pins, hash: sum.hash.to_vec(), meta, tail_from: *tail_from })
}

/// Reads a shard's sum and epochs.
pub(crate) fn decode_shard(bytes: &[u8]) -> Result<ShardState, StateError> {
    let message: wire::Shard = read_versioned("shard", bytes)?;
    let hash = message.hash.try_into().map_err(|_| damaged("shard", "its hash is not 32 bytes long"))?;
    let meta = if message.meta.is_empty() {
        ShardMeta::default()
    } else {
        ShardMeta::decode(&message.meta).map_err(|error| damaged("shard", error))?
    };
    Ok(ShardState { sum: ShardSum { pins: message.pins, hash }, meta, tail_from: message.tail_from })
}

/// Encodes what a staged shard is.
pub(crate) fn encode_staged(head: &StagedHead) -> Vec<u8> {
    let StagedHead { index, sum, base } = head;
    versioned(&wire::Staged {
        index: *index,
        pins: sum.pins,
        hash: sum.hash.to_vec(),
        base_pins: base.pins,
        base_hash: base.hash.to_vec(),
    })
}

/// Reads what a staged shard is.
pub(crate) fn decode_staged(bytes: &[u8]) -> Result<StagedHead, StateError> {
    let message: wire::Staged = read_versioned("staged shard", bytes)?;
    let sum = |pins, hash: Vec<u8>| {
        let hash = hash.try_into().map_err(|_| damaged("staged shard", "a hash is not 32 bytes long"))?;
        Ok(ShardSum { pins, hash })
    };
    let base = sum(message.base_pins, message.base_hash)?;
    Ok(StagedHead { index: message.index, sum: sum(message.pins, message.hash)?, base })
}

/// Encodes the changes of a staged shard, each by [`encode_change`].
pub(crate) fn encode_changes(changes: Vec<Vec<u8>>) -> Vec<u8> {
    versioned(&wire::Changes { changes })
}

/// Reads the changes of a staged shard.
pub(crate) fn decode_changes(bytes: &[u8]) -> Result<Vec<InstallChange>, StateError> {
    let message: wire::Changes = read_versioned("changes of a staged shard", bytes)?;
    message.changes.iter().map(|change| decode_change(change)).collect()
}

/// Encodes a group of an annex.
pub(crate) fn encode_annex(rows: &[AnnexRow]) -> Vec<u8> {
    let row =
        |row: &AnnexRow| wire::AnnexRow { kind: u32::from(row.kind), key: row.key.clone(), value: row.value.clone() };
    versioned(&wire::Annex { rows: rows.iter().map(row).collect() })
}

/// Reads a group of an annex.
pub(crate) fn decode_annex(bytes: &[u8]) -> Result<Vec<AnnexRow>, StateError> {
    let message: wire::Annex = read_versioned("annex", bytes)?;
    let row = |row: wire::AnnexRow| {
        let kind = u8::try_from(row.kind).map_err(|error| damaged("annex", error))?;
        Ok(AnnexRow { kind, key: row.key, value: row.value })
    };
    message.rows.into_iter().map(row).collect()
}

/// Reads an entry of a tail, whose own encoding is that of the core.
pub(crate) fn decode_tail(bytes: &[u8]) -> Result<TailEntry, StateError> {
    TailEntry::decode(bytes).map_err(|error| damaged("tail entry", error))
}

/// Encodes the numbers of tracker records.
pub(crate) fn encode_counts(counts: &TrackerCounts) -> Vec<u8> {
    let TrackerCounts { queued, unpins_queued, failed, unpins_failed, pinned } = *counts;
    versioned(&wire::Counts { queued, failed, pinned, unpins_queued, unpins_failed })
}

/// Reads the numbers of tracker records.
pub(crate) fn decode_counts(bytes: &[u8]) -> Result<TrackerCounts, StateError> {
    let wire::Counts { queued, failed, pinned, unpins_queued, unpins_failed } =
        read_versioned("tracker counts", bytes)?;
    Ok(TrackerCounts { queued, unpins_queued, failed, unpins_failed, pinned })
}

/// Encodes how a root is protected.
pub(crate) fn encode_root(root: &Root) -> Vec<u8> {
    versioned(&wire::Root { depth: root.depth.0 })
}

/// Reads how a root is protected.
pub(crate) fn decode_root(cid: Cid, bytes: &[u8]) -> Result<Root, StateError> {
    let message: wire::Root = read_versioned("root", bytes)?;
    Ok(Root { cid, depth: PinDepth(message.depth) })
}

/// Encodes a change that an install has to make: the pin's canonical form, and what the tracker gets.
pub(crate) fn encode_change(cid: &Cid, pin: Option<Vec<u8>>, tracker: Option<Option<TrackerRecord>>) -> Vec<u8> {
    versioned(&wire::Change {
        cid: cid.to_bytes(),
        pin,
        touches_tracker: tracker.is_some(),
        tracker: tracker.flatten().map(|record| encode_tracker(&record)),
    })
}

/// Reads a change that an install has to make.
pub(crate) fn decode_change(bytes: &[u8]) -> Result<InstallChange, StateError> {
    let message: wire::Change = read_versioned("change", bytes)?;
    let cid = Cid::from_bytes(&message.cid).map_err(|error| damaged("change", error))?;
    let record = message.tracker.as_deref().map(decode_tracker).transpose()?;
    Ok(InstallChange { cid, pin: message.pin, tracker: message.touches_tracker.then_some(record) })
}

/// A change that an install has to make.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InstallChange {
    /// The pin.
    pub(crate) cid: Cid,
    /// Its new canonical form; `None` when it goes.
    pub(crate) pin: Option<Vec<u8>>,
    /// What the tracker gets, if it gets anything.
    pub(crate) tracker: Option<Option<TrackerRecord>>,
}

/// Puts the version in front of bytes that are not the store's to understand.
pub(crate) fn encode_opaque(bytes: &[u8]) -> Vec<u8> {
    crate::keys::join(&[VERSION], bytes)
}

/// Takes the version off opaque bytes.
pub(crate) fn decode_opaque(what: &'static str, bytes: &[u8]) -> Result<Bytes, StateError> {
    split_version(what, bytes).map(Bytes::copy_from_slice)
}

/// Encodes a number.
pub(crate) fn encode_number(number: u64) -> Vec<u8> {
    crate::keys::join(&[VERSION], &number.to_be_bytes())
}

/// Reads a number.
pub(crate) fn decode_number(what: &'static str, bytes: &[u8]) -> Result<u64, StateError> {
    let number = split_version(what, bytes)?;
    number.try_into().map(u64::from_be_bytes).map_err(|_| damaged(what, "it is not 8 bytes long"))
}

/// A damaged record.
pub(crate) fn damaged(what: &'static str, reason: impl std::fmt::Display) -> StateError {
    StateError::Damaged { what: format!("{what}: {reason}") }
}

fn versioned(message: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + message.encoded_len());
    bytes.push(VERSION);
    message.encode_raw(&mut bytes);
    bytes
}

fn read_versioned<M: Message + Default>(what: &'static str, bytes: &[u8]) -> Result<M, StateError> {
    M::decode(split_version(what, bytes)?).map_err(|error| damaged(what, error))
}

fn split_version<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], StateError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => Ok(rest),
        Some((version, _rest)) => Err(damaged(what, format_args!("unknown version {version}"))),
        None => Err(damaged(what, "it is empty")),
    }
}

fn optional_cid(bytes: &[u8]) -> Result<Option<Cid>, StateError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    Cid::from_bytes(bytes).map(Some).map_err(|error| damaged("pin", error))
}

mod wire {
    //! The protobuf messages.

    use super::BTreeMap;

    /// One pin; its CID is in the key.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Pin {
        #[prost(uint32, tag = "1")]
        pub(super) kind: u32,
        #[prost(uint32, repeated, tag = "2")]
        pub(super) allocations: Vec<u32>,
        #[prost(sint32, tag = "3")]
        pub(super) max_depth: i32,
        #[prost(bytes = "vec", tag = "4")]
        pub(super) reference: Vec<u8>,
        #[prost(sint64, tag = "5")]
        pub(super) timestamp: i64,
        #[prost(sint32, tag = "6")]
        pub(super) replication_min: i32,
        #[prost(sint32, tag = "7")]
        pub(super) replication_max: i32,
        #[prost(string, tag = "8")]
        pub(super) name: String,
        #[prost(uint64, tag = "9")]
        pub(super) shard_size: u64,
        #[prost(uint32, repeated, tag = "10")]
        pub(super) user_allocations: Vec<u32>,
        #[prost(sint64, optional, tag = "11")]
        pub(super) expire_at: Option<i64>,
        #[prost(btree_map = "string, string", tag = "12")]
        pub(super) metadata: BTreeMap<String, String>,
        #[prost(bytes = "vec", tag = "13")]
        pub(super) pin_update: Vec<u8>,
        #[prost(bytes = "vec", repeated, tag = "14")]
        pub(super) origins: Vec<Vec<u8>>,
        #[prost(message, repeated, tag = "15")]
        pub(super) requests: Vec<Request>,
        #[prost(bool, tag = "16")]
        pub(super) only_requested: bool,
    }

    /// One request of the pinning service.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Request {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) id: Vec<u8>,
        #[prost(string, tag = "2")]
        pub(super) user: String,
        #[prost(string, tag = "3")]
        pub(super) name: String,
        #[prost(btree_map = "string, string", tag = "4")]
        pub(super) meta: BTreeMap<String, String>,
        #[prost(bytes = "vec", repeated, tag = "5")]
        pub(super) origins: Vec<Vec<u8>>,
        /// Milliseconds since the Unix epoch.
        #[prost(sint64, tag = "6")]
        pub(super) created: i64,
    }

    /// One tracker record.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Tracker {
        #[prost(uint64, tag = "1")]
        pub(super) generation: u64,
        #[prost(uint32, tag = "2")]
        pub(super) status: u32,
        #[prost(uint32, tag = "3")]
        pub(super) attempts: u32,
        #[prost(string, tag = "4")]
        pub(super) error: String,
        #[prost(sint64, tag = "5")]
        pub(super) changed: i64,
        #[prost(sint64, optional, tag = "6")]
        pub(super) due: Option<i64>,
        #[prost(bool, tag = "7")]
        pub(super) priority: bool,
        /// "No time" is outside of what nanoseconds in an `i64` reach.
        #[prost(bool, tag = "8")]
        pub(super) never_changed: bool,
    }

    /// A shard's sum and epochs.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Shard {
        #[prost(uint64, tag = "1")]
        pub(super) pins: u64,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) hash: Vec<u8>,
        /// The epochs in the core's encoding; nothing while the tail reaches back to the beginning of the log.
        #[prost(bytes = "vec", tag = "3")]
        pub(super) meta: Vec<u8>,
        /// The log index as of which it was received; nothing if it was not.
        #[prost(uint64, tag = "4")]
        pub(super) tail_from: u64,
    }

    /// What a staged shard is.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Staged {
        #[prost(uint64, tag = "1")]
        pub(super) index: u64,
        #[prost(uint64, tag = "2")]
        pub(super) pins: u64,
        #[prost(bytes = "vec", tag = "3")]
        pub(super) hash: Vec<u8>,
        #[prost(uint64, tag = "4")]
        pub(super) base_pins: u64,
        #[prost(bytes = "vec", tag = "5")]
        pub(super) base_hash: Vec<u8>,
    }

    /// The changes of a staged shard.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Changes {
        #[prost(bytes = "vec", repeated, tag = "1")]
        pub(super) changes: Vec<Vec<u8>>,
    }

    /// A group of an annex.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Annex {
        #[prost(message, repeated, tag = "1")]
        pub(super) rows: Vec<AnnexRow>,
    }

    /// A row of an annex.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct AnnexRow {
        #[prost(uint32, tag = "1")]
        pub(super) kind: u32,
        #[prost(bytes = "bytes", tag = "2")]
        pub(super) key: bytes::Bytes,
        #[prost(bytes = "bytes", tag = "3")]
        pub(super) value: bytes::Bytes,
    }

    /// Numbers of tracker records.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Counts {
        #[prost(uint64, tag = "1")]
        pub(super) queued: u64,
        #[prost(uint64, tag = "2")]
        pub(super) failed: u64,
        #[prost(uint64, tag = "3")]
        pub(super) pinned: u64,
        /// Not there in older records. It is never more than there are, so it is right again when there are none.
        #[prost(uint64, tag = "4")]
        pub(super) unpins_queued: u64,
        /// The same.
        #[prost(uint64, tag = "5")]
        pub(super) unpins_failed: u64,
    }

    /// A root; its CID is in the key.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Root {
        #[prost(sint32, tag = "1")]
        pub(super) depth: i32,
    }

    /// A change that an install has to make.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Change {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) cid: Vec<u8>,
        #[prost(bytes = "vec", optional, tag = "2")]
        pub(super) pin: Option<Vec<u8>>,
        #[prost(bool, tag = "3")]
        pub(super) touches_tracker: bool,
        #[prost(bytes = "vec", optional, tag = "4")]
        pub(super) tracker: Option<Vec<u8>>,
    }
}

#[cfg(test)]
mod tests;
