//! Decides what to ask of whom next: pure.
//!
//! Each shard goes through [`Step`]s: what changed since the index it is here as of; then, where no donor's tail reaches
//! so far, what differs; at last everything. A donor whose answer was wrong is not asked for that shard again until all
//! others were asked, and not at all after [`MAX_WRONG`] wrong answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster_types::PeerId;
use tokio::time::Instant;

/// Shards in one question whose answer is short.
const SHORT_BATCH: usize = 64;
/// Wrong answers after which a donor is not asked any more.
const MAX_WRONG: u32 = 8;
/// Times that all donors may fail at giving all of a shard.
const MAX_ROUNDS: u32 = 3;
/// How long a donor that could not answer is left alone; doubles with every failure up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// How a shard is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// What changed since it is here as of this index.
    Since(u64),
    /// What differs.
    Compare,
    /// Everything.
    Whole,
}

/// What became of a shard that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It is here.
    Kept,
    /// The answer was closed before.
    NotReached,
    /// The donor does not know what changed.
    BaseGone,
    /// The donor cannot give the shard as of the index.
    IndexGone,
    /// All of it is cheaper.
    TooMuch,
    /// What came is not what the manifest says.
    Wrong,
}

/// A shard that is not here yet.
#[derive(Clone, Debug)]
struct Want {
    step: Step,
    /// Whether records of it are here, so that comparing is worth it.
    has_records: bool,
    refused: BTreeSet<PeerId>,
    rounds: u32,
}

#[derive(Clone, Debug)]
struct Donor {
    free_at: Instant,
    pause: Duration,
    wrong: u32,
}

/// A question to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) donor: PeerId,
    pub(super) step: Step,
    pub(super) shards: Vec<u16>,
}

/// What to ask next.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pending: BTreeMap<u16, Want>,
    in_flight: BTreeMap<u16, Want>,
    donors: BTreeMap<PeerId, Donor>,
    /// Is asked only when nobody else is to be asked.
    spare: Option<PeerId>,
    turn: usize,
}

impl Plan {
    /// A plan that asks one of the donors only for what no other may be asked for now.
    pub(super) fn sparing(spare: Option<PeerId>) -> Self {
        Self { spare, ..Self::default() }
    }

    /// A shard that is wanted; `base` is the index it is here as of, if records of it are.
    pub(super) fn want(&mut self, shard: u16, base: Option<u64>) {
        let step = base.map_or(Step::Whole, Step::Since);
        self.pending.insert(shard, Want { step, has_records: base.is_some(), refused: BTreeSet::new(), rounds: 0 });
    }

    /// How many shards are not here yet.
    pub(super) fn left(&self) -> usize {
        self.pending.len() + self.in_flight.len()
    }

    /// Takes over who may be asked. Who is new may be asked at once.
    pub(super) fn set_donors(&mut self, donors: &[PeerId], now: Instant) {
        self.donors.retain(|peer, _| donors.contains(peer));
        for peer in donors {
            self.donors.entry(*peer).or_insert(Donor { free_at: now, pause: MIN_PAUSE, wrong: 0 });
        }
    }

    /// The next question, if there is anybody to be asked now. `weight` tells the records of a shard, and all of as many
    /// shards as come to `enough` records are asked for at once.
    pub(super) fn next(&mut self, now: Instant, enough: u64, weight: impl Fn(u16) -> u64) -> Option<Batch> {
        let (first, donor) =
            self.pending.iter().find_map(|(shard, want)| Some((*shard, self.donor_for(want, now)?)))?;
        let step = self.pending.get(&first)?.step;
        let mut shards = Vec::new();
        let mut records = 0_u64;
        for (shard, want) in self.pending.range(first..) {
            let full = match step {
                Step::Since(_) | Step::Compare => shards.len() >= SHORT_BATCH,
                Step::Whole => !shards.is_empty() && records.saturating_add(weight(*shard)) > enough,
            };
            if full {
                break;
            }
            if want.step == step && !want.refused.contains(&donor) {
                records = records.saturating_add(weight(*shard));
                shards.push(*shard);
            }
        }
        for shard in &shards {
            if let Some(want) = self.pending.remove(shard) {
                self.in_flight.insert(*shard, want);
            }
        }
        self.turn = self.turn.wrapping_add(1);
        Some(Batch { donor, step, shards })
    }

