//! `make bench`: how fast three peers agree on pins, what a pin costs them, and how fast content is added, in one run.
//!
//! Speed is told as a ratio to a bare loop of append and fdatasync on the same disk, before and after, because disks
//! differ more than programs do. Clients and peers share the machine. A figure that falls short is reported like any
//! other; only a run that fails is an error. `TMPDIR` chooses the disk.
//!
//! - `CLUSTER_BENCH_SECONDS`: how long each speed is measured (10).
//! - `CLUSTER_BENCH_PINS`, `CLUSTER_BENCH_LOAD_SECONDS`: how many pins are loaded to measure memory (1,000,000), and
//!   how long that may take (240). If time is over first, the report says so.
//! - `CLUSTER_BENCH_CATCHUP_PINS`: how many pins a peer catches up with (100,000); the goals are for 1,000,000.
//!   `CLUSTER_BENCH_FORGET=1` first waits until no outcome of the loading is remembered any more, which takes minutes.
//! - `CLUSTER_BENCH_ADD_BYTES`, `CLUSTER_BENCH_ADD_FILES`: bytes of one file and number of small files that are added,
//!   beside `ipfs add` (1 GiB, 50,000); `CLUSTER_BENCH_ADD_COPIED_BYTES`: bytes that are added with three copies (4 GiB).
//! - `CLUSTER_BENCH_BITSWAP_BYTES`: bytes of the file that goes between nodes (1 GiB).
//! - `CLUSTER_BENCH_ONLY`: `speed`, `memory`, `catchup`, `add`, `copies` (the part of `add` with three copies) or `bitswap`.

#![expect(clippy::print_stdout, reason = "the report is what this program is for")]

mod add;
mod bitswap;
mod catchup;
mod counts;
mod disk;
mod load;
mod memory;
mod report;
mod speed;

use std::sync::Arc;

use anyhow::{Context, Result};
use cluster_tests::process::{NodeKind, ProcessCluster};

/// Peers of every cluster measured.
const PEERS: usize = 3;

fn main() -> Result<()> {
    // `cargo test --all-targets` starts benchmarks too, without this flag.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("nothing is measured; run `make bench`");
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let only = std::env::var("CLUSTER_BENCH_ONLY").unwrap_or_default();
        let wanted = |name: &str| only.is_empty() || only == name;
        if wanted("speed") {
            speed::measure().await?;
        }
        if wanted("memory") {
            memory::measure().await?;
        }
        if wanted("catchup") {
            catchup::measure().await?;
        }
        if wanted("add") {
            add::measure().await?;
        }
        if wanted("add") || only == "copies" {
            add::measure_copies().await?;
        }
        if wanted("bitswap") {
            bitswap::measure().await?;
        }
        Ok(())
    })
}

async fn start() -> Result<Arc<ProcessCluster>> {
    Ok(Arc::new(ProcessCluster::start(&vec![NodeKind::Embedded; PEERS]).await?))
}

fn setting(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text} is no number")),
        Err(_) => Ok(default),
    }
}
