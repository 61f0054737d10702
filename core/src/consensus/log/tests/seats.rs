//! Members come and go while others are away: seats, vouching, removal of who is down.

use std::collections::BTreeSet;

use super::*;

fn three_vote() -> LogSettings {
    LogSettings { max_voters: 3, ..settings() }
}

async fn grown(net: &MemNet, number: usize) -> Vec<TestNode> {
    let mut nodes: Vec<TestNode> = Vec::new();
    for _ in 0..number {
        let bootstrap: Vec<PeerId> = nodes.first().map(TestNode::peer).into_iter().collect();
        nodes.push(start_with(net, PeerId::random(), fresh_disks(), &bootstrap, three_vote()).await.unwrap());
    }
    wait_voters(&nodes[0], &[0, 1, 2].map(|place: usize| nodes[place].peer())).await;
    nodes
}

fn voters(node: &TestNode) -> BTreeSet<PeerId> {
    let position = node.consensus.position();
    let position = position.borrow();
    position.members.iter().filter(|member| member.voter).map(|member| member.peer).collect()
}

async fn wait_voters(node: &TestNode, expected: &[PeerId]) {
    let expected: BTreeSet<PeerId> = expected.iter().copied().collect();
    let mut position = node.consensus.position();
    let reached = position.wait_for(|position| {
        let voters = position.members.iter().filter(|member| member.voter).map(|member| member.peer);
        voters.collect::<BTreeSet<_>>() == expected
    });
    let reached = tokio::time::timeout(LIMIT * 3, reached).await.map(drop);
    reached.unwrap_or_else(|_| panic!("{:?} vote, not {expected:?}", voters(node)));
}

/// Has leadership handed over until `heir` has it.
async fn let_lead(nodes: &[&TestNode], heir: &TestNode) {
    for _ in 0..20 {
        let leader = leader_among(nodes).await;
        if leader.peer() == heir.peer() {
            return;
        }
        leader.consensus.hand_over().await;
    }
    panic!("{} never led", heir.peer());
}

async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LIMIT * 3, wait).await.unwrap_or_else(|_| panic!("{what}: not in time"));
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_is_gone_loses_its_seat_to_a_learner_and_comes_back_as_one() {
    let net = MemNet::new(30);
    let mut nodes = grown(&net, 4).await;
    let all: Vec<&TestNode> = nodes.iter().collect();
    let_lead(&all, &nodes[0]).await;
    let peers: Vec<PeerId> = nodes.iter().map(TestNode::peer).collect();
    net.isolate(peers[2]);
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert!(voters(&nodes[0]).contains(&peers[2]), "it has its seat for a while");
    wait_voters(&nodes[0], &[peers[0], peers[1], peers[3]]).await;
    net.heal_all();
    nodes[0].pin(1).await.unwrap();
    assert_equal(&nodes.iter().collect::<Vec<_>>()).await;
    tokio::time::sleep(LIMIT * 2).await;
    assert_eq!(voters(&nodes[0]), BTreeSet::from([peers[0], peers[1], peers[3]]), "nobody is moved without need");
    drop(nodes.pop());
}

/// Voters 0, 1 and 2; then 2 is away, 3 joins, takes its seat, and leads. 0 goes for good.
async fn changed_while_one_was_away(net: &MemNet) -> Vec<TestNode> {
    let mut nodes = grown(net, 3).await;
    let_lead(&nodes.iter().collect::<Vec<_>>(), &nodes[0]).await;
    let new = PeerId::random();
    drop(net.peer(new));
    net.isolate(nodes[2].peer());
    nodes.push(start_with(net, new, fresh_disks(), &[nodes[0].peer()], three_vote()).await.unwrap());
    let peers: Vec<PeerId> = nodes.iter().map(TestNode::peer).collect();
    wait_voters(&nodes[0], &[peers[0], peers[1], peers[3]]).await;
    let_lead(&[&nodes[0], &nodes[1], &nodes[3]], &nodes[3]).await;
    nodes[3].consensus.remove_peer(peers[0]).await.unwrap();
    drop(nodes.remove(0).crash().await);
    net.crash(peers[0]);
    nodes[2].pin(1).await.unwrap();
    nodes
}

