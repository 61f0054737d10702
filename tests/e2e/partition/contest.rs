//! What writers on all peers wished of the same CIDs, around one cut, and whether what came of it is what `docs/merge.md`
//! says: judged by who can have seen what, not by how peers merge.
//!
//! **Rule:** an acknowledged wish stands, or somebody who may have seen it wished something else since, or the event log
//! tells that it lost.
//! **Rule:** what stands was wished, and nobody who must have seen it wished something else since.
//! **Rule:** a wish is told as lost at most once, never against somebody who must have seen it, and only if it was made.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use cluster_core::ports::{Clock, SystemClock};
use cluster_core::testing::linear::Told;
use cluster_types::{Event, EventAuthor, EventParty, PeerId, Timestamp};

use super::PEERS;
use super::ledger::Wish;
use crate::client::Commit;

/// One wish of somebody, and what came of it as far as that client heard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deed {
    pub(super) peer: usize,
    pub(super) wish: Wish,
    pub(super) told: Told,
    pub(super) commit: Option<Commit>,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

impl Deed {
    fn is_acknowledged(&self) -> bool {
        matches!(self.told, Told::Pinned | Told::Unpinned(_))
    }

    /// Whether it may have changed anything.
    fn may_count(&self) -> bool {
        self.is_acknowledged() || self.told == Told::Unknown
    }

    /// Whether one side of an event can be this deed.
    fn is_party(&self, party: &EventParty, ids: &[PeerId]) -> bool {
        let by = match party.author {
            // What was acknowledged as eventual may be in the log as well, by a leader that did not answer in time.
            EventAuthor::Log => true,
            EventAuthor::Peer(author) => self.commit != Some(Commit::Log) && author == ids[self.peer],
        };
        let same = match (&party.pin, self.wish) {
            (Some(pin), Some(serial)) => pin.options.name == serial.to_string(),
            // The log does not say when somebody unpinned. Other times are of whole seconds at least.
            (None, None) if party.wish == "unpin" => {
                let at = party.time.unix_seconds();
                let within = self.from.unix_seconds() <= at && at <= self.to.unix_seconds();
                within || party.time.is_zero()
            }
            _ => false,
        };
        by && same
    }
}

/// A cut, from when it was complete until it began to heal.
#[derive(Clone, Debug, Default)]
pub(super) struct Cut {
    pub(super) sides: Vec<Vec<usize>>,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

impl Cut {
    /// Whether a peer is cut off from the majority at some time, and still is.
    pub(super) fn is_minority(&self, peer: usize, at: Timestamp) -> bool {
        let small = self.sides.iter().any(|side| side.len() <= PEERS / 2 && side.contains(&peer));
        small && self.from <= at && self.to > SystemClock.now()
    }

    /// Whether two deeds were done on different sides of it.
    fn parts(&self, one: &Deed, other: &Deed) -> bool {
        let within = |deed: &Deed| self.from <= deed.from && deed.to <= self.to;
        let side = |deed: &Deed| self.sides.iter().position(|side| side.contains(&deed.peer));
        within(one) && within(other) && side(one) != side(other)
    }

    /// Whether `late` can have seen `early`.
    fn may_have_seen(&self, late: &Deed, early: &Deed) -> bool {
        late.to >= early.from && !self.parts(late, early)
    }
}

/// Whether `late` cannot but have seen `early`: that peer had acknowledged it before, or gave it back now.
fn must_have_seen(late: &Deed, early: &Deed) -> bool {
    let gave_back = matches!((late.told, early.wish), (Told::Unpinned(seen), Some(serial)) if seen == serial);
    let knew = late.peer == early.peer && early.is_acknowledged() && late.from >= early.to;
    late.is_acknowledged() && (gave_back || knew)
}

/// One CID that everybody wanted: all deeds on it, and all events about it.
pub(super) struct Contest<'a> {
    pub(super) deeds: &'a [Deed],
    pub(super) events: &'a [Event],
    pub(super) cut: &'a Cut,
    /// The peers' ids, by number.
    pub(super) ids: &'a [PeerId],
}

impl fmt::Display for Contest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}", self.cut)?;
        self.deeds.iter().filter(|deed| deed.may_count()).try_for_each(|deed| writeln!(f, "{deed:?}"))?;
        for Event { index, message, winner, loser, .. } in self.events {
            let [winner, loser] = [winner, loser].map(|party| party.pin.as_ref().map(|pin| &pin.options.name));
            writeln!(f, "{index}: {message}: {winner:?} not {loser:?}")?;
        }
        Ok(())
    }
}

