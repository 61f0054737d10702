//! What the store counts about itself.

use cluster_core::telemetry::Tally;
use prometheus_client::registry::Registry;

/// Counters of one store.
#[derive(Debug, Default)]
pub struct StoreTelemetry {
    flushes: Tally,
}

impl StoreTelemetry {
    /// How often the write-ahead log was flushed to the disk: the promise is at most 1.1 per entry batch.
    pub fn flushes(&self) -> u64 {
        self.flushes.total()
    }

    /// Shows all of it in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "store_flushes_total",
            "How often the database was flushed to the disk",
            self.flushes.clone(),
        );
    }

    pub(crate) fn count_flush(&self) {
        self.flushes.count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown() {
        let (telemetry, mut registry, mut text) = (StoreTelemetry::default(), Registry::default(), String::new());
        telemetry.register(&mut registry);
        telemetry.count_flush();
        prometheus_client::encoding::text::encode_registry(&mut text, &registry).unwrap();
        assert!(text.ends_with("# TYPE store_flushes_total counter\nstore_flushes_total 1\n"), "{text}");
    }
}