#[tokio::test(start_paused = true)]
async fn a_member_that_was_away_takes_a_new_leader_whom_a_member_vouches_for() {
    let net = MemNet::new(31);
    let nodes = changed_while_one_was_away(&net).await;
    let [known, away, new] = nodes.as_slice() else { panic!("three are left") };
    let_lead(&[known, new], new).await;
    let behind = *away.consensus.applied().borrow();
    net.heal_all();
    net.cut(new.peer(), away.peer());
    tokio::time::sleep(LIMIT).await;
    assert!(!away.consensus.position().borrow().members.iter().any(|member| member.peer == new.peer()));
    net.heal_all();
    assert_equal(&[new, known, away]).await;
    assert!(*away.consensus.applied().borrow() > behind);
    assert_eq!(away.consensus.trouble(), None);
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_members_are_all_gone_says_so_and_goes_on_once_it_is_told_whom_to_trust() {
    let net = MemNet::new(32);
    let mut nodes = changed_while_one_was_away(&net).await;
    let (new, away, known) = (nodes.remove(2), nodes.remove(1), nodes.remove(0));
    let_lead(&[&known, &new], &new).await;
    new.consensus.remove_peer(known.peer()).await.unwrap();
    let gone = known.peer();
    drop(known.crash().await);
    net.crash(gone);
    let term = away.consensus.position().borrow().term;
    net.heal_all();
    wait_until("the trouble", || matches!(away.consensus.trouble(), Some(Trouble::Stranded { .. }))).await;
    tokio::time::sleep(LIMIT).await;
    let trouble = away.consensus.trouble().expect("it stays");
    assert_eq!(trouble.peers(), [new.peer()]);
    assert_eq!(away.consensus.position().borrow().term, term, "it believed nobody");

    let peer = away.peer();
    let disks = away.crash().await;
    let away = start_with(&net, peer, disks, &[new.peer()], three_vote()).await.unwrap();
    assert_equal(&[&new, &away]).await;
    assert_eq!(away.consensus.trouble(), None);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_was_removed_while_it_was_down_learns_it() {
    let net = MemNet::new(33);
    let mut nodes = three(&net).await;
    let leader = leader_among(&nodes.iter().collect::<Vec<_>>()).await.peer();
    for node in &nodes {
        let mut position = node.consensus.position();
        let settled = position.wait_for(|position| position.leader == Some(leader));
        tokio::time::timeout(LIMIT, settled).await.unwrap().unwrap();
    }
    let place = nodes.iter().rposition(|node| node.peer() != leader).unwrap();
    let gone = nodes.remove(place);
    let peer = gone.peer();
    let disks = gone.crash().await;
    net.crash(peer);
    nodes[0].consensus.remove_peer(peer).await.unwrap();
    let term = nodes[0].consensus.position().borrow().term;

    net.cut(peer, leader);
    let back = start(&net, peer, disks, &[]).await.unwrap();
    let told = || matches!(back.consensus.trouble(), Some(Trouble::Disowned { .. }));
    wait_until("one voter's word", told).await;
    assert!(!back.consensus.position().borrow().removed, "one of two is not enough");
    net.heal_all();
    let mut position = back.consensus.position();
    tokio::time::timeout(LIMIT, position.wait_for(|position| position.removed)).await.unwrap().unwrap();
    assert_eq!(nodes[0].consensus.position().borrow().term, term, "it disturbed nobody");
    nodes[1].pin(3).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_joins_through_one_that_does_not_lead_and_no_other_way() {
    let net = MemNet::new(34);
    let nodes = grown(&net, 3).await;
    let leader = leader_among(&nodes.iter().collect::<Vec<_>>()).await.peer();
    let host = nodes.iter().map(TestNode::peer).find(|peer| *peer != leader).unwrap();
    let joined = start_with(&net, PeerId::random(), fresh_disks(), &[host], three_vote()).await.unwrap();
    assert_equal(&[&nodes[0], &nodes[1], &nodes[2], &joined]).await;
}

#[tokio::test(start_paused = true)]
async fn voters_are_spread_over_regions_and_stay_there() {
    let net = MemNet::new(35);
    let nodes = grown(&net, 4).await;
    let peers: Vec<PeerId> = nodes.iter().map(TestNode::peer).collect();
    let regions: std::collections::BTreeMap<PeerId, String> =
        peers.iter().zip(["a", "a", "a", "b"]).map(|(peer, region)| (*peer, region.to_owned())).collect();
    let told = Arc::new(parking_lot::Mutex::new(regions));
    for node in &nodes {
        let told = Arc::clone(&told);
        node.consensus.spread_voters(Arc::new(move || told.lock().clone()));
    }
    wait_until("a voter in region b", || voters(&nodes[0]).contains(&peers[3])).await;
    let spread = voters(&nodes[0]);
    assert_eq!(spread.len(), 3);
    told.lock().clear();
    tokio::time::sleep(LIMIT * 5).await;
    assert_eq!(voters(&nodes[0]), spread, "tags that are not heard for a while have not changed");
}
