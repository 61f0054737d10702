//! Adds whose destinations are killed on the way: who is told to have the content has every block of it, as a look into the
//! block stores shows; and when nobody is left, nothing is pinned. Adds in shards, with embedded nodes and a real Kubo.
//!
//! `CLUSTER_ADD_ROUNDS` says how many adds lose a destination (default 4). The seed is printed; `CLUSTER_ADD_SEED` replays it.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::Path;

use bytes::Bytes;
use cluster_core::ports::Blockstore;
use cluster_core::unixfs::{identity_data, links, verify};
use cluster_store::BlockStore;
use cluster_tests::kubo::KuboDaemon;
use cluster_tests::process::{NodeKind, ProcessCluster, SETTLE_LIMIT};
use cluster_tests::wait;
use cluster_types::{AddedOutput, Cid, GlobalPinInfo, PeerId, Pin, PinType, TrackerStatus};
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use reqwest::multipart::{Form, Part};

/// Pieces of an upload; a destination is killed before one of them is sent.
const PIECES: usize = 200;
/// Bytes of a piece.
const PIECE: usize = 64 * 1024;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Uploads random bytes; before some pieces are sent, peers are killed. What was told, or the status and text of a refusal.
async fn add(
    cluster: &ProcessCluster,
    query: &str,
    seed: u64,
    kills: &[(usize, usize)],
) -> Result<Vec<AddedOutput>, (u16, String)> {
    let mut chance = StdRng::seed_from_u64(seed);
    let pieces: Vec<Bytes> = (0..PIECES)
        .map(|_| {
            let mut piece = vec![0; PIECE];
            chance.fill_bytes(&mut piece);
            piece.into()
        })
        .collect();
    let form = |kills: Vec<(usize, usize)>, peers: Vec<u32>| {
        let body = futures::stream::iter(pieces.into_iter().enumerate()).map(move |(number, piece)| {
            for (_, peer) in kills.iter().filter(|(before, _)| *before == number) {
                kill_9(peers[*peer]);
            }
            Ok::<_, Infallible>(piece)
        });
        Form::new().part("file", Part::stream(reqwest::Body::wrap_stream(body)).file_name("file"))
    };
    let peers = (0..cluster.peers.len()).map(|peer| cluster.pid(peer).unwrap_or_default()).collect();
    let request = cluster.http(0).post(cluster.url(0, &format!("/add?{query}")));
    let answer = request.multipart(form(kills.to_vec(), peers)).send().await.unwrap();
    let status = answer.status();
    let body = answer.text().await.unwrap();
    // The cluster waits for their end, too.
    for (_, peer) in kills {
        cluster.kill(*peer).unwrap();
    }
    if status.is_success() {
        Ok(body
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {body}")))
            .collect())
    } else {
        Err((status.as_u16(), body))
    }
}

fn kill_9(pid: u32) {
    std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
}

/// How many blocks there are below a root, all of them whole; an error names one that is missing.
async fn blocks_below(store: &BlockStore, root: Cid) -> Result<usize, String> {
    let (mut open, mut seen) = (vec![root], BTreeSet::new());
    while let Some(cid) = open.pop() {
        if !seen.insert(cid.hash_bytes()) {
            continue;
        }
        let data = match identity_data(&cid) {
            Some(data) => Bytes::copy_from_slice(data),
            None => store.get(&cid.hash_bytes()).await.unwrap().ok_or_else(|| format!("{cid} is missing"))?,
        };
        verify(&cid, &data).map_err(|error| error.to_string())?;
        open.extend(links(&cid, &data).unwrap());
    }
    Ok(seen.len())
}

/// Looks into the block store of a peer that does not run.
async fn check_blocks(folder: &Path, roots: &[Cid]) -> usize {
    let store = BlockStore::open(&folder.join("state")).unwrap();
    let mut blocks = 0;
    for root in roots {
        blocks +=
            blocks_below(&store, *root).await.unwrap_or_else(|error| panic!("{}, {root}: {error}", folder.display()));
    }
    store.close().await.unwrap();
    blocks
}

fn number_of(cluster: &ProcessCluster, peer: &PeerId) -> usize {
    (0..cluster.peers.len()).find(|number| cluster.peers[*number].id() == peer.to_string()).unwrap()
}

