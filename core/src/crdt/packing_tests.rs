//! Chunks of records.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::testing::{damaged, hex, pool, record};
use super::*;

fn sample() -> Chunk {
    let records = [(pool()[2], None), (pool()[0], Some(record("one"))), (pool()[1], Some(Bytes::new()))];
    Chunk::cut(records).remove(0)
}

#[test]
fn the_format_is_pinned() {
    assert_eq!(format!("{}\n", hex(&sample().encode())), include_str!("golden/chunk-v1.txt"));
    assert_eq!(Chunk::decode(&sample().encode()).unwrap(), sample());
}

#[test]
fn records_out_of_order_are_refused() {
    let mut records = sample().into_records();
    records.reverse();
    assert!(Chunk::decode(&Chunk { records: records.clone() }.encode()).is_err());
    records.reverse();
    records[0] = records[1].clone();
    assert!(Chunk::decode(&Chunk { records }.encode()).is_err());
    assert!(Chunk::decode(&vec![1; MAX_CHUNK_BYTES + 1]).is_err());
}

#[test]
fn no_records_are_one_empty_chunk() {
    assert_eq!(Chunk::cut([]), [Chunk::default()]);
    assert_eq!(Chunk::decode(&Chunk::default().encode()).unwrap(), Chunk::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn what_is_cut_comes_together_again(lengths in proptest::collection::vec(proptest::option::of(0_usize..400_000), 0..24)) {
        let records: Vec<(Cid, Option<Bytes>)> =
            pool().iter().zip(lengths).map(|(cid, length)| (*cid, length.map(|length| vec![1; length].into()))).collect();
        let mut together = BTreeMap::new();
        for chunk in Chunk::cut(records.clone()) {
            let bytes = chunk.encode();
            prop_assert!(bytes.len() <= MAX_CHUNK_BYTES);
            for (cid, record) in Chunk::decode(&bytes).unwrap().into_records() {
                prop_assert!(together.insert(cid, record).is_none());
            }
        }
        prop_assert_eq!(together, records.into_iter().collect::<BTreeMap<_, _>>());
    }

    #[test]
    fn damaged_bytes_do_no_harm(bytes in damaged(sample().encode())) {
        let _ = Chunk::decode(&bytes);
    }
}
