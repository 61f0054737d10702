//! Records on their way between peers, a bounded chunk at a time.
//!
//! Not compressed here: that would be a native dependency, and whoever carries chunks can compress what it carries.

use bytes::Bytes;
use cluster_types::Cid;

use super::codec::Format;
use crate::consensus::operation::DecodeError;

/// Size at which a chunk is closed: what a snapshot's chunks are bounded by as well.
pub const CHUNK_BYTES: usize = 1024 * 1024;
/// Longest chunk that is read: a closed one and the record that closed it.
pub const MAX_CHUNK_BYTES: usize = 2 * CHUNK_BYTES;
/// What a record costs beside its CID and content, at most.
const FRAME: usize = 16;

const FORMAT: Format = Format { what: "chunk of records", version: 1, limit: MAX_CHUNK_BYTES };

/// Some records of a shard, each as it is to be; `None` deletes. In the order of the CIDs' bytes, each CID once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    records: Vec<(Cid, Option<Bytes>)>,
}

impl Chunk {
    /// Sorts records and cuts them into chunks. Of two records of one CID the later one counts.
    pub fn cut(records: impl IntoIterator<Item = (Cid, Option<Bytes>)>) -> Vec<Self> {
        let sorted: std::collections::BTreeMap<Vec<u8>, (Cid, Option<Bytes>)> =
            records.into_iter().map(|(cid, record)| (cid.to_bytes(), (cid, record))).collect();
        let mut chunks = vec![Self::default()];
        let mut length = 0;
        for (key, record) in sorted {
            if length > CHUNK_BYTES {
                chunks.push(Self::default());
                length = 0;
            }
            length += FRAME + key.len() + record.1.as_ref().map_or(0, Bytes::len);
            if let Some(chunk) = chunks.last_mut() {
                chunk.records.push(record);
            }
        }
        chunks
    }

    /// The records.
    pub fn records(&self) -> &[(Cid, Option<Bytes>)] {
        &self.records
    }

    /// The records, taken out.
    pub fn into_records(self) -> Vec<(Cid, Option<Bytes>)> {
        self.records
    }

    /// The encoded form.
    pub fn encode(&self) -> Vec<u8> {
        let record =
            |(cid, content): &(Cid, Option<Bytes>)| wire::Record { cid: cid.to_bytes(), content: content.clone() };
        FORMAT.encode(&wire::Chunk { records: self.records.iter().map(record).collect() })
    }

    /// Reads the encoded form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message: wire::Chunk = FORMAT.decode(bytes)?;
        if !message.records.is_sorted_by(|left, right| left.cid < right.cid) {
            return Err(FORMAT.fail("the records are not in the order of their CIDs"));
        }
        let record = |record: wire::Record| Ok((FORMAT.cid(&record.cid)?, record.content));
        Ok(Self { records: message.records.into_iter().map(record).collect::<Result<_, _>>()? })
    }
}

mod wire {
    //! The protobuf messages.

    /// Some records.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Chunk {
        #[prost(message, repeated, tag = "1")]
        pub(super) records: Vec<Record>,
    }

    /// A record or its absence.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Record {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) cid: Vec<u8>,
        #[prost(bytes = "bytes", optional, tag = "2")]
        pub(super) content: Option<bytes::Bytes>,
    }
}

#[cfg(test)]
#[path = "packing_tests.rs"]
mod tests;
