//! Clients that pin, pin again, unpin, move and read, and note what they were told.
//!
//! Later actors stand beside them: writers without a quorum and their merges, followers, peers that catch up by
//! shards. Each gets a file, is started in `run`, and brings its promise as a rule of the checker.

use std::sync::Arc;
use std::time::Duration;

use cluster_core::consensus::{Consensus, ConsensusError, Outcome, Request};
use cluster_core::ports::StateStore;
use cluster_core::task::OnExit;
use cluster_core::testing::linear::{Action, Operation, Told};
use cluster_types::{BoxError, Cid, Commit, ErrorClass, Pin, PinOptions};
use multihash_codetable::{Code, MultihashDigest};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

use cluster_core::crdt::merge::Wish;

use crate::host::{Host, Running};
use crate::ledger::Committed;
use crate::world::World;

/// Clients at a time.
const CLIENTS: u64 = 3;
/// CIDs they work on: few, so that they meet.
const CIDS: u32 = 6;
/// The longest pause between two calls of a client.
const PAUSE: Duration = Duration::from_millis(600);

/// What the clients did and were told.
#[derive(Default)]
pub(crate) struct History {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Counts calls and returns: a clock that never shows the same time twice.
    clock: u64,
    serial: u64,
    operations: Vec<Operation>,
}

impl History {
    fn tick(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.clock += 1;
        inner.clock
    }

    pub(crate) fn serial(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.serial += 1;
        inner.serial
    }

    /// Everything so far.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.inner.lock().operations.clone()
    }
}

/// Starts the clients; they work until the tasks of the world stop or `done` says so.
pub(crate) fn start(world: &Arc<World>, history: &Arc<History>, chance: &mut StdRng) {
    for number in 0..CLIENTS {
        let (world, history, mut chance) = (Arc::clone(world), Arc::clone(history), StdRng::from_rng(chance));
        let stop = world.tasks.stop_token();
        Arc::clone(&world).tasks.spawn("client", OnExit::Continue, async move {
            loop {
                let pause = chance.random_range(Duration::ZERO..PAUSE);
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok::<(), BoxError>(()),
                    () = sleep(pause) => {}
                }
                work(&world, &history, number, &mut chance).await;
            }
        });
    }
}

/// One call on some peer that runs.
async fn work(world: &World, history: &History, client: u64, chance: &mut StdRng) {
    let host = &world.hosts[chance.random_range(0..world.hosts.len())];
    let key = chance.random_range(0..CIDS);
    let kind = chance.random_range(0..10);
    let replication = [(-1, -1), (1, 1), (1, 2), (2, 3)][chance.random_range(0..4)];
    let Some(running) = host.running() else { return };
    let (action, request) = match kind {
        0..4 => {
            let serial = history.serial();
            (Action::Pin(serial), Some(Request::Pin(Box::new(pin(key, serial, replication)))))
        }
        4..6 => (Action::Unpin, Some(Request::Unpin { cid: cid(key) })),
        6 => {
            // Moves are no writes of the register; whether they are carried out is seen by the rules of allocations.
            let request = Request::Reallocate { cid: cid(key), exclude: vec![host.peer] };
            world.trace.note("move", &[client, host.number as u64, u64::from(key)], "", &[]);
            drop(until_death(&running, running.consensus.submit(request)).await);
            return;
        }
        _ => (Action::Read, None),
    };
    let call = Call { world, host, running: &running, history, client, key };
    match request {
        Some(request) => call.write(action, request).await,
        None => call.read().await,
    }
}

/// Reads every CID on every peer, for the end of a run.
pub(crate) async fn read_all(world: &World, history: &History) {
    for host in &world.hosts {
        for key in 0..CIDS {
            let Some(running) = host.running() else { continue };
            Call { world, host, running: &running, history, client: CLIENTS, key }.read().await;
        }
    }
}

/// Writes one pin on a peer; whether it was acknowledged.
pub(crate) async fn write_one(world: &World, history: &History, host: &Host) -> bool {
    let Some(running) = host.running() else { return false };
    let (key, serial) = (0, history.serial());
    let call = Call { world, host, running: &running, history, client: CLIENTS, key };
    call.write(Action::Pin(serial), Request::Pin(Box::new(pin(key, serial, (-1, -1))))).await;
    history.inner.lock().operations.last().is_some_and(|last| last.told == Told::Pinned)
}

struct Call<'a> {
    world: &'a World,
    host: &'a Host,
    running: &'a Running,
    history: &'a History,
    client: u64,
    key: u32,
}

