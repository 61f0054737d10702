//! Peers fail in the middle of an upload; who is told to have the content has all of it.

use std::sync::Arc;
use std::time::Duration;

use cluster_types::{AddParams, ErrorClass, PeerId, PinOptions, ReplicationFactor};

use super::destinations::{AT_ONCE, Destinations, Placement, WINDOW};
use super::fakes::{MemHost, file, run};
use super::whole::{WholeSink, Wish};
use super::*;
use crate::ports::Block;

/// Bytes of an upload of about a dozen batches.
const SIZE: usize = 10_000_000;

fn params() -> AddParams {
    AddParams { wrap_with_directory: true, ..AddParams::default() }
}

fn replication(min: u32, max: u32) -> ReplicationFactor {
    ReplicationFactor::Between { min, max }
}

/// Adds a file; what was told, and how it ended.
async fn add(
    host: &Arc<MemHost>,
    params: &AddParams,
    replication: ReplicationFactor,
) -> (Vec<AddedOutput>, ServiceResult<Cid>) {
    let mut sink = WholeSink::new(Arc::clone(host) as Arc<dyn AddHost>, Wish::new(params, replication));
    run(&mut sink, params, file(SIZE)).await
}

/// The holders that were told with the root, and that they are those of the pin and have everything.
fn holders(host: &MemHost, outputs: &[AddedOutput], root: Cid) -> Vec<PeerId> {
    let last = outputs.last().unwrap();
    assert_eq!(last.cid, Some(root));
    let pins = host.pins();
    let [pin] = pins.as_slice() else { panic!("{pins:?}") };
    assert_eq!((pin.cid, &pin.allocations), (root, &last.allocations));
    for peer in &last.allocations {
        assert!(host.has_all(peer, root), "{peer} lacks blocks");
    }
    last.allocations.clone()
}

#[tokio::test]
async fn whoever_fails_at_whatever_batch_is_replaced_by_a_spare_that_gets_everything() {
    let smooth = Arc::new(MemHost::new(4));
    let (outputs, root) = add(&smooth, &params(), replication(2, 2)).await;
    assert_eq!(holders(&smooth, &outputs, root.unwrap()), smooth.ids[..2]);
    let batches = smooth.change(1, |peer| peer.puts);
    assert!(batches > WINDOW, "{batches} batches");
    for failing in 0..2 {
        for batch in 0..batches {
            let host = Arc::new(MemHost::new(4));
            host.fail_at(failing, batch);
            let (outputs, root) = add(&host, &params(), replication(2, 2)).await;
            let left = holders(&host, &outputs, root.unwrap());
            assert_eq!(left, [host.ids[1 - failing], host.ids[2]], "peer {failing} fails at batch {batch}");
        }
    }
}

#[tokio::test]
async fn spares_and_holders_may_fail_too_while_enough_are_left() {
    let host = Arc::new(MemHost::new(5));
    host.fail_at(1, 3);
    host.fail_at(2, 2); // The first spare, in the middle of being filled.
    let (outputs, root) = add(&host, &params(), replication(2, 2)).await;
    assert_eq!(holders(&host, &outputs, root.unwrap()), [host.ids[0], host.ids[3]]);

    // One that took everything and cannot give it back has it no more.
    let host = Arc::new(MemHost::new(5));
    host.fail_at(2, 3);
    host.change(0, |peer| peer.gives_until = Some(4));
    let (outputs, root) = add(&host, &params(), replication(3, 3)).await;
    assert_eq!(holders(&host, &outputs, root.unwrap()), [host.ids[1], host.ids[3], host.ids[4]]);
}

#[tokio::test]
async fn without_a_spare_it_goes_on_as_long_as_the_minimum_is_left() {
    let host = Arc::new(MemHost::new(3));
    host.fail_at(2, 4);
    let (outputs, root) = add(&host, &params(), replication(2, 3)).await;
    assert_eq!(holders(&host, &outputs, root.unwrap()), host.ids[..2]);

    let host = Arc::new(MemHost::new(3));
    host.fail_at(2, 4);
    let (outputs, end) = add(&host, &params(), replication(3, 3)).await;
    let error = end.unwrap_err();
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert!(error.message.contains("2 of at least 3") && error.message.contains(&host.ids[2].to_string()), "{error}");
    assert!(outputs.is_empty() && host.pins().is_empty());
    assert!(host.change(0, |peer| peer.puts) < 10, "it ends as soon as it is hopeless");
}

#[tokio::test]
async fn when_all_fail_nothing_is_pinned() {
    for batch in [0, 1, 5] {
        let host = Arc::new(MemHost::new(3));
        (0..3).for_each(|peer| host.fail_at(peer, batch));
        for factor in [replication(1, 3), ReplicationFactor::Everywhere] {
            let (_, end) = add(&host, &params(), factor).await;
            let error = end.unwrap_err();
            assert!(error.message.starts_with("failed to put block on all destinations"), "{error}");
            assert!(host.pins().is_empty());
        }
    }
}

