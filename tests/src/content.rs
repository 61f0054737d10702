//! Content for tests that needs no network.

use cluster_types::Cid;

/// The CID of a tiny block that is its own name: nothing has to be fetched to pin it.
pub fn inline_cid(number: u64) -> Cid {
    // CIDv1, raw, identity multihash of eight bytes.
    let mut bytes = vec![1, 0x55, 0, 8];
    bytes.extend_from_slice(&number.to_be_bytes());
    Cid::from_bytes(&bytes).expect("an identity CID")
}

/// The same of 32 random bytes: as long as a usual CID, and as hard to compress.
pub fn random_inline_cid(number: u64) -> Cid {
    use rand::{Rng, SeedableRng};
    let mut bytes = vec![1, 0x55, 0, 32];
    bytes.resize(4 + 32, 0);
    rand::rngs::StdRng::seed_from_u64(number).fill_bytes(&mut bytes[4..]);
    Cid::from_bytes(&bytes).expect("an identity CID")
}
