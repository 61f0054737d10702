//! Finds the records in which two versions of a shard differ, with few bytes.
//!
//! The peer that wants to become like another sends its [`Ranges`]: one sum of eight bytes for each bucket of about
//! sixteen records. The other answers with a [`Listing`]: the record hashes of the buckets that differ. The first now
//! knows ([`Listing::compare`]) which records to ask for, by hash, and which of its own the other does not have; what of
//! these is not replaced by a record that comes is deleted ([`Difference::deletions`]).
//!
//! **Invariant:** a bucket is chosen by other bits of the CID's hash than the shard, so buckets fill evenly.
//! Sums and hashes of eight bytes find differences; that a repaired shard is right is shown by its whole sum.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cluster_types::Cid;

use super::codec::Format;
use super::{RecordHash, Records};
use crate::consensus::operation::DecodeError;

/// Records a bucket holds on average, at least; at most twice as many, as long as there are buckets.
pub const RECORDS_A_BUCKET: usize = 16;
/// Most buckets of a shard, as a power of two: enough for 65,536 records a shard, 268 million pins.
pub const MAX_BITS: u32 = 12;
/// Most record hashes a listing carries; a difference larger than that is a case for the whole shard.
pub const MAX_LISTED: usize = 128 * 1024;

const RANGES: Format = Format { what: "range digests", version: 1, limit: 16 + (8 << MAX_BITS) };
const LISTING: Format =
    Format { what: "list of record hashes", version: 1, limit: 64 + (16 << MAX_BITS) + 8 * MAX_LISTED };

/// The bucket of a CID among `2^bits`.
pub fn bucket_of(cid: &Cid, bits: u32) -> u32 {
    // The shard is in the first two bytes of this hash.
    let [_, _, a, b, c, d, ..] = *blake3::hash(&cid.to_bytes()).as_bytes();
    u32::from_be_bytes([a, b, c, d]).checked_shr(u32::BITS - bits.min(u32::BITS)).unwrap_or(0)
}

/// Sums over the buckets of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges {
    bits: u32,
    /// Sum modulo 2^64 of the record hashes, by bucket.
    sums: Vec<u64>,
}

impl Ranges {
    /// The sums of a shard, with as many buckets as suit its size.
    pub fn of(records: &Records) -> Self {
        let buckets = (records.len() / RECORDS_A_BUCKET).max(1);
        Self::with_bits(records, buckets.ilog2().min(MAX_BITS))
    }

    fn with_bits(records: &Records, bits: u32) -> Self {
        let mut sums = vec![0_u64; 1 << bits];
        for (cid, record) in records {
            let sum = &mut sums[bucket_of(cid, bits) as usize];
            *sum = sum.wrapping_add(RecordHash::of(cid, record).get());
        }
        Self { bits, sums }
    }

    /// The buckets in which `records` differ from these sums.
    pub fn differing(&self, records: &Records) -> BTreeSet<u32> {
        let ours = Self::with_bits(records, self.bits);
        let pairs = self.sums.iter().zip(&ours.sums).zip(0_u32..);
        pairs.filter(|((one, other), _)| one != other).map(|(_, bucket)| bucket).collect()
    }

    /// The answer to these sums: what `records` have in the buckets that differ.
    pub fn answer(&self, records: &Records) -> Listing {
        let mut buckets: BTreeMap<u32, Vec<RecordHash>> =
            self.differing(records).into_iter().map(|bucket| (bucket, Vec::new())).collect();
        for (cid, record) in records {
            if let Some(hashes) = buckets.get_mut(&bucket_of(cid, self.bits)) {
                hashes.push(RecordHash::of(cid, record));
            }
        }
        buckets.values_mut().for_each(|hashes| hashes.sort_unstable());
        Listing { bits: self.bits, buckets }
    }

    /// The encoded form.
    pub fn encode(&self) -> Vec<u8> {
        let sums = self.sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        RANGES.encode(&wire::Ranges { bits: self.bits, sums })
    }

    /// Reads the encoded form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message: wire::Ranges = RANGES.decode(bytes)?;
        let sums = numbers(&message.sums);
        if message.bits > MAX_BITS || message.sums.len() != 8 << message.bits {
            return Err(RANGES.fail("the number of sums is wrong"));
        }
        Ok(Self { bits: message.bits, sums })
    }
}

/// The record hashes of some buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    bits: u32,
    /// Sorted hashes, by bucket; a listed bucket may be empty.
    buckets: BTreeMap<u32, Vec<RecordHash>>,
}

/// What to do to become like the other peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Records to ask for.
    pub fetch: BTreeSet<RecordHash>,
    /// Our records that the other does not have as they are.
    pub surplus: BTreeSet<Cid>,
}

