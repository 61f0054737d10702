//! The digest watch: planted damage is found, told and repaired, and nobody else is touched.

use crate::consensus::digest::shard_of;
use crate::ports::{Changes, PinChange, ShardSum, StateView};

use super::*;

/// Enough for two rounds of the first audit.
const PATIENCE: Duration = Duration::from_secs(200);

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_late| panic!("{what}"));
}

fn named(number: u32, name: &str) -> Pin {
    let mut pin = pin(number);
    pin.options.name = name.to_owned();
    pin
}

/// Changes a record, with the sum of its shard: what a peer does that applies otherwise than the others.
async fn apply_otherwise(state: &MemState, number: u32) {
    let update = move |view: &dyn StateView| {
        let cid = pin(number).cid;
        let (before, mut shard) = (view.pin(&cid)?.unwrap(), view.shard(shard_of(&cid))?);
        let after = Pin { options: named(number, "otherwise").options, ..before.clone() };
        shard.sum.remove(&before);
        shard.sum.add(&after);
        let pins = vec![PinChange { cid, before: Some(before), after: Some(after) }];
        Ok(Changes { pins, shards: vec![(shard_of(&cid), shard)], ..Changes::default() })
    };
    state.update(Box::new(update)).await.unwrap();
}

fn repaired(node: &TestNode, cause: Cause) -> usize {
    let done = |found: &Finding| found.cause == cause && matches!(found.outcome, FindingOutcome::Repaired { .. });
    node.consensus.findings().iter().filter(|found| done(found)).count()
}

fn assert_same_records(nodes: &[TestNode]) {
    let held = |node: &TestNode| {
        let mut held = node.disks.state.contents(false);
        held.shards.retain(|(_, sum)| *sum != ShardSum::default());
        (held.pins, held.shards)
    };
    let expected = held(&nodes[0]);
    for node in nodes {
        assert_eq!(held(node), expected);
    }
}

/// Three nodes with pins, of which one was stopped and its disk changed.
async fn three_of_which_one_was(net: &MemNet, changed: impl AsyncFnOnce(&MemState)) -> Vec<TestNode> {
    let mut nodes = three(net).await;
    for number in 0..40 {
        nodes[0].pin(number).await.unwrap();
    }
    assert_equal(&nodes.iter().collect::<Vec<_>>()).await;
    let last = nodes.pop().unwrap();
    let peer = last.peer();
    let disks = last.crash().await;
    changed(&disks.state).await;
    nodes.push(start(net, peer, disks, &[]).await.unwrap());
    nodes
}

