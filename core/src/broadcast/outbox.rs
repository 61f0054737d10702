//! How many writes a peer has accepted without a quorum; members that know fewer ask it for the rest.

use bytes::Bytes;

use super::{Kind, open, seal};

/// So many writes did the sender accept without a quorum, ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxNote {
    /// The number of the last of them.
    pub last: u64,
}

impl OutboxNote {
    /// The whole message, envelope included.
    pub fn seal(&self) -> Bytes {
        seal(Kind::Outbox, &self.last.to_be_bytes())
    }

    /// Reads a whole message; nothing if it is of another kind, of a later release, or malformed.
    pub fn open(message: &Bytes) -> Option<Self> {
        let (Kind::Outbox, body) = open(message)? else { return None };
        let last = <[u8; 8]>::try_from(body.as_ref()).ok()?;
        Some(Self { last: u64::from_be_bytes(last) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_back_and_others_left_alone() {
        let note = OutboxNote { last: 0x0102 };
        assert_eq!(note.seal().as_ref(), [1, 2, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(OutboxNote::open(&note.seal()), Some(note));
        let bad: [&[u8]; 6] =
            [&[], &[1], &[2, 2, 0, 0, 0, 0, 0, 0, 1, 2], &[1, 9, 0], &[1, 2, 0], &[1, 1, 0, 0, 0, 0, 0, 0, 1, 2]];
        for bad in bad {
            assert_eq!(OutboxNote::open(&Bytes::copy_from_slice(bad)), None, "{bad:?}");
        }
    }
}
