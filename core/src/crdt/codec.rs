//! What all encodings of this room share: a version byte, then protobuf; a bound on the size before anything is read.

use cluster_types::Cid;
use prost::Message;

use crate::consensus::operation::DecodeError;

/// A format: its name in errors, its version, and how many bytes are read at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    /// Name in errors.
    pub(crate) what: &'static str,
    /// First byte.
    pub(crate) version: u8,
    /// Longest encoding that is read, version included.
    pub(crate) limit: usize,
}

impl Format {
    /// Version and message.
    pub(crate) fn encode(&self, message: &impl Message) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + message.encoded_len());
        bytes.push(self.version);
        bytes.extend_from_slice(&message.encode_to_vec());
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub(crate) fn decode<M: Message + Default>(&self, bytes: &[u8]) -> Result<M, DecodeError> {
        if bytes.len() > self.limit {
            return Err(self.fail(format_args!("{} bytes are more than {}", bytes.len(), self.limit)));
        }
        match bytes.split_first() {
            Some((version, body)) if *version == self.version => M::decode(body).map_err(|error| self.fail(error)),
            Some(_) | None => Err(self.fail("unknown version; was it written by a newer release?")),
        }
    }

    /// An error of this format.
    pub(crate) fn fail(&self, reason: impl std::fmt::Display) -> DecodeError {
        DecodeError::new(self.what, reason)
    }

    /// Reads a CID.
    pub(super) fn cid(&self, bytes: &[u8]) -> Result<Cid, DecodeError> {
        Cid::from_bytes(bytes).map_err(|error| self.fail(error))
    }

    /// Reads a field of a fixed size.
    pub(crate) fn array<const N: usize>(&self, bytes: &[u8]) -> Result<[u8; N], DecodeError> {
        bytes.try_into().map_err(|_| self.fail(format_args!("a field has {} bytes, not {N}", bytes.len())))
    }
}