#[tokio::test(start_paused = true)]
async fn records_changed_behind_a_peers_back_are_found_and_repaired() {
    let net = MemNet::new(70);
    let changed = async |state: &MemState| {
        state.tamper(&pin(1).cid, Some(named(1, "changed")));
        state.tamper(&pin(2).cid, None);
        state.tamper(&pin(1000).cid, Some(pin(1000)));
    };
    let nodes = three_of_which_one_was(&net, changed).await;
    let shards: std::collections::BTreeSet<u16> = [1, 2, 1000].map(|number| shard_of(&pin(number).cid)).into();
    until("the damage is repaired", || repaired(&nodes[2], Cause::DoesNotAddUp) == shards.len()).await;
    assert_same_records(&nodes);
    let found: std::collections::BTreeSet<u16> =
        nodes[2].consensus.findings().iter().filter_map(|found| found.shard).collect();
    assert_eq!(found, shards);
    for node in &nodes[..2] {
        assert_eq!(node.consensus.findings(), [], "the others are untouched");
    }
    nodes[2].pin(2).await.unwrap();
    assert_equal(&nodes.iter().collect::<Vec<_>>()).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_applied_otherwise_is_outvoted_and_repairs_itself() {
    let net = MemNet::new(71);
    let nodes = three_of_which_one_was(&net, async |state: &MemState| apply_otherwise(state, 7).await).await;
    until("the difference is repaired", || repaired(&nodes[2], Cause::Differs) == 1).await;
    assert_same_records(&nodes);
    until("the others hear of it", || nodes[..2].iter().all(|node| node.consensus.findings().is_empty())).await;
    assert_equal(&nodes.iter().collect::<Vec<_>>()).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_majority_nothing_is_changed_and_people_are_told() {
    let net = MemNet::new(72);
    let mut nodes = three(&net).await;
    for number in 0..10 {
        nodes[0].pin(number).await.unwrap();
    }
    assert_equal(&nodes.iter().collect::<Vec<_>>()).await;
    let right = nodes[0].disks.state.pin(pin(3).cid).await.unwrap();
    let mut disks = Vec::new();
    for (number, node) in nodes.drain(..).enumerate() {
        let peer = node.peer();
        let disk = node.crash().await;
        disk.state.tamper(&pin(3).cid, Some(named(3, &format!("of {number}"))));
        disks.push((peer, disk));
    }
    for (peer, disk) in disks {
        nodes.push(start(&net, peer, disk, &[]).await.unwrap());
    }
    let unresolved = |node: &TestNode| {
        let of = |found: &Finding| matches!(found.outcome, FindingOutcome::Unresolved { .. });
        node.consensus.findings().iter().filter(|found| of(found)).count()
    };
    until("all three tell", || nodes.iter().all(|node| unresolved(node) == 1)).await;
    for (number, node) in nodes.iter().enumerate() {
        let kept = node.disks.state.pin(pin(3).cid).await.unwrap().unwrap();
        assert_eq!(kept.options.name, format!("of {number}"));
    }
    // One of them gets its record back, and with it there are two who know: the sum of each, and its records.
    nodes[0].disks.state.tamper(&pin(3).cid, right);
    until("the other two are repaired", || nodes[1..].iter().all(|node| unresolved(node) == 0)).await;
    assert_same_records(&nodes);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_cut_off_waits_for_a_majority() {
    let net = MemNet::new(73);
    let nodes = three(&net).await;
    nodes[0].pin(1).await.unwrap();
    assert_equal(&nodes.iter().collect::<Vec<_>>()).await;
    net.isolate(nodes[2].peer());
    nodes[2].disks.state.tamper(&pin(1).cid, None);
    until("it is found", || !nodes[2].consensus.findings().is_empty()).await;
    assert_eq!(repaired(&nodes[2], Cause::DoesNotAddUp), 0);
    assert!(nodes[2].disks.state.pin(pin(1).cid).await.unwrap().is_none());
    net.heal_all();
    until("it is repaired", || repaired(&nodes[2], Cause::DoesNotAddUp) == 1).await;
    assert_same_records(&nodes);
}

#[tokio::test(start_paused = true)]
async fn while_writes_come_in_damage_is_repaired_at_one_index() {
    let net = MemNet::new(74);
    let nodes = three(&net).await;
    for number in 0..20 {
        nodes[0].pin(number).await.unwrap();
    }
    assert_equal(&nodes.iter().collect::<Vec<_>>()).await;
    for number in [1, 2, 3] {
        nodes[2].disks.state.tamper(&pin(number).cid, None);
    }
    // Some of these touch what is damaged. They come so fast that no index is one where the nodes rest.
    let mut number = 0;
    while repaired(&nodes[2], Cause::DoesNotAddUp) < 3 {
        number += 1;
        assert!(number < 1_000, "{:?}", nodes[2].consensus.findings());
        tokio::time::sleep(Duration::from_millis(200)).await;
        let node = &nodes[usize::try_from(number).unwrap() % 3];
        let name = format!("at {number}");
        let pin = named(if number % 10 == 0 { 1 } else { number % 50 + 100 }, &name);
        node.consensus.submit(Request::Pin(Box::new(pin))).await.unwrap();
    }
    let at_rest =
        || nodes.iter().all(|node| node.disks.state.contents(false).pins == nodes[0].disks.state.contents(false).pins);
    until("all hold the same", at_rest).await;
    assert_equal(&nodes.iter().collect::<Vec<_>>()).await;
    assert_same_records(&nodes);
    assert_eq!(nodes[0].consensus.findings().iter().filter(|found| found.shard.is_some()).count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_is_alone_takes_its_record_back_from_a_learner() {
    let net = MemNet::new(75);
    let founder = start(&net, PeerId::random(), fresh_disks(), &[]).await.unwrap();
    let learner = start(&net, PeerId::random(), fresh_disks(), &[founder.peer()]).await.unwrap();
    founder.pin(1).await.unwrap();
    assert_equal(&[&founder, &learner]).await;
    founder.disks.state.tamper(&pin(1).cid, Some(named(1, "changed")));
    until("it is repaired", || repaired(&founder, Cause::DoesNotAddUp) == 1).await;
    assert_same_records(&[founder, learner]);
}
