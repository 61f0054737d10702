//! Compares, slowly and for ever, what the node holds with what it should.
//!
//! One page of pinned records after the other, by cursor, each asked of the node by itself: nothing is concluded from
//! a listing that may be cut. What is missing becomes `unexpectedly_unpinned` and due, so the loop pins it again.

use std::time::Duration;

use cluster_types::{Cid, ErrorChain, PinDepth, StatusFilter, TrackerStatus};
use tokio_util::sync::CancellationToken;

use super::Tracker;
use crate::ports::{Settled, StateError, TrackedTask, TrackerRecord};

/// How fast the audit goes. The defaults ask twelve pins a second: a day for a million.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// Time between two pages.
    pub interval: Duration,
    /// Pins per page.
    pub page: usize,
    /// Time between two questions to the node.
    pub pause: Duration,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { interval: Duration::from_secs(60), page: 1000, pause: Duration::from_millis(20) }
    }
}

/// Audits until the peer stops.
pub(super) async fn run(tracker: &Tracker, config: &AuditConfig, stop: CancellationToken) {
    let mut cursor = None;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(config.interval) => {}
        }
        let audited = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            audited = page(tracker, config, cursor) => audited,
        };
        match audited {
            Ok(next) => cursor = next,
            Err(error) => tracing::debug!(error = %ErrorChain(&error), "the audit cannot use the store"),
        }
    }
}

/// Audits one page; returns where to go on, `None` for the beginning.
async fn page(tracker: &Tracker, config: &AuditConfig, cursor: Option<Cid>) -> Result<Option<Cid>, StateError> {
    let pinned = StatusFilter::of(&[TrackerStatus::Pinned]);
    let tasks = tracker.store.by_status(pinned, cursor, config.page).await?;
    let whole = tasks.len() >= config.page;
    let mut last = cursor;
    for task in tasks {
        let cid = task.cid;
        if !check(tracker, task).await? {
            return Ok(last);
        }
        last = Some(cid);
        tokio::time::sleep(config.pause).await;
    }
    Ok(last.filter(|_| whole))
}

/// Asks the node about one pin; false when it does not answer.
pub(super) async fn check(tracker: &Tracker, task: TrackedTask) -> Result<bool, StateError> {
    let TrackedTask { cid, record } = task;
    let Some(pin) = tracker.state.pin(cid).await? else { return Ok(true) };
    if !tracker.hold.holds(&pin) {
        return Ok(true);
    }
    match tracker.node.pinned(cid).await {
        Ok(depth) if holds(depth, pin.max_depth) => Ok(true),
        Ok(_) => {
            tracing::warn!(cid = %cid, "the IPFS node has lost a pin; it is pinned again");
            let now = tracker.clock.now();
            let generation = record.generation;
            let record =
                TrackerRecord { status: TrackerStatus::UnexpectedlyUnpinned, changed: now, due: Some(now), ..record };
            tracker.store.settle(vec![Settled { cid, generation, record: Some(record) }]).await?;
            tracker.poke.notify_one();
            Ok(true)
        }
        Err(error) => {
            tracing::debug!(error = %ErrorChain(&error), "the audit stops: the node does not answer");
            Ok(false)
        }
    }
}

/// Whether what the node keeps is as deep as wanted.
pub(super) fn holds(kept: Option<PinDepth>, wanted: PinDepth) -> bool {
    kept.is_some_and(|kept| kept == PinDepth::RECURSIVE || (wanted != PinDepth::RECURSIVE && kept.0 >= wanted.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deeper_pin_holds_a_shallower_one() {
        assert!(holds(Some(PinDepth::RECURSIVE), PinDepth::DIRECT));
        assert!(holds(Some(PinDepth(2)), PinDepth(1)));
        assert!(!holds(Some(PinDepth::DIRECT), PinDepth::RECURSIVE));
        assert!(!holds(None, PinDepth::DIRECT));
    }
}
