//! The table of `docs/merge.md`, case by case, and the formats.

use cluster_types::{Cid, PeerId, Pin, PinMode, PinOptions, PinningRequest, RequestNumber, Timestamp};

use super::model::peer;
use super::*;

const BASE: u64 = 10;

fn cid() -> Cid {
    crate::tracker::fakes::cid(7)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(1_800_000_000 + seconds)
}

fn pin(name: &str, seconds: i64) -> Pin {
    let options = PinOptions {
        replication_factor_min: 1,
        replication_factor_max: 2,
        name: name.to_owned(),
        ..PinOptions::default()
    };
    let mut pin = Pin::new(cid(), options);
    pin.timestamp = at(seconds);
    pin.allocations = vec![peer(1)];
    pin
}

fn held_by(pin: Pin, peers: &[usize]) -> Pin {
    Pin { allocations: peers.iter().map(|number| peer(*number)).collect(), ..pin }
}

/// A write of peer `author` who saw `base` in the log at [`BASE`].
fn on(author: usize, seconds: i64, base: Option<&Pin>) -> Write {
    Write::by(peer(author), at(seconds), cid(), base.cloned(), Sight::of_state(BASE, base))
}

fn checked(write: Write) -> Eventual {
    Eventual::new(write).unwrap()
}

/// Merges writes into `now`, one an entry.
fn merged(now: Option<&Pin>, writes: &[&Eventual]) -> (Option<Pin>, bool, Vec<Conflict>) {
    let (mut record, mut history, mut reallocate, mut conflicts) = (now.cloned(), None, false, Vec::new());
    for (place, write) in (BASE + 10..).zip(writes) {
        let step = merge(record.as_ref(), history.as_ref(), write, Place::entry(place, at(1_000), 0));
        (record, history, reallocate) = (step.record, Some(step.history), step.reallocate);
        conflicts.extend(step.conflicts);
    }
    (record, reallocate, conflicts)
}

fn rules(conflicts: &[Conflict]) -> Vec<Rule> {
    conflicts.iter().map(|conflict| conflict.rule).collect()
}

fn name(record: Option<&Pin>) -> Option<&str> {
    record.map(|pin| pin.options.name.as_str())
}

#[test]
fn a_write_on_an_unchanged_record_simply_applies() {
    let base = pin("old", 0);
    let (record, reallocate, conflicts) = merged(Some(&base), &[&checked(on(2, 5, Some(&base)).pin(pin("new", 5)))]);
    assert_eq!((record, reallocate, conflicts), (Some(pin("new", 5)), false, Vec::new()));
    let (record, _, conflicts) = merged(Some(&base), &[&checked(on(2, 5, Some(&base)).unpin())]);
    assert_eq!((record, conflicts), (None, Vec::new()));
}

#[test]
fn a_pin_beats_a_concurrent_unpin_on_either_side() {
    let base = pin("old", 0);
    let repin = checked(on(2, 5, Some(&base)).pin(pin("new", 5)));
    let unpin = checked(on(3, 9, Some(&base)).unpin());
    for order in [[&repin, &unpin], [&unpin, &repin]] {
        let (record, reallocate, conflicts) = merged(Some(&base), &order);
        assert_eq!((name(record.as_ref()), reallocate), (Some("new"), true));
        assert_eq!(rules(&conflicts), [Rule::PinBeatsUnpin]);
        assert_eq!((conflicts[0].loser.author, conflicts[0].loser.time), (Some(peer(3)), at(9)));
    }
    // Removed in the log meanwhile.
    let (record, _, conflicts) = merged(None, &[&repin]);
    assert_eq!((name(record.as_ref()), rules(&conflicts)), (Some("new"), vec![Rule::PinBeatsUnpin]));
    assert_eq!((conflicts[0].loser.author, conflicts[0].loser.wish), (None, Wish::Unpin));
    // Pinned again in the log meanwhile.
    let (record, _, conflicts) = merged(Some(&pin("log", 3)), &[&unpin]);
    assert_eq!((name(record.as_ref()), rules(&conflicts)), (Some("log"), vec![Rule::PinBeatsUnpin]));
}

#[test]
fn two_unpins_agree() {
    let base = pin("old", 0);
    let (record, _, conflicts) = merged(None, &[&checked(on(3, 9, Some(&base)).unpin())]);
    assert_eq!((record, conflicts), (None, Vec::new()));
}

