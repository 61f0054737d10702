//! The sign of life: a peer's name, and where its IPFS node is.
//!
//! The ping never waits for the node: a task of its own asks the node who it is, and the ping tells the last good
//! answer. So a hanging node does not make its peer look dead.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster_types::{BoxError, Metric, PingValue};
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
                let addresses: Vec<_> = id.addresses.into_iter().take(MAX_ADDRESSES).collect();
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
