//! In `crdt` mode both sides of a cut go on, through kills on both, and nothing acknowledged is lost when it heals.

use std::time::Duration;

use cluster_core::testing::linear::Told;
use cluster_tests::process::{Mode, SETTLE_LIMIT};
use cluster_tests::wait;
use cluster_types::{GlobalPinInfo, TrackerStatus};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::load::{World, ask, judge, writers};
use super::{PEERS, TURN_LIMIT, setting};
use crate::client::{Commit, inline_cid, read};

/// Writers of CIDs of their own at each peer.
const WRITERS: usize = 3;
/// Numbers of CIDs that are looked at one by one; those of the writers are below.
const FIRST_PROBE: u64 = 1 << 61;

/// What happens to whom in one round.
#[derive(Debug)]
struct Plan {
    /// Three peers. The first is killed and started during the cut.
    majority: Vec<usize>,
    /// Whether that one stays down until the cut has healed: then no side has a quorum.
    majority_loses_one: bool,
    /// Two peers. The first is killed while it has eventual writes.
    minority: Vec<usize>,
    /// Whether that one stays down until the cut has healed.
    minority_loses_one: bool,
}

impl Plan {
    fn draw(round: u64, chance: &mut StdRng) -> Self {
        let mut peers: Vec<usize> = (0..PEERS).collect();
        peers.shuffle(chance);
        let minority = peers.split_off(3);
        // In turn, so that the shortest run does both.
        let minority_loses_one = round % 2 == 1;
        Self { majority: peers, majority_loses_one: chance.random_bool(0.25), minority, minority_loses_one }
    }

    /// Those that are up at the end of the cut, of each side.
    fn survivors(&self) -> (&[usize], &[usize]) {
        (&self.majority[usize::from(self.majority_loses_one)..], &self.minority[usize::from(self.minority_loses_one)..])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_both_sides_of_a_cut_acknowledged_is_there_when_it_heals() {
    let rounds = setting("CLUSTER_PARTITION_ROUNDS", 2);
    let seed = setting("CLUSTER_PARTITION_SEED", rand::random::<u32>().into());
    println!("CLUSTER_PARTITION_ROUNDS={rounds} CLUSTER_PARTITION_SEED={seed}");
    let Some(world) = World::start(Mode::Crdt, &[]).await else { return };
    let mut writers = writers(WRITERS, seed);
    let mut chance = StdRng::seed_from_u64(seed);
    for round in 0..rounds {
        let plan = Plan::draw(round, &mut chance);
        println!("round {round}: {plan:?}");
        let (probe, started) = (FIRST_PROBE + round, Instant::now());
        world.prepare_contest(round).await;
        world.under_load(&mut writers, harm(&world, &plan, probe, &mut chance)).await;
        judge(&world, &writers).await;
        wait_pinned(&world, probe, &Vec::from_iter(0..PEERS)).await;
        println!("round {round} took {:?}", started.elapsed());
    }
}

/// One cut, from a whole cluster to a whole cluster.
async fn harm(world: &World, plan: &Plan, probe: u64, chance: &mut StdRng) {
    let everybody: Vec<usize> = (0..PEERS).collect();
    let started = Instant::now();
    let step = |what: &str| println!("  {:>6.1?} {what}", started.elapsed());
    world.wait_committed(&everybody, 5).await;
    world.cut(&[&plan.majority, &plan.minority]);
    step("cut");
    world.wait_eventual(&plan.minority, 5).await;
    world.wait_committed(&plan.majority, 5).await;
    step("both sides go on");
    try_one(world, plan, probe).await;
    step("a pin is held on its side");
    let pauses = [(); 2].map(|()| Duration::from_millis(chance.random_range(0..300)));
    futures::join!(hit_majority(world, plan, pauses[0]), hit_minority(world, plan, probe, pauses[1]));
    let (majority, minority) = plan.survivors();
    world.wait_eventual(minority, 5).await;
    if plan.majority_loses_one {
        world.wait_eventual(majority, 5).await;
    }
    step("killed on both sides");
    world.heal().await;
    step("healed");
    for peer in everybody.iter().copied().filter(|peer| !world.cluster.is_running(*peer)) {
        world.cluster.start_peer(peer).await.unwrap();
    }
    world.wait_committed(&everybody, 5).await;
    step("all go on");
}

/// An eventual write is seen and carried out on its side of the cut, and not on the other.
async fn try_one(world: &World, plan: &Plan, probe: u64) {
    let (cluster, cid) = (&world.cluster, inline_cid(probe));
    // A serial number whose options say "everywhere".
    let heard = ask(cluster, plan.minority[0], probe, Some(0)).await;
    assert_eq!((heard.told, heard.commit), (Told::Pinned, Some(Commit::Eventual)));
    assert_eq!(read(cluster, plan.minority[0], &cid, true).await, Told::Found(0), "visible at once where it was taken");
    wait::until("the eventual write on the other peer of its side", TURN_LIMIT, || async {
        let told = read(cluster, plan.minority[1], &cid, true).await;
        if told == Told::Found(0) { Ok(()) } else { Err(told) }
    })
    .await;
    wait_pinned(world, probe, &plan.minority).await;
    for peer in &plan.majority {
        assert_eq!(read(cluster, *peer, &cid, true).await, Told::Nothing, "the network is not cut");
    }
}

/// Waits until each of `peers` says that its node holds a pin.
async fn wait_pinned(world: &World, number: u64, peers: &[usize]) {
    let cluster = &world.cluster;
    for peer in peers {
        wait::until("the pin on all peers of the side", SETTLE_LIMIT, || async {
            let path = format!("/pins/{}?local=true", inline_cid(number));
            let info: GlobalPinInfo = cluster.get(*peer, &path).await.map_err(|error| format!("{error:#}"))?;
            let held = info.peer_map.values().all(|pin| pin.status == TrackerStatus::Pinned);
            if held && !info.peer_map.is_empty() { Ok(()) } else { Err(format!("{:?}", info.peer_map)) }
        })
        .await;
    }
}

/// Kills one of three after a pause that decides where in its work it is hit, and two are no quorum of five.
async fn hit_majority(world: &World, plan: &Plan, pause: Duration) {
    let victim = plan.majority[0];
    tokio::time::sleep(pause).await;
    world.cluster.kill(victim).unwrap();
    world.wait_eventual(&plan.majority[1..], 3).await;
    if !plan.majority_loses_one {
        world.cluster.start_peer_alone(victim).await.unwrap();
        world.wait_committed(&plan.majority, 5).await;
    }
}

/// Kills a peer that has acknowledged writes which are in no log.
async fn hit_minority(world: &World, plan: &Plan, probe: u64, pause: Duration) {
    let (cluster, victim) = (&world.cluster, plan.minority[0]);
    let owed = cluster.state(victim).await.unwrap().eventual;
    assert!(owed > 0, "peer {victim} owes nothing, after eventual writes");
    tokio::time::sleep(pause).await;
    cluster.kill(victim).unwrap();
    if !plan.minority_loses_one {
        cluster.start_peer_alone(victim).await.unwrap();
        let owes = cluster.state(victim).await.unwrap().eventual;
        assert!(owes >= owed, "peer {victim} owed {owed} writes before it was killed, and owes {owes} now");
        let told = read(cluster, victim, &inline_cid(probe), true).await;
        assert_eq!(told, Told::Found(0), "an acknowledged write did not survive a kill");
    }
}
