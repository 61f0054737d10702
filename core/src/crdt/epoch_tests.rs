//! Epochs, tails, and going back.

use proptest::prelude::*;

use super::super::testing::{damaged, hex, pool, record, records};
use super::*;

fn entry() -> TailEntry {
    TailEntry { index: 300, cid: pool()[0], before: Some(record("before")) }
}

fn meta() -> ShardMeta {
    ShardMeta { epoch: 900, previous: 300, since_epoch: 5, since_previous: 70 }
}

#[test]
fn the_formats_are_pinned() {
    let added = TailEntry { before: None, ..entry() };
    let found = format!("{}\n{}\n{}\n", hex(&meta().encode()), hex(&entry().encode()), hex(&added.encode()));
    assert_eq!(found, include_str!("golden/epoch-v1.txt"));
    assert_eq!(ShardMeta::decode(&meta().encode()).unwrap(), meta());
    assert_eq!(TailEntry::decode(&entry().encode()).unwrap(), entry());
    assert_eq!(TailEntry::decode(&added.encode()).unwrap(), added);
}

#[test]
fn an_empty_record_is_not_an_absent_one() {
    let empty = TailEntry { before: Some(Bytes::new()), ..entry() };
    assert_eq!(TailEntry::decode(&empty.encode()).unwrap(), empty);
}

#[test]
fn what_is_out_of_order_or_too_long_is_refused() {
    assert!(ShardMeta::decode(&ShardMeta { previous: 901, ..meta() }.encode()).is_err());
    assert!(ShardMeta::decode(&ShardMeta { since_epoch: 71, ..meta() }.encode()).is_err());
    assert!(TailEntry::decode(&vec![1; MAX_TAIL_ENTRY_BYTES + 1]).is_err());
}

#[test]
fn a_tail_that_outgrew_its_shard_starts_an_epoch_with_the_next_entry() {
    let meta = ShardMeta::default().after(10, SHORT_TAIL, 0);
    assert_eq!(meta, ShardMeta { epoch: 0, previous: 0, since_epoch: 64, since_previous: 64 });
    let outgrown = meta.after(11, 1, 100);
    assert_eq!(outgrown, ShardMeta { epoch: 0, previous: 0, since_epoch: 65, since_previous: 65 });
    assert_eq!(outgrown.after(12, 0, 100), outgrown);
    let first = outgrown.after(12, 3, 100);
    assert_eq!(first, ShardMeta { epoch: 12, previous: 0, since_epoch: 0, since_previous: 68 });
    assert!(first.covers(0));
    let second = first.after(13, 100, 10).after(20, 7, 10);
    assert_eq!(second, ShardMeta { epoch: 20, previous: 12, since_epoch: 0, since_previous: 107 });
    assert!(second.covers(12) && !second.covers(11));
    // Half of a large shard.
    let large = ShardMeta::default().after(1, 500, 1000);
    assert_eq!(large.after(2, 1, 1000).epoch, 0);
    assert_eq!(large.after(2, 1, 1000).after(3, 1, 1000).epoch, 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn undoing_gives_the_records_of_every_covered_index(
        steps in proptest::collection::vec((1_u64..4, proptest::collection::btree_map(0_usize..24, proptest::option::of(0_u8..5), 1..24)), 1..120),
        held in 0_usize..24,
    ) {
        let mut now = records(held);
        let mut history = BTreeMap::from([(0, now.clone())]);
        let (mut tail, mut meta, mut index) = (Vec::new(), ShardMeta::default(), 0);
        for (gap, puts) in steps {
            index += gap;
            let pins = now.len() as u64;
            let before = tail.len();
            for (place, text) in puts {
                let cid = pool()[place];
                let was = match text {
                    Some(text) => now.insert(cid, record(&text.to_string())),
                    None => now.remove(&cid),
                };
                if was.as_ref() != now.get(&cid) {
                    tail.push(TailEntry { index, cid, before: was });
                }
            }
            meta = meta.after(index, (tail.len() - before) as u64, pins);
            tail.retain(|entry| entry.index > meta.previous);
            history.insert(index, now.clone());

            prop_assert_eq!(meta.since_previous, tail.len() as u64);
            prop_assert_eq!(meta.since_epoch, tail.iter().filter(|entry| entry.index > meta.epoch).count() as u64);
        }
        tail.reverse();
        for (at, then) in history.iter().filter(|(at, _)| meta.covers(**at)) {
            let mut records = now.clone();
            undo(&mut records, &tail, *at);
            prop_assert_eq!(&records, then);
            let differing: BTreeSet<Cid> =
                pool().iter().filter(|cid| then.get(cid) != now.get(cid)).copied().collect();
            prop_assert!(changed_since(&tail, *at).is_superset(&differing));
        }
        prop_assert!(changed_since(&tail, index).is_empty());
    }

    #[test]
    fn damaged_bytes_do_no_harm(entry in damaged(entry().encode()), meta in damaged(meta().encode())) {
        let _ = TailEntry::decode(&entry);
        let _ = ShardMeta::decode(&meta);
    }
}
