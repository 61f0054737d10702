//! The checker checked: with a broken rule it must find a history that goes wrong, and soon.

use cluster_types::Pin;

use super::super::{Eventual, History, Merged, Place, Wish, merge};
use super::{FIRST_SEED, first_failure};

#[expect(clippy::print_stdout, reason = "says how soon the checker noticed")]
fn must_be_found(what: &str, merge: super::MergeFn) {
    let (seed, story) = first_failure(FIRST_SEED..FIRST_SEED + 2_000, merge).expect(what);
    println!("{what}: found after {} cases: {}", seed - FIRST_SEED + 1, story.lines().next().unwrap());
}

#[test]
fn an_unpin_that_beats_a_concurrent_pin_is_found() {
    fn broken(now: Option<&Pin>, history: Option<&History>, write: &Eventual, place: Place) -> Merged {
        let mut merged = merge(now, history, write, place);
        if write.wish == Wish::Unpin {
            merged.record = None;
        }
        merged
    }
    must_be_found("unpin beats pin", broken);
}

#[test]
fn the_last_come_pin_in_the_place_of_the_newest_is_found() {
    fn broken(now: Option<&Pin>, history: Option<&History>, write: &Eventual, place: Place) -> Merged {
        let mut merged = merge(now, history, write, place);
        if write.wish == Wish::Pin {
            merged.record.clone_from(&write.result);
        }
        merged
    }
    must_be_found("last come wins", broken);
}

#[test]
fn a_repair_that_brings_back_what_was_removed_is_found() {
    fn broken(now: Option<&Pin>, history: Option<&History>, write: &Eventual, place: Place) -> Merged {
        let mut merged = merge(now, history, write, place);
        if write.wish == Wish::Reallocate && merged.record.is_none() {
            merged.record.clone_from(&write.result);
        }
        merged
    }
    must_be_found("repair resurrects", broken);
}

#[test]
fn an_expiry_of_a_pin_that_was_prolonged_is_found() {
    fn broken(now: Option<&Pin>, history: Option<&History>, write: &Eventual, place: Place) -> Merged {
        let mut merged = merge(now, history, write, place);
        if write.wish == Wish::Expire {
            merged.record = None;
        }
        merged
    }
    must_be_found("expiry of a changed pin", broken);
}

#[test]
fn a_loser_that_nobody_hears_of_is_found() {
    fn broken(now: Option<&Pin>, history: Option<&History>, write: &Eventual, place: Place) -> Merged {
        Merged { conflicts: Vec::new(), ..merge(now, history, write, place) }
    }
    must_be_found("losers in silence", broken);
}

#[test]
fn a_merge_without_memory_is_found() {
    fn broken(now: Option<&Pin>, history: Option<&History>, write: &Eventual, place: Place) -> Merged {
        Merged { remember: Vec::new(), ..merge(now, history, write, place) }
    }
    must_be_found("no memory of merged writes", broken);
}

#[test]
fn a_merge_without_history_is_found() {
    fn broken(now: Option<&Pin>, _: Option<&History>, write: &Eventual, place: Place) -> Merged {
        merge(now, None, write, place)
    }
    must_be_found("no history of a CID", broken);
}
