//! What catching up costs: bytes, time, memory, and the pace of writers meanwhile.
//!
//! Bytes are those of the swarm's TCP connections, as the kernel counts them, in both directions: what encryption,
//! gossip and everything else takes is in them. They are compared with the least they could be: the records in question,
//! packed in one piece, without names of shards, questions or checks.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_core::consensus::operation::encode_pin;
use cluster_core::crdt::packed::{Change, pack};
use cluster_tests::process::{NodeKind, ProcessCluster};
use cluster_tests::wait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::load::{self, Holders, Load};
use crate::memory::Memory;
use crate::report::{self, Goal};
use crate::{PEERS, setting};

/// Clients that load the pinset.
const CLIENTS: usize = 256;
/// Clients that write while a peer catches up.
const WRITERS: usize = 16;
/// Entries between two snapshots: few, so that the log is gone when a peer comes back.
const SNAPSHOT_EVERY: u64 = 50;
/// How long a peer may take to catch up.
const LIMIT: Duration = Duration::from_secs(900);
/// How long peers may take to be known to each other.
const KNOWN_LIMIT: Duration = Duration::from_secs(60);
/// Windows of the log are about a minute, and outcomes of requests are remembered for four of them.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(330);
/// Longer than a window of the log: what is remembered of requests travels by window, and one measurement is not to take
/// the requests of the one before along.
const WINDOW: Duration = Duration::from_secs(75);
/// How long gossip repeats what was written last to whoever is new: that is no part of catching up.
const GOSSIPED: Duration = Duration::from_secs(15);
/// Pins of which the least number of bytes is found out; it grows with their number.
const SAMPLE: usize = 20_000;

/// Measures and prints.
pub(crate) async fn measure() -> Result<()> {
    let pins = setting("CLUSTER_BENCH_CATCHUP_PINS", 100_000)?;
    let load_time = Duration::from_secs(setting("CLUSTER_BENCH_LOAD_SECONDS", 240)?);
    println!("catching up: {PEERS} peers with {pins} pins, the log is cut every {SNAPSHOT_EVERY} entries");
    let mut bench = Bench::start().await?;
    let all: Vec<usize> = (0..PEERS).collect();
    let loaded = bench.write(CLIENTS, &all, load_time, pins).await?;
    report::line("pins loaded", &format!("{} at {}", loaded.pins(), loaded.pace()));
    if setting("CLUSTER_BENCH_FORGET", 0)? > 0 {
        bench.forget().await?;
    }
    let alone = bench.write(WRITERS, &[0], bench.time, u64::MAX).await?;
    let (fresh, busy) = bench.fresh_while_writing().await?;
    let quiet = bench.fresh().await?;
    bench.report_fresh(&quiet, "a fresh peer").await?;
    report::line("a fresh peer while others write", &fresh.words());
    let ratio = busy.rate() / alone.rate();
    let paces = format!("{}, then {}", alone.pace(), busy.pace());
    report::judged("writers at the leader, alone and then", &paces, ratio, "of the pace alone", Goal::AtLeast(0.8));
    for (share, what, goal) in [(100, "1 % differs", 2.0), (1000, "0.1 % differs", 3.0)] {
        bench.report_behind(share, what, goal).await?;
    }
    bench.report_kills(&quiet).await
}

struct Bench {
    cluster: Arc<ProcessCluster>,
    numbers: Arc<AtomicU64>,
    /// How long writers are measured.
    time: Duration,
    /// The peer that catches up.
    receiver: usize,
    /// What a peer without pins keeps in memory.
    idle: u64,
}

/// One catch-up.
struct Caught {
    bytes: u64,
    took: Duration,
    receiver: u64,
    donors: u64,
}

impl Caught {
    fn words(&self) -> String {
        let [bytes, receiver, donors] = [self.bytes, self.receiver, self.donors].map(|bytes| bytes as f64 / 1e6);
        format!(
            "{bytes:.2} MB in {:.1} s; the receiver grew by {receiver:.0} MB, a donor by {donors:.0} MB at most",
            self.took.as_secs_f64()
        )
    }
}

impl Bench {
    async fn start() -> Result<Self> {
        let mut cluster = ProcessCluster::empty()?;
        for _ in 0..=PEERS {
            let number = cluster.make_peer(&NodeKind::Embedded)?;
            cluster.set_variable(number, "CLUSTER_RAFT_SNAPSHOTTHRESHOLD", &SNAPSHOT_EVERY.to_string());
            cluster.set_variable(number, "CLUSTER_RAFT_MAXVOTERS", &PEERS.to_string());
            cluster.set_variable(number, "CLUSTER_DISABLEREPINNING", "true");
        }
        for number in 0..PEERS {
            cluster.start_peer(number).await?;
        }
        let cluster = Arc::new(cluster);
        let known = || load::pin(&cluster, 0, 0, Holders::First);
        wait::until("every peer to be known to the allocator", KNOWN_LIMIT, known).await;
        let time = Duration::from_secs(setting("CLUSTER_BENCH_SECONDS", 10)?);
        let idle = Memory::of(&cluster, 1)?.resident();
        Ok(Self { cluster, numbers: Arc::new(AtomicU64::new(1)), time, receiver: PEERS, idle })
    }