    /// When somebody who is left alone now may be asked again.
    pub(super) fn next_try(&self, now: Instant) -> Option<Instant> {
        let left_alone = self.donors.values().filter(|donor| donor.wrong < MAX_WRONG && donor.free_at > now);
        left_alone.map(|donor| donor.free_at).min()
    }

    /// A donor answered.
    pub(super) fn answered(&mut self, donor: PeerId) {
        if let Some(donor) = self.donors.get_mut(&donor) {
            donor.pause = MIN_PAUSE;
        }
    }

    /// A donor could not answer: it is left alone for a while.
    pub(super) fn failed(&mut self, donor: PeerId, now: Instant) {
        if let Some(donor) = self.donors.get_mut(&donor) {
            donor.free_at = now + donor.pause;
            donor.pause = (donor.pause * 2).min(MAX_PAUSE);
        }
    }

    /// What became of a shard that was asked of `donor`. Whether it is still worth going on: not when everybody failed at
    /// giving it several times.
    pub(super) fn settle(&mut self, shard: u16, donor: PeerId, end: End) -> bool {
        let Some(mut want) = self.in_flight.remove(&shard) else { return true };
        match end {
            End::Kept => return true,
            End::NotReached => {}
            End::BaseGone => want.escalate(),
            End::TooMuch => want.step = Step::Whole,
            End::IndexGone => drop(want.refused.insert(donor)),
            End::Wrong => {
                want.refused.insert(donor);
                if let Some(donor) = self.donors.get_mut(&donor) {
                    donor.wrong += 1;
                }
            }
        }
        let exhausted = self.donors.iter().all(|(peer, donor)| want.refused.contains(peer) || donor.wrong >= MAX_WRONG);
        if exhausted {
            want.refused.clear();
            want.rounds += u32::from(want.step == Step::Whole);
            want.escalate();
        }
        let worth_it = want.rounds < MAX_ROUNDS;
        self.pending.insert(shard, want);
        worth_it
    }

    fn donor_for(&self, want: &Want, now: Instant) -> Option<PeerId> {
        let free = |(peer, donor): &(&PeerId, &Donor)| {
            donor.free_at <= now && donor.wrong < MAX_WRONG && !want.refused.contains(*peer)
        };
        let mut free: Vec<PeerId> = self.donors.iter().filter(free).map(|(peer, _)| *peer).collect();
        if free.len() > 1 {
            free.retain(|peer| Some(*peer) != self.spare);
        }
        free.get(self.turn.checked_rem(free.len())?).copied()
    }
}

