//! Judges histories: can what the clients saw be explained by operations that took effect one after the other, each at
//! one instant between its call and its return?
//!
//! One register per CID, holding nothing or the serial number of a pin. The search keeps, event by event, every
//! possible situation: the register's value, and which of the open operations have already taken effect (Lowe's
//! just-in-time linearization). An operation whose outcome is unknown stays open for ever: it may take effect at any
//! later time, or never. So that these do not double the situations each, pins that nobody ever saw are left out, and
//! unpins, which are all alike, are counted.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What a client did with one CID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Pinned, with this serial number.
    Pin(u64),
    /// Unpinned.
    Unpin,
    /// Read.
    Read,
}

/// What the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The pin was written.
    Pinned,
    /// This pin was removed.
    Unpinned(u64),
    /// There was nothing to remove or to read.
    Nothing,
    /// This pin is there.
    Found(u64),
    /// It was refused and had no effect.
    Refused,
    /// Nothing for certain.
    Unknown,
}

/// One operation of a history; times are of one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Which register.
    pub key: u32,
    /// When it was called.
    pub called: u64,
    /// When the answer came; ignored when it is unknown.
    pub returned: u64,
    /// What was done.
    pub action: Action,
    /// What was told.
    pub told: Told,
}

/// A history that no order explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The operation whose answer cannot be.
    pub culprit: Operation,
    /// What the register could have held at that point.
    pub possible: BTreeSet<Option<u64>>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} cannot be: the register could only hold one of {:?}", self.culprit, self.possible)
    }
}

/// Finds an explanation for every register, or the first answer that has none.
pub fn check(history: &[Operation]) -> Result<(), Violation> {
    let mut by_key: BTreeMap<u32, Vec<Operation>> = BTreeMap::new();
    for operation in history {
        by_key.entry(operation.key).or_default().push(*operation);
    }
    by_key.values().try_for_each(|operations| check_register(operations))
}

/// What the register holds, and which open operations have taken effect. The value beside it in a map: how many unpins of
/// unknown outcome had to take effect for it; any of those that were called will do, and fewer is better.
type Situation = (Option<u64>, BTreeSet<usize>);

fn check_register(operations: &[Operation]) -> Result<(), Violation> {
    let last_named = last_named(operations);
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for (number, operation) in operations.iter().enumerate() {
        if is_silent(operation, &last_named) {
            continue;
        }
        events.push((operation.called, false, number));
        if operation.told != Told::Unknown {
            events.push((operation.returned, true, number));
        }
    }
    // A call and a return at the same instant overlap: calls first.
    events.sort_unstable();
    let mut open: BTreeSet<usize> = BTreeSet::new();
    let mut unknown_unpins = 0;
    let mut situations: BTreeMap<Situation, usize> = BTreeMap::from([((None, BTreeSet::new()), 0)]);
    for (_, returns, number) in events {
        let operation = &operations[number];
        if !returns {
            if operation.action == Action::Unpin && operation.told == Told::Unknown {
                unknown_unpins += 1;
            } else {
                open.insert(number);
            }
            continue;
        }
        let reached = expand(&situations, &open, unknown_unpins, operations);
        if !reached.keys().any(|(_, done)| done.contains(&number)) {
            let possible = reached.into_keys().map(|(value, _)| value).collect();
            return Err(Violation { culprit: *operation, possible });
        }
        // Nobody asks again whether these have taken effect.
        let settled: BTreeSet<usize> = open
            .iter()
            .copied()
            .filter(|other| {
                let Operation { action, told, .. } = operations[*other];
                let Action::Pin(serial) = action else { return *other == number };
                *other == number || (told == Told::Unknown && last_named.get(&serial) < Some(&operation.returned))
            })
            .collect();
        open.retain(|other| !settled.contains(other));
        situations = BTreeMap::new();
        for ((value, mut done), used) in reached {
            if done.contains(&number) {
                done.retain(|other| !settled.contains(other));
                keep_least(&mut situations, (value, done), used);
            }
        }
    }
    Ok(())
}

/// When each serial number was told for the last time.
fn last_named(operations: &[Operation]) -> BTreeMap<u64, u64> {
    let mut last = BTreeMap::new();
    for operation in operations {
        if let Told::Found(serial) | Told::Unpinned(serial) = operation.told {
            let time = last.entry(serial).or_insert(operation.returned);
            *time = operation.returned.max(*time);
        }
    }
    last
}

/// Whether an operation constrains nothing: it had no effect and told nothing, or an effect that nobody saw. (What comes
/// after an unseen pin would have come out the same without it: other writes do not ask what they replace.)
fn is_silent(operation: &Operation, last_named: &BTreeMap<u64, u64>) -> bool {
    match (operation.action, operation.told) {
        (_, Told::Refused) | (Action::Read, Told::Unknown) => true,
        (Action::Pin(serial), Told::Unknown) => !last_named.contains_key(&serial),
        _ => false,
    }
}