impl Contest<'_> {
    /// Judges what stands in the end.
    pub(super) fn judge(&self, stands: Wish) -> Result<(), String> {
        self.deeds.iter().try_for_each(|deed| self.judge_deed(deed, stands))?;
        self.judge_standing(stands)?;
        self.judge_events()
    }

    fn judge_deed(&self, deed: &Deed, stands: Wish) -> Result<(), String> {
        let replaced = || {
            let others = self.deeds.iter().filter(|other| !std::ptr::eq(*other, deed));
            others.filter(|other| other.may_count()).any(|other| self.cut.may_have_seen(other, deed))
        };
        let told = || self.events.iter().any(|event| deed.is_party(&event.loser, self.ids));
        if !deed.is_acknowledged() || deed.wish == stands || told() || replaced() {
            return Ok(());
        }
        Err(format!("acknowledged, and neither stands nor was replaced nor told as lost: {deed:?}"))
    }

    fn judge_standing(&self, stands: Wish) -> Result<(), String> {
        let mut wished = self.deeds.iter().filter(|deed| deed.may_count() && deed.wish == stands).peekable();
        if wished.peek().is_none() {
            let nobody_pinned = !self.deeds.iter().any(|deed| deed.told == Told::Pinned);
            return if stands.is_none() && nobody_pinned { Ok(()) } else { Err("nobody wished that".to_owned()) };
        }
        let is_last = |deed: &Deed| !self.deeds.iter().any(|late| must_have_seen(late, deed));
        if wished.any(is_last) {
            Ok(())
        } else {
            Err("whoever wished that was replaced by somebody who knew".to_owned())
        }
    }

    fn judge_events(&self) -> Result<(), String> {
        let mut told = BTreeSet::new();
        for event in self.events.iter().filter(|event| event.loser.wish != "reallocation") {
            let made = |party: &EventParty| -> Vec<&Deed> {
                self.deeds.iter().filter(|deed| deed.may_count() && deed.is_party(party, self.ids)).collect()
            };
            let (winners, losers) = (made(&event.winner), made(&event.loser));
            if losers.is_empty() || winners.is_empty() {
                return Err(format!("nobody did that: {}", event.message));
            }
            if let Some(pin) = &event.loser.pin
                && !told.insert((pin.options.name.clone(), event.loser.author.to_string()))
            {
                return Err(format!("told twice: {}", event.message));
            }
            let knew = |winner: &Deed| losers.iter().all(|loser| must_have_seen(winner, loser));
            if winners.iter().all(|winner| knew(winner)) {
                return Err(format!("it was known to the winner: {}", event.message));
            }
        }
        Ok(())
    }
}

/// Deeds by CID.
pub(super) type Deeds = BTreeMap<u64, Vec<Deed>>;

#[cfg(test)]
mod tests {
    use cluster_types::{Pin, PinOptions};

    use super::*;
    use crate::client::inline_cid;

    /// Peer 0 and peers 1 and 2, from second 10 to 20.
    fn cut() -> Cut {
        let at = Timestamp::from_unix_seconds;
        Cut { sides: vec![vec![0], vec![1, 2]], from: at(10), to: at(20) }
    }

    fn deed(peer: usize, wish: Wish, from: i64) -> Deed {
        let told = wish.map_or(Told::Unpinned(99), |_serial| Told::Pinned);
        let commit = Some(if peer == 0 { Commit::Eventual } else { Commit::Log });
        let (from, to) = (Timestamp::from_unix_seconds(from), Timestamp::from_unix_seconds(from + 1));
        Deed { peer, wish, told, commit, from, to }
    }

    fn ids() -> Vec<PeerId> {
        let texts = [
            "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA",
            "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC",
            "QmSoLPppuBtQSGwKDZT2M73ULpjvfd3aZ6ha4oFGL1KrGM",
        ];
        texts.map(|text| text.parse().unwrap()).to_vec()
    }

    fn party(deed: &Deed) -> EventParty {
        let author = match deed.commit {
            Some(Commit::Eventual) => EventAuthor::Peer(ids()[deed.peer]),
            _ => EventAuthor::Log,
        };
        let pin = deed
            .wish
            .map(|serial| Pin::new(inline_cid(1), PinOptions { name: serial.to_string(), ..PinOptions::default() }));
        let wish = if pin.is_some() { "pin" } else { "unpin" };
        EventParty { author, wish: wish.to_owned(), time: deed.from, pin }
    }

    fn event(winner: &Deed, loser: &Deed) -> Event {
        Event {
            cid: inline_cid(1),
            rule: String::new(),
            stale: false,
            time: Timestamp::ZERO,
            index: 1,
            place: 0,
            winner: party(winner),
            loser: party(loser),
            message: format!("not {:?}", loser.wish),
        }
    }

    fn judge(deeds: &[Deed], events: &[Event], stands: Wish) -> Result<(), String> {
        Contest { deeds, events, cut: &cut(), ids: &ids() }.judge(stands)
    }

    #[test]
    fn of_two_pins_made_apart_one_stands_and_the_other_is_told() {
        let deeds = [deed(0, Some(1), 11), deed(1, Some(2), 13)];
        let lost = [event(&deeds[1], &deeds[0])];
        judge(&deeds, &lost, Some(2)).unwrap();
        judge(&deeds, &[], Some(2)).unwrap_err();
        judge(&deeds, &lost, None).unwrap_err();
        judge(&deeds, &lost, Some(3)).unwrap_err();
        judge(&deeds, &[lost[0].clone(), lost[0].clone()], Some(2)).unwrap_err();
    }

    #[test]
    fn an_unpin_that_lost_is_told() {
        let deeds = [deed(1, Some(99), 1), deed(0, None, 11), deed(1, Some(2), 13)];
        judge(&deeds, &[event(&deeds[2], &deeds[1])], Some(2)).unwrap();
        judge(&deeds, &[], Some(2)).unwrap_err();
    }

    #[test]
    fn who_saw_a_wish_replaces_it_in_silence() {
        let deeds = [deed(0, Some(1), 11), deed(0, Some(2), 13), deed(1, Some(3), 1)];
        judge(&deeds, &[], Some(2)).unwrap();
        judge(&deeds, &[], Some(1)).unwrap_err();
        judge(&deeds, &[event(&deeds[1], &deeds[0])], Some(2)).unwrap_err();
    }

    #[test]
    fn what_was_not_answered_may_stand_or_not() {
        let unknown = Deed { told: Told::Unknown, commit: None, ..deed(0, Some(2), 13) };
        let deeds = [deed(0, Some(1), 11), unknown];
        judge(&deeds, &[], Some(1)).unwrap();
        judge(&deeds, &[], Some(2)).unwrap();
        judge(&[Deed { told: Told::Refused, ..unknown }], &[], Some(2)).unwrap_err();
    }
}
