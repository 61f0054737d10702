//! Somebody who knows the secret claims to belong to a large cluster, so that members leave theirs for it.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::apart::accepting;
use super::*;
use crate::cluster::meet::ClusterInfo;

/// Long enough for some looks of every member.
const LOOKS: usize = 12;

/// Says the same of its cluster to everybody, and welcomes all.
struct Liar {
    says: ClusterInfo,
    asked: AtomicUsize,
}

#[async_trait]
impl PeerService for Liar {
    async fn answer(&self, _from: PeerId, call: Call) -> Result<Reply, WireError> {
        let Call::Meet { .. } = call else { return Err(WireError::new(ErrorClass::Invalid, "it only lies")) };
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(Reply::Cluster { cluster: Some(self.says.clone()), welcome: true })
    }

    fn is_member(&self, _peer: &PeerId) -> bool {
        false
    }

    fn trusts(&self, _peer: &PeerId) -> bool {
        true
    }
}

/// How a node knows its cluster.
pub(super) fn meet(consensus: &Arc<LogConsensus>, disks: &Disks, network: &Arc<MemPeer>, trust: Trust) -> Arc<Meeting> {
    Meeting::new(Arc::clone(consensus), Arc::clone(&disks.state) as _, Arc::clone(network) as _, trust)
}

/// Connects a peer to `nodes` that claims a cluster of `members`, and names `names` and itself.
fn liar(net: &MemNet, nodes: &[TestNode], id: u64, members: u64, names: &[PeerId]) -> (Arc<MemPeer>, Arc<Liar>) {
    let network = net.peer(PeerId::random());
    let named = |peer: &PeerId| crate::cluster::Named { peer: *peer, addresses: net.peer(*peer).own_addresses() };
    let says = ClusterInfo {
        id,
        name: settings().cluster_name,
        node_id: id,
        members,
        pins: u64::MAX,
        sociable: true,
        addresses: network.own_addresses(),
        remnant: false,
        peers: names.iter().chain([&network.local_peer()]).map(named).collect(),
    };
    let liar = Arc::new(Liar { says, asked: AtomicUsize::new(0) });
    let server = Arc::new(CallServer::default());
    server.serve_calls(Arc::clone(&liar) as _);
    network.serve(server);
    for node in nodes {
        network.remember(node.peer(), node.network.own_addresses());
        node.network.remember(network.local_peer(), network.own_addresses());
    }
    (network, liar)
}

async fn asked(liar: &Liar, times: usize) {
    let enough = async {
        while liar.asked.load(Ordering::Relaxed) < times {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(LIMIT * 10, enough).await.expect("everybody looks around");
}

fn assert_nobody_leaves(nodes: &[TestNode]) {
    for node in nodes {
        assert_eq!(*node.meeting.to_join().borrow(), None, "on the word of one");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_leaves_a_cluster_on_the_word_of_one_stranger() {
    let net = MemNet::new(41);
    let nodes = several(&net, 3, accepting()).await;
    let absent: Vec<PeerId> = (0..8).map(|_| PeerId::random()).collect();
    let members: Vec<PeerId> = nodes.iter().map(TestNode::peer).collect();
    // It is alone; names peers that nobody knows; names the members themselves.
    let liars =
        [liar(&net, &nodes, 7, u64::MAX, &[]), liar(&net, &nodes, 8, 9, &absent), liar(&net, &nodes, 9, 4, &members)];
    for node in &nodes {
        node.meeting.start(&node.tasks);
    }
    for (_network, liar) in &liars {
        asked(liar, LOOKS).await;
    }
    assert_nobody_leaves(&nodes);
    assert_ne!(nodes[0].pin(1).await.unwrap().commit, Commit::Eventual, "they still are a quorum");
}

#[tokio::test(start_paused = true)]
async fn nobody_joins_a_stranger_who_speaks_in_the_name_of_a_larger_cluster() {
    let net = MemNet::new(42);
    let large = several(&net, 3, accepting()).await;
    let small = several(&net, 1, accepting()).await;
    let (id, _name) = large[0].consensus.cluster().await.unwrap();
    let members: Vec<PeerId> = large.iter().map(TestNode::peer).collect();
    // All that it says is true, but that it is a member: a follower could say so.
    let (_network, liar) = liar(&net, &small, id, 4, &members);
    for node in &small {
        node.meeting.start(&node.tasks);
    }
    let hosts: Vec<_> = large.iter().map(|node| node.network.own_addresses()).collect();
    for node in &small {
        let addresses = told_to_join(&node.meeting).await;
        assert!(hosts.contains(&addresses), "those that it named were met, and are members: {addresses:?}");
    }
    assert!(liar.asked.load(Ordering::Relaxed) > 0);
}

async fn told_to_join(meeting: &Meeting) -> Vec<cluster_types::Multiaddr> {
    let mut to_join = meeting.to_join();
    let told = tokio::time::timeout(LIMIT * 10, to_join.wait_for(Option::is_some)).await;
    told.expect("in time").unwrap();
    to_join.borrow().clone().unwrap()
}

#[tokio::test(start_paused = true)]
async fn who_is_not_trusted_is_not_asked() {
    let net = MemNet::new(43);
    let nodes = several(&net, 1, accepting()).await;
    // A cluster of one would believe either.
    let (doubtful, ignored) = liar(&net, &nodes, 7, 1, &[]);
    let (friend, heard) = liar(&net, &nodes, 8, 1, &[]);
    let node = &nodes[0];
    let trust = Trust::Only([friend.local_peer()].into());
    let meeting = meet(&node.consensus, &node.disks, &node.network, trust);
    meeting.start(&node.tasks);
    assert_eq!(told_to_join(&meeting).await, heard.says.addresses);
    assert!(node.network.connected().contains(&doubtful.local_peer()));
    assert_eq!(ignored.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn who_could_not_join_stays_for_a_while() {
    let net = MemNet::new(44);
    let nodes = several(&net, 1, accepting()).await;
    let (_network, _liar) = liar(&net, &nodes, 8, 1, &[]);
    let (began, pause) = (tokio::time::Instant::now(), Duration::from_secs(300));
    nodes[0].meeting.stay(pause);
    nodes[0].meeting.start(&nodes[0].tasks);
    told_to_join(&nodes[0].meeting).await;
    assert!(began.elapsed() >= pause, "{:?}", began.elapsed());
}
