//! How much the tracker still has to do.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster_types::BoxError;

use crate::monitor::informer::{Informer, Reading};
use crate::ports::TrackerStore;

/// Tells `pinqueue`: the number of pins waiting. Less is better, in steps of a bucket so that small differences do not
/// outweigh what comes next in the allocation.
pub struct QueueInformer {
    store: Arc<dyn TrackerStore>,
    bucket: u64,
    ttl: Duration,
}

impl QueueInformer {
    /// An informer on the tracker's records; a `bucket` of 0 means no buckets.
    pub fn new(store: Arc<dyn TrackerStore>, bucket: u64, ttl: Duration) -> Self {
        Self { store, bucket, ttl }
    }
}

impl fmt::Debug for QueueInformer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueInformer").field("bucket", &self.bucket).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

#[async_trait]
impl Informer for QueueInformer {
    fn name(&self) -> &'static str {
        "pinqueue"
    }

    fn ttl(&self) -> Duration {
        self.ttl
    }

    async fn measure(&self) -> Result<Vec<Reading>, BoxError> {
        Ok(vec![reading(self.store.counts().queued, self.bucket)])
    }
}

fn reading(queued: u64, bucket: u64) -> Reading {
    let weight = -i64::try_from(queued / bucket.max(1)).unwrap_or(i64::MAX);
    Reading { name: "pinqueue".to_owned(), value: queued.to_string(), weight, partitionable: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_weighs_against_a_peer_in_whole_buckets() {
        assert_eq!(reading(250_000, 100_000).weight, -2);
        assert_eq!(reading(250_000, 100_000).value, "250000");
        assert_eq!(reading(99, 100).weight, 0);
        assert_eq!(reading(99, 0).weight, -99);
    }
}
