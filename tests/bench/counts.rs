//! What peers counted, as they say when they stop.

use anyhow::{Context, Result, ensure};
use cluster_tests::process::ProcessCluster;

use crate::report::{self, Goal};

/// The line a peer logs when it has stopped in order.
const LAST_LINE: &str = "the store is closed";

/// What a peer counted from its first entry on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    flushes: u64,
    entries: u64,
}

impl Counts {
    /// Stops every peer of a cluster that was made for this measurement, and reads what each counted.
    pub(crate) async fn of_stopped(cluster: &ProcessCluster) -> Result<Vec<Self>> {
        let peers = 0..cluster.peers.len();
        let codes = futures::future::try_join_all(peers.clone().map(|peer| cluster.stop(peer))).await?;
        ensure!(codes.iter().all(|code| *code == Some(0)), "peers ended with {codes:?}");
        peers.map(|peer| Self::read(&cluster.log_tail(peer))).collect()
    }

    fn read(log: &str) -> Result<Self> {
        let line = log.lines().find(|line| line.contains(LAST_LINE));
        let line = line.with_context(|| format!("a peer did not say {LAST_LINE:?}:\n{log}"))?;
        let number = |field: &str| -> Result<u64> {
            let value = line.split_whitespace().find_map(|word| word.strip_prefix(field));
            Ok(value.with_context(|| format!("no {field} in {line:?}"))?.parse()?)
        };
        Ok(Self { flushes: number("flushes=")?, entries: number("applied_index=")? })
    }
}

/// Prints how often each peer flushed for the pins of `what`.
pub(crate) fn print(what: &str, counts: &[Counts], pins: usize) {
    for (peer, Counts { flushes, entries }) in counts.iter().enumerate() {
        let (per_entry, per_pin) = (*flushes as f64 / *entries as f64, *flushes as f64 / pins as f64);
        let figure = format!("{flushes} for {entries} entries, {per_pin:.3} per pin");
        report::judged(&format!("{what}, peer {peer}"), &figure, per_entry, "per entry", Goal::AtMost(1.1));
    }
}
