//! One peer of three alone, in `crdt` mode: it works on, and what it did is merged by the rules of `docs/merge.md`.

use cluster_core::testing::linear::Told;
use cluster_tests::process::{Mode, ProcessCluster, SETTLE_LIMIT};
use cluster_tests::wait;
use cluster_types::{GlobalPinInfo, Pin, TrackerStatus};
use futures::future::join_all;

use super::TURN_LIMIT;
use super::ledger::Wish;
use super::load::ask;
use crate::client::{Commit, Heard, inline_cid, pin, read, unpin};

/// How often it is given work.
const WAVES: u64 = 3;
/// Writes of a wave, at once.
const WAVE: u64 = 20;
/// CIDs that both sides of the cut touch, all pinned before it. What each is about:
const REPINNED_AND_UNPINNED: u64 = 1 << 61;
const UNPINNED_AND_REPINNED: u64 = REPINNED_AND_UNPINNED + 1;
const REPINNED_TWICE: u64 = REPINNED_AND_UNPINNED + 2;
const UNPINNED_TWICE: u64 = REPINNED_AND_UNPINNED + 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_peer_of_a_lost_majority_keeps_working() {
    let Some(cluster) = ProcessCluster::start_apart(Mode::Crdt, 3, &[]).await.unwrap() else { return };
    for number in REPINNED_AND_UNPINNED..=UNPINNED_TWICE {
        assert_eq!(pin(&cluster, 0, &inline_cid(number), "0").await, Told::Pinned);
    }
    cluster.wait_equal().await;
    // The harder half: it led, and has to notice that nobody follows any more.
    let lone = cluster.leader().await.unwrap();
    let others = [(lone + 1) % 3, (lone + 2) % 3];
    cluster.cut(&[&others, &[lone]]).unwrap();
    wait_eventual(&cluster, lone).await;
    for wave in 0..WAVES {
        work(&cluster, lone, wave).await;
    }
    contradict(&cluster, lone, others[0]).await;
    let owed = cluster.state(lone).await.unwrap().eventual;
    cluster.kill(lone).unwrap();
    cluster.start_peer_alone(lone).await.unwrap();
    assert_eq!(cluster.state(lone).await.unwrap().eventual, owed, "a kill changes nothing");
    let alone = cluster.pins(lone).await.unwrap();
    cluster.heal().unwrap();
    let state = cluster.wait_equal().await;
    println!("{owed} writes of a lone peer were merged; {} pins and digest {} on all", state.pins, state.digest);
    for peer in 0..3 {
        let pins = cluster.pins(peer).await.unwrap();
        let name = |number: u64| pins.get(&inline_cid(number).to_string()).map(|pin| pin.options.name.clone());
        for number in 0..WAVES * WAVE {
            let wished = alone.get(&inline_cid(number).to_string()).map(|pin| pin.options.name.clone());
            assert_eq!(name(number), wished, "CID {number} on peer {peer}");
        }
        assert_eq!(name(REPINNED_AND_UNPINNED).as_deref(), Some("3"), "a pin beats a concurrent unpin");
        assert_eq!(name(UNPINNED_AND_REPINNED).as_deref(), Some("6"), "a pin beats a concurrent unpin");
        assert_eq!(name(REPINNED_TWICE).as_deref(), Some("9"), "the newer of two pins stands");
        assert_eq!(name(UNPINNED_TWICE), None, "both unpinned it");
    }
}

/// The first write may be caught while the leader does not know yet that it is alone.
async fn wait_eventual(cluster: &ProcessCluster, lone: usize) {
    wait::until("an eventual write", TURN_LIMIT, || async {
        let heard = ask(cluster, lone, 0, Some(0)).await;
        if heard.commit == Some(Commit::Eventual) { Ok(()) } else { Err(heard) }
    })
    .await;
}

/// Pins, pins otherwise, and unpins, all while alone; each is seen at once and carried out.
async fn work(cluster: &ProcessCluster, lone: usize, wave: u64) {
    let numbers: Vec<u64> = (wave * WAVE..(wave + 1) * WAVE).collect();
    let (others, gone) = numbers.split_at(numbers.len() / 2);
    write_all(cluster, lone, &numbers, |number| Some(number * 3)).await;
    write_all(cluster, lone, others, |number| Some(number * 3 + 3)).await;
    write_all(cluster, lone, gone, |_number| None).await;
    for number in others {
        assert_eq!(read(cluster, lone, &inline_cid(*number), true).await, Told::Found(number * 3 + 3));
    }
    for number in gone {
        assert_eq!(read(cluster, lone, &inline_cid(*number), true).await, Told::Nothing);
    }
    for number in others {
        let path = format!("/pins/{}?local=true", inline_cid(*number));
        wait::until("the pin on the lone peer's node", SETTLE_LIMIT, || async {
            let info: GlobalPinInfo = cluster.get(lone, &path).await.map_err(|error| format!("{error:#}"))?;
            let statuses: Vec<TrackerStatus> = info.peer_map.values().map(|pin| pin.status).collect();
            if statuses == [TrackerStatus::Pinned] { Ok(()) } else { Err(format!("{statuses:?}")) }
        })
        .await;
    }
}

/// All at once, because each of them takes the time that a quorum is given.
async fn write_all(cluster: &ProcessCluster, lone: usize, numbers: &[u64], wish: impl Fn(u64) -> Wish) {
    let heard: Vec<Heard> = join_all(numbers.iter().map(|number| ask(cluster, lone, *number, wish(*number)))).await;
    for (number, heard) in numbers.iter().zip(heard) {
        assert_eq!(heard.commit, Some(Commit::Eventual), "CID {number}: {heard:?}");
    }
}

/// Both sides of the cut want different things of the same CIDs.
async fn contradict(cluster: &ProcessCluster, lone: usize, other: usize) {
    write_all(cluster, lone, &[REPINNED_AND_UNPINNED, REPINNED_TWICE], |number| {
        Some(if number == REPINNED_TWICE { 12 } else { 3 })
    })
    .await;
    write_all(cluster, lone, &[UNPINNED_AND_REPINNED, UNPINNED_TWICE], |_number| None).await;
    for number in [REPINNED_AND_UNPINNED, UNPINNED_TWICE] {
        assert_eq!(unpin(cluster, other, &inline_cid(number)).await, Told::Unpinned(0), "the majority's side goes on");
    }
    let heard = ask(cluster, other, UNPINNED_AND_REPINNED, Some(6)).await;
    assert_eq!((heard.told, heard.commit), (Told::Pinned, Some(Commit::Log)));
    // Times have whole seconds: it is repeated until it is the newer one.
    let path = format!("/allocations/{}", inline_cid(REPINNED_TWICE));
    let older: Pin = cluster.get(lone, &path).await.unwrap();
    wait::until("a newer pin", TURN_LIMIT, || async {
        let heard = ask(cluster, other, REPINNED_TWICE, Some(9)).await;
        let newer: Pin = cluster.get(other, &path).await.map_err(|error| format!("{error:#}"))?;
        if newer.timestamp > older.timestamp { Ok(()) } else { Err(format!("{heard:?}: {newer:?}")) }
    })
    .await;
}
