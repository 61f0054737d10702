//! Calls from peer to peer: one request, one answer.
//!
//! Contract:
//! * both ends know each other's peer id for certain; a call never reaches another peer than the one named;
//! * at most once: the transport itself never repeats a call;
//! * [`TransportError::NotSent`] promises that the peer has not seen the call; every other error leaves it open;
//! * each [`Purpose`] has its own flow, so a large transfer never delays votes or heartbeats;
//! * a message larger than [`MAX_MESSAGE`] is refused by the sender, and ends the stream at the receiver;
//! * the deadline covers dialling, sending, and waiting for the answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::{Bandwidth, BoxError, ErrorClass, Multiaddr, PeerId};

/// The largest message in bytes: a bulk transfer of blocks (the largest has 2 MiB) or a log batch, with room.
pub const MAX_MESSAGE: usize = 8 * 1024 * 1024;

/// What a call is for; each has a stream of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// Log entries to a follower of the raft leader.
    Append,
    /// Heartbeats, votes, leadership.
    Control,
    /// Ordinary calls: writes to the leader, status questions.
    Call,
    /// Blocks and snapshots.
    Bulk,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Append, Self::Control, Self::Call, Self::Bulk];

    /// The last part of the protocol's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Control => "control",
            Self::Call => "call",
            Self::Bulk => "bulk",
        }
    }
}

/// A call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The peer has not seen the call.
    #[error("cannot reach peer {peer}")]
    NotSent {
        /// The peer that was called.
        peer: PeerId,
        /// Why not.
        #[source]
        cause: BoxError,
    },
    /// Nobody could be reached at an address.
    #[error("cannot connect to {address}")]
    Unreachable {
        /// The address that was dialled.
        address: Multiaddr,
        /// Why not.
        #[source]
        cause: BoxError,
    },
    /// The call was sent, the answer did not come in time.
    #[error("peer {peer} did not answer within {after:?}")]
    Timeout {
        /// The peer that was called.
        peer: PeerId,
        /// How long was waited.
        after: Duration,
    },
    /// The connection broke before the answer came.
    #[error("the connection to peer {peer} broke before it answered")]
    Broken {
        /// The peer that was called.
        peer: PeerId,
    },
    /// The message is larger than [`MAX_MESSAGE`].
    #[error("a message of {size} bytes is too large to send")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// The peer answered that it has too much to do; it has not looked at the call.
    #[error("peer {peer} is overloaded")]
    Overloaded {
        /// The peer that was called.
        peer: PeerId,
    },
}

impl TransportError {
    /// What the caller may do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotSent { .. } | Self::Unreachable { .. } | Self::Overloaded { .. } => ErrorClass::Unavailable,
            Self::Timeout { .. } | Self::Broken { .. } => ErrorClass::Unknown,
            Self::TooLarge { .. } => ErrorClass::Invalid,
        }
    }
}

/// Answers calls of other peers.
#[async_trait]
pub trait CallHandler: Send + Sync + 'static {
    /// Answers one call. `from` is certain. The body is hostile until checked.
    async fn handle(&self, from: PeerId, purpose: Purpose, body: Bytes) -> Bytes;
}

/// Calls other peers.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// This peer.
    fn local_peer(&self) -> PeerId;
    /// Sends `body` to `peer` and waits at most `timeout` for the answer.
    async fn call(
        &self,
        peer: PeerId,
        purpose: Purpose,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, TransportError>;
    /// From now on `handler` answers; calls that come before are refused as overloaded.
    fn serve(&self, handler: Arc<dyn CallHandler>);
    /// Connects to an address and says who answers there, at most within `timeout`.
    async fn dial(&self, address: Multiaddr, timeout: Duration) -> Result<PeerId, TransportError>;
    /// Remembers addresses of a peer, keeps them, and stays connected to it from now on.
    fn remember(&self, peer: PeerId, addresses: Vec<Multiaddr>);
    /// No longer stays connected to a peer, and forgets its addresses.
    fn forget(&self, peer: PeerId);
    /// The peers connected now, sorted.
    fn connected(&self) -> Vec<PeerId>;
    /// Known addresses of a peer, without `/p2p`.
    fn addresses_of(&self, peer: &PeerId) -> Vec<Multiaddr>;
    /// What went over each protocol; none if nobody counts.
    fn bandwidth(&self) -> Option<BTreeMap<String, Bandwidth>> {
        None
    }
    /// Where this peer can be reached, with `/p2p/<id>`.
    fn own_addresses(&self) -> Vec<Multiaddr>;
}
