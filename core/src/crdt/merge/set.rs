//! Merging a set of writes: what one merge operation of the log carries, or what an overlay shows.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use cluster_types::{Cid, Pin};

use super::{CarriedOut, Conflict, Eventual, History, Merged, Place, RequestId, VersionId, merge};

/// The state that writes are merged into.
pub trait MergeState {
    /// Why it cannot be read.
    type Error;

    /// The record of a CID, as the log stands before the merge.
    fn record(&self, cid: &Cid) -> Result<Option<Pin>, Self::Error>;
    /// The history of a CID, if eventual writes were merged into it.
    fn history(&self, cid: &Cid) -> Result<Option<History>, Self::Error>;
    /// Whether a write was [remembered](MergedSet::remember) by an earlier merge.
    fn is_known(&self, id: &VersionId) -> Result<bool, Self::Error>;
    /// Whether an operation of the entry that merges has written the record of a CID before.
    fn is_written_in_entry(&self, _cid: &Cid) -> bool {
        false
    }
    /// What the log made of this request, if it carried it out with an effect. Whoever does not know says none: then it
    /// merges as any other.
    fn carried_out(&self, _request: &RequestId) -> Result<Option<CarriedOut>, Self::Error> {
        Ok(None)
    }
}

/// What a set of writes makes of one CID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergedCid {
    /// The pin.
    pub cid: Cid,
    /// Its record before.
    pub before: Option<Pin>,
    /// Its record now.
    pub record: Option<Pin>,
    /// Its history, to be kept.
    pub history: History,
    /// Whether the leader shall look at its allocations again.
    pub reallocate: bool,
}

/// What a set of writes makes of the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergedSet {
    /// The CIDs, sorted.
    pub cids: Vec<MergedCid>,
    /// Who lost, in the order it was found.
    pub conflicts: Vec<Conflict>,
    /// The writes that are known from now on.
    pub remember: BTreeSet<VersionId>,
    /// How many writes were known before, or are in the set twice.
    pub known: usize,
}

/// Merges a set of writes; the order in which they are given does not matter.
pub fn merge_all<S: MergeState>(
    state: &S,
    writes: impl IntoIterator<Item = Eventual>,
    place: Place,
) -> Result<MergedSet, S::Error> {
    merge_all_with(merge, state, writes, place)
}

/// Merges one write.
pub(super) type MergeFn = fn(Option<&Pin>, Option<&History>, &Eventual, Place) -> Merged;

/// As [`merge_all`], by a function that tests may break.
pub(super) fn merge_all_with<S: MergeState>(
    merge: MergeFn,
    state: &S,
    writes: impl IntoIterator<Item = Eventual>,
    place: Place,
) -> Result<MergedSet, S::Error> {
    let mut sorted: Vec<Eventual> = writes.into_iter().collect();
    sorted.sort_by_cached_key(Eventual::order);
    let mut set = MergedSet::default();
    let mut cids: BTreeMap<Cid, MergedCid> = BTreeMap::new();
    for write in &sorted {
        if set.remember.contains(&write.id()) || state.is_known(&write.id())? {
            set.known += 1;
            continue;
        }
        let (before, now, history, again) = match cids.remove(&write.cid) {
            Some(merged) => (merged.before, merged.record, Some(merged.history), merged.reallocate),
            None => {
                let record = state.record(&write.cid)?;
                (record.clone(), record, state.history(&write.cid)?, false)
            }
        };
        let carried_out = write.attempt.as_ref().map(|attempt| state.carried_out(attempt)).transpose()?;
        let place = place.behind_a_write(state.is_written_in_entry(&write.cid)).of_carried_out(carried_out.flatten());
        let write = with_attempts_seen(state, write, now.as_ref(), history.as_ref())?;
        let Merged { record, history, reallocate, conflicts, remember } =
            merge(now.as_ref(), history.as_ref(), &write, place);
        set.conflicts.extend(conflicts);
        set.remember.extend(remember);
        let reallocate = record.is_some() && (reallocate || again);
        cids.insert(write.cid, MergedCid { cid: write.cid, before, record, history, reallocate });
    }
    set.cids = cids.into_values().collect();
    Ok(set)
}

/// A write with what the log made of the attempts that its author had seen.
fn with_attempts_seen<'a, S: MergeState>(
    state: &S,
    write: &'a Eventual,
    now: Option<&Pin>,
    history: Option<&History>,
) -> Result<Cow<'a, Eventual>, S::Error> {
    let mut made = Vec::new();
    for attempt in &write.seen.attempts {
        made.extend(state.carried_out(attempt)?);
    }
    if made.is_empty() {
        return Ok(Cow::Borrowed(write));
    }
    let wishes = History::wishes_of_log(history, now).filter(|wish| made.iter().any(|made| made.is(wish)));
    Ok(Cow::Owned(write.having_seen(wishes)))
}
