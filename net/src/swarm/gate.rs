//! Which gossip messages count: none twice, and none too many from one source.
//!
//! Pure: time is handed in. A signature says who wrote a message, not when. gossipsub forgets message ids after two
//! minutes, and whoever recorded the messages of a peer could then send them again, and keep a dead peer alive in the
//! eyes of the others. So the numbers that gossipsub gives to messages are kept here: a source counts upwards by one,
//! beginning at its clock in nanoseconds when it starts.
//!
//! A clock that was set back before a restart makes a peer count from a lower number. Nobody can tell that from a
//! replay; such a peer is heard again when it has caught up, or was silent (to us) for [`FORGET_AFTER`].
//!
//! **Invariant:** at most [`MAX_SOURCES`] sources are kept; remembered ones go last.
//! **Invariant:** what one source, and what all together that are not remembered, may say per second is bounded.

use std::collections::HashMap;
use std::time::Duration;

use cluster_types::PeerId;
use tokio::time::Instant;

/// How many sources are kept.
const MAX_SOURCES: usize = 4_096;
/// Messages may overtake each other by so many: they come over several paths.
const WINDOW: u64 = 128;
/// After so long, a number that is too low is believed: the clock was set back, or the replay is too late to harm.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 3600);
/// When nothing newer came of a source for so long, old messages of it are odd; before that they are only late.
const ODD_AFTER: Duration = Duration::from_secs(45);
/// What a message costs beyond its bytes: its envelope, a signature to check.
const MESSAGE_COST: u64 = 512;
/// What remembered peers may say: the leader, every batch of a bulk load.
const OF_MEMBER: Allowance = Allowance { per_second: 4 * 1024 * 1024, burst: 16 * 1024 * 1024 };
/// What others may say: metrics, and now and then a large message.
const OF_STRANGER: Allowance = Allowance { per_second: 64 * 1024, burst: 1024 * 1024 };
/// What all others together may say: the metrics of a few thousand.
const OF_STRANGERS: Allowance = Allowance { per_second: 1024 * 1024, burst: 4 * 1024 * 1024 };

/// Bytes a source may say.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    per_second: u64,
    burst: u64,
}

/// What is left of an allowance.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    bytes: u64,
    since: Instant,
}

impl Bucket {
    fn full(allowance: Allowance, now: Instant) -> Self {
        Self { bytes: allowance.burst, since: now }
    }

    /// Whether there is enough left for `cost` bytes, after what has come since.
    fn holds(&mut self, allowance: Allowance, cost: u64, now: Instant) -> bool {
        let nanos = now.saturating_duration_since(self.since).as_nanos();
        let earned = nanos.saturating_mul(u128::from(allowance.per_second)) / 1_000_000_000;
        if earned > 0 {
            self.bytes = self.bytes.saturating_add(u64::try_from(earned).unwrap_or(u64::MAX)).min(allowance.burst);
            self.since = now;
        }
        self.bytes >= cost
    }
}

/// What is known of a source.
#[derive(Debug)]
struct Source {
    remembered: bool,
    highest: u64,
    /// Bit `n` stands for the number `highest - n`.
    seen: u128,
    heard_at: Instant,
    suspected: bool,
    bucket: Bucket,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is new.
    Accept,
    /// Its number is lower than it can be, but its source was not heard for a day: it counts.
    AcceptOld,
    /// It was here before, or is older than what was: a replay, or the clock of its source was set back. `first` is
    /// said of one far too old whose source has said nothing newer for a while, once until that is heard again.
    Old { first: bool },
    /// Its source says too much.
    TooMuch,
}

/// The sources, and what they said last.
#[derive(Debug)]
pub(super) struct Gate {
    sources: HashMap<PeerId, Source>,
    strangers: Bucket,
}

impl Gate {
    pub(super) fn new(now: Instant) -> Self {
        Self { sources: HashMap::new(), strangers: Bucket::full(OF_STRANGERS, now) }
    }

    /// Judges a message of `size` bytes; `remembered` says whether its source is a remembered peer.
    pub(super) fn judge(&mut self, from: PeerId, number: u64, size: usize, remembered: bool, now: Instant) -> Verdict {
        let allowance = if remembered { OF_MEMBER } else { OF_STRANGER };
        if !self.sources.contains_key(&from) {
            self.make_room();
        }
        let source = self.sources.entry(from).or_insert_with(|| Source {
            remembered,
            highest: number,
            seen: 0,
            heard_at: now,
            suspected: false,
            bucket: Bucket::full(allowance, now),
        });
        source.remembered = remembered;
        let is_new = source.is_new(number);
        let is_late = now.saturating_duration_since(source.heard_at) >= FORGET_AFTER;
        if !is_new && !is_late {
            let far_too_old = source.highest - number >= WINDOW;
            let is_odd = far_too_old && now.duration_since(source.heard_at) >= ODD_AFTER;
            return Verdict::Old { first: is_odd && !std::mem::replace(&mut source.suspected, true) };
        }
        let cost = MESSAGE_COST + size as u64;
        if !source.bucket.holds(allowance, cost, now) || !(remembered || self.strangers.holds(OF_STRANGERS, cost, now))
        {
            return Verdict::TooMuch;
        }
        source.bucket.bytes -= cost;
        if !remembered {
            self.strangers.bytes -= cost;
        }
        (source.heard_at, source.suspected) = (now, false);
        source.note(number, is_new);
        if is_new { Verdict::Accept } else { Verdict::AcceptOld }
    }

