//! Sample pins, and updates that keep the sums right, for tests of everything that keeps a pinset.

use bytes::Bytes;
use cluster_types::{Cid, Codec, PeerId, Pin, PinOptions, Timestamp, TrackerStatus};
use futures::TryStreamExt;
use multihash_codetable::{Code, MultihashDigest};

use crate::consensus::digest::{SHARDS, shard_of};
use crate::ports::{
    Changes, PinChange, Row, Scan, ShardState, ShardSum, StateError, StateStore, StateView, TrackerRecord,
};

/// A CID made from a number.
pub fn cid(number: u64) -> Cid {
    Cid::new_v1(Codec::RAW, Code::Sha2_256.digest(&number.to_be_bytes()))
}

/// A peer made from a number.
pub fn peer(number: u8) -> PeerId {
    let mut bytes = vec![0x12, 0x20];
    bytes.extend_from_slice(&[number; 32]);
    PeerId::from_bytes(&bytes).expect("a sha2-256 multihash is a peer id")
}

/// A pin made from a number: on every peer.
pub fn pin(number: u64) -> Pin {
    let options = PinOptions {
        replication_factor_min: -1,
        replication_factor_max: -1,
        name: format!("pin {number}"),
        ..PinOptions::default()
    };
    Pin { timestamp: Timestamp::from_unix_seconds(1_800_000_000), ..Pin::new(cid(number), options) }
}

/// A pin made from a number: on some peers.
pub fn pin_on(number: u64, peers: &[u8]) -> Pin {
    let mut pin = pin(number);
    pin.options.replication_factor_min = 1;
    pin.options.replication_factor_max = 2;
    pin.allocations = peers.iter().copied().map(peer).collect();
    pin
}

/// A tracker record.
pub fn record(generation: u64, status: TrackerStatus, due: Option<i64>) -> TrackerRecord {
    TrackerRecord {
        generation,
        status,
        attempts: 1,
        error: "a reason".to_owned(),
        changed: Timestamp::from_unix_seconds(1_800_000_000),
        due: due.map(Timestamp::from_unix_seconds),
        priority: false,
    }
}

/// The changes that make `pins` be as given, with right sums. Every CID once.
pub fn changes(view: &dyn StateView, pins: Vec<(Cid, Option<Pin>)>) -> Result<Changes, StateError> {
    let mut changes = Changes::default();
    let mut shards = std::collections::BTreeMap::<u16, ShardState>::new();
    for (cid, after) in pins {
        let shard = shard_of(&cid);
        let state = match shards.entry(shard) {
            std::collections::btree_map::Entry::Occupied(slot) => slot.into_mut(),
            std::collections::btree_map::Entry::Vacant(slot) => slot.insert(view.shard(shard)?),
        };
        let before = view.pin(&cid)?;
        if let Some(before) = &before {
            state.sum.remove(before);
        }
        if let Some(after) = &after {
            state.sum.add(after);
        }
        changes.pins.push(PinChange { cid, before, after });
    }
    changes.shards = shards.into_iter().collect();
    Ok(changes)
}

/// Makes `pins` be as given, and moves the position.
pub async fn write<S: StateStore + ?Sized>(store: &S, pins: Vec<(Cid, Option<Pin>)>, applied: &'static str) {
    let update = move |view: &dyn StateView| {
        let applied = Some(Bytes::from_static(applied.as_bytes()));
        Ok(Changes { applied, ..changes(view, pins)? })
    };
    store.update(Box::new(update)).await.expect("the update is carried out");
}

/// Puts pins.
pub async fn put<S: StateStore + ?Sized>(store: &S, pins: Vec<Pin>, applied: &'static str) {
    write(store, pins.into_iter().map(|pin| (pin.cid, Some(pin))).collect(), applied).await;
}

/// Sets tracker records.
pub async fn track<S: StateStore + ?Sized>(store: &S, tracker: Vec<(Cid, Option<TrackerRecord>)>) {
    let update = move |_view: &dyn StateView| Ok(Changes { tracker, ..Changes::default() });
    store.update(Box::new(update)).await.expect("the update is carried out");
}

/// All rows of a scan.
pub async fn rows<S: StateStore + ?Sized>(store: &S, scan: Scan) -> Vec<Row> {
    store.scan(scan).try_collect().await.expect("the scan ends well")
}

/// The CIDs of a scan's rows.
pub async fn cids<S: StateStore + ?Sized>(store: &S, scan: Scan) -> Vec<Cid> {
    rows(store, scan).await.into_iter().map(|row| row.cid).collect()
}

/// Panics unless sums, number of pins and index by peer are what the pins themselves give.
pub async fn assert_sound<S: StateStore + ?Sized>(store: &S, peers: &[u8]) {
    let pins: Vec<Pin> = rows(store, Scan::All { after: None }).await.into_iter().filter_map(|row| row.pin).collect();
    let mut sums = vec![ShardSum::default(); usize::from(SHARDS)];
    for pin in &pins {
        sums[usize::from(shard_of(&pin.cid))].add(pin);
    }
    let kept = store.shards().await.expect("sums are readable").0.into_iter().map(|state| state.sum);
    assert_eq!(kept.collect::<Vec<_>>(), sums, "sums are those of the records");
    assert_eq!(store.pins(), u64::try_from(pins.len()).unwrap_or(u64::MAX), "the number of pins is kept");
    for number in peers {
        let named = |pin: &&Pin| !pin.is_everywhere() && pin.is_allocated_to(&peer(*number));
        let expected: Vec<Cid> = pins.iter().filter(named).map(|pin| pin.cid).collect();
        let indexed = cids(store, Scan::ByPeer { peer: peer(*number), after: None }).await;
        assert_eq!(indexed, expected, "the index by peer is that of the records");
    }
    let mut expected: Vec<_> = pins.iter().filter(|pin| !pin.options.expire_at.is_zero()).collect();
    expected.sort_by_key(|pin| pin.options.expire_at);
    let expected: Vec<Cid> = expected.into_iter().map(|pin| pin.cid).collect();
    let until = Timestamp::from_unix_seconds(i64::MAX);
    assert_eq!(cids(store, Scan::Expiring { until }).await, expected, "the index by expiry is that of the records");
}