#[tokio::test]
async fn a_pin_for_everybody_names_nobody_and_tells_who_has_it() {
    let host = Arc::new(MemHost::new(3));
    host.fail_at(1, 2);
    let (outputs, root) = add(&host, &params(), ReplicationFactor::Everywhere).await;
    assert_eq!(outputs.last().unwrap().allocations, [host.ids[0], host.ids[2]]);
    assert!(host.has_all(&host.ids[2], root.unwrap()));
    assert!(host.pins()[0].allocations.is_empty());
}

#[tokio::test]
async fn a_local_upload_gives_blocks_to_this_peer_only_and_puts_it_among_the_holders() {
    let host = Arc::new(MemHost::new(3));
    host.ids.iter().skip(1).enumerate().for_each(|(number, _)| host.fail_at(number + 1, 0));
    let local = AddParams { local: true, ..params() };
    let (outputs, root) = add(&host, &local, replication(2, 2)).await;
    assert_eq!(outputs.last().unwrap().allocations, [host.ids[0]]);
    assert!(host.has_all(&host.ids[0], root.unwrap()));
    assert_eq!(host.pins()[0].allocations, host.ids[..2]);

    let host = Arc::new(MemHost::new(3));
    let options = PinOptions { user_allocations: vec![host.ids[2]], ..PinOptions::default() };
    let (_, root) = add(&host, &AddParams { local: true, options, ..params() }, replication(1, 1)).await;
    assert!(host.has_all(&host.ids[0], root.unwrap()));
    assert_eq!(host.pins()[0].allocations, [host.ids[2]], "the user's choice stands");
}

#[tokio::test]
async fn without_a_pin_nobody_is_replaced() {
    let host = Arc::new(MemHost::new(3));
    host.fail_at(1, 2);
    let (outputs, root) = add(&host, &AddParams { no_pin: true, ..params() }, replication(2, 2)).await;
    assert_eq!((outputs.last().unwrap().cid, host.pins().len()), (Some(root.unwrap()), 0));
    assert_eq!(outputs.last().unwrap().allocations, [host.ids[0]]);
}

#[tokio::test]
async fn a_root_that_is_not_pinned_is_not_told() {
    let host = Arc::new(MemHost::new(2));
    *host.pins_until.lock() = Some(0);
    let (outputs, end) = add(&host, &params(), replication(1, 1)).await;
    assert_eq!(end.unwrap_err().message, "no quorum");
    assert_eq!(outputs.iter().map(|output| output.name.as_str()).collect::<Vec<_>>(), ["d/f", "d"]);
}

fn batch(number: u32) -> Vec<Block> {
    let data = number.to_be_bytes();
    vec![Block { cid: crate::tracker::fakes::cid(number), data: data.to_vec().into() }]
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_peer_that_failed_is_not_sent_any_more() {
    let host = Arc::new(MemHost::new(3).with_gate(1));
    host.fail_at(1, 0);
    let placement = Placement { replication: replication(1, 2), preferred: Vec::new(), local: false };
    let mut destinations = Destinations::choose(Arc::clone(&host) as Arc<dyn AddHost>, placement).unwrap();
    for number in 0..WINDOW as u32 {
        destinations.put(batch(number)).await.unwrap();
    }
    // One of those that are under way fails; the others that are never end.
    host.open_gate(1, 1);
    let rest = tokio::time::timeout(Duration::from_secs(1), destinations.settle()).await;
    assert!(rest.is_err());
    assert_eq!(destinations.kept(), 1);
    // The next one had its turn before that was noticed.
    host.open_gate(1, AT_ONCE);
    destinations.settle().await.unwrap();
    assert_eq!((destinations.kept(), destinations.holders()), (WINDOW as u64, &host.ids[..1]));
}

#[tokio::test(start_paused = true)]
async fn the_slowest_peer_is_waited_for_only_when_it_is_a_window_behind() {
    let host = Arc::new(MemHost::new(2).with_gate(1));
    let placement = Placement { replication: replication(2, 2), preferred: Vec::new(), local: false };
    let mut destinations = Destinations::choose(Arc::clone(&host) as Arc<dyn AddHost>, placement).unwrap();
    for number in 0..WINDOW as u32 {
        destinations.put(batch(number)).await.unwrap();
    }
    let one_more = tokio::time::timeout(Duration::from_secs(1), destinations.put(batch(100))).await;
    assert!(one_more.is_err(), "a slow peer would cost memory without end");
    assert_eq!((host.change(0, |peer| peer.puts), destinations.kept()), (WINDOW, 0));
    host.open_gate(1, 1);
    destinations.put(batch(100)).await.unwrap();
    assert_eq!(destinations.kept(), 1);
    host.open_gate(1, WINDOW);
    destinations.settle().await.unwrap();
    assert_eq!((destinations.kept(), host.change(1, |peer| peer.puts)), (WINDOW as u64 + 1, WINDOW + 1));
}
