//! A counter under the very name it is given.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;

/// Counts up. Clones count together.
///
/// The library's own counter is shown with `_total` behind its name, as OpenMetrics wants it. The names of the original have
/// none, and the text format that it and we serve (0.0.4) does not ask for it.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<AtomicU64>);

impl Tally {
    /// Counts one.
    pub fn count(&self) {
        self.add(1);
    }

    /// Counts so many.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// What was counted since the start.
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl EncodeMetric for Tally {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        // Written like a gauge: the name as it stands.
        encoder.encode_gauge(&self.total())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}
