//! Every column family, every key in it, and how keys are built and read.
//!
//! **Invariant:** the list in [`KEY_KINDS`] is complete, and no prefix of a family starts another one; a test proves it.
//! A retired prefix stays in the list, marked, and is never used for something else.
//! **Invariant:** numbers in keys are big endian, so bytes sort as the numbers do; signed ones are shifted by 2^63.

use cluster_core::consensus::digest::order_key;
use cluster_core::crdt::merge::VersionId;
use cluster_core::ports::{RequestKey, StateError, TailPlace, indexed};
use cluster_types::{Cid, PinningRequest, RequestNumber, Timestamp, TrackerStatus};

/// Bytes in front of the CID in an order key: the shard.
const SHARD_BYTES: usize = 2;
/// Bytes of the key of a tail entry.
pub(crate) const TAIL_BYTES: usize = 2 + 8 + 4;
/// Bytes of the name of a write.
pub(crate) const ID_BYTES: usize = 32;

/// A column family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    /// The entries of the raft log.
    RaftLog,
    /// Vote, purged position and raft id.
    RaftMeta,
    /// Single values: format, applied position, counters, a cut-off install.
    Meta,
    /// The dictionary of peer ids.
    Peers,
    /// The pinset.
    Pins,
    /// Pins by allocated peer.
    ByPeer,
    /// Pins by time of expiry.
    ByExpiry,
    /// Pins by name.
    ByName,
    /// Pins by key and text of metadata.
    ByMeta,
    /// Requests of the pinning service by user, and by user and name.
    ByRequest,
    /// The sums and epochs of the shards.
    Shards,
    /// The tails of the shards.
    ShardTail,
    /// Outcomes of requests.
    Outcomes,
    /// Pins as the log has them, where writes wait that are shown over them.
    Committed,
    /// Writes that wait for a quorum.
    Outbox,
    /// Writes that wait, by number.
    OutboxOrder,
    /// What merges left of pins.
    History,
    /// Pins with a history, by the index of the last merge.
    HistoryByIndex,
    /// Writes that were merged.
    Merged,
    /// Writes that were merged, by index.
    MergedByIndex,
    /// The event log of lost wishes.
    Conflicts,
    /// What is gathered to replace the state.
    Staging,
    /// What the tracker knows.
    Tracker,
    /// Tracker records by urgency.
    TrackerDue,
    /// Tracker records by status.
    TrackerStatus,
    /// Blocks; in the database of the blocks.
    Blocks,
    /// Sizes of blocks, so that listing and asking does not read them; in the database of the blocks.
    BlockSizes,
    /// Roots; in the database of the blocks.
    Roots,
}

impl Family {
    /// The families of the state's database.
    pub(crate) const STATE: [Self; 25] = [
        Self::RaftLog,
        Self::RaftMeta,
        Self::Meta,
        Self::Peers,
        Self::Pins,
        Self::ByPeer,
        Self::ByExpiry,
        Self::ByName,
        Self::ByMeta,
        Self::ByRequest,
        Self::Shards,
        Self::ShardTail,
        Self::Outcomes,
        Self::Committed,
        Self::Outbox,
        Self::OutboxOrder,
        Self::History,
        Self::HistoryByIndex,
        Self::Merged,
        Self::MergedByIndex,
        Self::Conflicts,
        Self::Staging,
        Self::Tracker,
        Self::TrackerDue,
        Self::TrackerStatus,
    ];

    /// The families of the blocks' database.
    pub(crate) const BLOCKS: [Self; 4] = [Self::Blocks, Self::BlockSizes, Self::Roots, Self::Meta];

