//! Whose question a donor answers next, and when.
//!
//! **Invariant:** a stranger's turn comes only when no member waits, and what strangers ask neither takes the slots of
//! members nor makes members rest.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_types::PeerId;
use parking_lot::Mutex;
use tokio::sync::MutexGuard;
use tokio::time::{Instant, sleep_until};

use crate::watch;

/// How many times as long as an answer took a donor rests afterwards, if writes came in meanwhile: a seventeenth of one
/// core's time is left for serving. Three donors and their receiver on one machine with two cores then leave the writers
/// there more than four fifths of them.
pub const REST: u32 = 16;
/// The longest rest.
pub(super) const LONGEST_REST: Duration = Duration::from_millis(250);
/// Questions of one peer that may wait; a receiver has half as many in flight.
pub(super) const WAITING: u32 = 8;
/// Questions of all members that may wait, and of all strangers: the last of the members' is answered before its peer
/// gives up.
const ALL_WAITING: u32 = 16;

/// Who asks a donor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A member of the cluster, or whom a follower trusts.
    Member,
    /// A peer that only knows the secret: a follower, or one that is not in the membership yet.
    Stranger,
}

/// Hands out slots and turns.
pub(super) struct Turns {
    members: Mutex<BTreeMap<PeerId, u32>>,
    strangers: Mutex<BTreeMap<PeerId, u32>>,
    /// Questions of members that wait or are being answered.
    members_waiting: watch::Sender<u32>,
    /// Held by the stranger whose turn is next.
    next_stranger: tokio::sync::Mutex<()>,
    pace: tokio::sync::Mutex<Pace>,
}

/// When the next answer may begin.
pub(super) struct Pace {
    member_free_at: Instant,
    stranger_free_at: Instant,
    /// The index applied when the last answer ended.
    seen: u64,
}

impl Pace {
    /// After an answer to `asker` that took so long, when `applied` is the index applied.
    pub(super) fn rest(&mut self, asker: Asker, took: Duration, applied: u64) {
        if std::mem::replace(&mut self.seen, applied) != applied {
            self.stranger_free_at = Instant::now() + (took * REST).min(LONGEST_REST);
            if asker == Asker::Member {
                self.member_free_at = self.stranger_free_at;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn rest_of(&self, asker: Asker) -> Duration {
        let free_at = match asker {
            Asker::Member => self.member_free_at,
            Asker::Stranger => self.stranger_free_at,
        };
        free_at.saturating_duration_since(Instant::now())
    }
}

/// A question that waits or is being answered.
pub(super) struct Slot<'a> {
    turns: &'a Turns,
    peer: PeerId,
    asker: Asker,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut waiting = self.turns.waiting(self.asker).lock();
        if let Some(count) = waiting.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.peer);
            }
        }
        if self.asker == Asker::Member {
            self.turns.members_waiting.send_modify(|count| *count -= 1);
        }
    }
}

impl Slot<'_> {
    /// Waits until this question may be answered; it may be as long as what is returned is held.
    pub(super) async fn turn(&self) -> MutexGuard<'_, Pace> {
        match self.asker {
            Asker::Member => {
                let pace = self.turns.pace.lock().await;
                sleep_until(pace.member_free_at).await;
                pace
            }
            Asker::Stranger => self.turns.strangers_turn().await,
        }
    }
}

impl Turns {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            members: Mutex::default(),
            strangers: Mutex::default(),
            members_waiting: watch::Sender::new(0),
            next_stranger: tokio::sync::Mutex::new(()),
            pace: tokio::sync::Mutex::new(Pace { member_free_at: now, stranger_free_at: now, seen: 0 }),
        }
    }

    /// A slot for a question; none when as many wait as may.
    pub(super) fn slot(&self, peer: PeerId, asker: Asker) -> Option<Slot<'_>> {
        let mut waiting = self.waiting(asker).lock();
        let all: u32 = waiting.values().sum();
        let count = waiting.get(&peer).copied().unwrap_or_default();
        if count >= WAITING || all >= ALL_WAITING {
            return None;
        }
        waiting.insert(peer, count + 1);
        if asker == Asker::Member {
            self.members_waiting.send_modify(|count| *count += 1);
        }
        Some(Slot { turns: self, peer, asker })
    }

    fn waiting(&self, asker: Asker) -> &Mutex<BTreeMap<PeerId, u32>> {
        match asker {
            Asker::Member => &self.members,
            Asker::Stranger => &self.strangers,
        }
    }

    /// A stranger rests without holding the turn, so that a member that comes meanwhile need not wait for it.
    async fn strangers_turn(&self) -> MutexGuard<'_, Pace> {
        let _next = self.next_stranger.lock().await;
        let mut members = self.members_waiting.subscribe();
        loop {
            // The sender lives as long as `self`.
            let _ = members.wait_for(|waiting| *waiting == 0).await;
            let pace = self.pace.lock().await;
            let free_at = pace.stranger_free_at;
            if *self.members_waiting.borrow() > 0 {
                continue;
            }
            if free_at <= Instant::now() {
                return pace;
            }
            drop(pace);
            sleep_until(free_at).await;
        }
    }

    #[cfg(test)]
    pub(super) async fn hold(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().await
    }
}
