//! A member is cut off, writes, and is removed meanwhile: what it accepted is not lost.

use super::apart::{ACCEPT, accepting, assert_whole, named, shown, until};
use super::*;
use crate::ports::{NodeIdRecord as _, OutboxStore as _};

/// Cuts one of three off, lets it accept a pin, removes it, and heals; the others, and the disks of the one removed.
async fn remove_one(net: &MemNet, leads: bool) -> (Vec<TestNode>, PeerId, Disks) {
    let mut nodes = several(net, 3, accepting()).await;
    nodes[0].pin(1).await.unwrap();
    let leader = leader_among(&nodes.iter().collect::<Vec<_>>()).await.peer();
    let place = nodes.iter().position(|node| (node.peer() == leader) == leads).unwrap();
    let lost = nodes.swap_remove(place);
    net.isolate(lost.peer());
    until("the lost one knows", async || lost.consensus.without_quorum_for().is_some()).await;
    assert_eq!(lost.consensus.submit(named(2, "alone")).await.unwrap().commit, Commit::Eventual);
    until("the others go on", async || nodes[0].pin(3).await.is_ok_and(|told| told.commit != Commit::Eventual)).await;
    nodes[1].consensus.remove_peer(lost.peer()).await.unwrap();
    net.heal_all();
    until("it is told", async || lost.consensus.position().borrow().removed).await;
    (nodes, lost.peer(), lost.crash().await)
}

#[tokio::test(start_paused = true)]
async fn what_a_removed_peer_accepted_is_merged_when_it_joins_again() {
    for leads in [false, true] {
        let net = MemNet::new(51);
        let (mut nodes, lost, disks) = remove_one(&net, leads).await;
        let (before, pins) = (disks.record.load().await.unwrap(), disks.state.pins());
        assert_eq!((disks.state.waiting_count().own, pins), (1, 2), "it is here and nowhere else");
        nodes.push(start_in(&net, lost, disks, &[nodes[0].peer()], ACCEPT).await.unwrap());
        assert_ne!(Some(nodes[2].consensus.node_id), before, "as another node");
        assert_whole(&nodes.iter().collect::<Vec<_>>()).await;
        for number in 1..=3 {
            assert!(shown(&nodes[0], number).await.is_some(), "pin {number}");
        }
        let members = nodes[0].consensus.position().borrow().members.len();
        assert_eq!(members, 3, "leads: {leads}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_told_to_join_its_own_cluster_stays_who_it_is() {
    let net = MemNet::new(52);
    let mut nodes = several(&net, 3, accepting()).await;
    nodes[0].pin(1).await.unwrap();
    let (member, host) = (nodes.pop().unwrap(), nodes[0].peer());
    let (peer, node_id) = (member.peer(), member.consensus.node_id);
    let disks = member.crash().await;
    // The membership goes on without touching it.
    nodes.push(start_in(&net, PeerId::random(), fresh_disks(), &[host], ACCEPT).await.unwrap());
    let again = start_in(&net, peer, disks, &[host], ACCEPT).await.unwrap();
    assert_eq!(again.consensus.node_id, node_id);
    nodes.push(again);
    assert_whole(&nodes.iter().collect::<Vec<_>>()).await;
}
