//! What peers tell everybody on [`Topic::Log`](crate::ports::Topic::Log): one envelope, several kinds.
//!
//! A message is a version byte, a kind byte and a body; who said it is known from the signature of the gossip layer. A
//! new kind of message gets a number in [`Kind`] and a module of its own; peers that do not know it pass it on unread.
//!
//! Kinds so far: [`batch`], what the leader has committed, for followers; [`outbox`], how many writes a peer accepted
//! without a quorum, for members; [`digest`], what its pinset was.
//!
//! **Invariant:** nothing here is needed for agreement: a message that is lost costs its reader a question to a peer.

pub mod batch;
pub mod digest;
pub mod outbox;
mod publisher;

use bytes::Bytes;

pub use batch::{Batch, BatchEntry};
pub use digest::DigestNote;
pub use outbox::OutboxNote;
pub use publisher::{Feed, Queue, feed, publish};

/// Version of the envelope.
const VERSION: u8 = 1;

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Entries of the log that are on a quorum: a [`Batch`].
    Batch = 1,
    /// How many writes the sender accepted without a quorum: an [`OutboxNote`].
    Outbox = 2,
    /// What the sender's pinset was at a log index: a [`DigestNote`].
    Digest = 3,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Batch, Self::Outbox, Self::Digest];
}

/// Puts a body into the envelope.
pub fn seal(kind: Kind, body: &[u8]) -> Bytes {
    let mut message = Vec::with_capacity(2 + body.len());
    message.extend([VERSION, kind as u8]);
    message.extend_from_slice(body);
    message.into()
}

/// Takes a message out of its envelope; nothing if a later release wrote it.
pub fn open(message: &Bytes) -> Option<(Kind, Bytes)> {
    match message.as_ref() {
        [VERSION, kind, ..] => {
            let kind = Kind::ALL.into_iter().find(|known| *known as u8 == *kind)?;
            Some((kind, message.slice(2..)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_later_releases_are_left_alone() {
        let message = seal(Kind::Batch, b"body");
        assert_eq!(open(&message), Some((Kind::Batch, Bytes::from_static(b"body"))));
        assert_eq!(open(&seal(Kind::Batch, b"")), Some((Kind::Batch, Bytes::new())));
        for foreign in [&[][..], &[VERSION], &[VERSION, 0, 1], &[VERSION, 200], &[VERSION + 1, 1, 1]] {
            assert_eq!(open(&Bytes::copy_from_slice(foreign)), None, "{foreign:?}");
        }
    }
}
