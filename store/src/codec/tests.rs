//! Golden files of every record, and hostile bytes.

use std::collections::BTreeMap;

use cluster_core::crdt::merge::{Conflict, Eventual, Party, Rule, Sight, Wish, Write};
use cluster_core::ports::{ConflictEvent, MergedAt, Waiting};

use super::*;

const CID: &str = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";
const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

fn sample_pin() -> Pin {
    let cid: Cid = CID.parse().unwrap();
    let options = PinOptions {
        replication_factor_min: 1,
        replication_factor_max: 2,
        name: "a name".to_owned(),
        expire_at: Timestamp::from_unix_seconds(1_900_000_000),
        metadata: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        pin_update: Some(cid),
        origins: vec!["/ip4/1.2.3.4/tcp/4001".parse().unwrap()],
        ..PinOptions::default()
    };
    let mut pin = Pin::new(cid, options);
    pin.allocations = vec![PEER.parse().unwrap()];
    pin.timestamp = Timestamp::from_unix_seconds(1_800_000_000);
    pin
}

fn requested_pin() -> Pin {
    let request = |id, name: &str| PinningRequest {
        id: RequestNumber([id; 16]),
        user: "ann".to_owned(),
        name: name.to_owned(),
        meta: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        origins: vec!["/ip4/1.2.3.4/tcp/4001".parse().unwrap()],
        created: Timestamp::from_unix_millis(1_800_000_000_123),
    };
    Pin { requests: vec![request(1, "one"), request(2, "")], only_requested: true, ..sample_pin() }
}

fn sample_record() -> TrackerRecord {
    TrackerRecord {
        generation: 300,
        status: TrackerStatus::PinError,
        attempts: 3,
        error: "no route".to_owned(),
        changed: Timestamp::from_unix_seconds(1_800_000_000),
        due: Some(Timestamp::from_unix_nanos(1_800_000_060_000_000_001)),
        priority: true,
    }
}

fn sample_meta() -> ShardMeta {
    ShardMeta { epoch: 700, previous: 600, since_epoch: 5, since_previous: 90 }
}

fn read_pin(bytes: &[u8]) -> Result<Pin, StateError> {
    decode_pin(CID.parse().unwrap(), bytes, |number| {
        if number == 7 { Ok(PEER.parse().unwrap()) } else { Err(damaged("pin", "no such peer")) }
    })
}

fn assert_golden(name: &str, golden: &str, bytes: &[u8]) {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden.trim(), "the record format {name} is promised; give a new version to a new one");
}

#[test]
fn every_record_is_as_its_golden_file() {
    let root = Root { cid: CID.parse().unwrap(), depth: PinDepth::RECURSIVE };
    let sum = ShardSum { pins: 300, hash: [7; 32] };
    let without_meta = ShardState { sum, ..ShardState::default() };
    let shard = ShardState { sum, meta: sample_meta(), tail_from: 0 };
    let counts = TrackerCounts { queued: 1, failed: 200, pinned: 3, ..TrackerCounts::default() };
    let change = encode_change(&root.cid, Some(vec![1, 2]), Some(Some(sample_record())));
    assert_golden("pin", include_str!("../../tests/golden/pin-v1.hex"), &encode_pin(&sample_pin(), |_| 7));
    let requested = encode_pin(&requested_pin(), |_| 7);
    assert_golden("pin", include_str!("../../tests/golden/pin-requests-v1.hex"), &requested);
    assert_eq!(read_pin(&requested).unwrap(), requested_pin());
    assert_golden("tracker", include_str!("../../tests/golden/tracker-v1.hex"), &encode_tracker(&sample_record()));
    assert_golden("sum", include_str!("../../tests/golden/sum-v1.hex"), &encode_shard(&without_meta));
    assert_golden("shard", include_str!("../../tests/golden/shard-v1.hex"), &encode_shard(&shard));
    assert_golden("counts", include_str!("../../tests/golden/counts-v1.hex"), &encode_counts(&counts));
    let with_unpins = TrackerCounts { unpins_queued: 1, unpins_failed: 100, ..counts };
    assert_golden("counts", include_str!("../../tests/golden/counts-unpins-v1.hex"), &encode_counts(&with_unpins));
    assert_eq!(decode_counts(&encode_counts(&with_unpins)).unwrap(), with_unpins);
    assert_golden("root", include_str!("../../tests/golden/root-v1.hex"), &encode_root(&root));
    assert_golden("change", include_str!("../../tests/golden/change-v1.hex"), &change);
}

#[test]
fn records_round_trip() {
    assert_eq!(read_pin(&encode_pin(&sample_pin(), |_| 7)).unwrap(), sample_pin());
    assert_eq!(decode_tracker(&encode_tracker(&sample_record())).unwrap(), sample_record());
    let shard = ShardState { sum: ShardSum { pins: 1, hash: [1; 32] }, meta: sample_meta(), tail_from: 650 };
    for state in [shard, ShardState { sum: shard.sum, ..ShardState::default() }] {
        assert_eq!(decode_shard(&encode_shard(&state)).unwrap(), state);
    }
    let never = TrackerRecord { changed: Timestamp::ZERO, due: None, ..sample_record() };
    assert_eq!(decode_tracker(&encode_tracker(&never)).unwrap(), never);
    let change = InstallChange { cid: CID.parse().unwrap(), pin: None, tracker: Some(None) };
    assert_eq!(decode_change(&encode_change(&change.cid, None, Some(None))).unwrap(), change);
    assert_eq!(decode_number("n", &encode_number(77)).unwrap(), 77);
    let head = StagedHead { index: 9, sum: shard.sum, base: ShardSum::default() };
    assert_eq!(decode_staged(&encode_staged(&head)).unwrap(), head);
    let changes = vec![encode_change(&change.cid, None, Some(None)), encode_change(&change.cid, Some(vec![1]), None)];
    assert_eq!(decode_changes(&encode_changes(changes)).unwrap()[0], change);
    let row = AnnexRow { kind: 3, key: Bytes::from_static(b"k"), value: Bytes::from_static(b"v") };
    assert_eq!(decode_annex(&encode_annex(&[row.clone(), row.clone()])).unwrap(), [row.clone(), row]);
}

