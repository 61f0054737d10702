//! Rows of an annex on their way between peers, small.
//!
//! They come in the order of their keys, and those of remembered outcomes end in a number that counts up
//! ([`RequestIds`](crate::consensus::RequestIds)): of a row whose key goes on where the last one was only the step is
//! written, so that thousands of them in a row come to next to nothing when they are compressed.

use bytes::Bytes;

use crate::crdt::packed::{deflate, inflate};
use crate::ports::AnnexRow;

/// Bytes of keys and values of one message at most.
const MAX_GROUP: usize = 4 * 1024 * 1024;
/// Bytes at the end of a key that are taken for a number.
const COUNTED: usize = 8;
/// Longest key that is a step from the one before.
const MAX_STEPPED: usize = 64;
/// Bytes of the check before the packed rows.
const CHECK: usize = 32;

/// Rows in the order given; nothing for none.
pub(crate) fn encode_rows(rows: &[AnnexRow]) -> Bytes {
    if rows.is_empty() {
        return Bytes::new();
    }
    let (mut plain, mut before) = (Vec::new(), None);
    for row in rows {
        match before.and_then(|before| step(before, row)) {
            Some(step) => {
                put_number(&mut plain, 0);
                put_number(&mut plain, step);
            }
            None => {
                put_number(&mut plain, u64::from(row.kind) + 1);
                put_bytes(&mut plain, &row.key);
            }
        }
        put_bytes(&mut plain, &row.value);
        before = Some(row);
    }
    let length = u32::try_from(plain.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], blake3::hash(&plain).as_bytes(), &deflate(&plain)].concat().into()
}

/// Reads what [`encode_rows`] wrote; `None` when it is damaged, or more than a message may hold.
pub(crate) fn decode_rows(bytes: &[u8]) -> Option<Vec<AnnexRow>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (check, packed) = rest.split_first_chunk::<CHECK>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok().filter(|length| *length <= MAX_GROUP)?;
    let plain = inflate(packed, length)?;
    if blake3::hash(&plain).as_bytes() != check {
        return None;
    }
    let (mut rest, mut rows, mut size) = (plain.as_slice(), Vec::<AnnexRow>::new(), 0_usize);
    while !rest.is_empty() {
        let (kind, key) = match take_number(&mut rest)? {
            0 => {
                let before = rows.last()?;
                (before.kind, stepped(&before.key, take_number(&mut rest)?)?)
            }
            kind => (u8::try_from(kind - 1).ok()?, Bytes::copy_from_slice(take_bytes(&mut rest)?)),
        };
        let value = Bytes::copy_from_slice(take_bytes(&mut rest)?);
        // A row of no bytes takes room, too.
        size = size.checked_add(key.len() + value.len() + 1)?;
        if size > MAX_GROUP {
            return None;
        }
        rows.push(AnnexRow { kind, key, value });
    }
    (!rows.is_empty()).then_some(rows)
}

/// How far `row` is behind the row before, if their keys differ in the number at their end only.
fn step(before: &AnnexRow, row: &AnnexRow) -> Option<u64> {
    let (head, number) = row.key.split_last_chunk::<COUNTED>()?;
    let (head_before, number_before) = before.key.split_last_chunk::<COUNTED>()?;
    let same = row.kind == before.kind && head == head_before && row.key.len() <= MAX_STEPPED;
    same.then(|| u64::from_be_bytes(*number).wrapping_sub(u64::from_be_bytes(*number_before)))
}

/// The key that is a step behind another.
fn stepped(before: &[u8], step: u64) -> Option<Bytes> {
    let (head, number) = before.split_last_chunk::<COUNTED>().filter(|_| before.len() <= MAX_STEPPED)?;
    Some([head, &u64::from_be_bytes(*number).wrapping_add(step).to_be_bytes()].concat().into())
}

fn put_bytes(plain: &mut Vec<u8>, bytes: &[u8]) {
    put_number(plain, bytes.len() as u64);
    plain.extend_from_slice(bytes);
}

fn put_number(plain: &mut Vec<u8>, number: u64) {
    prost::encoding::encode_varint(number, plain);
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(rest).ok()
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_number(rest)?).ok()?;
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
