//! Keeps the IPFS nodes of one cluster connected to each other.
//!
//! A reconciler: woken when a peer is heard for the first time or after silence, and by a period. A node whose
//! addresses are new is tried at once, every node once a period.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::watch;
use cluster_types::{ErrorChain, Multiaddr, PeerId, PingValue, Protocol};
use futures::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Monitor;
use crate::ports::IpfsNode;

/// Nodes that are dialled at a time: a dead one may take its whole timeout.
const AT_A_TIME: usize = 4;

/// Connects until the peer stops.
pub(super) async fn keep_connected(
    monitor: &Monitor,
    node: &dyn IpfsNode,
    period: Duration,
    mut heard: watch::Receiver<u64>,
    stop: CancellationToken,
) {
    let mut tried: BTreeMap<PeerId, PingValue> = BTreeMap::new();
    let mut next_round = Instant::now() + period;
    loop {
        let known = monitor.nodes();
        let everyone = Instant::now() >= next_round;
        if everyone {
            next_round = Instant::now() + period;
        }
        let due = due(&known, &tried, everyone);
        tried = known;
        let connecting = futures::stream::iter(due).for_each_concurrent(AT_A_TIME, async |(peer, addresses)| {
            if let Err(error) = node.connect(addresses).await {
                tracing::debug!(peer = %peer, error = %ErrorChain(&error), "no connection to the IPFS node of a peer");
            }
        });
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = connecting => {}
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(next_round) => {}
            told = heard.changed() => if told.is_err() { return },
        }
    }
}

/// Whom to connect to now: everyone, or only those whose node is new. Addresses without a node's id are left out: one
/// would not know who answers.
fn due(
    known: &BTreeMap<PeerId, PingValue>,
    tried: &BTreeMap<PeerId, PingValue>,
    everyone: bool,
) -> Vec<(PeerId, Vec<Multiaddr>)> {
    let is_due = |peer: &PeerId, ping: &PingValue| {
        everyone || tried.get(peer).is_none_or(|before| before.ipfs_addresses != ping.ipfs_addresses)
    };
    known
        .iter()
        .filter(|(peer, ping)| is_due(peer, ping))
        .map(|(peer, ping)| {
            let named = |address: &&Multiaddr| matches!(address.iter().last(), Some(Protocol::P2p(_)));
            (*peer, ping.ipfs_addresses.iter().filter(named).cloned().collect::<Vec<_>>())
        })
        .filter(|(_, addresses)| !addresses.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping(addresses: &[&str]) -> PingValue {
        let ipfs_addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        PingValue { ipfs_id: "x".to_owned(), ipfs_addresses, ..PingValue::default() }
    }

    #[test]
    fn new_nodes_are_due_at_once_and_known_ones_once_a_period() {
        let named = "/ip4/10.0.0.1/tcp/4001/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
        let (here, there) = (PeerId::random(), PeerId::random());
        let known = BTreeMap::from([(here, ping(&[named])), (there, ping(&["/ip4/10.0.0.2/tcp/4001"]))]);
        let wanted = vec![(here, vec![named.parse().unwrap()])];
        assert_eq!(due(&known, &BTreeMap::new(), false), wanted);
        assert_eq!(due(&known, &known, false), []);
        assert_eq!(due(&known, &known, true), wanted);
    }
}