impl Call<'_> {
    async fn write(&self, action: Action, request: Request) {
        let called = self.history.tick();
        self.world.trace.note("write", &self.numbers(), format!("{action:?}"), &[]);
        if let Action::Pin(serial) = action {
            self.world.ledger.attempt(cid(self.key), &serial.to_string());
        }
        let answer = until_death(self.running, self.running.consensus.submit(request)).await;
        let told = match answer {
            Some(Ok(receipt)) => {
                if let Commit::Log { index, .. } = receipt.commit {
                    self.check_applied(index);
                    self.note_committed(index, action, &receipt.outcome);
                }
                match receipt.outcome {
                    Outcome::Pinned(_) => Told::Pinned,
                    Outcome::Unpinned(pin) => Told::Unpinned(serial_of(&pin)),
                    Outcome::Refused(refusal) if refusal.class == ErrorClass::NotFound => Told::Nothing,
                    Outcome::Refused(_) | Outcome::Unchanged => Told::Refused,
                }
            }
            Some(Err(error)) => without_receipt(&error),
            None => Told::Unknown,
        };
        if let (Action::Pin(serial), Told::Refused) = (action, told) {
            self.world.ledger.refuse(cid(self.key), &serial.to_string());
        }
        self.returned(called, action, told);
    }

    /// What was acknowledged must stay in the log (INV1).
    fn note_committed(&self, index: u64, action: Action, outcome: &Outcome) {
        let (wish, name) = match (action, outcome) {
            (Action::Pin(serial), Outcome::Pinned(_)) => (Wish::Pin, Some(serial.to_string())),
            (Action::Unpin, Outcome::Unpinned(_)) => (Wish::Unpin, None),
            (Action::Pin(_) | Action::Unpin | Action::Read, _) => return,
        };
        let behind = std::collections::BTreeSet::new();
        self.world.ledger.commit(Committed { cid: cid(self.key), index, wish, name, behind });
    }

    /// A read that must see everything acknowledged before.
    async fn read(&self) {
        let called = self.history.tick();
        let state = self.host.disks().state;
        let read = async {
            self.running.consensus.read_barrier().await.ok()?;
            state.pin(cid(self.key)).await.ok()
        };
        let told = match until_death(self.running, read).await.flatten() {
            Some(Some(pin)) => Told::Found(serial_of(&pin)),
            Some(None) => Told::Nothing,
            None => Told::Unknown,
        };
        self.returned(called, Action::Read, told);
    }

    /// What was acknowledged is visible where it was asked for (INV5).
    fn check_applied(&self, index: u64) {
        let applied = *self.running.consensus.applied().borrow();
        if applied < index {
            let host = self.host.number;
            self.world.trace.fail(format!("host {host} acknowledged index {index}, but has applied {applied} only"));
        }
    }

    fn returned(&self, called: u64, action: Action, told: Told) {
        let returned = self.history.tick();
        self.world.trace.note("told", &self.numbers(), format!("{action:?} {told:?}"), &[]);
        let operation = Operation { key: self.key, called, returned, action, told };
        self.history.inner.lock().operations.push(operation);
    }

    fn numbers(&self) -> [u64; 3] {
        [self.client, self.host.number as u64, u64::from(self.key)]
    }
}

/// What a client knows that got no receipt.
fn without_receipt(error: &ConsensusError) -> Told {
    match error.class() {
        ErrorClass::Unknown | ErrorClass::Fatal => Told::Unknown,
        ErrorClass::Invalid
        | ErrorClass::Malformed
        | ErrorClass::NotFound
        | ErrorClass::Conflict
        | ErrorClass::Unavailable => Told::Refused,
    }
}

/// The result, unless the peer dies before.
pub(crate) async fn until_death<T>(running: &Running, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = running.dead.cancelled() => None,
        result = work => Some(result),
    }
}

pub(crate) fn cid(key: u32) -> Cid {
    Cid::new_v1(0x55, Code::Sha2_256.digest(&key.to_be_bytes()))
}

pub(crate) fn pin(key: u32, serial: u64, (min, max): (i32, i32)) -> Pin {
    let options = PinOptions {
        replication_factor_min: min,
        replication_factor_max: max,
        name: serial.to_string(),
        ..PinOptions::default()
    };
    Pin::new(cid(key), options)
}

/// The serial number a client gave to a pin.
fn serial_of(pin: &Pin) -> u64 {
    pin.options.name.parse().expect("only clients write pins")
}