#[test]
fn of_two_pins_the_newer_wins_and_the_other_is_told() {
    let base = pin("old", 0);
    let early = checked(on(2, 5, Some(&base)).pin(pin("early", 5)));
    let late = checked(on(3, 6, Some(&base)).pin(held_by(pin("late", 6), &[2])));
    for order in [[&early, &late], [&late, &early]] {
        let (record, reallocate, conflicts) = merged(Some(&base), &order);
        assert_eq!((name(record.as_ref()), reallocate), (Some("late"), true));
        assert_eq!(rules(&conflicts), [Rule::NewerPin]);
        assert_eq!(conflicts[0].loser.record, Some(pin("early", 5)));
    }
    // The same second: the same pin on every peer, whichever comes first.
    let tie = checked(on(3, 5, Some(&base)).pin(pin("tie", 5)));
    assert_eq!(merged(Some(&base), &[&early, &tie]).0, merged(Some(&base), &[&tie, &early]).0);
    // The same options twice: nobody loses.
    let same = checked(on(3, 6, Some(&base)).pin(pin("early", 6)));
    assert_eq!(merged(Some(&base), &[&early, &same]).2, Vec::new());
}

/// A pin that only these requests keep.
fn requested(requests: &[(u8, &str)], seconds: i64) -> Pin {
    let request = |(id, name): &(u8, &str)| PinningRequest {
        id: RequestNumber([*id; 16]),
        user: "ann".to_owned(),
        name: (*name).to_owned(),
        meta: [].into(),
        origins: Vec::new(),
        created: at((*id).into()),
    };
    let mut pin = Pin { requests: requests.iter().map(request).collect(), only_requested: true, ..pin("", seconds) };
    pin.show_newest_request();
    pin
}

fn numbers(record: Option<&Pin>) -> Vec<u8> {
    record.map(|pin| pin.requests.iter().map(|request| request.id.0[0]).collect()).unwrap_or_default()
}

#[test]
fn requests_that_were_made_apart_are_united_and_nobody_loses() {
    let base = requested(&[(1, "base")], 0);
    let one = checked(on(2, 5, Some(&base)).pin(requested(&[(1, "base"), (2, "one")], 5)));
    let other = checked(on(3, 6, Some(&base)).pin(requested(&[(1, "base"), (3, "other")], 6)));
    for order in [[&one, &other], [&other, &one]] {
        let (record, reallocate, conflicts) = merged(Some(&base), &order);
        assert_eq!((numbers(record.as_ref()), reallocate), (vec![1, 2, 3], true));
        assert_eq!((name(record.as_ref()), conflicts), (Some("other"), Vec::new()));
        assert!(record.unwrap().only_requested);
    }
    // The last request was taken back on one side, and another one made on the other.
    let last = checked(on(2, 5, Some(&base)).unpin());
    for order in [[&last, &other], [&other, &last]] {
        let (record, _, conflicts) = merged(Some(&base), &order);
        assert_eq!((numbers(record.as_ref()), rules(&conflicts)), (vec![1, 3], vec![Rule::PinBeatsUnpin]));
    }
}

#[test]
fn a_request_and_a_pin_by_other_means_both_count() {
    let asked = checked(on(2, 9, None).pin(requested(&[(1, "asked")], 9)));
    let plain = checked(on(3, 5, None).pin(pin("plain", 5)));
    for order in [[&asked, &plain], [&plain, &asked]] {
        let (record, _, conflicts) = merged(None, &order);
        assert_eq!((name(record.as_ref()), numbers(record.as_ref())), (Some("plain"), vec![1]));
        assert_eq!(conflicts, Vec::new(), "the request is kept, though it came later");
        assert!(!record.unwrap().only_requested, "it does not go with the request");
    }
}

#[test]
fn who_saw_what_was_united_takes_a_request_back_for_good() {
    let base = requested(&[(1, "base")], 0);
    let one = checked(on(2, 5, Some(&base)).pin(requested(&[(1, "base"), (2, "one")], 5)));
    let other = checked(on(3, 6, Some(&base)).pin(requested(&[(1, "base"), (3, "other")], 6)));
    let mut sight = Sight::of_state(BASE, Some(&base));
    sight.add(&one);
    sight.add(&other);
    let shown = merged(Some(&base), &[&one, &other]).0;
    let left = requested(&[(1, "base"), (3, "other")], 7);
    let back = checked(Write::by(peer(4), at(7), cid(), shown, sight).pin(left));
    // What it replaced is known once it is merged, and comes to nothing.
    for order in [&[&one, &other, &back][..], &[&other, &one, &back], &[&other, &back], &[&back]] {
        assert_eq!(numbers(merged(Some(&base), order).0.as_ref()), [1, 3]);
    }
}

