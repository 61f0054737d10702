//! Whole nodes on doubles: founding, joining, elections, cuts, power cuts.

mod digests;
mod hostile;
mod import;
mod liars;
mod remnant;
mod removed;
mod seats;
mod trust;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster_types::{Commit, ErrorClass, PeerId, Pin, PinOptions, ReplicationFactor, Role, WireError};
use futures::TryStreamExt;
use openraft::async_runtime::watch::WatchReceiver as _;

use liars::meet;

use super::*;
use crate::cluster::meet::Meeting;
use crate::consensus::sequencer::{AllocationQuestion, AllocationSnapshot, Allocator};
use crate::consensus::{Consensus, ConsensusError, Outcome, Receipt, Request};
use crate::ports::{AnnexRow, Changes, RequestKey, StateStore, SystemClock, Transport};
use crate::rpc::{Call, CallServer, PeerService, Reply};
use crate::task::TaskGroup;
use crate::testing::{MemLog, MemNet, MemPeer, MemRecord, MemState};
use crate::trust::Trust;

const LIMIT: Duration = Duration::from_secs(60);

/// Chooses the first peers that are connected and not excluded, as many as may be.
struct FirstPeers(Arc<MemPeer>);

impl Allocator for FirstPeers {
    fn snapshot(&self, members: &[PeerId]) -> Box<dyn AllocationSnapshot> {
        let (own, connected) = (self.0.local_peer(), self.0.connected());
        let heard = |peer: &&PeerId| **peer == own || connected.contains(peer);
        Box::new(Chosen(members.iter().filter(heard).copied().collect()))
    }
}

struct Chosen(Vec<PeerId>);

impl AllocationSnapshot for Chosen {
    fn allocate(&self, question: &AllocationQuestion<'_>) -> Result<Vec<PeerId>, WireError> {
        let count = match question.replication {
            ReplicationFactor::Between { max, .. } => usize::try_from(max).unwrap(),
            ReplicationFactor::Everywhere => 1,
        };
        Ok(self.0.iter().filter(|peer| !question.excluded.contains(peer)).take(count).copied().collect())
    }
}

/// Answers the calls that consensus needs.
struct Answers(Arc<LogConsensus>, Arc<Meeting>);

#[async_trait]
impl PeerService for Answers {
    async fn answer(&self, from: PeerId, call: Call) -> Result<Reply, WireError> {
        let (role, leader) = {
            let position = self.0.position();
            let position = position.borrow();
            (position.role, position.leader)
        };
        if let (Call::Reserve | Call::Join { .. }, true, Some(leader)) = (&call, role != Role::Leader, leader) {
            let mut call = call;
            if let Call::Join { node_id, addresses } = call {
                call = Call::JoinFor { peer: from, node_id, addresses };
            }
            return self.0.client.ask(leader, &call, LIMIT).await;
        }
        if let Call::JoinFor { peer, node_id, addresses } = call {
            return join_here(&self.0, peer, node_id, addresses).await.map(|()| Reply::Done);
        }
        if let Call::Join { node_id, addresses } = call {
            return join_here(&self.0, from, node_id, addresses).await.map(|()| Reply::Done);
        }
        if let Call::Removed { node_id } = call {
            self.0.told_removed(from, node_id);
            return Ok(Reply::Done);
        }
        if let Call::Outbox { after } = call {
            return self.0.outbox_page(after).await;
        }
        if let Call::Meet { cluster } = call {
            let (cluster, welcome) = self.1.answer(from, cluster.as_ref()).await;
            return Ok(Reply::Cluster { cluster, welcome });
        }
        if let Call::Noted { index } = call {
            return self.0.noted(index).map(|manifest| Reply::Manifest { index, manifest });
        }
        self.0.lead(&call).await
    }

    fn is_member(&self, peer: &PeerId) -> bool {
        self.0.is_member(peer)
    }

    fn trusts(&self, peer: &PeerId) -> bool {
        self.0.trusts(peer)
    }
}

/// What outlives a node: its disks.
#[derive(Clone)]
struct Disks {
    log: MemLog,
    state: Arc<MemState>,
    record: Arc<MemRecord>,
}

struct TestNode {
    consensus: Arc<LogConsensus>,
    meeting: Arc<Meeting>,
    network: Arc<MemPeer>,
    disks: Disks,
    tasks: TaskGroup,
}

