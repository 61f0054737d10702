//! The IPFS data model: dag-pb, UnixFS, and which blocks a block links to.

use cluster_types::Cid;

/// A block cannot be read as its codec says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block {cid} is not valid {codec}: {reason}")]
pub struct DagError {
    /// The block.
    pub cid: Cid,
    /// What it should be.
    pub codec: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

/// The blocks a block links to, in order: none for `raw`, the links of a `dag-pb` or `dag-cbor` block.
pub fn links(cid: &Cid, _data: &[u8]) -> Result<Vec<Cid>, DagError> {
    Err(DagError { cid: *cid, codec: "any", reason: "in work".to_owned() })
}
