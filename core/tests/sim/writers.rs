//! Clients of a cluster in `crdt` mode: they pin, pin with other options, update, unpin, expire and move, on CIDs that all
//! work on and on CIDs of their own, on whichever side of a cut they are.
//!
//! **Rule:** a member that runs answers every write, in a bounded time, and nobody is told "no quorum". "Unknown" is an
//! answer only where a leader may have carried out what would have no effect on the peer that was asked.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cluster_core::consensus::log::WithoutQuorum;
use cluster_core::consensus::{Consensus, ConsensusError, Outcome, Receipt, Request};
use cluster_core::crdt::merge::{VersionId, Wish};
use cluster_core::ports::Clock;
use cluster_core::task::OnExit;
use cluster_types::{BoxError, Cid, Commit, PinDepth, PinMode};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

use crate::clients::{History, cid, pin, until_death};
use crate::host::{Host, Running};
use crate::ledger::Committed;
use crate::world::World;

/// Clients at a time.
const WRITERS: u64 = 3;
/// CIDs they all work on.
const SHARED: u32 = 4;
/// The first of the CIDs that one client alone works on.
const OWN: u32 = 100;
/// The longest pause between two calls of a client.
const PAUSE: Duration = Duration::from_millis(700);
/// How much longer than three times the patience with a quorum an answer may take.
const SLACK: Duration = Duration::from_secs(2);

/// Starts the clients; they work until the tasks of the world stop.
pub(crate) fn start(world: &Arc<World>, history: &Arc<History>, chance: &mut StdRng) {
    for number in 0..WRITERS {
        let (world, history, mut chance) = (Arc::clone(world), Arc::clone(history), StdRng::from_rng(chance));
        let stop = world.tasks.stop_token();
        Arc::clone(&world).tasks.spawn("writer", OnExit::Continue, async move {
            loop {
                let pause = chance.random_range(Duration::ZERO..PAUSE);
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok::<(), BoxError>(()),
                    () = sleep(pause) => {}
                }
                let host = &world.hosts[chance.random_range(0..world.hosts.len())];
                let own = OWN + u32::try_from(number).unwrap_or_default();
                let key = if chance.random_bool(0.25) { own } else { chance.random_range(0..SHARED) };
                let request = draw(host, &history, key, &mut chance);
                let Some(running) = host.running() else { continue };
                let _committed = write(&world, host, &running, request).await;
            }
        });
    }
}

/// A wish for the CID `key`.
fn draw(host: &Host, history: &History, key: u32, chance: &mut StdRng) -> Request {
    let replication = [(-1, -1), (1, 1), (1, 2), (2, 3)][chance.random_range(0..4)];
    match chance.random_range(0..20) {
        0..11 => {
            let mut pin = pin(key, history.serial(), replication);
            if chance.random_bool(0.15) {
                pin.options.mode = PinMode::Direct;
                pin.max_depth = PinDepth::DIRECT;
            }
            if chance.random_bool(0.2) {
                let life = Duration::from_secs(chance.random_range(1..12));
                pin.options.expire_at = host.clock.now().saturating_add(life);
            }
            if chance.random_bool(0.2) {
                pin.options.pin_update = Some(cid(chance.random_range(0..SHARED)));
            }
            Request::Pin(Box::new(pin))
        }
        11..16 => Request::Unpin { cid: cid(key) },
        16..18 => Request::Expire { cid: cid(key) },
        _ => Request::Reallocate { cid: cid(key), exclude: vec![host.peer] },
    }
}

/// Writes one pin on a peer; whether it came into the log.
pub(crate) async fn write_one(world: &World, history: &History, host: &Host) -> bool {
    let Some(running) = host.running() else { return false };
    let request = Request::Pin(Box::new(pin(0, history.serial(), (-1, -1))));
    write(world, host, &running, request).await
}

/// What is asked for.
struct Asked {
    cid: Cid,
    wish: Wish,
    name: Option<String>,
    behind: BTreeSet<VersionId>,
}