#[test]
fn the_whole_dag_beats_its_root() {
    let mut direct = pin("root", 9);
    (direct.options.mode, direct.max_depth) = (PinMode::Direct, PinMode::Direct.depth());
    let direct = checked(on(2, 9, None).pin(direct));
    let whole = checked(on(3, 5, None).pin(pin("whole", 5)));
    for order in [[&direct, &whole], [&whole, &direct]] {
        let (record, _, conflicts) = merged(None, &order);
        assert_eq!((name(record.as_ref()), rules(&conflicts)), (Some("whole"), vec![Rule::DeeperPin]));
    }
}

#[test]
fn what_builds_on_a_write_replaces_it_whichever_comes_first() {
    let base = pin("old", 0);
    let first = checked(on(2, 5, Some(&base)).pin(pin("first", 5)));
    let mut sight = Sight::of_state(BASE, Some(&base));
    sight.add(&first);
    let second = checked(Write::by(peer(3), at(6), cid(), first.result.clone(), sight).unpin());
    assert_eq!(merged(Some(&base), &[&first, &second]), (None, false, Vec::new()));
    let step = merge(Some(&base), None, &second, Place::entry(20, at(50), 0));
    assert_eq!(step.record, None);
    assert!(step.remember.contains(&first.id()), "the first write would be merged as if nobody had seen it");
}

#[test]
fn a_repair_and_other_options_are_both_kept() {
    let base = pin("old", 0);
    let repair = checked(on(2, 5, Some(&base)).reallocate(vec![peer(5)]));
    let options = checked(on(3, 6, Some(&base)).pin(pin("new", 6)));
    for order in [[&repair, &options], [&options, &repair]] {
        let (record, reallocate, conflicts) = merged(Some(&base), &order);
        assert_eq!((name(record.as_ref()), reallocate, conflicts), (Some("new"), true, Vec::new()));
    }
    // Alone it is taken as it is.
    let (record, reallocate, _) = merged(Some(&base), &[&repair]);
    assert_eq!((record, reallocate), (Some(held_by(base.clone(), &[5])), false));
    // The log repaired it too: the log's holders stay.
    let (record, reallocate, conflicts) = merged(Some(&held_by(base, &[6])), &[&repair]);
    assert_eq!((record, reallocate), (Some(held_by(pin("old", 0), &[6])), true));
    assert_eq!(rules(&conflicts), [Rule::NewerRepair]);
}

#[test]
fn a_repair_by_a_clock_that_is_behind_the_record_counts() {
    // The record says 50, the peer that repairs says 5.
    let base = pin("old", 50);
    let repair = checked(on(2, 5, Some(&base)).reallocate(vec![peer(2)]));
    let shown = merge(Some(&base), None, &repair, Place::overlay(BASE, at(5)));
    assert_eq!(shown.record, Some(held_by(pin("old", 50), &[2])));
}

#[test]
fn an_unpin_beats_a_repair_with_and_without_the_log() {
    let base = pin("old", 0);
    let repair = checked(on(2, 7, Some(&base)).reallocate(vec![peer(5)]));
    let unpin = checked(on(3, 6, Some(&base)).unpin());
    for order in [[&repair, &unpin], [&unpin, &repair]] {
        let (record, _, conflicts) = merged(Some(&base), &order);
        assert_eq!((record, rules(&conflicts)), (None, vec![Rule::UnpinBeatsRepair]));
    }
    // The leader gave it to other peers while this side removed it: nobody wished to keep it.
    let (record, _, conflicts) = merged(Some(&held_by(base, &[6])), &[&unpin]);
    assert_eq!((record, conflicts), (None, Vec::new()));
}

