//! Who may found a cluster, and who joins.

use super::*;
use crate::testing::mem_net::MemNet;

fn peers(count: usize) -> Vec<PeerId> {
    let mut peers: Vec<PeerId> = (0..count).map(|_| PeerId::random()).collect();
    peers.sort_unstable();
    peers
}

fn told(standings: &[(PeerId, Standing)]) -> BTreeMap<PeerId, Standing> {
    standings.iter().copied().collect()
}

#[test]
fn only_the_first_founds_and_only_with_most_of_them() {
    let all = peers(4);
    let founders: BTreeSet<PeerId> = all.iter().copied().collect();
    let waits = |peers: &[PeerId]| told(&peers.iter().map(|peer| (*peer, Standing::Waits)).collect::<Vec<_>>());
    assert_eq!(decide(all[0], &founders, &waits(&all[1..3])), Some(Gathered::Found), "three of four");
    assert_eq!(decide(all[0], &founders, &waits(&all[1..2])), None, "two of four are not most");
    assert_eq!(decide(all[1], &founders, &waits(&[all[0], all[2], all[3]])), None, "another one is the first");
    let apart = told(&[(all[1], Standing::Other), (all[2], Standing::Other), (all[3], Standing::Waits)]);
    assert_eq!(decide(all[0], &founders, &apart), None, "who waits for others does not count");
    let alone = BTreeSet::from([all[0]]);
    assert_eq!(decide(all[0], &alone, &BTreeMap::new()), Some(Gathered::Found));
}

#[test]
fn whoever_finds_a_cluster_joins_it() {
    let all = peers(3);
    let founders: BTreeSet<PeerId> = all.iter().copied().collect();
    let told = told(&[(all[1], Standing::Member), (all[2], Standing::Waits)]);
    assert_eq!(
        decide(all[0], &founders, &told),
        Some(Gathered::Join(vec![all[1]])),
        "also the first: it lost its disk"
    );
    assert_eq!(decide(all[2], &founders, &told), Some(Gathered::Join(vec![all[1]])));
}

/// A peer that serves calls in a network, and knows the others.
fn join(net: &MemNet, peer: PeerId, all: &[PeerId]) -> (Arc<dyn Transport>, Arc<CallServer>) {
    let network = net.peer(peer);
    let server = Arc::new(CallServer::default());
    network.serve(Arc::clone(&server) as _);
    for other in all.iter().filter(|other| **other != peer) {
        network.remember(*other, vec![net.address_of(*other)]);
    }
    (network as _, server)
}

#[tokio::test(start_paused = true)]
async fn the_first_founds_when_another_one_of_three_waits() {
    let (net, all) = (MemNet::new(1), peers(3));
    let founders: BTreeSet<PeerId> = all.iter().copied().collect();
    let (first, first_server) = join(&net, all[0], &all);
    let alone = tokio::time::timeout(ASK_EVERY * 30, gather(&first, &first_server, founders.clone())).await;
    assert!(alone.is_err(), "one of three founds nothing");
    let (second, second_server) = join(&net, all[1], &all);
    let (gathered, other) = tokio::join!(
        gather(&first, &first_server, founders.clone()),
        tokio::time::timeout(ASK_EVERY * 30, gather(&second, &second_server, founders.clone())),
    );
    assert_eq!(gathered, Gathered::Found);
    assert!(other.is_err(), "nobody belongs to a cluster yet");
    // A peer that waits for others than these is none of them.
    let few = BTreeSet::from([all[0], all[1]]);
    second_server.serve_calls(Arc::new(Waiting { founders: few }));
    let apart = tokio::time::timeout(ASK_EVERY * 30, gather(&first, &first_server, founders)).await;
    assert!(apart.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_waits_says_so_to_whoever_asks_for_more() {
    let (net, all) = (MemNet::new(1), peers(2));
    let (_first, server) = join(&net, all[0], &all);
    server.serve_calls(Arc::new(Waiting { founders: all.iter().copied().collect() }));
    let (second, _server) = join(&net, all[1], &all);
    let error = PeerClient::new(Arc::clone(&second)).ask(all[0], &Call::Id, ASK_TIMEOUT).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert!(error.message.contains("init_peerset"), "{error}");
}
