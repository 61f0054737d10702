//! The outbox of this peer: accepts writes when no quorum answers, and takes over those of other members.
//!
//! **Invariant:** a write is on this peer's disk before anybody hears that it was accepted.
//! **Invariant:** while a snapshot is installed nothing is accepted: what is shown is put on top of it afterwards.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::watch;
use cluster_types::{Cid, PeerId, WireError};
use futures::FutureExt;
use parking_lot::Mutex as Slot;
use tokio::sync::{Mutex, MutexGuard};

use super::state_machine::EffectAt;
use crate::consensus::eventual::{Accepted, Author};
use crate::consensus::sequencer::Allocator;
use crate::consensus::{Outcome, Request, overlay};
use crate::crdt::merge::{Eventual, RequestId};
use crate::ports::{Changes, Clock, StateError, StateStore, StateView, UpdateFn, Waiting};

/// How many rows of the outbox are looked at in one step.
const PAGE: usize = 256;

/// What an outbox is built from.
pub(super) struct OutboxParts {
    pub(super) peer: PeerId,
    pub(super) state: Arc<dyn StateStore>,
    pub(super) effect_at: EffectAt,
    pub(super) allocator: Arc<dyn Allocator>,
    pub(super) clock: Arc<dyn Clock>,
    /// Every index as soon as it is applied; told again when something is shown that is in no entry.
    pub(super) applied: watch::Sender<u64>,
}

/// Accepts writes without a quorum.
pub(super) struct Outbox {
    parts: OutboxParts,
    /// Held by whoever puts something on top of the state, or replaces the state beneath.
    gate: Mutex<()>,
    /// Told whenever something came in.
    pub(super) came_in: watch::Sender<u64>,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("peer", &self.parts.peer).finish_non_exhaustive()
    }
}

impl Outbox {
    pub(super) fn new(parts: OutboxParts) -> Self {
        let last = parts.state.waiting_count().last_own;
        Self { parts, gate: Mutex::new(()), came_in: watch::Sender::new(last) }
    }

