//! Nodes that are cut off from each other and come together again, in `crdt` mode.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use cluster_types::Cid;

use super::super::deadline::Deadline;
use super::*;
use crate::cluster::duty::Outlook;
use crate::cluster::repin::{self, RepinConfig};
use crate::consensus::sequencer::ProposeError;
use crate::crdt::merge::Rule;
use crate::ports::{Changes, OutboxStore, PinChange};
use crate::watch;

const AFTER: Duration = Duration::from_secs(2);
pub(super) const ACCEPT: WithoutQuorum = WithoutQuorum::Accept { after: AFTER };

pub(super) fn accepting() -> LogSettings {
    LogSettings { without_quorum: ACCEPT, ..settings() }
}

pub(super) async fn shown(node: &TestNode, number: u32) -> Option<Pin> {
    node.disks.state.pin(pin(number).cid).await.unwrap()
}

pub(super) fn named(number: u32, name: &str) -> Request {
    let mut pin = pin(number);
    pin.options.name = name.to_owned();
    Request::Pin(Box::new(pin))
}

fn cid(number: u32) -> Cid {
    pin(number).cid
}

/// Waits until a condition holds.
pub(super) async fn until<F: AsyncFn() -> bool>(what: &str, holds: F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_late| panic!("{what}: not in time"));
}

/// Waits until nothing waits anywhere and all hold the same.
pub(super) async fn assert_whole(nodes: &[&TestNode]) {
    for node in nodes {
        until("everything is merged", async || node.disks.state.waiting_count().all == 0).await;
    }
    assert_equal(nodes).await;
    let contents: Vec<_> = nodes.iter().map(|node| node.disks.state.contents(false).pins).collect();
    assert!(contents.windows(2).all(|pair| pair[0] == pair[1]), "all show the same");
}

/// Five nodes, and which three and two of them will be cut apart. The leader is the first of the two, or of the three.
async fn sides(net: &MemNet, few_lead: bool) -> (Vec<TestNode>, Vec<usize>, Vec<usize>) {
    let nodes = several(net, 5, accepting()).await;
    let leader = leader_among(&nodes.iter().collect::<Vec<_>>()).await.peer();
    // From here on the leader knows itself to be one.
    nodes[0].pin(1_000).await.unwrap();
    let mut order: Vec<usize> = (0..5).collect();
    order.sort_by_key(|at| nodes[*at].peer() != leader);
    let few = order.split_off(if few_lead { 2 } else { 3 });
    let (few, many) = if few_lead { (order, few) } else { (few, order) };
    (nodes, many, few)
}

/// Five nodes, cut into three and two.
async fn cut(net: &MemNet) -> (Vec<TestNode>, Vec<usize>, Vec<usize>) {
    // The leader is on the smaller side: whoever it answers is answered by nobody.
    let (nodes, many, few) = sides(net, true).await;
    net.partition(&peers(&nodes, &few), &peers(&nodes, &many));
    (nodes, many, few)
}

