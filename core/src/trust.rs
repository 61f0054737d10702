//! Whose word counts: `consensus.crdt.trusted_peers`.
//!
//! A follower takes the word of those it trusts. A member lets only those in that it trusts, joins only their clusters,
//! and lets only them see and order what its own node does. What it does not do is take part in the ordering by trust:
//! raft counts members, and a member that listened to some of them only would split what they agree on.

use std::collections::{BTreeMap, BTreeSet};

use cluster_types::{ErrorClass, PeerId, Timestamp, WireError};

/// How a refusal for lack of trust begins: whoever asked many peers leaves out those that say so.
const REFUSAL: &str = "not trusted: ";

/// Whose word counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Everyone who knows the secret.
    Everyone,
    /// These.
    Only(BTreeSet<PeerId>),
}

impl Trust {
    /// Whether a peer's word counts.
    pub fn includes(&self, peer: &PeerId) -> bool {
        match self {
            Self::Everyone => true,
            Self::Only(peers) => peers.contains(peer),
        }
    }
}

/// To which members pins are given, beside what each pin asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Holders {
    /// To all.
    #[default]
    All,
    /// To those that the peer which allocates trusts (`pin_only_on_trusted_peers`).
    Trusted,
    /// To those that it does not trust (`pin_only_on_untrusted_peers`).
    Untrusted,
}

impl Holders {
    /// Whether a member may be given pins.
    pub fn include(self, is_trusted: bool) -> bool {
        match self {
            Self::All => true,
            Self::Trusted => is_trusted,
            Self::Untrusted => !is_trusted,
        }
    }
}

/// What a peer answers to one that it does not trust.
pub fn refusal(to: &PeerId) -> WireError {
    let what = format!(
        "{REFUSAL}peer {to} is not in consensus.crdt.trusted_peers of the peer that it asked; whoever runs that cluster \
         has to name it there, on all of its peers"
    );
    WireError::new(ErrorClass::Invalid, what)
}

/// Whether a peer answered that it does not trust this one.
pub fn is_refusal(error: &WireError) -> bool {
    error.class == ErrorClass::Invalid && error.message.starts_with(REFUSAL)
}

/// Notes in `known` which members are not trusted, and since when that is known. Gives those that are new.
pub(crate) fn note_untrusted(
    known: &mut BTreeMap<PeerId, Timestamp>,
    members: impl IntoIterator<Item = PeerId>,
    is_trusted: impl Fn(&PeerId) -> bool,
    now: Timestamp,
) -> Vec<PeerId> {
    let untrusted: BTreeSet<PeerId> = members.into_iter().filter(|peer| !is_trusted(peer)).collect();
    known.retain(|peer, _| untrusted.contains(peer));
    let new: Vec<PeerId> = untrusted.into_iter().filter(|peer| !known.contains_key(peer)).collect();
    known.extend(new.iter().map(|peer| (*peer, now)));
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_trusts_nobody() {
        let [friend, stranger] = [PeerId::random(), PeerId::random()];
        assert!(Trust::Everyone.includes(&stranger));
        assert!(!Trust::Only(BTreeSet::new()).includes(&friend));
        let list = Trust::Only([friend].into());
        assert!(list.includes(&friend) && !list.includes(&stranger));
    }

    #[test]
    fn pins_are_given_to_those_the_rule_names() {
        let given = |holders: Holders| [true, false].map(|is_trusted| holders.include(is_trusted));
        assert_eq!(given(Holders::All), [true, true]);
        assert_eq!(given(Holders::Trusted), [true, false]);
        assert_eq!(given(Holders::Untrusted), [false, true]);
    }

    #[test]
    fn a_refusal_for_lack_of_trust_is_told_from_others() {
        let refused = refusal(&PeerId::random());
        assert!(is_refusal(&refused));
        assert!(!is_refusal(&WireError::new(ErrorClass::Invalid, "something else")));
        assert!(!is_refusal(&WireError::new(ErrorClass::Unavailable, refused.message)));
    }

    #[test]
    fn a_member_that_is_not_trusted_is_new_once_and_forgotten_when_it_goes() {
        let [friend, other] = [PeerId::random(), PeerId::random()];
        let mut known = BTreeMap::new();
        let at = |seconds: i64| Timestamp::from_unix_nanos(i128::from(seconds) * 1_000_000_000);
        let mut note = |members: &[PeerId], now| {
            let new = note_untrusted(&mut known, members.iter().copied(), |peer| *peer == friend, now);
            (new, known.clone())
        };
        assert_eq!(note(&[friend, other], at(1)), (vec![other], [(other, at(1))].into()));
        assert_eq!(note(&[friend, other], at(2)), (vec![], [(other, at(1))].into()), "since it was first seen");
        assert_eq!(note(&[friend], at(3)), (vec![], BTreeMap::new()));
        assert_eq!(note(&[other], at(4)).0, [other]);
    }
}
