//! Checks a received snapshot from end to end before anything of it is used, in constant memory.

use std::io::Read;

use cluster_core::consensus::digest::{SHARDS, order_key, shard_of};
use cluster_core::consensus::operation::decode_pin;
use cluster_core::crdt::{ShardMeta, TailEntry};
use cluster_core::ports::{ShardState, StateError};

use crate::frames::{Decoder, HISTORY, MERGED, OUTCOME, PIN, SHARD, TAIL, invalid};
use crate::{codec, keys, merge_frames};

/// Whether a snapshot is whole: shards first, then the pins in order, each once and adding up to the shards' sums, then
/// the outcomes in order, then the tails in order, as long as their shards say, then histories and merged writes in
/// order.
pub(crate) fn snapshot(input: impl Read) -> Result<(), StateError> {
    let mut decoder = Decoder::new(input)?;
    let mut check = Check::new();
    let mut last: (u8, Vec<u8>) = (SHARD, Vec::new());
    while let Some((kind, bytes)) = decoder.next()? {
        let next = (kind, check.record(kind, &bytes)?);
        if next <= last {
            return Err(invalid("its records are out of order"));
        }
        last = next;
    }
    check.end()
}

/// What a snapshot promised so far, and what of it was found.
struct Check {
    promised: Vec<ShardState>,
    found: Vec<ShardState>,
}

impl Check {
    fn new() -> Self {
        let nothing = vec![ShardState::default(); usize::from(SHARDS)];
        Self { promised: nothing.clone(), found: nothing }
    }

    /// Takes a record in; returns its key, which puts it in order among those of its kind.
    fn record(&mut self, kind: u8, bytes: &[u8]) -> Result<Vec<u8>, StateError> {
        match kind {
            SHARD => {
                let (shard, state) = read_shard(bytes)?;
                let place = usize::from(shard);
                *self.promised.get_mut(place).ok_or_else(|| invalid("a shard is out of range"))? = state;
                let counted = ShardMeta { since_epoch: 0, since_previous: 0, ..state.meta };
                self.found[place].meta = counted;
                Ok(keys::shard(shard).to_vec())
            }
            PIN => {
                let pin = decode_pin(bytes).map_err(|error| invalid(error.to_string()))?;
                self.found[usize::from(shard_of(&pin.cid))].sum.add(&pin);
                Ok(order_key(&pin.cid))
            }
            OUTCOME => split_outcome(bytes).map(|(key, _outcome)| key.to_vec()),
            TAIL => {
                let (key, entry) = split_tail(bytes)?;
                self.tail(key, entry)?;
                Ok(key.to_vec())
            }
            HISTORY => merge_frames::check_history(bytes),
            MERGED => merge_frames::check_merged(bytes),
            _ => Err(invalid("it holds a record of an unknown kind")),
        }
    }

    fn tail(&mut self, key: &[u8], entry: &[u8]) -> Result<(), StateError> {
        let (shard, place) = keys::read_tail(key).map_err(|error| invalid(error.to_string()))?;
        let entry = TailEntry::decode(entry).map_err(|error| invalid(error.to_string()))?;
        let before = entry.before.as_deref().map(decode_pin).transpose();
        let before = before.map_err(|error| invalid(error.to_string()))?;
        let is_its_own = before.is_none_or(|pin| pin.cid == entry.cid);
        if !is_its_own || entry.index != place.index || shard_of(&entry.cid) != shard {
            return Err(invalid("an entry of a tail is not where it belongs"));
        }
        let meta = &mut self.found[usize::from(shard)].meta;
        meta.since_previous += u64::from(place.index > meta.previous);
        meta.since_epoch += u64::from(place.index > meta.epoch);
        if place.index <= meta.previous { Err(invalid("a tail is longer than its shard says")) } else { Ok(()) }
    }

    fn end(self) -> Result<(), StateError> {
        for (promised, found) in self.promised.iter().zip(&self.found) {
            if promised.sum != found.sum {
                return Err(invalid("its pins do not add up to its digest"));
            }
            if promised.meta != found.meta {
                return Err(invalid("a tail is not as long as its shard says"));
            }
        }
        Ok(())
    }
}