impl Want {
    fn escalate(&mut self) {
        self.step = match self.step {
            Step::Since(_) if self.has_records => Step::Compare,
            Step::Since(_) | Step::Compare | Step::Whole => Step::Whole,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(count: u8) -> Vec<PeerId> {
        let peer = |number| {
            let mut bytes = [number; 34];
            bytes[..2].copy_from_slice(&[0, 32]);
            PeerId::from_bytes(&bytes).unwrap()
        };
        (0..count).map(peer).collect()
    }

    fn plan(donors: &[PeerId], shards: &[(u16, Option<u64>)]) -> (Plan, Instant) {
        let (mut plan, now) = (Plan::default(), Instant::now());
        plan.set_donors(donors, now);
        shards.iter().for_each(|(shard, base)| plan.want(*shard, *base));
        (plan, now)
    }

    #[test]
    fn whole_shards_come_one_by_one_in_turn_and_short_answers_together() {
        let donors = peers(2);
        let (mut plan, now) = plan(&donors, &[(1, None), (2, None), (3, Some(7)), (4, Some(7)), (5, Some(8))]);
        let mut next = || plan.next(now, 100, |_| 100).map(|batch| (batch.step, batch.shards, batch.donor));
        let asked = [next(), next(), next(), next(), next()].map(Option::unwrap_or_default_batch);
        assert_eq!(asked[0].1, [1]);
        assert_eq!(asked[1].1, [2]);
        assert_ne!(asked[0].2, asked[1].2, "donors take turns");
        assert_eq!((asked[2].0, asked[2].1.as_slice()), (Step::Since(7), &[3, 4][..]));
        assert_eq!((asked[3].0, asked[3].1.as_slice()), (Step::Since(8), &[5][..]));
        assert!(asked[4].1.is_empty());
    }

    trait OrDefault {
        fn unwrap_or_default_batch(self) -> (Step, Vec<u16>, Option<PeerId>);
    }

    impl OrDefault for Option<(Step, Vec<u16>, PeerId)> {
        fn unwrap_or_default_batch(self) -> (Step, Vec<u16>, Option<PeerId>) {
            self.map_or((Step::Whole, Vec::new(), None), |(step, shards, donor)| (step, shards, Some(donor)))
        }
    }

    #[test]
    fn a_shard_is_asked_for_in_dearer_ways_until_it_is_here_or_everybody_failed() {
        let donors = peers(2);
        let (mut plan, now) = plan(&donors, &[(9, Some(3))]);
        let mut steps = Vec::new();
        loop {
            let batch = plan.next(now, 1, |_| 1).unwrap();
            steps.push(batch.step);
            if !plan.settle(9, batch.donor, End::Wrong) {
                break;
            }
        }
        let each = |step| steps.iter().filter(|found| **found == step).count();
        assert_eq!((each(Step::Since(3)), each(Step::Compare)), (2, 2), "both are asked before the next step");
        assert_eq!(each(Step::Whole), 6);
    }

    #[test]
    fn the_spare_donor_gives_only_what_nobody_else_does() {
        let donors = peers(3);
        let (mut plan, now) = (Plan::sparing(Some(donors[1])), Instant::now());
        plan.set_donors(&donors, now);
        (0..8).for_each(|shard| plan.want(shard, None));
        let asked: Vec<Batch> = (0..6).map(|_| plan.next(now, 1, |_| 1).unwrap()).collect();
        assert!(asked.iter().all(|batch| batch.donor != donors[1]), "{asked:?}");
        // One shard is not to be had of the others, and then they fail altogether.
        for refuses in [donors[0], donors[2]] {
            assert!(plan.settle(0, refuses, End::IndexGone));
            plan.in_flight.extend(plan.pending.remove_entry(&0));
        }
        assert!(plan.settle(0, donors[0], End::NotReached));
        let batch = plan.next(now, 1, |_| 1).unwrap();
        assert_eq!((batch.donor, batch.shards), (donors[1], vec![0]));
        plan.failed(donors[0], now);
        assert_eq!(plan.next(now, 1, |_| 1).unwrap().donor, donors[2]);
        plan.failed(donors[2], now);
        assert_eq!(plan.next(now, 1, |_| 1).unwrap().donor, donors[1]);
    }

    #[test]
    fn who_cannot_answer_is_left_alone_for_a_while() {
        let donors = peers(1);
        let (mut plan, now) = plan(&donors, &[(1, None), (2, None)]);
        let batch = plan.next(now, 1, |_| 1).unwrap();
        plan.failed(batch.donor, now);
        assert!(plan.settle(1, batch.donor, End::NotReached));
        assert_eq!(plan.next(now, 1, |_| 1), None);
        let later = plan.next_try(now).unwrap();
        assert!(later > now);
        assert_eq!(plan.next(later, 1, |_| 1).unwrap().shards, [1]);
        assert!(plan.settle(1, donors[0], End::Kept));
        assert_eq!(plan.left(), 1);
    }
}
