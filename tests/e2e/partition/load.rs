//! Clients that write on every peer of a cluster of [`PEERS`]: some each to CIDs of their own, and one at every peer to
//! CIDs that all of them want. A client speaks to one peer alone, so each of its writes has seen those before it.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster_core::ports::{Clock, SystemClock};
use cluster_core::testing::linear::Told;
use cluster_tests::process::{Mode, ProcessCluster};
use cluster_tests::wait;
use cluster_types::Timestamp;
use futures::future::join_all;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::contest::{Cut, Deed, Deeds};
use super::events::Events;
use super::ledger::{self, Ledger, Wish};
use super::{PEERS, TURN_LIMIT};
use crate::client::{Commit, Heard, inline_cid, pin_with, read, unpin_at};

/// CIDs a writer has at hand: it is the only one that touches them.
const CIDS_PER_WRITER: usize = 50;
/// CIDs that a writer of each peer wants, at a time.
const CONTENDED: u64 = 8;
/// Where their numbers begin; those of others are below.
const FIRST_CONTENDED: u64 = 1 << 60;
/// Pause of a writer whose peer is down, or who has nothing to contend for; and between two writes to contended CIDs, so
/// that the peers of a side hear of each other's, and no CID sees more of them than a peer accepts without a quorum.
const PAUSE: Duration = Duration::from_millis(50);

/// When a cut ends that goes on, in seconds.
const FOREVER: i64 = 1 << 36;

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

/// What all peers contend for.
#[derive(Default)]
struct Arena {
    /// The first of the CIDs, while they may be written to.
    open: Option<u64>,
    /// Writers that wait for an answer.
    busy: usize,
    deeds: Deeds,
    cut: Cut,
}

/// A cluster, and what its clients have heard.
pub(super) struct World {
    pub(super) cluster: ProcessCluster,
    mode: Mode,
    tallies: Mutex<[Tally; PEERS]>,
    arena: Mutex<Arena>,
    events: tokio::sync::Mutex<Events>,
}

impl World {
    /// Peers on machines of their own; `None` where there can be none.
    pub(super) async fn start(mode: Mode, variables: &[(&str, &str)]) -> Option<Self> {
        let cluster = ProcessCluster::start_apart(mode, PEERS, variables).await.unwrap()?;
        let arena = Mutex::new(Arena::default());
        Some(Self { cluster, mode, tallies: Mutex::default(), arena, events: tokio::sync::Mutex::default() })
    }

    /// Has CIDs pinned everywhere that nobody has touched yet, to be contended for in a round. What is pinned when they
    /// are parted, one side can unpin: an unpin of what the other side never saw is no loss for anybody.
    pub(super) async fn prepare_contest(&self, round: u64) {
        let first = FIRST_CONTENDED + round * CONTENDED;
        *self.arena.lock() = Arena::default();
        for number in first..first + CONTENDED {
            let (peer, wish, from) = (0, Some(FIRST_CONTENDED + number), SystemClock.now());
            let Heard { told, commit, .. } = ask(&self.cluster, peer, number, wish).await;
            let deed = Deed { peer, wish, told, commit, from, to: SystemClock.now() };
            assert_eq!((told, commit), (Told::Pinned, Some(Commit::Log)));
            self.arena.lock().deeds.entry(number).or_default().push(deed);
        }
        for peer in 0..PEERS {
            wait::until("the last of them on every peer", TURN_LIMIT, || async {
                let told = read(&self.cluster, peer, &inline_cid(first + CONTENDED - 1), true).await;
                if matches!(told, Told::Found(_)) { Ok(()) } else { Err(told) }
            })
            .await;
        }
    }

    /// Cuts the network.
    pub(super) fn cut(&self, sides: &[&[usize]]) {
        self.cluster.cut(sides).unwrap();
        let sides = sides.iter().map(|side| side.to_vec()).collect();
        let mut arena = self.arena.lock();
        arena.cut = Cut { sides, from: SystemClock.now(), to: Timestamp::from_unix_seconds(FOREVER) };
        arena.open = arena.deeds.first_key_value().map(|(first, _)| *first);
    }

