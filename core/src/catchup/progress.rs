//! How far a peer that catches up has come.

use std::time::Duration;

use cluster_types::CatchUp;
use tokio::time::Instant;

/// How far a pull has come. Cheap to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The log index it brings the state to.
    pub index: u64,
    /// Shards that are as they are to be.
    pub shards_done: usize,
    /// Shards there are to be brought.
    pub shards_total: usize,
    /// Bytes that came for it so far.
    pub bytes: u64,
    /// Log entries between the state and what it is brought to.
    pub lag_entries: u64,
    /// What the log's own clock says that makes.
    pub lag: Duration,
    /// When it began.
    pub began: Instant,
    /// Whether everything is here and is being put in place.
    pub installing: bool,
}

impl Progress {
    /// How long the rest takes at the pace so far; `None` before anything came.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        let left = self.shards_total.saturating_sub(self.shards_done);
        let done = u32::try_from(self.shards_done).ok().filter(|done| *done > 0)?;
        let each = now.saturating_duration_since(self.began) / done;
        Some(each.saturating_mul(u32::try_from(left).unwrap_or(u32::MAX)))
    }

    /// As a user sees it.
    pub fn report(&self, now: Instant) -> CatchUp {
        CatchUp {
            index: self.index,
            shards_done: self.shards_done as u64,
            shards_total: self.shards_total as u64,
            bytes: self.bytes,
            lag_entries: self.lag_entries,
            lag_seconds: self.lag.as_secs(),
            eta_seconds: self.remaining(now).map(|left| left.as_secs()),
            installing: self.installing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rest_takes_as_long_as_what_was_done() {
        let began = Instant::now();
        let mut progress = Progress {
            index: 9,
            shards_done: 0,
            shards_total: 40,
            bytes: 0,
            lag_entries: 9,
            lag: Duration::from_secs(3),
            began,
            installing: false,
        };
        let now = began + Duration::from_secs(10);
        assert_eq!(progress.remaining(now), None);
        progress.shards_done = 10;
        assert_eq!(progress.remaining(now), Some(Duration::from_secs(30)));
        assert_eq!(progress.report(now).eta_seconds, Some(30));
    }
}
