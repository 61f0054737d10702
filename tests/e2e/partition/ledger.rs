//! What writers know of the CIDs that only they touch: every wish that may stand, judged in the end.

use std::collections::BTreeMap;

use cluster_core::testing::linear::Told;
use cluster_tests::process::ProcessCluster;
use cluster_types::{Event, PeerId, Pin};

use super::contest::{Contest, Cut, Deeds};
use crate::client::inline_cid;

/// What somebody wants of a CID: pinned with the options of this serial number, or not pinned.
pub(super) type Wish = Option<u64>;

/// The options that go with a serial number, so that a pin with the options of another one is found.
pub(super) fn query(serial: u64) -> String {
    let (min, max) = replication(serial);
    format!("name={serial}&meta-serial={serial}&replication-min={min}&replication-max={max}")
}

fn replication(serial: u64) -> (i32, i32) {
    [(-1, -1), (1, 2), (1, 3)][usize::try_from(serial % 3).expect("below three")]
}

/// The wish that a pin fulfils.
fn wish_of(pin: &Pin) -> Wish {
    let options = &pin.options;
    let serial: u64 = options.name.parse().unwrap();
    let found = (options.replication_factor_min, options.replication_factor_max);
    assert_eq!(found, replication(serial), "half a pin: {pin:?}");
    assert_eq!(options.metadata.get("serial"), Some(&serial.to_string()), "half a pin: {pin:?}");
    Some(serial)
}

/// For each CID, by its number, the wishes that may stand: one, unless an answer was lost.
#[derive(Debug, Default)]
pub(super) struct Ledger(BTreeMap<u64, Vec<Wish>>);

impl Ledger {
    /// Takes down what became of a wish; `false` if that is not known for certain. Panics if the answer cannot be: the
    /// writer always asks the same peer, which must remember what it has acknowledged, in the log or not.
    pub(super) fn note(&mut self, number: u64, wish: Wish, told: Told) -> bool {
        let possible = self.0.entry(number).or_insert_with(|| vec![None]);
        match told {
            Told::Pinned => *possible = vec![wish],
            Told::Unpinned(seen) => {
                assert!(possible.contains(&Some(seen)), "CID {number} held {seen}, but can only be {possible:?}");
                *possible = vec![None];
            }
            Told::Nothing => {
                assert!(possible.contains(&None), "CID {number} is gone, but can only be {possible:?}");
                *possible = vec![None];
            }
            Told::Unknown => possible.push(wish),
            Told::Refused | Told::Found(_) => {}
        }
        told != Told::Unknown
    }

    /// Checks what a peer lists and what it tells: each CID is as one of its possible wishes says, and no wish for it
    /// lost, since each has seen those before it. One that was never answered may have been accepted without a quorum,
    /// and lost to nobody either.
    fn judge(&self, peer: usize, pins: &BTreeMap<String, Pin>, lost: &BTreeMap<String, Vec<Event>>) {
        for (number, possible) in &self.0 {
            let cid = inline_cid(*number).to_string();
            let found = pins.get(&cid).and_then(wish_of);
            assert!(
                possible.contains(&found),
                "CID {number} ({cid}) on peer {peer} is {found:?}, but can only be {possible:?}"
            );
            let told = lost.get(&cid).and_then(|events| events.first());
            assert!(told.is_none(), "CID {number}: only one client wrote, but: {}", told.expect("some").message);
        }
    }
}

/// Checks what every peer lists against what the writers know, and what was told as lost against both.
pub(super) async fn judge(
    cluster: &ProcessCluster,
    ledgers: &[&Ledger],
    (deeds, cut): (&Deeds, &Cut),
    lost: &BTreeMap<String, Vec<Event>>,
) {
    let ids: Vec<PeerId> = cluster.peers.iter().map(|peer| peer.id().parse().unwrap()).collect();
    for peer in 0..cluster.peers.len() {
        let pins = cluster.pins(peer).await.unwrap();
        for ledger in ledgers {
            ledger.judge(peer, &pins, lost);
        }
        for (number, deeds) in deeds {
            let cid = inline_cid(*number).to_string();
            let found = pins.get(&cid).and_then(wish_of);
            let events = lost.get(&cid).map(Vec::as_slice).unwrap_or_default();
            let contest = Contest { deeds, events, cut, ids: &ids };
            if let Err(why) = contest.judge(found) {
                panic!("CID {number} ({cid}) on peer {peer} is {found:?}: {why}\n{contest}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(number: u64, serial: u64) -> BTreeMap<String, Pin> {
        let mut pin = Pin::new(inline_cid(number), cluster_types::PinOptions::default());
        (pin.options.replication_factor_min, pin.options.replication_factor_max) = replication(serial);
        pin.options.name = serial.to_string();
        pin.options.metadata.insert("serial".to_owned(), serial.to_string());
        BTreeMap::from([(pin.cid.to_string(), pin)])
    }

    #[test]
    fn a_pin_that_was_acknowledged_or_never_answered_may_stand() {
        let mut ledger = Ledger::default();
        assert!(ledger.note(1, Some(4), Told::Pinned));
        assert!(!ledger.note(1, Some(5), Told::Unknown));
        ledger.judge(0, &listed(1, 4), &BTreeMap::new());
        ledger.judge(0, &listed(1, 5), &BTreeMap::new());
    }

    #[test]
    #[should_panic(expected = "is None, but can only be [Some(4)]")]
    fn an_acknowledged_pin_must_be_there() {
        let mut ledger = Ledger::default();
        ledger.note(1, Some(4), Told::Pinned);
        ledger.note(1, Some(5), Told::Refused);
        ledger.judge(0, &BTreeMap::new(), &BTreeMap::new());
    }

    #[test]
    #[should_panic(expected = "is Some(4), but can only be [None]")]
    fn an_acknowledged_unpin_must_have_removed_it() {
        let mut ledger = Ledger::default();
        ledger.note(1, Some(4), Told::Pinned);
        ledger.note(1, None, Told::Unpinned(4));
        ledger.judge(0, &listed(1, 4), &BTreeMap::new());
    }

    #[test]
    #[should_panic(expected = "half a pin")]
    fn a_pin_with_the_options_of_another_is_found() {
        let mut pins = listed(1, 4);
        pins.values_mut().for_each(|pin| pin.options.replication_factor_max = -1);
        let mut ledger = Ledger::default();
        ledger.note(1, Some(4), Told::Pinned);
        ledger.judge(0, &pins, &BTreeMap::new());
    }
}
