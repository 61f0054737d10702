//! Who is left behind when others of its cluster went to another one, without being told.

use std::collections::BTreeSet;

use cluster_types::Protocol;
use openraft::storage::{IOFlushed, RaftLogReader as _, RaftLogStorage as _};

use super::apart::{ACCEPT, accepting, assert_whole, leave, named, shown};
use super::*;
use crate::ports::NodeIdRecord as _;

/// Long enough for some rounds of asking, moving and staying.
const PATIENCE: Duration = Duration::from_secs(900);

/// Lets nodes look around and move, as programs do, until they are one cluster.
async fn become_one(net: &MemNet, nodes: Vec<TestNode>) -> Vec<TestNode> {
    let mut nodes: Vec<TestNode> = nodes.into_iter().inspect(|node| node.meeting.start(&node.tasks)).collect();
    let work = async {
        while !are_one(&nodes).await {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let removed = nodes.iter().any(|node| node.consensus.position().borrow().removed);
            assert!(!removed, "who went elsewhere removes nobody");
            let Some(place) = nodes.iter().position(|node| node.meeting.to_join().borrow().is_some()) else { continue };
            let node = nodes.swap_remove(place);
            let node = follow(net, node).await;
            node.meeting.start(&node.tasks);
            nodes.push(node);
        }
    };
    tokio::time::timeout(PATIENCE, work).await.expect("they become one");
    nodes
}

async fn are_one(nodes: &[TestNode]) -> bool {
    let mut clusters = BTreeSet::new();
    for node in nodes {
        clusters.insert(node.consensus.cluster().await);
    }
    let whole = |node: &TestNode| node.consensus.position().borrow().members.len() == nodes.len();
    clusters.len() == 1 && nodes.iter().all(whole)
}

/// Moves a node to where its meeting says; alone, if nobody there lets it in.
async fn follow(net: &MemNet, node: TestNode) -> TestNode {
    let addresses = node.meeting.to_join().borrow().clone().unwrap();
    let host = |address: &cluster_types::Multiaddr| {
        let Some(Protocol::P2p(peer)) = address.iter().last() else { return None };
        Some(peer)
    };
    let hosts: Vec<PeerId> = addresses.iter().filter_map(host).collect();
    let (peer, disks) = leave(node).await;
    match start_in(net, peer, disks.clone(), &hosts, ACCEPT).await {
        Ok(node) => node,
        Err(_nobody) => start_in(net, peer, disks, &[], ACCEPT).await.unwrap(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_companion_that_was_not_told_follows_the_one_that_left() {
    let net = MemNet::new(31);
    let mut all = several(&net, 3, accepting()).await;
    // Of two, one votes.
    let founder = start_in(&net, PeerId::random(), fresh_disks(), &[], ACCEPT).await.unwrap();
    let second = start_in(&net, PeerId::random(), fresh_disks(), &[founder.peer()], ACCEPT).await.unwrap();
    let mut small = vec![founder, second];
    all[0].pin(1).await.unwrap();
    small[0].pin(2).await.unwrap();
    assert_equal(&small.iter().collect::<Vec<_>>()).await;
    let companion = small.pop().unwrap();
    // It is down while the other one goes, and knows nobody else.
    let (absent, asleep) = (companion.peer(), companion.crash().await);
    let (peer, disks) = leave(small.pop().unwrap()).await;
    all.push(start_in(&net, peer, disks, &[all[0].peer()], ACCEPT).await.unwrap());
    let companion = start_in(&net, absent, asleep, &[], ACCEPT).await.unwrap();
    companion.consensus.submit(named(2, "newer, without a quorum")).await.unwrap();
    assert_eq!(companion.pin(3).await.unwrap().commit, Commit::Eventual);
    all.push(companion);
    let all = become_one(&net, all).await;
    assert_whole(&all.iter().collect::<Vec<_>>()).await;
    for number in [1, 2, 3] {
        assert!(shown(&all[0], number).await.is_some(), "pin {number}");
    }
    assert_eq!(shown(&all[0], 2).await.unwrap().options.name, "newer, without a quorum");
}

/// What `state recover --force-new-cluster` does.
async fn refound(peer: PeerId, disks: &Disks) {
    let mut log = disks.log.clone();
    let applied = AppliedPosition::decode(disks.state.applied().await.unwrap().as_ref()).unwrap();
    let holdings = Holdings {
        node_id: disks.record.load().await.unwrap().unwrap(),
        vote: log.get_log_reader().await.read_vote().await.unwrap(),
        last: log.get_log_state().await.unwrap().last_log_id,
        membership: applied.membership,
    };
    let new = holdings.refound(Node { peer, addresses: Vec::new() }, 7);
    log.append([new.entry], IOFlushed::noop()).await.unwrap();
    log.save_vote(&new.vote).await.unwrap();
    disks.record.save(new.node_id).await.unwrap();
}

/// Three nodes; the first is refounded while the others are away, and writes; so many of them come back then.
async fn recovered(net: &MemNet, come_back: usize) -> Vec<TestNode> {
    let nodes = several(net, 3, accepting()).await;
    for number in 0..5 {
        nodes[1].pin(number).await.unwrap();
    }
    assert_equal(&nodes.iter().collect::<Vec<_>>()).await;
    let before = nodes[0].consensus.cluster().await.unwrap();
    let mut away = Vec::new();
    for node in nodes {
        away.push((node.peer(), node.crash().await));
    }
    let (peer, disks) = away.remove(0);
    refound(peer, &disks).await;
    let mut nodes = vec![start_in(net, peer, disks, &[], ACCEPT).await.unwrap()];
    assert_ne!(nodes[0].pin(5).await.unwrap().commit, Commit::Eventual, "it is a quorum by itself");
    assert_ne!(nodes[0].consensus.cluster().await.unwrap(), before, "it is another cluster");
    for (peer, disks) in away.into_iter().take(come_back) {
        nodes.push(start_in(net, peer, disks, &[], ACCEPT).await.unwrap());
    }
    nodes
}

#[tokio::test(start_paused = true)]
async fn one_that_was_lost_when_its_cluster_was_refounded_comes_back_with_what_it_has() {
    let net = MemNet::new(32);
    let nodes = recovered(&net, 1).await;
    assert_eq!(nodes[1].pin(6).await.unwrap().commit, Commit::Eventual);
    let nodes = become_one(&net, nodes).await;
    assert_whole(&nodes.iter().collect::<Vec<_>>()).await;
    assert_eq!(nodes[0].consensus.report().await.unwrap().pins, 7);
}

#[tokio::test(start_paused = true)]
async fn a_majority_that_was_lost_and_the_refounded_one_become_one_again() {
    let net = MemNet::new(33);
    let nodes = recovered(&net, 2).await;
    nodes[1].pin(6).await.unwrap();
    let nodes = become_one(&net, nodes).await;
    assert_whole(&nodes.iter().collect::<Vec<_>>()).await;
    assert_eq!(nodes[0].consensus.report().await.unwrap().pins, 7);
}