    /// Whether anything waits.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.state.waiting_count().all == 0
    }

    /// Whether writes on a pin wait here: what comes after them must not overtake them.
    pub(super) async fn waits_on(&self, cid: Cid) -> Result<bool, StateError> {
        if self.is_empty() {
            return Ok(false);
        }
        self.look(move |view| Ok(!view.waiting(&cid)?.is_empty())).await
    }

    /// Accepts a write; what is accepted is on the disk when this returns. `attempt`: the id under which a leader may have
    /// accepted it too. The inner error: it is written and shown, and flushing it failed, so nobody knows whether it is there
    /// after a restart.
    pub(super) async fn accept(
        &self,
        request: Request,
        attempt: Option<RequestId>,
        members: Vec<PeerId>,
    ) -> Result<Result<Outcome, StateError>, StateError> {
        let outcome = self
            .change(members, move |author, view| {
                let Accepted { outcome, changes } = author.accept(view, &request, attempt)?;
                Ok((outcome, changes))
            })
            .await?;
        let flushed = self.parts.state.flush().await;
        self.tell();
        Ok(flushed.map(|()| outcome))
    }

    /// Takes over writes that another member accepted. Those that are known stay as they are.
    pub(super) async fn take_over(&self, writes: Vec<Eventual>, members: Vec<PeerId>) -> Result<(), StateError> {
        let mut news = false;
        for write in writes {
            let members = members.clone();
            news |= self
                .change(members, move |author, view| {
                    let changes = author.take_over(view, write)?;
                    Ok((changes.is_some(), changes.unwrap_or_default()))
                })
                .await?;
        }
        if news {
            self.parts.state.flush().await?;
            self.tell();
        }
        Ok(())
    }

    /// Some writes that wait, by number, from behind `after`.
    pub(super) async fn page(&self, after: u64) -> Result<Vec<Waiting>, StateError> {
        self.parts.state.outbox(after, PAGE).await
    }

    /// The number of the last write of its own that this peer accepted.
    pub(super) fn last_own(&self) -> u64 {
        self.parts.state.waiting_count().last_own
    }

    /// Keeps everybody from accepting until the result is dropped: whoever accepts must not see more of the log than the
    /// index says that he claims to have seen.
    pub(super) async fn close(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().await
    }

    /// Shows the state without anything on top, for as long as it is being replaced; [`Lowered::raise`] ends that.
    /// Nothing is accepted until the result is dropped.
    pub(super) async fn lower(&self) -> Result<Lowered<'_>, StateError> {
        let gate = self.gate.lock().await;
        self.each_page(|_effect_index, cids| Box::new(move |view| overlay::lower(view, cids)), 0).await?;
        Ok(Lowered { outbox: self, _gate: gate })
    }

    /// After the start: shows what waits on top of the state at `applied`, in case an installation was cut off. Whoever
    /// brought a million pins along and has one write on each does not walk them at every start.
    pub(super) async fn restore(&self, applied: u64) -> Result<(), StateError> {
        let state = &self.parts.state;
        // There are as many CIDs as writes at most, and lowering settles none.
        if state.settled_count() >= state.waiting_count().all { Ok(()) } else { self.raise(applied).await }
    }

    /// Shows what waits on top of the state at `applied`.
    async fn raise(&self, applied: u64) -> Result<(), StateError> {
        let effect = (self.parts.effect_at)(applied);
        self.each_page(
            |applied, cids| {
                let effect = Arc::clone(&effect);
                Box::new(move |view| overlay::raise(view, cids, applied, &effect))
            },
            applied,
        )
        .await
    }

    async fn each_page(&self, update: impl Fn(u64, BTreeSet<Cid>) -> UpdateFn, applied: u64) -> Result<(), StateError> {
        let mut after = 0;
        loop {
            let page = self.page(after).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.number;
            let cids = page.into_iter().map(|waiting| waiting.write.cid).collect();
            self.parts.state.update(update(applied, cids)).await?;
        }
    }

    /// Changes what is on top of the state in one step.
    async fn change<R, F>(&self, members: Vec<PeerId>, decide: F) -> Result<R, StateError>
    where
        R: Send + 'static,
        F: FnOnce(&Author<'_>, &dyn StateView) -> Result<(R, Changes), StateError> + Send + 'static,
    {
        let _open = self.gate.lock().await;
        // What the view shows, neither less nor more: applying closes the gate as well.
        let applied = *self.parts.applied.borrow();
        let effect = (self.parts.effect_at)(applied);
        let (peer, now) = (self.parts.peer, self.parts.clock.now());
        let allocation = self.parts.allocator.snapshot(&members);
        let answer = Arc::new(Slot::new(None));
        let result = Arc::clone(&answer);
        let update = move |view: &dyn StateView| {
            let author =
                Author { peer, now, members: &members, allocation: allocation.as_ref(), applied, effect: &effect };
            let (answer, changes) = decide(&author, view)?;
            *result.lock() = Some(answer);
            Ok(changes)
        };
        self.parts.state.update(Box::new(update)).await?;
        let answer = answer.lock().take();
        answer.ok_or(StateError::Closed)
    }

    async fn look<R, F>(&self, read: F) -> Result<R, StateError>
    where
        R: Send + 'static,
        F: FnOnce(&dyn StateView) -> Result<R, StateError> + Send + 'static,
    {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let read = move |view: &dyn StateView| {
            drop(answer.send(read(view)?));
            Ok(())
        };
        self.parts.state.read(Box::new(read)).await?;
        answered.now_or_never().and_then(Result::ok).ok_or(StateError::Closed)
    }

    /// Wakes whoever acts on what is shown, and whoever passes it on.
    fn tell(&self) {
        self.parts.applied.send_modify(|_index| {});
        self.came_in.send_replace(self.last_own());
    }
}

/// The state is shown without anything on top.
pub(super) struct Lowered<'a> {
    outbox: &'a Outbox,
    _gate: MutexGuard<'a, ()>,
}

impl Lowered<'_> {
    /// Shows what waits on top of the state at `applied`.
    pub(super) async fn raise(&self, applied: u64) -> Result<(), StateError> {
        self.outbox.raise(applied).await
    }
}

/// A failed store as the caller of a write hears of it.
pub(super) fn to_wire(error: &StateError) -> WireError {
    WireError::from_error(error.class(), error)
}
