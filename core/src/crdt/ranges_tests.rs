//! Finding differences.

use proptest::prelude::*;

use super::super::testing::{SHARD, cids_of, damaged, hex, pool, record, records};
use super::*;

/// Makes `ours` like `theirs` and says how many bytes that took, and how many of them were records.
fn repair(ours: &mut Records, theirs: &Records) -> (usize, usize) {
    let question = Ranges::of(ours).encode();
    let answer = Ranges::decode(&question).unwrap().answer(theirs).encode().unwrap();
    let difference = Listing::decode(&answer).unwrap().compare(ours);
    let received = select(theirs, &difference.fetch);
    let content: usize = received.iter().map(|(cid, record)| cid.to_bytes().len() + record.len()).sum();
    for cid in difference.deletions(received.iter().map(|(cid, _)| cid)) {
        ours.remove(&cid);
    }
    ours.extend(received);
    (question.len() + answer.len() + 8 * difference.fetch.len(), content)
}

#[test]
#[expect(clippy::print_stdout, reason = "the figure is what one runs it for: cargo test -- --nocapture")]
fn one_difference_costs_few_bytes() {
    for count in [244, 2441] {
        let cids = cids_of(SHARD, count);
        let mut ours: Records = cids.iter().map(|cid| (*cid, Bytes::from(vec![7; 150]))).collect();
        let mut theirs = ours.clone();
        theirs.insert(cids[count / 2], Bytes::from(vec![8; 150]));
        let (bytes, content) = repair(&mut ours, &theirs);
        assert_eq!(ours, theirs);
        let whole: usize = theirs.iter().map(|(cid, record)| cid.to_bytes().len() + record.len()).sum();
        println!(
            "1 of {count} records differs: {bytes} bytes to find it, {content} for it; the shard is {whole} bytes"
        );
        assert!(bytes < whole / 40, "{bytes} of {whole} bytes");
    }
}

#[test]
fn buckets_fill_evenly() {
    let records: Records = cids_of(SHARD, 512).into_iter().map(|cid| (cid, record("x"))).collect();
    let mut sizes = vec![0; 32];
    records.keys().for_each(|cid| sizes[bucket_of(cid, 5) as usize] += 1);
    assert_eq!(Ranges::of(&records).sums.len(), 32);
    assert!(sizes.iter().all(|size| (4..=36).contains(size)), "{sizes:?}");
    assert_eq!(bucket_of(&pool()[0], 0), 0);
}

#[test]
fn equal_shards_differ_in_nothing() {
    let listing = Ranges::of(&records(24)).answer(&records(24));
    assert!(listing.is_empty());
    assert!(listing.compare(&records(24)).is_empty());
}

fn samples() -> (Ranges, Listing) {
    let cids = cids_of(SHARD, 70);
    let ours: Records = cids.iter().map(|cid| (*cid, record("ours"))).collect();
    let mut theirs = ours.clone();
    theirs.insert(cids[3], record("theirs"));
    theirs.remove(&cids[9]);
    (Ranges::of(&ours), Ranges::of(&ours).answer(&theirs))
}

#[test]
fn the_formats_are_pinned() {
    let (ranges, listing) = samples();
    let encoded = listing.encode().unwrap();
    let found = format!("{}\n{}\n", hex(&ranges.encode()), hex(&encoded));
    assert_eq!(found, include_str!("golden/ranges-v1.txt"));
    assert_eq!(Ranges::decode(&ranges.encode()).unwrap(), ranges);
    assert_eq!(Listing::decode(&encoded).unwrap(), listing);
}

#[test]
fn numbers_that_do_not_agree_are_refused() {
    let sums = |bits, length| RANGES.encode(&wire::Ranges { bits, sums: vec![1; length] });
    assert!(Ranges::decode(&sums(2, 32)).is_ok());
    for (bits, length) in [(2, 31), (2, 40), (13, 8 << 13), (u32::MAX, 8), (64, 8)] {
        assert!(Ranges::decode(&sums(bits, length)).is_err(), "{bits} {length}");
    }
    let sound = wire::Listing { bits: 2, buckets: vec![0, 3], lengths: vec![1, 0], hashes: vec![1; 8] };
    assert!(Listing::decode(&LISTING.encode(&sound)).is_ok());
    let refused: [fn(&mut wire::Listing); 8] = [
        |listing| listing.bits = 40,
        |listing| listing.buckets = vec![3, 0],
        |listing| listing.buckets = vec![0, 4],
        |listing| listing.lengths = vec![1],
        |listing| listing.lengths = vec![1, 1],
        |listing| listing.lengths = vec![u64::MAX, 2],
        |listing| listing.hashes = vec![1; 9],
        |listing| listing.hashes = vec![0; 8],
    ];
    for alter in refused {
        let mut listing = sound.clone();
        alter(&mut listing);
        assert!(Listing::decode(&LISTING.encode(&listing)).is_err(), "{listing:?}");
    }
}

#[test]
fn a_difference_too_large_to_list_is_not_sent() {
    let buckets = BTreeMap::from([(0, vec![RecordHash(1); MAX_LISTED + 1])]);
    assert_eq!(Listing { bits: 0, buckets }.encode(), None);
    let largest = Listing {
        bits: MAX_BITS,
        buckets: (0..1 << MAX_BITS).map(|bucket| (bucket, vec![RecordHash(1); MAX_LISTED >> MAX_BITS])).collect(),
    };
    assert_eq!(Listing::decode(&largest.encode().unwrap()).unwrap(), largest);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn exactly_what_differs_is_found(
        sizes in (0_usize..300, 0_usize..300), changed in proptest::collection::btree_set(0_usize..300, 0..6),
    ) {
        static CIDS: std::sync::OnceLock<Vec<Cid>> = std::sync::OnceLock::new();
        let cids = CIDS.get_or_init(|| cids_of(SHARD, 300));
        let mut ours: Records = cids[..sizes.0].iter().map(|cid| (*cid, record("same"))).collect();
        let theirs: Records = cids[..sizes.1]
            .iter()
            .enumerate()
            .map(|(place, cid)| (*cid, record(if changed.contains(&place) { "changed" } else { "same" })))
            .collect();
        let difference = Ranges::of(&ours).answer(&theirs).compare(&ours);
        let fetched: BTreeSet<Cid> = select(&theirs, &difference.fetch).into_iter().map(|(cid, _)| cid).collect();
        let expected: BTreeSet<Cid> =
            theirs.iter().filter(|(cid, record)| ours.get(cid) != Some(*record)).map(|(cid, _)| *cid).collect();
        prop_assert_eq!(&fetched, &expected);
        let gone: BTreeSet<Cid> = ours.keys().filter(|cid| !theirs.contains_key(cid)).copied().collect();
        prop_assert_eq!(difference.deletions(&fetched), gone);
        repair(&mut ours, &theirs);
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn damaged_bytes_do_no_harm(ranges in damaged(samples().0.encode()), listing in damaged(samples().1.encode().unwrap())) {
        if let Ok(ranges) = Ranges::decode(&ranges) {
            let _ = ranges.answer(&records(24));
        }
        if let Ok(listing) = Listing::decode(&listing) {
            let _ = listing.compare(&records(24));
        }
    }
}
