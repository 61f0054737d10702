//! Promise P1 and P2 under kill -9: writers go on while peers are killed and restarted, and in the end every
//! acknowledged write is there and all peers hold the same.
//!
//! `CLUSTER_CRASH_ROUNDS` says how many kills (default 20; the acceptance run takes 200). The seed is printed;
//! `CLUSTER_CRASH_SEED` replays the choice of victims.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cluster_core::testing::linear::Told;
use cluster_tests::process::{NodeKind, ProcessCluster};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::client::{at_least, inline_cid, pin, unpin};

/// Writers at a time.
const WRITERS: u64 = 8;
/// CIDs each writer works on: it is the only one that touches them.
const CIDS_PER_WRITER: usize = 50;

/// What a writer knows of one of its CIDs: every state it may be in.
type Possible = BTreeMap<u64, Vec<Option<u64>>>;

struct Shared {
    cluster: ProcessCluster,
    stop: AtomicBool,
    acknowledged: AtomicU64,
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_kill_9_of_any_peer() {
    let rounds = setting("CLUSTER_CRASH_ROUNDS", 20);
    let seed = setting("CLUSTER_CRASH_SEED", rand::random::<u32>().into());
    println!("CLUSTER_CRASH_ROUNDS={rounds} CLUSTER_CRASH_SEED={seed}");
    let cluster = ProcessCluster::start(&[NodeKind::Embedded, NodeKind::Embedded, NodeKind::Embedded]).await.unwrap();
    let shared = Arc::new(Shared { cluster, stop: AtomicBool::new(false), acknowledged: AtomicU64::new(0) });
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(Arc::clone(&shared), writer, seed));
    }
    let mut chance = StdRng::seed_from_u64(seed);
    for round in 0..rounds {
        let before = shared.acknowledged.load(Ordering::Relaxed);
        let victim = chance.random_range(0..3);
        let pause = Duration::from_millis(chance.random_range(0..300));
        // The length of the pause decides where in its work the victim is hit.
        tokio::time::sleep(pause).await;
        shared.cluster.kill(victim).unwrap();
        let again = shared.cluster.start_peer(victim).await;
        again.unwrap_or_else(|error| panic!("round {round}: {error:#}"));
        let after = shared.acknowledged.load(Ordering::Relaxed);
        if round % 10 == 0 {
            println!("round {round}: peer {victim} was killed; {after} writes acknowledged ({} since)", after - before);
        }
    }
    shared.stop.store(true, Ordering::Relaxed);
    let mut possible = Possible::new();
    while let Some(known) = writers.join_next().await {
        possible.extend(known.unwrap());
    }
    judge(&shared, &possible).await;
}

/// Every peer holds the same, and every CID is in one of the states its writer thinks possible.
async fn judge(shared: &Shared, possible: &Possible) {
    let acknowledged = shared.acknowledged.load(Ordering::Relaxed);
    at_least("acknowledged writes", usize::try_from(acknowledged).unwrap(), 100).unwrap();
    let cluster = &shared.cluster;
    let state = cluster.wait_equal().await;
    for peer in 0..3 {
        let pins = cluster.pins(peer).await.unwrap();
        for (number, states) in possible {
            let found = pins.get(&inline_cid(*number).to_string());
            let serial = found.map(|pin| pin.options.name.parse::<u64>().unwrap());
            assert!(states.contains(&serial), "CID {number} on peer {peer} is {serial:?}, but can only be {states:?}");
        }
        assert_eq!(u64::try_from(pins.len()).unwrap(), state.pins);
    }
    println!("{acknowledged} acknowledged writes; {} pins and digest {} on all peers", state.pins, state.digest);
}

/// Pins and unpins until told to stop; gives what each CID may be. A CID whose state is not known for certain any more
/// is left alone from then on, so that a late effect is never taken for a loss.
async fn write(shared: Arc<Shared>, writer: u64, seed: u64) -> Possible {
    let mut chance = StdRng::seed_from_u64(seed ^ (writer + 1));
    let mut possible = Possible::new();
    let mut fresh = writer << 32;
    let mut at_hand: Vec<u64> = Vec::new();
    let mut serial = writer;
    while !shared.stop.load(Ordering::Relaxed) {
        while at_hand.len() < CIDS_PER_WRITER {
            at_hand.push(fresh);
            fresh += 1;
        }
        let place = chance.random_range(0..at_hand.len());
        let number = at_hand[place];
        let removes = chance.random_bool(0.3);
        let peer = chance.random_range(0..3);
        serial += WRITERS;
        let cid = inline_cid(number);
        let told = if removes {
            unpin(&shared.cluster, peer, &cid).await
        } else {
            pin(&shared.cluster, peer, &cid, &serial.to_string()).await
        };
        let states = possible.entry(number).or_insert_with(|| vec![None]);
        match told {
            Told::Pinned => *states = vec![Some(serial)],
            Told::Unpinned(seen) => {
                assert!(states.contains(&Some(seen)), "CID {number} held {seen}, but can only be {states:?}");
                *states = vec![None];
            }
            Told::Nothing => {
                assert!(states.contains(&None), "CID {number} is gone, but can only be {states:?}");
                *states = vec![None];
            }
            Told::Unknown => {
                states.push(if removes { None } else { Some(serial) });
                at_hand.swap_remove(place);
            }
            // Nobody listens there now; the next choice may be luckier.
            Told::Refused | Told::Found(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
        if matches!(told, Told::Pinned | Told::Unpinned(_) | Told::Nothing) {
            shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
    possible
}
