//! Packed records.

use proptest::prelude::*;

use super::super::testing::{damaged, hex, pool, record};
use super::*;
use crate::consensus::operation::encode_pin;
use crate::testing::suite::pinset;

fn sample() -> Vec<Change> {
    let pin = pinset::pin_on(4, &[1, 2]);
    let short = Cid::from_bytes(&[0x01, 0x55, 0x00, 0x02, 7, 8]).unwrap();
    vec![
        (pin.cid, Some(encode_pin(&pin).into())),
        (pool()[1], None),
        (pool()[2], Some(record("no pin at all"))),
        (short, Some(Bytes::new())),
    ]
}

#[test]
fn the_format_is_pinned() {
    // What comes out of the compressor may change with its version, and what goes in must not.
    let message: wire::Packed = FORMAT.decode(&pack(&sample())).unwrap();
    let rest = inflate(&message.rest, usize::try_from(message.unpacked).unwrap()).unwrap();
    let found = format!("{}\n{}\n{}\n", message.count, hex(&message.digests), hex(&rest));
    assert_eq!(found, include_str!("golden/packed-v1.txt"));
    assert_eq!(unpack(&pack(&sample()), 4).unwrap(), sample());
}

#[test]
fn what_is_more_than_was_asked_for_is_refused() {
    assert!(unpack(&pack(&sample()), 3).is_err());
    assert!(unpack(&vec![1; MAX_PACKED_BYTES + 1], 9).is_err());
    let sound: wire::Packed = FORMAT.decode(&pack(&sample())).unwrap();
    let refused: [fn(&mut wire::Packed); 6] = [
        |packed| packed.count = u64::MAX,
        |packed| packed.unpacked = u64::MAX,
        |packed| packed.unpacked -= 1,
        |packed| packed.unpacked += 1,
        |packed| packed.digests.push(1),
        |packed| packed.count -= 1,
    ];
    for alter in refused {
        let mut packed = sound.clone();
        alter(&mut packed);
        assert!(unpack(&FORMAT.encode(&packed), 9).is_err());
    }
}

#[test]
fn little_unfolds_to_no_more_than_it_says() {
    let bomb = deflate(&vec![0; 4 << 20]);
    assert!(bomb.len() < 16 << 10);
    assert_eq!(inflate(&bomb, 1000), None);
}

#[test]
fn pins_of_one_cluster_take_little_more_than_their_hashes() {
    let pins: Vec<Change> = (0..244)
        .map(|number| pinset::pin_on(number, &[1, 2, 3]))
        .map(|pin| (pin.cid, Some(encode_pin(&pin).into())))
        .collect();
    let each = pack(&pins).len() / pins.len();
    assert!(each < 42, "{each} bytes each");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn damaged_bytes_do_no_harm(bytes in damaged(pack(&sample()))) {
        let _ = unpack(&bytes, 9);
    }
}
