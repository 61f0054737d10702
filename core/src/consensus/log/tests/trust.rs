//! Members with lists of those that they trust.

use super::apart::accepting;
use super::*;
use crate::ports::NodeIdRecord;
use crate::trust::is_refusal;

fn trusting(peers: &[PeerId]) -> LogSettings {
    LogSettings { trust: Trust::Only(peers.iter().copied().collect()), ..accepting() }
}

fn members(node: &TestNode) -> usize {
    node.consensus.position().borrow().members.len()
}

#[tokio::test(start_paused = true)]
async fn who_is_not_trusted_is_let_in_neither_by_the_leader_nor_through_others() {
    let net = MemNet::new(51);
    let [first, second, stranger] = [(); 3].map(|()| PeerId::random());
    let leader = start_with(&net, first, fresh_disks(), &[], trusting(&[second])).await.unwrap();
    // It trusts everyone, but it does not decide.
    let other = start_with(&net, second, fresh_disks(), &[first], accepting()).await.unwrap();
    let before = leader.digest().await;
    let disks = fresh_disks();
    for (host, costs_nothing) in [(first, true), (second, false)] {
        let began = tokio::time::Instant::now();
        let refused = start_with(&net, stranger, disks.clone(), &[host], accepting()).await;
        let Err(StartError::NotTrusted { reason }) = refused else { panic!("{:?}", refused.map(|node| node.peer())) };
        assert!(reason.contains(&stranger.to_string()) && reason.contains("trusted_peers"), "{reason}");
        assert!(began.elapsed() < settings().join_timeout / 2, "it gives up at once: {:?}", began.elapsed());
        assert_eq!([&leader, &other].map(members), [2, 2]);
        if costs_nothing {
            assert_eq!(leader.digest().await, before, "not even an entry in the log");
            assert_eq!(disks.record.load().await.unwrap(), None, "nor a raft id");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_welcomes_only_whom_the_asked_peer_trusts() {
    let net = MemNet::new(52);
    let [first, second, small] = [(); 3].map(|()| PeerId::random());
    let wary = start_with(&net, first, fresh_disks(), &[], trusting(&[second])).await.unwrap();
    let open = start_with(&net, second, fresh_disks(), &[first], trusting(&[first, small])).await.unwrap();
    let small = start_with(&net, small, fresh_disks(), &[], trusting(&[first, second])).await.unwrap();
    // Its own cluster is applied.
    assert_ne!(small.pin(1).await.unwrap().commit, Commit::Eventual);
    let (info, _welcome) = small.meeting.answer(first, None).await;
    assert!(info.is_some());
    assert!(!wary.meeting.answer(small.peer(), info.as_ref()).await.1);
    assert!(open.meeting.answer(small.peer(), info.as_ref()).await.1);
    // Over the wire it is told why.
    small.network.remember(first, wary.network.own_addresses());
    let refused = small.consensus.client.ask(first, &Call::Meet { cluster: info }, LIMIT).await;
    assert!(refused.as_ref().is_err_and(is_refusal), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_not_trusted_counts_in_the_ordering_and_is_shown_nothing_else() {
    let net = MemNet::new(53);
    let peers = [(); 3].map(|()| PeerId::random());
    let mut nodes = vec![start_with(&net, peers[0], fresh_disks(), &[], trusting(&peers)).await.unwrap()];
    nodes.push(start_with(&net, peers[1], fresh_disks(), &peers[..1], trusting(&peers)).await.unwrap());
    // It trusts only itself: every other member is one that somebody else let in.
    nodes.push(start_with(&net, peers[2], fresh_disks(), &peers[..1], trusting(&[])).await.unwrap());
    for node in &nodes {
        let mut position = node.consensus.position();
        let voters = position.wait_for(|now| now.members.iter().filter(|member| member.voter).count() == 3);
        tokio::time::timeout(LIMIT, voters).await.expect("all vote").unwrap();
    }
    for (number, node) in (0..).zip(&nodes) {
        assert_ne!(node.pin(number).await.unwrap().commit, Commit::Eventual, "peer {number}");
    }
    // Two of three, the wary one among them, are a quorum.
    drop(nodes.remove(1).crash().await);
    assert_ne!(nodes[1].pin(9).await.unwrap().commit, Commit::Eventual);
    let hidden = nodes[0].consensus.client.ask(peers[2], &Call::Node, LIMIT).await;
    assert!(hidden.as_ref().is_err_and(is_refusal), "{hidden:?}");
    let shown = nodes[1].consensus.client.ask(peers[0], &Call::Node, LIMIT).await;
    assert!(!shown.as_ref().is_err_and(is_refusal), "{shown:?}");
}
