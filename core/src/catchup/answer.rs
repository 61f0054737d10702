//! What a donor answers: pure functions of a view of the state.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::wire::{Ask, Part, PartKind, Told, Wanted};
use crate::consensus::operation::encode_pin;
use crate::crdt::packed::{Change, pack};
use crate::crdt::ranges::{Ranges, select};
use crate::crdt::{RecordHash, Records, TailEntry, changed_since, shard, undo};
use crate::ports::{StateError, StateView};

/// Bytes of records after which an answer is closed: what a donor and a receiver keep in memory of it is a few times
/// that.
const ANSWER_BYTES: usize = 1024 * 1024;
/// Bytes of records of one shard after which it is continued in another answer.
const PART_BYTES: usize = 4 * 1024 * 1024;
/// Tail entries read at most to tell what changed: beyond, all of a shard is less work.
const MAX_TAIL: usize = 64 * 1024;

/// Answers `ask` from `view`, which shows the index asked about or a later one.
pub(super) fn answer(view: &dyn StateView, ask: &Ask) -> Result<Told, StateError> {
    let enough = usize::try_from(ask.enough).unwrap_or(usize::MAX);
    let mut basket = Basket { enough, parts: Vec::new(), records: Vec::new(), bytes: 0 };
    match &ask.what {
        Wanted::Since { base, shards } => {
            for shard in shards {
                if basket.is_full() {
                    break;
                }
                match since(view, *shard, *base, ask.index)? {
                    Ok(records) => basket.put(*shard, records, 0),
                    Err(kind) => basket.parts.push((*shard, kind, 0)),
                }
            }
        }
        Wanted::Whole { shards, skip } => {
            for (shard, skip) in shards.iter().zip(std::iter::once(*skip).chain(std::iter::repeat(0))) {
                if basket.is_full() {
                    break;
                }
                match shard::records_at(view, *shard, ask.index)? {
                    Some(records) => {
                        let records = records.into_iter().map(|(cid, record)| (cid, Some(record))).collect();
                        basket.put(*shard, records, skip);
                    }
                    None => basket.parts.push((*shard, PartKind::IndexGone, 0)),
                }
            }
        }
        Wanted::Compare { shards } => return compare(view, ask.index, shards),
        Wanted::Records { shards } => {
            for (shard, hashes) in shards {
                if basket.is_full() {
                    break;
                }
                match shard::records_at(view, *shard, ask.index)? {
                    Some(records) => basket.put(*shard, selected(&records, hashes), 0),
                    None => basket.parts.push((*shard, PartKind::IndexGone, 0)),
                }
            }
        }
    }
    Ok(basket.into_told())
}

/// Records of several shards, until there are enough.
struct Basket {
    enough: usize,
    parts: Vec<Part>,
    records: Vec<Change>,
    bytes: usize,
}

impl Basket {
    fn is_full(&self) -> bool {
        self.bytes >= ANSWER_BYTES || (self.records.len() >= self.enough && !self.records.is_empty())
    }

    fn put(&mut self, shard: u16, records: Vec<Change>, skip: u32) {
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let (mut taken, mut bytes, all) = (0_u32, 0, records.len().saturating_sub(skip));
        for record in records.into_iter().skip(skip) {
            if bytes >= PART_BYTES {
                break;
            }
            bytes += 40 + record.1.as_ref().map_or(0, Bytes::len);
            taken += 1;
            self.records.push(record);
        }
        let complete = usize::try_from(taken).is_ok_and(|taken| taken == all);
        self.bytes += bytes;
        self.parts.push((shard, if complete { PartKind::Complete } else { PartKind::More }, taken));
    }

    fn into_told(self) -> Told {
        Told::Shards { parts: self.parts, packed: pack(&self.records).into() }
    }
}

/// The records that changed after `base`, as they were after `index`.
fn since(view: &dyn StateView, at: u16, base: u64, index: u64) -> Result<Result<Vec<Change>, PartKind>, StateError> {
    let state = view.shard(at)?;
    if !state.covers(index) {
        return Ok(Err(PartKind::IndexGone));
    }
    if !state.covers(base) || base > index {
        return Ok(Err(PartKind::BaseGone));
    }
    let tail = shard::tail_after(view, at, base)?;
    if tail.len() > MAX_TAIL {
        return Ok(Err(PartKind::TooMuch));
    }
    let changed = changed_since(tail.iter().filter(|entry| entry.index <= index), base);
    let mut records = Records::new();
    for cid in &changed {
        if let Some(pin) = view.pin(cid)? {
            records.insert(*cid, encode_pin(&pin).into());
        }
    }
    let later: Vec<&TailEntry> =
        tail.iter().filter(|entry| entry.index > index && changed.contains(&entry.cid)).collect();
    undo(&mut records, later, index);
    Ok(Ok(changed.into_iter().map(|cid| (cid, records.get(&cid).cloned())).collect()))
}

fn compare(view: &dyn StateView, index: u64, shards: &[(u16, Bytes)]) -> Result<Told, StateError> {
    let (mut listings, mut bytes) = (Vec::new(), 0);
    for (shard, ranges) in shards {
        if bytes >= ANSWER_BYTES {
            break;
        }
        // Sums that make no sense are those of somebody who does not get further with all of it either.
        let Ok(ranges) = Ranges::decode(ranges) else {
            listings.push((*shard, PartKind::TooMuch, Bytes::new()));
            continue;
        };
        let Some(records) = shard::records_at(view, *shard, index)? else {
            listings.push((*shard, PartKind::IndexGone, Bytes::new()));
            continue;
        };
        let listing = ranges.answer(&records);
        let worth_it = listing.records() * 2 <= records.len().max(8);
        match listing.encode().filter(|_| worth_it) {
            Some(listing) => {
                bytes += listing.len();
                listings.push((*shard, PartKind::Complete, listing.into()));
            }
            None => listings.push((*shard, PartKind::TooMuch, Bytes::new())),
        }
    }
    Ok(Told::Listings { listings })
}

fn selected(records: &Records, hashes: &[u64]) -> Vec<Change> {
    let hashes: BTreeSet<RecordHash> = hashes.iter().filter_map(|hash| RecordHash::from_number(*hash)).collect();
    select(records, &hashes).into_iter().map(|(cid, record)| (cid, Some(record))).collect()
}