/// Every situation that open operations can lead to, taking effect in any order.
fn expand(
    from: &BTreeMap<Situation, usize>,
    open: &BTreeSet<usize>,
    unknown_unpins: usize,
    operations: &[Operation],
) -> BTreeMap<Situation, usize> {
    let mut reached = from.clone();
    let mut fresh: Vec<Situation> = from.keys().cloned().collect();
    while let Some(situation) = fresh.pop() {
        let used = reached[&situation];
        let (value, done) = &situation;
        let mut next = Vec::new();
        if value.is_some() && used < unknown_unpins {
            next.push(((None, done.clone()), used + 1));
        }
        for number in open.iter().filter(|number| !done.contains(*number)) {
            let Some(after) = step(*value, &operations[*number]) else { continue };
            let mut done = done.clone();
            done.insert(*number);
            next.push(((after, done), used));
        }
        for (situation, used) in next {
            if keep_least(&mut reached, situation.clone(), used) {
                fresh.push(situation);
            }
        }
    }
    reached
}

/// Whether a situation is new, or reached with fewer unpins than before.
fn keep_least(situations: &mut BTreeMap<Situation, usize>, situation: Situation, used: usize) -> bool {
    match situations.entry(situation) {
        Entry::Vacant(place) => {
            place.insert(used);
            true
        }
        Entry::Occupied(mut known) if used < *known.get() => {
            known.insert(used);
            true
        }
        Entry::Occupied(_) => false,
    }
}

/// What the register holds after an operation, if its answer fits what it held before.
fn step(value: Option<u64>, operation: &Operation) -> Option<Option<u64>> {
    match (operation.action, operation.told) {
        (Action::Pin(serial), Told::Pinned | Told::Unknown) => Some(Some(serial)),
        (Action::Unpin, Told::Unpinned(serial)) => (value == Some(serial)).then_some(None),
        (Action::Unpin | Action::Read, Told::Nothing) => value.is_none().then_some(None),
        (Action::Read, Told::Found(serial)) => (value == Some(serial)).then_some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(called: u64, returned: u64, action: Action, told: Told) -> Operation {
        Operation { key: 1, called, returned, action, told }
    }

    #[test]
    fn concurrent_writes_may_have_happened_in_either_order() {
        let history = [
            operation(0, 10, Action::Pin(1), Told::Pinned),
            operation(0, 10, Action::Pin(2), Told::Pinned),
            operation(11, 12, Action::Read, Told::Found(1)),
        ];
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn a_stale_read_is_found() {
        let history = [
            operation(0, 1, Action::Pin(1), Told::Pinned),
            operation(2, 3, Action::Pin(2), Told::Pinned),
            operation(4, 5, Action::Read, Told::Found(1)),
        ];
        assert_eq!(check(&history).unwrap_err().culprit, history[2]);
    }

    #[test]
    fn a_lost_write_is_found() {
        let history = [operation(0, 1, Action::Pin(1), Told::Pinned), operation(2, 3, Action::Read, Told::Nothing)];
        assert!(check(&history).is_err());
    }

    #[test]
    fn an_unknown_write_may_take_effect_late_or_never_but_not_twice() {
        let unknown = operation(0, 0, Action::Pin(1), Told::Unknown);
        let late =
            [unknown, operation(5, 6, Action::Read, Told::Nothing), operation(7, 8, Action::Read, Told::Found(1))];
        assert_eq!(check(&late), Ok(()));
        let never = [unknown, operation(5, 6, Action::Read, Told::Nothing)];
        assert_eq!(check(&never), Ok(()));
        let twice = [
            unknown,
            operation(1, 2, Action::Read, Told::Found(1)),
            operation(3, 4, Action::Unpin, Told::Unpinned(1)),
            operation(5, 6, Action::Read, Told::Found(1)),
        ];
        assert!(check(&twice).is_err());
    }

    #[test]
    fn unknown_writes_do_not_multiply() {
        let mut history = vec![operation(0, 1, Action::Pin(1_000), Told::Pinned)];
        for number in 0..40 {
            let called = 10 * number + 2;
            history.push(operation(called, 0, Action::Pin(number), Told::Unknown));
            history.push(operation(called, 0, Action::Unpin, Told::Unknown));
            history.push(operation(called + 1, called + 2, Action::Pin(100 + number), Told::Pinned));
            history.push(operation(called + 3, called + 4, Action::Read, Told::Found(100 + number)));
            let later = if number % 4 == 0 { Told::Found(number) } else { Told::Nothing };
            history.push(operation(called + 5, called + 6, Action::Read, later));
        }
        assert_eq!(check(&history), Ok(()));
        // One more unpin than there were; a pin that was seen before, and again after another.
        history.push(operation(500, 501, Action::Pin(2_000), Told::Pinned));
        let mut again = history.clone();
        again.push(operation(502, 503, Action::Read, Told::Found(4)));
        assert_eq!(check(&again).unwrap_err().culprit, again[again.len() - 1]);
        history.push(operation(502, 503, Action::Read, Told::Nothing));
        assert_eq!(check(&history), Ok(()), "ten of the forty unpins were not needed yet");
        for number in 0..10 {
            history.push(operation(510 + 10 * number, 511 + 10 * number, Action::Pin(3_000 + number), Told::Pinned));
            history.push(operation(512 + 10 * number, 513 + 10 * number, Action::Read, Told::Nothing));
        }
        assert_eq!(check(&history).unwrap_err().culprit, history[history.len() - 1]);
    }

    #[test]
    fn the_same_pin_is_not_removed_twice() {
        let history = [
            operation(0, 1, Action::Pin(1), Told::Pinned),
            operation(2, 5, Action::Unpin, Told::Unpinned(1)),
            operation(2, 5, Action::Unpin, Told::Unpinned(1)),
        ];
        assert!(check(&history).is_err());
    }
}