#[test]
fn an_unknown_version_and_cut_bytes_are_damage() {
    let whole = encode_pin(&sample_pin(), |_| 7);
    let newer = [vec![2], whole[1..].to_vec()].concat();
    for bytes in [&newer[..], &[], &whole[..whole.len() - 1]] {
        assert!(matches!(read_pin(bytes), Err(StateError::Damaged { .. })));
    }
    assert!(matches!(read_pin(&encode_pin(&sample_pin(), |_| 8)), Err(StateError::Damaged { .. })));
    assert!(decode_tracker(&[1, 0x10, 3]).is_err());
    assert!(decode_shard(&[1]).is_err());
    assert!(decode_tail(&[]).is_err());
    let unsound = ShardState { meta: ShardMeta { previous: 900, ..sample_meta() }, ..ShardState::default() };
    assert!(decode_shard(&encode_shard(&unsound)).is_err());
    assert!(decode_number("n", &[1, 2]).is_err());
}

fn sample_counts() -> MergeCounts {
    MergeCounts {
        own: 1,
        waiting: 2,
        last_own: 300,
        last_number: 301,
        committed: 4,
        histories: 5,
        merged: 600,
        conflicts: 7,
    }
}

fn sample_write() -> Eventual {
    let pin = Pin { allocations: Vec::new(), ..sample_pin() };
    let (author, time) = (PEER.parse().unwrap(), Timestamp::from_unix_nanos(1_800_000_000_000_000_007));
    Eventual::new(Write::by(author, time, pin.cid, None, Sight::of_state(9, None)).pin(pin)).unwrap()
}

fn sample_event() -> ConflictEvent {
    let party = |wish| Party { author: Some(PEER.parse().unwrap()), wish, time: Timestamp::ZERO, record: None };
    let (winner, loser) = (party(Wish::Pin), party(Wish::Unpin));
    let conflict = Conflict { cid: CID.parse().unwrap(), winner, loser, rule: Rule::PinBeatsUnpin, stale: true };
    ConflictEvent { index: 8, place: 3, time: Timestamp::from_unix_seconds(1_800_000_000), conflict }
}

#[test]
fn records_of_merging_are_as_their_golden_files() {
    let at = MergedAt { index: 700, time: Timestamp::from_unix_seconds(1_800_000_000) };
    let committed = [encode_committed(Some(vec![1, 2])), encode_committed(None)].concat();
    let waiting = encode_waiting(300, true, &sample_write());
    assert_golden(
        "merge counts",
        include_str!("../../tests/golden/merge-counts-v1.hex"),
        &encode_merge_counts(&sample_counts()),
    );
    assert_golden("committed", include_str!("../../tests/golden/committed-v1.hex"), &committed);
    assert_golden("waiting", include_str!("../../tests/golden/waiting-v1.hex"), &waiting);
    assert_golden("turn", include_str!("../../tests/golden/turn-v1.hex"), &encode_turn(b"key", true));
    assert_golden("merged", include_str!("../../tests/golden/merged-v1.hex"), &encode_merged_at(&at));
    assert_golden("conflict", include_str!("../../tests/golden/conflict-v1.hex"), &encode_conflict(&sample_event()));
}

#[test]
fn records_of_merging_round_trip_and_cut_ones_are_damage() {
    assert_eq!(decode_merge_counts(&encode_merge_counts(&sample_counts())).unwrap(), sample_counts());
    for pin in [None, Some(Vec::new()), Some(vec![1, 2])] {
        assert_eq!(decode_committed(&encode_committed(pin.clone())).unwrap(), pin);
    }
    let waiting = Waiting { number: 3, own: true, write: sample_write() };
    let bytes = encode_waiting(3, true, &waiting.write);
    assert_eq!(decode_waiting(&bytes).unwrap(), waiting);
    assert_eq!(decode_waiting_number(&bytes).unwrap(), (3, true));
    assert_eq!(decode_turn(&encode_turn(b"key", false)).unwrap(), (b"key".to_vec(), false));
    for time in [Timestamp::ZERO, Timestamp::from_unix_seconds(0), Timestamp::from_unix_nanos(5)] {
        let at = MergedAt { index: 1, time };
        assert_eq!(decode_merged_at(&encode_merged_at(&at)).unwrap(), at);
    }
    let event = sample_event();
    assert_eq!(decode_conflict((8, 3), &encode_conflict(&event)).unwrap(), event);
    assert!(decode_waiting(&bytes[..bytes.len() - 1]).is_err() && decode_waiting(&encode_opaque(&[])).is_err());
    assert!(decode_conflict((8, 3), &[VERSION]).is_err() && decode_history(&[]).is_err());
    assert!(decode_committed(&[]).is_err() && decode_merged_at(&[2]).is_err() && decode_merge_counts(&[2]).is_err());
}
