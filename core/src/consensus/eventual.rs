//! Writes without a quorum: decided by this peer, kept in its outbox, shown at once, merged later.
//!
//! Pure: a view in, what to write out. [`super::log`] asks for a quorum first and makes what comes out durable before
//! anybody hears of it.

use cluster_types::{Cid, PeerId, Pin, Timestamp, WireError};

use super::apply::{check_part_removal, check_removal, check_replacement};
use super::deciding::{Context, Decision};
use super::operation::{Operation, normalised};
use super::overlay::Settling;
use super::sequencer::AllocationSnapshot;
use super::{Outcome, Request};
use crate::crdt::merge::{Eventual, RequestId, Sight, Write};
use crate::ports::{Changes, LocalEffect, OutboxChange, StateError, StateView};

/// Who accepts a write, and what is known at that moment.
pub struct Author<'a> {
    /// This peer.
    pub peer: PeerId,
    /// Its wall time.
    pub now: Timestamp,
    /// The members, sorted.
    pub members: &'a [PeerId],
    /// What is known of them.
    pub allocation: &'a dyn AllocationSnapshot,
    /// Index of the last entry applied here.
    pub applied: u64,
    /// What a changed pin means here.
    pub effect: &'a LocalEffect,
}

impl std::fmt::Debug for Author<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Author").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// What accepting a write gives.
#[derive(Debug)]
pub struct Accepted {
    /// What became of it, by what is shown here.
    pub outcome: Outcome,
    /// What to write; nothing when it was refused or changes nothing.
    pub changes: Changes,
}

impl Accepted {
    fn without_effect(outcome: Outcome) -> Self {
        Self { outcome, changes: Changes::default() }
    }
}

impl Author<'_> {
    /// Accepts `request`. `attempt` is the id under which it was sent to a leader that did not answer: what that leader
    /// may have made of it counts as seen, and both together take effect once.
    pub fn accept(
        &self,
        view: &dyn StateView,
        request: &Request,
        attempt: Option<RequestId>,
    ) -> Result<Accepted, StateError> {
        let shown = |cid: &Cid| view.shown(cid);
        let context = Context { pin: &shown, allocation: self.allocation, members: self.members, now: self.now };
        let operation = match context.decide(request) {
            Ok(Decision::Write(operation)) => operation,
            Ok(Decision::Nothing) => return Ok(Accepted::without_effect(Outcome::Unchanged)),
            Err(refusal) => return Ok(Accepted::without_effect(Outcome::Refused(refusal))),
        };
        let cid = match &operation {
            Operation::Put(pin) | Operation::Reallocate { pin, .. } => pin.cid,
            Operation::Remove { cid } | Operation::RemovePart { cid } | Operation::Expire { cid } => *cid,
            Operation::Reserve | Operation::Merge(_) => return Ok(Accepted::without_effect(Outcome::Unchanged)),
        };
        let base = view.shown(&cid)?;
        if let Some(outcome) = self.needless(&operation, base.as_ref()) {
            return Ok(Accepted::without_effect(outcome));
        }
        let write = self.write(view, cid, base.clone(), &operation, attempt)?;
        let write = match Eventual::new(write) {
            Ok(write) => write,
            Err(invalid) => {
                return Ok(Accepted::without_effect(Outcome::Refused(WireError::from_error(
                    invalid.class(),
                    &invalid,
                ))));
            }
        };
        let mut changes = Changes::default();
        let after = self.add(view, write, true, &mut changes)?;
        let outcome = match (after, base) {
            (Some(pin), _) if matches!(operation, Operation::Put(_) | Operation::Reallocate { .. }) => {
                Outcome::Pinned(Box::new(pin))
            }
            (_, Some(base)) => Outcome::Unpinned(Box::new(base)),
            (_, None) => Outcome::Unchanged,
        };
        Ok(Accepted { outcome, changes })
    }

    /// Takes over a write that another member accepted; `None` when it is known here.
    pub fn take_over(&self, view: &dyn StateView, write: Eventual) -> Result<Option<Changes>, StateError> {
        let id = write.id();
        if view.is_merged(&id)? || view.waiting(&write.cid)?.iter().any(|waiting| waiting.write.id() == id) {
            return Ok(None);
        }
        let mut changes = Changes::default();
        self.add(view, write, false, &mut changes)?;
        Ok(Some(changes))
    }

    /// What needs no write: a refusal, or an expiry whose time has not come.
    fn needless(&self, operation: &Operation, base: Option<&Pin>) -> Option<Outcome> {
        let checked = match operation {
            Operation::Put(pin) => check_replacement(base, pin),
            Operation::Remove { .. } => check_removal(base),
            Operation::RemovePart { .. } => check_part_removal(base),
            Operation::Expire { .. } => {
                let over = base.is_some_and(|pin| {
                    let end = pin.options.expire_at;
                    !end.is_zero() && end <= self.now
                });
                return (!over).then_some(Outcome::Unchanged);
            }
            Operation::Reallocate { .. } => return base.is_none().then_some(Outcome::Unchanged),
            Operation::Reserve | Operation::Merge(_) => return Some(Outcome::Unchanged),
        };
        checked.err().map(Outcome::Refused)
    }

    fn write(
        &self,
        view: &dyn StateView,
        cid: Cid,
        base: Option<Pin>,
        operation: &Operation,
        attempt: Option<RequestId>,
    ) -> Result<Write, StateError> {
        let mut sight = Sight::of_state(self.applied, view.pin(&cid)?.as_ref());
        for waiting in view.waiting(&cid)? {
            sight.add(&waiting.write);
        }
        if let (Operation::Put(pin), Some(_)) = (operation, attempt) {
            sight.suspect(&normalised(pin.as_ref().clone()));
        }
        let write = Write::by(self.peer, self.now, cid, base, sight).tried_as(attempt);
        Ok(match operation {
            Operation::Put(pin) => write.pin(pin.as_ref().clone()),
            Operation::Reallocate { pin, .. } => write.reallocate(pin.allocations.clone()),
            Operation::Expire { .. } => write.expire(),
            Operation::Remove { .. } | Operation::RemovePart { .. } | Operation::Reserve | Operation::Merge(_) => {
                write.unpin()
            }
        })
    }

    /// Puts a write into the outbox and shows what it makes of its pin.
    fn add(
        &self,
        view: &dyn StateView,
        write: Eventual,
        own: bool,
        changes: &mut Changes,
    ) -> Result<Option<Pin>, StateError> {
        let mut settling = Settling::of(view, &write.cid)?;
        settling.waiting.push(write.clone());
        changes.outbox.push(OutboxChange::Put { write: Box::new(write), own });
        settling.settle(view, self.applied, self.effect, changes)
    }
}
