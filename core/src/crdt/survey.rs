//! What a set of changes asks for, record by record, next to what it was made on and what is now.
//!
//! Which side wins is decided by the rules of merging, not here: a survey shows everything they need to know.
//!
//! **Invariant:** the answer depends on the set of changes, not on their order, and a change given twice counts once.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cluster_types::Cid;

use super::change::{Change, ChangeId};
use super::document::{Document, DocumentError, Unfit};
use super::{RecordHash, Records};

/// A record that a change asks for and no later one replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The record.
    pub record: Bytes,
    /// The change.
    pub change: ChangeId,
}

/// One CID that changes touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// The pin.
    pub cid: Cid,
    /// Its record at the base.
    pub base: Option<Bytes>,
    /// What the changes leave: several if they were concurrent, the last being Automerge's choice; none if they remove
    /// it.
    pub said: Vec<Said>,
    /// The changes whose removal no later change replaced, sorted. A removal beside a concurrent put shows here only.
    pub removed_by: Vec<ChangeId>,
    /// Its record now.
    pub now: Option<Bytes>,
}

/// What a set of changes asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The CIDs touched by changes that fit the base, in order.
    pub touched: Vec<Touched>,
    /// The changes that do not, by id, and why; [`rebase`] reads them without their base.
    pub unfit: BTreeMap<ChangeId, Unfit>,
}

/// Surveys `changes` of one shard: `base` is what its records were at the log index they were made on, `now` what they
/// are.
pub fn survey<'a>(
    shard: u16,
    base: &Records,
    now: &Records,
    changes: impl IntoIterator<Item = &'a Change>,
) -> Result<Survey, DocumentError> {
    let mut document = Document::canonical(shard, base.iter().map(|(cid, record)| (*cid, record)))?;
    // Operations are numbered after all those their author had seen: this is an order in which causes come first.
    let changes: BTreeMap<(u64, ChangeId), &Change> =
        changes.into_iter().map(|change| ((change.parts().first_operation, change.id()), change)).collect();
    let mut taken = Vec::new();
    let mut unfit = BTreeMap::new();
    for change in changes.into_values() {
        match document.take(change) {
            Ok(_) => taken.push(change),
            Err(reason) => {
                unfit.insert(change.id(), reason);
            }
        }
    }
    let mut removals = standing_removals(&taken);
    let cids: BTreeSet<Cid> = taken.iter().flat_map(|change| change.edits()).map(|edit| edit.cid).collect();
    let mut touched = Vec::with_capacity(cids.len());
    for cid in cids {
        let shown = document.shown(&cid)?.into_iter();
        let said = shown
            .filter_map(|shown| document.change_of(&shown.stamp).map(|change| Said { record: shown.record, change }));
        touched.push(Touched {
            cid,
            base: base.get(&cid).cloned(),
            said: said.collect(),
            removed_by: removals.remove(&cid).unwrap_or_default(),
            now: now.get(&cid).cloned(),
        });
    }
    Ok(Survey { touched, unfit })
}

/// The removals that no later change of the same CID followed. Automerge forgets a removal that has nothing left to
/// remove, so this is read from the changes. `changes` are in an order in which causes come first.
fn standing_removals(changes: &[&Change]) -> BTreeMap<Cid, Vec<ChangeId>> {
    let mut edits: BTreeMap<Cid, Vec<(usize, bool)>> = BTreeMap::new();
    for (place, change) in changes.iter().enumerate() {
        for edit in change.edits() {
            edits.entry(edit.cid).or_default().push((place, edit.record.is_none()));
        }
    }
    let ancestry = Ancestry::of(changes);
    let mut standing = BTreeMap::new();
    for (cid, edits) in edits {
        let replaced = |place: usize| edits.iter().any(|(later, _)| ancestry.contains(*later, place));
        let removals = edits.iter().filter(|(place, removes)| *removes && !replaced(*place));
        let mut ids: Vec<ChangeId> = removals.map(|(place, _)| changes[*place].id()).collect();
        ids.sort_unstable();
        if !ids.is_empty() {
            standing.insert(cid, ids);
        }
    }
    standing
}

/// Which change was made after which: a bit for each pair.
struct Ancestry {
    causes: Vec<Vec<u64>>,
}

impl Ancestry {
    fn of(changes: &[&Change]) -> Self {
        let places: BTreeMap<ChangeId, usize> =
            changes.iter().enumerate().map(|(place, change)| (change.id(), place)).collect();
        let mut causes: Vec<Vec<u64>> = Vec::with_capacity(changes.len());
        for (place, change) in changes.iter().enumerate() {
            let mut bits = vec![0_u64; changes.len().div_ceil(64)];
            for cause in change.dependencies().iter().filter_map(|id| places.get(id)).filter(|cause| **cause < place) {
                bits[cause / 64] |= 1 << (cause % 64);
                for (bits, inherited) in bits.iter_mut().zip(&causes[*cause]) {
                    *bits |= inherited;
                }
            }
            causes.push(bits);
        }
        Self { causes }
    }

    fn contains(&self, later: usize, cause: usize) -> bool {
        self.causes[later][cause / 64] >> (cause % 64) & 1 == 1
    }
}

/// One edit of a change whose base is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebased {
    /// The pin.
    pub cid: Cid,
    /// What the change asks for; `None` removes it.
    pub record: Option<Bytes>,
    /// Its record now.
    pub now: Option<Bytes>,
    /// Whether the record now is the one the change's author saw, so that the edit can be carried out as it is.
    pub unchanged: bool,
}

/// Reads a change without its base: each edit beside the record of now. Of several changes of one author, each has to be
/// rebased on what the ones before made of the records.
pub fn rebase(change: &Change, now: &Records) -> Vec<Rebased> {
    let rebased = change.edits().iter().map(|edit| {
        let record = now.get(&edit.cid);
        Rebased {
            cid: edit.cid,
            record: edit.record.clone(),
            now: record.cloned(),
            unchanged: edit.saw == record.map(|record| RecordHash::of(&edit.cid, record)),
        }
    });
    rebased.collect()
}

#[cfg(test)]
#[path = "survey_tests.rs"]
mod tests;
