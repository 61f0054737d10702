//! The UnixFS message: what the data of a dag-pb block mean.
//!
//! Written field by field in the order of their numbers, as Kubo writes them. Mode and mtime are not written, and
//! skipped when read, as every unknown field is.

use super::dagpb::{Malformed, Value, put_bytes, put_number, read_field, read_varint};
use super::hamt::Fanout;

/// Multihash code of murmur3-x64-64, the function that places entries in a HAMT.
const HAMT_HASH: u64 = 0x22;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes of a file (leaves of old and of trickle files).
    Raw,
    /// A directory whose entries are its links.
    Directory,
    /// A file, or a part of one.
    File,
    /// Says something about another node; obsolete.
    Metadata,
    /// A symbolic link.
    Symlink,
    /// A part of a directory that is too large for one block.
    HamtShard,
}

/// A UnixFS message as it stands in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// What the node is.
    pub kind: Kind,
    /// Bytes of a file, target of a symlink, bitfield of a shard.
    pub data: &'a [u8],
    /// Bytes of the file from here downwards.
    pub file_size: Option<u64>,
    /// Bytes below each link of a file.
    pub block_sizes: Vec<u64>,
    /// Fanout of a shard.
    pub fanout: Option<u64>,
    /// Hash function of a shard.
    pub hash_type: Option<u64>,
}

impl<'a> Message<'a> {
    /// Reads a message.
    pub fn read(mut rest: &'a [u8]) -> Result<Self, Malformed> {
        let mut kind = None;
        let mut message = Self {
            kind: Kind::Raw,
            data: &[],
            file_size: None,
            block_sizes: Vec::new(),
            fanout: None,
            hash_type: None,
        };
        while !rest.is_empty() {
            match read_field(&mut rest)? {
                (1, Value::Number(number)) => kind = Some(read_kind(number)?),
                (2, Value::Bytes(data)) => message.data = data,
                (3, Value::Number(size)) => message.file_size = Some(size),
                (4, Value::Number(size)) => message.block_sizes.push(size),
                (4, Value::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        message.block_sizes.push(read_varint(&mut packed)?);
                    }
                }
                (5, Value::Number(hash)) => message.hash_type = Some(hash),
                (6, Value::Number(fanout)) => message.fanout = Some(fanout),
                (1..=6, _) => return Err(Malformed::new("a UnixFS field has the wrong type")),
                _ => {}
            }
        }
        message.kind = kind.ok_or(Malformed::new("a UnixFS node has no type"))?;
        Ok(message)
    }

    /// Bytes of the file from here downwards, by the parts; `None` when they contradict each other.
    pub fn total_size(&self) -> Option<u64> {
        let parts = self.block_sizes.iter().try_fold(self.data.len() as u64, |sum, size| sum.checked_add(*size))?;
        (self.file_size.is_none_or(|size| size == parts)).then_some(parts)
    }

    /// The fanout of a shard, if it is one of the sort that is known.
    pub(super) fn shard_fanout(&self) -> Result<Fanout, Malformed> {
        let fanout = self.fanout.filter(|_| self.hash_type == Some(HAMT_HASH)).and_then(Fanout::new);
        fanout.ok_or(Malformed::new("a sharded directory has an unknown fanout or another hash than murmur3"))
    }
}

fn read_kind(number: u64) -> Result<Kind, Malformed> {
    Ok(match number {
        0 => Kind::Raw,
        1 => Kind::Directory,
        2 => Kind::File,
        3 => Kind::Metadata,
        4 => Kind::Symlink,
        5 => Kind::HamtShard,
        _ => return Err(Malformed::new("a UnixFS node has an unknown type")),
    })
}

/// A file, or the end of one, that is `data`.
pub(super) fn file_leaf(data: &[u8]) -> Vec<u8> {
    let mut message = vec![0x08, 2];
    message.reserve(data.len() + 16);
    if !data.is_empty() {
        put_bytes(&mut message, 2, data);
    }
    put_number(&mut message, 3, data.len() as u64);
    message
}

/// A piece of a file in the trickle layout.
pub(super) fn raw_leaf(data: &[u8]) -> Vec<u8> {
    let mut message = file_leaf(data);
    message[1] = 0;
    message
}

/// A file that consists of the files its node links to.
pub(super) fn file_node(block_sizes: impl Iterator<Item = u64> + Clone) -> Vec<u8> {
    let mut message = vec![0x08, 2];
    put_number(&mut message, 3, block_sizes.clone().sum());
    for size in block_sizes {
        put_number(&mut message, 4, size);
    }
    message
}

/// A directory in one block.
pub(super) fn directory() -> Vec<u8> {
    vec![0x08, 1]
}

/// A symbolic link.
pub(super) fn symlink(target: &str) -> Vec<u8> {
    let mut message = vec![0x08, 4];
    put_bytes(&mut message, 2, target.as_bytes());
    message
}

/// A part of a sharded directory; the bitfield says which of the places are taken, highest first.
pub(super) fn shard(bitfield: &[u8]) -> Vec<u8> {
    let zeros = bitfield.iter().take_while(|byte| **byte == 0).count();
    let mut message = vec![0x08, 5];
    put_bytes(&mut message, 2, &bitfield[zeros..]);
    put_number(&mut message, 5, HAMT_HASH);
    put_number(&mut message, 6, 8 * bitfield.len() as u64);
    message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn files_say_how_large_they_are() {
        let bytes = file_leaf(b"hello");
        let leaf = Message::read(&bytes).unwrap();
        assert_eq!(
            (leaf.kind, leaf.data, leaf.file_size, leaf.total_size()),
            (Kind::File, &b"hello"[..], Some(5), Some(5))
        );
        assert_eq!(file_leaf(b""), [0x08, 2, 0x18, 0]);
        let bytes = file_node([3, 300].into_iter());
        let node = Message::read(&bytes).unwrap();
        assert_eq!((node.block_sizes.as_slice(), node.total_size()), (&[3, 300][..], Some(303)));
    }

    #[test]
    fn contradicting_sizes_are_seen() {
        let lie = Message::read(&[0x08, 2, 0x12, 1, 7, 0x18, 2]).unwrap();
        assert_eq!(lie.total_size(), None);
        let mut wide = vec![0x08, 2];
        for _ in 0..2 {
            put_number(&mut wide, 4, u64::MAX);
        }
        assert_eq!(Message::read(&wide).unwrap().total_size(), None);
    }

    #[test]
    fn block_sizes_may_be_packed_and_unknown_fields_are_skipped() {
        let bytes = [0x08, 2, 0x22, 3, 1, 0xac, 2, 0x38, 1, 0x42, 2, 0x08, 1];
        assert_eq!(Message::read(&bytes).unwrap().block_sizes, [1, 300]);
    }

    #[test]
    fn nonsense_is_refused() {
        for (bytes, reason) in [
            (&[][..], "a UnixFS node has no type"),
            (&[0x08, 9], "a UnixFS node has an unknown type"),
            (&[0x0a, 0], "a UnixFS field has the wrong type"),
            (&[0x08, 2, 0x12, 5, 1], "it ends too early"),
        ] {
            assert_eq!(Message::read(bytes).unwrap_err().reason, reason);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = Message::read(&data) {
                let _ = message.total_size();
                prop_assert!(message.block_sizes.len() <= data.len());
            }
        }
    }
}
