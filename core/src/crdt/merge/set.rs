//! Merging a set of writes: what one merge operation of the log carries, or what an overlay shows.

use std::collections::{BTreeMap, BTreeSet};

use cluster_types::{Cid, Pin};

use super::{Conflict, Eventual, History, Merged, Place, RequestId, VersionId, merge};

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
    /// Whether the log carried this request out, with an effect. Whoever does not know says no: then it merges as any
    /// other.
    fn is_carried_out(&self, _request: &RequestId) -> Result<bool, Self::Error> {
        Ok(false)
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
        let carried_out = write.attempt.as_ref().map(|attempt| state.is_carried_out(attempt)).transpose()?;
        let place = place.of_carried_out(carried_out == Some(true));
        let Merged { record, history, reallocate, conflicts, remember } =
            merge(now.as_ref(), history.as_ref(), write, place);
        set.conflicts.extend(conflicts);
        set.remember.extend(remember);
        let reallocate = record.is_some() && (reallocate || again);
        cids.insert(write.cid, MergedCid { cid: write.cid, before, record, history, reallocate });
    }
    set.cids = cids.into_values().collect();
    Ok(set)
}
