//! Manifests.

use proptest::prelude::*;

use super::super::testing::{damaged, hex};
use super::*;

fn sums() -> Vec<ShardSum> {
    let sum =
        |shard: u16| ShardSum { pins: 2000 + u64::from(shard), hash: *blake3::hash(&shard.to_be_bytes()).as_bytes() };
    (0..SHARDS).map(sum).collect()
}

fn shards() -> Vec<ShardState> {
    let state = |(shard, sum): (u64, ShardSum)| {
        let meta = ShardMeta { epoch: 900 + shard, previous: 300 + shard, since_epoch: 40, since_previous: 600 };
        ShardState { sum, meta, tail_from: 0 }
    };
    (0..).zip(sums()).map(state).collect()
}

fn manifest() -> Manifest {
    Manifest::of(Bytes::from_static(b"position"), &shards()).unwrap()
}

#[test]
fn the_format_is_pinned() {
    let bytes = manifest().encode();
    // Seventy kilobytes in a file would help nobody: the beginning, the length and the hash of the whole.
    let found = format!("{}\n{}\n{}\n", hex(&bytes[..64]), bytes.len(), blake3::hash(&bytes).to_hex());
    assert_eq!(found, include_str!("golden/manifest-v2.txt"));
    assert!(bytes.len() < 72 * 1024);
    assert_eq!(Manifest::decode(&bytes).unwrap(), manifest());
}

#[test]
fn epochs_travel_and_do_not_make_a_shard_differ() {
    let mut others = shards();
    others[5].meta = ShardMeta::default();
    let other = Manifest::of(Bytes::from_static(b"position"), &others).unwrap();
    assert_eq!(other.differing(&sums()).unwrap(), Vec::<u16>::new());
    assert_eq!((other.meta(5), other.meta(6)), (ShardMeta::default(), shards()[6].meta));
}

#[test]
fn shards_that_differ_are_named() {
    let mut ours = sums();
    ours[7].pins += 1;
    ours[4095].hash[0] ^= 1;
    let manifest = manifest();
    assert_eq!(manifest.differing(&ours).unwrap(), [7, 4095]);
    assert_eq!(manifest.verify(&ours), Err(ManifestError::Shards { first: 7, count: 2 }));
    assert!(manifest.matches(8, &ours[8]) && !manifest.matches(7, &ours[7]));
    assert_eq!(manifest.verify(&sums()), Ok(()));
    assert_eq!((manifest.pins_in(7), manifest.pins()), (2007, 4096 * 2000 + 4095 * 4096 / 2));
}

#[test]
fn the_root_decides_where_eight_bytes_do_not() {
    let mut ours = sums();
    ours[100].hash[31] ^= 1;
    assert!(manifest().differing(&ours).unwrap().is_empty());
    assert_eq!(manifest().verify(&ours), Err(ManifestError::Root));
}

#[test]
fn wrong_lengths_are_refused() {
    assert_eq!(Manifest::of(Bytes::new(), &shards()[1..]), Err(ManifestError::Length { sums: 4095 }));
    assert_eq!(manifest().differing(&[]), Err(ManifestError::Length { sums: 0 }));
    assert!(Manifest::decode(&vec![1; FORMAT.limit + 1]).is_err());
    let sound = FORMAT.decode::<wire::Manifest>(&manifest().encode()).unwrap();
    let refused: [fn(&mut wire::Manifest); 6] = [
        |manifest| manifest.epochs.truncate(4095),
        |manifest| manifest.previous[9] = 10_000,
        |manifest| manifest.hashes.truncate(8 * 4095),
        |manifest| manifest.pins.push(1),
        |manifest| manifest.root.push(1),
        |manifest| manifest.applied = vec![0; MAX_APPLIED_BYTES + 1].into(),
    ];
    for alter in refused {
        let mut manifest = sound.clone();
        alter(&mut manifest);
        assert!(Manifest::decode(&FORMAT.encode(&manifest)).is_err());
    }
}

proptest! {
    #[test]
    fn damaged_bytes_do_no_harm(bytes in damaged(manifest().encode())) {
        if let Ok(manifest) = Manifest::decode(&bytes) {
            let _ = (manifest.pins(), manifest.verify(&sums()));
        }
    }
}
