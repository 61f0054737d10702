//! Content for tests that needs no network.

use cluster_types::Cid;

/// The CID of a tiny block that is its own name: nothing has to be fetched to pin it.
pub fn inline_cid(number: u64) -> Cid {
    // CIDv1, raw, identity multihash of eight bytes.
    let mut bytes = vec![1, 0x55, 0, 8];
    bytes.extend_from_slice(&number.to_be_bytes());
    Cid::from_bytes(&bytes).expect("an identity CID")
}
