//! Small messages to every peer.
//!
//! Contract: best effort (a message may be lost, delayed, or come in another order), never delivered twice within a
//! minute, and never to the publisher itself. `from` is the signer of the message, verified. A message larger than
//! [`Topic::max_message`] is refused, and what one peer says in excess may be lost. A receiver that does not keep up loses
//! the oldest messages, and this is counted. Publishing while nobody listens is not an error.

use async_trait::async_trait;
use bytes::Bytes;
use cluster_types::{ErrorClass, PeerId};
use tokio::sync::broadcast;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Metrics of peers.
    Metrics,
    /// Progress of the shared log.
    Log,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Metrics, Self::Log];

    /// The largest message in bytes.
    pub const fn max_message(self) -> usize {
        match self {
            // All metrics of one peer at once.
            Self::Metrics => 128 * 1024,
            // A batch of entries (256 KiB), with room for what is around it.
            Self::Log => 512 * 1024,
        }
    }

    /// The last part of the topic's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Log => "log",
        }
    }
}

/// A message, and who signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GossipMessage {
    /// The signer.
    pub from: PeerId,
    /// What it said.
    pub data: Bytes,
}

/// A message could not be published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GossipError {
    /// It is larger than [`Topic::max_message`].
    #[error("a message of {size} bytes is too large to publish")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// The network is shutting down or overloaded.
    #[error("the network does not take messages now")]
    Closed,
}

impl GossipError {
    /// What the caller may do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::TooLarge { .. } => ErrorClass::Invalid,
            Self::Closed => ErrorClass::Unavailable,
        }
    }
}

/// Publishes and receives small messages.
#[async_trait]
pub trait Gossip: Send + Sync + 'static {
    /// Sends `data` to everyone who listens on `topic`.
    async fn publish(&self, topic: Topic, data: Bytes) -> Result<(), GossipError>;
    /// Messages of others on `topic`, from now on.
    fn subscribe(&self, topic: Topic) -> broadcast::Receiver<GossipMessage>;
}
