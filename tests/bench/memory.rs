//! What a pin costs a peer in memory.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context, Result};
use cluster_tests::process::ProcessCluster;
use cluster_tests::wait;
use reqwest::StatusCode;

use crate::counts::{self, Counts};
use crate::load::{self, Holders, Load};
use crate::report::{self, Goal};
use crate::{PEERS, setting, start};

/// Clients that load the pinset.
const CLIENTS: usize = 256;
/// The first of so many parts of the load and its time fills caches and buffers; what one more pin costs is measured
/// on the rest.
const PARTS: u32 = 2;
/// What caches and buffers of a peer's two databases grow to, however many pins there are: 80 MiB for the state and
/// 64 MiB for blocks, as the store's options say.
const BOUNDED: f64 = ((80 + 64) << 20) as f64;
/// How long the peers may take to be known to each other.
const KNOWN_LIMIT: Duration = Duration::from_secs(60);
/// How long the trackers may take to come to rest; after that memory is measured while they work.
const REST_LIMIT: Duration = Duration::from_secs(60);
/// Pause between two looks at a tracker.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A megabyte, and a million pins.
const MILLION: f64 = 1e6;

/// Measures and prints.
pub(crate) async fn measure() -> Result<()> {
    let pins = setting("CLUSTER_BENCH_PINS", 1_000_000)?;
    let time = Duration::from_secs(setting("CLUSTER_BENCH_LOAD_SECONDS", 240)?);
    println!(
        "memory: {CLIENTS} clients load {pins} small pins in at most {} s, each held by one peer in turn",
        time.as_secs()
    );
    let cluster = start().await?;
    wait::until("every peer to be known to the allocator", KNOWN_LIMIT, || load::pin(&cluster, 0, 0, Holders::One))
        .await;
    let numbers = Arc::new(AtomicU64::new(1));
    let clients =
        |up_to, time| Load { clients: CLIENTS, peers: (0..PEERS).collect(), holders: Holders::One, time, up_to };
    let empty = Sample::take(&cluster).await?;
    let first = load::run(&cluster, clients(pins / u64::from(PARTS), time / PARTS), &numbers).await?;
    let filled = Sample::take(&cluster).await?;
    let second = load::run(&cluster, clients(pins, time - time / PARTS), &numbers).await?;
    let full = Sample::take(&cluster).await?;
    let counts = Counts::of_stopped(&cluster).await?;

    let extent = if full.pins < pins { "time was over, so the cost of a million is scaled" } else { "all" };
    report::line("pins loaded", &format!("{}: {extent}", full.pins));
    report::line("the first half, then the rest", &format!("{}, then {}", first.pace(), second.pace()));
    let bounded = format!("at most {:.0} MB per peer, however many pins", BOUNDED / MILLION);
    report::line("caches and buffers grow to", &bounded);
    for peer in 0..PEERS {
        let own = [&empty, &filled, &full].map(|sample| megabytes(sample.memory[peer].own));
        let figure = format!("{} MB, {} MB, {} MB", own[0], own[1], own[2]);
        let what = format!("peer {peer} with {}, {}, {} pins", empty.pins, filled.pins, full.pins);
        let marginal = full.marginal(&filled, peer);
        report::judged(&what, &figure, marginal, "MB per million more", Goal::AtMost(20.0));
        let resident = format!("resident {} MB", megabytes(full.memory[peer].resident));
        report::line(
            "",
            &report::compared(&resident, full.marginal(&empty, peer), "MB per million since it was empty"),
        );
    }
    let busy = [&empty, &filled, &full].iter().any(|sample| !sample.rested);
    if busy {
        report::line("", "not all trackers had come to rest when memory was measured");
    }
    println!("flushes of each peer's log");
    counts::print(&format!("{CLIENTS} clients, at all peers"), &counts, first.pins() + second.pins());
    Ok(())
}

/// What a process keeps in memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// All that is resident, mapped files included.
    resident: u64,
    /// What is its own: heap and stacks.
    own: u64,
}

impl Memory {
    pub(crate) fn of(cluster: &ProcessCluster, peer: usize) -> Result<Self> {
        Ok(Self { resident: field(cluster, peer, "VmRSS")?, own: field(cluster, peer, "RssAnon")? })
    }

    /// All that is resident.
    pub(crate) fn resident(&self) -> u64 {
        self.resident
    }

    /// The most that was resident since it was last forgotten.
    pub(crate) fn peak(cluster: &ProcessCluster, peer: usize) -> Result<u64> {
        field(cluster, peer, "VmHWM")
    }

    /// Forgets the most that was resident.
    pub(crate) fn forget_peak(cluster: &ProcessCluster, peer: usize) -> Result<()> {
        let pid = cluster.pid(peer).with_context(|| format!("peer {peer} does not run"))?;
        Ok(fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
    }
}

/// A number of bytes that the system tells of a process.
fn field(cluster: &ProcessCluster, peer: usize, name: &str) -> Result<u64> {
    let pid = cluster.pid(peer).with_context(|| format!("peer {peer} does not run"))?;
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let fields: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(':')).collect();
    let value = fields.get(name).with_context(|| format!("the system does not tell {name}"))?;
    Ok(value.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// All peers at one time.
struct Sample {
    pins: u64,
    rested: bool,
    memory: Vec<Memory>,
}

impl Sample {
    /// Looks at the peers once they hold the same and have nothing more to do, or have had their time for it.
    async fn take(cluster: &ProcessCluster) -> Result<Self> {
        let pins = cluster.wait_equal().await.pins;
        let rested = tokio::time::timeout(REST_LIMIT, at_rest(cluster)).await;
        let memory = (0..PEERS).map(|peer| Memory::of(cluster, peer)).collect::<Result<_>>()?;
        Ok(Self { pins, rested: rested.is_ok_and(|rested| rested.is_ok()), memory })
    }

    /// Megabytes of its own that a peer took since `before`, per million pins.
    fn marginal(&self, before: &Self, peer: usize) -> f64 {
        let bytes = self.memory[peer].own as f64 - before.memory[peer].own as f64;
        bytes / (self.pins - before.pins) as f64
    }
}

/// Returns when no tracker has anything to do.
async fn at_rest(cluster: &ProcessCluster) -> Result<()> {
    for peer in 0..PEERS {
        let url = cluster.url(peer, "/pins?local=true&filter=queued,pinning");
        // Only the head of the answer is read: an empty listing has no content.
        while cluster.http.get(&url).send().await?.error_for_status()?.status() != StatusCode::NO_CONTENT {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

fn megabytes(bytes: u64) -> String {
    format!("{:.0}", bytes as f64 / MILLION)
}