impl Asked {
    fn of(host: &Host, request: &Request) -> Option<Self> {
        let (wish, name) = match request {
            Request::Pin(pin) => (Wish::Pin, Some(pin.options.name.clone())),
            Request::Unpin { .. } | Request::UnpinPart { .. } => (Wish::Unpin, None),
            Request::Expire { .. } => (Wish::Expire, None),
            Request::Reallocate { .. } => (Wish::Reallocate, None),
            Request::Withdraw { .. } | Request::Merge(_) => return None,
        };
        let cid = request.cid()?;
        let waiting = host.disks().state.contents(false).outbox.into_iter();
        let behind = waiting.filter(|waiting| waiting.write.cid == cid).map(|waiting| waiting.write.id()).collect();
        Some(Self { cid, wish, name, behind })
    }
}

/// Has a wish carried out, and notes what was told; whether it is in the log.
async fn write(world: &World, host: &Host, running: &Running, request: Request) -> bool {
    let Some(asked) = Asked::of(host, &request) else { return false };
    let what = format!("{} {} {}", asked.wish, asked.cid, asked.name.as_deref().unwrap_or_default());
    world.trace.note("write", &[host.number as u64], what.clone(), &[]);
    if let Some(name) = &asked.name {
        world.ledger.attempt(asked.cid, name);
    }
    let began = Instant::now();
    let Some(answer) = until_death(running, running.consensus.submit(request)).await else { return false };
    let told = match &answer {
        Ok(receipt) => format!("{:?} {}", receipt.commit, short(&receipt.outcome)),
        Err(error) => format!("{error:?}"),
    };
    world.trace.note("told", &[host.number as u64], format!("{what}: {told}"), &[]);
    if let WithoutQuorum::Accept { after } = world.mode.without_quorum
        && began.elapsed() > after * 3 + SLACK
    {
        world.trace.fail(format!("host {}: {what} was answered after {:?} only", host.number, began.elapsed()));
    }
    let refused = match &answer {
        Ok(receipt) => matches!(receipt.outcome, Outcome::Refused(_)),
        Err(error) => matches!(error, ConsensusError::Overloaded),
    };
    if let Some(name) = asked.name.as_ref().filter(|_| refused) {
        world.ledger.refuse(asked.cid, name);
    }
    match answer {
        Ok(receipt) => returned(world, host, running, asked, &receipt),
        Err(ConsensusError::Overloaded | ConsensusError::Stopped { .. }) => false,
        // A leader that did not answer may have carried it out, and what is refused now may be so because of that.
        Err(ConsensusError::OutcomeUnknown { .. }) if matches!(asked.wish, Wish::Pin | Wish::Unpin) => false,
        Err(error) => {
            world.trace.fail(format!("host {} does not accept {what}: {error}", host.number));
            false
        }
    }
}

fn returned(world: &World, host: &Host, running: &Running, asked: Asked, receipt: &Receipt) -> bool {
    let Asked { cid, wish, name, behind } = asked;
    let done = matches!(receipt.outcome, Outcome::Pinned(_) | Outcome::Unpinned(_));
    match receipt.commit {
        Commit::Log { index, .. } => {
            let applied = *running.consensus.applied().borrow();
            if applied < index {
                world.trace.fail(format!("host {} tells of {index}, and has applied {applied}", host.number));
            }
            if done {
                world.ledger.commit(Committed { cid, index, wish, name, behind });
            }
            done
        }
        Commit::Eventual if done => {
            let durable = host.disks().state.contents(true);
            let kept = world.ledger.acknowledge(host.number, cid, (wish, name.as_deref()), &durable);
            kept.unwrap_or_else(|what| world.trace.fail(format!("host {}: {what}", host.number)));
            false
        }
        Commit::Eventual => false,
    }
}

fn short(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Pinned(pin) => format!("pinned {}", pin.options.name),
        Outcome::Unpinned(pin) => format!("unpinned {}", pin.options.name),
        Outcome::Unchanged => "unchanged".to_owned(),
        Outcome::Refused(refusal) => format!("refused: {}", refusal.message),
    }
}
