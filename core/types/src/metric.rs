//! What peers tell each other about themselves.

use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

use crate::peer::PeerId;
use crate::time::Timestamp;

/// One value a peer tells the others, valid until it expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    /// `ping`, `freespace`, `reposize`, `pinqueue` or `tag:<name>`.
    pub name: String,
    /// The peer it speaks of.
    pub peer: PeerId,
    /// The value as text.
    pub value: String,
    /// When it stops counting, in nanoseconds since the Unix epoch.
    pub expire: i64,
    /// Whether it counts at all.
    pub valid: bool,
    /// The value as a number, greater is better.
    pub weight: i64,
    /// Whether peers with the same value form a group, to spread pins over.
    pub partitionable: bool,
    /// When it arrived here, in nanoseconds since the Unix epoch.
    pub received_at: i64,
}

impl Metric {
    /// The metric whose expiry says who is alive.
    pub const PING: &'static str = "ping";
    /// Free bytes of the node's repository.
    pub const FREESPACE: &'static str = "freespace";

    /// Whether it no longer counts at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expire < now.unix_nanos()
    }

    /// Whether it counts at `now`.
    pub fn is_usable(&self, now: Timestamp) -> bool {
        self.valid && !self.is_expired(now)
    }
}

/// The value of a `ping` metric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingValue {
    /// The peer's name for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub peer_name: String,
    /// The id of its IPFS node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ipfs_id: String,
    /// The addresses of its IPFS node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ipfs_addresses: Vec<Multiaddr>,
}

/// A metric that expired and was not renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// The expired metric.
    #[serde(flatten)]
    pub metric: Metric,
    /// When that was noticed.
    pub triggered_at: Timestamp,
}