    /// The name on disk.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RaftLog => "raft_log",
            Self::RaftMeta => "raft_meta",
            Self::Meta => "meta",
            Self::Peers => "peers",
            Self::Pins => "pins",
            Self::ByPeer => "by_peer",
            Self::ByExpiry => "by_expiry",
            Self::ByName => "by_name",
            Self::ByMeta => "by_meta",
            Self::ByRequest => "by_request",
            Self::Shards => "shards",
            Self::ShardTail => "shard_tail",
            Self::Outcomes => "outcomes",
            Self::Committed => "committed",
            Self::Outbox => "outbox",
            Self::OutboxOrder => "outbox_order",
            Self::History => "history",
            Self::HistoryByIndex => "history_by_index",
            Self::Merged => "merged",
            Self::MergedByIndex => "merged_by_index",
            Self::Conflicts => "conflicts",
            Self::Staging => "staging",
            Self::Tracker => "tracker",
            Self::TrackerDue => "tracker_due",
            Self::TrackerStatus => "tracker_status",
            Self::Blocks => "blocks",
            Self::BlockSizes => "block_sizes",
            Self::Roots => "roots",
        }
    }
}

/// One kind of key.
#[derive(Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "the registry is for readers and for its test"))]
pub(crate) struct KeyKind {
    /// Where it lives.
    pub(crate) family: Family,
    /// What it starts with; empty when the family has one kind only.
    pub(crate) prefix: &'static [u8],
    /// What follows the prefix, and what the value is.
    pub(crate) layout: &'static str,
}

/// Format of the database: a `u32`. Written once, when the database is made.
pub(crate) const FORMAT: &[u8] = b"format";
/// The applied position, opaque.
pub(crate) const APPLIED: &[u8] = b"applied";
/// Number of pins.
pub(crate) const PIN_COUNT: &[u8] = b"pins";
/// Numbers of tracker records.
pub(crate) const TRACKER_COUNTS: &[u8] = b"tracker_counts";
/// What is counted of eventual writes and merges.
pub(crate) const MERGE_COUNTS: &[u8] = b"merge_counts";
/// How far the search indexes of an older database are built: the order key of the last pin that is in them, or nothing
/// once all are.
pub(crate) const SEARCHABLE: &[u8] = b"searchable";
/// Retired: the number of a received snapshot that was being installed.
const RETIRED_INSTALLING: &[u8] = b"installing";
/// What is staged is being put in the place of the state.
pub(crate) const SWITCHING: &[u8] = b"switching";
/// The state was replaced, and the last frozen state is one of before.
pub(crate) const OUTDATED: &[u8] = b"outdated";
/// The log index of what is staged.
pub(crate) const STAGED_INDEX: &[u8] = b"i";
/// The manifest of what is staged.
pub(crate) const STAGED_MANIFEST: &[u8] = b"m";
/// There once all groups of the annex are staged.
pub(crate) const STAGED_WHOLE: &[u8] = b"w";
/// The groups of the annex.
pub(crate) const STAGED_ANNEX: &[u8] = b"a";
/// What staged shards are.
pub(crate) const STAGED_HEADS: &[u8] = b"s";
/// How staged shards differ from the state's.
pub(crate) const STAGED_CHANGES: &[u8] = b"c";
/// The vote.
pub(crate) const VOTE: &[u8] = b"vote";
/// The last purged position.
pub(crate) const PURGED: &[u8] = b"purged";
/// This peer's raft id.
pub(crate) const NODE_ID: &[u8] = b"node_id";
/// Requests by user.
const REQUEST_BY_USER: &[u8] = b"u";
/// Requests by user and name.
const REQUEST_BY_NAME: &[u8] = b"n";
/// Bytes of the number of a request.
const REQUEST_NUMBER_BYTES: usize = 16;
/// Peer number to peer id.
const PEER_BY_NUMBER: &[u8] = b"n";

