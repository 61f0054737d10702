//! Serves shards to peers that catch up: a small share of this peer's time, one answer after the other.
//!
//! **Invariant:** an answer is of exactly the log index asked about: from the present state when its tail reaches back
//! to that index, else from a frozen state that is lent for the time of a transfer.
//! **Invariant:** while writes come in, a donor rests [`REST`](super::turns::REST) times as long as an answer took, so
//! that they keep their pace.

use std::fmt;
use std::sync::{Arc, Weak};

use cluster_types::{ErrorClass, PeerId, WireError};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::answer::answer;
use super::turns::{Asker, Turns};
use super::wire::{Ask, PartKind, Told, encode_manifest};
use crate::consensus::log::AppliedPosition;
use crate::crdt::manifest::Manifest;
use crate::ports::{ReadFn, SnapshotHandle, StateError, StateStore};
use crate::watch;

/// Serves shards.
pub struct Donor {
    state: Arc<dyn StateStore>,
    applied: watch::Receiver<u64>,
    /// Frozen states that are lent, by the index they show.
    lent: Mutex<Vec<(u64, Weak<dyn SnapshotHandle>)>>,
    turns: Turns,
}

impl fmt::Debug for Donor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Donor").finish_non_exhaustive()
    }
}

/// A frozen state that others are served from for as long as this is held.
#[derive(Debug)]
pub struct Lent {
    _handle: Arc<dyn SnapshotHandle>,
}

impl Donor {
    /// Serves `state`, of which `applied` tells the index.
    pub fn new(state: Arc<dyn StateStore>, applied: watch::Receiver<u64>) -> Self {
        Self { state, applied, lent: Mutex::new(Vec::new()), turns: Turns::new() }
    }

    /// From now on shards as of `index` are served from a frozen state, too, where the present one cannot tell.
    pub fn lend(&self, index: u64, handle: Arc<dyn SnapshotHandle>) -> Lent {
        let mut lent = self.lent.lock();
        lent.retain(|(_, handle)| handle.strong_count() > 0);
        lent.push((index, Arc::downgrade(&handle)));
        Lent { _handle: handle }
    }

    /// Answers a question of `from`.
    pub async fn answer(&self, from: PeerId, asker: Asker, ask: Ask) -> Result<Told, WireError> {
        if ask.shards().is_none() {
            return Err(WireError::new(ErrorClass::Invalid, "the shards asked about make no sense"));
        }
        let Some(slot) = self.turns.slot(from, asker) else { return Ok(Told::Busy) };
        let mut pace = slot.turn().await;
        let began = Instant::now();
        let told = self.tell(ask).await;
        pace.rest(asker, began.elapsed(), *self.applied.borrow());
        told.map_err(|error| WireError::from_error(error.class(), &error))
    }

    /// What every shard is now, if that is not before `at_least`: compressed, and its index.
    pub async fn manifest(&self, from: PeerId, asker: Asker, at_least: u64) -> Result<(u64, bytes::Bytes), WireError> {
        let unavailable = |reason: String| WireError::new(ErrorClass::Unavailable, reason);
        let slot = self.turns.slot(from, asker);
        let slot = slot.ok_or_else(|| unavailable("too many questions wait here".to_owned()))?;
        let mut pace = slot.turn().await;
        let began = Instant::now();
        let manifest = self.present().await;
        pace.rest(asker, began.elapsed(), *self.applied.borrow());
        let (index, manifest) = manifest.map_err(|error| WireError::from_error(error.class(), &error))?;
        if index < at_least {
            return Err(unavailable(format!("this peer has applied up to {index} only")));
        }
        Ok((index, encode_manifest(&manifest)))
    }

    async fn present(&self) -> Result<(u64, Manifest), StateError> {
        let (shards, applied) = self.state.shards().await?;
        let index = AppliedPosition::decode(applied.as_ref())?.index();
        let manifest = Manifest::of(applied.unwrap_or_default(), &shards);
        Ok((index, manifest.map_err(|error| StateError::InvalidSnapshot { what: error.to_string() })?))
    }

    async fn tell(&self, ask: Ask) -> Result<Told, StateError> {
        let index = ask.index;
        let lent = self.lent.lock().iter().find(|(of, _)| *of == index).and_then(|(_, handle)| handle.upgrade());
        if *self.applied.borrow() >= index {
            let again = ask.clone();
            let told = read(|look| self.state.read(look), move |view| answer(view, &again)).await?;
            if lent.is_none() || !has_gaps(&told) {
                return Ok(told);
            }
        }
        match lent {
            Some(frozen) => read(|look| frozen.read(look), move |view| answer(view, &ask)).await,
            None => Ok(Told::Behind),
        }
    }
}

/// Whether another state of this peer could tell more.
fn has_gaps(told: &Told) -> bool {
    let gap = |kind: &PartKind| matches!(kind, PartKind::BaseGone | PartKind::IndexGone);
    match told {
        Told::Shards { parts, .. } => parts.iter().any(|(_, kind, _)| gap(kind)),
        Told::Listings { listings } => listings.iter().any(|(_, kind, _)| gap(kind)),
        Told::Behind | Told::Busy => false,
    }
}

/// Runs a function on a view and brings back what it says.
pub(crate) async fn read<T, F, Fut>(on: impl FnOnce(ReadFn) -> Fut, look: F) -> Result<T, StateError>
where
    T: Send + 'static,
    F: FnOnce(&dyn crate::ports::StateView) -> Result<T, StateError> + Send + 'static,
    Fut: Future<Output = Result<(), StateError>>,
{
    let slot = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&slot);
    let run: ReadFn = Box::new(move |view| {
        *slot.lock() = Some(look(view)?);
        Ok(())
    });
    on(run).await?;
    let seen = seen.lock().take();
    seen.ok_or_else(|| StateError::Io { operation: "read", cause: "the store showed nothing".into() })
}

#[cfg(test)]
#[path = "donor_tests.rs"]
mod tests;
