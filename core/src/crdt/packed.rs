//! Records on their way between peers, small: what is random stands apart, the rest is compressed.
//!
//! A record is its CID and its canonical form, which repeats the CID. The hash of a CID cannot be compressed, and mixed
//! with the rest it would spoil it; what remains (kind, peers, options, names) is much the same from record to record.
//! Compressed by deflate in pure Rust, so `core` still has no native dependency.

use std::io::{Read, Write};

use bytes::Bytes;
use cluster_types::Cid;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

use super::codec::Format;
use crate::consensus::operation::DecodeError;

/// Longest packed form that is read: less than a message between peers may have.
pub const MAX_PACKED_BYTES: usize = 7 * 1024 * 1024;
/// Most bytes that a packed form unfolds to, hashes of CIDs apart.
pub const MAX_UNPACKED_BYTES: usize = 16 * 1024 * 1024;
/// Bytes at the end of a CID that are random.
const DIGEST: usize = 32;
/// What the canonical form of a pin begins with: the field of its CID.
const CID_FIELD: u8 = 0x0a;

const FORMAT: Format = Format { what: "packed records", version: 1, limit: MAX_PACKED_BYTES };

/// A record as it is to be; `None` deletes.
pub type Change = (Cid, Option<Bytes>);

/// Packs records in the order given.
pub fn pack<'a>(records: impl IntoIterator<Item = &'a Change>) -> Vec<u8> {
    let (mut digests, mut rest, mut count) = (Vec::new(), Vec::new(), 0_u64);
    for (cid, content) in records {
        count += 1;
        let cid = cid.to_bytes();
        let split = if cid.len() > DIGEST { cid.len() - DIGEST } else { cid.len() };
        let (head, digest) = cid.split_at(split);
        put_number(&mut rest, (head.len() as u64) << 1 | u64::from(!digest.is_empty()));
        rest.extend_from_slice(head);
        digests.extend_from_slice(digest);
        match content {
            None => put_number(&mut rest, 0),
            Some(content) => {
                let (kind, content) = match without_cid(content, &cid) {
                    Some(content) => (1, content),
                    None => (2, content.as_ref()),
                };
                put_number(&mut rest, kind);
                put_number(&mut rest, content.len() as u64);
                rest.extend_from_slice(content);
            }
        }
    }
    FORMAT.encode(&wire::Packed { count, digests, unpacked: rest.len() as u64, rest: deflate(&rest) })
}

/// Reads what [`pack`] wrote, at most `limit` records.
pub fn unpack(bytes: &[u8], limit: usize) -> Result<Vec<Change>, DecodeError> {
    let message: wire::Packed = FORMAT.decode(bytes)?;
    let count = usize::try_from(message.count).unwrap_or(usize::MAX);
    let unpacked = usize::try_from(message.unpacked).unwrap_or(usize::MAX);
    // Each record takes two bytes at least, so a count cannot ask for more room than has come.
    if count > limit || unpacked > MAX_UNPACKED_BYTES || count > unpacked / 2 {
        return Err(FORMAT.fail("it holds more than was asked for"));
    }
    let rest = inflate(&message.rest, unpacked).ok_or_else(|| FORMAT.fail("it cannot be unfolded"))?;
    let mut reader = Reader { rest: &rest, digests: &message.digests };
    let records = (0..count).map(|_| reader.record()).collect::<Result<_, _>>()?;
    if reader.rest.is_empty() && reader.digests.is_empty() {
        Ok(records)
    } else {
        Err(FORMAT.fail("bytes follow its end"))
    }
}

/// Compresses bytes.
pub fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.expect("writing into memory does not fail")
}

/// Undoes [`deflate`]; `None` unless exactly `length` bytes come out.
pub fn inflate(bytes: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut unfolded = Vec::new();
    let limit = u64::try_from(length).ok()?.checked_add(1)?;
    DeflateDecoder::new(bytes).take(limit).read_to_end(&mut unfolded).ok()?;
    (unfolded.len() == length).then_some(unfolded)
}

/// The canonical form behind its CID, if it is one.
fn without_cid<'a>(content: &'a [u8], cid: &[u8]) -> Option<&'a [u8]> {
    let length = u8::try_from(cid.len()).ok().filter(|length| *length < 0x80)?;
    content.strip_prefix(&[CID_FIELD, length])?.strip_prefix(cid)
}

fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

struct Reader<'a> {
    rest: &'a [u8],
    digests: &'a [u8],
}

impl Reader<'_> {
    fn record(&mut self) -> Result<Change, DecodeError> {
        let head = self.number()?;
        let mut cid = self.take(head >> 1)?.to_vec();
        if head & 1 == 1 {
            let (digest, digests) =
                self.digests.split_at_checked(DIGEST).ok_or_else(|| FORMAT.fail("a CID is cut off"))?;
            cid.extend_from_slice(digest);
            self.digests = digests;
        }
        let content = match self.number()? {
            0 => None,
            1 => {
                let length = self.number()?;
                let content = self.take(length)?;
                let short = u8::try_from(cid.len()).map_err(|_| FORMAT.fail("a CID is too long"))?;
                Some([&[CID_FIELD, short], cid.as_slice(), content].concat().into())
            }
            2 => {
                let length = self.number()?;
                Some(Bytes::copy_from_slice(self.take(length)?))
            }
            _ => return Err(FORMAT.fail("a record is of an unknown kind")),
        };
        Ok((FORMAT.cid(&cid)?, content))
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or_else(|| FORMAT.fail("it is cut off"))?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(FORMAT.fail("a number is too long"))
    }

    fn take(&mut self, length: u64) -> Result<&[u8], DecodeError> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| FORMAT.fail("it is cut off"))?;
        self.rest = rest;
        Ok(taken)
    }
}

mod wire {
    //! The protobuf message.

    /// Packed records.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Packed {
        #[prost(uint64, tag = "1")]
        pub(super) count: u64,
        /// The ends of the CIDs, 32 bytes each, of those that are long enough.
        #[prost(bytes = "vec", tag = "2")]
        pub(super) digests: Vec<u8>,
        #[prost(uint64, tag = "3")]
        pub(super) unpacked: u64,
        /// Everything else, deflated.
        #[prost(bytes = "vec", tag = "4")]
        pub(super) rest: Vec<u8>,
    }
}

#[cfg(test)]
#[path = "packed_tests.rs"]
mod tests;
