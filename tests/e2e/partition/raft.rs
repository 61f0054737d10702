//! In `raft` mode the side with the majority goes on; the other one says no to writes, and reads.

use std::time::Duration;

use cluster_core::testing::linear::Told;
use cluster_tests::process::Mode;
use cluster_types::Role;
use tokio::time::Instant;

use super::load::{World, judge, writers};
use super::{PEERS, setting};
use crate::client::{inline_cid, pin, read};

/// Writers of CIDs of their own at each peer.
const WRITERS: usize = 3;
/// The longest a peer may take to say no: the time it looks for a leader (3 s here), the attempt under way (10 s), and room
/// for a busy machine.
const REFUSAL_LIMIT: Duration = Duration::from_secs(30);
/// The longest a local read may take.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// A CID that is pinned before the cut; the numbers of the writers are others.
const KNOWN: u64 = 1 << 61;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_five_peers_cut_in_two_three_go_on_two_refuse_and_all_are_equal_in_the_end() {
    let seed = setting("CLUSTER_PARTITION_SEED", rand::random::<u32>().into());
    println!("CLUSTER_PARTITION_SEED={seed}");
    let variables = [("CLUSTER_RAFT_WAITFORLEADERTIMEOUT", "3s")];
    let Some(world) = World::start(Mode::Raft, &variables).await else { return };
    let mut writers = writers(WRITERS, seed);
    assert_eq!(pin(&world.cluster, 0, &inline_cid(KNOWN), "1").await, Told::Pinned);
    // The second time the leader is among those who lose the quorum, and has to notice.
    for (round, offset) in [(0, 1), (1, 0)] {
        let leader = world.cluster.leader().await.unwrap();
        let minority = [(leader + offset) % PEERS, (leader + offset + 1) % PEERS];
        let majority: Vec<usize> = (0..PEERS).filter(|peer| !minority.contains(peer)).collect();
        println!("peer {leader} leads; {minority:?} are cut off");
        world.prepare_contest(round).await;
        world.under_load(&mut writers, cut_and_heal(&world, &minority, &majority)).await;
        judge(&world, &writers).await;
    }
}

async fn cut_and_heal(world: &World, minority: &[usize], majority: &[usize]) {
    let everybody: Vec<usize> = (0..PEERS).collect();
    world.wait_committed(&everybody, 5).await;
    world.cut(&[majority, minority]);
    let cut = Instant::now();
    world.wait_each("refusals", minority, |then, now| now.refused >= then.refused + 5).await;
    world.wait_committed(majority, 20).await;
    println!("they refuse and the others go on {:?} after the cut", cut.elapsed());
    let before = world.tallies();
    local_reads(world, minority).await;
    world.wait_each("more refusals", minority, |then, now| now.refused >= then.refused + 5).await;
    world.wait_committed(majority, 20).await;
    for (peer, now) in world.tallies().iter().enumerate() {
        if minority.contains(&peer) {
            assert_eq!(now.committed, before[peer].committed, "peer {peer} acknowledged a write without a quorum");
            assert!(now.slowest < REFUSAL_LIMIT, "peer {peer} took {:?} to answer", now.slowest);
        }
    }
    world.heal().await;
    let healed = Instant::now();
    world.wait_committed(&everybody, 5).await;
    println!("all peers take writes again {:?} after the end of the cut", healed.elapsed());
}

/// What needs nobody else is answered as on any other day.
async fn local_reads(world: &World, peers: &[usize]) {
    let cluster = &world.cluster;
    for peer in peers.iter().copied() {
        let reads = async {
            let known = inline_cid(KNOWN);
            assert!(cluster.pins(peer).await.unwrap().contains_key(&known.to_string()));
            assert_eq!(read(cluster, peer, &known, true).await, Told::Found(1));
            let statuses = cluster.http(peer).get(cluster.url(peer, "/pins?local=true")).send().await.unwrap();
            assert!(statuses.text().await.unwrap().contains(&known.to_string()));
            assert_ne!(cluster.state(peer).await.unwrap().role, Role::Learner);
        };
        let done = tokio::time::timeout(READ_LIMIT, reads).await;
        done.unwrap_or_else(|_late| panic!("peer {peer} does not read on its own within {READ_LIMIT:?}"));
    }
}