    async fn write(&self, clients: usize, peers: &[usize], time: Duration, up_to: u64) -> Result<load::Done> {
        let load = Load { clients, peers: peers.to_vec(), holders: Holders::First, time, up_to };
        load::run(&self.cluster, load, &self.numbers).await
    }

    /// Waits until the outcomes of the loading are not remembered any more.
    async fn forget(&self) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < FORGOTTEN_AFTER {
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            load::pin(&self.cluster, 0, number, Holders::First).await?;
            tokio::time::sleep(Duration::from_secs(15)).await;
        }
        Ok(())
    }

    /// The receiver without anything, as if its disk were new.
    fn wipe(&self) -> Result<()> {
        self.cluster.kill(self.receiver)?;
        let folder = &self.cluster.peers[self.receiver].folder;
        for entry in std::fs::read_dir(folder)?.filter_map(Result::ok) {
            if entry.path().is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// Lets the receiver catch up, however it is; `join`: as a new member.
    async fn catch_up(&self, join: bool) -> Result<Caught> {
        let donors: Vec<Memory> = (0..PEERS).map(|peer| Memory::of(&self.cluster, peer)).collect::<Result<_>>()?;
        (0..PEERS).try_for_each(|peer| Memory::forget_peak(&self.cluster, peer))?;
        let target = self.cluster.state(0).await?.applied_index;
        let began = Instant::now();
        if join {
            self.cluster.spawn_new_peer(self.receiver)?
        } else {
            self.cluster.spawn_peer(self.receiver)?
        }
        let (mut bytes, mut peak) = (0, 0);
        wait::until("the peer to catch up", LIMIT, || {
            let memory = Memory::of(&self.cluster, self.receiver).map_or(0, |memory| memory.resident());
            peak = peak.max(memory);
            bytes = bytes.max(self.wire_bytes().unwrap_or(0));
            async {
                let state = self.cluster.state(self.receiver).await.map_err(|error| error.to_string())?;
                if state.applied_index >= target { Ok(()) } else { Err(format!("{state:?}")) }
            }
        })
        .await;
        let took = began.elapsed();
        let bytes = bytes.max(self.wire_bytes()?);
        let peak = peak.max(Memory::peak(&self.cluster, self.receiver)?);
        let grown = |peer: usize| Ok(Memory::peak(&self.cluster, peer)?.saturating_sub(donors[peer].resident()));
        let donors = (0..PEERS).map(grown).collect::<Result<Vec<u64>>>()?.into_iter().max().unwrap_or(0);
        Ok(Caught { bytes, took, receiver: peak.saturating_sub(self.idle), donors })
    }

    /// A new member while nobody writes.
    async fn fresh(&self) -> Result<Caught> {
        self.wipe()?;
        self.catch_up(true).await
    }

    /// A new member while others write.
    async fn fresh_while_writing(&mut self) -> Result<(Caught, load::Done)> {
        self.wipe()?;
        let writers = self.write(WRITERS, &[0], self.time, u64::MAX);
        let (caught, written) = tokio::try_join!(self.catch_up(true), writers)?;
        Ok((caught, written))
    }

    /// Bytes of the receiver's connections to the swarm, both ways.
    fn wire_bytes(&self) -> Result<u64> {
        let pid = self.cluster.pid(self.receiver).context("the receiver does not run")?;
        let swarm: Vec<u16> = (0..=PEERS).map(|peer| self.cluster.swarm_port(peer)).collect();
        let sockets = Command::new("ss").args(["-Htinp"]).output().context("ss (iproute2) counts bytes")?;
        let text = String::from_utf8_lossy(&sockets.stdout).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let mut bytes = 0;
        for pair in lines.windows(2) {
            let [head, detail] = pair else { continue };
            let of_swarm = head
                .split_whitespace()
                .filter_map(|word| word.rsplit_once(':'))
                .any(|(_, port)| port.parse().is_ok_and(|port: u16| swarm.contains(&port)));
            if of_swarm && head.contains(&format!("pid={pid},")) {
                let field = |name: &str| -> u64 {
                    let found = detail.split_whitespace().find_map(|word| word.strip_prefix(name));
                    found.and_then(|number| number.parse().ok()).unwrap_or(0)
                };
                bytes += field("bytes_sent:") + field("bytes_received:");
            }
        }
        Ok(bytes)
    }

    /// The least bytes that so many of the pins take, from a sample in one piece.
    async fn least_bytes(&self, pins: u64) -> Result<f64> {
        let answer = self.cluster.http(0).get(self.cluster.url(0, "/allocations")).send().await?;
        let mut sample: Vec<Change> = Vec::new();
        let (mut text, mut body) = (Vec::new(), answer);
        while let Some(chunk) = body.chunk().await? {
            text.extend_from_slice(&chunk);
            if text.len() > SAMPLE * 1_000 {
                break;
            }
        }
        for line in text.split(|byte| *byte == b'\n').take(SAMPLE) {
            if let Ok(pin) = serde_json::from_slice::<cluster_types::Pin>(line) {
                sample.push((pin.cid, Some(encode_pin(&pin).into())));
            }
        }
        ensure!(!sample.is_empty(), "there are no pins");
        Ok(pack(&sample).len() as f64 / sample.len() as f64 * pins as f64)
    }

    async fn report_fresh(&self, caught: &Caught, what: &str) -> Result<()> {
        let pins = self.cluster.state(0).await?.pins;
        let least = self.least_bytes(pins).await?;
        let figure = format!("{}; {pins} pins are {:.2} MB at least", caught.words(), least / 1e6);
        report::judged(what, &figure, caught.bytes as f64 / least, "times the least", Goal::AtMost(1.2));
        let copy = plain_copy(caught.bytes).await?;
        let figure = format!("{:.2} s for a plain copy of the same bytes", copy.as_secs_f64());
        let ratio = caught.took.as_secs_f64() / copy.as_secs_f64();
        report::line("", &report::compared(&figure, ratio, "times as long"));
        let grown = caught.receiver.max(caught.donors) as f64 / f64::from(1 << 20);
        report::judged("", "a process grew at most by", grown, "MiB", Goal::AtMost(64.0));
        Ok(())
    }

    /// A member that was away while a share of the pins came.
    async fn report_behind(&self, share: u64, what: &str, goal: f64) -> Result<()> {
        let pins = self.cluster.state(0).await?.pins;
        tokio::time::sleep(WINDOW).await;
        self.cluster.stop(self.receiver).await?;
        let changed = (pins / share).max(1);
        let up_to = self.numbers.load(Ordering::Relaxed) + changed;
        self.write(8, &[0], LIMIT, up_to).await?;
        tokio::time::sleep(GOSSIPED).await;
        let logged = self.cluster.log(self.receiver).len();
        let caught = self.catch_up(false).await?;
        let least = self.least_bytes(changed).await?;
        let by_shards = self.cluster.log(self.receiver).get(logged..).is_some_and(|log| log.contains("caught up"));
        if !by_shards {
            report::line(
                what,
                &format!("{changed} pins were still in the log: there are too few pins to measure this"),
            );
            return Ok(());
        }
        let figure = format!("{}; {changed} pins are {:.3} MB at least", caught.words(), least / 1e6);
        report::judged(what, &figure, caught.bytes as f64 / least, "times the least", Goal::AtMost(goal));
        Ok(())
    }

    /// A new member that is killed twenty times on its way.
    async fn report_kills(&self, whole: &Caught) -> Result<()> {
        const KILLS: u32 = 20;
        self.wipe()?;
        let mut bytes = 0;
        for _kill in 0..KILLS {
            // Until it has joined it has to be told whom to join.
            self.cluster.spawn_new_peer(self.receiver)?;
            // Somewhere in what is left of a transfer as long as the first one.
            let pause = whole.took.mul_f64(rand::random::<f64>() * 2.0 / f64::from(KILLS));
            let began = Instant::now();
            let mut seen = 0;
            while began.elapsed() < pause + Duration::from_secs(1) {
                seen = seen.max(self.wire_bytes().unwrap_or(0));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            self.cluster.kill(self.receiver)?;
            bytes += seen;
        }
        let rest = self.catch_up(true).await?;
        let all = bytes + rest.bytes;
        let more = (all as f64 - whole.bytes as f64) / f64::from(KILLS) / 1e3;
        report::line(
            "killed 20 times on its way",
            &format!(
                "{:.2} MB in all, {:.2} MB undisturbed: {more:.0} kB more for each kill",
                all as f64 / 1e6,
                whole.bytes as f64 / 1e6
            ),
        );
        Ok(())
    }
}

/// How long so many bytes take over loopback.
async fn plain_copy(bytes: u64) -> Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let began = Instant::now();
    let send = async {
        let mut stream = TcpStream::connect(address).await?;
        let block = vec![7; 64 << 10];
        let mut left = bytes;
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
            stream.write_all(&block[..now]).await?;
            left -= now as u64;
        }
        stream.shutdown().await?;
        anyhow::Ok(())
    };
    let receive = async {
        let (mut stream, _) = listener.accept().await?;
        let mut block = vec![0; 64 << 10];
        while stream.read(&mut block).await? > 0 {}
        anyhow::Ok(())
    };
    tokio::try_join!(send, receive)?;
    Ok(began.elapsed())
}
