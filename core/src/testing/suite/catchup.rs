//! Catching up by shards, over a network in memory: every way leads to the same state, whatever goes wrong on it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use cluster_types::{PeerId, Pin, Timestamp};
use futures::{TryStreamExt, stream};
use openraft::EntryPayload;
use openraft::storage::RaftStateMachine;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::pinset::{assert_sound, cid, peer, pin_on};
use super::state::shared;
use crate::catchup::pull::IN_FLIGHT;
use crate::catchup::stage::manifest_of;
use crate::catchup::{Donor, Gather, Gathered, Pull, PullError, Stage, decode_manifest, encode_manifest};
use crate::consensus::digest::SHARDS;
use crate::consensus::log::{AppliedPosition, EffectAt, LogId, SnapshotContent, SnapshotMeta, StateMachine};
use crate::consensus::operation::{Entry, Operation, Proposed, encode_pin};
use crate::crdt::packed::{Change, pack};
use crate::crdt::{Document, Records, shard};
use crate::ports::{Changes, PinChange, Scan, StateError, StateStore, StateView, Transport};
use crate::rpc::{CallServer, PeerClient};
use crate::testing::{MemNet, MemPeer};
use crate::watch;

/// Operations of a log entry.
const OPERATIONS: u64 = 64;

/// One peer: its state, fed with a log, and its place in the network.
struct Peer<S, G> {
    id: PeerId,
    state: Arc<S>,
    kept: G,
    machine: StateMachine,
    applied: watch::Receiver<u64>,
    net: MemNet,
    network: Arc<MemPeer>,
    at: usize,
}

impl<S: StateStore, G> Peer<S, G> {
    async fn open(net: &MemNet, id: PeerId, (state, kept): (Arc<S>, G)) -> Self {
        let nothing: EffectAt = Arc::new(|_index| Arc::new(|_, _, _| None));
        let (sender, applied) = watch::channel(0);
        let mut machine = StateMachine::open(Arc::clone(&state) as _, nothing, sender).await.expect("the state opens");
        let (last, _membership) = machine.applied_state().await.expect("the position is known");
        let at = last.map_or(0, |id| usize::try_from(id.index).expect("a short log"));
        let network = net.peer(id);
        let server = Arc::new(CallServer::default());
        server.serve_shards(Arc::new(Donor::new(Arc::clone(&state) as _, applied.clone())));
        network.serve(server);
        Self { id, state, kept, machine, applied, net: net.clone(), network, at }
    }

    /// Applies the log up to `end`; its first entry has index 1.
    async fn apply(&mut self, log: &[Entry], end: usize) {
        while self.at < end {
            let count = 8.min(end - self.at);
            let entries = (self.at as u64 + 1..).zip(&log[self.at..][..count]).map(|(index, entry)| {
                let log_id = LogId::new(1.into(), index);
                Ok((openraft::Entry { log_id, payload: EntryPayload::Normal(entry.clone()) }, None))
            });
            self.machine.apply(stream::iter(entries.collect::<Vec<_>>())).await.expect("the entries are applied");
            self.at += count;
        }
    }

    /// What a snapshot of now shows, and its annex: staged at `to`.
    async fn offer<T: StateStore>(&mut self, to: &T) -> SnapshotMeta {
        let frozen = self.state.make_snapshot().await.expect("made");
        let manifest = manifest_of(&frozen).await.expect("readable");
        to.stage(self.at as u64, encode_manifest(&manifest)).await.expect("begun");
        let mut groups = frozen.annex();
        while let Some(rows) = groups.try_next().await.expect("readable") {
            to.stage_annex(rows, false).await.expect("kept");
        }
        to.stage_annex(Vec::new(), true).await.expect("kept");
        let (last_log_id, last_membership) = self.machine.applied_state().await.expect("known");
        SnapshotMeta { last_log_id, last_membership }
    }

    /// Pulls what is staged to be from `donors`; `before` is asked before each shard is kept. Returns how many bytes came.
    async fn pull(&self, donors: &[PeerId], before: Hook<'_>) -> (Result<(), PullError>, u64) {
        let overview = self.state.staged().await.expect("readable");
        let manifest = decode_manifest(&overview.manifest.expect("it was offered")).expect("sound");
        let index = AppliedPosition::decode(Some(manifest.applied())).expect("a position").index();
        let stage = Stage::new(self.state.as_ref(), &manifest, index, *self.applied.borrow());
        let (missing, _differing) = stage.missing().await.expect("compared");
        for donor in donors {
            self.network.remember(*donor, vec![self.net.address_of(*donor)]);
        }
        let client = PeerClient::new(Arc::clone(&self.network) as _);
        let bytes = AtomicU64::new(0);
        let pull = Pull {
            client: &client,
            index,
            manifest: &manifest,
            donors: &|| donors.to_vec(),
            spare: None,
            gather: &Hooked { stage, before },
            came: &|_shards, came| {
                bytes.fetch_add(came, Ordering::Relaxed);
            },
        };
        let end = pull.run(&missing).await;
        (end, bytes.into_inner())
    }

