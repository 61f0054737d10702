//! The sign of life: a peer's name, and where its IPFS node is.
//!
//! The ping never waits for the node: a task of its own asks the node who it is, and the ping tells the last good
//! answer. So a hanging node does not make its peer look dead.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster_types::{BoxError, Metric, Multiaddr, PingValue, Protocol};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::Monitor;
use super::informer::{Informer, Reading};
use super::window::MAX_ADDRESSES;
use crate::ports::IpfsNode;

/// What the next ping says.
pub(super) type OwnPing = Arc<Mutex<PingValue>>;

/// Tells `ping`.
#[derive(Debug)]
pub(super) struct PingInformer {
    pub(super) own: OwnPing,
    pub(super) interval: Duration,
}

#[async_trait]
impl Informer for PingInformer {
    fn name(&self) -> &'static str {
        "ping"
    }

    fn ttl(&self) -> Duration {
        self.interval * 2
    }

    async fn measure(&self) -> Result<Vec<Reading>, BoxError> {
        let value = serde_json::to_string(&*self.own.lock())?;
        Ok(vec![Reading { name: Metric::PING.to_owned(), value, weight: 0, partitionable: false }])
    }
}

/// Asks the node who it is, every `interval`; a change is announced at once.
pub(super) async fn watch_node(monitor: &Monitor, node: &dyn IpfsNode, interval: Duration, stop: CancellationToken) {
    loop {
        let answer = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            answer = node.id() => answer,
        };
        match answer {
            Ok(id) if !id.id.is_empty() => {
                let mut own = monitor.own.lock();
                let addresses: Vec<_> = worth_telling(id.addresses).into_iter().take(MAX_ADDRESSES).collect();
                let changed = own.ipfs_id != id.id || own.ipfs_addresses != addresses;
                own.ipfs_id = id.id;
                own.ipfs_addresses = addresses;
                drop(own);
                if changed {
                    monitor.announce();
                }
            }
            Ok(_nameless) => tracing::debug!("the IPFS node does not say who it is"),
            Err(error) => tracing::debug!(error = %error, "the IPFS node does not say who it is"),
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
    }
}

/// The addresses of a node that others can use: names, and IPs of a network. A node that has no such address is alone on its
/// machine with those that it can meet, so then it tells all.
fn worth_telling(addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
    let (good, rest): (Vec<_>, Vec<_>) = addresses.into_iter().partition(leads_elsewhere);
    if good.is_empty() { rest } else { good }
}

/// Whether an address begins with a name or a global unicast IP, private networks included.
fn leads_elsewhere(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_)) => true,
        Some(Protocol::Ip4(ip)) => {
            !(ip.is_loopback() || ip.is_unspecified() || ip.is_link_local() || ip.is_multicast() || ip.is_broadcast())
        }
        Some(Protocol::Ip6(ip)) => {
            !(ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local() || ip.is_multicast())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_ping_tells_names_and_addresses_of_a_network_only() {
        let useless = [
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/169.254.0.1/tcp/1",
            "/ip4/0.0.0.0/tcp/1",
            "/ip6/::1/tcp/1",
            "/ip6/fe80::1/tcp/1",
        ];
        let useful = ["/dns4/a.example/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip6/fd00::1/udp/1/quic-v1"];
        let all = addresses(&[useless.as_slice(), useful.as_slice()].concat());
        assert_eq!(worth_telling(all), addresses(&useful));
    }

    #[test]
    fn a_node_that_is_on_loopback_only_says_so() {
        let all = addresses(&["/ip4/127.0.0.1/tcp/1"]);
        assert_eq!(worth_telling(all.clone()), all);
    }
}
