//! Allocation, case by case of its rules.

use std::collections::BTreeSet;

use cluster_types::{Metric, PeerId, ReplicationFactor, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::monitor::MetricsSnapshot;

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(0)
}

/// Peer number `n`; the numbers order the peers.
fn peer(n: u8) -> PeerId {
    let mut bytes = vec![0x12, 0x20];
    bytes.extend([n; 32]);
    PeerId::from_bytes(&bytes).unwrap()
}

fn metric(name: &str, n: u8, value: &str, weight: i64, partitionable: bool) -> Metric {
    Metric {
        name: name.to_owned(),
        peer: peer(n),
        value: value.to_owned(),
        expire: i64::MAX,
        valid: true,
        weight,
        partitionable,
        received_at: 0,
    }
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn free(weights: &[(u8, i64)]) -> Vec<Metric> {
    weights.iter().map(|(n, weight)| metric("freespace", *n, &weight.to_string(), *weight, false)).collect()
}

fn request(min: u32, max: u32, current: &[u8]) -> AllocationRequest {
    AllocationRequest {
        replication: ReplicationFactor::Between { min, max },
        current: current.iter().copied().map(peer).collect(),
        preferred: Vec::new(),
        excluded: BTreeSet::new(),
        keep_silent: false,
    }
}

fn decide(request: &AllocationRequest, by: &[&str], metrics: Vec<Metric>) -> Result<Vec<PeerId>, AllocationError> {
    let eligible: BTreeSet<PeerId> = (1..=9).map(peer).collect();
    let metrics = MetricsSnapshot::new(metrics, now());
    allocate(request, AllocationBasis { allocate_by: &strings(by), eligible: &eligible, metrics: &metrics })
}

fn peers(numbers: &[u8]) -> Vec<PeerId> {
    numbers.iter().copied().map(peer).collect()
}

/// The example of the reference: three regions, five zones, seven peers.
fn worked_example() -> Vec<Metric> {
    let table: [(u8, &str, &str, i64, i64); 7] = [
        (1, "a-us", "us1", 0, 100),
        (2, "a-us", "us2", 0, 500),
        (3, "b-eu", "eu1", 0, 200),
        (4, "b-eu", "eu1", 0, 400),
        (5, "b-eu", "eu2", 0, 10),
        (6, "c-au", "au1", 0, 50),
        (7, "c-au", "au1", -1, 600),
    ];
    let mut metrics = Vec::new();
    for (n, region, zone, queue, space) in table {
        metrics.push(metric("tag:region", n, region, 0, true));
        metrics.push(metric("tag:az", n, zone, 0, true));
        metrics.push(metric("pinqueue", n, &(-queue).to_string(), queue, false));
        metrics.push(metric("freespace", n, &space.to_string(), space, false));
    }
    metrics
}

#[test]
fn the_worked_example_of_the_reference_comes_out() {
    let by = ["tag:region", "tag:az", "pinqueue", "freespace"];
    let chosen = decide(&request(1, 7, &[]), &by, worked_example()).unwrap();
    assert_eq!(chosen, peers(&[6, 4, 2, 7, 5, 1, 3]));
}

#[test]
fn everywhere_is_an_empty_list_whoever_is_alive() {
    let everywhere = AllocationRequest { replication: ReplicationFactor::Everywhere, ..request(1, 1, &[3]) };
    assert_eq!(decide(&everywhere, &["freespace"], Vec::new()), Ok(Vec::new()));
}

#[test]
fn too_few_peers_is_said_in_the_known_words() {
    let error = decide(&request(3, 5, &[1]), &["freespace"], free(&[(1, 5), (2, 5)])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "not enough peers to allocate CID. Needed at least: 2. Wanted at most: 4. Available candidates: 1. See logs for more info."
    );
}

#[test]
fn enough_holders_stay_even_those_that_are_down() {
    let metrics = free(&[(1, 5), (2, 5), (3, 5)]);
    assert_eq!(decide(&request(2, 3, &[1, 9, 2]), &["freespace"], metrics), Ok(peers(&[1, 9, 2])));
}

#[test]
fn enough_holders_stay_without_the_excluded_one() {
    let mut request = request(2, 3, &[1, 9, 2]);
    request.excluded.insert(peer(9));
    let metrics = free(&[(1, 5), (2, 5), (3, 5), (9, 5)]);
    assert_eq!(decide(&request, &["freespace"], metrics), Ok(peers(&[1, 2])));
}

#[test]
fn below_the_minimum_the_dead_are_dropped_and_it_is_filled_to_the_maximum() {
    let metrics = free(&[(1, 5), (2, 1), (3, 9), (4, 7)]);
    assert_eq!(decide(&request(2, 3, &[9, 1]), &["freespace"], metrics), Ok(peers(&[1, 3, 4])));
}

#[test]
fn a_repair_keeps_the_copies_of_peers_that_are_only_silent_and_gives_them_no_other() {
    let metrics = || {
        let pings = [1, 3, 4].map(|n| metric("ping", n, "", 0, false));
        Vec::from_iter(free(&[(1, 5), (3, 9), (4, 7), (5, 99)]).into_iter().chain(pings))
    };
    // 2 is gone, 9 was not heard lately, 11 is no member any more; of 5, only its space was heard lately.
    let mut request = request(3, 3, &[1, 9, 2, 11]);
    request.excluded.insert(peer(2));
    assert_eq!(decide(&request, &["freespace"], metrics()), Ok(peers(&[1, 5, 3])));
    request.keep_silent = true;
    assert_eq!(decide(&request, &["freespace"], metrics()), Ok(peers(&[1, 9, 3])));
}

#[test]
fn holders_above_the_maximum_are_cut() {
    let metrics = free(&[(1, 5), (2, 5), (3, 5)]);
    assert_eq!(decide(&request(1, 2, &[3, 2, 1]), &["freespace"], metrics), Ok(peers(&[3, 2])));
}

#[test]
fn preferred_peers_come_first_whatever_their_weight() {
    let mut request = request(2, 3, &[]);
    request.preferred = peers(&[2, 1]);
    let metrics = free(&[(1, 1), (2, 2), (3, 900), (4, 800)]);
    assert_eq!(decide(&request, &["freespace"], metrics), Ok(peers(&[2, 1, 3])));
}

#[test]
fn a_peer_counts_only_with_every_metric_valid_and_unexpired() {
    let mut metrics = free(&[(1, 5), (2, 6), (3, 7)]);
    metrics.extend([1, 2, 3].map(|n| metric("tag:group", n, "default", 0, true)));
    metrics[1].valid = false;
    metrics[2].expire = -1;
    metrics.extend(free(&[(4, 100)]));
    assert_eq!(decide(&request(1, 9, &[]), &["tag:group", "freespace"], metrics), Ok(peers(&[1])));
}

#[test]
fn without_names_whoever_is_alive_is_used() {
    let metrics = vec![metric("ping", 2, "", 0, false)];
    assert_eq!(decide(&request(1, 3, &[]), &[], metrics), Ok(peers(&[2])));
}

#[test]
fn the_table_names_the_chosen_and_the_reason_of_the_others() {
    let mut request = request(1, 1, &[]);
    request.excluded.insert(peer(2));
    let metrics = MetricsSnapshot::new(free(&[(1, 5), (2, 6)]), now());
    let eligible = BTreeSet::from([peer(1), peer(2), peer(3)]);
    let by = strings(&["freespace"]);
    let told = explain(&request, AllocationBasis { allocate_by: &by, eligible: &eligible, metrics: &metrics });
    let standings: Vec<_> = told.rows.iter().map(|row| (row.place, row.standing.clone())).collect();
    let no_metric = Standing::NoMetric("freespace".to_owned());
    assert_eq!(standings, [(Some(1), Standing::Other), (None, Standing::Excluded), (None, no_metric)]);
    assert!(told.to_string().contains("5 [5]"), "{told}");
}

proptest! {
    #[test]
    fn an_allocation_keeps_its_bounds_and_the_order_of_metrics_does_not_matter(
        weights in proptest::collection::btree_map(1u8..9, (any::<i64>(), 0u8..3), 0..8),
        current in proptest::collection::btree_set(1u8..9, 0..5),
        excluded in proptest::collection::btree_set(1u8..9, 0..3),
        min in 1u32..4,
        extra in 0u32..3,
    ) {
        let mut metrics = Vec::new();
        for (n, (weight, group)) in &weights {
            metrics.push(metric("tag:group", *n, &group.to_string(), 0, true));
            metrics.push(metric("freespace", *n, "x", *weight, false));
        }
        let mut request = request(min, min + extra, &current.iter().copied().collect::<Vec<_>>());
        request.excluded = excluded.iter().copied().map(peer).collect();
        let by = ["tag:group", "freespace"];
        let forward = decide(&request, &by, metrics.clone());
        metrics.reverse();
        prop_assert_eq!(&forward, &decide(&request, &by, metrics));
        let Ok(chosen) = forward else { return Ok(()) };
        let distinct: BTreeSet<_> = chosen.iter().collect();
        prop_assert_eq!(distinct.len(), chosen.len());
        prop_assert!(chosen.iter().all(|peer| !request.excluded.contains(peer)));
        let alive = chosen.iter().filter(|chosen| weights.keys().any(|n| peer(*n) == **chosen)).count();
        prop_assert!(alive >= min as usize && alive <= (min + extra) as usize);
    }
}
