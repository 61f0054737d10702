//! What the core tells Prometheus: counters of what was done, and gauges that are read when somebody asks.
//!
//! Names are those of ipfs-cluster where it has the number, without a suffix, since dashboards ask for them by these
//! names; `docs/compatibility.md` lists them.
//!
//! **Invariant:** nothing here walks the pinset, and nothing is computed unless somebody asks: every gauge is a number that
//! its room keeps anyway.

mod gauges;
mod node;
mod tally;

use prometheus_client::registry::Registry;

pub use gauges::ClusterGauges;
pub use node::CountedNode;
pub use tally::Tally;

/// What this peer asked of its IPFS node.
#[derive(Clone, Debug, Default)]
pub struct CoreTelemetry {
    /// Pins that were asked of the node, each attempt.
    pub pin_adds: Tally,
    /// Those that failed.
    pub pin_add_errors: Tally,
    /// Batches of blocks that were given to the node.
    pub block_puts: Tally,
    /// Those that it did not take.
    pub block_put_errors: Tally,
    /// Blocks that it took.
    pub blocks_added: Tally,
    /// Their bytes.
    pub blocks_added_size: Tally,
}

impl CoreTelemetry {
    /// Shows all of it in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let all = [
            ("pins_pin_add", "Total number of IPFS pin requests", &self.pin_adds),
            ("pins_pin_add_errors", "Total number of failed IPFS pin requests", &self.pin_add_errors),
            ("blocks_put", "Total number of requests that put blocks on IPFS", &self.block_puts),
            ("blocks_put_errors", "Total number of failed requests that put blocks on IPFS", &self.block_put_errors),
            ("blocks_added", "Total number of blocks added", &self.blocks_added),
            ("blocks_added_size", "Total size of blocks added in bytes", &self.blocks_added_size),
        ];
        for (name, help, tally) in all {
            registry.register(name, help, tally.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode_registry;

    use super::*;

    #[test]
    fn counters_have_the_names_of_the_original() {
        let telemetry = CoreTelemetry::default();
        telemetry.pin_adds.add(3);
        telemetry.blocks_added_size.add(1 << 40);
        let mut registry = Registry::with_prefix("ipfscluster");
        telemetry.register(&mut registry);
        let mut text = String::new();
        encode_registry(&mut text, &registry).unwrap();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect::<Vec<_>>();
        assert_eq!(
            types,
            [
                "ipfscluster_pins_pin_add counter",
                "ipfscluster_pins_pin_add_errors counter",
                "ipfscluster_blocks_put counter",
                "ipfscluster_blocks_put_errors counter",
                "ipfscluster_blocks_added counter",
                "ipfscluster_blocks_added_size counter",
            ]
        );
        assert!(text.contains("\nipfscluster_pins_pin_add 3\n"), "{text}");
        assert!(text.contains("\nipfscluster_blocks_added_size 1099511627776\n"), "{text}");
        assert!(text.contains("\nipfscluster_blocks_put_errors 0\n"), "{text}");
    }
}
