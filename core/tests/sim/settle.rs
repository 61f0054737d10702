//! The end of a run: all harm is taken away, and everything promised must come true.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster_core::consensus::Consensus;
use cluster_core::ports::ConflictEvent;
use cluster_core::testing::linear;
use tokio::time::{sleep, timeout};

use crate::clients::{History, read_all, write_one};
use crate::host::{Host, Running};
use crate::ledger;
use crate::rules::{Rules, position};
use crate::world::World;
use crate::{causal, writers};

/// Until the last call is answered or given up, and the dead have ended.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// From the end of the harm until everything is merged: an author is waited for, and a merge is tried again.
const MERGE_LIMIT: Duration = Duration::from_secs(40);
/// From the end of the harm until writes work on every peer (INV22).
const RECOVERY_LIMIT: Duration = Duration::from_secs(10);
/// Until every peer has applied the same.
const CONVERGENCE_LIMIT: Duration = Duration::from_secs(10);
/// Until every node holds what its peer was given: longer, for pauses after failures grow.
const NODES_LIMIT: Duration = Duration::from_secs(120);
/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Heals, waits, and checks what was acknowledged.
pub(crate) async fn settle(world: &World, history: &History, rules: &mut Rules) -> Result<(), String> {
    world.away.lock().clear();
    world.calm();
    for host in &world.hosts {
        world.restart(host.number).await;
    }
    // A call that is not answered yet may take effect: without its answer no history is whole.
    let late = world.tasks.shut_down(CALL_LIMIT).await;
    if !late.is_empty() {
        return Err(format!("still at work after {CALL_LIMIT:?}: {late:?}"));
    }
    world.trace.note("settle", &[], "", &[]);
    if world.mode.is_crdt() {
        let merged = timeout(MERGE_LIMIT, all_merged(world)).await;
        merged.map_err(|_| format!("writes wait still: {}", describe_waiting(world)))?;
    }
    let healed = world.trace.now();
    for host in &world.hosts {
        while !takes_writes(world, history, host).await {
            if world.trace.now() > healed + RECOVERY_LIMIT {
                return Err(format!("host {} takes no writes {RECOVERY_LIMIT:?} after the healing", host.number));
            }
            sleep(LOOK_EVERY).await;
        }
    }
    timeout(CONVERGENCE_LIMIT, converged(world)).await.map_err(|_| "the peers do not converge".to_owned())?;
    rules.check(world)?;
    judge(world, rules)?;
    if !world.mode.is_crdt() {
        read_all(world, history).await;
    }
    if let Some(what) = world.trace.failure() {
        return Err(what);
    }
    linear::check(&history.operations()).map_err(|violation| format!("not linearizable: {violation}"))?;
    let nodes = async {
        while let Some(wrong) = node_that_differs(world) {
            world.trace.note("waits", &[wrong as u64], "", &[]);
            sleep(LOOK_EVERY * 5).await;
        }
    };
    let held = timeout(NODES_LIMIT, nodes).await;
    held.map_err(|_| format!("a node never holds what it should: {}", describe(world)))?;
    rules.check(world)
}

async fn takes_writes(world: &World, history: &History, host: &Host) -> bool {
    if world.mode.is_crdt() {
        writers::write_one(world, history, host).await
    } else {
        write_one(world, history, host).await
    }
}

/// Returns when nothing waits anywhere.
async fn all_merged(world: &World) {
    while world.hosts.iter().any(|host| !host.disks().state.contents(false).outbox.is_empty()) {
        sleep(LOOK_EVERY).await;
    }
}

fn describe_waiting(world: &World) -> String {
    let waiting = |host: &Host| -> Vec<String> {
        let waiting = host.disks().state.contents(false).outbox;
        waiting.iter().map(|waiting| format!("{} {}", waiting.number, ledger::describe(&waiting.write))).collect()
    };
    let rows: Vec<_> = world.hosts.iter().map(|host| (host.number, waiting(host))).collect();
    format!("{rows:#?}")
}

/// Compares what the log holds and the event logs with what was written.
fn judge(world: &World, rules: &Rules) -> Result<(), String> {
    let contents: Vec<_> = world.hosts.iter().map(|host| host.disks().state.contents(false)).collect();
    let mut events: BTreeMap<(u64, u32), ConflictEvent> = BTreeMap::new();
    for event in contents.iter().flat_map(|contents| &contents.conflicts) {
        let known = events.entry((event.index, event.place)).or_insert_with(|| event.clone());
        if known != event {
            return Err(format!("one event log says {known:?}, another {event:?}"));
        }
    }
    for (host, contents) in contents.iter().enumerate() {
        let kept: BTreeSet<_> = contents.conflicts.iter().map(|event| (event.index, event.place)).collect();
        let missing = events.keys().find(|at| !kept.contains(at) && !world.ledger.skipped(host, at.0));
        if let Some(missing) = missing {
            return Err(format!("host {host} has no event {missing:?}"));
        }
    }
    let last = position(&contents[0])?.last.ok_or("nothing is applied")?;
    let chain = world.log.chain((last.index(), **last.committed_leader_id()))?;
    let (written, committed) = world.ledger.all();
    let mut judge = causal::Judge::new(written);
    judge.replay(&chain, &rules.names)?;
    judge.check_committed(last.index(), &chain, &committed)?;
    judge.check_merged()?;
    let names = contents[0].log_pins().iter().map(|pin| (pin.cid, ledger::name(pin))).collect();
    let events: Vec<ConflictEvent> = events.into_values().collect();
    judge.check_events(&names, &events)
}

/// Returns when all have applied as much as the first.
async fn converged(world: &World) {
    let running: Vec<Running> = world.hosts.iter().filter_map(|host| host.running()).collect();
    let Some(first) = running.first() else { return };
    while first.consensus.read_barrier().await.is_err() {
        sleep(LOOK_EVERY).await;
    }
    let index = *first.consensus.applied().borrow();
    for running in &running {
        let mut applied = running.consensus.applied();
        // One that has ended is found by the rules.
        let _ended = applied.wait_for(|applied| *applied >= index).await;
    }
}

/// What is wrong with the first host whose node differs.
fn describe(world: &World) -> String {
    let Some(number) = node_that_differs(world) else { return "it just came to".to_owned() };
    let host = &world.hosts[number];
    let contents = host.disks().state.contents(false);
    let given = contents.pins.iter().filter(|pin| pin.is_allocated_to(&host.peer)).map(|pin| pin.cid.to_string());
    let (given, held) = (given.collect::<Vec<_>>(), host.ipfs.true_pins());
    let tracked: Vec<String> = contents.tracked.iter().map(|task| format!("{} {:?}", task.cid, task.record)).collect();
    format!("host {number}, given {given:#?}, holds {held:#?}, tracks {tracked:#?}")
}

/// A host whose node holds something else than the host was given.
fn node_that_differs(world: &World) -> Option<usize> {
    let differs = |host: &&Host| {
        let pins = host.disks().state.contents(false).pins;
        let wanted: BTreeSet<_> =
            pins.iter().filter(|pin| pin.is_allocated_to(&host.peer)).map(|pin| pin.cid).collect();
        let held: BTreeSet<_> = host.ipfs.true_pins().into_keys().collect();
        // A power cut may take the entries with which a pin came, and a snapshot those with which it went: then nobody
        // knows that the node holds it. What nobody asked for stays on nodes, since it may be their owner's.
        if host.had_power_cut() { !wanted.is_subset(&held) } else { wanted != held }
    };
    world.hosts.iter().find(differs).map(|host| host.number)
}
