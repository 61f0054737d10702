//! How a pin is doing on one peer and on all of them.

use std::collections::BTreeMap;
use std::fmt;

use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

use crate::cid::Cid;
use crate::null::null_is_empty;
use crate::peer::PeerId;
use crate::time::Timestamp;

/// How a pin is doing on one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u16)]
pub enum TrackerStatus {
    /// Never a true answer; as a filter, all.
    #[default]
    Undefined = 0,
    /// The peer could not be reached, or its tracker failed.
    ClusterError = 2,
    /// The last attempt to pin failed.
    PinError = 4,
    /// The last attempt to unpin failed.
    UnpinError = 8,
    /// The node has it.
    Pinned = 16,
    /// The node is fetching it.
    Pinning = 32,
    /// The node is dropping it.
    Unpinning = 64,
    /// Not part of the pinset, or not pinned.
    Unpinned = 128,
    /// In the pinset, and other peers hold it.
    Remote = 256,
    /// Waits to be pinned.
    PinQueued = 512,
    /// Waits to be unpinned.
    UnpinQueued = 1024,
    /// A meta pin.
    Sharded = 2048,
    /// The node should have it, has not, and nothing is queued.
    UnexpectedlyUnpinned = 4096,
}

impl TrackerStatus {
    /// All but `undefined`.
    pub const ALL: [Self; 12] = [
        Self::ClusterError,
        Self::PinError,
        Self::UnpinError,
        Self::Pinned,
        Self::Pinning,
        Self::Unpinning,
        Self::Unpinned,
        Self::Remote,
        Self::PinQueued,
        Self::UnpinQueued,
        Self::Sharded,
        Self::UnexpectedlyUnpinned,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undefined => "undefined",
            Self::ClusterError => "cluster_error",
            Self::PinError => "pin_error",
            Self::UnpinError => "unpin_error",
            Self::Pinned => "pinned",
            Self::Pinning => "pinning",
            Self::Unpinning => "unpinning",
            Self::Unpinned => "unpinned",
            Self::Remote => "remote",
            Self::PinQueued => "pin_queued",
            Self::UnpinQueued => "unpin_queued",
            Self::Sharded => "sharded",
            Self::UnexpectedlyUnpinned => "unexpectedly_unpinned",
        }
    }

    /// The place of the status in a [`StatusFilter`].
    pub fn bit(self) -> u16 {
        self as u16
    }
}

impl fmt::Display for TrackerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which statuses a listing wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusFilter(u16);

impl StatusFilter {
    /// Every status.
    pub const ALL: Self = Self(0);

    /// The filter that wants exactly `statuses`; all if there are none.
    pub fn of(statuses: &[TrackerStatus]) -> Self {
        Self(statuses.iter().fold(0, |bits, status| bits | status.bit()))
    }

    /// From [`StatusFilter::bits`]; unknown bits are dropped.
    pub fn from_bits(bits: u16) -> Self {
        Self(bits & TrackerStatus::ALL.iter().fold(0, |all, status| all | status.bit()))
    }

    /// The bits, for the wire between peers.
    pub fn bits(self) -> u16 {
        self.0
    }

    /// Reads a comma list of names (`error` and `queued` stand for several); empty means all, unknown names are
    /// dropped, and nothing but unknown names, or `undefined`, gives `None`.
    pub fn parse(text: &str) -> Option<Self> {
        if text.trim().is_empty() {
            return Some(Self::ALL);
        }
        let mut bits = 0;
        for name in text.split(',').map(str::trim) {
            use TrackerStatus as S;
            bits |= match name {
                "error" => S::ClusterError.bit() | S::PinError.bit() | S::UnpinError.bit(),
                "queued" => S::PinQueued.bit() | S::UnpinQueued.bit(),
                _ => S::ALL.iter().find(|status| status.as_str() == name).map_or(0, |status| status.bit()),
            };
        }
        (bits != 0).then_some(Self(bits))
    }

    /// Whether a pin in `status` is wanted.
    pub fn matches(self, status: TrackerStatus) -> bool {
        self.0 == 0 || status == TrackerStatus::Undefined || self.0 & status.bit() != 0
    }

    /// Whether any of `statuses` is wanted.
    pub fn matches_any(self, statuses: &[TrackerStatus]) -> bool {
        statuses.iter().any(|status| self.matches(*status))
    }
}

/// How a pin is doing on one peer, as it stands in [`GlobalPinInfo::peer_map`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinInfoShort {
    /// The peer's name for people.
    pub peername: String,
    /// The id of its IPFS node, once known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ipfs_peer_id: String,
    /// The addresses of its IPFS node, once known.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub ipfs_peer_addresses: Vec<Multiaddr>,
    /// How the pin is doing.
    pub status: TrackerStatus,
    /// Last change of the running operation, or the pin's own time.
    pub timestamp: Timestamp,
    /// Why it is not where it should be; empty when it is.
    pub error: String,
    /// How often it was tried; 0 once pinned.
    pub attempt_count: u32,
    /// Whether it is served before others.
    pub priority_pin: bool,
}

/// How a pin is doing on one peer, as peers tell each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinInfo {
    /// The pin.
    pub cid: Cid,
    /// Its name.
    pub name: String,
    /// The peer that answers.
    pub peer: PeerId,
    /// The peers that hold the pin; empty means every peer.
    #[serde(deserialize_with = "null_is_empty")]
    pub allocations: Vec<PeerId>,
    /// Where the content can be fetched.
    #[serde(deserialize_with = "null_is_empty")]
    pub origins: Vec<Multiaddr>,
    /// When it was pinned.
    pub created: Timestamp,
    /// Free text by key.
    #[serde(deserialize_with = "null_is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// How it is doing there.
    #[serde(flatten)]
    pub info: PinInfoShort,
}

/// How a pin is doing on all peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlobalPinInfo {
    /// The pin.
    pub cid: Cid,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// The peers that hold it; empty means every peer.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub allocations: Vec<PeerId>,
    /// Where the content can be fetched.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub origins: Vec<Multiaddr>,
    /// When it was pinned.
    #[serde(default)]
    pub created: Timestamp,
    /// Free text by key.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Peer id to how it is doing there.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub peer_map: BTreeMap<String, PinInfoShort>,
}

impl GlobalPinInfo {
    /// What `info` says of the pin, with nothing in the peer map yet.
    pub fn from_pin_info(info: &PinInfo) -> Self {
        Self {
            cid: info.cid,
            name: info.name.clone(),
            allocations: info.allocations.clone(),
            origins: info.origins.clone(),
            created: info.created,
            metadata: info.metadata.clone(),
            peer_map: BTreeMap::new(),
        }
    }

    /// Adds what one peer says.
    pub fn add(&mut self, peer: &PeerId, info: PinInfoShort) {
        self.peer_map.insert(peer.to_base58(), info);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_in_the_original() {
        assert_eq!(StatusFilter::parse(" "), Some(StatusFilter::ALL));
        assert_eq!(StatusFilter::parse("undefined"), None);
        assert_eq!(StatusFilter::parse("bogus"), None);
        let filter = StatusFilter::parse("error, pinned,bogus").unwrap();
        assert!(filter.matches(TrackerStatus::PinError) && filter.matches(TrackerStatus::Pinned));
        assert!(!filter.matches(TrackerStatus::Remote));
        assert_eq!(StatusFilter::from_bits(filter.bits()), filter);
    }

    #[test]
    fn names_on_the_wire_are_those_of_the_filters() {
        for status in TrackerStatus::ALL {
            assert_eq!(serde_json::to_string(&status).unwrap(), format!("\"{}\"", status.as_str()));
        }
    }
}
