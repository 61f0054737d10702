//! Finds what a peer lacks of an annex, so that only that travels.
//!
//! The rows of an annex fall into *groups*: remembered outcomes by their window of the log, which is also the order in
//! which they are made and forgotten, everything else by a hash of its key. Whoever offers a snapshot sends the sums of
//! its groups ([`AnnexSums`]); who takes it in compares them with its own, takes over the rows of the groups that are
//! equal from its own state, and asks for the others ([`AnnexAsk`]). A receiver that applied the log up to an index has all
//! windows before that one as everybody has.
//!
//! **Invariant:** an annex counts only when all of it together has the total that was offered, whoever the rows are of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::consensus::operation::DecodeError;
use crate::crdt::Format;
use crate::ports::{AnnexRow, OUTCOME_ROWS, ShardSum};

/// Most groups of rows of a kind that are told apart by a hash, as a power of two.
const MAX_BITS: u32 = 12;
/// Rows such a group holds on average, at least.
const ROWS_A_GROUP: u64 = 16;
/// Groups that are read at most: those of hashes, and windows, of which a state keeps a handful.
const MAX_GROUPS: usize = 4 << MAX_BITS;

const FORMAT: Format = Format { what: "sums of an annex", version: 1, limit: 1024 + 32 * MAX_GROUPS };

/// A group: the kind of its rows, and its number.
pub type Group = (u8, u64);

/// Sums over the rows of an annex, group by group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnexSums {
    /// How many rows there are of each kind.
    rows: BTreeMap<u8, u64>,
    /// Sum modulo 2^64 of the hashes of the rows.
    groups: BTreeMap<Group, u64>,
    total: ShardSum,
}

/// What a receiver asks for of an annex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnnexAsk {
    /// Everything.
    All,
    /// These groups, in order.
    Groups(Vec<Group>),
}

