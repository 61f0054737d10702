//! Reads shards from the state: as they are, and as they were.
//!
//! One shard is in memory at a time, some thousands of records of ten million.

use bytes::Bytes;

use super::{Records, TailEntry, undo};
use crate::consensus::operation::encode_pin;
use crate::ports::{StateError, StateView, TailPlace};

/// Rows read at a time.
const PAGE_ROWS: usize = 1024;

/// The present records of a shard.
pub fn records(view: &dyn StateView, shard: u16) -> Result<Records, StateError> {
    let mut records = Records::new();
    let mut after = None;
    loop {
        let page = view.shard_pins(shard, after.as_ref(), PAGE_ROWS)?;
        let Some(last) = page.last() else { return Ok(records) };
        after = Some(last.cid);
        records.extend(page.iter().map(|pin| (pin.cid, Bytes::from(encode_pin(pin)))));
    }
}

/// The changes of a shard after the log entry `index`, oldest first, as far back as they are kept.
pub fn tail_after(view: &dyn StateView, shard: u16, index: u64) -> Result<Vec<TailEntry>, StateError> {
    let mut tail = Vec::new();
    let mut after = TailPlace::after(index);
    loop {
        let page = view.tail(shard, after, PAGE_ROWS)?;
        let Some((last, _entry)) = page.last() else { return Ok(tail) };
        after = *last;
        tail.extend(page.into_iter().map(|(_place, entry)| entry));
    }
}

/// The records of a shard as they were after the log entry `index`, which this peer must have applied; `None` when the
/// tail does not reach back so far.
pub fn records_at(view: &dyn StateView, shard: u16, index: u64) -> Result<Option<Records>, StateError> {
    if !view.shard(shard)?.covers(index) {
        return Ok(None);
    }
    let mut records = records(view, shard)?;
    undo(&mut records, &tail_after(view, shard, index)?, index);
    Ok(Some(records))
}