fn peers(nodes: &[TestNode], places: &[usize]) -> Vec<PeerId> {
    places.iter().map(|at| nodes[*at].peer()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_smaller_side_accepts_passes_on_and_merges_when_whole_again() {
    let net = MemNet::new(11);
    let (nodes, many, few) = cut(&net).await;
    let [author, other] = [&nodes[few[0]], &nodes[few[1]]];
    // It leads still, as far as it knows, and waits for its followers no longer than anybody else would.
    let began = tokio::time::Instant::now();
    let receipt = author.pin(1).await.unwrap();
    assert!(began.elapsed() < AFTER + Duration::from_millis(600), "{:?}", began.elapsed());
    assert_eq!(receipt.commit, Commit::Eventual);
    assert!(matches!(receipt.outcome, Outcome::Pinned(_)));
    assert!(shown(author, 1).await.is_some(), "visible at once");
    assert_eq!(author.consensus.report().await.unwrap().eventual, 1);
    until("the other one on this side shows it", async || shown(other, 1).await.is_some()).await;
    assert_eq!(other.consensus.report().await.unwrap().eventual, 0, "it is not its own");
    until("the larger side has a leader", async || nodes[many[0]].pin(2).await.unwrap().commit != Commit::Eventual)
        .await;
    assert!(shown(&nodes[many[0]], 1).await.is_none() && shown(author, 2).await.is_none());
    net.heal_all();
    assert_whole(&nodes.iter().collect::<Vec<_>>()).await;
    for number in [1, 2] {
        assert!(shown(&nodes[many[1]], number).await.is_some(), "pin {number}");
    }
    assert_eq!(author.consensus.report().await.unwrap().eventual, 0);
}

#[tokio::test(start_paused = true)]
async fn who_is_cut_off_knows_it_and_who_is_back_too() {
    let net = MemNet::new(13);
    let nodes = several(&net, 3, accepting()).await;
    leader_among(&nodes.iter().collect::<Vec<_>>()).await;
    for lost in &nodes {
        for node in &nodes {
            until("all know of a quorum", async || node.consensus.without_quorum_for().is_none()).await;
        }
        net.isolate(lost.peer());
        until("the lost one knows", async || lost.consensus.without_quorum_for().is_some()).await;
        for other in nodes.iter().filter(|other| other.peer() != lost.peer()) {
            until("the others go on", async || other.consensus.without_quorum_for().is_none()).await;
        }
        net.heal_all();
    }
    for node in &nodes {
        until("all are back", async || node.consensus.without_quorum_for().is_none()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_alone_where_it_may_write_so_and_not_for_one_write_without_an_answer() {
    for (settings, may_write) in [(accepting(), true), (settings(), false)] {
        let net = MemNet::new(20);
        let nodes = several(&net, 3, settings).await;
        let leader = leader_among(&nodes.iter().collect::<Vec<_>>()).await;
        leader.consensus.nobody_answers();
        assert_eq!(leader.consensus.without_quorum_for().is_some(), may_write);
        assert_eq!(leader.consensus.alone_for(), None);
        for lost in &nodes[..2] {
            net.isolate(lost.peer());
        }
        for node in &nodes {
            until("all know", async || node.consensus.without_quorum_for().is_some_and(|time| time > AFTER * 3)).await;
            assert_eq!(node.consensus.alone_for().is_some(), may_write);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn adding_a_stranger_does_nothing_in_crdt_mode_and_is_refused_in_raft_mode() {
    for (settings, nothing) in [(accepting(), true), (settings(), false)] {
        let nodes = several(&MemNet::new(21), 3, settings).await;
        let members = nodes[0].consensus.position().borrow().members.clone();
        assert_eq!(nodes[0].consensus.add_peer(PeerId::random(), Vec::new()).await.is_ok(), nothing);
        assert!(nodes[0].consensus.add_peer(nodes[1].peer(), Vec::new()).await.is_ok());
        assert_eq!(nodes[0].consensus.position().borrow().members, members);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_never_overtakes_an_earlier_one_on_the_same_pin() {
    let net = MemNet::new(12);
    let (nodes, _many, few) = cut(&net).await;
    let [author, other] = [&nodes[few[0]], &nodes[few[1]]];
    author.pin(1).await.unwrap();
    until("it is passed on", async || shown(other, 1).await.is_some()).await;
    net.heal_all();
    // Whether it is merged by now or not: who wants it gone has seen it.
    let gone = other.consensus.submit(Request::Unpin { cid: cid(1) }).await.unwrap();
    assert!(matches!(gone.outcome, Outcome::Unpinned(_)), "{gone:?}");
    assert_whole(&nodes.iter().collect::<Vec<_>>()).await;
    assert!(shown(author, 1).await.is_none(), "it must not come back");
}

#[tokio::test(start_paused = true)]
async fn what_an_old_leader_took_and_did_not_answer_is_no_rival_of_what_came_after() {
    for seed in 0..8 {
        let net = MemNet::new(100 + seed);
        let (nodes, many, few) = cut(&net).await;
        if seed % 2 == 1 {
            // Nobody has a majority: what the old leader has in its log is committed in the end.
            net.isolate(nodes[many[0]].peer());
        }
        // The first of them leads still, as far as it knows, and puts this into its log.
        let author = &nodes[few[1]];
        author.pin(1).await.unwrap();
        author.consensus.submit(Request::Unpin { cid: cid(1) }).await.unwrap();
        if seed % 2 == 0 {
            until("the larger side has a leader", async || {
                nodes[many[0]].pin(2).await.unwrap().commit != Commit::Eventual
            })
            .await;
        }
        net.heal_all();
        assert_whole(&nodes.iter().collect::<Vec<_>>()).await;
        assert!(shown(author, 1).await.is_none(), "seed {seed}: it must not come back");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unpin_that_a_silent_leader_may_have_carried_out_is_not_answered_with_nothing_to_unpin() {
    let net = MemNet::new(17);
    let (nodes, _many, few) = cut(&net).await;
    let author = &nodes[few[0]];
    let unpin = || Request::Unpin { cid: cid(1) };
    let told = author.consensus.accept(unpin(), None).await.unwrap();
    assert!(matches!(told.outcome, Outcome::Refused(_)), "{told:?}");
    let doubt = ConsensusError::OutcomeUnknown { after: AFTER };
    let told = author.consensus.accept(unpin(), Some(([7; 16], doubt))).await;
    assert!(matches!(told, Err(ConsensusError::OutcomeUnknown { .. })), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_accepted_and_not_flushed_may_take_effect() {
    let net = MemNet::new(27);
    let (nodes, _many, few) = cut(&net).await;
    let author = &nodes[few[0]];
    author.disks.state.break_flush();
    let told = author.consensus.submit(named(1, "in doubt")).await;
    assert!(told.as_ref().is_err_and(|error| error.class() == ErrorClass::Unknown), "{told:?}");
    assert!(shown(author, 1).await.is_some(), "it is shown");
}

#[tokio::test(start_paused = true)]
async fn a_start_walks_the_outbox_only_when_something_of_it_is_not_shown() {
    let net = MemNet::new(28);
    let (nodes, _many, few) = cut(&net).await;
    let author = &nodes[few[0]];
    author.pin(1).await.unwrap();
    let state = Arc::clone(&author.disks.state);
    let updates = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&updates);
    state.observe(Arc::new(move |_event: crate::testing::mem_state::StateEvent<'_>| {
        counted.fetch_add(1, Ordering::Relaxed);
    }));
    let before = updates.load(Ordering::Relaxed);
    author.consensus.outbox.restore(1).await.unwrap();
    assert_eq!(updates.load(Ordering::Relaxed), before, "everything is shown");
    drop(author.consensus.outbox.lower().await.unwrap());
    assert!(shown(author, 1).await.is_none(), "as when an installation is cut off");
    author.consensus.outbox.restore(1).await.unwrap();
    assert!(shown(author, 1).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn who_unpinned_under_a_silent_leader_and_pins_again_is_no_rival_of_himself() {
    let net = MemNet::new(18);
    let (nodes, many, few) = cut(&net).await;
    // Nobody has a majority: what the old leader has in its log is committed in the end.
    net.isolate(nodes[many[0]].peer());
    let author = &nodes[few[0]];
    let gone = author.consensus.submit(Request::Unpin { cid: cid(1_000) }).await.unwrap();
    assert_eq!(gone.commit, Commit::Eventual);
    author.consensus.submit(named(1_000, "again")).await.unwrap();
    net.heal_all();
    assert_whole(&nodes.iter().collect::<Vec<_>>()).await;
    assert_eq!(shown(author, 1_000).await.unwrap().options.name, "again");
    assert_eq!(author.disks.state.conflicts(None, 10).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_into_a_cut_and_arrives_after_its_merge_changes_nothing() {
    let net = MemNet::new(19);
    let (nodes, many, few) = cut(&net).await;
    // The first of them leads still, as far as it knows, and does not answer.
    let author = &nodes[few[1]];
    author.consensus.submit(Request::Unpin { cid: cid(1_000) }).await.unwrap();
    let attempt = author.disks.state.outbox(0, 1).await.unwrap()[0].write.attempt.expect("a leader was asked");
    until("the larger side has a leader", async || nodes[many[0]].pin(9).await.unwrap().commit != Commit::Eventual)
        .await;
    author.consensus.submit(named(1_000, "again")).await.unwrap();
    net.heal_all();
    assert_whole(&nodes.iter().collect::<Vec<_>>()).await;
    let leader = leader_among(&nodes.iter().collect::<Vec<_>>()).await;
    let unpin = Request::Unpin { cid: cid(1_000) };
    let late = leader.consensus.propose_here(attempt, unpin.clone(), None).await.unwrap();
    assert_eq!(late.outcome, Outcome::Unchanged);
    assert_eq!(shown(author, 1_000).await.unwrap().options.name, "again");
    leader.consensus.propose_here([1; 16], unpin, None).await.unwrap();
    assert!(shown(leader, 1_000).await.is_none(), "another one is a wish of its own");
}

#[tokio::test(start_paused = true)]
async fn a_leader_begins_nothing_that_its_author_has_given_up() {
    let net = MemNet::new(21);
    let (nodes, _many, _few) = cut(&net).await;
    net.heal_all();
    let all: Vec<_> = nodes.iter().collect();
    assert_whole(&all).await;
    let leader = leader_among(&all).await;
    let author = nodes.iter().find(|node| node.peer() != leader.peer()).unwrap();
    let patience = Duration::from_millis(500);
    let deadline = author.consensus.heard.deadline(tokio::time::Instant::now() + patience);
    assert!(deadline.is_some(), "every message of the leader tells its clock");
    let propose = async |n: u8, deadline| {
        leader.consensus.propose_here([n; 16], named(u32::from(n), "late"), deadline).await.map(|placed| placed.outcome)
    };
    assert!(matches!(propose(1, deadline).await, Ok(Outcome::Pinned(_))));
    tokio::time::sleep(patience * 2).await;
    assert_eq!(propose(2, deadline).await, Err(ProposeError::Late));
    let elsewhere = deadline.map(|deadline| Deadline { term: deadline.term + 1, clock: u64::MAX });
    assert_eq!(propose(3, elsewhere).await, Err(ProposeError::NotLeader), "the clock of another leader");
    assert!(shown(leader, 1).await.is_some() && shown(leader, 2).await.is_none() && shown(leader, 3).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn who_writes_the_same_pin_again_without_a_quorum_does_not_wait_each_time() {
    let net = MemNet::new(20);
    let (nodes, _many, few) = cut(&net).await;
    let author = &nodes[few[0]];
    author.pin(1).await.unwrap();
    // Until it is time to ask again.
    tokio::time::sleep(AFTER * 4).await;
    author.consensus.submit(named(1, "second")).await.unwrap();
    let began = tokio::time::Instant::now();
    author.consensus.submit(named(1, "third")).await.unwrap();
    assert!(began.elapsed() < AFTER / 4, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_write_waits_for_a_silent_leader_no_longer_than_until_there_is_another() {
    let net = MemNet::new(21);
    let nodes = several(&net, 3, settings()).await;
    let leader = leader_among(&nodes.iter().collect::<Vec<_>>()).await.peer();
    nodes[0].pin(1_000).await.unwrap();
    let others: Vec<&TestNode> = nodes.iter().filter(|node| node.peer() != leader).collect();
    for other in &others {
        net.cut_one_way(leader, other.peer());
    }
    let began = tokio::time::Instant::now();
    others[0].pin(1).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn both_sides_write_the_same_pins_and_nobody_loses_in_silence() {
    let net = MemNet::new(13);
    let (nodes, many, few) = cut(&net).await;
    let [left, right] = [&nodes[few[0]], &nodes[many[0]]];
    until("the larger side has a leader", async || right.pin(9).await.unwrap().commit != Commit::Eventual).await;
    right.consensus.submit(named(1, "right")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    left.consensus.submit(named(1, "left, later")).await.unwrap();
    left.pin(2).await.unwrap();
    right.consensus.submit(Request::Unpin { cid: cid(9) }).await.unwrap();
    net.heal_all();
    assert_whole(&nodes.iter().collect::<Vec<_>>()).await;
    assert!(shown(right, 9).await.is_none() && shown(right, 2).await.is_some());
    let kept = shown(right, 1).await.unwrap().options.name;
    for node in &nodes {
        let conflicts = node.disks.state.conflicts(None, 10).await.unwrap();
        assert_eq!(conflicts.len(), 1, "{conflicts:?}");
        assert_eq!(conflicts[0].conflict.rule, Rule::NewerPin);
        let lost = conflicts[0].conflict.loser.record.as_ref().unwrap().options.name.clone();
        assert_ne!(lost, kept);
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_outbox_survives_a_power_cut() {
    let net = MemNet::new(14);
    let (mut nodes, _many, few) = cut(&net).await;
    for number in 0..20 {
        nodes[few[0]].pin(number).await.unwrap();
    }
    let author = nodes.remove(few[0]);
    let (peer, disks) = (author.peer(), author.crash().await);
    disks.log.power_cut();
    disks.state.power_cut(0);
    net.heal_all();
    nodes.push(start_in(&net, peer, disks, &[], ACCEPT).await.unwrap());
    assert_whole(&nodes.iter().collect::<Vec<_>>()).await;
    for number in 0..20 {
        assert!(shown(&nodes[0], number).await.is_some(), "pin {number}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_author_wrote_is_merged_by_those_who_took_it_over() {
    let net = MemNet::new(15);
    let (mut nodes, _many, few) = cut(&net).await;
    nodes[few[0]].pin(1).await.unwrap();
    until("it is passed on", async || shown(&nodes[few[1]], 1).await.is_some()).await;
    let author = nodes.remove(few[0]);
    drop(author.crash().await);
    net.heal_all();
    let rest: Vec<&TestNode> = nodes.iter().collect();
    assert_whole(&rest).await;
    assert!(shown(&nodes[0], 1).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_lone_peer_goes_on_for_as_long_as_it_takes() {
    let net = MemNet::new(16);
    let nodes = several(&net, 3, accepting()).await;
    net.isolate(nodes[0].peer());
    for number in 0..50 {
        assert_eq!(nodes[0].pin(number).await.unwrap().commit, Commit::Eventual);
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    nodes[0].consensus.submit(Request::Unpin { cid: cid(0) }).await.unwrap();
    assert!(shown(&nodes[0], 0).await.is_none());
    let again = nodes[0].consensus.submit(Request::Unpin { cid: cid(0) }).await.unwrap();
    assert!(matches!(again.outcome, Outcome::Refused(_)), "it is not pinned any more");
    net.heal_all();
    assert_whole(&nodes.iter().collect::<Vec<_>>()).await;
    assert_eq!(nodes[1].consensus.report().await.unwrap().pins, 49);
}

/// Takes a node out of its cluster, with its pins.
pub(super) async fn leave(node: TestNode) -> (PeerId, Disks) {
    let peer = node.peer();
    let Disks { state, .. } = node.crash().await;
    let store: Arc<dyn StateStore> = Arc::clone(&state) as _;
    bring_along::pack(&store).await.unwrap();
    state.forget_cluster(bring_along::leaving().unwrap());
    (peer, Disks { log: MemLog::new(), state, record: Arc::new(MemRecord::default()) })
}

#[tokio::test(start_paused = true)]
async fn two_clusters_become_one_and_lose_nothing() {
    let net = MemNet::new(17);
    let mut large = several(&net, 3, accepting()).await;
    let small = several(&net, 3, settings()).await;
    for number in 0..100 {
        large[1].pin(number).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    for number in 90..190 {
        small[1].consensus.submit(named(number, "of the small one")).await.unwrap();
    }
    assert_equal(&small.iter().collect::<Vec<_>>()).await;
    let host = [large[0].peer()];
    for node in small {
        let (peer, disks) = leave(node).await;
        assert_eq!(disks.state.pins(), 100, "what is brought along is shown all the time");
        large.push(start_in(&net, peer, disks, &host, ACCEPT).await.unwrap());
    }
    let all: Vec<&TestNode> = large.iter().collect();
    assert_whole(&all).await;
    for node in &all {
        assert_eq!(node.consensus.report().await.unwrap().pins, 190);
        let conflicts = node.disks.state.conflicts(None, 100).await.unwrap();
        assert_eq!(conflicts.len(), 10, "each of those in common is told once, to all: {conflicts:?}");
    }
    assert_eq!(shown(all[0], 95).await.unwrap().options.name, "of the small one", "the newer one stands");
}

#[tokio::test(start_paused = true)]
async fn who_left_and_found_nobody_founds_a_cluster_with_its_pins() {
    let net = MemNet::new(18);
    let node = start_in(&net, PeerId::random(), fresh_disks(), &[], ACCEPT).await.unwrap();
    for number in 0..10 {
        node.pin(number).await.unwrap();
    }
    let before = node.digest().await.1;
    let (peer, disks) = leave(node).await;
    let again = start_in(&net, peer, disks, &[], ACCEPT).await.unwrap();
    assert_whole(&[&again]).await;
    assert_eq!(again.digest().await.1, before, "the same pins");
}

#[tokio::test(start_paused = true)]
async fn who_moves_twice_brings_what_is_shown_and_not_what_it_brought_before() {
    let net = MemNet::new(19);
    let node = start_in(&net, PeerId::random(), fresh_disks(), &[], ACCEPT).await.unwrap();
    node.pin(1).await.unwrap();
    node.pin(2).await.unwrap();
    let (peer, disks) = leave(node).await;
    let state: Arc<dyn StateStore> = Arc::clone(&disks.state) as _;
    bring_along::finish(&state).await.unwrap();
    // It has not come anywhere yet, and one of its pins is unpinned meanwhile: it is shown no more.
    let gone = disks.state.pin(cid(1)).await.unwrap();
    let unpin = Changes { pins: vec![PinChange { cid: cid(1), before: gone, after: None }], ..Changes::default() };
    state.update(Box::new(move |_view| Ok(unpin))).await.unwrap();
    bring_along::pack(&state).await.unwrap();
    disks.state.forget_cluster(bring_along::leaving().unwrap());
    let disks = Disks { log: MemLog::new(), state: disks.state, record: Arc::new(MemRecord::default()) };
    let again = start_in(&net, peer, disks, &[], ACCEPT).await.unwrap();
    assert_whole(&[&again]).await;
    assert!(shown(&again, 1).await.is_none() && shown(&again, 2).await.is_some());
}

/// Lets a node repair, with a monitor that the test plays.
fn repairing(node: &TestNode, grace: Duration) -> watch::Sender<BTreeSet<PeerId>> {
    let suspects = watch::Sender::new(BTreeSet::new());
    let outlook = Outlook { peer: node.peer(), suspects: suspects.subscribe(), grace };
    let config = RepinConfig { grace, ..RepinConfig::default() };
    repin::start(config, Arc::clone(&node.disks.state) as _, Arc::clone(&node.consensus) as _, outlook, &node.tasks);
    suspects
}

/// Cuts five nodes into three and two. Each side gives the pins that had a holder on each to two of its own, and when it
/// heals each has two.
async fn repair_on_both_sides(few_lead: bool) {
    let (net, grace) = (MemNet::new(19), Duration::from_secs(40));
    let (nodes, many, few) = sides(&net, few_lead).await;
    let first = vec![nodes[few[0]].peer(), nodes[many[0]].peer()];
    // So many that each of two peers looks after some.
    let numbers = 1..=12;
    for number in numbers.clone() {
        let mut both = pin(number);
        (both.options.replication_factor_min, both.options.replication_factor_max) = (2, 2);
        both.allocations.clone_from(&first);
        let receipt = nodes[0].consensus.submit(Request::Pin(Box::new(both))).await.unwrap();
        assert_ne!(receipt.commit, Commit::Eventual);
    }
    let all: Vec<&TestNode> = nodes.iter().collect();
    assert_whole(&all).await;
    let monitors: Vec<_> = nodes.iter().map(|node| repairing(node, grace)).collect();
    net.partition(&peers(&nodes, &few), &peers(&nodes, &many));
    for (side, others) in [(&few, &many), (&many, &few)] {
        for at in side {
            monitors[*at].send_replace(peers(&nodes, others).into_iter().collect());
        }
    }
    tokio::time::sleep(grace / 2).await;
    for node in &nodes {
        assert_eq!(shown(node, 1).await.unwrap().allocations, first, "a short silence moves nothing");
    }
    for side in [&few, &many] {
        let here: BTreeSet<PeerId> = peers(&nodes, side).into_iter().collect();
        for (at, number) in side.iter().flat_map(|at| numbers.clone().map(move |number| (at, number))) {
            until(&format!("pin {number} on two of its side"), async || {
                let holders: BTreeSet<PeerId> =
                    shown(&nodes[*at], number).await.unwrap().allocations.into_iter().collect();
                holders.len() == 2 && holders.is_subset(&here)
            })
            .await;
        }
    }
    for monitor in &monitors {
        monitor.send_replace(BTreeSet::new());
    }
    net.heal_all();
    assert_whole(&all).await;
    for number in numbers {
        assert_eq!(shown(&nodes[0], number).await.unwrap().allocations.len(), 2, "pin {number}: the excess is dropped");
    }
}

#[tokio::test(start_paused = true)]
async fn both_sides_of_a_cut_repair_and_each_pin_has_as_many_holders_as_it_should() {
    repair_on_both_sides(false).await;
}

#[tokio::test(start_paused = true)]
async fn a_side_that_follows_a_leader_without_a_quorum_repairs_too() {
    repair_on_both_sides(true).await;
}
