//! The repository of an IPFS node.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cid::Cid;
use crate::null::null_is_empty;
use crate::peer::PeerId;

/// How full a node's repository is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RepoStat {
    /// Bytes used.
    pub repo_size: u64,
    /// Bytes allowed.
    pub storage_max: u64,
}

/// A block that garbage collection removed, or could not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcKey {
    /// The block.
    pub key: Option<Cid>,
    /// Why it could not be removed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// What garbage collection did on one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoGc {
    /// The peer.
    pub peer: PeerId,
    /// Its name for people.
    pub peername: String,
    /// What was removed.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub keys: Vec<GcKey>,
    /// Why nothing more was removed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// What garbage collection did on all peers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlobalRepoGc {
    /// Peer id to what it did.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub peer_map: BTreeMap<String, RepoGc>,
}
