//! Who answers, and who sees whom.

use std::collections::BTreeMap;

use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

use crate::null::{null_is_empty, nulls_are_empty};
use crate::peer::PeerId;

/// What a peer says of itself (`GET /id`, `GET /peers`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Id {
    /// The peer.
    pub id: PeerId,
    /// Where it listens, with `/p2p/<id>`.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub addresses: Vec<Multiaddr>,
    /// The members, itself included, sorted.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub cluster_peers: Vec<PeerId>,
    /// Known addresses of the other members.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub cluster_peers_addresses: Vec<Multiaddr>,
    /// Version of the program.
    #[serde(default)]
    pub version: String,
    /// Always empty, kept for clients.
    #[serde(default)]
    pub commit: String,
    /// Protocol name of the calls between peers.
    #[serde(default)]
    pub rpc_protocol_version: String,
    /// Why the rest is empty; empty when it is not.
    #[serde(default)]
    pub error: String,
    /// Its IPFS node.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub ipfs: IpfsId,
    /// Its name for people.
    #[serde(default)]
    pub peername: String,
    /// How far it has come, while it catches up with the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catching_up: Option<CatchUp>,
}

/// How far a peer that catches up with the others has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatchUp {
    /// The log index it is brought to; the log goes on from there.
    pub index: u64,
    /// Shards that are as they are to be.
    pub shards_done: u64,
    /// Shards that are to be brought.
    pub shards_total: u64,
    /// Bytes that came for it so far.
    pub bytes: u64,
    /// Log entries that are missing.
    pub lag_entries: u64,
    /// How long before those entries the state stopped, in seconds of the log's own clock.
    pub lag_seconds: u64,
    /// How long the rest takes at the pace so far, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
    /// Whether everything has come and is being put in place.
    #[serde(default)]
    pub installing: bool,
}

impl Id {
    /// The protocol name in [`Id::rpc_protocol_version`].
    pub const RPC_PROTOCOL: &'static str = "/ipfscluster/1.0/rpc";

    /// What is known of a peer that did not answer.
    pub fn unreachable(id: PeerId, error: String) -> Self {
        Self {
            id,
            addresses: Vec::new(),
            cluster_peers: Vec::new(),
            cluster_peers_addresses: Vec::new(),
            version: String::new(),
            commit: String::new(),
            rpc_protocol_version: String::new(),
            error,
            ipfs: IpfsId::default(),
            peername: String::new(),
            catching_up: None,
        }
    }
}

/// What an IPFS node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpfsId {
    /// The node's peer id; empty when it does not answer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Where it listens.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub addresses: Vec<Multiaddr>,
    /// Why the rest is empty; empty when it is not.
    #[serde(default)]
    pub error: String,
}

/// Who is connected to whom (`GET /health/graph`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectGraph {
    /// The peer that was asked.
    pub cluster_id: PeerId,
    /// Peer to its name.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub id_to_peername: BTreeMap<String, String>,
    /// IPFS node to the nodes it is connected to.
    #[serde(default, deserialize_with = "nulls_are_empty")]
    pub ipfs_links: BTreeMap<String, Vec<String>>,
    /// Peer to the peers it is connected to.
    #[serde(default, deserialize_with = "nulls_are_empty")]
    pub cluster_links: BTreeMap<String, Vec<String>>,
    /// Peer to whether the asked peer trusts it.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub cluster_trust_links: BTreeMap<String, bool>,
    /// Peer to its IPFS node.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub cluster_to_ipfs: BTreeMap<String, String>,
}
