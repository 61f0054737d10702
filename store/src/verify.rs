//! Checks a received snapshot from end to end before anything of it is used, in constant memory.

use std::io::Read;

use cluster_core::consensus::digest::{SHARDS, order_key, shard_of};
use cluster_core::consensus::operation::decode_pin;
use cluster_core::ports::{ShardSum, StateError};

use crate::frames::{Decoder, OUTCOME, PIN, SUM, invalid};
use crate::{codec, keys};

/// Whether a snapshot is whole: sums first, then the pins in order, each once and adding up to the sums, then the
/// outcomes in order.
pub(crate) fn snapshot(input: impl Read) -> Result<(), StateError> {
    let mut decoder = Decoder::new(input)?;
    let mut promised = vec![ShardSum::default(); usize::from(SHARDS)];
    let mut found = promised.clone();
    let mut last_kind = SUM;
    let mut last_key: Vec<u8> = Vec::new();
    while let Some((kind, bytes)) = decoder.next()? {
        if kind < last_kind {
            return Err(invalid("its records are out of order"));
        }
        if kind > last_kind {
            last_key.clear();
            last_kind = kind;
        }
        let key = match kind {
            SUM => {
                let (shard, sum) = read_sum(&bytes)?;
                *promised.get_mut(usize::from(shard)).ok_or_else(|| invalid("a shard is out of range"))? = sum;
                keys::shard(shard).to_vec()
            }
            PIN => {
                let pin = decode_pin(&bytes).map_err(|error| invalid(error.to_string()))?;
                found[usize::from(shard_of(&pin.cid))].add(&pin);
                order_key(&pin.cid)
            }
            OUTCOME => {
                let (key, _outcome) = split_outcome(&bytes)?;
                key.to_vec()
            }
            _ => return Err(invalid("it holds a record of an unknown kind")),
        };
        if !last_key.is_empty() && key <= last_key {
            return Err(invalid("its records are out of order"));
        }
        last_key = key;
    }
    if promised == found { Ok(()) } else { Err(invalid("its pins do not add up to its digest")) }
}

/// Reads the sum of a shard.
pub(crate) fn read_sum(bytes: &[u8]) -> Result<(u16, ShardSum), StateError> {
    let parts = bytes.split_at_checked(2).and_then(|(shard, sum)| Some((shard.try_into().ok()?, sum)));
    let (shard, sum) = parts.ok_or_else(|| invalid("a shard sum is too short"))?;
    Ok((u16::from_be_bytes(shard), codec::decode_sum(sum).map_err(|error| invalid(error.to_string()))?))
}

/// Splits an outcome into its key and what is remembered.
pub(crate) fn split_outcome(bytes: &[u8]) -> Result<(&[u8], &[u8]), StateError> {
    bytes.split_at_checked(24).ok_or_else(|| invalid("an outcome is too short"))
}

#[cfg(test)]
mod tests {
    use cluster_core::consensus::operation::encode_pin;
    use cluster_core::testing::suite::pinset;
    use cluster_types::Pin;

    use super::*;
    use crate::frames::{CHANGE, Encoder};

    /// A stream of `pins` in the order given, whose sums are those of `summed`.
    fn stream(pins: &[&Pin], summed: &[&Pin]) -> Encoder {
        let mut sums = std::collections::BTreeMap::<u16, ShardSum>::new();
        for pin in summed {
            sums.entry(shard_of(&pin.cid)).or_default().add(pin);
        }
        let mut encoder = Encoder::new();
        for (shard, sum) in sums {
            encoder.record(SUM, &[&keys::shard(shard), &codec::encode_sum(&sum)]).unwrap();
        }
        for pin in pins {
            encoder.record(PIN, &[&encode_pin(pin)]).unwrap();
        }
        encoder
    }

    fn check(encoder: Encoder) -> Result<(), StateError> {
        snapshot(&*encoder.finish())
    }

    #[test]
    fn a_stream_that_is_whole_but_wrong_is_refused() {
        let mut pins = [pinset::pin(1), pinset::pin(2)];
        pins.sort_by_key(|pin| order_key(&pin.cid));
        let [low, high] = &pins;
        check(stream(&[low, high], &[low, high])).unwrap();
        for wrong in [
            stream(&[low], &[low, high]),
            stream(&[low, high], &[low]),
            stream(&[high, low], &[low, high]),
            stream(&[low, low], &[low, low]),
        ] {
            assert!(matches!(check(wrong), Err(StateError::InvalidSnapshot { .. })));
        }
        for (kind, bytes) in [(SUM, &[0; 5][..]), (PIN, b"no pin"), (OUTCOME, b"short"), (CHANGE, b""), (77, b"")] {
            let mut wrong = stream(&[low], &[low]);
            wrong.record(kind, &[bytes]).unwrap();
            assert!(matches!(check(wrong), Err(StateError::InvalidSnapshot { .. })), "kind {kind}");
        }
    }
}