fn ids(cluster: &ProcessCluster, peers: &[usize]) -> String {
    peers.iter().map(|peer| cluster.peers[*peer].id()).collect::<Vec<_>>().join(",")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_told_to_have_the_content_has_all_of_it_wherever_a_destination_is_killed() {
    let rounds = setting("CLUSTER_ADD_ROUNDS", 4);
    let seed = setting("CLUSTER_ADD_SEED", rand::random::<u32>().into());
    println!("CLUSTER_ADD_ROUNDS={rounds} CLUSTER_ADD_SEED={seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let cluster = ProcessCluster::start(&vec![NodeKind::Embedded; 4]).await.unwrap();
    let mut held: Vec<Vec<Cid>> = vec![Vec::new(); 4];
    for round in 0..rounds {
        // Two, the other of which is here in half of the rounds.
        let victim = chance.random_range(1..4);
        let other = if chance.random_bool(0.5) { 0 } else { victim % 3 + 1 };
        let before = chance.random_range(0..PIECES);
        println!("round {round}: peers {victim} and {other}; {victim} is killed before piece {before}");
        let preferred = ids(&cluster, &[victim, other]);
        let query = format!("name=n{round}&replication-min=2&replication-max=2&user-allocations={preferred}");
        let outputs = add(&cluster, &query, seed + round, &[(before, victim)]).await;
        let outputs = outputs.unwrap_or_else(|(status, text)| panic!("round {round}: {status}: {text}"));
        let root = outputs.last().unwrap();
        assert_eq!(root.allocations.len(), 2, "{root:?}");
        for peer in &root.allocations {
            held[number_of(&cluster, peer)].push(root.cid.unwrap());
        }
        cluster.start_peer(victim).await.unwrap();
        cluster.wait_equal().await;
        let pins = cluster.pins(victim).await.unwrap();
        assert!(pins.values().any(|pin| pin.options.name == format!("n{round}")), "it is pinned: {pins:?}");
    }
    for (peer, roots) in held.iter().enumerate() {
        assert_eq!(cluster.stop(peer).await.unwrap(), Some(0));
        let blocks = check_blocks(&cluster.peers[peer].folder, roots).await;
        println!("peer {peer} was told to have {} roots, and has their {blocks} blocks", roots.len());
    }
    assert_eq!(held.iter().map(Vec::len).sum::<usize>() as u64, 2 * rounds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_every_destination_is_killed_the_add_says_so_and_nothing_is_pinned() {
    let seed = setting("CLUSTER_ADD_SEED", rand::random::<u32>().into());
    println!("CLUSTER_ADD_SEED={seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let cluster = ProcessCluster::start(&[NodeKind::Embedded, NodeKind::Embedded, NodeKind::Embedded]).await.unwrap();
    for (number, shard) in ["", "&shard=true&shard-size=4000000"].into_iter().enumerate() {
        let preferred = ids(&cluster, &[1, 2]);
        let query = format!("name=gone&replication-min=2&replication-max=2&user-allocations={preferred}{shard}");
        // What the client goes on sending is read, so that it reads the refusal.
        let kills = [chance.random_range(0..PIECES), chance.random_range(0..PIECES)];
        println!("peers 1 and 2 are killed before pieces {kills:?}{shard}");
        let kills = [(kills[0], 1), (kills[1], 2)];
        let (status, text) = add(&cluster, &query, seed + number as u64, &kills).await.unwrap_err();
        assert_eq!(status, 503, "{text}");
        assert!(text.contains("failed to put block on"), "{text}");
        cluster.start_peer(1).await.unwrap();
        cluster.start_peer(2).await.unwrap();
        cluster.wait_equal().await;
        for peer in 0..3 {
            assert!(cluster.pins(peer).await.unwrap().is_empty(), "peer {peer} has a pin");
        }
    }
    let outputs = add(&cluster, "name=back&replication-min=3&replication-max=3", seed, &[]).await.unwrap();
    assert_eq!(outputs.last().unwrap().allocations.len(), 3, "a later add of the same works");
}

/// Waits until a pin has this status on so many peers.
async fn wait_status(cluster: &ProcessCluster, cid: Cid, status: TrackerStatus, peers: usize) {
    wait::until(&format!("{cid} to be {status} on {peers} peers"), SETTLE_LIMIT, || async {
        let info: GlobalPinInfo =
            cluster.get(1, &format!("/pins/{cid}")).await.map_err(|error| format!("{error:#}"))?;
        let count = info.peer_map.values().filter(|peer| peer.status == status).count();
        if count == peers { Ok(()) } else { Err(format!("{:?}", info.peer_map)) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_in_shards_is_pinned_in_parts_and_goes_as_a_whole() {
    let kubo = KuboDaemon::start().await;
    let third = kubo.as_ref().map_or(NodeKind::Embedded, |kubo| NodeKind::Kubo(kubo.rpc().to_owned()));
    let cluster = ProcessCluster::start(&[NodeKind::Embedded, NodeKind::Embedded, third]).await.unwrap();
    let query = "name=big&replication-min=2&replication-max=2&shard=true&shard-size=4000000";
    let outputs = add(&cluster, query, 7, &[]).await.unwrap();
    let names: Vec<_> = outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(names, ["file", "shard-0", "shard-1", "shard-2", "shard-3", "big-clusterDAG"]);
    let root = outputs[0].cid.unwrap();
    cluster.wait_equal().await;
    let pins = cluster.pins(1).await.unwrap();
    assert_eq!(pins.len(), 6, "{pins:?}");
    for output in &outputs[1..5] {
        let pin: &Pin = &pins[&output.cid.unwrap().to_string()];
        assert_eq!((pin.kind, pin.allocations.len(), &pin.allocations), (PinType::Shard, 2, &output.allocations));
        wait_status(&cluster, pin.cid, TrackerStatus::Pinned, 2).await;
    }
    let cluster_dag = outputs[5].cid.unwrap();
    assert_eq!(pins[&cluster_dag.to_string()].kind, PinType::ClusterDag);
    wait_status(&cluster, cluster_dag, TrackerStatus::Pinned, 3).await;
    wait_status(&cluster, root, TrackerStatus::Sharded, 3).await;

    let refused = cluster.http(1).delete(cluster.url(1, &format!("/pins/{}", outputs[2].cid.unwrap()))).send().await;
    let refused = refused.unwrap().text().await.unwrap();
    assert!(refused.contains("cannot unpin a shard directly"), "{refused}");
    // Asked of another peer than the one that added it.
    let gone = cluster.http(1).delete(cluster.url(1, &format!("/pins/{root}"))).send().await.unwrap();
    assert!(gone.status().is_success(), "{}", gone.text().await.unwrap());
    cluster.wait_equal().await;
    assert!(cluster.pins(0).await.unwrap().is_empty());
    for cid in [outputs[1].cid.unwrap(), cluster_dag] {
        wait_status(&cluster, cid, TrackerStatus::Unpinned, 3).await;
    }
}
