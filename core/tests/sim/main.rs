//! Whole clusters in virtual time: the same seed gives the same run, event by event.
//!
//! Each run is one thread, one paused runtime and one seed. What runs is the real core (consensus over openraft,
//! sequencer, apply, tracker) on doubles of network, disks and IPFS nodes. A nemesis does harm, clients work, the rules
//! are checked after every step, and in the end all harm is taken away and every promise must come true.
//!
//! `SIM_SEED=n` replays one seed, `SIM_SEEDS=n` runs that many, from `SIM_FROM` on: `make sim SEED=7`.
#![expect(clippy::unwrap_used, reason = "a test binary: a panic is a finding")]

mod clients;
mod host;
mod log_rules;
mod nemesis;
mod rules;
mod settle;
mod trace;
mod world;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cluster_core::consensus::log::seed_this_thread;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{sleep, timeout};

use clients::History;
use rules::Rules;
use trace::Trace;
use world::World;

/// Seeds of a run without instructions.
const SEEDS: u64 = 20;
/// Times that harm is done in a run.
const STRIKES: std::ops::Range<u32> = 12..24;
/// Looks at the rules between two harms.
const LOOKS: std::ops::Range<u32> = 1..6;
/// The longest time between two looks.
const STEP: Duration = Duration::from_millis(300);
/// A run that takes longer than this, in virtual time, is stuck.
const RUN_LIMIT: Duration = Duration::from_secs(600);

/// What a run without a finding leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Summary {
    hash: String,
    events: u64,
    operations: usize,
    catch_ups: u64,
    virtual_time: Duration,
}

/// What a run found.
struct Finding {
    seed: u64,
    step: u32,
    what: String,
    tail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, step, what, tail } = self;
        write!(f, "{tail}\nseed {seed}, step {step}: {what}\nreplay: make sim SEED={seed}")
    }
}

/// Runs one seed from beginning to end.
fn run(seed: u64) -> Result<Summary, Finding> {
    seed_this_thread(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let trace = Arc::new(Trace::new());
        let mut step = 0;
        let ended = timeout(RUN_LIMIT, story(seed, &trace, &mut step)).await;
        let ended = ended.unwrap_or_else(|_| Err(format!("not at its end after {RUN_LIMIT:?}")));
        if let Some(what) = trace.failure().or(ended.as_ref().err().cloned()) {
            return Err(Finding { seed, step, what, tail: trace.tail() });
        }
        let operations = ended.unwrap_or_default();
        let (hash, events, catch_ups) = (trace.hash(), trace.events(), trace.catch_ups());
        Ok(Summary { hash, events, operations, catch_ups, virtual_time: trace.now() })
    })
}

/// One run; returns how many operations the clients did.
async fn story(seed: u64, trace: &Arc<Trace>, step: &mut u32) -> Result<usize, String> {
    let mut chance = StdRng::seed_from_u64(seed);
    let world = Arc::new(World::new(trace, &mut chance));
    world.form().await?;
    let (history, mut rules) = (Arc::new(History::default()), Rules::default());
    clients::start(&world, &history, &mut chance);
    for _ in 0..chance.random_range(STRIKES) {
        nemesis::strike(&world, &mut chance).await;
        for _ in 0..chance.random_range(LOOKS) {
            *step += 1;
            sleep(chance.random_range(Duration::ZERO..STEP)).await;
            rules.check(&world)?;
            if let Some(what) = trace.failure() {
                return Err(what);
            }
        }
    }
    world.tasks.stop_token().cancel();
    settle::settle(&world, &history, &mut rules).await?;
    Ok(history.operations().len())
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

/// Runs seeds on all cores; the first finding, by seed, ends it.
#[expect(clippy::print_stderr, reason = "the runner's report")]
fn run_all(seeds: std::ops::Range<u64>) {
    let began = tokio::time::Instant::now();
    let (next, found) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    let (events, catch_ups) = (AtomicU64::new(0), AtomicU64::new(0));
    let worker = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds.end || !found.lock().is_empty() {
            return;
        }
        match run(seed) {
            Ok(summary) => {
                events.fetch_add(summary.events, Ordering::Relaxed);
                catch_ups.fetch_add(summary.catch_ups, Ordering::Relaxed);
            }
            Err(finding) => found.lock().push(finding),
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(worker);
        }
    });
    let mut found = found.into_inner();
    found.sort_by_key(|finding| finding.seed);
    if let Some(finding) = found.first() {
        panic!("after {} seeds:\n{finding}", finding.seed - seeds.start + 1);
    }
    let (count, events, catch_ups) = (seeds.end - seeds.start, events.into_inner(), catch_ups.into_inner());
    eprintln!("{count} seeds, {events} events, {catch_ups} times caught up by shards, {:.1?}", began.elapsed());
    assert!(count < SEEDS || catch_ups > 0, "no peer ever had to catch up: nothing is shown of that");
}

#[test]
#[expect(clippy::print_stderr, reason = "the runner's report")]
fn every_promise_holds_whatever_the_seed() {
    if let Some(seed) = number_from("SIM_SEED") {
        match run(seed) {
            Ok(summary) => eprintln!("seed {seed}: {summary:?}"),
            Err(finding) => panic!("{finding}"),
        }
        return;
    }
    let from = number_from("SIM_FROM").unwrap_or(1);
    run_all(from..from + number_from("SIM_SEEDS").unwrap_or(SEEDS));
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let runs = |seed| match run(seed) {
        Ok(summary) => summary,
        Err(finding) => panic!("{finding}"),
    };
    for seed in 1..3 {
        let (first, second) = (runs(seed), runs(seed));
        assert_eq!(first, second, "seed {seed}");
        assert_ne!(first.hash, runs(seed + 100).hash);
    }
}
