//! Judges histories: can what the clients saw be explained by operations that took effect one after the other, each at
//! one instant between its call and its return?
//!
//! One register per CID, holding nothing or the serial number of a pin. The search keeps, event by event, every
//! possible situation: the register's value, and which of the open operations have already taken effect (Lowe's
//! just-in-time linearization). An operation whose outcome is unknown stays open for ever: it may take effect at any
//! later time, or never.

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

type Situation = (Option<u64>, BTreeSet<usize>);

fn check_register(operations: &[Operation]) -> Result<(), Violation> {
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for (number, operation) in operations.iter().enumerate() {
        // What had no effect and told nothing constrains nothing.
        let silent_read = operation.told == Told::Unknown && operation.action == Action::Read;
        if silent_read || operation.told == Told::Refused {
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
    let mut situations: BTreeSet<Situation> = BTreeSet::from([(None, BTreeSet::new())]);
    for (_, returns, number) in events {
        if !returns {
            open.insert(number);
            continue;
        }
        let reached = expand(&situations, &open, operations);
        let explained: BTreeSet<Situation> = reached
            .iter()
            .filter(|(_, done)| done.contains(&number))
            .map(|(value, done)| (*value, done.iter().copied().filter(|other| *other != number).collect()))
            .collect();
        if explained.is_empty() {
            let possible = reached.into_iter().map(|(value, _)| value).collect();
            return Err(Violation { culprit: operations[number], possible });
        }
        open.remove(&number);
        situations = explained;
    }
    Ok(())
}

/// Every situation that open operations can lead to, taking effect in any order.
fn expand(from: &BTreeSet<Situation>, open: &BTreeSet<usize>, operations: &[Operation]) -> BTreeSet<Situation> {
    let mut reached = from.clone();
    let mut fresh: Vec<Situation> = from.iter().cloned().collect();
    while let Some((value, done)) = fresh.pop() {
        for number in open.iter().filter(|number| !done.contains(*number)) {
            let Some(next) = step(value, &operations[*number]) else { continue };
            let mut done = done.clone();
            done.insert(*number);
            if reached.insert((next, done.clone())) {
                fresh.push((next, done));
            }
        }
    }
    reached
}

/// What the register holds after an operation, if its answer fits what it held before.
fn step(value: Option<u64>, operation: &Operation) -> Option<Option<u64>> {
    match (operation.action, operation.told) {
        (Action::Pin(serial), Told::Pinned | Told::Unknown) => Some(Some(serial)),
        (Action::Unpin, Told::Unknown) => Some(None),
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
    fn the_same_pin_is_not_removed_twice() {
        let history = [
            operation(0, 1, Action::Pin(1), Told::Pinned),
            operation(2, 5, Action::Unpin, Told::Unpinned(1)),
            operation(2, 5, Action::Unpin, Told::Unpinned(1)),
        ];
        assert!(check(&history).is_err());
    }
}