/// Reads the sum and epochs of a shard.
pub(crate) fn read_shard(bytes: &[u8]) -> Result<(u16, ShardState), StateError> {
    let parts = bytes.split_first_chunk().ok_or_else(|| invalid("a shard is too short"))?;
    let state = codec::decode_shard(parts.1).map_err(|error| invalid(error.to_string()))?;
    Ok((u16::from_be_bytes(*parts.0), state))
}

/// Splits an entry of a tail into its key and itself.
pub(crate) fn split_tail(bytes: &[u8]) -> Result<(&[u8], &[u8]), StateError> {
    bytes.split_at_checked(keys::TAIL_BYTES).ok_or_else(|| invalid("an entry of a tail is too short"))
}

/// Splits an outcome into its key and what is remembered.
pub(crate) fn split_outcome(bytes: &[u8]) -> Result<(&[u8], &[u8]), StateError> {
    bytes.split_at_checked(24).ok_or_else(|| invalid("an outcome is too short"))
}

#[cfg(test)]
mod tests {
    use cluster_core::consensus::operation::encode_pin;
    use cluster_core::crdt::merge::{Eventual, Place, Sight, Write, merge};
    use cluster_core::ports::{MergedAt, TailPlace};
    use cluster_core::testing::suite::pinset;
    use cluster_types::{Pin, Timestamp};

    use super::*;
    use crate::frames::{CHANGE, Encoder};

    type Tail = (u16, TailPlace, TailEntry);

    /// A stream of `pins` and `tails` in the order given; the sums are those of `summed`, the epochs as in `meta`.
    fn stream(pins: &[&Pin], summed: &[&Pin], meta: ShardMeta, tails: &[Tail]) -> Encoder {
        let mut shards = std::collections::BTreeMap::<u16, ShardState>::new();
        for pin in summed {
            let state = shards.entry(shard_of(&pin.cid)).or_default();
            state.sum.add(pin);
            state.meta = meta;
        }
        let mut encoder = Encoder::new();
        for (shard, state) in shards {
            encoder.record(SHARD, &[&keys::shard(shard), &codec::encode_shard(&state)]).unwrap();
        }
        for pin in pins {
            encoder.record(PIN, &[&encode_pin(pin)]).unwrap();
        }
        for (shard, place, entry) in tails {
            encoder.record(TAIL, &[&keys::tail(*shard, *place), &entry.encode()]).unwrap();
        }
        encoder
    }

    fn without_tails(pins: &[&Pin], summed: &[&Pin]) -> Encoder {
        stream(pins, summed, ShardMeta::default(), &[])
    }

    fn check(encoder: Encoder) -> Result<(), StateError> {
        snapshot(&*encoder.finish())
    }

    fn assert_refused(wrong: Encoder, what: &str) {
        assert!(matches!(check(wrong), Err(StateError::InvalidSnapshot { .. })), "{what}");
    }

    #[test]
    fn a_stream_that_is_whole_but_wrong_is_refused() {
        let mut pins = [pinset::pin(1), pinset::pin(2)];
        pins.sort_by_key(|pin| order_key(&pin.cid));
        let [low, high] = &pins;
        check(without_tails(&[low, high], &[low, high])).unwrap();
        for wrong in [
            without_tails(&[low], &[low, high]),
            without_tails(&[low, high], &[low]),
            without_tails(&[high, low], &[low, high]),
            without_tails(&[low, low], &[low, low]),
        ] {
            assert_refused(wrong, "pins");
        }
        let unknown = [(CHANGE, &b""[..]), (77, b"")];
        for (kind, bytes) in
            [(SHARD, &[0; 5][..]), (PIN, b"no pin"), (OUTCOME, b"short"), (TAIL, b"")].iter().chain(&unknown)
        {
            let mut wrong = without_tails(&[low], &[low]);
            wrong.record(*kind, &[bytes]).unwrap();
            assert_refused(wrong, &format!("kind {kind}"));
        }
    }

