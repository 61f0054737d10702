//! Tests of rows on their way.

use super::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

fn row(kind: u8, key: &[u8], value: &[u8]) -> AnnexRow {
    AnnexRow { kind, key: Bytes::copy_from_slice(key), value: Bytes::copy_from_slice(value) }
}

#[test]
fn rows_come_as_they_went() {
    let mut chance = StdRng::seed_from_u64(1);
    for _round in 0..200 {
        let rows: Vec<AnnexRow> = (0..chance.random_range(1..40))
            .map(|_| {
                let key: Vec<u8> = (0..chance.random_range(0..80)).map(|_| chance.random_range(0..2)).collect();
                row(chance.random_range(0..3), &key, &key[..key.len() / 2])
            })
            .collect();
        assert_eq!(decode_rows(&encode_rows(&rows)).unwrap(), rows);
    }
    assert_eq!((encode_rows(&[]).len(), decode_rows(&[]).unwrap()), (0, Vec::new()));
}

#[test]
fn outcomes_of_counted_requests_take_next_to_nothing() {
    let key = |number: u64| [&9_u64.to_be_bytes()[..], &[0xa5; 8], &number.to_be_bytes()].concat();
    let rows: Vec<AnnexRow> = (0..10_000).map(|number| row(1, &key(number + number / 7), &[0])).collect();
    let bytes = encode_rows(&rows);
    assert!(bytes.len() < 2_000, "{} bytes for {} rows", bytes.len(), rows.len());
    assert_eq!(decode_rows(&bytes).unwrap(), rows);
}

#[test]
fn what_is_no_rows_is_refused() {
    let good = encode_rows(&[row(1, &[0; 24], b"x"), row(1, &[0; 24], b"y")]);
    for place in 0..good.len() {
        let mut flipped = good.to_vec();
        flipped[place] ^= 0x10;
        assert_eq!(decode_rows(&flipped), None, "a bit of byte {place}");
        if place > 0 {
            assert_eq!(decode_rows(&good[..place]), None, "cut off at {place}");
        }
    }
    // Few bytes that unfold to many: the size of what they stand for counts.
    let longest = row(1, &[3; MAX_STEPPED], b"");
    let many = vec![longest; 2 * MAX_GROUP / MAX_STEPPED];
    let bytes = encode_rows(&many);
    assert!(bytes.len() < MAX_GROUP / 100);
    assert_eq!(decode_rows(&bytes), None);
}
