//! Calls from peer to peer over libp2p streams: one long-lived stream per direction, peer and purpose.
//!
//! A stream carries the requests of the peer that opened it, and the answers to them, matched by id. `client` promises
//! that a call is written at most once and knows whether it was; `server` bounds what one peer can make this one do.

mod client;
mod codec;
mod server;

use cluster_core::ports::Purpose;
use libp2p::StreamProtocol;

pub(crate) use client::Calls;
pub(crate) use server::Server;

/// The name of a purpose's protocol on the wire.
pub fn protocol_of(purpose: Purpose) -> StreamProtocol {
    StreamProtocol::new(match purpose {
        Purpose::Append => "/ipfs-cluster-rs/1/append",
        Purpose::Control => "/ipfs-cluster-rs/1/control",
        Purpose::Call => "/ipfs-cluster-rs/1/call",
        Purpose::Bulk => "/ipfs-cluster-rs/1/bulk",
    })
}

/// The place of a purpose in a table with one place for each.
fn index_of(purpose: Purpose) -> usize {
    match purpose {
        Purpose::Append => 0,
        Purpose::Control => 1,
        Purpose::Call => 2,
        Purpose::Bulk => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_purpose_has_its_own_name_and_place() {
        for (place, purpose) in Purpose::ALL.into_iter().enumerate() {
            assert_eq!(index_of(purpose), place);
            assert_eq!(protocol_of(purpose).as_ref(), format!("/ipfs-cluster-rs/1/{}", purpose.as_str()));
        }
    }
}
