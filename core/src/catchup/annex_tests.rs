//! Tests of what a receiver lacks of an annex.

use super::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

fn outcome(window: u64, number: u64) -> AnnexRow {
    let key = [&window.to_be_bytes()[..], &[7; 8], &number.to_be_bytes()].concat();
    AnnexRow { kind: OUTCOME_ROWS, key: key.into(), value: vec![0].into() }
}

fn other(kind: u8, number: u64, value: u8) -> AnnexRow {
    AnnexRow { kind, key: number.to_be_bytes().to_vec().into(), value: vec![value].into() }
}

fn sums<'a>(rows: impl IntoIterator<Item = &'a AnnexRow>) -> AnnexSums {
    let mut sums = AnnexSums::default();
    rows.into_iter().for_each(|row| sums.add(row));
    sums
}

/// What a receiver with the rows `own` has in the end, and how many rows came.
fn caught_up(own: &[AnnexRow], theirs: &[AnnexRow]) -> (AnnexSums, usize) {
    let offered = sums(theirs).coarse();
    let offered = AnnexSums::decode(&offered.encode()).unwrap();
    let ask = offered.lacking(&sums(own));
    let AnnexAsk::Groups(asked) = &ask else { panic!("not all of it") };
    let kept = own.iter().filter(|row| offered.keeps(&ask, row));
    let came: Vec<&AnnexRow> = theirs.iter().filter(|row| ask.wants(offered.group_of(row))).collect();
    assert!(asked.is_sorted());
    (sums(kept.chain(came.iter().copied())), came.len())
}

#[test]
fn only_windows_that_went_on_and_groups_that_differ_travel() {
    let mut own: Vec<AnnexRow> = (1..=5).flat_map(|window| (0..1000).map(move |n| outcome(window, n))).collect();
    own.extend((0..4000).map(|number| other(2, number, 1)));
    let mut theirs: Vec<AnnexRow> = (3..=5).flat_map(|window| (0..1000).map(move |n| outcome(window, n))).collect();
    theirs.extend((1000..1010).map(|number| outcome(5, number)));
    theirs.extend((0..4000).filter(|number| *number != 17).map(|number| other(2, number, u8::from(number != 3))));
    let (end, came) = caught_up(&own, &theirs);
    assert_eq!(end.total(), sums(&theirs).total());
    assert!((1010..1200).contains(&came), "window 5, and two groups of some sixteen to thirty rows: {came}");
    assert_eq!(caught_up(&[], &theirs).1, theirs.len(), "who has nothing gets all");
    assert_eq!(caught_up(&theirs, &theirs).1, 0);
    assert_eq!(caught_up(&own, &[]).0, AnnexSums::default(), "what was forgotten goes");
}

#[test]
fn whatever_a_receiver_has_it_ends_with_what_was_offered() {
    for seed in 0..50 {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut some = |rows: u64| -> Vec<AnnexRow> {
            let mut rows: Vec<AnnexRow> = (0..chance.random_range(0..rows))
                .map(|_| match chance.random_range(0..3) {
                    0 => outcome(chance.random_range(0..4), chance.random_range(0..50)),
                    kind => other(kind + 1, chance.random_range(0..300), chance.random_range(0..2)),
                })
                .collect();
            rows.sort_by(|one, next| (one.kind, &one.key).cmp(&(next.kind, &next.key)));
            rows.dedup_by(|one, next| (one.kind, &one.key) == (next.kind, &next.key));
            rows
        };
        let (own, theirs) = (some(400), some(600));
        assert_eq!(caught_up(&own, &theirs).0.total(), sums(&theirs).total(), "seed {seed}");
    }
}

#[test]
fn what_is_no_sums_is_refused() {
    let good = sums(&[outcome(1, 1), other(2, 2, 2)]).encode();
    assert!(AnnexSums::decode(&good).is_ok());
    for end in 0..good.len() {
        assert!(AnnexSums::decode(&good[..end]).is_err(), "cut off at {end}");
    }
    for place in 0..good.len() {
        let mut flipped = good.clone();
        flipped[place] ^= 0x55;
        drop(AnnexSums::decode(&flipped));
    }
    assert!(AnnexSums::decode(&vec![1; FORMAT.limit + 1]).is_err());
}
