//! Whom to let vote. Pure: the leader says what it knows of the members, and hears which set of voters it should have.
//!
//! The number of voters is odd: an even one needs more votes without surviving more losses. A voter that is silent keeps
//! its seat for a grace period, because whoever takes it over costs a change of the membership and a copy of the log.
//!
//! **Invariant:** the leader keeps its seat, and a change is asked for only when most of the voters before it and most
//! of those after it were heard lately: anything else could not be agreed on, or would stop the cluster.
//! **Invariant:** what is asked for once is not asked for again after it is done, unless somebody came, went or moved.

use std::collections::{BTreeMap, BTreeSet};

use super::types::NodeId;

/// How a member is, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// It answered lately.
    Heard,
    /// It does not answer, but may come back.
    Silent,
    /// It has not answered for the whole grace period.
    Gone,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) id: NodeId,
    pub(super) voter: bool,
    pub(super) presence: Presence,
    /// Whether it has nearly all of the log.
    pub(super) caught_up: bool,
    /// Where it stands, if it says so.
    pub(super) region: Option<String>,
}

impl Seat {
    /// Whether it may have a seat for its own sake.
    fn is_eligible(&self) -> bool {
        if self.voter { self.presence != Presence::Gone } else { self.is_heard() && self.caught_up }
    }

    fn is_heard(&self) -> bool {
        self.presence == Presence::Heard
    }
}

/// What is to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Everyone who shall vote.
    pub(super) voters: BTreeSet<NodeId>,
    /// Whether it only spreads the voters better: that has time, and is worth doing only if it still holds later.
    pub(super) only_spread: bool,
}

/// The voters there should be, if others than now. At most `max` vote.
pub(super) fn next_voters(seats: &[Seat], leader: NodeId, max: usize) -> Option<Change> {
    let now: BTreeSet<NodeId> = seats.iter().filter(|seat| seat.voter).map(|seat| seat.id).collect();
    if !now.contains(&leader) || !is_quorum_heard(seats, &now) {
        return None;
    }
    let number = best_number(seats, now.len(), max)?;
    // Who is about to take a place leaves nobody less in the meantime.
    let catching_up = seats.iter().any(|seat| !seat.voter && seat.is_heard() && !seat.caught_up);
    if number < now.len() && now.len() <= max && catching_up {
        return None;
    }
    let voters = choose(seats, leader, number);
    if voters == now || !is_quorum_heard(seats, &voters) {
        return None;
    }
    let rids_of_gone =
        seats.iter().any(|seat| seat.voter && seat.presence == Presence::Gone && !voters.contains(&seat.id));
    let only_spread = voters.len() == now.len() && !rids_of_gone;
    Some(Change { voters, only_spread })
}

/// How many should vote: as many as leave most losses to be survived; of those, as many as are there. Seats of the gone
/// are kept only where giving them up would not help.
fn best_number(seats: &[Seat], now: usize, max: usize) -> Option<usize> {
    let eligible = seats.iter().filter(|seat| seat.is_eligible()).count();
    let gone = seats.iter().filter(|seat| seat.voter && !seat.is_eligible()).count();
    let possible = |number: &usize| *number <= eligible || (*number <= now && *number <= eligible + gone);
    let losses = |number: usize| number.min(eligible).checked_sub(number / 2 + 1);
    (1..=max.max(1))
        .step_by(2)
        .filter(possible)
        .filter_map(|number| losses(number).map(|losses| (losses, number.min(eligible), number)))
        .max()
        .map(|(_losses, _present, number)| number)
}

/// Gives the seats one by one: the leader's first, then always to who is best for the next one.
fn choose(seats: &[Seat], leader: NodeId, number: usize) -> BTreeSet<NodeId> {
    let mut chosen = BTreeSet::new();
    let mut covered: BTreeMap<&str, usize> = BTreeMap::new();
    let mut left: Vec<&Seat> = seats.iter().filter(|seat| seat.voter || seat.is_eligible()).collect();
    while chosen.len() < number {
        let in_region =
            |seat: &Seat| seat.region.as_deref().map_or(0, |region| covered.get(region).copied().unwrap_or(0));
        let opens_region = |seat: &Seat| seat.region.is_some() && in_region(seat) == 0;
        let rank = |seat: &Seat| {
            let gone = seat.presence == Presence::Gone;
            (seat.id != leader, gone, !opens_region(seat), !seat.voter, !seat.is_heard(), in_region(seat), seat.id)
        };
        let Some(place) = (0..left.len()).min_by_key(|place| rank(left[*place])) else { break };
        let seat = left.swap_remove(place);
        if let Some(region) = seat.region.as_deref() {
            *covered.entry(region).or_default() += 1;
        }
        chosen.insert(seat.id);
    }
    chosen
}

