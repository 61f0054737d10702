//! Who repairs and expires: the leader, or, on a side of a cut without a quorum, the closest peer of each pin.
//!
//! Pure but for the watching. Without a quorum a pin is looked after by the closest of the voters that are heard; only
//! where the old leader is among them, it is its work, because those that hear it still follow it. So every pin has
//! exactly one peer among those who see the same. Views may differ for a while; then several do the same work, and the
//! rules of [`crate::crdt::merge`] make one result of it.
//!
//! **Invariant:** without a quorum nobody acts before it has been missing for the grace period, and never where writes
//! without one are refused.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use cluster_types::{Cid, PeerId, Role};

use crate::consensus::{Consensus, Position};
use crate::watch;

/// What this peer goes by when it finds out what it has to look after.
#[derive(Clone)]
pub struct Outlook {
    /// This peer.
    pub peer: PeerId,
    /// The members whose ping has expired.
    pub suspects: watch::Receiver<BTreeSet<PeerId>>,
    /// How long the quorum must have been missing before members act without it.
    pub grace: Duration,
}

impl fmt::Debug for Outlook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlook").field("peer", &self.peer).field("grace", &self.grace).finish_non_exhaustive()
    }
}

impl Outlook {
    /// What this peer has to look after now; `None`: nothing.
    pub(super) fn duty(&self, consensus: &dyn Consensus, position: &watch::Receiver<Position>) -> Option<Duty> {
        // Asked before anything is locked: it looks at the position itself.
        let alone = consensus.alone_for();
        duty(self.peer, &position.borrow(), alone, &self.suspects.borrow(), self.grace)
    }
}

/// The pins that a peer looks after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// All: it leads.
    All,
    /// Those that it is the closest to, of the peers that share the work without a quorum.
    Closest {
        /// This peer.
        peer: PeerId,
        /// Who shares the work, this peer among them.
        among: BTreeSet<PeerId>,
    },
}

impl Duty {
    pub(super) fn covers(&self, cid: &Cid) -> bool {
        match self {
            Self::All => true,
            Self::Closest { peer, among } => closest(cid, among) == Some(*peer),
        }
    }
}

/// Decides what `peer` looks after when writes without a quorum have been accepted for `alone`, if they are.
fn duty(
    peer: PeerId,
    position: &Position,
    alone: Option<Duration>,
    suspects: &BTreeSet<PeerId>,
    grace: Duration,
) -> Option<Duty> {
    let Some(alone) = alone else { return (position.role == Role::Leader).then_some(Duty::All) };
    if alone < grace {
        return None;
    }
    if position.role == Role::Leader {
        // Whoever hears it takes it for the leader that it was, and rests.
        return Some(Duty::Closest { peer, among: BTreeSet::from([peer]) });
    }
    let voters = position.members.iter().filter(|member| member.voter).map(|member| member.peer);
    let among: BTreeSet<PeerId> = voters.filter(|voter| *voter == peer || !suspects.contains(voter)).collect();
    among.contains(&peer).then_some(Duty::Closest { peer, among })
}

/// The peer that is the closest to a pin: by the XOR of their hashes, so that every pin has another order of peers.
fn closest(cid: &Cid, peers: &BTreeSet<PeerId>) -> Option<PeerId> {
    let place = blake3::hash(&cid.to_bytes());
    peers.iter().copied().min_by_key(|peer| distance(place.as_bytes(), blake3::hash(&peer.to_bytes()).as_bytes()))
}

fn distance(one: &[u8; 32], other: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|at| one[at] ^ other[at])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::consensus::Member;
    use crate::tracker::fakes::cid;

    const GRACE: Duration = Duration::from_secs(60);

    /// Where a peer is in a cluster of these voters and learners.
    fn position(role: Role, voters: &[PeerId], learners: &[PeerId]) -> Position {
        let member = |voter| move |peer: &PeerId| Member { peer: *peer, node_id: 1, voter, addresses: Vec::new() };
        let members = voters.iter().map(member(true)).chain(learners.iter().map(member(false))).collect();
        Position { role, members, ..Position::default() }
    }

    proptest! {
        #[test]
        fn every_pin_has_exactly_one_peer_per_view(
            (voters, learners) in (1usize..8, 0usize..4),
            silent in 0usize..8,
            number in any::<u32>(),
        ) {
            let [voters, learners] = [voters, learners].map(|count| Vec::from_iter((0..count).map(|_| PeerId::random())));
            let suspects: BTreeSet<PeerId> = voters.iter().take(silent.min(voters.len() - 1)).copied().collect();
            let looks_after = |peer: &PeerId, role| {
                let position = position(role, &voters, &learners);
                duty(*peer, &position, Some(GRACE), &suspects, GRACE).is_some_and(|duty| duty.covers(&cid(number)))
            };
            let heard = voters.iter().filter(|peer| !suspects.contains(peer));
            prop_assert_eq!(heard.filter(|peer| looks_after(peer, Role::Voter)).count(), 1);
            prop_assert!(!learners.iter().any(|peer| looks_after(peer, Role::Learner)));
            prop_assert!(looks_after(&voters[0], Role::Leader), "those that it hears follow it");
        }
    }

    #[test]
    fn the_pins_are_shared_out() {
        let peers: BTreeSet<PeerId> = (0..4).map(|_| PeerId::random()).collect();
        for peer in &peers {
            let share = (0..400).filter(|number| closest(&cid(*number), &peers) == Some(*peer)).count();
            assert!(share > 0, "{peers:?}");
        }
    }

    #[test]
    fn nobody_acts_alone_before_the_quorum_was_missing_for_the_grace_period() {
        let [one, other] = [(); 2].map(|()| PeerId::random());
        let none = BTreeSet::new();
        for (role, among) in [(Role::Leader, BTreeSet::from([one])), (Role::Voter, BTreeSet::from([one, other]))] {
            let position = position(role, &[one, other], &[]);
            let ask = |alone| duty(one, &position, alone, &none, GRACE);
            assert_eq!(ask(Some(GRACE / 2)), None);
            assert_eq!(ask(Some(GRACE)), Some(Duty::Closest { peer: one, among }));
            assert_eq!(ask(None), (role == Role::Leader).then_some(Duty::All));
        }
    }
}
