//! The end of a run: all harm is taken away, and everything promised must come true.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_core::consensus::Consensus;
use cluster_core::testing::linear;
use tokio::time::{sleep, timeout};

use crate::clients::{History, read_all, write_one};
use crate::host::Running;
use crate::rules::Rules;
use crate::world::World;

/// Until the last call is answered or given up, and the dead have ended.
const CALL_LIMIT: Duration = Duration::from_secs(60);
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
    let healed = world.trace.now();
    for host in &world.hosts {
        while !write_one(world, history, host).await {
            if world.trace.now() > healed + RECOVERY_LIMIT {
                return Err(format!("host {} takes no writes {RECOVERY_LIMIT:?} after the healing", host.number));
            }
            sleep(LOOK_EVERY).await;
        }
    }
    timeout(CONVERGENCE_LIMIT, converged(world)).await.map_err(|_| "the peers do not converge".to_owned())?;
    rules.check(world)?;
    read_all(world, history).await;
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
    let differs = |host: &&crate::host::Host| {
        let pins = host.disks().state.contents(false).pins;
        let wanted: BTreeSet<_> =
            pins.iter().filter(|pin| pin.is_allocated_to(&host.peer)).map(|pin| pin.cid).collect();
        wanted != host.ipfs.true_pins().into_keys().collect()
    };
    world.hosts.iter().find(differs).map(|host| host.number)
}
