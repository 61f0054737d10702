//! Clients that write on every peer of a cluster of [`PEERS`]: some each to CIDs of their own, and one at every peer to
//! CIDs that all of them want. A client speaks to one peer alone, so each of its writes has seen those before it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster_core::testing::linear::Told;
use cluster_tests::process::{Mode, ProcessCluster};
use cluster_tests::wait;
use futures::future::join_all;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::ledger::{self, Ledger, Wish};
use super::{PEERS, TURN_LIMIT};
use crate::client::{Commit, Heard, inline_cid, pin_with, unpin_at};

/// CIDs a writer has at hand: it is the only one that touches them.
const CIDS_PER_WRITER: usize = 50;
/// CIDs that a writer of each peer wants.
const CONTENDED: u64 = 8;
/// Where their numbers begin; those of others are below.
const FIRST_CONTENDED: u64 = 1 << 60;
/// Pause of a writer whose peer is down.
const PAUSE: Duration = Duration::from_millis(50);

/// What one peer has answered so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Writes that stand in the log.
    pub(super) committed: u64,
    /// Writes to be merged later.
    pub(super) eventual: u64,
    /// Writes it has refused.
    pub(super) refused: u64,
    /// The longest it took to answer.
    pub(super) slowest: Duration,
}

/// A cluster, and what its clients have heard.
pub(super) struct World {
    pub(super) cluster: ProcessCluster,
    mode: Mode,
    tallies: Mutex<[Tally; PEERS]>,
}

impl World {
    /// Peers on machines of their own; `None` where there can be none.
    pub(super) async fn start(mode: Mode, variables: &[(&str, &str)]) -> Option<Self> {
        let cluster = ProcessCluster::start_apart(mode, PEERS, variables).await.unwrap()?;
        Some(Self { cluster, mode, tallies: Mutex::default() })
    }

    pub(super) fn tallies(&self) -> [Tally; PEERS] {
        *self.tallies.lock()
    }

    /// Waits until each of `peers` has answered enough, given what it had answered when this was called and what it has
    /// now.
    pub(super) async fn wait_each(&self, what: &str, peers: &[usize], enough: impl Fn(&Tally, &Tally) -> bool) {
        let before = self.tallies();
        wait::until(what, TURN_LIMIT, || async {
            let now = self.tallies();
            let late: Vec<_> = peers.iter().filter(|peer| !enough(&before[**peer], &now[**peer])).collect();
            if late.is_empty() { Ok(()) } else { Err(format!("not peers {late:?}; {before:?}, now {now:?}")) }
        })
        .await;
    }

    /// Waits until each of `peers` has put so many more writes into the log.
    pub(super) async fn wait_committed(&self, peers: &[usize], more: u64) {
        self.wait_each("writes in the log", peers, |then, now| now.committed >= then.committed + more).await;
    }

    /// Waits until each of `peers` has acknowledged so many more writes to be merged later.
    pub(super) async fn wait_eventual(&self, peers: &[usize], more: u64) {
        self.wait_each("eventual writes", peers, |then, now| now.eventual >= then.eventual + more).await;
    }

    /// Runs `action` while all writers write; returns when all of them have heard their last answer.
    pub(super) async fn under_load<T>(&self, writers: &mut [Writer], action: impl Future<Output = T>) -> T {
        let stop = AtomicBool::new(false);
        let writing = join_all(writers.iter_mut().map(|writer| writer.write_until(&stop, self)));
        let acting = async {
            let result = action.await;
            stop.store(true, Ordering::Relaxed);
            result
        };
        futures::join!(acting, writing).0
    }

    fn count(&self, peer: usize, heard: &Heard, took: Duration) {
        let mut tallies = self.tallies.lock();
        let tally = &mut tallies[peer];
        if heard.answered {
            tally.slowest = tally.slowest.max(took);
        }
        match heard.told {
            Told::Pinned | Told::Unpinned(_) => match (heard.commit, self.mode) {
                (Some(Commit::Log), _) => tally.committed += 1,
                (Some(Commit::Eventual), Mode::Crdt) => tally.eventual += 1,
                (commit, mode) => panic!("peer {peer} acknowledged a write in {mode:?} mode with {commit:?}"),
            },
            Told::Refused if heard.answered => tally.refused += 1,
            Told::Refused | Told::Nothing | Told::Found(_) | Told::Unknown => {}
        }
    }
}

