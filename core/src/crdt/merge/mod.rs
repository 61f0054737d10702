//! How writes that were accepted without a quorum come together: pure, and the same on every peer.
//!
//! A write names what its author had [seen](Seen): the records of the log and the other eventual writes. A version of
//! a pin lives until a wish that has seen it replaces it, so what the versions of a CID come to depends on the *set* of
//! merged writes, never on their order: the living ones are sorted by [`rank`](history::Version::rank) and the first
//! is the record. The table of cases for operators is in `docs/merge.md`.
//!
//! **Invariant:** between two operations of the log on a CID, merges of it may come in any order and any grouping.
//! **Invariant:** merging a write again, or a write that a merged one had seen, changes nothing.
//! **Invariant:** a write whose request the log carried out as well, earlier or later, takes effect once, for as long as
//! the log remembers outcomes.
//! **Invariant:** a pin is gone only when somebody who had seen it removed or replaced it; whoever loses is reported.
//!
//! Deliberately not here: how writes are stored, gossiped and proposed, and Automerge, whose documents carry them.

mod codec;
mod conflict;
mod history;
mod set;
mod version;
mod write;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use cluster_types::{Pin, Timestamp};

pub use codec::MAX_WRITE_BYTES;
pub use conflict::{Conflict, Party, Rule};
pub use history::History;
pub use set::{MergeState, MergedCid, MergedSet, merge_all};
pub use version::{CarriedOut, MAX_SEEN, Seen, Sight, VersionId};
pub use write::{Eventual, InvalidWrite, RequestId, Wish, Write};

/// The place of a merge in the log, or beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The last index that was applied before.
    applied: u64,
    /// The last index that is in the present record for sure.
    record: u64,
    /// The index of the entry that merges; none in an overlay.
    entry: Option<u64>,
    time: Timestamp,
    complete_since: u64,
    /// What the log has made of the write already, by itself.
    carried_out: Option<CarriedOut>,
}

impl Place {
    /// In the entry `index`, written by the leader at `time`. What was merged is remembered for writes whose base is
    /// not before `complete_since`; older ones are merged by their records alone and reported as stale.
    pub fn entry(index: u64, time: Timestamp, complete_since: u64) -> Self {
        let applied = index.saturating_sub(1);
        Self { applied, record: applied, entry: Some(index), time, complete_since, carried_out: None }
    }

    /// On this peer only, on top of the state at `applied`, to show writes that are not in the log yet.
    pub fn overlay(applied: u64, time: Timestamp) -> Self {
        Self { applied, record: applied, entry: None, time, complete_since: 0, carried_out: None }
    }

    /// The same for a record that an operation of the same entry wrote before: nobody had seen that.
    fn behind_a_write(self, behind: bool) -> Self {
        let record = self.entry.filter(|_entry| behind).unwrap_or(self.record);
        Self { record, ..self }
    }

    /// The same for a write whose [attempt](Write::attempt) the log has carried out: its wish stands there, or was
    /// replaced there since. So it replaces nothing of the log, and adds nothing, but what its author had seen beyond the
    /// log is replaced as by any other.
    pub(super) fn of_carried_out(self, carried_out: Option<CarriedOut>) -> Self {
        Self { carried_out, ..self }
    }

    /// Where a version that is merged here begins; whoever has seen the log up to there has seen it.
    fn begins(self) -> u64 {
        self.entry.unwrap_or(u64::MAX)
    }

    /// How far in the log a write has seen. A claim beyond the end of the log is false, and then nothing is believed
    /// but the versions that it names.
    fn believed(self, index: u64) -> u64 {
        if self.entry.is_some() && index > self.applied { 0 } else { index }
    }

    /// A time from outside, which counts at most as much as the time of the merge.
    fn clamped(self, time: Timestamp) -> Timestamp {
        time.min(self.time)
    }
}

/// What one merge gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The record as it now stands; `None`: not pinned.
    pub record: Option<Pin>,
    /// The history of the CID after the merge.
    pub history: History,
    /// Whether the leader shall look at the allocations again.
    pub reallocate: bool,
    /// Who lost by this merge.
    pub conflicts: Vec<Conflict>,
    /// The write and what it replaced: from now on these writes are known, and merging them changes nothing.
    pub remember: Vec<VersionId>,
}

/// Merges one write that is not yet [known](MergeState::is_known) into the record `now` of its CID. `history` is what
/// the last merge of this CID gave; when the log wrote over its outcome since, it is begun anew.
pub fn merge(now: Option<&Pin>, history: Option<&History>, write: &Eventual, place: Place) -> Merged {
    let mut history = match history {
        Some(history) if history.leads_to(now) => history.clone(),
        Some(_) | None => History::begin(now, place),
    };
    history.notice_reallocation(now, place);
    if !write.takes_effect(place) {
        let remember = vec![write.id()];
        let outcome = history.outcome();
        return Merged { record: outcome.record, reallocate: false, conflicts: Vec::new(), remember, history };
    }
    history.insert(write, place);
    let outcome = history.outcome();
    let stale = write.wish != Wish::Join && write.seen.index.max(write.repairs.index) < place.complete_since;
    let conflicts = conflict::report(&mut history, write.cid, stale);
    history.close(outcome.record.as_ref());
    Merged { record: outcome.record, reallocate: outcome.reallocate, conflicts, remember: write.covers(), history }
}
