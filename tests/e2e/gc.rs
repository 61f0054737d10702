//! Garbage is collected all the time while content is added, pinned from another node and unpinned: no block of what is pinned is
//! ever missing. The DAGs share blocks, so that what one unpin leaves behind is needed by others.
//!
//! `CLUSTER_GC_SECONDS` says for how long (default 8). The seed is printed; `CLUSTER_GC_SEED` replays its choices.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cluster_tests::process::{NodeKind, ProcessCluster, SETTLE_LIMIT};
use cluster_tests::wait;
use cluster_types::{AddedOutput, Cid, GlobalPinInfo, GlobalRepoGc, TrackerStatus};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use reqwest::multipart::{Form, Part};
use tokio::time::Instant;

/// Peers, each with an embedded node.
const PEERS: usize = 2;
/// Bytes of a chunk.
const CHUNK: usize = 16 * 1024;
/// Different chunks; files are made of them.
const CHUNKS: usize = 64;
/// The most chunks of a file.
const MOST: usize = 60;
/// How many pins are there at most.
const PINNED: usize = 40;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

struct World {
    cluster: ProcessCluster,
    nodes: Vec<reqwest::Client>,
    chunks: Vec<Bytes>,
    /// What is pinned, and on which peers; who takes one out may unpin it.
    pinned: Mutex<BTreeMap<Cid, Vec<usize>>>,
    end: Instant,
    removed: AtomicU64,
    adds: AtomicU64,
    checks: AtomicU64,
}

impl World {
    fn goes_on(&self) -> bool {
        Instant::now() < self.end
    }

    /// Collects garbage on all peers, again and again.
    async fn collect(&self) {
        while self.goes_on() {
            let answer = self.cluster.http(0).post(self.cluster.url(0, "/ipfs/gc")).send().await.unwrap();
            let collected: GlobalRepoGc = answer.json().await.unwrap();
            for gc in collected.peer_map.values() {
                assert_eq!(gc.error, "");
                self.removed.fetch_add(gc.keys.len() as u64, Ordering::Relaxed);
            }
        }
    }

    /// Adds files made of chunks that others have, too; half of them on one peer only, from which the others fetch it.
    async fn add(&self, mut chance: StdRng) {
        while self.goes_on() {
            // A chunk of its own makes it a new one; without any it may be one that is pinned, or was.
            let mut pieces: Vec<Bytes> = Vec::new();
            for _ in 0..chance.random_range(1..MOST) {
                pieces.push(self.chunks[chance.random_range(0..CHUNKS)].clone());
            }
            if chance.random_bool(0.8) {
                pieces.push(random_chunk(&mut chance));
            }
            let peer = chance.random_range(0..PEERS);
            let everywhere = chance.random_bool(0.5);
            let id = self.cluster.peers[peer].id();
            let query = if everywhere {
                "replication=-1".to_owned()
            } else {
                format!("replication-min=1&replication-max=1&user-allocations={id}")
            };
            // Piece by piece, so that it is in flight while garbage is collected.
            let body = futures::stream::unfold(pieces.into_iter(), |mut pieces| async {
                tokio::task::yield_now().await;
                Some((Ok::<_, Infallible>(pieces.next()?), pieces))
            });
            let form = Form::new().part("file", Part::stream(reqwest::Body::wrap_stream(body)).file_name("file"));
            let url = self.cluster.url(peer, &format!("/add?{query}&chunker=size-{CHUNK}&stream-channels=false"));
            let answer = self.cluster.http(peer).post(url).multipart(form).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            let added: Vec<AddedOutput> = answer.json().await.unwrap();
            let cid = added.last().unwrap().cid.unwrap();
            self.adds.fetch_add(1, Ordering::Relaxed);
            self.check(cid, peer).await;
            if !everywhere {
                let url = self.cluster.url(peer, &format!("/pins/{cid}?replication=-1"));
                assert_eq!(self.cluster.http(peer).post(url).send().await.unwrap().status(), 200);
            }
            if self.settled(cid).await {
                self.pinned.lock().insert(cid, (0..PEERS).collect());
            }
            self.unpin_some(&mut chance).await;
        }
    }

    /// Waits until a pin is on all peers; whether it still is there: the same content may have been unpinned as another add.
    async fn settled(&self, cid: Cid) -> bool {
        wait::until("a pin to settle", SETTLE_LIMIT, || async {
            let status: GlobalPinInfo = self.cluster.get(0, &format!("/pins/{cid}")).await.unwrap();
            let all = |wanted| status.peer_map.values().all(|info| info.status == wanted);
            if all(TrackerStatus::Pinned) {
                return Ok(true);
            }
            if all(TrackerStatus::Unpinned) { Ok(false) } else { Err(status) }
        })
        .await
    }