impl AnnexSums {
    /// Counts a row in, in the finest groups.
    pub fn add(&mut self, row: &AnnexRow) {
        let record = record(row);
        let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(&record).as_bytes();
        let sum = self.groups.entry((row.kind, finest(row))).or_default();
        *sum = sum.wrapping_add(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        *self.rows.entry(row.kind).or_default() += 1;
        self.total.add_record(&record);
    }

    /// The same with only as many groups as suit the number of rows: what travels.
    #[must_use]
    pub fn coarse(&self) -> Self {
        self.as_coarse_as(self)
    }

    /// How many rows there are.
    pub fn total(&self) -> &ShardSum {
        &self.total
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The group of these (coarse) sums that a row belongs to.
    pub fn group_of(&self, row: &AnnexRow) -> Group {
        (row.kind, finest(row) >> self.shift(row.kind))
    }

    /// What somebody who has the rows of `own` (which are fine) lacks of those of these (which are coarse).
    pub fn lacking(&self, own: &Self) -> AnnexAsk {
        let own = own.as_coarse_as(self);
        let differing = self.groups.iter().filter(|(group, sum)| own.groups.get(group) != Some(*sum));
        AnnexAsk::Groups(differing.map(|(group, _)| *group).collect())
    }

    /// Whether a row that somebody has, who asks for `ask`, is one of the rows these are the sums of.
    pub fn keeps(&self, ask: &AnnexAsk, row: &AnnexRow) -> bool {
        let group = self.group_of(row);
        self.groups.contains_key(&group) && !ask.wants(group)
    }

    /// Bits by which groups of a kind are coarser than the finest ones.
    fn shift(&self, kind: u8) -> u32 {
        if kind == OUTCOME_ROWS {
            return 0;
        }
        let groups = (self.rows.get(&kind).copied().unwrap_or(0) / ROWS_A_GROUP).max(1);
        MAX_BITS - groups.ilog2().min(MAX_BITS)
    }

    fn as_coarse_as(&self, other: &Self) -> Self {
        let mut groups = BTreeMap::new();
        for ((kind, number), sum) in &self.groups {
            let coarse: &mut u64 = groups.entry((*kind, number >> other.shift(*kind))).or_default();
            *coarse = coarse.wrapping_add(*sum);
        }
        Self { rows: self.rows.clone(), groups, total: self.total }
    }

    /// The encoded form.
    pub fn encode(&self) -> Vec<u8> {
        FORMAT.encode(&wire::Sums {
            kinds: self.rows.keys().map(|kind| u32::from(*kind)).collect(),
            rows: self.rows.values().copied().collect(),
            group_kinds: self.groups.keys().map(|(kind, _)| u32::from(*kind)).collect(),
            groups: self.groups.keys().map(|(_, number)| *number).collect(),
            sums: self.groups.values().flat_map(|sum| sum.to_le_bytes()).collect(),
            total: self.total.pins,
            hash: self.total.hash.to_vec(),
        })
    }

    /// Reads the encoded form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message: wire::Sums = FORMAT.decode(bytes)?;
        let kind = |kind: &u32| u8::try_from(*kind).map_err(|error| FORMAT.fail(error));
        let (sums, rest) = message.sums.as_chunks::<8>();
        let fits = message.kinds.len() == message.rows.len()
            && sums.len() == message.groups.len()
            && sums.len() == message.group_kinds.len()
            && sums.len() <= MAX_GROUPS;
        if !fits || !rest.is_empty() {
            return Err(FORMAT.fail("the number of sums is wrong"));
        }
        let rows = message.kinds.iter().map(kind).zip(&message.rows).map(|(kind, rows)| Ok((kind?, *rows)));
        let named = message.group_kinds.iter().map(kind).zip(&message.groups).zip(sums);
        let groups = named.map(|((kind, number), sum)| Ok(((kind?, *number), u64::from_le_bytes(*sum))));
        Ok(Self {
            rows: rows.collect::<Result<_, DecodeError>>()?,
            groups: groups.collect::<Result<_, DecodeError>>()?,
            total: ShardSum { pins: message.total, hash: FORMAT.array(&message.hash)? },
        })
    }
}

impl AnnexAsk {
    /// Whether the rows of a group are wanted.
    pub fn wants(&self, group: Group) -> bool {
        match self {
            Self::All => true,
            Self::Groups(groups) => groups.binary_search(&group).is_ok(),
        }
    }
}

/// The number of a row's finest group.
fn finest(row: &AnnexRow) -> u64 {
    match row.key.first_chunk() {
        Some(window) if row.kind == OUTCOME_ROWS => u64::from_be_bytes(*window),
        _ => {
            let [high, low, ..] = *blake3::hash(&row.key).as_bytes();
            u64::from(u16::from_be_bytes([high, low])) >> (u16::BITS - MAX_BITS)
        }
    }
}

/// What is hashed of a row.
fn record(row: &AnnexRow) -> Vec<u8> {
    let length = (row.key.len() as u64).to_le_bytes();
    [&[row.kind][..], &length, &row.key, &row.value].concat()
}

mod wire {
    //! The protobuf message.

    /// Sums over the rows of an annex.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Sums {
        #[prost(uint32, repeated, tag = "1")]
        pub(super) kinds: Vec<u32>,
        #[prost(uint64, repeated, tag = "2")]
        pub(super) rows: Vec<u64>,
        #[prost(uint32, repeated, tag = "3")]
        pub(super) group_kinds: Vec<u32>,
        #[prost(uint64, repeated, tag = "4")]
        pub(super) groups: Vec<u64>,
        /// Eight bytes each, little-endian.
        #[prost(bytes = "vec", tag = "5")]
        pub(super) sums: Vec<u8>,
        #[prost(uint64, tag = "6")]
        pub(super) total: u64,
        #[prost(bytes = "vec", tag = "7")]
        pub(super) hash: Vec<u8>,
    }
}

#[cfg(test)]
#[path = "annex_tests.rs"]
mod tests;
