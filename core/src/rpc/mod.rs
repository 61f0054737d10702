//! What peers ask each other, beside raft.
//!
//! A [`Call`] travels as one [`Transport`](crate::ports::Transport) message: a version byte, a kind byte, and
//! MessagePack with field names. The answer is a `Result` of [`Reply`] and
//! [`WireError`](cluster_types::WireError). Who may ask what stands in [`policy`].

mod client;
mod newcomers;
pub mod policy;
mod serve;
mod wire;

pub use client::PeerClient;
pub(crate) use client::PreparedCall;
pub use serve::{CallServer, PeerService};
pub use wire::{Call, NodeInfo, Reply, StatusPage, WireBlock};
pub(crate) use wire::{decode_raft_reply, encode_raft};

/// Bytes of a peer make no sense.
#[derive(Debug, thiserror::Error)]
#[error("malformed message: {reason}")]
pub struct WireFormatError {
    reason: String,
}