    async fn install(&mut self, meta: &SnapshotMeta) {
        self.machine.install_snapshot(meta, SnapshotContent::Staged).await.expect("installed");
        self.at = usize::try_from(*self.applied.borrow()).expect("a short log");
    }

    /// Catches up with `source` from `donors`; returns how many bytes came.
    async fn catch_up<T: StateStore, H>(&mut self, source: &mut Peer<T, H>, donors: &[PeerId]) -> u64 {
        let meta = source.offer(self.state.as_ref()).await;
        let (end, bytes) = self.pull(donors, &calm).await;
        end.expect("everything came");
        self.install(&meta).await;
        bytes
    }

    /// All records.
    async fn records(&self) -> Vec<Change> {
        let pins = self.state.scan(Scan::All { after: None });
        let pins = pins.try_filter_map(|row| std::future::ready(Ok(row.pin)));
        pins.map_ok(|pin| (pin.cid, Some(encode_pin(&pin).into()))).try_collect().await.expect("readable")
    }

    /// The canonical document of a shard.
    async fn document(&self, at: u16) -> Vec<u8> {
        let found = Arc::new(Mutex::new(Records::new()));
        let slot = Arc::clone(&found);
        let look = move |view: &dyn StateView| {
            *slot.lock() = shard::records(view, at)?;
            Ok(())
        };
        self.state.read(Box::new(look)).await.expect("readable");
        let records = std::mem::take(&mut *found.lock());
        Document::canonical(at, records).expect("records of this shard").save()
    }
}

/// Asked before a shard is kept.
type Hook<'a> = &'a (dyn Fn() -> Result<(), StateError> + Sync);

/// Nothing happens.
fn calm() -> Result<(), StateError> {
    Ok(())
}

/// Stages what it may.
struct Hooked<'a, S> {
    stage: Stage<'a, S>,
    before: Hook<'a>,
}

#[async_trait]
impl<S: StateStore> Gather for Hooked<'_, S> {
    async fn base(&self, shard: u16) -> Result<Option<u64>, StateError> {
        self.stage.base(shard).await
    }

    async fn records(&self, shard: u16) -> Result<Records, StateError> {
        self.stage.records(shard).await
    }

    async fn keep(&self, shard: u16, what: Gathered) -> Result<crate::catchup::Kept, StateError> {
        (self.before)()?;
        self.stage.keep(shard, what).await
    }
}

/// How much more came than the records take in one piece; printed.
#[expect(clippy::print_stdout, reason = "the figure is worth knowing")]
fn ratio(what: &str, bytes: u64, records: &[Change]) -> f64 {
    let least = pack(records).len();
    let ratio = bytes as f64 / least as f64;
    println!("{what}: {bytes} bytes came for {} records, which take {least} in one piece: {ratio:.2}", records.len());
    ratio
}

/// A log that puts `pins` pins and goes on changing some of them.
fn log_of(pins: u64, entries: u64, chance: &mut StdRng) -> Vec<Entry> {
    let mut log = Vec::new();
    let mut id = 0_u128;
    let mut propose = |operation| {
        id += 1;
        Proposed { id: id.to_le_bytes(), operation }
    };
    let time = |index: u64| Timestamp::from_unix_seconds(1_800_000_000 + index.cast_signed());
    let put = |number: u64, name: u32| {
        let mut pin = pin_on(number, &[1, 2, 3]);
        pin.options.name = format!("pin {number} {name}");
        Operation::Put(Box::new(pin))
    };
    for first in (0..pins).step_by(usize::try_from(OPERATIONS).unwrap_or(1)) {
        let operations = (first..(first + OPERATIONS).min(pins)).map(|number| propose(put(number, 0))).collect();
        log.push(Entry { time: time(log.len() as u64), operations });
    }
    for _ in 0..entries {
        let operations = (0..chance.random_range(1..OPERATIONS)).map(|_| {
            let number = chance.random_range(0..pins + pins / 10);
            let remove = chance.random_bool(0.2);
            propose(if remove { Operation::Remove { cid: cid(number) } } else { put(number, chance.random()) })
        });
        let operations = operations.collect();
        log.push(Entry { time: time(log.len() as u64), operations });
    }
    log
}