/// Writes to some CIDs through one peer.
pub(super) struct Writer {
    home: usize,
    chance: StdRng,
    /// The next serial number, and how far it is to the one after it, so that no two writers use the same.
    serial: u64,
    stride: u64,
    cids: Cids,
}

enum Cids {
    /// Its own. Those whose state is not known for certain any more are left alone, so that a late effect is never taken
    /// for a loss.
    Own { ledger: Ledger, at_hand: Vec<u64>, fresh: u64 },
    /// Those that others want too, and what this one has wished.
    Contended { wishes: BTreeMap<u64, Vec<u64>> },
}

/// So many writers at every peer, and one more for the contended CIDs.
pub(super) fn writers(per_peer: usize, seed: u64) -> Vec<Writer> {
    let all = (per_peer + 1) * PEERS;
    let make = |number: usize| {
        let (home, own) = (number % PEERS, number < per_peer * PEERS);
        let number = u64::try_from(number).unwrap();
        let cids = match own {
            true => Cids::Own { ledger: Ledger::default(), at_hand: Vec::new(), fresh: number << 32 },
            false => Cids::Contended { wishes: BTreeMap::new() },
        };
        let (chance, stride) = (StdRng::seed_from_u64(seed ^ (number + 1)), u64::try_from(all).unwrap());
        Writer { home, chance, serial: number, stride, cids }
    };
    (0..all).map(make).collect()
}

impl Writer {
    async fn write_until(&mut self, stop: &AtomicBool, world: &World) {
        while !stop.load(Ordering::Relaxed) {
            let number = self.choose();
            let wish = (!self.chance.random_bool(0.3)).then(|| self.next_serial());
            if let (Cids::Contended { wishes }, Some(serial)) = (&mut self.cids, wish) {
                wishes.entry(number).or_default().push(serial);
            }
            let started = Instant::now();
            let heard = ask(&world.cluster, self.home, number, wish).await;
            world.count(self.home, &heard, started.elapsed());
            if let Cids::Own { ledger, at_hand, .. } = &mut self.cids
                && !ledger.note(number, wish, heard.told)
            {
                at_hand.retain(|other| *other != number);
            }
            if !heard.answered {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// The number of the CID to write to next.
    fn choose(&mut self) -> u64 {
        match &mut self.cids {
            Cids::Own { at_hand, fresh, .. } => {
                let missing = CIDS_PER_WRITER.saturating_sub(at_hand.len());
                at_hand.extend((0_u64..).map(|offset| *fresh + offset).take(missing));
                *fresh += u64::try_from(missing).unwrap();
                at_hand[self.chance.random_range(0..at_hand.len())]
            }
            Cids::Contended { .. } => FIRST_CONTENDED + self.chance.random_range(0..CONTENDED),
        }
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += self.stride;
        self.serial
    }
}

/// Tells a peer what somebody wants of a CID.
pub(super) async fn ask(cluster: &ProcessCluster, peer: usize, number: u64, wish: Wish) -> Heard {
    let cid = inline_cid(number);
    match wish {
        Some(serial) => pin_with(cluster, peer, &cid, &ledger::query(serial)).await,
        None => unpin_at(cluster, peer, &cid).await,
    }
}

/// Waits until all peers hold the same and nothing is left to merge, and checks it against what the writers heard.
pub(super) async fn judge(world: &World, writers: &[Writer]) {
    let state = world.cluster.wait_equal().await;
    let (mut ledgers, mut contended) = (Vec::new(), BTreeMap::<u64, Vec<u64>>::new());
    for writer in writers {
        match &writer.cids {
            Cids::Own { ledger, .. } => ledgers.push(ledger),
            Cids::Contended { wishes } => {
                for (number, serials) in wishes {
                    contended.entry(*number).or_default().extend(serials);
                }
            }
        }
    }
    ledger::judge(&world.cluster, &ledgers, &contended).await;
    let tallies = world.tallies();
    let committed: u64 = tallies.iter().map(|tally| tally.committed).sum();
    let eventual: u64 = tallies.iter().map(|tally| tally.eventual).sum();
    println!(
        "{committed} writes in the log, {eventual} merged later; {} pins and digest {} at index {} on all peers",
        state.pins, state.digest, state.applied_index
    );
}