/// Whether most of `voters` were heard lately.
fn is_quorum_heard(seats: &[Seat], voters: &BTreeSet<NodeId>) -> bool {
    let heard = seats.iter().filter(|seat| voters.contains(&seat.id) && seat.is_heard()).count();
    heard > voters.len() / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `L` leader, `v` voter, `s` silent voter, `g` gone voter, `r` ready learner, `c` learner catching up, `a` absent
    /// learner; a letter after a slash is the region.
    fn seats(text: &str) -> Vec<Seat> {
        let seat = |(id, word): (usize, &str)| {
            let (kind, region) = word.split_once('/').map_or((word, None), |(kind, region)| (kind, Some(region)));
            let presence = match kind {
                "s" => Presence::Silent,
                "g" | "a" => Presence::Gone,
                _ => Presence::Heard,
            };
            Seat {
                id: id as u64 + 1,
                voter: matches!(kind, "L" | "v" | "s" | "g"),
                presence,
                caught_up: kind != "c",
                region: region.map(str::to_owned),
            }
        };
        text.split_whitespace().enumerate().map(seat).collect()
    }

    fn next(text: &str, max: usize) -> Option<Vec<NodeId>> {
        next_voters(&seats(text), 1, max).map(|change| change.voters.into_iter().collect())
    }

    #[test]
    fn the_number_of_voters_is_odd_and_bounded() {
        for (members, max, expected) in [
            ("L", 5, None),
            ("L r", 5, None),
            ("L r r", 5, Some(vec![1, 2, 3])),
            ("L v r", 5, Some(vec![1, 2, 3])),
            ("L v v r", 5, None),
            ("L v v r r r", 5, Some(vec![1, 2, 3, 4, 5])),
            ("L v v r r r", 3, None),
            ("L v v r r r", 4, None),
            ("L v v v v r r", 7, Some(vec![1, 2, 3, 4, 5, 6, 7])),
            ("L v", 5, Some(vec![1])),
            ("L v v v", 5, Some(vec![1, 2, 3])),
            ("L v v v v", 3, Some(vec![1, 2, 3])),
            ("L r r", 0, None),
        ] {
            assert_eq!(next(members, max), expected, "{members} of {max}");
        }
    }

    #[test]
    fn a_voter_that_is_gone_is_replaced_and_a_silent_one_is_not() {
        for (members, expected) in [
            ("L v g r", Some(vec![1, 2, 4])),
            ("L v s r", None),
            ("L v g r r", Some(vec![1, 2, 4])),
            ("L v g a", None),
            ("L v g c", None),
            ("L v g", None),
            ("L v v v g r", Some(vec![1, 2, 3, 4, 6])),
            ("L v v v g", None),
            // Of five, two are gone and a third loss would stop everything; of three, one may go.
            ("L v v g g", Some(vec![1, 2, 3])),
            ("L v v g g r", Some(vec![1, 2, 3, 4, 6])),
            ("L v v g g r r", Some(vec![1, 2, 3, 6, 7])),
            // Without a quorum nothing can be changed.
            ("L g g r r", None),
            ("L g r", None),
            ("L s r r", None),
        ] {
            assert_eq!(next(members, 5), expected, "{members}");
        }
    }

    #[test]
    fn the_absent_are_demoted_first_and_nobody_while_a_successor_catches_up() {
        assert_eq!(next("L s v v", 5), Some(vec![1, 3, 4]));
        assert_eq!(next("L g v v", 5), Some(vec![1, 3, 4]));
        assert_eq!(next("L v v v c", 5), None);
    }

    #[test]
    fn voters_stand_in_as_many_regions_as_they_can() {
        for (members, expected, only_spread) in [
            ("L/a v/a v/a r/b", Some(vec![1, 2, 4]), true),
            ("L/a v/a v/a r/b r/c", Some(vec![1, 2, 3, 4, 5]), false),
            ("L/a v/b v/c r/d r/d", Some(vec![1, 2, 3, 4, 5]), false),
            ("L/a v/a v/b r/b", None, false),
            ("L/a v/b v/c r/d", None, false),
            ("L/a v/a v/a r", None, false),
            ("L v v r/b", Some(vec![1, 2, 4]), true),
            ("L/a v/a g/b r/a r/b", Some(vec![1, 2, 5]), false),
            ("L/a v/a v/b v/c", Some(vec![1, 3, 4]), false),
        ] {
            let found = next_voters(&seats(members), 1, 5);
            assert_eq!(found.as_ref().map(|change| change.voters.iter().copied().collect()), expected, "{members}");
            assert_eq!(found.is_some_and(|change| change.only_spread), only_spread, "{members}");
        }
        assert_eq!(next("L/a v/a v/a r/b r/c", 3), Some(vec![1, 4, 5]));
    }

    fn any_seat() -> impl Strategy<Value = Seat> {
        let presence = prop_oneof![4 => Just(Presence::Heard), 1 => Just(Presence::Silent), 1 => Just(Presence::Gone)];
        let region = prop_oneof![1 => Just(None), 3 => "[a-e]".prop_map(Some)];
        (any::<bool>(), presence, any::<bool>(), region).prop_map(|(voter, presence, caught_up, region)| Seat {
            id: 0,
            voter,
            presence,
            caught_up,
            region,
        })
    }

    fn any_members() -> impl Strategy<Value = Vec<Seat>> {
        prop::collection::vec(any_seat(), 1..12).prop_map(|mut seats| {
            for (place, seat) in seats.iter_mut().enumerate() {
                seat.id = place as u64 + 1;
            }
            seats[0] = Seat { voter: true, presence: Presence::Heard, ..seats[0].clone() };
            seats
        })
    }

    fn voters_of(seats: &[Seat]) -> BTreeSet<NodeId> {
        seats.iter().filter(|seat| seat.voter).map(|seat| seat.id).collect()
    }

    /// What the change does to the members; whoever loses the vote is a learner as it was a voter.
    fn done(seats: &[Seat], change: &Change) -> Vec<Seat> {
        let seat = |seat: &Seat| Seat {
            voter: change.voters.contains(&seat.id),
            caught_up: seat.caught_up || seat.voter,
            ..seat.clone()
        };
        seats.iter().map(seat).collect()
    }

    fn regions(seats: &[Seat], of: &BTreeSet<NodeId>) -> usize {
        let regions = seats.iter().filter(|seat| of.contains(&seat.id)).filter_map(|seat| seat.region.as_deref());
        regions.collect::<BTreeSet<_>>().len()
    }

    /// How many of those that may vote can be lost before there is no quorum; `None`: there is none already.
    fn losses(seats: &[Seat], of: &BTreeSet<NodeId>) -> Option<usize> {
        let here = seats.iter().filter(|seat| of.contains(&seat.id) && seat.is_eligible()).count();
        here.checked_sub(of.len() / 2 + 1)
    }

    /// The most regions that the leader and `number - 1` of the others can cover, found by trying all.
    fn most_regions(seats: &[Seat], number: usize) -> usize {
        let others: Vec<&Seat> = seats.iter().skip(1).filter(|seat| seat.is_eligible()).collect();
        let subsets = 0u32..1 << others.len();
        let chosen = |bits: u32| {
            let others = others.iter().enumerate().filter(move |(place, _)| bits >> place & 1 == 1);
            others.map(|(_, seat)| seat.id).chain([1]).collect::<BTreeSet<_>>()
        };
        subsets
            .filter(|bits| bits.count_ones() as usize == number - 1)
            .map(|bits| regions(seats, &chosen(bits)))
            .max()
            .unwrap_or(0)
    }

    proptest! {
        #[test]
        fn changes_are_safe_useful_and_come_to_an_end(members in any_members(), max in 0usize..9) {
            let mut seats = members;
            for round in 0.. {
                let before = voters_of(&seats);
                let Some(change) = next_voters(&seats, 1, max) else { break };
                prop_assert!(round < 2, "{seats:?} never comes to rest: {change:?}");
                let after = &change.voters;
                prop_assert!(after.len() % 2 == 1 && after.len() <= max.max(1), "{change:?}");
                prop_assert!(after.contains(&1), "the leader was demoted");
                for id in after.difference(&before) {
                    let seat = &seats[usize::try_from(id - 1).unwrap()];
                    prop_assert!(seat.is_heard() && seat.caught_up, "{seat:?} was promoted");
                }
                for set in [&before, after] {
                    prop_assert!(is_quorum_heard(&seats, set), "{set:?} of {seats:?} cannot agree");
                }
                if before.len() <= max {
                    prop_assert!(losses(&seats, after) >= losses(&seats, &before), "{seats:?}: {change:?}");
                }
                let spare = seats.iter().any(|seat| seat.is_eligible() && !after.contains(&seat.id));
                let gone = seats.iter().any(|seat| seat.presence == Presence::Gone && after.contains(&seat.id));
                prop_assert!(!(spare && gone), "{seats:?}: {change:?}");
                if !gone {
                    prop_assert_eq!(regions(&seats, after), most_regions(&seats, after.len()));
                }
                seats = done(&seats, &change);
            }
        }
    }
}