/// Peers that got there by the log only, as a fresh peer, from half of it, by comparing ranges, and after restarts hold
/// the same, document by document; and go on to do so.
#[expect(clippy::print_stdout, reason = "a run that failed is repeated by its seed")]
pub async fn every_way_leads_to_the_same<S, G, F, Fut, R, Reopened>(seed: u64, pins: u64, make: F, reopen: R)
where
    S: StateStore,
    F: Fn() -> Fut,
    Fut: Future<Output = (Arc<S>, G)>,
    R: Fn(Arc<S>, G) -> Reopened,
    Reopened: Future<Output = (Arc<S>, G)>,
{
    println!("seed {seed}, {pins} pins");
    let mut chance = StdRng::seed_from_u64(seed);
    let log = log_of(pins, 60, &mut chance);
    let (end, net) = (log.len() - 10, MemNet::new(seed));
    let mut by_log = Peer::open(&net, peer(1), make().await).await;
    let mut second = Peer::open(&net, peer(2), make().await).await;
    by_log.apply(&log, end).await;
    second.apply(&log, end + 4).await;

    let all = by_log.records().await;
    let mut fresh = Peer::open(&net, peer(3), make().await).await;
    let whole = fresh.catch_up(&mut by_log, &[peer(1), peer(2)]).await;
    assert!(ratio("fresh", whole, &all) < 1.5);
    let mut behind = Peer::open(&net, peer(4), make().await).await;
    behind.apply(&log, end - 12).await;
    let before: BTreeMap<_, _> = behind.records().await.into_iter().collect();
    let differs = |(cid, record): &&Change| before.get(cid) != Some(record);
    let differing: Vec<Change> = all.iter().filter(differs).cloned().collect();
    let some = behind.catch_up(&mut by_log, &[peer(1), peer(2)]).await;
    assert!(some < whole / 3, "what differs is less than all: {some} of {whole} bytes");
    assert!(ratio("behind", some, &differing) < 3.0);
    // The fresh one has no past: it cannot tell what changed, only what differs.
    let mut compared = Peer::open(&net, peer(5), make().await).await;
    compared.apply(&log, end - 12).await;
    let ranges = compared.catch_up(&mut by_log, &[peer(3)]).await;
    assert!(ranges < whole, "{ranges} of {whole} bytes");

    let Peer { state, kept, .. } = fresh;
    let mut fresh = Peer::open(&net, peer(3), reopen(state, kept).await).await;
    for further in [end, log.len()] {
        by_log.apply(&log, further).await;
        let expected = shared(by_log.state.as_ref()).await;
        let sample: Vec<u16> = (0..SHARDS).step_by(97).collect();
        let mut documents = BTreeMap::new();
        for at in &sample {
            documents.insert(*at, by_log.document(*at).await);
        }
        for other in [&mut second, &mut fresh, &mut behind, &mut compared] {
            other.apply(&log, further).await;
            if other.at == further {
                assert_eq!(shared(other.state.as_ref()).await, expected, "sums, epochs and position of {}", other.id);
                for (at, document) in &documents {
                    assert_eq!(other.document(*at).await, *document, "shard {at} of {}", other.id);
                }
            }
        }
    }
    assert_sound(fresh.state.as_ref(), &[1, 2, 3]).await;
}

