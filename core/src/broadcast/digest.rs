//! What a peer's pinset was at a log index; who has another root at the same index asks on.

use bytes::Bytes;

use super::{Kind, open, seal};

/// So was the sender's pinset at a log index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestNote {
    /// The log index.
    pub index: u64,
    /// The root digest.
    pub root: [u8; 32],
}

impl DigestNote {
    /// The whole message, envelope included.
    pub fn seal(&self) -> Bytes {
        seal(Kind::Digest, &[&self.index.to_be_bytes()[..], &self.root].concat())
    }

    /// Reads a whole message; nothing if it is of another kind, of a later release, or malformed.
    pub fn open(message: &Bytes) -> Option<Self> {
        let (Kind::Digest, body) = open(message)? else { return None };
        let (index, root) = body.split_first_chunk()?;
        Some(Self { index: u64::from_be_bytes(*index), root: root.try_into().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_back_and_others_left_alone() {
        let note = DigestNote { index: 0x0102, root: [7; 32] };
        assert_eq!(note.seal()[..10], [1, 3, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(DigestNote::open(&note.seal()), Some(note));
        assert_eq!(DigestNote::open(&note.seal().slice(..41)), None);
        assert_eq!(DigestNote::open(&[&note.seal()[..], &[0]].concat().into()), None);
    }
}