    /// Heals it, when nobody contends any more: what stands then was written apart.
    pub(super) async fn heal(&self) {
        self.arena.lock().open = None;
        wait::until("the last answers to contenders", TURN_LIMIT, || async {
            let busy = self.arena.lock().busy;
            if busy == 0 { Ok(()) } else { Err(busy) }
        })
        .await;
        self.arena.lock().cut.to = SystemClock.now();
        self.cluster.heal().unwrap();
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

    /// A CID to contend for, if there are any now; [`Self::contended`] must follow.
    fn contend(&self, chance: &mut StdRng) -> Option<u64> {
        let mut arena = self.arena.lock();
        let number = arena.open? + chance.random_range(0..CONTENDED);
        arena.busy += 1;
        Some(number)
    }

    fn contended(&self, number: u64, deed: Deed) {
        let mut arena = self.arena.lock();
        arena.busy -= 1;
        arena.deeds.entry(number).or_default().push(deed);
    }

    fn count(&self, peer: usize, heard: &Heard, from: Timestamp, took: Duration) {
        let alone = self.arena.lock().cut.is_minority(peer, from);
        assert!(!alone || heard.commit != Some(Commit::Log), "peer {peer} put a write into the log without a quorum");
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
    /// Those that others want too.
    Contended,
}

/// So many writers at every peer, and one more for the contended CIDs.
pub(super) fn writers(per_peer: usize, seed: u64) -> Vec<Writer> {
    let all = (per_peer + 1) * PEERS;
    let make = |number: usize| {
        let (home, own) = (number % PEERS, number < per_peer * PEERS);
        let number = u64::try_from(number).unwrap();
        let cids = match own {
            true => Cids::Own { ledger: Ledger::default(), at_hand: Vec::new(), fresh: number << 32 },
            false => Cids::Contended,
        };
        let (chance, stride) = (StdRng::seed_from_u64(seed ^ (number + 1)), u64::try_from(all).unwrap());
        Writer { home, chance, serial: number, stride, cids }
    };
    (0..all).map(make).collect()
}

impl Writer {
    async fn write_until(&mut self, stop: &AtomicBool, world: &World) {
        while !stop.load(Ordering::Relaxed) {
            if !self.write(world).await {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Writes once; `false` if the next write should wait a moment.
    async fn write(&mut self, world: &World) -> bool {
        let chosen = match &mut self.cids {
            Cids::Own { at_hand, fresh, .. } => {
                let missing = CIDS_PER_WRITER.saturating_sub(at_hand.len());
                at_hand.extend((0_u64..).map(|offset| *fresh + offset).take(missing));
                *fresh += u64::try_from(missing).unwrap();
                Some(at_hand[self.chance.random_range(0..at_hand.len())])
            }
            Cids::Contended => world.contend(&mut self.chance),
        };
        let Some(number) = chosen else { return false };
        let (peer, wish) = (self.home, (!self.chance.random_bool(0.3)).then(|| self.next_serial()));
        let (from, started) = (SystemClock.now(), Instant::now());
        let heard = ask(&world.cluster, peer, number, wish).await;
        world.count(peer, &heard, from, started.elapsed());
        match &mut self.cids {
            Cids::Own { ledger, at_hand, .. } => {
                if !ledger.note(number, wish, heard.told) {
                    at_hand.retain(|other| *other != number);
                }
                heard.answered
            }
            Cids::Contended => {
                let Heard { told, commit, .. } = heard;
                world.contended(number, Deed { peer, wish, told, commit, from, to: SystemClock.now() });
                false
            }
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
    let ledgers = writers.iter().filter_map(|writer| match &writer.cids {
        Cids::Own { ledger, .. } => Some(ledger),
        Cids::Contended => None,
    });
    let mut events = world.events.lock().await;
    let news = events.read(&world.cluster).await;
    let (deeds, cut) = {
        let arena = world.arena.lock();
        (arena.deeds.clone(), arena.cut.clone())
    };
    ledger::judge(&world.cluster, &ledgers.collect::<Vec<_>>(), (&deeds, &cut), &news).await;
    let tallies = world.tallies();
    let committed: u64 = tallies.iter().map(|tally| tally.committed).sum();
    let eventual: u64 = tallies.iter().map(|tally| tally.eventual).sum();
    println!(
        "{committed} writes in the log, {eventual} merged later, {} lost to others; {} pins and digest {} at index {} on all peers",
        events.len(),
        state.pins,
        state.digest,
        state.applied_index
    );
}
