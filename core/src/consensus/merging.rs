//! What the leader decides about writes that were accepted without a quorum: nothing but who holds the pins.

use std::collections::BTreeMap;

use cluster_types::{Cid, Pin, PinType, ReplicationFactor, WireError};

use super::deciding::Context;
use super::operation::Merge;
use super::sequencer::AllocationQuestion;
use crate::crdt::merge::{Eventual, History, MergeState, MergedCid, Place, VersionId, merge_all};
use crate::ports::{StateError, StateView};

/// A merge as it goes into the log, and what the pins in it are expected to be afterwards.
pub(super) struct Decided {
    pub(super) merge: Merge,
    pub(super) expected: BTreeMap<Cid, Option<Pin>>,
}

/// Decides where the pins go that `writes` come to. That is foreseen on the present state; should the log see it
/// differently, the merge stands and only the choice of holders is worse.
pub(super) fn decide(context: &Context<'_>, view: &dyn StateView, writes: &[Eventual]) -> Result<Decided, WireError> {
    let foreseen = Foreseen { context, view };
    // The place of the entry is not known yet; its time is.
    let place = Place::overlay(u64::MAX - 1, context.now);
    let set = merge_all(&foreseen, writes.iter().cloned(), place);
    let set = set.map_err(|error| WireError::from_error(error.class(), &error))?;
    let mut merge = Merge { writes: writes.to_vec(), holders: Vec::new() };
    let mut expected = BTreeMap::new();
    for MergedCid { cid, mut record, reallocate, .. } in set.cids {
        if let Some(pin) = record.as_mut().filter(|_pin| reallocate)
            && let Some(holders) = holders(context, pin)
        {
            pin.allocations.clone_from(&holders);
            merge.holders.push((cid, holders));
        }
        expected.insert(cid, record);
    }
    Ok(Decided { merge, expected })
}

/// Who shall hold a pin that came out of a merge; `None`: those it has.
fn holders(context: &Context<'_>, pin: &Pin) -> Option<Vec<cluster_types::PeerId>> {
    let options = &pin.options;
    let factor = ReplicationFactor::checked(options.replication_factor_min, options.replication_factor_max).ok()?;
    if factor == ReplicationFactor::Everywhere || pin.kind == PinType::Meta {
        return Some(Vec::new());
    }
    let current = &pin.allocations;
    let question =
        AllocationQuestion { replication: factor, current, preferred: &[], excluded: &[], keep_silent: true };
    // With too few peers it stays where it is; repair sees to it when there are more.
    context.allocation.allocate(&question).ok()
}

struct Foreseen<'a> {
    context: &'a Context<'a>,
    view: &'a dyn StateView,
}

impl MergeState for Foreseen<'_> {
    type Error = StateError;

    fn record(&self, cid: &Cid) -> Result<Option<Pin>, StateError> {
        (self.context.pin)(cid)
    }

    fn history(&self, cid: &Cid) -> Result<Option<History>, StateError> {
        self.view.history(cid)
    }

    fn is_known(&self, id: &VersionId) -> Result<bool, StateError> {
        self.view.is_merged(id)
    }
}