#[test]
fn the_leaders_new_holders_do_not_end_a_history() {
    let base = pin("old", 0);
    let first = checked(on(2, 5, Some(&base)).pin(pin("first", 5)));
    let other = checked(on(3, 6, Some(&base)).pin(pin("other", 6)));
    let step = merge(Some(&base), None, &first, Place::entry(20, at(50), 0));
    let repaired = held_by(step.record.unwrap(), &[4]);
    let mut sight = Sight::of_state(BASE, Some(&base));
    sight.add(&first);
    let unpin = checked(Write::by(peer(2), at(7), cid(), first.result.clone(), sight).unpin());
    let gone = merge(Some(&repaired), Some(&step.history), &unpin, Place::entry(22, at(60), 0));
    assert_eq!(gone.record, None);
    let back = merge(None, Some(&gone.history), &other, Place::entry(23, at(70), 0));
    assert_eq!((name(back.record.as_ref()), rules(&back.conflicts)), (Some("other"), vec![Rule::PinBeatsUnpin]));
}

#[test]
fn an_expiry_removes_only_what_its_author_saw_and_only_in_time() {
    let mut base = pin("old", 0);
    base.options.expire_at = at(4);
    let expiry = checked(on(2, 5, Some(&base)).expire());
    let (record, _, conflicts) = merged(Some(&base), &[&expiry]);
    assert_eq!((record, conflicts), (None, Vec::new()));
    let mut longer = pin("old", 3);
    longer.options.expire_at = at(500);
    let prolonged = checked(on(3, 3, Some(&base)).pin(longer.clone()));
    for order in [[&expiry, &prolonged], [&prolonged, &expiry]] {
        let (record, _, conflicts) = merged(Some(&base), &order);
        assert_eq!((record, conflicts), (Some(longer.clone()), Vec::new()));
    }
    assert_eq!(merged(Some(&longer), &[&expiry]).0, Some(longer));
    // A clock that is ahead makes nothing end before its time.
    let early = merge(Some(&base), None, &expiry, Place::entry(20, at(3), 0));
    assert_eq!((early.record, early.remember), (Some(base), vec![expiry.id()]));
}

#[test]
fn a_pin_of_a_joined_cluster_is_added_and_never_removes() {
    let brought = checked(Write::join(peer(9), at(50), pin("theirs", 7)));
    let (record, reallocate, conflicts) = merged(None, &[&brought]);
    assert_eq!(
        (record, reallocate, conflicts),
        (Some(pin("theirs", 7)), true, Vec::new()),
        "its holders stay until looked at"
    );
    let (record, _, conflicts) = merged(Some(&pin("ours", 8)), &[&brought]);
    assert_eq!((name(record.as_ref()), rules(&conflicts)), (Some("ours"), vec![Rule::NewerPin]));
    let (record, _, conflicts) = merged(Some(&pin("ours", 6)), &[&brought]);
    assert_eq!((name(record.as_ref()), rules(&conflicts)), (Some("theirs"), vec![Rule::NewerPin]));
}

#[test]
fn a_clock_that_is_far_ahead_does_not_win_for_ever() {
    let base = pin("old", 0);
    let ahead = checked(on(2, 1_000_000, Some(&base)).pin(pin("ahead", 1_000_000)));
    let step = merge(Some(&base), None, &ahead, Place::entry(20, at(50), 0));
    assert_eq!(step.record.as_ref().map(|pin| pin.timestamp), Some(at(50)));
    let later = checked(on(3, 60, Some(&base)).pin(pin("later", 60)));
    let step = merge(step.record.as_ref(), Some(&step.history), &later, Place::entry(21, at(70), 0));
    assert_eq!(name(step.record.as_ref()), Some("later"));
}

#[test]
fn a_write_cannot_claim_to_have_seen_what_is_not_in_the_log_yet() {
    let base = pin("old", 0);
    let mut claim = on(2, 5, Some(&base)).unpin();
    claim.seen.index = u64::MAX;
    let rival = checked(on(3, 6, Some(&base)).pin(pin("rival", 6)));
    let claim = checked(claim);
    for order in [[&claim, &rival], [&rival, &claim]] {
        assert_eq!(name(merged(Some(&base), &order).0.as_ref()), Some("rival"));
    }
}

#[test]
fn a_stale_write_applies_where_nothing_changed_and_is_marked_where_something_did() {
    let base = pin("old", 0);
    let unpin = checked(on(2, 5, Some(&base)).unpin());
    let place = Place::entry(5_000, at(900), BASE + 1);
    assert_eq!(merge(Some(&base), None, &unpin, place).record, None);
    let kept = merge(Some(&pin("log", 3)), None, &unpin, place);
    assert_eq!(name(kept.record.as_ref()), Some("log"));
    assert!(kept.conflicts[0].stale);
    assert!(kept.conflicts[0].to_string().contains("stale"), "{}", kept.conflicts[0]);
}

