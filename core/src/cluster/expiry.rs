//! Removes pins whose time is over.
//!
//! A reconciler on the leader: it reads the index of expiry times, so its cost is that of what has expired. Apply judges
//! each removal again by the time of its entry, so a pin whose time was moved meanwhile stays.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::watch;
use cluster_types::{BoxError, Cid, ErrorChain, ErrorClass, Role};
use futures::TryStreamExt;
use futures::future::join_all;

use crate::consensus::{Consensus, Outcome, Position, Request};
use crate::ports::{Clock, Scan, StateError, StateStore};
use crate::task::{OnExit, TaskGroup};

/// Pins that are removed together; they share log entries.
const BATCH: usize = 256;

/// Starts the reconciler; it looks every `interval`, and when this peer begins to lead.
pub fn start(
    interval: Duration,
    state: Arc<dyn StateStore>,
    consensus: Arc<dyn Consensus>,
    clock: Arc<dyn Clock>,
    tasks: &TaskGroup,
) {
    let position = consensus.position();
    let expiry = Expiry { interval, state, consensus, clock, position };
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
            if self.position.wait_for(|position| position.role == Role::Leader).await.is_err() {
                return Ok(());
            }
            match self.sweep().await {
                Ok(()) => {}
                Err(error) if error.class() == ErrorClass::Fatal => return Err(error.into()),
                Err(error) => tracing::warn!(error = %ErrorChain(&error), "cannot look for expired pins"),
            }
            tokio::select! {
                biased;
                told = self.position.wait_for(|position| position.role != Role::Leader) => {
                    if told.is_err() {
                        return Ok(());
                    }
                }
                () = tokio::time::sleep(self.interval) => {}
            }
        }
    }

    /// Removes what has expired, batch by batch, while this peer leads and removing works.
    async fn sweep(&self) -> Result<(), StateError> {
        while self.position.borrow().role == Role::Leader {
            let expired = self.expired().await?;
            let removed = self.remove(&expired).await;
            if removed > 0 {
                tracing::info!(pins = removed, "removed expired pins");
            }
            // What could not be removed comes first again; without progress the next round must do.
            if expired.len() < BATCH || removed == 0 {
                break;
            }
        }
        Ok(())
    }

    async fn expired(&self) -> Result<Vec<Cid>, StateError> {
        let mut rows = self.state.scan(Scan::Expiring { until: self.clock.now() });
        let mut expired = Vec::new();
        while expired.len() < BATCH {
            match rows.try_next().await? {
                Some(row) => expired.push(row.cid),
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
    use cluster_types::Timestamp;

    use super::*;
    use crate::cluster::repin::tests::FakeConsensus;
    use crate::testing::MemState;
    use crate::tracker::fakes::{TestClock, cid, pin_on, until};

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
        start(Duration::from_secs(300), store.clone(), consensus.clone(), clock, &tasks);
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
        start(Duration::from_secs(300), store.clone(), consensus.clone(), clock, &tasks);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(consensus.requests(), []);
        consensus.set_role(Role::Leader);
        until(|| store.pins() == 1).await;
        assert!(tasks.shut_down(Duration::from_secs(5)).await.is_empty());
    }
}
