//! Removes pins whose time is over.
//!
//! A reconciler on the leader, and without a quorum on every voter for its [share](super::duty): it reads the index of
//! expiry times, so its cost is that of what has expired. Apply judges each removal again by the time of its entry, so a
//! pin whose time was moved meanwhile stays.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::watch;
use cluster_types::{BoxError, Cid, ErrorChain, ErrorClass, Role};
use futures::TryStreamExt;
use futures::future::join_all;

use super::duty::{Duty, Outlook};
use crate::consensus::{Consensus, Outcome, Position, Request};
use crate::ports::{Clock, Scan, StateError, StateStore};
use crate::task::{OnExit, TaskGroup};

/// Pins that are removed together; they share log entries.
const BATCH: usize = 256;
/// Pins that are looked for together: each look passes those of other peers again, where several share the work.
const PAGE: usize = 16 * BATCH;

/// Starts the reconciler; it looks every `interval`, and when this peer begins to lead.
pub fn start(
    interval: Duration,
    state: Arc<dyn StateStore>,
    consensus: Arc<dyn Consensus>,
    clock: Arc<dyn Clock>,
    outlook: Outlook,
    tasks: &TaskGroup,
) {
    let position = consensus.position();
    let expiry = Expiry { interval, state, consensus, clock, outlook, position };
    let stop = tasks.stop_token();
    tasks.spawn("expiry", OnExit::StopPeer, async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            end = expiry.run() => end,
        }
    });
}

struct Expiry {
    interval: Duration,
    state: Arc<dyn StateStore>,
    consensus: Arc<dyn Consensus>,
    clock: Arc<dyn Clock>,
    outlook: Outlook,
    position: watch::Receiver<Position>,
}

impl fmt::Debug for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expiry").field("interval", &self.interval).finish_non_exhaustive()
    }
}

impl Expiry {
    async fn run(mut self) -> Result<(), BoxError> {
        loop {
            let leads = self.position.borrow().role == Role::Leader;
            match self.sweep().await {
                Ok(()) => {}
                Err(error) if error.class() == ErrorClass::Fatal => return Err(error.into()),
                Err(error) => tracing::warn!(error = %ErrorChain(&error), "cannot look for expired pins"),
            }
            tokio::select! {
                biased;
                told = self.position.wait_for(|position| (position.role == Role::Leader) != leads) => {
                    if told.is_err() {
                        return Ok(());
                    }
                }
                () = tokio::time::sleep(self.interval) => {}
            }
        }
    }

    fn duty(&self) -> Option<Duty> {
        self.outlook.duty(self.consensus.as_ref(), &self.position)
    }

    /// Removes what has expired, batch by batch, while it is on this peer to do so and removing works.
    async fn sweep(&self) -> Result<(), StateError> {
        while let Some(duty) = self.duty() {
            let expired = self.expired(&duty).await?;
            for batch in expired.chunks(BATCH) {
                if self.duty().as_ref() != Some(&duty) {
                    break;
                }
                let removed = self.remove(batch).await;
                if removed == 0 {
                    // It would come first again; the next round must do.
                    return Ok(());
                }
                tracing::info!(pins = removed, "removed expired pins");
            }
            if expired.len() < PAGE {
                break;
            }
        }
        Ok(())
    }

    /// Of what has expired, the first that is on this peer.
    async fn expired(&self, duty: &Duty) -> Result<Vec<Cid>, StateError> {
        let mut rows = self.state.scan(Scan::Expiring { until: self.clock.now() });
        let mut expired = Vec::new();
        while expired.len() < PAGE {
            match rows.try_next().await? {
                Some(row) if duty.covers(&row.cid) => expired.push(row.cid),
                Some(_) => {}
                None => break,
            }
        }
        Ok(expired)
    }