    #[test]
    fn tails_are_as_long_as_their_shards_say_and_where_they_belong() {
        let pin = pinset::pin(1);
        let (other, shard) = (pinset::pin(2), shard_of(&pin.cid));
        let meta = ShardMeta { previous: 10, epoch: 20, since_epoch: 1, since_previous: 3 };
        let at = |index, place| {
            let before = Some(encode_pin(&pin).into());
            (shard, TailPlace { index, place }, TailEntry { index, cid: pin.cid, before })
        };
        let with = |tails: &[Tail]| stream(&[&pin], &[&pin], meta, tails);
        check(with(&[at(11, 0), at(20, 0), at(21, 0)])).unwrap();
        let mut elsewhere = at(20, 0);
        elsewhere.0 += 1;
        let mut of_another = at(20, 0);
        of_another.2.before = Some(encode_pin(&other).into());
        let mut misplaced = at(20, 0);
        misplaced.1.index = 19;
        for (wrong, what) in [
            (with(&[at(11, 0), at(21, 0)]), "too short"),
            (with(&[at(11, 0), at(12, 0), at(20, 0), at(21, 0)]), "too long"),
            (with(&[at(10, 0), at(20, 0), at(21, 0)]), "dropped before"),
            (with(&[at(11, 0), at(20, 0), at(20, 1)]), "nothing after the epoch"),
            (with(&[at(20, 0), at(11, 0), at(21, 0)]), "out of order"),
            (with(&[at(11, 0), elsewhere, at(21, 0)]), "another shard"),
            (with(&[at(11, 0), of_another, at(21, 0)]), "another record"),
            (with(&[at(11, 0), misplaced, at(21, 0)]), "another index"),
            (with(&[]), "missing"),
        ] {
            assert_refused(wrong, what);
        }
    }

    #[test]
    fn merges_are_in_order_and_readable() {
        let mut cids = [pinset::pin(1), pinset::pin(2)].map(|pin| pin.cid);
        cids.sort_by_key(order_key);
        let at = MergedAt { index: 3, time: Timestamp::from_unix_seconds(9) };
        let write = |cid| {
            let write = Write::by(pinset::peer(1), at.time, cid, None, Sight::of_state(1, None));
            Eventual::new(write.pin(Pin { cid, ..pinset::pin(1) })).unwrap()
        };
        let history = |cid| merge(None, None, &write(cid), Place::entry(3, at.time, 0)).history.encode();
        let of = |key: &[u8], history: &[u8]| [&[0, u8::try_from(key.len()).unwrap()], key, history].concat();
        let [low, high] = cids.map(|cid| of(&order_key(&cid), &history(cid)));
        let merged = |id: u8| [&[id; 32][..], &codec::encode_merged_at(&at)].concat();
        let with = |records: &[(u8, &[u8])]| {
            let mut encoder = without_tails(&[], &[]);
            for (kind, bytes) in records {
                encoder.record(*kind, &[bytes]).unwrap();
            }
            encoder
        };
        let [one, other] = [1, 2].map(merged);
        check(with(&[(HISTORY, &low), (HISTORY, &high), (MERGED, &one), (MERGED, &other)])).unwrap();
        let mut elsewhere = order_key(&cids[0]);
        elsewhere[1] ^= 1;
        for (wrong, what) in [
            (with(&[(HISTORY, &high), (HISTORY, &low)]), "histories out of order"),
            (with(&[(HISTORY, &low), (HISTORY, &low)]), "a history twice"),
            (with(&[(MERGED, &other), (MERGED, &one)]), "merged writes out of order"),
            (with(&[(MERGED, &one), (HISTORY, &low)]), "kinds out of order"),
            (with(&[(HISTORY, &of(&elsewhere, &history(cids[0])))]), "another shard"),
            (with(&[(HISTORY, &of(&order_key(&cids[0]), b"none"))]), "no history"),
            (with(&[(HISTORY, &low[..20])]), "cut in its key"),
            (with(&[(HISTORY, &[0])]), "cut in its length"),
            (with(&[(MERGED, &one[..31])]), "cut in its name"),
            (with(&[(MERGED, &one[..32])]), "no index"),
        ] {
            assert_refused(wrong, what);
        }
    }
}