    fn make_room(&mut self) {
        if self.sources.len() < MAX_SOURCES {
            return;
        }
        // A walk over a bounded table, cheaper than the check of the signature that came before it.
        let longest_silent = self.sources.iter().min_by_key(|(_, source)| (source.remembered, source.heard_at));
        if let Some(peer) = longest_silent.map(|(peer, _)| *peer) {
            self.sources.remove(&peer);
        }
    }
}

impl Source {
    fn is_new(&self, number: u64) -> bool {
        match self.highest.checked_sub(number) {
            None => true,
            Some(back) => back < WINDOW && self.seen & (1 << back) == 0,
        }
    }

    fn note(&mut self, number: u64, is_new: bool) {
        if !is_new {
            (self.highest, self.seen) = (number, 1);
        } else if let Some(back) = self.highest.checked_sub(number) {
            self.seen |= 1 << back;
        } else {
            let ahead = number - self.highest;
            self.seen = if ahead < WINDOW { self.seen << ahead | 1 } else { 1 };
            self.highest = number;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Verdict = Verdict::Old { first: false };
    const START: u64 = 1_700_000_000_000_000_000;

    struct World {
        gate: Gate,
        now: Instant,
        peer: PeerId,
    }

    impl World {
        fn new() -> Self {
            let now = Instant::now();
            Self { gate: Gate::new(now), now, peer: PeerId::random() }
        }

        fn hear(&mut self, number: u64) -> Verdict {
            self.gate.judge(self.peer, number, 100, true, self.now)
        }
    }

    #[test]
    fn a_recorded_message_does_not_count_again() {
        let mut world = World::new();
        for number in 0..30 {
            assert_eq!(world.hear(START + number), Verdict::Accept);
            world.now += Duration::from_secs(10);
        }
        // gossipsub has forgotten them by now.
        world.now += Duration::from_secs(121);
        for number in 0..30 {
            assert_eq!(world.hear(START + number), OLD, "{number}");
        }
        assert_eq!(world.hear(START - 1_000_000), Verdict::Old { first: true });
        assert_eq!(world.hear(START - 999_999), OLD, "once is enough");
        assert_eq!(world.hear(START + 30), Verdict::Accept);
        let restarted = START + 3_600_000_000_000;
        assert_eq!(world.hear(restarted), Verdict::Accept);
        assert_eq!(world.hear(START + 31), OLD, "it may only be late");
        world.now += ODD_AFTER;
        assert_eq!(world.hear(START + 31), Verdict::Old { first: true });
    }

    #[test]
    fn messages_that_overtake_each_other_count_once() {
        let mut world = World::new();
        for number in [5, 3, 4, 9, 8, 6, 7, 132] {
            assert_eq!(world.hear(START + number), Verdict::Accept, "{number}");
            assert_eq!(world.hear(START + number), OLD, "{number}");
        }
        assert_eq!(world.hear(START + 10), Verdict::Accept, "late, but within the window");
        assert_eq!(world.hear(START + 4), OLD, "beyond the window nobody knows");
        assert_eq!(world.hear(START + 9), OLD);
    }

    #[test]
    fn a_peer_whose_clock_was_set_back_is_heard_after_a_day() {
        let mut world = World::new();
        assert_eq!(world.hear(START), Verdict::Accept);
        world.now += FORGET_AFTER - Duration::from_secs(1);
        assert_eq!(world.hear(START - 1_000_000_000), Verdict::Old { first: true });
        world.now += Duration::from_secs(1);
        assert_eq!(world.hear(START - 999_999_999), Verdict::AcceptOld);
        assert_eq!(world.hear(START - 999_999_998), Verdict::Accept);
        assert_eq!(world.hear(START - 999_999_999), OLD);
    }

    #[test]
    fn what_one_source_says_is_bounded_and_others_are_heard() {
        let mut world = World::new();
        let (loud, quiet) = (PeerId::random(), PeerId::random());
        let mut bytes = 0;
        for number in 0..10_000 {
            if world.gate.judge(loud, START + number, 10_000, false, world.now) == Verdict::Accept {
                bytes += 10_000;
            }
        }
        assert!((900_000..=OF_STRANGER.burst).contains(&bytes), "{bytes}");
        assert_eq!(world.gate.judge(quiet, START, 10_000, false, world.now), Verdict::Accept);
        world.now += Duration::from_secs(1);
        assert_eq!(world.gate.judge(loud, START + 20_000, 50_000, false, world.now), Verdict::Accept);
        assert_eq!(world.gate.judge(loud, START + 20_001, 50_000, false, world.now), Verdict::TooMuch);
    }

    #[test]
    fn many_strangers_together_are_bounded_and_members_are_heard() {
        let mut world = World::new();
        assert_eq!(world.hear(START), Verdict::Accept);
        let mut accepted = 0;
        for _ in 0..MAX_SOURCES + 100 {
            let verdict = world.gate.judge(PeerId::random(), START, 100_000, false, world.now);
            accepted += u64::from(verdict == Verdict::Accept);
        }
        assert!((30..50).contains(&accepted), "{accepted}");
        assert_eq!(world.gate.sources.len(), MAX_SOURCES);
        assert_eq!(world.hear(START), OLD, "a member is not pushed out");
        assert_eq!(world.hear(START + 1), Verdict::Accept);
    }
}