    async fn unpin_some(&self, chance: &mut StdRng) {
        while self.pinned.lock().len() > PINNED || chance.random_bool(0.3) {
            let taken = {
                let mut pinned = self.pinned.lock();
                let place = chance.random_range(0..pinned.len().max(1));
                let cid = pinned.keys().nth(place).copied();
                cid.and_then(|cid| pinned.remove_entry(&cid))
            };
            let Some((cid, _)) = taken else { return };
            let status =
                self.cluster.http(0).delete(self.cluster.url(0, &format!("/pins/{cid}"))).send().await.unwrap();
            assert!([200, 404].contains(&status.status().as_u16()), "{}", status.status());
        }
    }

    /// Looks at what is pinned, one after the other.
    async fn look(&self, mut chance: StdRng) {
        while self.goes_on() {
            let held = {
                let mut pinned = self.pinned.lock();
                let place = chance.random_range(0..pinned.len().max(1));
                let cid = pinned.keys().nth(place).copied();
                // Nobody unpins it meanwhile.
                cid.and_then(|cid| pinned.remove_entry(&cid))
            };
            let Some((cid, peers)) = held else {
                tokio::task::yield_now().await;
                continue;
            };
            for peer in &peers {
                self.check(cid, *peer).await;
            }
            self.pinned.lock().insert(cid, peers);
        }
    }

    /// Every block of a DAG is in the store of a peer's node, which is not to ask others.
    async fn check(&self, cid: Cid, peer: usize) {
        let url = format!("http://node/api/v0/dag/export?arg={cid}&offline=true&progress=false");
        let answer = self.nodes[peer].post(url).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{cid} on peer {peer}");
        let whole = answer.bytes().await;
        if let Err(error) = whole {
            let status: GlobalPinInfo = self.cluster.get(0, &format!("/pins/{cid}")).await.unwrap();
            // The same content may have been added a second time and unpinned as that.
            let is_pinned = status.peer_map.values().any(|info| info.status == TrackerStatus::Pinned);
            assert!(!is_pinned, "a block of {cid} is missing on peer {peer}: {error}; {status:?}");
        }
        self.checks.fetch_add(1, Ordering::Relaxed);
    }
}

fn random_chunk(chance: &mut StdRng) -> Bytes {
    let mut chunk = vec![0; CHUNK];
    chance.fill_bytes(&mut chunk);
    chunk.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_block_of_what_is_pinned_is_ever_collected() {
    let seconds = setting("CLUSTER_GC_SECONDS", 8);
    let seed = setting("CLUSTER_GC_SEED", rand::random::<u32>().into());
    println!("CLUSTER_GC_SECONDS={seconds} CLUSTER_GC_SEED={seed}");
    let cluster = ProcessCluster::start(&vec![NodeKind::Embedded; PEERS]).await.unwrap();
    let socket = |peer: usize| cluster.peers[peer].folder.join("ipfs-api.sock");
    let node = |peer| reqwest::Client::builder().unix_socket(socket(peer)).build().unwrap();
    let nodes = (0..PEERS).map(node).collect();
    let mut chance = StdRng::seed_from_u64(seed);
    let chunks = (0..CHUNKS).map(|_| random_chunk(&mut chance)).collect();
    let end = Instant::now() + Duration::from_secs(seconds);
    let (removed, adds, checks) = Default::default();
    let world = Arc::new(World { cluster, nodes, chunks, pinned: Mutex::default(), end, removed, adds, checks });
    let mut work = tokio::task::JoinSet::new();
    let (one, other) = (Arc::clone(&world), Arc::clone(&world));
    work.spawn(async move { one.collect().await });
    work.spawn(async move { other.look(StdRng::seed_from_u64(seed ^ 1)).await });
    for number in 2..5 {
        let world = Arc::clone(&world);
        work.spawn(async move { world.add(StdRng::seed_from_u64(seed ^ number)).await });
    }
    while let Some(ended) = work.join_next().await {
        ended.unwrap();
    }
    let pinned = world.pinned.lock().clone();
    for (cid, peers) in &pinned {
        for peer in peers {
            world.check(*cid, *peer).await;
        }
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (removed, adds, checks) = (count(&world.removed), count(&world.adds), count(&world.checks));
    println!("{adds} adds, {checks} checks, {removed} blocks collected, {} pinned at the end", pinned.len());
    assert!(adds > 0 && checks > adds && removed > 0, "{adds} adds, {checks} checks, {removed} blocks collected");
}
