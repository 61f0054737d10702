//! What must stand in the end, said without versions and histories.
//!
//! A wish is *open* when nobody who had seen it wished something else since. A pin that is open is wanted: one of the
//! open pins must stand, and it must be the first by depth, time and bytes. Without an open pin everything was removed
//! by somebody who knew of it: nothing may stand.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use cluster_types::{Cid, Pin, PinMode, Timestamp};

use super::super::{Eventual, Wish};
use super::world::{Entry, Event, State, World, apply};
use crate::consensus::operation::encode_pin;

/// Further orders of the merges that are tried for each history.
const ORDERS: usize = 2;

/// Compares the end of a history with what was wished; says what is wrong.
pub(super) fn check(world: &mut World) -> Result<(), String> {
    for cid in world.cids.clone() {
        check_end(world, cid)?;
    }
    let end = world.end().clone();
    for _ in 0..ORDERS {
        let other = replay(world, reordered);
        same("in another order", &end, &other)?;
    }
    check_repetition(world, &end)
}

fn same(what: &str, one: &State, other: &State) -> Result<(), String> {
    if one.records != other.records {
        return Err(format!("not the same {what}: {:#?} and {:#?}", one.records, other.records));
    }
    if one.known == other.known { Ok(()) } else { Err(format!("not the same writes are known {what}")) }
}

fn check_end(world: &World, cid: Cid) -> Result<(), String> {
    let in_log = world.in_log.last().unwrap();
    let of_cid = || in_log.iter().map(|event| &world.events[*event]).filter(|event| event.cid == cid);
    let replaced: BTreeSet<usize> = of_cid().flat_map(|event| event.seen.iter().copied()).collect();
    let open: Vec<&Event> =
        in_log.difference(&replaced).map(|event| &world.events[*event]).filter(|event| event.cid == cid).collect();
    let pins = open.iter().filter(|event| event.record.is_some());
    let first = pins.clone().max_by(|one, other| rank(one, other));
    let stands = world.end().records.get(&cid);
    match (first, stands) {
        (None, None) => return Ok(()),
        (None, Some(pin)) => return Err(format!("removed by everyone who knew it, and back: {pin:?}")),
        (Some(first), None) => return Err(format!("still wanted, and gone: {first:?}")),
        (Some(first), Some(pin)) => {
            let wanted = first.record.as_ref().unwrap();
            if without_holders(wanted) != without_holders(pin) {
                return Err(format!("stands: {pin:?}; wanted: {wanted:?}"));
            }
            let repaired = world.repaired.contains(&(cid, pin.allocations.clone()));
            if pin.allocations != wanted.allocations && !repaired {
                let same_wish =
                    |event: &&&Event| without_holders(event.record.as_ref().unwrap()) == without_holders(pin);
                if !pins
                    .clone()
                    .filter(same_wish)
                    .any(|event| event.record.as_ref().unwrap().allocations == pin.allocations)
                {
                    return Err(format!("nobody chose these holders: {pin:?}"));
                }
            }
        }
    }
    let stands = stands.unwrap();
    if pins.clone().count() > 1 && world.asked.get(&cid) != Some(&true) {
        return Err(format!("nobody looks at the allocations of {stands:?} again"));
    }
    for loser in open.iter().filter(|event| event.wish != Wish::Expire) {
        if loses(loser, stands) && !is_reported(world, loser) {
            return Err(format!("lost in silence against {stands:?}: {loser:?}"));
        }
    }
    Ok(())
}

/// Whether an open wish is not fulfilled by what stands. A removal by the log is left to the table of cases: what it
/// removed may be the very state that the winner's author saw.
fn loses(event: &Event, stands: &Pin) -> bool {
    match &event.record {
        Some(record) => record.options != stands.options,
        None => event.author.is_some(),
    }
}

fn is_reported(world: &World, event: &Event) -> bool {
    world.conflicts.iter().any(|conflict| {
        let loser = &conflict.loser;
        let same_record = match (&event.record, &loser.record) {
            (Some(wanted), Some(lost)) => without_holders(wanted) == without_holders(lost),
            (None, None) => loser.wish == event.wish,
            (Some(_), None) | (None, Some(_)) => false,
        };
        conflict.cid == event.cid && loser.author == event.author && same_record
    })
}

fn without_holders(pin: &Pin) -> Vec<u8> {
    encode_pin(&Pin { allocations: Vec::new(), timestamp: pin.timestamp.whole_seconds(), ..pin.clone() })
}

fn rank(one: &Event, other: &Event) -> Ordering {
    let (one, other) = (one.record.as_ref().unwrap(), other.record.as_ref().unwrap());
    let key = |pin: &Pin| (pin.max_depth.mode() == PinMode::Recursive, pin.timestamp.whole_seconds());
    key(one).cmp(&key(other)).then_with(|| without_holders(one).cmp(&without_holders(other)))
}

/// Applies a log that `arrange` made from the world's.
fn replay(world: &mut World, arrange: impl Fn(&mut World) -> Vec<(Timestamp, Entry)>) -> State {
    let mut state = State::default();
    for (place, (time, entry)) in arrange(world).iter().enumerate() {
        apply(&mut state, world.merge, u64::try_from(place).unwrap() + 1, *time, entry);
    }
    state
}

/// The log with its merges in another order and other groups; none goes over an operation or over the base of a write.
fn reordered(world: &mut World) -> Vec<(Timestamp, Entry)> {
    let mut log = world.log.clone();
    let mut start = 0;
    for end in 1..=log.len() {
        let run_ends = end == log.len()
            || world.bases.contains(&end)
            || !matches!(log[end].1, Entry::Merge(_))
            || !matches!(log[start].1, Entry::Merge(_));
        if !run_ends {
            continue;
        }
        let run = &mut log[start..end];
        // Whoever moves to the front of the run was not written in the future for that.
        let last = run.iter().map(|(time, _)| *time).max().unwrap();
        run.iter_mut().for_each(|(time, _)| *time = last);
        let mut writes: Vec<Eventual> = Vec::new();
        for (_, entry) in run.iter_mut() {
            if let Entry::Merge(merged) = entry {
                writes.append(merged);
            }
        }
        world.chance.shuffle(&mut writes);
        for write in writes {
            let place = world.chance.below(run.len());
            if let Entry::Merge(merged) = &mut run[place].1 {
                merged.push(write);
            }
        }
        start = end;
    }
    log
}

/// Merging everything once more changes nothing.
fn check_repetition(world: &World, end: &State) -> Result<(), String> {
    let writes = world.log.iter().filter_map(|(_, entry)| match entry {
        Entry::Merge(writes) => Some(writes.clone()),
        Entry::Put(_) | Entry::Remove(_) | Entry::Reallocate(..) => None,
    });
    let again = Entry::Merge(writes.flatten().collect());
    let mut state = end.clone();
    let time = world.log.last().map_or(Timestamp::ZERO, |(time, _)| *time);
    let set = apply(&mut state, world.merge, u64::try_from(world.log.len()).unwrap() + 1, time, &again);
    if !set.conflicts.is_empty() || !set.cids.is_empty() {
        return Err(format!("merged a second time: {set:#?}"));
    }
    same("after a second merge", end, &state)
}
