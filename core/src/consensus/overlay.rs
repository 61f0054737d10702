//! What a peer shows of a pin: what the log has, and over it the eventual writes that it knows and the log does not.
//!
//! Pure. Every place that changes what the log has of a pin, or which writes wait on it, settles the pin here, so that
//! the shown record, the committed one beside it and the outbox always fit together.

use std::convert::Infallible;

use cluster_types::{Cid, Pin, Timestamp};

use crate::crdt::merge::{Eventual, History, MergeState, Place, VersionId, merge_all};
use crate::ports::{Changes, LocalEffect, OutboxChange, PinChange, StateError, StateView, TrackerRecord};

/// A pin whose committed record or waiting writes change.
#[derive(Debug)]
pub(super) struct Settling {
    pub(super) cid: Cid,
    /// As the log has it from now on.
    pub(super) committed: Option<Pin>,
    /// What its last merge left, from now on.
    pub(super) history: Option<History>,
    /// Those that wait from now on.
    pub(super) waiting: Vec<Eventual>,
}

impl Settling {
    /// A pin about which nothing changed yet.
    pub(super) fn of(view: &dyn StateView, cid: &Cid) -> Result<Self, StateError> {
        Ok(Self {
            cid: *cid,
            committed: view.pin(cid)?,
            history: view.history(cid)?,
            waiting: view.waiting(cid)?.into_iter().map(|waiting| waiting.write).collect(),
        })
    }

    /// What is shown of it, `applied` being the index of the log that the committed record belongs to.
    pub(super) fn shown(&self, applied: u64) -> Option<Pin> {
        shown(self.committed.as_ref(), self.history.clone(), &self.waiting, applied)
    }

    /// Adds what is to be written to `changes`: the shown record with what it means here, and the committed one.
    /// `applied` is the index of the log that the committed record belongs to.
    pub(super) fn settle(
        self,
        view: &dyn StateView,
        applied: u64,
        effect: &LocalEffect,
        changes: &mut Changes,
    ) -> Result<Option<Pin>, StateError> {
        self.settle_after(view, &[], applied, effect, changes)
    }

    /// The same, when it was shown as `passed` in between, oldest first: a pin that was gone for a moment may be gone
    /// from the node.
    pub(super) fn settle_after(
        self,
        view: &dyn StateView,
        passed: &[Option<Pin>],
        applied: u64,
        effect: &LocalEffect,
        changes: &mut Changes,
    ) -> Result<Option<Pin>, StateError> {
        let before = view.shown(&self.cid)?;
        let after = self.shown(applied);
        let Self { cid, committed, waiting, .. } = self;
        changes.committed.push((cid, (!waiting.is_empty()).then_some(committed)));
        let path = [&before].into_iter().chain(passed).chain([&after]);
        if let Some(record) = record_along(path, view.tracked(&cid)?, effect) {
            changes.tracker.push((cid, record));
        }
        if before != after {
            changes.pins.push(PinChange { cid, before, after: after.clone() });
        }
        Ok(after)
    }
}

/// What the changes along `path`, one after the other, make of this peer's record of a pin; `None`: nothing.
pub(super) fn record_along<'a>(
    path: impl IntoIterator<Item = &'a Option<Pin>>,
    mut tracked: Option<TrackerRecord>,
    effect: &LocalEffect,
) -> Option<Option<TrackerRecord>> {
    let mut path = path.into_iter().map(Option::as_ref);
    let (mut last, mut written) = (path.next()?, None);
    for next in path {
        if last != next
            && let Some(record) = effect(last, next, tracked.as_ref())
        {
            tracked.clone_from(&record);
            written = Some(record);
        }
        last = next;
    }
    written
}

/// The record that `waiting` makes of the committed one.
fn shown(committed: Option<&Pin>, history: Option<History>, waiting: &[Eventual], applied: u64) -> Option<Pin> {
    if waiting.is_empty() {
        return committed.cloned();
    }
    let time = waiting.iter().map(|write| write.time).max().unwrap_or(Timestamp::ZERO);
    let state = One { committed, history };
    let merged = merge_all(&state, waiting.iter().cloned(), Place::overlay(applied, time));
    let merged = merged.unwrap_or_else(|never| match never {});
    // All of them are about one pin.
    merged.cids.into_iter().next().map_or_else(|| committed.cloned(), |merged| merged.record)
}

/// The state as far as one pin is concerned.
struct One<'a> {
    committed: Option<&'a Pin>,
    history: Option<History>,
}

impl MergeState for One<'_> {
    type Error = Infallible;

    fn record(&self, _cid: &Cid) -> Result<Option<Pin>, Infallible> {
        Ok(self.committed.cloned())
    }

    fn history(&self, _cid: &Cid) -> Result<Option<History>, Infallible> {
        Ok(self.history.clone())
    }

    fn is_known(&self, _id: &VersionId) -> Result<bool, Infallible> {
        // What was merged does not wait any more.
        Ok(false)
    }
}

/// Shows pins as the log has them, for as long as the state is being replaced. What the tracker knows stays: what waits
/// is shown again by [`raise`].
pub fn lower(view: &dyn StateView, cids: impl IntoIterator<Item = Cid>) -> Result<Changes, StateError> {
    let mut changes = Changes::default();
    for cid in cids {
        let (before, after) = (view.shown(&cid)?, view.pin(&cid)?);
        if before != after {
            changes.pins.push(PinChange { cid, before, after });
        }
        changes.committed.push((cid, None));
    }
    Ok(changes)
}

/// Shows what waits on some pins, whatever was shown before; what the log merged meanwhile waits no more.
///
/// What the tracker knows was left as it was since [`lower`], though the state changed beneath: where it does not go
/// with what is shown from now on, it is put right.
pub fn raise(
    view: &dyn StateView,
    cids: impl IntoIterator<Item = Cid>,
    applied: u64,
    effect: &LocalEffect,
) -> Result<Changes, StateError> {
    let mut changes = Changes::default();
    for cid in cids {
        let mut settling = Settling::of(view, &cid)?;
        let mut waiting = Vec::new();
        for write in settling.waiting {
            if view.is_merged(&write.id())? {
                changes.outbox.push(OutboxChange::Remove { cid, id: write.id() });
            } else {
                waiting.push(write);
            }
        }
        settling.waiting = waiting;
        let tracked = changes.tracker.len();
        let shown = settling.settle(view, applied, effect, &mut changes)?;
        if changes.tracker.len() == tracked
            && let Some(record) = effect(shown.as_ref(), shown.as_ref(), view.tracked(&cid)?.as_ref())
        {
            changes.tracker.push((cid, record));
        }
    }
    Ok(changes)
}

#[cfg(test)]
#[path = "overlay_tests.rs"]
mod tests;
