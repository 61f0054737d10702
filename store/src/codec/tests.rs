//! Golden files of every record, and hostile bytes.

use std::collections::BTreeMap;

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
    let counts = TrackerCounts { queued: 1, failed: 200, pinned: 3 };
    let change = encode_change(&root.cid, Some(vec![1, 2]), Some(Some(sample_record())));
    assert_golden("pin", include_str!("../../tests/golden/pin-v1.hex"), &encode_pin(&sample_pin(), |_| 7));
    assert_golden("tracker", include_str!("../../tests/golden/tracker-v1.hex"), &encode_tracker(&sample_record()));
    assert_golden("sum", include_str!("../../tests/golden/sum-v1.hex"), &encode_shard(&without_meta));
    assert_golden("shard", include_str!("../../tests/golden/shard-v1.hex"), &encode_shard(&shard));
    assert_golden("counts", include_str!("../../tests/golden/counts-v1.hex"), &encode_counts(&counts));
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
