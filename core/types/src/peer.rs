//! Who a cluster member is.

pub use libp2p_identity::PeerId;

use crate::cid::Cid;

/// Multicodec `libp2p-key`: a peer id written as a CID.
const LIBP2P_KEY: u64 = 0x72;

/// A text is not a peer id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid peer id {text:?}")]
pub struct PeerIdError {
    text: String,
}

/// Reads a peer id in base58 (`12D3Koo…`, `Qm…`) or as a libp2p-key CID.
pub fn parse_peer_id(text: &str) -> Result<PeerId, PeerIdError> {
    let fail = || PeerIdError { text: text.chars().take(80).collect() };
    if let Ok(peer) = text.parse::<PeerId>() {
        return Ok(peer);
    }
    let cid: Cid = text.parse().map_err(|_| fail())?;
    if cid.codec() != LIBP2P_KEY {
        return Err(fail());
    }
    PeerId::from_bytes(&cid.hash_bytes()).map_err(|_| fail())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base58_and_cid_forms_name_the_same_peer() {
        let text = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
        let peer = parse_peer_id(text).unwrap();
        let hash = multihash::Multihash::from_bytes(&peer.to_bytes()).unwrap();
        let cid = Cid::new_v1(LIBP2P_KEY, hash);
        assert_eq!(parse_peer_id(&cid.to_string()).unwrap(), peer);
        assert!(parse_peer_id("nobody").is_err());
    }
}