/// The registry.
#[cfg_attr(not(test), expect(dead_code, reason = "the registry is for readers and for its test"))]
pub(crate) const KEY_KINDS: &[KeyKind] = &[
    KeyKind { family: Family::RaftLog, prefix: b"", layout: "index u64 -> entry" },
    KeyKind { family: Family::RaftMeta, prefix: VOTE, layout: "-> vote" },
    KeyKind { family: Family::RaftMeta, prefix: PURGED, layout: "-> log id" },
    KeyKind { family: Family::RaftMeta, prefix: NODE_ID, layout: "-> u64" },
    KeyKind { family: Family::Meta, prefix: FORMAT, layout: "-> u32" },
    KeyKind { family: Family::Meta, prefix: APPLIED, layout: "-> bytes" },
    KeyKind { family: Family::Meta, prefix: PIN_COUNT, layout: "-> u64" },
    KeyKind { family: Family::Meta, prefix: TRACKER_COUNTS, layout: "-> counts" },
    KeyKind { family: Family::Meta, prefix: MERGE_COUNTS, layout: "-> counts" },
    KeyKind { family: Family::Meta, prefix: RETIRED_INSTALLING, layout: "retired" },
    KeyKind { family: Family::Meta, prefix: SWITCHING, layout: "-> nothing" },
    KeyKind { family: Family::Meta, prefix: OUTDATED, layout: "-> nothing" },
    KeyKind { family: Family::Meta, prefix: SEARCHABLE, layout: "-> order key, or nothing" },
    KeyKind { family: Family::Peers, prefix: PEER_BY_NUMBER, layout: "number u32 -> peer id" },
    KeyKind { family: Family::Pins, prefix: b"", layout: "shard u16, CID -> pin" },
    KeyKind { family: Family::ByPeer, prefix: b"", layout: "peer u32, shard u16, CID -> nothing" },
    KeyKind { family: Family::ByExpiry, prefix: b"", layout: "seconds i64, shard u16, CID -> nothing" },
    KeyKind { family: Family::ByName, prefix: b"", layout: "name, 0, shard u16, CID -> nothing" },
    KeyKind { family: Family::ByMeta, prefix: b"", layout: "key, 0, text, 0, shard u16, CID -> nothing" },
    KeyKind {
        family: Family::ByRequest,
        prefix: REQUEST_BY_USER,
        layout: "user, 0, milliseconds from the end i64, number 16 bytes, shard u16, CID -> nothing",
    },
    KeyKind {
        family: Family::ByRequest,
        prefix: REQUEST_BY_NAME,
        layout: "user, 0, name, 0, milliseconds from the end i64, number 16 bytes, shard u16, CID -> nothing",
    },
    KeyKind { family: Family::Shards, prefix: b"", layout: "shard u16 -> sum and epochs" },
    KeyKind { family: Family::ShardTail, prefix: b"", layout: "shard u16, index u64, place u32 -> tail entry" },
    KeyKind { family: Family::Outcomes, prefix: b"", layout: "window u64, id 16 bytes -> bytes" },
    KeyKind { family: Family::Committed, prefix: b"", layout: "shard u16, CID -> pin, or that there is none" },
    KeyKind { family: Family::Outbox, prefix: b"", layout: "shard u16, CID, write 32 bytes -> number, own, write" },
    KeyKind { family: Family::OutboxOrder, prefix: b"", layout: "number u64 -> key of the outbox, own" },
    KeyKind { family: Family::History, prefix: b"", layout: "shard u16, CID -> history" },
    KeyKind { family: Family::HistoryByIndex, prefix: b"", layout: "index u64, shard u16, CID -> nothing" },
    KeyKind { family: Family::Merged, prefix: b"", layout: "write 32 bytes -> index, time" },
    KeyKind { family: Family::MergedByIndex, prefix: b"", layout: "index u64, write 32 bytes -> nothing" },
    KeyKind { family: Family::Conflicts, prefix: b"", layout: "index u64, place u32 -> time, conflict" },
    KeyKind { family: Family::Staging, prefix: STAGED_INDEX, layout: "-> u64" },
    KeyKind { family: Family::Staging, prefix: STAGED_MANIFEST, layout: "-> bytes" },
    KeyKind { family: Family::Staging, prefix: STAGED_WHOLE, layout: "-> nothing" },
    KeyKind { family: Family::Staging, prefix: STAGED_ANNEX, layout: "group u32 -> rows" },
    KeyKind { family: Family::Staging, prefix: STAGED_HEADS, layout: "shard u16 -> staged shard" },
    KeyKind { family: Family::Staging, prefix: STAGED_CHANGES, layout: "shard u16 -> changes" },
    KeyKind { family: Family::Tracker, prefix: b"", layout: "shard u16, CID -> tracker record" },
    KeyKind {
        family: Family::TrackerDue,
        prefix: b"",
        layout: "0 before others or 1, nanoseconds i64, shard u16, CID -> nothing",
    },
    KeyKind { family: Family::TrackerStatus, prefix: b"", layout: "status u16, shard u16, CID -> nothing" },
    KeyKind { family: Family::Blocks, prefix: b"", layout: "multihash -> block" },
    KeyKind { family: Family::BlockSizes, prefix: b"", layout: "multihash -> u64" },
    KeyKind { family: Family::Roots, prefix: b"", layout: "CID -> root" },
];

