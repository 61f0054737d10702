//! Serves shards to peers that catch up: a small share of this peer's time, one answer after the other.
//!
//! **Invariant:** an answer is of exactly the log index asked about: from the present state when its tail reaches back
//! to that index, else from a frozen state that is lent for the time of a transfer.
//! **Invariant:** while writes come in, a donor rests [`REST`] times as long as an answer took, so that they keep their
//! pace.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use cluster_types::{ErrorClass, PeerId, WireError};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::answer::answer;
use super::wire::{Ask, PartKind, Told, encode_manifest};
use crate::consensus::log::AppliedPosition;
use crate::crdt::manifest::Manifest;
use crate::ports::{ReadFn, SnapshotHandle, StateError, StateStore};
use crate::watch;

/// How many times as long as an answer took a donor rests afterwards, if writes came in meanwhile: a seventeenth of one
/// core's time is left for serving. Three donors and their receiver on one machine with two cores then leave the writers
/// there more than four fifths of them.
pub const REST: u32 = 16;
/// The longest rest.
const LONGEST_REST: Duration = Duration::from_millis(250);
/// Questions of one peer that may wait; a receiver has half as many in flight.
const WAITING: u32 = 8;
/// Questions of all peers that may wait: the last of them is answered before its peer gives up.
const ALL_WAITING: u32 = 16;

/// Serves shards.
pub struct Donor {
    state: Arc<dyn StateStore>,
    applied: watch::Receiver<u64>,
    /// Frozen states that are lent, by the index they show.
    lent: Mutex<Vec<(u64, Weak<dyn SnapshotHandle>)>>,
    waiting: Mutex<BTreeMap<PeerId, u32>>,
    pace: tokio::sync::Mutex<Pace>,
}

/// When the next answer may begin.
struct Pace {
    free_at: Instant,
    /// The index applied when the last answer ended.
    seen: u64,
}

impl Pace {
    /// After an answer that took so long, when `applied` is the index applied.
    fn rest(&mut self, took: Duration, applied: u64) {
        if std::mem::replace(&mut self.seen, applied) != applied {
            self.free_at = Instant::now() + (took * REST).min(LONGEST_REST);
        }
    }
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

/// A question that waits.
struct Waiting<'a> {
    donor: &'a Donor,
    peer: PeerId,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.donor.waiting.lock();
        if let Some(count) = waiting.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.peer);
            }
        }
    }
}

impl Donor {
    /// Serves `state`, of which `applied` tells the index.
    pub fn new(state: Arc<dyn StateStore>, applied: watch::Receiver<u64>) -> Self {
        let pace = Pace { free_at: Instant::now(), seen: 0 };
        Self {
            state,
            applied,
            lent: Mutex::new(Vec::new()),
            waiting: Mutex::new(BTreeMap::new()),
            pace: tokio::sync::Mutex::new(pace),
        }
    }

    /// From now on shards as of `index` are served from a frozen state, too, where the present one cannot tell.
    pub fn lend(&self, index: u64, handle: Arc<dyn SnapshotHandle>) -> Lent {
        let mut lent = self.lent.lock();
        lent.retain(|(_, handle)| handle.strong_count() > 0);
        lent.push((index, Arc::downgrade(&handle)));
        Lent { _handle: handle }
    }

    /// Answers a question of `from`.
    pub async fn answer(&self, from: PeerId, ask: Ask) -> Result<Told, WireError> {
        if ask.shards().is_none() {
            return Err(WireError::new(ErrorClass::Invalid, "the shards asked about make no sense"));
        }
        let Some(_waiting) = self.wait(from) else { return Ok(Told::Busy) };
        let mut pace = self.pace.lock().await;
        sleep_until(pace.free_at).await;
        let began = Instant::now();
        let told = self.tell(ask).await;
        pace.rest(began.elapsed(), *self.applied.borrow());
        told.map_err(|error| WireError::from_error(error.class(), &error))
    }

    /// What every shard is now, if that is not before `at_least`: compressed, and its index.
    pub async fn manifest(&self, at_least: u64) -> Result<(u64, bytes::Bytes), WireError> {
        let failed = |error: &StateError| WireError::from_error(error.class(), error);
        let (shards, applied) = self.state.shards().await.map_err(|error| failed(&error))?;
        let index = AppliedPosition::decode(applied.as_ref()).map_err(|error| failed(&error))?.index();
        if index < at_least {
            return Err(WireError::new(ErrorClass::Unavailable, format!("this peer has applied up to {index} only")));
        }
        let manifest = Manifest::of(applied.unwrap_or_default(), &shards);
        let manifest = manifest.map_err(|error| WireError::from_error(error.class(), &error))?;
        Ok((index, encode_manifest(&manifest)))
    }

    fn wait(&self, peer: PeerId) -> Option<Waiting<'_>> {
        let mut waiting = self.waiting.lock();
        let all: u32 = waiting.values().sum();
        let count = waiting.get(&peer).copied().unwrap_or_default();
        if count >= WAITING || all >= ALL_WAITING {
            return None;
        }
        waiting.insert(peer, count + 1);
        Some(Waiting { donor: self, peer })
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
