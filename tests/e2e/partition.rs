//! Promise P1 and P2 under cuts of the network: peers on machines of their own (network namespaces), cut apart while
//! clients write on all of them, killed and started there, and healed.
//!
//! `CLUSTER_PARTITION_ROUNDS` says how many cuts the random test makes (default 2; the acceptance run takes 50). The seed
//! is printed; `CLUSTER_PARTITION_SEED` replays the choices. Where there can be no namespaces the tests are skipped, or
//! fail if `REQUIRE_NAMESPACES` is set.

mod contest;
mod crdt;
mod events;
mod ledger;
mod load;
mod lone;
mod raft;
mod repair;

use std::time::Duration;

/// Peers of a cluster that is cut into two and three.
const PEERS: usize = 5;
/// How long a side of a cut may take to find itself and go on.
const TURN_LIMIT: Duration = Duration::from_secs(90);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