/// A receiver that is killed again and again, at any point, takes no shard twice, and a newer manifest takes over what
/// the older one brought.
pub async fn a_receiver_that_is_cut_off_goes_on<S, G, F, Fut, R, Reopened>(make: F, reopen: R)
where
    S: StateStore,
    F: Fn() -> Fut,
    Fut: Future<Output = (Arc<S>, G)>,
    R: Fn(Arc<S>, G) -> Reopened,
    Reopened: Future<Output = (Arc<S>, G)>,
{
    let log = log_of(6_000, 12, &mut StdRng::seed_from_u64(7));
    let (end, net) = (log.len() - 6, MemNet::new(7));
    let mut source = Peer::open(&net, peer(1), make().await).await;
    source.apply(&log, end).await;
    let mut receiver = Peer::open(&net, peer(2), make().await).await;
    source.offer(receiver.state.as_ref()).await;
    let (kept, mut deaths) = (AtomicUsize::new(0), 0);
    let mut shards = usize::from(SHARDS);
    for left in [0, 1, 2, 5, 100, 700, 1_500, 40] {
        let before = kept.load(Ordering::Relaxed);
        let mortal = || {
            if kept.load(Ordering::Relaxed) == before + left {
                return Err(StateError::Closed);
            }
            kept.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        let (ended, _bytes) = receiver.pull(&[peer(1)], &mortal).await;
        assert!(matches!(ended, Err(PullError::Store(StateError::Closed))), "it dies");
        deaths += 1;
        let Peer { state, kept: folder, .. } = receiver;
        receiver = Peer::open(&net, peer(2), reopen(state, folder).await).await;
        let staged = receiver.state.staged().await.expect("readable");
        let (there, tried) = (staged.shards.len(), kept.load(Ordering::Relaxed));
        let lost = tried.checked_sub(there);
        assert!(lost.is_some_and(|lost| lost < IN_FLIGHT), "{there} of {tried} are there after death {deaths}");
        kept.store(there, Ordering::Relaxed);
        assert_eq!(receiver.state.pins(), 0, "the state is whole at its old index");
    }
    // The log goes on meanwhile: what is staged is brought forward by its changes.
    source.apply(&log, log.len()).await;
    let meta = source.offer(receiver.state.as_ref()).await;
    let (ended, bytes) = receiver.pull(&[peer(1)], &calm).await;
    ended.expect("everything came");
    receiver.install(&meta).await;
    assert_eq!(shared(receiver.state.as_ref()).await, shared(source.state.as_ref()).await);
    assert_sound(receiver.state.as_ref(), &[1, 2, 3]).await;
    shards -= kept.load(Ordering::Relaxed);
    let mut other = Peer::open(&net, peer(3), make().await).await;
    let whole = other.catch_up(&mut source, &[peer(1)]).await;
    assert!(bytes < whole * (shards as u64 + 600) / u64::from(SHARDS), "{bytes} of {whole} for {shards} shards");
}

/// Donors that lie, that are behind, that die: the right state comes from those that are left, and never a wrong one.
pub async fn bad_donors_do_no_harm<S, G, F, Fut>(make: F)
where
    S: StateStore,
    F: Fn() -> Fut,
    Fut: Future<Output = (Arc<S>, G)>,
{
    let log = log_of(3_000, 12, &mut StdRng::seed_from_u64(8));
    let net = MemNet::new(8);
    let [mut honest, mut liar, mut slow, mut dying] = [
        Peer::open(&net, peer(1), make().await).await,
        Peer::open(&net, peer(2), make().await).await,
        Peer::open(&net, peer(3), make().await).await,
        Peer::open(&net, peer(4), make().await).await,
    ];
    for member in [&mut honest, &mut liar, &mut dying] {
        member.apply(&log, log.len()).await;
    }
    slow.apply(&log, log.len() - 3).await;
    // Records that nobody agreed on, and no sums that tell.
    let lie = |view: &dyn StateView| {
        let mut pins = Vec::new();
        for number in (0..3_000).step_by(3) {
            let before = view.pin(&cid(number))?;
            let after = before.clone().map(|pin| Pin { max_depth: cluster_types::PinDepth(7), ..pin });
            pins.push(PinChange { cid: cid(number), before, after });
        }
        Ok(Changes { pins, ..Changes::default() })
    };
    liar.state.update(Box::new(lie)).await.expect("it lies");
    let all = [peer(1), peer(2), peer(3), peer(4)];
    for start in [0, log.len() - 9] {
        let mut receiver = Peer::open(&net, peer(10 + u8::from(start > 0)), make().await).await;
        receiver.apply(&log, start).await;
        let meta = honest.offer(receiver.state.as_ref()).await;
        let kept = AtomicUsize::new(0);
        let fragile = || {
            if kept.fetch_add(1, Ordering::Relaxed) == 200 {
                net.crash(peer(4));
            }
            Ok(())
        };
        let (ended, _bytes) = receiver.pull(&all, &fragile).await;
        ended.expect("the honest one has everything");
        receiver.install(&meta).await;
        assert_eq!(shared(receiver.state.as_ref()).await, shared(honest.state.as_ref()).await);
        assert_sound(receiver.state.as_ref(), &[1, 2, 3]).await;
    }
    let mut receiver = Peer::open(&net, peer(12), make().await).await;
    honest.offer(receiver.state.as_ref()).await;
    let (ended, _bytes) = receiver.pull(&[peer(2), peer(3)], &calm).await;
    assert!(matches!(ended, Err(PullError::NobodyServes { .. })), "nobody is left who tells the truth of all");
    let meta = honest.offer(receiver.state.as_ref()).await;
    assert!(receiver.machine.install_snapshot(&meta, SnapshotContent::Staged).await.is_err(), "it is not whole");
    assert_eq!(receiver.state.pins(), 0);
    let staged = receiver.state.staged().await.expect("readable").shards;
    let truth = honest.state.shards().await.expect("readable").0;
    for (shard, head) in staged {
        assert_eq!(head.sum, truth[usize::from(shard)].sum, "a lie was kept");
    }
}
