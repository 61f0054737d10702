//! How the time that stopping may take is shared out.

use std::sync::Arc;
use std::time::Duration;

use cluster_core::task::TaskGroup;
use cluster_store::{BlockStore, Store};
use tokio::time::Instant;

/// How long stopping may take in all before what is late is named and left behind. Supervisors that kill wait longer.
pub(crate) const GRACE: Duration = Duration::from_secs(20);
/// The part of it that nothing before the databases may use up: they close last.
const FOR_CLOSING: Duration = Duration::from_secs(5);

/// The time that stopping may take, and who took too long.
pub(crate) struct Grace {
    ends: Instant,
    pub(crate) late: Vec<&'static str>,
}

impl Grace {
    pub(crate) fn new(length: Duration) -> Self {
        Self { ends: Instant::now() + length, late: Vec::new() }
    }

    /// At most `share` of what is left for all but the databases.
    pub(crate) fn share(&self, share: Duration) -> Duration {
        self.left().saturating_sub(FOR_CLOSING).min(share)
    }

    fn left(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }

    pub(crate) fn late(&mut self, name: &'static str) {
        self.late.push(name);
    }

    pub(crate) async fn shut_down(&mut self, group: &TaskGroup, share: Duration) {
        self.late.extend(group.shut_down(self.share(share)).await);
    }

    pub(crate) async fn wait<T>(
        &mut self,
        name: &'static str,
        share: Duration,
        step: impl Future<Output = T>,
    ) -> Option<T> {
        let limit = self.share(share);
        self.wait_for(name, limit, step).await
    }

    pub(crate) async fn wait_last<T>(&mut self, name: &'static str, step: impl Future<Output = T>) -> Option<T> {
        let limit = self.left();
        self.wait_for(name, limit, step).await
    }

    async fn wait_for<T>(&mut self, name: &'static str, limit: Duration, step: impl Future<Output = T>) -> Option<T> {
        let ended = tokio::time::timeout(limit, step).await.ok();
        if ended.is_none() {
            self.late(name);
        }
        ended
    }
}

/// Ends what a peer that could not be started has begun.
pub(crate) async fn shut_down(groups: &[TaskGroup; 4]) {
    let late = futures::future::join_all(groups.iter().map(|group| group.shut_down(GRACE / 4))).await.concat();
    if !late.is_empty() {
        tracing::warn!(?late, "these did not stop in time");
    }
}

/// Closes what a peer that could not be started has open: its parts know each other, so none of them is dropped.
pub(crate) async fn close(store: Store, blocks: Option<Arc<BlockStore>>) {
    if let Some(blocks) = blocks
        && let Err(error) = blocks.close().await
    {
        tracing::warn!(%error, "the block store did not close cleanly");
    }
    if let Err(error) = store.close().await {
        tracing::warn!(%error, "the store did not close cleanly");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn steps_that_hang_leave_the_databases_their_time() {
        let started = Instant::now();
        let mut grace = Grace::new(GRACE);
        for _ in 0..20 {
            assert_eq!(grace.wait("a step", GRACE / 4, std::future::pending::<()>()).await, None);
        }
        assert_eq!(started.elapsed().as_secs(), (GRACE - FOR_CLOSING).as_secs());
        assert_eq!(grace.wait_last("a database", std::future::ready(1)).await, Some(1));
        assert_eq!(grace.wait_last("another", std::future::pending::<()>()).await, None);
        assert_eq!(started.elapsed().as_secs(), GRACE.as_secs());
        assert_eq!(grace.late.len(), 21);
    }
}