/// The key of a log entry.
pub(crate) fn log_index(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

/// The key of a shard's sum.
pub(crate) fn shard(shard: u16) -> [u8; 2] {
    shard.to_be_bytes()
}

/// The key of what is staged of a shard.
pub(crate) fn staged(prefix: &[u8], shard: u16) -> Vec<u8> {
    join(prefix, &shard.to_be_bytes())
}

/// The key of a group of a staged annex.
pub(crate) fn staged_group(group: u32) -> Vec<u8> {
    join(STAGED_ANNEX, &group.to_be_bytes())
}

/// Reads the shard of a key of [`staged`].
pub(crate) fn staged_of(key: &[u8]) -> Result<u16, StateError> {
    let shard = key.get(1..).and_then(|shard| shard.try_into().ok()).map(u16::from_be_bytes);
    shard.ok_or_else(|| damaged_key(Family::Staging))
}

/// The key of an entry of a shard's tail.
pub(crate) fn tail(shard: u16, place: TailPlace) -> [u8; TAIL_BYTES] {
    let mut key = [0; TAIL_BYTES];
    key[..2].copy_from_slice(&shard.to_be_bytes());
    key[2..10].copy_from_slice(&place.index.to_be_bytes());
    key[10..].copy_from_slice(&place.place.to_be_bytes());
    key
}

/// Reads the key of an entry of a tail.
pub(crate) fn read_tail(key: &[u8]) -> Result<(u16, TailPlace), StateError> {
    let read = || {
        let (shard, rest) = key.split_first_chunk()?;
        let (index, rest) = rest.split_first_chunk()?;
        let place = TailPlace { index: u64::from_be_bytes(*index), place: u32::from_be_bytes(rest.try_into().ok()?) };
        Some((u16::from_be_bytes(*shard), place))
    };
    read().ok_or_else(|| damaged_key(Family::ShardTail))
}

/// The key of a write that waits.
pub(crate) fn waiting(cid: &Cid, id: &VersionId) -> Vec<u8> {
    join(&order_key(cid), id.as_bytes())
}

/// The key of a write that waits, by its number.
pub(crate) fn waiting_number(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// Reads the key of a write that waits, by its number.
pub(crate) fn read_waiting_number(key: &[u8]) -> Result<u64, StateError> {
    key.try_into().map(u64::from_be_bytes).map_err(|_| damaged_key(Family::OutboxOrder))
}

/// The key of a pin with a history, by the index of the last merge.
pub(crate) fn history_by_index(index: u64, order: &[u8]) -> Vec<u8> {
    join(&index.to_be_bytes(), order)
}

/// Reads the key of a pin with a history, by index.
pub(crate) fn read_history_by_index(key: &[u8]) -> Result<(u64, Cid), StateError> {
    let (index, order) = key.split_first_chunk().ok_or_else(|| damaged_key(Family::HistoryByIndex))?;
    Ok((u64::from_be_bytes(*index), cid_of(order)?))
}

/// The key of a merged write by the index of the entry that merged it.
pub(crate) fn merged_by_index(index: u64, id: &VersionId) -> Vec<u8> {
    join(&index.to_be_bytes(), id.as_bytes())
}

/// Reads the key of a merged write by index.
pub(crate) fn read_merged_by_index(key: &[u8]) -> Result<(u64, VersionId), StateError> {
    let (index, id) = key.split_first_chunk().ok_or_else(|| damaged_key(Family::MergedByIndex))?;
    let id = id.try_into().map_err(|_| damaged_key(Family::MergedByIndex))?;
    Ok((u64::from_be_bytes(*index), VersionId::from_bytes(id)))
}

/// The key of a conflict.
pub(crate) fn conflict(index: u64, place: u32) -> Vec<u8> {
    join(&index.to_be_bytes(), &place.to_be_bytes())
}

/// Reads the key of a conflict.
pub(crate) fn read_conflict(key: &[u8]) -> Result<(u64, u32), StateError> {
    let (index, place) = key.split_first_chunk().ok_or_else(|| damaged_key(Family::Conflicts))?;
    let place = place.try_into().map_err(|_| damaged_key(Family::Conflicts))?;
    Ok((u64::from_be_bytes(*index), u32::from_be_bytes(place)))
}

/// The key of a peer in the dictionary.
pub(crate) fn peer_by_number(number: u32) -> Vec<u8> {
    join(PEER_BY_NUMBER, &number.to_be_bytes())
}

/// Reads the number of a dictionary key.
pub(crate) fn peer_number(key: &[u8]) -> Result<u32, StateError> {
    key.strip_prefix(PEER_BY_NUMBER)
        .and_then(|number| number.try_into().ok())
        .map(u32::from_be_bytes)
        .ok_or_else(|| damaged_key(Family::Peers))
}

/// The key of a pin under one of its peers.
pub(crate) fn by_peer(number: u32, order: &[u8]) -> Vec<u8> {
    join(&number.to_be_bytes(), order)
}

/// The key of a pin under its time of expiry.
pub(crate) fn by_expiry(expire_at: Timestamp, order: &[u8]) -> Vec<u8> {
    join(&sortable(expire_at.unix_seconds()), order)
}

/// The key of a pin under its name, of which an index holds the [`indexed`] part; that has no NUL.
pub(crate) fn by_name(name: &str, order: &[u8]) -> Vec<u8> {
    [indexed(name), &[0], order].concat()
}

/// The key of a pin under a text of its metadata.
pub(crate) fn by_meta(key: &str, value: &str, order: &[u8]) -> Vec<u8> {
    [indexed(key), &[0], indexed(value), &[0], order].concat()
}

/// What the keys of a user's requests begin with, or of those with a name.
pub(crate) fn requests_of(user: &str, name: Option<&str>) -> Vec<u8> {
    match name {
        Some(name) => [REQUEST_BY_NAME, indexed(user), &[0], indexed(name), &[0]].concat(),
        None => [REQUEST_BY_USER, indexed(user), &[0]].concat(),
    }
}

/// Where a user's requests of an instant begin, behind `head`, which is of [`requests_of`].
pub(crate) fn requests_at(head: &[u8], created: Timestamp) -> Vec<u8> {
    join(head, &(u64::MAX - u64::from_be_bytes(sortable(created.unix_millis()))).to_be_bytes())
}

/// The key of a request of a pin, behind `head`, which is of [`requests_of`].
pub(crate) fn request(head: &[u8], request: &PinningRequest, order: &[u8]) -> Vec<u8> {
    [requests_at(head, request.created).as_slice(), &request.id.0, order].concat()
}

/// Reads the number and the order key of a key of [`request`], whose head has `head` bytes.
pub(crate) fn read_request(key: &[u8], head: usize) -> Result<(RequestNumber, &[u8]), StateError> {
    let tail = key.get(head + 8..).and_then(|tail| tail.split_first_chunk::<REQUEST_NUMBER_BYTES>());
    let (number, order) = tail.ok_or_else(|| damaged_key(Family::ByRequest))?;
    Ok((RequestNumber(*number), order_part(order, 0, Family::ByRequest)?))
}

/// The order key behind so many NULs.
pub(crate) fn after_nuls(key: &[u8], nuls: usize, family: Family) -> Result<&[u8], StateError> {
    key.splitn(nuls + 1, |byte| *byte == 0).nth(nuls).ok_or_else(|| damaged_key(family))
}

/// The key of a tracker record under its urgency.
pub(crate) fn due(priority: bool, due: Timestamp, order: &[u8]) -> Vec<u8> {
    let mut key = vec![u8::from(!priority)];
    key.extend_from_slice(&sortable(due.unix_nanos()));
    key.extend_from_slice(order);
    key
}

/// The instant in a key of [`due`].
pub(crate) fn due_at(key: &[u8]) -> Result<Timestamp, StateError> {
    let bytes = key.get(1..9).and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| damaged_key(Family::TrackerDue))?;
    let nanos = u64::from_be_bytes(bytes).cast_signed().wrapping_add(i64::MIN);
    Ok(Timestamp::from_unix_nanos(i128::from(nanos)))
}

/// The key of a tracker record under its status.
pub(crate) fn by_status(status: TrackerStatus, order: &[u8]) -> Vec<u8> {
    join(&status.bit().to_be_bytes(), order)
}

/// The key of an outcome.
pub(crate) fn outcome(key: &RequestKey) -> Vec<u8> {
    join(&key.window.to_be_bytes(), &key.id)
}

/// Reads the key of an outcome.
pub(crate) fn read_outcome(key: &[u8]) -> Result<RequestKey, StateError> {
    let parts = key.split_at_checked(8).and_then(|(window, id)| Some((window.try_into().ok()?, id.try_into().ok()?)));
    let (window, id) = parts.ok_or_else(|| damaged_key(Family::Outcomes))?;
    Ok(RequestKey { window: u64::from_be_bytes(window), id })
}

/// The order key at the end of an index key whose head has `head` bytes.
pub(crate) fn order_part(key: &[u8], head: usize, family: Family) -> Result<&[u8], StateError> {
    key.get(head..).filter(|order| order.len() > SHARD_BYTES).ok_or_else(|| damaged_key(family))
}

/// The CID of an order key.
pub(crate) fn cid_of(order: &[u8]) -> Result<Cid, StateError> {
    let bytes = order.get(SHARD_BYTES..).unwrap_or_default();
    Cid::from_bytes(bytes).map_err(|error| StateError::Damaged { what: format!("key of a pin: {error}") })
}

/// The smallest order key after that of `cid`; everything when there is none.
pub(crate) fn resume_after(after: Option<&Cid>) -> Vec<u8> {
    after.map_or_else(Vec::new, |cid| successor(order_key(cid)))
}

/// The smallest key after `key`.
pub(crate) fn successor(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// The smallest key that no key starting with `prefix` reaches; `None` when there is none.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let keep = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=keep].to_vec();
    end[keep] += 1;
    Some(end)
}

/// `head` and then `tail`.
pub(crate) fn join(head: &[u8], tail: &[u8]) -> Vec<u8> {
    [head, tail].concat()
}

/// Bytes that sort as the number does.
fn sortable(number: i64) -> [u8; 8] {
    number.wrapping_sub(i64::MIN).cast_unsigned().to_be_bytes()
}

fn damaged_key(family: Family) -> StateError {
    StateError::Damaged { what: format!("a key in {}", family.name()) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_registry_is_complete_and_unambiguous() {
        let registered: BTreeSet<Family> = KEY_KINDS.iter().map(|kind| kind.family).collect();
        let used: BTreeSet<Family> = Family::STATE.into_iter().chain(Family::BLOCKS).collect();
        assert_eq!(registered, used);
        let names: BTreeSet<&str> = used.iter().map(|family| family.name()).collect();
        assert_eq!(names.len(), used.len());
        for (place, one) in KEY_KINDS.iter().enumerate() {
            assert!(!one.layout.is_empty());
            for other in KEY_KINDS.iter().skip(place + 1).filter(|other| other.family == one.family) {
                let clash = one.prefix.starts_with(other.prefix) || other.prefix.starts_with(one.prefix);
                assert!(!clash, "{one:?} and {other:?}");
            }
        }
    }

    #[test]
    fn keys_sort_as_what_they_hold() {
        let order = [0, 1, 2];
        let at = |nanos: i128| Timestamp::from_unix_nanos(nanos);
        let sorted = [
            due(true, at(-5), &order),
            due(true, at(0), &order),
            due(true, at(7), &order),
            due(false, Timestamp::ZERO, &order),
            due(false, at(1), &order),
        ];
        assert!(sorted.is_sorted());
        assert_eq!(due_at(&sorted[0]).unwrap(), at(-5));
        assert_eq!(due_at(&sorted[4]).unwrap(), at(1));
        let places = [(0, 0, 9), (0, 256, 0), (0, 256, 1), (1, 3, 0)];
        let tails = places.map(|(shard, index, place)| (shard, TailPlace { index, place }));
        let keys = tails.map(|(shard, place)| tail(shard, place));
        assert!(keys.is_sorted());
        assert_eq!(keys.map(|key| read_tail(&key).unwrap()), tails);
        let places = [(1, 900), (255, 7), (256, 0), (256, 1)];
        let conflicts = places.map(|(index, place)| conflict(index, place));
        assert!(conflicts.is_sorted());
        assert_eq!(conflicts.map(|key| read_conflict(&key).unwrap()), places);
        let merges = [(1, 9), (255, 8), (256, 0), (256, 1)].map(|(index, id)| (index, VersionId::from_bytes([id; 32])));
        let keys = merges.map(|(index, id)| merged_by_index(index, &id));
        assert!(keys.is_sorted());
        assert_eq!(keys.map(|key| read_merged_by_index(&key).unwrap()), merges);
        assert_eq!(read_waiting_number(&waiting_number(256)).unwrap(), 256);
        let cid: Cid = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH".parse().unwrap();
        assert_eq!(read_history_by_index(&history_by_index(256, &order_key(&cid))).unwrap(), (256, cid));
        let head = requests_of("me", None);
        let made = |millis, id| PinningRequest {
            id: RequestNumber([id; 16]),
            user: "me".to_owned(),
            name: String::new(),
            meta: [].into(),
            origins: Vec::new(),
            created: Timestamp::from_unix_millis(millis),
        };
        let newest_first = [(9, 0), (1, 1), (1, 2), (0, 0), (-1, 7)].map(|(millis, id)| made(millis, id));
        let keys = newest_first.clone().map(|made| request(&head, &made, &order_key(&cid)));
        assert!(keys.is_sorted() && newest_first.is_sorted_by_key(PinningRequest::place));
        assert_eq!(read_request(&keys[1], head.len()).unwrap(), (newest_first[1].id, order_key(&cid).as_slice()));
        let seconds = [-9, -1, 0, 1, 9].map(|seconds| by_expiry(Timestamp::from_unix_seconds(seconds), &order));
        assert!(seconds.is_sorted());
    }

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(prefix_end(&[1, 2]), Some(vec![1, 3]));
        assert_eq!(prefix_end(&[1, 255]), Some(vec![2]));
        assert_eq!(prefix_end(&[255, 255]), None);
    }

    #[test]
    fn short_keys_are_an_error() {
        assert!(peer_number(b"n12").is_err());
        assert!(read_outcome(&[0; 23]).is_err());
        assert!(read_tail(&[0; TAIL_BYTES - 1]).is_err() && read_tail(&[0; TAIL_BYTES + 1]).is_err());
        assert!(read_conflict(&[0; 11]).is_err() && read_conflict(&[0; 13]).is_err());
        assert!(read_merged_by_index(&[0; 8 + ID_BYTES - 1]).is_err());
        assert!(read_merged_by_index(&[0; 8 + ID_BYTES + 1]).is_err());
        assert!(read_waiting_number(&[0; 7]).is_err());
        assert!(read_history_by_index(&[0; 7]).is_err() && read_history_by_index(&[0; 10]).is_err());
        assert!(due_at(&[0; 5]).is_err());
        assert!(read_request(&[0; 20], 3).is_err() && read_request(&[0; 3 + 8 + 16 + SHARD_BYTES], 3).is_err());
        assert!(order_part(&[0; 3], 2, Family::ByPeer).is_err());
        assert!(cid_of(&[0]).is_err());
    }
}