fn fresh_disks() -> Disks {
    Disks { log: MemLog::new(), state: Arc::new(MemState::new()), record: Arc::new(MemRecord::default()) }
}

/// A voter that is away loses its seat soon.
fn settings() -> LogSettings {
    let (write_timeout, voter_grace) = (Duration::from_secs(8), Duration::from_secs(30));
    LogSettings { write_timeout, voter_grace, ..LogSettings::default() }
}

async fn start(net: &MemNet, peer: PeerId, disks: Disks, bootstrap: &[PeerId]) -> Result<TestNode, StartError> {
    start_with(net, peer, disks, bootstrap, settings()).await
}

async fn start_in(
    net: &MemNet,
    peer: PeerId,
    disks: Disks,
    bootstrap: &[PeerId],
    without_quorum: WithoutQuorum,
) -> Result<TestNode, StartError> {
    start_with(net, peer, disks, bootstrap, LogSettings { without_quorum, ..settings() }).await
}

async fn start_with(
    net: &MemNet,
    peer: PeerId,
    disks: Disks,
    bootstrap: &[PeerId],
    settings: LogSettings,
) -> Result<TestNode, StartError> {
    let network = net.peer(peer);
    let server = Arc::new(CallServer::default());
    network.serve(Arc::clone(&server) as _);
    for member in bootstrap {
        let address = net.peer(*member).own_addresses();
        network.remember(*member, address);
    }
    let (tasks, trust) = (TaskGroup::new(), settings.trust.clone());
    let parts = LogParts {
        log: disks.log.clone(),
        state: Arc::clone(&disks.state) as _,
        effect_at: Arc::new(|_| Arc::new(|_, _, _| None)),
        record: Arc::clone(&disks.record) as _,
        transport: Arc::clone(&network) as _,
        gossip: Arc::clone(&network) as _,
        server: Arc::clone(&server),
        allocator: Arc::new(FirstPeers(Arc::clone(&network))),
        clock: Arc::new(SystemClock),
        chance: rand::make_rng(),
        bootstrap: bootstrap.to_vec(),
        settings,
    };
    let consensus = LogConsensus::start(parts, &tasks).await?;
    let meeting = meet(&consensus, &disks, &network, trust);
    server.serve_calls(Arc::new(Answers(Arc::clone(&consensus), Arc::clone(&meeting))));
    Ok(TestNode { consensus, meeting, network, disks, tasks })
}

impl TestNode {
    fn peer(&self) -> PeerId {
        self.network.local_peer()
    }

    async fn pin(&self, number: u32) -> Result<Receipt, ConsensusError> {
        self.consensus.submit(Request::Pin(Box::new(pin(number)))).await
    }

    async fn crash(self) -> Disks {
        self.consensus.stop().await;
        drop(self.tasks.shut_down(LIMIT).await);
        self.disks
    }

    async fn digest(&self) -> (u64, String) {
        let report = self.consensus.report().await.unwrap();
        (report.applied_index, report.digest)
    }
}

fn pin(number: u32) -> Pin {
    use multihash_codetable::MultihashDigest;
    let hash = multihash_codetable::Code::Sha2_256.digest(&number.to_be_bytes());
    let options = PinOptions {
        replication_factor_min: 1,
        replication_factor_max: 1,
        name: format!("pin {number}"),
        ..PinOptions::default()
    };
    Pin::new(cluster_types::Cid::new_v1(0x55, hash), options)
}

async fn three(net: &MemNet) -> Vec<TestNode> {
    several(net, 3, settings()).await
}

/// So many nodes, all of them voters.
async fn several(net: &MemNet, number: usize, settings: LogSettings) -> Vec<TestNode> {
    let peers: Vec<PeerId> = (0..number).map(|_| PeerId::random()).collect();
    let mut nodes = vec![start_with(net, peers[0], fresh_disks(), &[], settings.clone()).await.unwrap()];
    for peer in &peers[1..] {
        let bootstrap = [peers[0]];
        nodes.push(start_with(net, *peer, fresh_disks(), &bootstrap, settings.clone()).await.unwrap());
    }
    for node in &nodes {
        let mut position = node.consensus.position();
        let all_vote =
            position.wait_for(|position| position.members.iter().filter(|member| member.voter).count() == number);
        tokio::time::timeout(LIMIT, all_vote).await.expect("all voters in time").unwrap();
        // While the membership changes, a majority of the old voters is needed as well.
        let mut metrics = node.consensus.raft.metrics();
        let uniform = async {
            while metrics.borrow_watched().membership_config.membership().get_joint_config().len() > 1 {
                metrics.changed().await.unwrap();
            }
        };
        tokio::time::timeout(LIMIT, uniform).await.expect("one set of voters in time");
    }
    nodes
}