    /// Asks for the removal of pins; returns how many were removed.
    async fn remove(&self, cids: &[Cid]) -> usize {
        let asked = cids.iter().map(|cid| self.consensus.submit(Request::Expire { cid: *cid }));
        let mut removed = 0;
        for (cid, answer) in cids.iter().zip(join_all(asked).await) {
            match answer {
                Ok(receipt) if matches!(receipt.outcome, Outcome::Unpinned(_)) => removed += 1,
                Ok(receipt) => tracing::debug!(cid = %cid, outcome = ?receipt.outcome, "an expired pin stays"),
                Err(error) => tracing::debug!(cid = %cid, error = %ErrorChain(&error), "an expired pin stays"),
            }
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use cluster_types::{PeerId, Timestamp};

    use super::*;
    use crate::cluster::repin::tests::FakeConsensus;
    use crate::testing::MemState;
    use crate::tracker::fakes::{TestClock, cid, pin_on, until};

    const GRACE: Duration = Duration::from_secs(60);

    fn outlook(peer: PeerId) -> Outlook {
        Outlook { peer, suspects: watch::Sender::new(BTreeSet::new()).subscribe(), grace: GRACE }
    }

    fn store_with_expiry(clock: &TestClock, pins: u32) -> Arc<MemState> {
        let store = Arc::new(MemState::default());
        for n in 0..pins {
            let mut pin = pin_on(cid(n), &[]);
            pin.options.expire_at = clock.now().saturating_add(Duration::from_secs(10));
            store.put(pin);
        }
        store.put(pin_on(cid(pins), &[]));
        store
    }

    #[tokio::test(start_paused = true)]
    async fn expired_pins_are_removed_and_others_stay() {
        let clock = Arc::new(TestClock::new());
        let many = u32::try_from(BATCH).unwrap() + 3;
        let store = store_with_expiry(&clock, many);
        let consensus = FakeConsensus::leading(Arc::clone(&store), None);
        let tasks = TaskGroup::new();
        start(Duration::from_secs(300), store.clone(), consensus.clone(), clock, outlook(PeerId::random()), &tasks);
        until(|| store.pins() == 1).await;
        assert_eq!(consensus.requests().len(), usize::try_from(many).unwrap());
        assert!(store.pin_now(&cid(many)).is_some_and(|pin| pin.options.expire_at == Timestamp::ZERO));
        assert!(tasks.shut_down(Duration::from_secs(5)).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_leader_removes() {
        let clock = Arc::new(TestClock::new());
        let store = store_with_expiry(&clock, 1);
        let consensus = FakeConsensus::leading(Arc::clone(&store), None);
        consensus.set_role(Role::Voter);
        let tasks = TaskGroup::new();
        start(Duration::from_secs(300), store.clone(), consensus.clone(), clock, outlook(PeerId::random()), &tasks);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(consensus.requests(), []);
        consensus.set_role(Role::Leader);
        until(|| store.pins() == 1).await;
        assert!(tasks.shut_down(Duration::from_secs(5)).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_quorum_every_pin_is_removed_by_its_closest_peer() {
        let clock = Arc::new(TestClock::new());
        let peers = [(); 2].map(|()| PeerId::random());
        let mut left = Vec::new();
        for peer in peers {
            let store = store_with_expiry(&clock, 40);
            let consensus = FakeConsensus::leading(Arc::clone(&store), None);
            consensus.set_role(Role::Voter);
            for member in peers {
                consensus.join(member);
            }
            consensus.cut_off();
            let tasks = TaskGroup::new();
            let interval = GRACE / 4;
            start(interval, store.clone(), consensus.clone(), clock.clone(), outlook(peer), &tasks);
            tokio::time::sleep(GRACE / 2).await;
            assert_eq!(consensus.requests(), [], "not at the first silence");
            tokio::time::sleep(GRACE * 2).await;
            left.push((0..40).filter(|n| store.pin_now(&cid(*n)).is_some()).collect::<BTreeSet<u32>>());
            assert!(tasks.shut_down(Duration::from_secs(5)).await.is_empty());
        }
        assert!(left[0].is_disjoint(&left[1]), "nothing is left to nobody");
        assert_eq!(left[0].len() + left[1].len(), 40, "and nothing is done twice");
    }
}
