//! The one check of blocks that come from outside: both adapters take and refuse the same ones.

use cluster_core::ports::IpfsError;
use cluster_core::unixfs::{MAX_BLOCK, verify};
use cluster_types::Cid;

/// Refuses a block that is not what its CID names, or too large to be exchanged.
pub(crate) fn check_block(cid: &Cid, data: &[u8]) -> Result<(), IpfsError> {
    let bad = |reason: String| IpfsError::BadBlock { cid: *cid, reason };
    if data.len() > MAX_BLOCK {
        return Err(bad(format!("{} bytes are more than the {MAX_BLOCK} a block may have", data.len())));
    }
    verify(cid, data).map_err(|error| bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    use cluster_core::unixfs::CidBuilder;
    use cluster_types::Codec;

    use super::*;

    #[test]
    fn a_block_must_match_its_cid() {
        for name in ["sha2-256", "sha1", "dbl-sha2-256", "blake2b-160", "blake2s-256", "blake3"] {
            let cid = CidBuilder::new(1, name).unwrap().cid(Codec::RAW, b"right");
            assert!(check_block(&cid, b"right").is_ok(), "{name}");
            assert!(matches!(check_block(&cid, b"wrong"), Err(IpfsError::BadBlock { .. })), "{name}");
        }
        let large = vec![0; MAX_BLOCK + 1];
        let cid = CidBuilder::new(1, "sha2-256").unwrap().cid(Codec::RAW, &large);
        assert!(matches!(check_block(&cid, &large), Err(IpfsError::BadBlock { .. })));
    }
}