impl Listing {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// How many records are listed.
    pub fn records(&self) -> usize {
        self.buckets.values().map(Vec::len).sum()
    }

    /// Compares our records in the listed buckets with the listed ones.
    pub fn compare(&self, records: &Records) -> Difference {
        let mut difference =
            Difference { fetch: self.buckets.values().flatten().copied().collect(), surplus: BTreeSet::new() };
        for (cid, record) in records {
            if self.buckets.contains_key(&bucket_of(cid, self.bits))
                && !difference.fetch.remove(&RecordHash::of(cid, record))
            {
                difference.surplus.insert(*cid);
            }
        }
        difference
    }

    /// The encoded form; `None` if more is listed than may be sent: the whole shard is to be sent instead.
    pub fn encode(&self) -> Option<Vec<u8>> {
        if self.records() > MAX_LISTED {
            return None;
        }
        let hashes = self.buckets.values().flatten().flat_map(|hash| hash.get().to_le_bytes()).collect();
        Some(LISTING.encode(&wire::Listing {
            bits: self.bits,
            buckets: self.buckets.keys().copied().collect(),
            lengths: self.buckets.values().map(|hashes| hashes.len() as u64).collect(),
            hashes,
        }))
    }

    /// Reads the encoded form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message: wire::Listing = LISTING.decode(bytes)?;
        if message.bits > MAX_BITS || message.buckets.len() > 1 << message.bits {
            return Err(LISTING.fail("there are too many buckets"));
        }
        let ascending = message.buckets.is_sorted_by(|left, right| left < right);
        if !ascending || message.buckets.last().is_some_and(|last| *last >= 1 << message.bits) {
            return Err(LISTING.fail("a bucket is out of range or out of order"));
        }
        let total = message.lengths.iter().try_fold(0_u64, |sum, length| sum.checked_add(*length));
        let mut hashes = numbers(&message.hashes).into_iter();
        if message.lengths.len() != message.buckets.len()
            || message.hashes.len() > 8 * MAX_LISTED
            || !message.hashes.len().is_multiple_of(8)
            || total != Some(hashes.len() as u64)
        {
            return Err(LISTING.fail("the number of hashes is wrong"));
        }
        let mut buckets = BTreeMap::new();
        for (bucket, length) in message.buckets.into_iter().zip(message.lengths) {
            let listed = hashes.by_ref().take(usize::try_from(length).unwrap_or(usize::MAX));
            let listed: Option<Vec<RecordHash>> = listed.map(RecordHash::from_number).collect();
            buckets.insert(bucket, listed.ok_or_else(|| LISTING.fail("a hash is 0"))?);
        }
        Ok(Self { bits: message.bits, buckets })
    }
}

impl Difference {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.fetch.is_empty() && self.surplus.is_empty()
    }

    /// What to delete once the records that were asked for have come: what of ours none of them replaces.
    pub fn deletions<'a>(&self, received: impl IntoIterator<Item = &'a Cid>) -> BTreeSet<Cid> {
        let mut deletions = self.surplus.clone();
        for cid in received {
            deletions.remove(cid);
        }
        deletions
    }
}

/// The records that were asked for by hash, as far as they are (still) here.
pub fn select(records: &Records, fetch: &BTreeSet<RecordHash>) -> Vec<(Cid, Bytes)> {
    let asked = records.iter().filter(|(cid, record)| fetch.contains(&RecordHash::of(cid, record)));
    asked.map(|(cid, record)| (*cid, record.clone())).collect()
}

fn numbers(bytes: &[u8]) -> Vec<u64> {
    let (numbers, _) = bytes.as_chunks::<8>();
    numbers.iter().map(|number| u64::from_le_bytes(*number)).collect()
}

mod wire {
    //! The protobuf messages.

    /// Sums over buckets.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Ranges {
        #[prost(uint32, tag = "1")]
        pub(super) bits: u32,
        /// Eight bytes each, little-endian.
        #[prost(bytes = "vec", tag = "2")]
        pub(super) sums: Vec<u8>,
    }

    /// Record hashes by bucket.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Listing {
        #[prost(uint32, tag = "1")]
        pub(super) bits: u32,
        #[prost(uint32, repeated, tag = "2")]
        pub(super) buckets: Vec<u32>,
        #[prost(uint64, repeated, tag = "3")]
        pub(super) lengths: Vec<u64>,
        /// Eight bytes each, little-endian.
        #[prost(bytes = "vec", tag = "4")]
        pub(super) hashes: Vec<u8>,
    }
}

#[cfg(test)]
#[path = "ranges_tests.rs"]
mod tests;