fn term(receipt: &Receipt) -> u64 {
    match receipt.commit {
        Commit::Log { term, .. } => term,
        Commit::Eventual => panic!("{receipt:?} is in no term"),
    }
}

/// Waits until all nodes have applied the same, and compares what they hold.
async fn assert_equal(nodes: &[&TestNode]) {
    let last = nodes[0].consensus.read_barrier();
    tokio::time::timeout(LIMIT, last).await.unwrap().unwrap();
    let index = nodes[0].digest().await.0;
    for node in nodes {
        let mut applied = node.consensus.applied();
        tokio::time::timeout(LIMIT, applied.wait_for(|applied| *applied >= index)).await.unwrap().unwrap();
    }
    let expected = nodes[0].digest().await;
    for node in nodes {
        assert_eq!(node.digest().await, expected);
    }
}

async fn leader_among<'a>(nodes: &[&'a TestNode]) -> &'a TestNode {
    let found = async {
        loop {
            if let Some(leader) = nodes.iter().find(|node| node.consensus.position().borrow().role == Role::Leader) {
                return *leader;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, found).await.expect("a leader in time")
}

#[tokio::test(start_paused = true)]
async fn three_nodes_agree_whoever_is_asked() {
    let net = MemNet::new(1);
    let nodes = three(&net).await;
    for (number, node) in (0..).zip(nodes.iter().cycle().take(30)) {
        let receipt = node.pin(number).await.unwrap();
        assert!(matches!(receipt.outcome, Outcome::Pinned(_)));
        let stored = node.disks.state.pin(pin(number).cid).await.unwrap();
        assert!(stored.is_some(), "what is acknowledged is visible where it was asked for");
    }
    assert_equal(&nodes.iter().collect::<Vec<_>>()).await;
    assert_eq!(nodes[0].consensus.report().await.unwrap().pins, 30);
}

#[tokio::test(start_paused = true)]
async fn a_cut_off_leader_refuses_and_the_others_go_on() {
    let net = MemNet::new(2);
    let nodes = three(&net).await;
    let all: Vec<&TestNode> = nodes.iter().collect();
    let old = leader_among(&all).await;
    let rest: Vec<&TestNode> = all.iter().copied().filter(|node| node.peer() != old.peer()).collect();
    old.pin(1).await.unwrap();
    net.isolate(old.peer());
    rest[0].pin(2).await.unwrap();
    let refused = old.pin(3).await.unwrap_err();
    let class = refused.class();
    assert!(matches!(class, ErrorClass::Unavailable | ErrorClass::Unknown), "{refused}");
    let again = old.pin(4).await.unwrap_err();
    assert_eq!(again.class(), ErrorClass::Unavailable, "once the lease is over nothing is accepted any more: {again}");
    net.heal_all();
    rest[1].pin(5).await.unwrap();
    assert_equal(&all).await;
    for (number, kept) in [(1, true), (2, true), (4, false), (5, true)] {
        let stored = old.disks.state.pin(pin(number).cid).await.unwrap();
        assert_eq!(stored.is_some(), kept, "pin {number}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_off_leader_under_load_leaves_only_those_in_doubt_whose_writes_have_begun() {
    let net = MemNet::new(8);
    let nodes = three(&net).await;
    let all: Vec<&TestNode> = nodes.iter().collect();
    let old = leader_among(&all).await;
    old.pin(0).await.unwrap();
    net.isolate(old.peer());
    // One after the other, and before the lease is over: each begins an entry of its own, until no more may be under way.
    let writes = (1..=4).map(|number| async move {
        tokio::time::sleep(Duration::from_millis(10) * number).await;
        old.pin(number).await.unwrap_err().class()
    });
    let classes = futures::future::join_all(writes).await;
    assert_eq!(classes, [ErrorClass::Unknown, ErrorClass::Unknown, ErrorClass::Unavailable, ErrorClass::Unavailable]);
    net.heal_all();
    old.pin(5).await.unwrap();
    assert_equal(&all).await;
    assert!(old.disks.state.pin(pin(3).cid).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_survives_a_power_cut_of_all() {
    let net = MemNet::new(3);
    let mut nodes = three(&net).await;
    let peers: Vec<PeerId> = nodes.iter().map(TestNode::peer).collect();
    for number in 0..20 {
        nodes[0].pin(number).await.unwrap();
    }
    let mut disks = Vec::new();
    for node in nodes.drain(..) {
        disks.push(node.crash().await);
    }
    for disk in &disks {
        disk.log.power_cut();
        disk.state.power_cut(0);
    }
    for (peer, disk) in peers.iter().zip(disks) {
        nodes.push(start(&net, *peer, disk, &[]).await.unwrap());
    }
    nodes[1].pin(100).await.unwrap();
    assert_equal(&nodes.iter().collect::<Vec<_>>()).await;
    assert_eq!(nodes[2].consensus.report().await.unwrap().pins, 21);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_lies_about_flushing_is_found_out() {
    let net = MemNet::new(4);
    let peer = PeerId::random();
    let node = start(&net, peer, fresh_disks(), &[]).await.unwrap();
    node.pin(1).await.unwrap();
    node.disks.log.lie_about_flush();
    node.pin(2).await.unwrap();
    let disks = node.crash().await;
    disks.log.power_cut();
    disks.state.power_cut(0);
    let node = start(&net, peer, disks, &[]).await.unwrap();
    node.pin(3).await.unwrap();
    let kept = |number| node.disks.state.pin(pin(number).cid);
    assert!(kept(1).await.unwrap().is_some());
    assert!(kept(2).await.unwrap().is_none(), "the planted lie must lose the write, or this double proves nothing");
}

#[tokio::test(start_paused = true)]
async fn a_removed_peer_learns_it_and_a_wiped_one_gets_a_new_id() {
    let net = MemNet::new(5);
    let mut nodes = three(&net).await;
    let gone = nodes.pop().unwrap();
    let old_id = gone.consensus.node_id;
    nodes[0].consensus.remove_peer(gone.peer()).await.unwrap();
    let mut position = gone.consensus.position();
    tokio::time::timeout(LIMIT, position.wait_for(|position| position.removed)).await.unwrap().unwrap();
    let peer = gone.peer();
    drop(gone.crash().await);
    let back = start(&net, peer, fresh_disks(), &[nodes[0].peer()]).await.unwrap();
    assert!(back.consensus.node_id > old_id, "raft ids are never used twice");
    back.pin(7).await.unwrap();
    assert_equal(&[&nodes[0], &nodes[1], &back]).await;
}

#[tokio::test(start_paused = true)]
async fn leadership_is_handed_over_on_request() {
    let net = MemNet::new(6);
    let nodes = three(&net).await;
    let all: Vec<&TestNode> = nodes.iter().collect();
    let old = leader_among(&all).await;
    old.consensus.hand_over().await;
    let new = leader_among(&all.iter().copied().filter(|node| node.peer() != old.peer()).collect::<Vec<_>>()).await;
    new.pin(1).await.unwrap();
    assert_equal(&all).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_restarts_does_not_go_on_in_its_old_term() {
    let net = MemNet::new(7);
    let mut nodes = three(&net).await;
    let old = leader_among(&nodes.iter().collect::<Vec<_>>()).await.peer();
    let place = nodes.iter().position(|node| node.peer() == old).unwrap();
    let before = nodes[place].pin(1).await.unwrap();
    let disks = nodes.remove(place).crash().await;
    let again = start(&net, old, disks, &[]).await.unwrap();
    let after = again.pin(2).await.unwrap();
    assert!(term(&after) > term(&before), "it may have sent entries that it lost, and must not fill their places");
}

/// Few entries between two snapshots, so that peers need one.
fn often() -> LogSettings {
    LogSettings { snapshot_every: 20, ..settings() }
}

/// Pins until nobody's log reaches back to what `disks` have.
async fn leave_behind(nodes: &[&TestNode], disks: &Disks, numbers: std::ops::Range<u32>) {
    for number in numbers {
        nodes[0].pin(number).await.unwrap();
    }
    let last = disks.log.extent(false).last;
    for node in nodes {
        let purged = async {
            while node.disks.log.extent(false).purged <= last {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LIMIT, purged).await.expect("the log is purged");
    }
}

async fn received_shards(node: &TestNode) -> usize {
    let (shards, _applied) = node.disks.state.shards().await.unwrap();
    shards.iter().filter(|shard| shard.tail_from > 0).count()
}

/// What is replicated beside pins.
async fn annex(disks: &Disks) -> Vec<AnnexRow> {
    disks.state.annex().try_concat().await.unwrap()
}

/// Outcomes that nobody else remembers, in a window that is over and in the next one.
async fn misremember(disks: &Disks) {
    let window = AppliedPosition::decode(disks.state.applied().await.unwrap().as_ref()).unwrap().window;
    let key = |window| RequestKey { window, id: [9; 16] };
    let outcomes = [0, window, window + 1].map(|window| (key(window), bytes::Bytes::from_static(&[0]))).to_vec();
    let changes = Changes { outcomes, ..Changes::default() };
    disks.state.update(Box::new(|_view| Ok(changes))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_fell_behind_the_log_or_is_new_catches_up_by_shards() {
    let net = MemNet::new(8);
    let mut nodes = several(&net, 3, often()).await;
    for number in 0..200 {
        nodes[0].pin(number).await.unwrap();
    }
    assert_equal(&nodes.iter().collect::<Vec<_>>()).await;
    let away = nodes.pop().unwrap();
    let peer = away.peer();
    let disks = away.crash().await;
    misremember(&disks).await;
    leave_behind(&nodes.iter().collect::<Vec<_>>(), &disks, 190..300).await;
    let back = start_with(&net, peer, disks, &[], often()).await.unwrap();
    assert_equal(&[&nodes[0], &nodes[1], &back]).await;
    assert_eq!(annex(&back.disks).await, annex(&nodes[0].disks).await, "what was remembered wrongly is gone");
    let received = received_shards(&back).await;
    assert!((1..150).contains(&received), "{received} shards were received: those that changed");
    let fresh = start_with(&net, PeerId::random(), fresh_disks(), &[nodes[0].peer()], often()).await.unwrap();
    fresh.pin(1_000).await.unwrap();
    assert_equal(&[&nodes[0], &nodes[1], &back, &fresh]).await;
    assert_eq!(annex(&fresh.disks).await, annex(&nodes[0].disks).await);
    assert!(received_shards(&fresh).await > 200);
    assert_eq!(*fresh.consensus.progress().borrow(), None);
}

#[tokio::test(start_paused = true)]
async fn a_leader_may_die_while_another_catches_up_and_writes_go_on() {
    let net = MemNet::new(9);
    let mut nodes = several(&net, 3, often()).await;
    let leader = leader_among(&nodes.iter().collect::<Vec<_>>()).await.peer();
    let place = nodes.iter().position(|node| node.peer() != leader).unwrap();
    let away = nodes.remove(place);
    let peer = away.peer();
    let disks = away.crash().await;
    leave_behind(&nodes.iter().collect::<Vec<_>>(), &disks, 0..400).await;
    net.set_delay(Duration::from_millis(100)..Duration::from_millis(200));
    let back = start_with(&net, peer, disks, &[], often()).await.unwrap();
    let mut progress = back.consensus.progress();
    let begun = progress.wait_for(|now| now.is_some_and(|now| now.shards_done > 0));
    tokio::time::timeout(LIMIT, begun).await.expect("it begins").unwrap();
    let place = nodes.iter().position(|node| node.peer() == leader).unwrap();
    let dead = nodes.remove(place);
    net.crash(leader);
    drop(dead.crash().await);
    net.set_delay(Duration::ZERO..Duration::from_millis(5));
    let other = &nodes[0];
    tokio::time::timeout(LIMIT, other.pin(900)).await.expect("two of three are a quorum").unwrap();
    assert_equal(&[other, &back]).await;
    assert_eq!(back.consensus.report().await.unwrap().pins, 401);
}
#[path = "apart_tests.rs"]
mod apart;