#[test]
fn what_the_log_carried_out_adds_nothing_and_replaces_what_it_saw_beyond_the_log() {
    let base = pin("old", 0);
    let seen = checked(on(2, 5, Some(&base)).pin(pin("seen", 5)));
    let unseen = checked(on(3, 4, Some(&base)).pin(pin("unseen", 4)));
    let mut sight = Sight::of_state(BASE + 1, Some(&pin("log", 3)));
    sight.add(&seen);
    let tried = checked(Write::by(peer(4), at(6), cid(), seen.result.clone(), sight).pin(pin("log", 3)));
    // The log has its wish, and for the unpin, what came after it.
    let place = |index| Place::entry(index, at(1_000), 0);
    let made = Some(CarriedOut::Wish(CarriedOut::first_of(&pin("log", 3))));
    let mut ends = Vec::new();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let (mut record, mut history, mut known) = (Some(pin("log", 3)), None, Vec::new());
        for (index, which) in (BASE + 10..).zip(order) {
            let (write, carried_out) = [(&seen, None), (&unseen, None), (&tried, made)][which];
            if known.contains(&write.id()) {
                continue;
            }
            let step = merge(record.as_ref(), history.as_ref(), write, place(index).of_carried_out(carried_out));
            (record, history) = (step.record, Some(step.history));
            known.extend(step.remember);
        }
        let mut living: Vec<String> =
            history.unwrap().versions.into_iter().map(|version| version.record.options.name).collect();
        living.sort_unstable();
        ends.push((name(record.as_ref()).map(str::to_owned), living));
    }
    let expected = (Some("unseen".to_owned()), vec!["log".to_owned(), "unseen".to_owned()]);
    assert!(ends.iter().all(|end| *end == expected), "{ends:?}");
    let unpin = checked(on(4, 6, Some(&pin("log", 3))).unpin());
    let step = merge(Some(&pin("log", 3)), None, &unpin, place(30).of_carried_out(Some(CarriedOut::Removal)));
    assert_eq!((name(step.record.as_ref()), step.conflicts), (Some("log"), Vec::new()));
}

#[test]
fn nonsense_is_refused() {
    let base = pin("old", 0);
    let mut other_cid = pin("x", 5);
    other_cid.cid = crate::tracker::fakes::cid(8);
    let mut no_factor = pin("x", 5);
    no_factor.options.replication_factor_min = 0;
    let mut shard = base.clone();
    shard.kind = cluster_types::PinType::Shard;
    let mut crowded = on(2, 5, Some(&base)).unpin();
    crowded.seen.versions = (0..=MAX_SEEN)
        .map(|n| {
            VersionId::from_bytes(
                [u8::try_from(n % 256).unwrap(), u8::try_from(n / 256).unwrap()].repeat(16).try_into().unwrap(),
            )
        })
        .collect();
    let mut changed = on(2, 5, Some(&base)).reallocate(vec![peer(3)]);
    changed.result = Some(pin("changed", 0));
    let mut knowing = Write::join(peer(2), at(5), base.clone());
    knowing.seen.index = 7;
    let mut huge = pin("x", 5);
    huge.options.metadata.insert("k".to_owned(), "v".repeat(MAX_WRITE_BYTES));
    let mut imported = base.clone();
    (imported.options.replication_factor_min, imported.options.replication_factor_max) = (0, 0);
    for open in [Write::join(peer(2), at(5), imported.clone()), on(2, 5, Some(&imported)).unpin()] {
        assert!(Eventual::new(open).is_ok(), "an imported pin may leave its factors open");
    }
    let bad = [
        on(2, 5, Some(&base)).pin(other_cid),
        on(2, 5, Some(&base)).pin(no_factor),
        on(2, 5, None).unpin(),
        on(2, 5, Some(&shard)).unpin(),
        on(2, 5, Some(&base)).expire(),
        on(2, 5, None).reallocate(vec![peer(3)]),
        on(2, 5, Some(&base)).pin(huge),
        crowded,
        changed,
        knowing,
    ];
    for write in bad {
        assert!(Eventual::new(write.clone()).is_err(), "{write:?}");
    }
}

