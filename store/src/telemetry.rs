//! What the store counts about itself.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one store.
#[derive(Debug, Default)]
pub struct StoreTelemetry {
    flushes: AtomicU64,
}

impl StoreTelemetry {
    /// How often the write-ahead log was flushed to the disk: the promise is at most 1.1 per entry batch.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    pub(crate) fn count_flush(&self) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
    }
}
