//! What is said on [`Topic::Log`](crate::ports::Topic::Log): a version, a kind, a body.

use bytes::Bytes;

const VERSION: u8 = 1;
const OUTBOX: u8 = 1;
const DIGEST: u8 = 2;

/// A message for everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broadcast {
    /// So many writes did the sender accept without a quorum, ever: the number of the last of them.
    Outbox {
        /// The number.
        last: u64,
    },
    /// So was the sender's pinset at a log index.
    Digest {
        /// The log index.
        index: u64,
        /// The root digest.
        root: [u8; 32],
    },
}

/// Bytes are not a message, or one of another release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no message of the log")]
pub struct BroadcastError;

impl Broadcast {
    /// The encoded form.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Outbox { last } => [&[VERSION, OUTBOX][..], &last.to_be_bytes()].concat().into(),
            Self::Digest { index, root } => [&[VERSION, DIGEST][..], &index.to_be_bytes(), root].concat().into(),
        }
    }

    /// Reads the encoded form.
    pub fn decode(bytes: &[u8]) -> Result<Self, BroadcastError> {
        match bytes {
            [VERSION, OUTBOX, body @ ..] => {
                let last = <[u8; 8]>::try_from(body).map_err(|_length| BroadcastError)?;
                Ok(Self::Outbox { last: u64::from_be_bytes(last) })
            }
            [VERSION, DIGEST, body @ ..] => {
                let (index, root) = body.split_first_chunk().ok_or(BroadcastError)?;
                let root = root.try_into().map_err(|_length| BroadcastError)?;
                Ok(Self::Digest { index: u64::from_be_bytes(*index), root })
            }
            _ => Err(BroadcastError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_back_and_others_refused() {
        let note = Broadcast::Outbox { last: 0x0102 };
        assert_eq!(note.encode().as_ref(), [1, 1, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(Broadcast::decode(&note.encode()), Ok(note));
        let digest = Broadcast::Digest { index: 0x0203, root: [7; 32] };
        assert_eq!(digest.encode().as_ref(), [&[1, 2, 0, 0, 0, 0, 0, 0, 2, 3][..], &[7; 32]].concat());
        assert_eq!(Broadcast::decode(&digest.encode()), Ok(digest.clone()));
        assert_eq!(Broadcast::decode(&digest.encode()[..41]), Err(BroadcastError));
        assert_eq!(Broadcast::decode(&[&digest.encode()[..], &[0]].concat()), Err(BroadcastError));
        for bad in [&[][..], &[1], &[2, 1, 0, 0, 0, 0, 0, 0, 1, 2], &[1, 9, 0], &[1, 1, 0]] {
            assert_eq!(Broadcast::decode(bad), Err(BroadcastError), "{bad:?}");
        }
    }
}