fn sample() -> Eventual {
    let base = pin("old", 0);
    let first = checked(on(2, 5, Some(&base)).reallocate(vec![peer(3), peer(4)]));
    let mut sight = Sight::of_state(BASE, Some(&base));
    sight.add(&first);
    checked(Write::by(peer(3), at(6), cid(), first.result.clone(), sight).pin(pin("new", 6)))
}

fn tried() -> Eventual {
    let mut write = Write::clone(&sample()).tried_as(Some([0xa7; 16]));
    write.seen.attempts.extend([[0xa5; 16], [0xa6; 16]]);
    checked(write)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A history with every kind of content, and a conflict.
fn rich() -> (History, Conflict) {
    let base = pin("old", 0);
    let writes = [
        checked(on(2, 5, Some(&base)).pin(pin("a", 5))),
        checked(on(3, 6, Some(&base)).unpin()),
        checked(on(4, 7, Some(&base)).reallocate(vec![peer(5)])),
        checked(Write::join(peer(9), at(50), held_by(pin("theirs", 7), &[]))),
    ];
    let (mut record, mut history, mut last) = (Some(base), None, None);
    for (index, write) in (20..).zip(&writes) {
        let step = merge(record.as_ref(), history.as_ref(), write, Place::entry(index, at(100), 0));
        (record, history) = (step.record, Some(step.history));
        last = step.conflicts.into_iter().next().or(last);
    }
    (history.unwrap(), last.unwrap())
}

#[test]
fn the_formats_are_pinned() {
    let (history, conflict) = rich();
    for (what, bytes, golden) in [
        ("write", sample().encode(), include_str!("golden/write-v1.hex")),
        ("write after an attempt", tried().encode(), include_str!("golden/write-v2.hex")),
        ("history", history.encode(), include_str!("golden/history-v1.hex")),
        ("conflict", conflict.encode(), include_str!("golden/conflict-v1.hex")),
    ] {
        assert_eq!(hex(&bytes), golden.trim(), "{what}");
    }
    assert_eq!(Eventual::decode(&sample().encode()).unwrap(), sample());
    assert_eq!(Eventual::decode(&tried().encode()).unwrap(), tried());
    assert_eq!(History::decode(&history.encode()).unwrap(), history);
    assert_eq!(Conflict::decode(&conflict.encode()).unwrap(), conflict);
    let packed = rmp_serde::to_vec_named(&sample()).unwrap();
    assert_eq!(rmp_serde::from_slice::<Eventual>(&packed).unwrap(), sample());
}

#[test]
fn cut_or_foreign_bytes_are_an_error_and_a_second_spelling_too() {
    let (history, conflict) = rich();
    let write = sample().encode();
    let mut longer = write.clone();
    longer.extend_from_slice(&[0xf8, 0x07, 0x01]);
    assert!(Eventual::decode(&longer).is_err(), "a field that is not known yet would have another name here");
    let mut other_version = write.clone();
    other_version[0] = 2;
    assert!(Eventual::decode(&other_version).is_err(), "without an attempt it is spelled as version 1");
    let mut older = tried().encode();
    older[0] = 1;
    assert!(Eventual::decode(&older).is_err());
    for bytes in [write, tried().encode(), history.encode(), conflict.encode()] {
        for end in 0..bytes.len() {
            // Whatever it gives, it gives it without a panic.
            drop((Eventual::decode(&bytes[..end]), History::decode(&bytes[..end]), Conflict::decode(&bytes[..end])));
            let mut flipped = bytes.clone();
            flipped[end] ^= 0x15;
            drop((Eventual::decode(&flipped), History::decode(&flipped), Conflict::decode(&flipped)));
        }
        assert!(Eventual::decode(&bytes[..bytes.len() - 1]).is_err());
    }
    assert!(Eventual::decode(&vec![1; MAX_WRITE_BYTES + 1]).is_err());
}

#[test]
fn an_event_reads_like_a_sentence() {
    let base = pin("old", 0);
    let early = checked(on(2, 5, Some(&base)).pin(pin("early", 5)));
    let (_, _, conflicts) = merged(Some(&pin("log", 9)), &[&early]);
    let author: PeerId = peer(2);
    let expected = format!(
        "{}: kept the pin in the log at 2027-01-15T08:00:09Z, not the pin by {author} at 2027-01-15T08:00:05Z (newer-pin)",
        cid()
    );
    assert_eq!(conflicts[0].to_string(), expected);
}
