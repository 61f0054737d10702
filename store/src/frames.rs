//! The stream a snapshot travels as, and the journal an install works from: records with a length in front, a mark at
//! the start, and an end that carries their number and a hash of everything before it.
//!
//! Layout: magic, version; then records `kind u8, length u32, bytes`; the last one has kind [`END`].

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};
use cluster_core::ports::StateError;

/// What every stream starts with; the last byte is the version.
const MAGIC: &[u8; 8] = b"pinset\0\x01";
/// Kind of the last record.
const END: u8 = 0;
/// The longest record accepted: far above a pin with all the metadata a request can carry.
const MAX_RECORD: u32 = 16 << 20;
/// Bytes of the number and the hash in the last record.
const END_BYTES: usize = 8 + 32;

/// Kind of a shard's sum and epochs: shard `u16`, the record of [`crate::codec`].
pub(crate) const SHARD: u8 = 1;
/// Kind of a pin in canonical form.
pub(crate) const PIN: u8 = 2;
/// Kind of a remembered outcome: key, bytes.
pub(crate) const OUTCOME: u8 = 3;
/// Kind of a change in an install's journal.
pub(crate) const CHANGE: u8 = 4;
/// Kind of an entry of a shard's tail: the key of [`crate::keys`], the entry in the core's encoding.
pub(crate) const TAIL: u8 = 5;
/// Kind of what a merge left of a pin: length `u16` of the key, the key, the history in the core's encoding.
pub(crate) const HISTORY: u8 = 6;
/// Kind of a merged write: its name, the record of [`crate::codec`].
pub(crate) const MERGED: u8 = 7;

/// Writes a stream.
#[derive(Debug)]
pub(crate) struct Encoder {
    ready: BytesMut,
    hasher: blake3::Hasher,
    records: u64,
}

impl Encoder {
    /// Begins a stream.
    pub(crate) fn new() -> Self {
        let mut encoder = Self { ready: BytesMut::new(), hasher: blake3::Hasher::new(), records: 0 };
        encoder.add(MAGIC);
        encoder
    }

    /// Adds a record.
    pub(crate) fn record(&mut self, kind: u8, parts: &[&[u8]]) -> Result<(), StateError> {
        let length = u32::try_from(parts.iter().map(|part| part.len()).sum::<usize>()).unwrap_or(u32::MAX);
        if length > MAX_RECORD {
            return Err(StateError::Damaged { what: format!("a record of {length} bytes is too long") });
        }
        self.add(&[kind]);
        self.add(&length.to_be_bytes());
        for part in parts {
            self.add(part);
        }
        self.records += 1;
        Ok(())
    }

    /// Takes `size` bytes off the front, if there are that many.
    pub(crate) fn take(&mut self, size: usize) -> Option<Bytes> {
        (self.ready.len() >= size).then(|| self.ready.split_to(size).freeze())
    }

    /// Adds the end; returns the last bytes.
    pub(crate) fn finish(mut self) -> Bytes {
        self.add(&[END]);
        self.add(&u32::try_from(END_BYTES).unwrap_or(0).to_be_bytes());
        self.add(&self.records.to_be_bytes());
        let hash = self.hasher.finalize();
        self.ready.extend_from_slice(hash.as_bytes());
        self.ready.freeze()
    }

    fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.ready.extend_from_slice(bytes);
    }
}

/// Reads a stream that may be cut, or made up.
#[derive(Debug)]
pub(crate) struct Decoder<R> {
    input: R,
    hasher: blake3::Hasher,
    records: u64,
    ended: bool,
}

impl<R: Read> Decoder<R> {
    /// Begins to read.
    pub(crate) fn new(input: R) -> Result<Self, StateError> {
        let mut decoder = Self { input, hasher: blake3::Hasher::new(), records: 0, ended: false };
        let mut magic = [0; MAGIC.len()];
        decoder.fill(&mut magic)?;
        if &magic == MAGIC { Ok(decoder) } else { Err(invalid("it is of an unknown format")) }
    }

    /// The next record; `None` at the end, when number and hash are right and nothing follows.
    pub(crate) fn next(&mut self) -> Result<Option<(u8, Vec<u8>)>, StateError> {
        if self.ended {
            return Ok(None);
        }
        let mut head = [0; 5];
        self.fill(&mut head)?;
        let [kind, length @ ..] = head;
        if kind == END {
            self.end()?;
            self.ended = true;
            return Ok(None);
        }
        let length = u32::from_be_bytes(length);
        if length > MAX_RECORD {
            return Err(invalid("a record is too long"));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        self.fill(&mut bytes)?;
        self.records += 1;
        Ok(Some((kind, bytes)))
    }

    fn end(&mut self) -> Result<(), StateError> {
        let mut records = [0; 8];
        self.fill(&mut records)?;
        let expected = self.hasher.finalize();
        let mut hash = [0; 32];
        self.fill(&mut hash)?;
        if u64::from_be_bytes(records) != self.records || &hash != expected.as_bytes() {
            return Err(invalid("its hash is wrong"));
        }
        match self.input.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(invalid("bytes follow its end")),
            Err(error) => Err(read_failed(error)),
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), StateError> {
        self.input.read_exact(bytes).map_err(read_failed)?;
        self.hasher.update(bytes);
        Ok(())
    }
}

/// A stream that is not what it should be.
pub(crate) fn invalid(what: impl Into<String>) -> StateError {
    StateError::InvalidSnapshot { what: what.into() }
}

fn read_failed(error: io::Error) -> StateError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        invalid("it is cut off")
    } else {
        StateError::Io { operation: "read a snapshot", cause: error.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.record(PIN, &[b"ab", b"c"]).unwrap();
        encoder.record(SHARD, &[]).unwrap();
        encoder.finish().to_vec()
    }

    fn read(bytes: &[u8]) -> Result<Vec<(u8, Vec<u8>)>, StateError> {
        let mut decoder = Decoder::new(bytes)?;
        let mut records = Vec::new();
        while let Some(record) = decoder.next()? {
            records.push(record);
        }
        Ok(records)
    }

    #[test]
    fn streams_round_trip() {
        assert_eq!(read(&sample()).unwrap(), [(PIN, b"abc".to_vec()), (SHARD, Vec::new())]);
    }

    #[test]
    fn every_cut_every_flip_and_every_tail_is_noticed() {
        let whole = sample();
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "cut at {length}");
        }
        for place in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[place] ^= 1;
            assert!(read(&flipped).is_err(), "flipped at {place}");
        }
        assert!(read(&[whole, vec![0]].concat()).is_err());
    }
}
